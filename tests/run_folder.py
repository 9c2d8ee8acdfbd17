"""Run folders for tests, as a training run leaves them, without training."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from configs import TINY
from PIL import Image

from vaeworks.config import DataConfig, TrainConfig, dumps, to_dict
from vaeworks.data import scan
from vaeworks.files.atomic import write_picture, write_text
from vaeworks.formats import save
from vaeworks.models import build
from vaeworks.training.latent_stats import LatentStats
from vaeworks.training.monitor.log import RunLog
from vaeworks.training.run.folder import RunRecord, claim_folder
from vaeworks.training.validation import validate, validation_images

CONFIG = TrainConfig(
    model=TINY, data=DataConfig(size=16, val_fraction=0.4), images=4000, val_every=1000, trackers=(), precision="fp32"
)


def make_images(folder: Path) -> Path:
    """Ten gradients of different sizes, and a file that is no image."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(10):
        ramp = np.linspace(0, 200, 24 + 2 * i)[:, None, None] * rng.random(3) + rng.normal(0, 3, (24 + 2 * i, 30, 3))
        Image.fromarray(ramp.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    (folder / "broken <b>.png").write_bytes(b"no image")
    return folder


def start_run(root: Path, config: TrainConfig = CONFIG, recipe: str = "custom") -> Path:
    """A run folder before its first step."""
    root.mkdir(parents=True, exist_ok=True)
    source = make_images(root / "dogs") if not (root / "dogs").exists() else root / "dogs"
    train, val = scan(source).split(config.data.val_fraction)
    claim_folder(root / "run", RunRecord(recipe, str(source), config), train, val)
    return root / "run"


def go_on(
    run: Path, log: RunLog, config: TrainConfig, looks: int = 4, more: Any = lambda t: {}, psnr: Any = None
) -> None:
    """Steps and looks at an untrained model, whose figures are made up in part. more: further figures of a step at a
    share of the run."""
    rng = random.Random(0)
    torch.manual_seed(0)
    vae = build(config.model)
    _, val = scan(run.parent / "dogs").split(config.data.val_fraction)
    images = validation_images(vae, val.files, 4)
    for i in range(looks * 10 + 1):
        seen = i * 100
        if i:
            log.live(seen, seen / config.images)
            figures = {
                "loss": 0.1 + 0.05 * rng.random(),
                "reconstruction": 0.1,
                "perceptual": 0.0,
                "kl": 2.0,
                "psnr": 20 + rng.random(),
            }
            log.step(
                seen, {**figures, "bits_per_dimension": 2.9, "grad_norm": 0.3, "lr": 1e-4, **more(seen / config.images)}
            )
        if i % 10 == 0:
            looked = validate(vae, images)
            write_picture(run / "samples" / f"{seen:010d}.png", looked.picture)
            log.look(seen, looked if psnr is None else dataclasses.replace(looked, psnr=psnr(seen)))


def finish_run(run: Path, config: TrainConfig = CONFIG, **more: Any) -> None:
    """The model and the figures that a run ends with."""
    torch.manual_seed(0)
    vae = build(config.model)
    c = config.model.latent_channels
    stats = LatentStats(16, (0.25,) * c, (2.0,) * c, 0.5, 0.25)
    vae.config = stats.applied_to(vae.config)
    save(vae, run / "model.safetensors", overwrite=True)
    result = {
        "run": str(run),
        "images_seen": 4000,
        "seconds": 5400.0,
        "images_per_second": 0.74,
        "val_psnr": 10.0,
        "best_psnr": 25.5,
        "num_parameters": vae.num_parameters,
        "precision": "fp32",
        "device": "cpu",
        "latents": dataclasses.asdict(stats),
        **more,
    }
    write_text(run / "result.json", dumps({**result, "config": to_dict(config)}) + "\n")
