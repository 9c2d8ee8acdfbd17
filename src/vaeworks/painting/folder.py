"""The folder of a pipeline that is trained: the pipeline, and below `training` its run.

OUT/model_index.json, vae/, ...     the finished pipeline, as diffusers loads it
OUT/vaeworks.json                   the VAE's hash, and how its latents are standardized
OUT/README.md                       the model card
OUT/training/run.json               the record: recipe, configuration, data, VAE
OUT/training/log.jsonl              figures by images seen
OUT/training/report.html            the run's page
OUT/training/samples/               painted prompts
OUT/training/checkpoints/           states to resume from
OUT/training/start/                 the untrained pipeline, until the run is finished
OUT/training/latents/               encoded images, until the run is finished
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import PaintConfig, differences, dumps, from_dict, to_dict
from ..errors import ConfigError, FormatError
from ..files.atomic import read_json, write_text
from ..files.locks import LOCK
from ..files.scratch import remove, sweep

TRAINING = "training"

CUSTOM = "custom"
"""Recipe name of a configuration that is the caller's own."""

RUN, RESULT = "run.json", "result.json"

START, LATENTS, SAMPLES, CHECKPOINTS = "start", "latents", "samples", "checkpoints"

CHANGEABLE = (
    "images",
    "max_minutes",
    "val_every",
    "save_every",
    "log_every",
    "keep_checkpoints",
    "micro_batch",
    "gradient_checkpointing",
    "trackers",
    "device",
    "prompts",
    "guidance",
    "steps",
)
"""Settings that a resumed run may change, because they do not change what has been learned so far."""


@dataclass(frozen=True)
class PaintRecord:
    """The content of run.json."""

    recipe: str
    source: str
    caption: str | None
    """template of captions"""
    column: str | None
    """column of text"""
    vae: str
    """the VAE as it was given"""
    vae_digest: str
    """hash of its weights and configuration"""
    start: str | None
    """the pipeline that is moved, as it was given"""
    data_digest: str
    """hash of images and captions"""
    config: PaintConfig


def check_folder(out: Path, recipe: str, config: PaintConfig, resume: bool) -> PaintRecord | None:
    """Check that a folder is free for a new run, or holds the run to resume, whose record is returned.

    Errors: ConfigError.
    """
    run = out / TRAINING
    if not resume:
        if out.exists() and not out.is_dir():
            raise ConfigError(f"output folder {out} is a file; choose another --out")
        sweep(out)
        if out.is_dir() and {p.name for p in out.iterdir()} <= {LOCK, TRAINING} and not (run / RUN).exists():
            remove(run / START)  # stopped while images were encoded; those are used again
            return None
        if out.is_dir() and any(p.name != LOCK for p in out.iterdir()):
            what = "holds another run; pass --resume to continue it, or" if (run / RUN).exists() else "is not empty;"
            raise ConfigError(f"output folder {out} {what} choose another --out")
        return None
    record = read_record(out)
    if record.recipe != recipe:
        raise ConfigError(
            f"{out} holds a run of recipe {record.recipe!r}, not {recipe!r}; pass --recipe {record.recipe}, or choose "
            "another --out"
        )
    changed = {k: v for k, v in differences(record.config, config).items() if k not in CHANGEABLE}
    if changed:
        what = ", ".join(f"{name} was {a!r:.60}, now {b!r:.60}" for name, (a, b) in changed.items())
        raise ConfigError(
            f"{out} holds a run of another configuration ({what}); take its settings, or choose another --out"
        )
    return record


def check_same(record: PaintRecord, now: PaintRecord, out: Path) -> None:
    """Check that a resumed run has the VAE and the images that it began with. Errors: ConfigError."""
    if record.vae_digest != now.vae_digest:
        raise ConfigError(
            f"{out} was trained on the latents of another VAE ({record.vae}); give that one, or another --out"
        )
    if record.data_digest != now.data_digest:
        raise ConfigError(
            f"the images or captions of {now.source!r} are not those that {out} began with ({record.source!r}); give "
            "those, or another --out"
        )


def resume_command(record: PaintRecord, out: Path) -> str:
    """The command, or the call, that continues a run with its settings."""
    if record.recipe == CUSTOM:
        options = {"start": record.start, "caption": record.caption, "column": record.column}
        given = "".join(f", {name}={value!r}" for name, value in options.items() if value is not None)
        return f"train_pipeline(config, vae, {record.source!r}, {str(out)!r}{given}, resume=True)"
    words = ["vaeworks", "train-pipeline", "--recipe", record.recipe, "--vae", record.vae, "--data", record.source]
    words += ["--out", str(out)]
    for option, value in (("--from", record.start), ("--caption", record.caption), ("--column", record.column)):
        words += [] if value is None else [option, value]
    return shlex.join([*words, "--resume"])


def write_record(out: Path, record: PaintRecord) -> None:
    """Write run.json, and make the folders beside it."""
    run = out / TRAINING
    for name in (SAMPLES, CHECKPOINTS):
        (run / name).mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {"version": 1, **vars(record), "config": to_dict(record.config)}
    write_text(run / RUN, dumps(values) + "\n")


def read_record(out: Path) -> PaintRecord:
    """The record of the run in a folder.

    Errors: ConfigError where there is no run, FormatError for a file that is no record.
    """
    path = out / TRAINING / RUN
    if not path.is_file():
        raise ConfigError(f"{out} holds no run to resume; leave --resume away to start one")
    values = read_json(path)
    values.pop("version", None)
    try:
        texts = {k: v for k, v in values.items() if k != "config"}
        optional = ("caption", "column", "start")
        for name, text in texts.items():
            if not (isinstance(text, str) or (text is None and name in optional)):
                raise TypeError(f"{name} is no text")
        return PaintRecord(**texts, config=from_dict(PaintConfig, values["config"]))
    except (LookupError, TypeError, ValueError) as error:
        raise FormatError(f"{path} is not a run's record: {error}") from None
