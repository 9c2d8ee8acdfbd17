"""Mutated folders of runs, latents, pipelines, arenas and the doctor, and what reads them.

Each input is a sound folder with one or a few of its files altered: as JSON, with values that no writer leaves, or as bytes.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzzing import Target
from PIL import Image
from safetensors.torch import save_file

from vaeworks.arena.arms import read_arm
from vaeworks.arena.claims_page import page
from vaeworks.arena.pictures import open_pictures
from vaeworks.arena.studied import read_studies
from vaeworks.arena.trial import read_result
from vaeworks.config import AutoencoderConfig, DataConfig, TrainConfig, check_asked, differences, dumps, to_dict
from vaeworks.doctor.finding import Curves, Figure, Finding, Picture
from vaeworks.doctor.record import read_finding, write_finding
from vaeworks.errors import VaeworksError
from vaeworks.formats.files import read_json
from vaeworks.formats.foreign_code import check_index, check_pipeline_folder
from vaeworks.formats.sources import find_source
from vaeworks.models.feature_nets import FEATURE_NETS
from vaeworks.precompute import LatentSet
from vaeworks.precompute.index import INDEX, STATISTICS, read_plan
from vaeworks.precompute.plan import Plan, Settings
from vaeworks.train.alarms import Alarms
from vaeworks.train.card import card
from vaeworks.train.checkpoint import METADATA_KEY, good_checkpoint, load_checkpoint, newest_checkpoint, save_checkpoint
from vaeworks.train.checkpoint import Position as At
from vaeworks.train.live import View
from vaeworks.train.log_lines import keep_log, last_look, read_log
from vaeworks.train.run import check_folder, read_run, trained_on
from vaeworks.train.run_page import RunPage, Status
from vaeworks.train.start import initial_model
from vaeworks.train.supervision import Supervisor
from vaeworks.train.trained import Trained

MODEL = AutoencoderConfig(channels=4, channel_mult=(1, 1), num_res_blocks=1, norm_groups=2, latent_channels=2, mid_attention=False)
CONFIG = TrainConfig(model=MODEL, data=DataConfig(size=16), images=4000, trackers=(), precision="fp32")

Alteration = Callable[[Path, random.Random], None]

NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 10**18, 2**70, 10**400, -(10**30), 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x" * 300,
    "evil:go", "os:getcwd", "hf:owner/name", "stream:hf:owner/name", "../../../etc/passwd", "/dev/zero", "/etc/passwd", "\x1b[31m",
    "\ud800", "procedural:1000000000000", "file:///etc/passwd", "wandb", "vgg16", [], {}, [[]], [None], [1] * 300, {"a": 1},
    [["evil", "Go"]], ["evil", "Go"], ["os", "system"], {"__class__": "x"},
)  # fmt: skip
"""Values that no writer leaves."""


# ---------------------------------------------------------------- mutations


def places(value: Any) -> list[tuple[Any, ...]]:
    """Where values are in a JSON value of any depth."""
    found: list[tuple[Any, ...]] = []
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    while waiting:
        path, item = waiting.pop()
        found.append(path)
        inner = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
        waiting += [((*path, key), below) for key, below in inner if len(path) < 20]
    return found


def altered(value: Any, rng: random.Random) -> Any:
    """A JSON value in which one to three places are other than they were."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        path = rng.choice(places(value))
        if not path:
            if rng.random() < 0.1:
                value = copy.deepcopy(rng.choice(NASTY))
            continue
        holder = functools.reduce(lambda v, key: v[key], path[:-1], value)
        kind = rng.random()
        if kind < 0.15:
            del holder[path[-1]]
        elif kind < 0.2 and isinstance(holder, dict):
            holder[rng.choice(("path", "version", "x" * 100, "network", "auto_map"))] = copy.deepcopy(rng.choice(NASTY))
        elif kind < 0.25:
            holder[path[-1]] = functools.reduce(lambda v, _: [v], range(rng.choice((3, 50, 900))), 0)
        else:
            holder[path[-1]] = copy.deepcopy(rng.choice(NASTY))
    return value


def alter_json(path: Path, rng: random.Random) -> None:
    """A JSON file altered as a value, or as bytes."""
    if rng.random() < 0.2:
        alter_bytes(path, rng)
        return
    text = json.dumps(altered(json.loads(path.read_text()), rng))
    path.write_text("[" * 20_000 + "]" * 20_000 if rng.random() < 0.01 else text)


def alter_lines(path: Path, rng: random.Random) -> None:
    """A file of JSON lines, one of which is altered."""
    lines = path.read_text().splitlines()
    for _ in range(rng.choice((1, 2, 5))):
        number = rng.randrange(len(lines))
        try:
            lines[number] = json.dumps(altered(json.loads(lines[number]), rng))
        except ValueError:
            lines[number] = "{"
    path.write_text("\n".join(lines) + "\n")


def alter_bytes(path: Path, rng: random.Random) -> None:
    """Bytes that are other, missing or repeated."""
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 4, 16))):
        place = rng.randrange(max(1, len(content)))
        kind = rng.random()
        if kind < 0.5 and content:
            content[place] = rng.randrange(256)
        elif kind < 0.7:
            del content[place : place + rng.randrange(64)]
        elif kind < 0.9:
            content[place:place] = content[place : place + rng.randrange(64)]
        else:
            del content[place:]
    path.write_bytes(bytes(content))


def alter_metadata(path: Path, key: str, rng: random.Random) -> None:
    """A safetensors file with an altered JSON value in its metadata; its tensors stay."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"][key] = json.dumps(altered(json.loads(header["__metadata__"][key]), rng))
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


# ---------------------------------------------------------------- sound folders, made once


@functools.cache
def _sound(make: Callable[[Path], None]) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-runs-"))
    make(folder)
    return folder


def _run(folder: Path) -> None:
    sides = ("train", "val")
    files = {s: [{"path": f"/x/{s}{i}.png", "digest": f"{i:064x}", "width": 40, "height": 30} for i in range(3)] for s in sides}
    data = {"source": "/x", "train_digest": "ab" * 32, "skipped": [["/x/broken", "no image"]], **files}
    (folder / "data.json").write_text(dumps(data))
    (folder / "run.json").write_text(dumps({"version": 1, "recipe": "small-f8c16", "source": "/x", "config": to_dict(CONFIG)}))
    step = {
        "loss": 0.1, "reconstruction": 0.1, "perceptual": 0.0, "kl": 2.0, "psnr": 20.0, "bits_per_dimension": 2.9, "grad_norm": 0.3,
        "lr": 1e-4,
    }  # fmt: skip
    look = {
        "val_psnr": 21.0, "val_ssim": 0.8, "latent_std": [1.0, 1.1], "posterior_std": [0.1, 0.1], "kl_per_channel": [2.0, 2.0],
        "latent_mean": [0.0, 0.0],
    }  # fmt: skip
    lines: list[dict[str, Any]] = [{"images_seen": 100 * i, **step} for i in range(1, 40)]
    lines += [{"images_seen": 1000, **look}, {"images_seen": 2000, **look, "val_psnr": 18.0}]
    lines += [{"images_seen": 2000, "event": "worse", "alarm": True, "action": None, "kind": "overfitted"}]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in sorted(lines, key=lambda line: line["images_seen"])))
    (folder / "samples").mkdir()
    for images in (1000, 2000):
        Image.new("RGB", (80, 98)).save(folder / "samples" / f"{images:010d}.png")


def _finished(folder: Path) -> None:
    from vaeworks.formats import save
    from vaeworks.models import build

    _run(folder)
    save(build(MODEL), folder / "model.safetensors")
    latents = {"num_images": 16, "mean": [0.1, 0.2], "std": [1.0, 1.1], "scaling_factor": 0.5, "shift_factor": 0.1}
    result = {
        "run": "run", "images_seen": 3900, "seconds": 60.0, "images_per_second": 65.0, "val_psnr": 18.0, "best_psnr": 21.0,
        "num_parameters": 5000, "precision": "fp32", "device": "cpu", "latents": latents,
        "finetuned": {"start": "x", "encoder_unchanged": True, "decoder_unchanged": False, "old_latents_before": 20.0,
                      "old_latents_after": 21.0, "latents_moved": 0.0, "std_before": 1.0, "std_after": 1.1, "warning": "drifted"},
    }  # fmt: skip
    (folder / "result.json").write_text(dumps(result))


def _trained() -> Trained:
    return Trained.of(initial_model(CONFIG), CONFIG, discriminator=None)


def _checkpoints(folder: Path) -> None:
    trained = _trained()
    for images in (100, 200):
        save_checkpoint(folder, trained, At(images, 1.0, Supervisor(trained, {}).to_dict()), keep=2)


def _latents(folder: Path) -> None:
    plan = Plan("m" * 64, "i" * 64, 5, "", Settings(size=16, shard_size=3))
    shards = plan.shards()
    for shard in shards:
        count = len(shard)
        save_file({"latents": torch.zeros(count, 2, 4, 4), "labels": torch.zeros(count, dtype=torch.int64)}, folder / shard.file)
        rows = [[n, f"{n}.png", f"{n:064x}"] for n in range(shard.start, shard.stop)]
        (folder / shard.names).write_text(json.dumps({"images": rows, "skipped": []}))
    save_file({"mean": torch.zeros(1, 2, 1, 1), "std": torch.ones(1, 2, 1, 1)}, folder / STATISTICS)
    index = {
        "version": 1, "complete": True, "plan": to_dict(plan), "facts": {"model": "f8c2"}, "classes": None, "skipped": [],
        "shards": [{"file": s.file, "names": s.names, "first": s.start, "last": s.stop - 1, "rows": len(s)} for s in shards],
    }  # fmt: skip
    (folder / INDEX).write_text(json.dumps(index))


def _pipeline(folder: Path) -> None:
    index = {
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.0", "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"], "safety_checker": [None, None],
        "tokenizer": ["transformers", "CLIPTokenizer"], "vae": ["diffusers", "AutoencoderKL"], "requires_safety_checker": False,
    }  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index))
    for part in ("unet", "text_encoder", "vae"):
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(json.dumps({"_class_name": "X", "in_channels": 4, "text_config": {"heads": [1, 2]}}))


def _arena(folder: Path) -> None:
    score = {"fd_real": 1.0, "fd_recon": 2.0, "kd_real": None, "recognized": None}
    trial = {"space": "s" * 64, "probe": "small", "shift": "none", "seed": 0}
    (folder / "trial").mkdir()
    result = {"trial": trial, "looks": [{"images": 10, "score": score}], "loss": 0.5, "seconds": 2.0, "parameters": 10}
    (folder / "trial" / "result.json").write_text(json.dumps(result))
    arm = {
        "name": "kl", "seed": 0, "path": "arms/kl/model.safetensors", "psnr": 20.0, "bits": None, "std": 1.0, "doctor": {"fog.x": 1.0},
        "seconds": 3.0,
    }  # fmt: skip
    (folder / "arm.json").write_text(json.dumps(arm))
    (folder / "pictures").mkdir()
    np.save(folder / "pictures" / "pixels.npy", np.zeros((4, 3, 8, 8), np.uint8))
    facts = {"digest": "d" * 64, "source": "/x", "count": 3, "classes": ["a", "b"], "labels": [0, 1, 1], "skipped": [["x", "y"]]}
    (folder / "pictures" / "pictures.json").write_text(json.dumps(facts))


def _study(folder: Path) -> None:
    interval = {"value": 1.0, "low": 0.9, "high": 1.1}
    figures = {d: dict.fromkeys(("small", "large"), interval) for d in ("fd_real", "fd_recon")}
    names = ("kl-1e-6", "kl-1e-4", "kl-1e-2")
    looks = [{"images": 10, "score": {"fd_real": 1.0, "fd_recon": 2.0}}]
    both = ("small", "large")
    trials = {
        p: [{"looks": looks, "seconds": 1.0, "trial": {"space": "s", "probe": p, "shift": "none", "seed": i}} for i in (0, 1)] for p in both
    }
    rows = [{"name": n, "trials": trials, "figures": figures, "latents": [4, 4, 4], "floor": 1.0} for n in names]
    doctor = {"scale.largest": 3.0, "smuggling.far": 1.0}
    arm = {"seed": 0, "path": "x", "psnr": 20.0, "bits": 1.0, "std": 1.0, "seconds": 1.0, "doctor": doctor}
    values = {
        "scale": {}, "correlations": [{"figure": "psnr", "rank": 0.5}], "arms": {n: [arm, arm] for n in names},
        "arena": {
            "rows": rows, "conclusive": True, "failures": [], "features": "statistics", "protocol_version": 1, "protocol": "p",
            "data": {"images": 100, "size": 32, "classes": 2, "source": "/x"},
            "config": {"probes": ["small", "large"], "seeds": [0, 1], "shifts": ["none"], "tokens": 16, "images": 100, "samples": 10},
        },
    }  # fmt: skip
    (folder / "kl").mkdir()
    (folder / "kl" / "study.json").write_text(json.dumps(values))


def _finding(folder: Path) -> None:
    finding = Finding(
        "healthy", "all is well", {"x": Figure("x", 1.0)}, pictures=(Picture("p", Image.new("RGB", (4, 4))),),
        curves=(Curves("c", {"a": ((0.0, 1.0), (1.0, 2.0))}, "x"),), tables={"t": {"a": (1.0, "b")}}, images=3,
    )  # fmt: skip
    write_finding(folder / "finding", finding, 1.0)


# ---------------------------------------------------------------- targets


def _altered_copy(sound: Callable[[Path], None], alter: Mapping[str, Alteration], rng: random.Random, folder: Path) -> Path:
    """A copy of a sound folder, with one of some files altered. alter: by pattern."""
    copy = folder / "input"
    shutil.copytree(_sound(sound), copy)
    pattern = rng.choice(list(alter))
    path = rng.choice(sorted(copy.rglob(pattern)))
    alter[pattern](path, rng)
    return copy


def _made(sound: Callable[[Path], None], alter: Mapping[str, Alteration]) -> Callable[[random.Random, Path], Path]:
    return functools.partial(_altered_copy, sound, alter)


def _allowed(*uses: Callable[[Path], object]) -> Callable[[Path | str], None]:
    """All uses of a folder, each of which may refuse it."""

    def use(path: Path | str) -> None:
        for one in uses:
            with contextlib.suppress(VaeworksError):
                one(Path(path))

    return use


def _resume(run: Path) -> None:
    record = read_run(run)
    check_folder(run, dataclasses.replace(record, config=CONFIG), resume=True)
    check_folder(run, record, resume=True)
    check_asked(record.config, FEATURE_NETS)


def _gated(run: Path) -> None:
    """What may be resumed names no code, no network and no tracker that another does not know."""
    config = read_run(run).config
    try:
        check_asked(config, FEATURE_NETS)
    except VaeworksError:
        return
    for name in (config.regularizers.alignment_network, config.adversarial.network):
        assert name is None or name in FEATURE_NETS
    assert not any("hf:" in (value or "")[:10] for value in (config.finetune.path, config.finetune.teacher, config.data.val))


def _builds(run: Path) -> None:
    """A network of an altered record: refused, or built. How much memory there is, is no question here."""
    config = read_run(run).config
    changed = differences(CONFIG.model, config.model)
    if not changed or any(type(value) is int and value > 64 for _, value in changed.values()):
        initial_model(config, blank=True)


def _log(run: Path) -> None:
    lines = read_log(run)
    Alarms(CONFIG, lines)
    view = View(CONFIG)
    for line in lines:
        view.take(line)
    view.line()
    last_look(run, 10**9)
    keep_log(run, 1500)


def _page(run: Path) -> None:
    RunPage(run, CONFIG).write(Status("stopped", 0.5))


def _bookmarks(path: Path) -> None:
    from vaeworks.data.streamed_crops import Bookmarks

    marks = Bookmarks(path / "stream.jsonl", ["x"])
    marks.before(100)


def _stream(folder: Path) -> None:
    import hashlib

    of = hashlib.sha256(json.dumps(["x"]).encode()).hexdigest()
    lines = [{"of": of, "counter": 10 * i, "epoch": 0, "block": i, "shard": i, "row": 3 * i} for i in range(1, 5)]
    (folder / "stream.jsonl").write_text("".join("\n" + json.dumps(line) for line in lines) + "\n")


def _continues(folder: Path) -> None:
    newest = newest_checkpoint(folder)
    good_checkpoint(folder, 150)
    if newest is not None:
        trained = _trained()
        Supervisor(trained, load_checkpoint(newest, trained).balance)


def _latent_set(folder: Path) -> None:
    read_plan(folder).digest  # noqa: B018
    found = LatentSet(folder)
    found.statistics()
    for index in {0, len(found) // 2, max(0, len(found) - 1)}:
        if len(found):
            found[index], found.image(index), found.latents(index)


def _index(folder: Path) -> None:
    values = read_json(folder / "model_index.json")
    check_index(values, str(folder))
    check_pipeline_folder(folder, values)
    for part, entry in values.items():
        if not part.startswith("_") and isinstance(entry, list) and any(isinstance(word, str) for word in entry):
            assert entry[0] in ("diffusers", "transformers", "stable_diffusion")


def _study_page(folder: Path) -> None:
    from vaeworks.arena.studied import whole_records

    with whole_records():
        page(read_studies(folder))


def _checkpoint_file(path: Path, rng: random.Random) -> None:
    alter_bytes(path, rng) if rng.random() < 0.4 else alter_metadata(path, METADATA_KEY, rng)


TARGETS: tuple[Target, ...] = (
    Target("run.json", _made(_run, {"run.json": alter_json}), _allowed(_resume, _gated, _builds, find_source, _page)),
    Target("data.json", _made(_run, {"data.json": alter_json}), _allowed(lambda run: "a" in trained_on(run), _page)),
    Target("log.jsonl", _made(_run, {"log.jsonl": alter_lines}), _allowed(_log, _page)),
    Target("finished run", _made(_finished, dict.fromkeys(("result.json", "run.json", "data.json"), alter_json)), _allowed(card, _page)),
    Target("stream.jsonl", _made(_stream, {"stream.jsonl": alter_lines}), _allowed(_bookmarks)),
    Target("checkpoints", _made(_checkpoints, {"*.safetensors": _checkpoint_file}), _allowed(_continues)),
    Target(
        "latents",
        _made(_latents, {"index.json": alter_json, "*shard*.json": alter_json, "*.safetensors": alter_bytes, "*.sft": alter_bytes}),
        _allowed(_latent_set),
    ),
    Target("pipeline", _made(_pipeline, {"model_index.json": alter_json, "config.json": alter_json}), _allowed(_index)),
    Target(
        "arena",
        _made(_arena, {"*.json": alter_json, "*.npy": alter_bytes}),
        _allowed(lambda f: read_result(f / "trial"), read_arm, lambda f: open_pictures(f / "pictures")),
    ),
    Target("study", _made(_study, {"study.json": alter_json}), _allowed(_study_page)),
    Target("finding", _made(_finding, {"*.json": alter_json}), _allowed(lambda f: read_finding(f / "finding"))),
)
