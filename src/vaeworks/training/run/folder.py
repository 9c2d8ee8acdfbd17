"""The folder of a run: its record, its images, and its results.

RUN/run.json                   the record: recipe, configuration, data source
RUN/data.json                  every image and the side it is on; skipped files with the reason; of a stream only the
                               validation images
RUN/stream.jsonl               of a stream: where its blocks of images begin, so that a resumed run need not read all
RUN/log.jsonl, tensorboard/    figures by images seen
RUN/report.html                the run's page
RUN/samples/                   reconstruction grids: original, reconstruction, difference x 4
RUN/checkpoints/               states to resume from
RUN/best.safetensors           the model with the best validation PSNR so far, native layout; the statistics of its
                               latents are added when the run ends
RUN/model.safetensors          the finished model, native layout, with measured scaling_factor and shift_factor
RUN/result.json                the final figures
RUN/README.md                  the model card
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...config import TrainConfig, differences, dumps, from_dict, recorded, to_dict
from ...data import ImageFile, ImageSet, ImageStream, first_images, is_stream, open_stream, scan
from ...data.duplicates import duplicate_groups, without_copies
from ...data.image_ref import open_place
from ...data.trained_on import DATA, TrainedOn
from ...errors import ConfigError, DataError, FormatError
from ...files.atomic import read_json, write_text
from ...files.locks import LOCK
from ...files.scratch import sweep

RUN, RESULT = "run.json", "result.json"
STREAM = "stream.jsonl"

CHANGEABLE = (
    "images",
    "max_minutes",
    "val_every",
    "save_every",
    "log_every",
    "keep_checkpoints",
    "stats_images",
    "device",
    "micro_batch",
    "gradient_checkpointing",
    "channels_last",
    "data.workers",
    "data.cache_mib",
    "data.val_images",
    "compile",
    "parallel",
    "trackers",
    "license",
    "loss.perceptual_path",
    "regularizers.alignment_path",
    "adversarial.network_path",
)
"""Settings that a resumed run may change, because they do not change what has been learned so far."""

MOVABLE = ("finetune.path", "finetune.teacher")
"""Files that may have moved when a run is resumed, but not appear or vanish."""


def _matters(name: str, before: Any, now: Any) -> bool:
    """Whether a resumed run must not change this setting from the one value to the other."""
    return name not in CHANGEABLE and not (name in MOVABLE and before is not None and now is not None)


@dataclass(frozen=True)
class RunRecord:
    """The content of run.json."""

    recipe: str
    source: str
    config: TrainConfig


def check_folder(out: Path, record: RunRecord, resume: bool) -> None:
    """Check that a folder is free for a new run, or holds the run to resume; changes nothing.

    Errors: ConfigError for a folder that is not empty, for nothing to resume, or for a run of another configuration.
    """
    if not resume:
        if out.exists() and not out.is_dir():
            raise ConfigError(f"output folder {out} is a file; choose another --out")
        sweep(out)
        if out.is_dir() and any(p.name != LOCK for p in out.iterdir()):
            what = "holds another run; pass --resume to continue it, or" if (out / RUN).exists() else "is not empty;"
            raise ConfigError(f"output folder {out} {what} choose another --out")
        return
    stored = read_run(out)
    if stored.recipe != record.recipe:
        raise ConfigError(f"{out} holds a run of recipe {stored.recipe!r}, not {record.recipe!r}; choose another --out")
    changed = {name: pair for name, pair in differences(stored.config, record.config).items() if _matters(name, *pair)}
    if changed:
        what = ", ".join(f"{name} was {_said(a)}, now {_said(b)}" for name, (a, b) in changed.items())
        raise ConfigError(
            f"{out} holds a run of another configuration ({what}); take its settings, or choose another --out"
        )


def _said(value: Any) -> str:
    """A setting in a message: unprintable texts are escaped, long values are cut."""
    text = (
        value
        if isinstance(value, str) and value.isprintable()
        else str(value)
        if isinstance(value, (int, float))
        else repr(value)
    )
    return text if len(text) <= 100 else f"{text[:100]}..."


def claim_folder(
    out: Path, record: RunRecord, train: ImageSet | ImageStream, val: ImageSet, before: TrainedOn | None = None
) -> None:
    """Write the record of the run and the list of its images.

    before: what the model that the run starts from was trained on.

    Errors: VaeworksError where the folder cannot be written.
    """
    files: dict[str, Any] = {
        "source": record.source,
        "train_digest": train.digest,
        "skipped": [list(s) for s in train.skipped],
        "train": [_file(f) for f in train.files],
        "val": [_file(f) for f in val.files],
    }
    if isinstance(train, ImageStream):
        files["streamed"] = {"shards": train.shards.count, "val_fraction": train.val_fraction}
    if before is not None:
        files["before"] = before.to_dict()
    values = {"version": 1, "recipe": record.recipe, "source": record.source, "config": to_dict(record.config)}
    write_text(out / DATA, dumps(files) + "\n")
    write_text(out / RUN, dumps(values) + "\n")
    for folder in ("checkpoints", "samples"):
        (out / folder).mkdir(exist_ok=True)


def read_run(out: Path) -> RunRecord:
    """The record of the run in a folder.

    Code and network places that it names are used only after a user has repeated them (config/recorded.py).
    Errors: ConfigError where there is no run, FormatError for a file that is no record.
    """
    if not (out / RUN).is_file():
        raise ConfigError(f"{out} holds no run to resume; leave --resume away to start one")
    values = read_json(out / RUN)
    if (text := next(filter(CONTROL.search, _texts(values)), None)) is not None:
        raise FormatError(f"{out / RUN} has control characters in {text[:50]!r}, which no run's record has")
    try:
        return RunRecord(
            _text(values["recipe"]), _text(values["source"]), recorded(from_dict(TrainConfig, values["config"]))
        )
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise FormatError(f"{out / RUN} is not a run's record: {error}") from None


CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters, which terminals obey. Values of a record become defaults of options, which help prints."""


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        waiting += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.50} is no text")
    return value


def read_data(out: Path) -> dict[str, Any]:
    """The images of the run in a folder, as data.json has them.

    Errors: FormatError for a file that is missing or lists something else.
    """
    values = read_json(out / DATA)
    for side in ("train", "val"):
        if not isinstance(files := values.get(side), list) or not all(map(_is_file, files)):
            raise FormatError(f"{out / DATA} does not list the images of {side!r} by path, digest, width and height")
    skipped, streamed = values.get("skipped", []), values.get("streamed")
    if not isinstance(skipped, list) or not all(
        isinstance(s, list) and [type(t) for t in s] == [str, str] for s in skipped
    ):
        raise FormatError(f"{out / DATA} does not list what was skipped as [path, reason]")
    if streamed is not None and not (isinstance(streamed, dict) and type(streamed.get("val_fraction")) in (int, float)):
        raise FormatError(f"{out / DATA} does not say which share of its stream is held out")
    return values


def read_result(out: Path) -> dict[str, Any]:
    """The final figures of the run in a folder; {} before its end.

    Errors: FormatError for a file with other content.
    """
    if not (out / RESULT).is_file():
        return {}
    values = read_json(out / RESULT)
    latents = values.get("latents")
    scale = latents.get("scaling_factor") if isinstance(latents, dict) else None
    counts = [values.get(name) for name in ("images_seen", "num_parameters")]
    figures = [values.get(name) for name in ("seconds", "images_per_second")]
    if not (
        all(type(n) is int and _in_range(n) for n in counts)
        and all(map(_in_range, figures))
        and scale != 0
        and _in_range(abs(scale) if isinstance(scale, (int, float)) else scale)
        and isinstance(values.get("precision"), str)
    ):
        raise FormatError(f"{out / RESULT} does not hold the figures that a run ends with")
    return values


def _in_range(value: Any) -> bool:
    """Whether a value is a number in [0, 2^63)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_file(values: Any) -> bool:
    return (
        isinstance(values, dict)
        and all(isinstance(values.get(name), str) for name in ("path", "digest"))
        and all(type(side := values.get(name)) is int and 0 < side < 2**31 for name in ("width", "height"))
    )


def split_data(
    config: TrainConfig, source: str, out: Path, track: Callable[..., Any] | None = None
) -> tuple[ImageSet | ImageStream, ImageSet, list[str]]:
    """Training and validation images, and sentences about them. track: as `progress` of `scan`.

    Errors: DataError for a source without usable images, or with other images than the run in `out` started with.
    """
    given = None
    if is_stream(source) and config.model.in_channels == 2:
        raise DataError(f"{source!r} has no pictures of two channels; a model of in_channels (=2) takes stereo:SRC")
    if config.data.val is not None:
        smallest = config.model.downsample_factor
        streamed = is_stream(config.data.val)
        given = (
            first_images(config.data.val, config.data.val_images, smallest)
            if streamed
            else scan(config.data.val, smallest)
        )
    split = _split_stream if is_stream(source) else partial(_split_set, track=track)
    train, val, told = split(config, source, given)
    if (out / DATA).is_file() and (before := str(read_json(out / DATA).get("train_digest", ""))) != train.digest:
        raise DataError(
            f"the images in {source!r} are not those that the run started with (digest {before[:8]}, now "
            f"{train.digest[:8]})"
        )
    told += [f"skipped {path}: {reason}" for path, reason in train.skipped[:5]]
    if flattened := sum(bool(file.alpha) for file in train.files):
        told.append(f"{flattened:,} of the training images have transparency, and are laid on white")
    if len(train.skipped) > 5:
        told.append(f"skipped {len(train.skipped) - 5} more, listed in {out / DATA}")
    if not val.files:
        told.append("no image is held out, so nothing is validated: raise data.val-fraction, or give data.val a folder")
    return train, val, told


def _split_set(
    config: TrainConfig, source: str, given: ImageSet | None, track: Callable[..., Any] | None
) -> tuple[ImageSet, ImageSet, list[str]]:
    images = scan(source, config.data.size, track)
    told = []
    if given is None:
        train, val = images.split(config.data.val_fraction)
        if copies := sum(len(group) - 1 for group in duplicate_groups(images.files)):
            told.append(f"{copies:,} images look like others (saved again?); such images are on one side of the split")
    else:
        new = without_copies(images.files, given.files)
        train = ImageSet(source, new, images.skipped + given.skipped)
        val = given
        if left_out := len(images.files) - len(train.files):
            told.append(f"{left_out:,} training images left out, because they are validation images as well")
    if not train.files:
        raise DataError(
            f"all {len(images.files)} images of {source!r} are held out; lower data.val-fraction "
            f"(={config.data.val_fraction})"
        )
    for file in (*train.files[:1], *val.files[:1]):
        try:
            open_place(
                file.path, config.model.in_channels
            )  # a wrong number of channels is found before a folder is made
        except DataError as error:
            raise DataError(f"{file.path}: {error}") from None
    told.append(
        f"{len(train.files):,} training images, {len(val.files):,} held out"
        + (" by content hash" if given is None else "")
    )
    return train, val, told


def _split_stream(config: TrainConfig, source: str, given: ImageSet | None) -> tuple[ImageStream, ImageSet, list[str]]:
    if given is not None:
        stream = open_stream(source, 0.0, frozenset(file.digest for file in given.files))
        return stream, given, [f"training images as they come, {len(given.files):,} held out"]
    stream = open_stream(source, config.data.val_fraction)
    val = stream.held_out(config.data.val_images, config.data.size)
    share = (
        f"of which a share of {config.data.val_fraction:g} is held out by content hash, and its first "
        f"{len(val.files):,} validated"
    )
    return stream, val, [f"training images as they come, {share}"]


def _file(file: ImageFile) -> dict[str, Any]:
    return {"path": str(file.path), "digest": file.digest, "width": file.width, "height": file.height}
