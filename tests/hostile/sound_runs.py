"""Small sound folders, as writers leave them, to be altered: runs, checkpoints, latents, a pipeline, an arena, a study,
a finding."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from vaeworks.config import AutoencoderConfig, DataConfig, TrainConfig, dumps, to_dict
from vaeworks.doctor.finding import Curves, Figure, Finding, Picture
from vaeworks.doctor.serialization import write_finding
from vaeworks.formats import save
from vaeworks.latents.index import INDEX, STATISTICS
from vaeworks.latents.plan import LatentsPlan, Settings
from vaeworks.models import build
from vaeworks.training.gan.supervisor import Supervisor
from vaeworks.training.run.checkpoint import Position, save_checkpoint
from vaeworks.training.run.init import initial_model
from vaeworks.training.state import TrainState

MODEL = AutoencoderConfig(
    channels=4, channel_mult=(1, 1), num_res_blocks=1, norm_groups=2, latent_channels=2, mid_attention=False
)
CONFIG = TrainConfig(model=MODEL, data=DataConfig(size=16), images=4000, trackers=(), precision="fp32")


def run_folder(folder: Path) -> None:
    """A run that goes on: record, images, log, samples."""
    sides = ("train", "val")
    files = {
        s: [{"path": f"/x/{s}{i}.png", "digest": f"{i:064x}", "width": 40, "height": 30} for i in range(3)]
        for s in sides
    }
    data = {"source": "/x", "train_digest": "ab" * 32, "skipped": [["/x/broken", "no image"]], **files}
    (folder / "data.json").write_text(dumps(data))
    (folder / "run.json").write_text(
        dumps({"version": 1, "recipe": "small-f8c16", "source": "/x", "config": to_dict(CONFIG)})
    )
    step = {
        "loss": 0.1,
        "reconstruction": 0.1,
        "perceptual": 0.0,
        "kl": 2.0,
        "psnr": 20.0,
        "bits_per_dimension": 2.9,
        "grad_norm": 0.3,
        "lr": 1e-4,
    }
    look = {
        "val_psnr": 21.0,
        "val_ssim": 0.8,
        "latent_std": [1.0, 1.1],
        "posterior_std": [0.1, 0.1],
        "kl_per_channel": [2.0, 2.0],
        "latent_mean": [0.0, 0.0],
    }
    lines: list[dict[str, Any]] = [{"images_seen": 100 * i, **step} for i in range(1, 40)]
    lines += [{"images_seen": 1000, **look}, {"images_seen": 2000, **look, "val_psnr": 18.0}]
    lines += [{"images_seen": 2000, "event": "worse", "alarm": True, "action": None, "kind": "overfitted"}]
    (folder / "log.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in sorted(lines, key=lambda line: line["images_seen"]))
    )
    (folder / "samples").mkdir()
    for images in (1000, 2000):
        Image.new("RGB", (80, 98)).save(folder / "samples" / f"{images:010d}.png")


def finished_run(folder: Path) -> None:
    """The same with its model and its figures."""
    run_folder(folder)
    save(build(MODEL), folder / "model.safetensors")
    latents = {"num_images": 16, "mean": [0.1, 0.2], "std": [1.0, 1.1], "scaling_factor": 0.5, "shift_factor": 0.1}
    result = {
        "run": "run",
        "images_seen": 3900,
        "seconds": 60.0,
        "images_per_second": 65.0,
        "val_psnr": 18.0,
        "best_psnr": 21.0,
        "num_parameters": 5000,
        "precision": "fp32",
        "device": "cpu",
        "latents": latents,
        "finetuned": {
            "start": "x",
            "encoder_unchanged": True,
            "decoder_unchanged": False,
            "old_latents_before": 20.0,
            "old_latents_after": 21.0,
            "latents_moved": 0.0,
            "std_before": 1.0,
            "std_after": 1.1,
            "warning": "drifted",
        },
    }
    (folder / "result.json").write_text(dumps(result))


def new_trained() -> TrainState:
    """What CONFIG trains, before its first step."""
    return TrainState.of(initial_model(CONFIG), CONFIG, discriminator=None)


def checkpoints(folder: Path) -> None:
    """Two checkpoints."""
    trained = new_trained()
    for images in (100, 200):
        save_checkpoint(folder, trained, Position(images, 1.0, Supervisor(trained, {}).to_dict()), keep=2)


def latents(folder: Path) -> None:
    """Latents of five images in two shards."""
    plan = LatentsPlan("m" * 64, "i" * 64, 5, "", Settings(size=16, shard_size=3))
    shards = plan.shards()
    for shard in shards:
        count = len(shard)
        save_file(
            {"latents": torch.zeros(count, 2, 4, 4), "labels": torch.zeros(count, dtype=torch.int64)},
            folder / shard.file,
        )
        rows = [[n, f"{n}.png", f"{n:064x}"] for n in range(shard.start, shard.stop)]
        (folder / shard.names).write_text(json.dumps({"images": rows, "skipped": []}))
    save_file({"mean": torch.zeros(1, 2, 1, 1), "std": torch.ones(1, 2, 1, 1)}, folder / STATISTICS)
    index = {
        "version": 1,
        "complete": True,
        "plan": to_dict(plan),
        "facts": {"model": "f8c2"},
        "classes": None,
        "skipped": [],
        "shards": [
            {"file": s.file, "names": s.names, "first": s.start, "last": s.stop - 1, "rows": len(s)} for s in shards
        ],
    }
    (folder / INDEX).write_text(json.dumps(index))


def pipeline(folder: Path) -> None:
    """The configurations of a pipeline, without weights."""
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.0",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "safety_checker": [None, None],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "vae": ["diffusers", "AutoencoderKL"],
        "requires_safety_checker": False,
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    for part in ("unet", "text_encoder", "vae"):
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(
            json.dumps({"_class_name": "X", "in_channels": 4, "text_config": {"heads": [1, 2]}})
        )


def arena(folder: Path) -> None:
    """A trial's result, an arm's record, and pictures."""
    score = {"fd_real": 1.0, "fd_recon": 2.0, "kd_real": None, "recognized": None}
    trial = {"space": "s" * 64, "probe": "small", "shift": "none", "seed": 0}
    (folder / "trial").mkdir()
    result = {"trial": trial, "looks": [{"images": 10, "score": score}], "loss": 0.5, "seconds": 2.0, "parameters": 10}
    (folder / "trial" / "result.json").write_text(json.dumps(result))
    arm = {
        "name": "kl",
        "seed": 0,
        "path": "arms/kl/model.safetensors",
        "psnr": 20.0,
        "bits": None,
        "std": 1.0,
        "doctor": {"fog.x": 1.0},
        "seconds": 3.0,
    }
    (folder / "arm.json").write_text(json.dumps(arm))
    (folder / "pictures").mkdir()
    np.save(folder / "pictures" / "pixels.npy", np.zeros((4, 3, 8, 8), np.uint8))
    facts = {
        "digest": "d" * 64,
        "source": "/x",
        "count": 3,
        "classes": ["a", "b"],
        "labels": [0, 1, 1],
        "skipped": [["x", "y"]],
    }
    (folder / "pictures" / "pictures.json").write_text(json.dumps(facts))


def study(folder: Path) -> None:
    """A study's record."""
    interval = {"value": 1.0, "low": 0.9, "high": 1.1}
    figures = {d: dict.fromkeys(("small", "large"), interval) for d in ("fd_real", "fd_recon")}
    names = ("kl-1e-6", "kl-1e-4", "kl-1e-2")
    looks = [{"images": 10, "score": {"fd_real": 1.0, "fd_recon": 2.0}}]
    both = ("small", "large")
    trials = {
        p: [
            {"looks": looks, "seconds": 1.0, "trial": {"space": "s", "probe": p, "shift": "none", "seed": i}}
            for i in (0, 1)
        ]
        for p in both
    }
    rows = [{"name": n, "trials": trials, "figures": figures, "latents": [4, 4, 4], "floor": 1.0} for n in names]
    doctor = {"scale.largest": 3.0, "smuggling.far": 1.0}
    arm = {"seed": 0, "path": "x", "psnr": 20.0, "bits": 1.0, "std": 1.0, "seconds": 1.0, "doctor": doctor}
    values = {
        "scale": {},
        "correlations": [{"figure": "psnr", "rank": 0.5}],
        "arms": {n: [arm, arm] for n in names},
        "arena": {
            "rows": rows,
            "conclusive": True,
            "failures": [],
            "features": "statistics",
            "protocol_version": 1,
            "protocol": "p",
            "data": {"images": 100, "size": 32, "classes": 2, "source": "/x"},
            "config": {
                "probes": ["small", "large"],
                "seeds": [0, 1],
                "shifts": ["none"],
                "tokens": 16,
                "images": 100,
                "samples": 10,
            },
        },
    }
    (folder / "kl").mkdir()
    (folder / "kl" / "study.json").write_text(json.dumps(values))


def finding(folder: Path) -> None:
    """A finding of the doctor, with a picture."""
    finding = Finding(
        "healthy",
        "all is well",
        {"x": Figure("x", 1.0)},
        pictures=(Picture("p", Image.new("RGB", (4, 4))),),
        curves=(Curves("c", {"a": ((0.0, 1.0), (1.0, 2.0))}, "x"),),
        tables={"t": {"a": (1.0, "b")}},
        images=3,
    )
    write_finding(folder / "finding", finding, 1.0)


def stream(folder: Path) -> None:
    """Bookmarks of a stream."""
    of = hashlib.sha256(json.dumps(["x"]).encode()).hexdigest()
    lines = [{"of": of, "counter": 10 * i, "epoch": 0, "block": i, "shard": i, "row": 3 * i} for i in range(1, 5)]
    (folder / "stream.jsonl").write_text("".join("\n" + json.dumps(line) for line in lines) + "\n")
