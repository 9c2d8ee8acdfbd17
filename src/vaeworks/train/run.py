"""The folder of a run: what it was asked to do, on which files, and how it goes on.

RUN/run.json                 recipe, configuration, data source: the record
RUN/data.json                every file, the side it is on, what was skipped and why
RUN/log.jsonl, tensorboard/  figures by images seen
RUN/samples/                 reconstruction grids: original, reconstruction, difference x 4
RUN/checkpoints/             to continue from
RUN/best.safetensors         the average weights with the best validation PSNR so far, native layout; statistics when the run ends
RUN/model.safetensors        the finished model, native layout, with measured scaling_factor and shift_factor
RUN/result.json              the figures it ended with
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import TrainConfig, differences, dumps, from_dict, to_dict
from ..data import ImageFile, ImageSet, scan
from ..errors import ConfigError, DataError, FormatError
from ..formats.files import read_json, write_text

RUN, DATA, RESULT, BEST = "run.json", "data.json", "result.json", "best.safetensors"

CHANGEABLE = (
    "images", "max_minutes", "val_every", "save_every", "log_every", "keep_checkpoints", "stats_images", "device",
    "micro_batch", "gradient_checkpointing", "channels_last", "data.workers", "data.cache_mib", "data.val_images",
)  # fmt: skip
"""Settings that a continued run may change: they do not change what has been learned so far."""


@dataclass(frozen=True)
class RunRecord:
    """What run.json holds."""

    recipe: str
    source: str
    config: TrainConfig


def check_folder(out: Path, record: RunRecord, resume: bool) -> None:
    """Check that a folder is free for a new run, or holds the run to continue; changes nothing.

    Errors: ConfigError for a folder that is not empty, for nothing to resume, or for a run of another configuration.
    """
    if not resume:
        if out.exists() and not out.is_dir():
            raise ConfigError(f"output folder {out} is a file; choose another --out")
        if out.is_dir() and any(out.iterdir()):
            what = "holds another run; pass --resume to continue it, or" if (out / RUN).exists() else "is not empty;"
            raise ConfigError(f"output folder {out} {what} choose another --out")
        return
    stored = read_run(out)
    if stored.recipe != record.recipe:
        raise ConfigError(f"{out} holds a run of recipe {stored.recipe!r}, not {record.recipe!r}; choose another --out")
    changed = {k: v for k, v in differences(stored.config, record.config).items() if k not in CHANGEABLE}
    if changed:
        what = ", ".join(f"{name} was {a}, now {b}" for name, (a, b) in changed.items())
        raise ConfigError(f"{out} holds a run of another configuration ({what}); take its settings, or choose another --out")


def claim_folder(out: Path, record: RunRecord, train: ImageSet, val: ImageSet) -> None:
    """Write down what the run is and on which files.

    Errors: VaeworksError where the folder cannot be written.
    """
    files = {
        "source": record.source, "train_digest": train.digest, "skipped": [list(s) for s in train.skipped],
        "train": [_file(f) for f in train.files], "val": [_file(f) for f in val.files],
    }  # fmt: skip
    values = {"version": 1, "recipe": record.recipe, "source": record.source, "config": to_dict(record.config)}
    write_text(out / DATA, dumps(files) + "\n")
    write_text(out / RUN, dumps(values) + "\n")
    for folder in ("checkpoints", "samples"):
        (out / folder).mkdir(exist_ok=True)


def read_run(out: Path) -> RunRecord:
    """The record of the run in a folder.

    Errors: ConfigError where there is none.
    """
    if not (out / RUN).is_file():
        raise ConfigError(f"{out} holds no run to resume; leave --resume away to start one")
    values = read_json(out / RUN)
    try:
        return RunRecord(values["recipe"], values["source"], from_dict(TrainConfig, values["config"]))
    except (LookupError, TypeError, ValueError) as error:
        raise FormatError(f"{out / RUN} is not a run's record: {error}") from None


def trained_on(model: Path) -> set[str]:
    """Content digests of the images that a run was trained on; empty for a path that is no run."""
    if not (model / DATA).is_file():
        return set()
    return {file["digest"] for file in read_json(model / DATA).get("train", [])}


def split_data(config: TrainConfig, source: str, out: Path) -> tuple[ImageSet, ImageSet, list[str]]:
    """Training and validation images, and what people should know about them.

    Errors: DataError for a source without usable images, or for one that is not what the run in `out` started with.
    """
    images = scan(source, min_side=config.data.size)
    told = []
    if config.data.val is not None:
        val = scan(config.data.val, min_side=config.model.downsample_factor)
        judged = {file.digest for file in val.files}
        train = ImageSet(source, tuple(f for f in images.files if f.digest not in judged), images.skipped + val.skipped)
        if left_out := len(images.files) - len(train.files):
            told.append(f"{left_out:,} training images left out, because they are validation images as well")
    else:
        train, val = images.split(config.data.val_fraction)
    if not train.files:
        raise DataError(f"all {len(images.files)} images of {source!r} are held out; lower data.val-fraction (={config.data.val_fraction})")
    if (out / DATA).is_file() and (before := read_json(out / DATA).get("train_digest", "")) != train.digest:
        raise DataError(f"the images in {source!r} are not those that the run started with (digest {before[:8]}, now {train.digest[:8]})")
    told.append(
        f"{len(train.files):,} training images, {len(val.files):,} held out" + (" by content hash" if config.data.val is None else "")
    )
    told += [f"skipped {path}: {reason}" for path, reason in train.skipped[:5]]
    if len(train.skipped) > 5:
        told.append(f"skipped {len(train.skipped) - 5} more, listed in {out / DATA}")
    if not val.files:
        told.append("no image is held out, so nothing is validated: raise data.val-fraction, or give data.val a folder")
    return train, val, told


def _file(file: ImageFile) -> dict[str, Any]:
    return {**dataclasses.asdict(file), "path": str(file.path)}
