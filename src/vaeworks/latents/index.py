"""The index of a folder of latents, and the statistics of its latents."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import from_dict, to_dict
from ..errors import ConfigError, DataError, FormatError
from ..files.atomic import atomic, read_json, write_tensors, write_text
from ..files.scratch import remove
from ..files.tensor_file import open_tensors
from .plan import LatentsPlan, Shard, check_same
from .shards import Content, is_done, read_content
from .tensors import LATENTS, LOGVAR

INDEX, STATS = "index.json", "latents_stats.pt"

STATISTICS = "latents_stats.sft"
"""The statistics that vaeworks reads. STATS has the same numbers for LightningDiT, which takes every file that ends in
.safetensors for latents and reads its statistics with PyTorch."""

VERSION = 1

MOST_SHARDS = 1_000_000
"""Most shards of a folder."""

LEAST = 1e-6
"""Smallest standard deviation of a channel, as a share of that of all channels: readers divide by it, and a dead
channel's is 0."""

SAMPLES = 10_000
"""Most images that statistics are computed from; LightningDiT's number."""


NEXT = ".next"
"""Name of a folder below a folder of latents. New latents are made there until they can replace the old ones."""

BEFORE = "before.json"
"""Name of a file in NEXT: the plan of the latents that will be replaced."""


def check_folder(folder: Path) -> None:
    """Errors: ConfigError for a file where a folder is needed."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; latents of a data set need a folder")


def place_for(folder: Path, plan: LatentsPlan, overwrite: bool) -> Path:
    """Where to write latents of this plan: `folder` itself, or NEXT below it while it holds latents that they replace.

    Errors: ConfigError for a folder with other latents, or with files that readers would take for latents.
    """
    if (folder / INDEX).exists():
        kept = read_plan(folder)
        if kept == plan:
            if _is_whole(folder / NEXT, plan):
                _replace(folder, plan)  # an earlier call was killed while it replaced them
            return folder
        if not overwrite:
            check_same(plan, kept, str(folder))
        if not _is_of(folder / NEXT, plan):
            remove(folder / NEXT)  # an earlier replacement that was never completed
        return folder / NEXT
    if strange := sorted(folder.glob("*.safetensors")):
        raise ConfigError(f"{strange[0]} would be read as a part of the latents; choose an empty folder")
    return folder


def begin(place: Path, plan: LatentsPlan, facts: dict[str, Any], classes: list[str] | None) -> None:
    """Write an index that is not complete, unless the folder already has one of this plan."""
    if not _is_of(place, plan):
        _write(place, plan, facts, classes, None, [])


def _is_of(folder: Path, plan: LatentsPlan) -> bool:
    """Whether a folder has an index of this plan."""
    try:
        return read_plan(folder) == plan
    except FormatError:
        return False


def _is_whole(folder: Path, plan: LatentsPlan) -> bool:
    return _is_of(folder, plan) and read_json(folder / INDEX).get("complete") is True


def read_plan(folder: Path) -> LatentsPlan:
    """The plan of a folder's latents. Errors: FormatError for an index that is missing, torn or of a newer version."""
    found = read_json(folder / INDEX)
    if found.get("version") != VERSION:
        raise FormatError(f"{folder / INDEX} is no index of latents that this version of vaeworks reads")
    try:
        plan = from_dict(LatentsPlan, found["plan"])
    except (KeyError, TypeError, ConfigError) as error:
        raise FormatError(f"{folder / INDEX} does not say how its latents were made: {error}") from None
    if plan.count < 0 or plan.processes < 1 or plan.settings.shard_size < 1 or plan.settings.size < 1:
        raise FormatError(f"{folder / INDEX} has a count of images, processes or sizes below what there can be")
    if plan.processes + plan.count // plan.settings.shard_size > MOST_SHARDS:
        raise FormatError(f"{folder / INDEX} plans more than {MOST_SHARDS:,} shards, more than a folder holds")
    return plan


def finish(
    folder: Path, plan: LatentsPlan, facts: dict[str, Any], classes: list[str] | None, unlisted: list[tuple[str, str]]
) -> list[Content] | None:
    """Write statistics and the complete index once all shards are there, and return the shards' contents; None before.

    Of several processes, the one that sees all shards does it. unlisted: (name, reason) of images that the plan does
    not count. Errors: DataError where no image could be encoded.
    """
    shards = plan.shards()
    if not all(is_done(folder, shard, plan) for shard in shards):
        return None
    contents = [read_content(folder, shard) for shard in shards]
    if not any(content.rows for content in contents):
        name, reason = contents[0].skipped[0]
        raise DataError(f"none of the {plan.count} images could be encoded; the first: {name}: {reason}")
    _write_stats(folder, statistics(folder, shards, [len(content.rows) for content in contents]))
    _write(folder, plan, facts, classes, contents, unlisted)
    if folder.name == NEXT:
        _replace(folder.parent, plan)
    return contents


def statistics(folder: Path, shards: list[Shard], rows: list[int]) -> dict[str, Tensor]:
    """Mean and standard deviation by channel, float32 1 c 1 1 each, of at most SAMPLES images, evenly spaced, not
    mirrored.

    Where log-variances are kept, the statistics are those of samples: variance of the means plus mean variance. The
    divisor is n - 1, as in LightningDiT. A constant channel gets LEAST times the others' deviation, or 1 where all are
    constant; a warning names it.
    """
    total = sum(rows)
    taken = min(SAMPLES, total)
    wanted = [number * total // taken for number in range(taken)]
    sums = squares = variance = torch.zeros(())
    count = begun = 0
    for shard, length in zip(shards, rows, strict=True):
        with open_tensors(folder / shard.file, framework="pt") as file:
            latents = file.get_slice(LATENTS)
            logvar = file.get_slice(LATENTS + LOGVAR) if LATENTS + LOGVAR in file.keys() else None  # noqa: SIM118
            for row in (number - begun for number in wanted if begun <= number < begun + length):
                z = latents[row : row + 1].double()
                sums, squares = sums + z.sum((0, 2, 3)), squares + z.square().sum((0, 2, 3))
                variance = (
                    variance if logvar is None else variance + logvar[row : row + 1].double().exp().sum((0, 2, 3))
                )
                count += z[0, 0].numel()
        begun += length
    mean = sums / count
    spread = (squares - count * mean.square()).clamp(min=0) / max(1, count - 1) + variance / count
    std = spread.sqrt()
    whole = spread.mean().sqrt()
    if dead := (std <= LEAST * whole).nonzero().flatten().tolist():
        warnings.warn(
            f"channels {dead} of the latents are the same everywhere: they carry nothing about the images", stacklevel=2
        )
    std = std.clamp_min(LEAST * whole.item() or 1.0)
    return {"mean": mean.float()[None, :, None, None], "std": std.float()[None, :, None, None]}


def _write(
    folder: Path,
    plan: LatentsPlan,
    facts: dict[str, Any],
    classes: list[str] | None,
    contents: list[Content] | None,
    unlisted: list[tuple[str, str]],
) -> None:
    shards = plan.shards()
    rows = [None] * len(shards) if contents is None else [len(content.rows) for content in contents]
    found = {
        "version": VERSION,
        "complete": contents is not None,
        "plan": to_dict(plan),
        "facts": facts,
        "classes": classes,
        "shards": [
            {"file": s.file, "names": s.names, "first": s.start, "last": s.stop - 1, "rows": n}
            for s, n in zip(shards, rows, strict=True)
        ],
        "skipped": None
        if contents is None
        else [*unlisted, *(entry for content in contents for entry in content.skipped)],
    }
    write_text(folder / INDEX, json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def _write_stats(folder: Path, stats: dict[str, Tensor]) -> None:
    content = io.BytesIO()
    torch.save(stats, content)  # given a path, it would store the temporary file's name
    with atomic(folder / STATS, overwrite=True) as temporary:
        temporary.write_bytes(content.getvalue())
    with atomic(folder / STATISTICS, overwrite=True) as temporary:
        write_tensors(temporary, stats)


def _replace(folder: Path, plan: LatentsPlan) -> None:
    """Move complete new latents to where the old ones are. If it is stopped, the next call finishes it.

    The index says "not complete" from the first step to the last, so that nobody reads a mixture.
    """
    new = folder / NEXT
    if not (new / BEFORE).exists():
        write_text(new / BEFORE, json.dumps(to_dict(read_plan(folder))))
    old = from_dict(LatentsPlan, read_json(new / BEFORE))
    write_text(
        folder / INDEX, json.dumps(read_json(new / INDEX) | {"complete": False}, indent=1, ensure_ascii=False) + "\n"
    )
    coming = [name for shard in plan.shards() for name in (shard.names, shard.file)] + [STATS, STATISTICS]
    for name in (name for shard in old.shards() for name in (shard.file, shard.names)):
        if name not in coming:
            (folder / name).unlink(missing_ok=True)
    for name in (*coming, INDEX):
        if (new / name).exists():
            (new / name).replace(folder / name)
    remove(new)
