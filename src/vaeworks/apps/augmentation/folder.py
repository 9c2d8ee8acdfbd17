"""Write a folder of variants: provenance first, then each image atomically, at last the record of a finished set."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ...config import dumps
from ...data.table import table
from ...errors import ConfigError, FormatError
from ...files.atomic import write_picture, write_text
from ...files.locks import alone_in
from ...files.outputs import check_free
from ...files.scratch import remove
from ...images import to_pillow
from ..codes import Track
from .plan import Variant

RECORD, ROWS, TABLE = "augment.json", "provenance.jsonl", "provenance.csv"
"""The record, written last; a row per variant as JSON; the same rows as CSV."""

NEXT = ".next"
"""Subfolder for a set that replaces the finished one, until it is complete."""


def check_folder(out: Path, variants: Sequence[Variant], overwrite: bool) -> bool:
    """Whether the folder holds an unfinished set of the same variants, which `write_folder` continues.

    Errors: ConfigError where files would be replaced without `overwrite`.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; choose a folder for --out")
    if (out / RECORD).exists():
        if not overwrite:
            raise ConfigError(f"{out / RECORD} exists: the set is finished; choose another --out, or pass --overwrite")
        return False
    if (out / ROWS).exists():
        same = _is_of(out, variants)
        if not same and not overwrite:
            raise ConfigError(
                f"{out} holds an unfinished set of other images or settings; repeat that command, choose another "
                "--out, or pass --overwrite"
            )
        return same
    check_free(out, (variant.file for variant in variants), overwrite)
    return False


def _is_of(folder: Path, variants: Sequence[Variant]) -> bool:
    return (folder / ROWS).exists() and (folder / ROWS).read_text(encoding="utf-8") == _rows(variants)


def write_folder(
    out: Path,
    variants: Sequence[Variant],
    make: Callable[[Variant], Tensor],
    facts: dict[str, Any],
    overwrite: bool = False,
    track: Track = iter,
) -> int:
    """Write every variant as a PNG into the folder of its class. Returns the number of images that an interrupted call
    had written.

    make: function from a variant to its image uint8 c h w. facts: JSON values for the record. An interrupted call
    leaves complete images and their provenance; the same call continues it. A set that is replaced stays until the new
    one is complete.
    Errors: those of `check_folder`; ConfigError where another process is at work in the folder.
    """
    with alone_in(out):
        going_on = check_folder(out, variants, overwrite)
        place = out if going_on or not (out / ROWS).exists() else out / NEXT
        if place != out:
            going_on = _is_of(place, variants)
        kept = _make(place, variants, make, facts, going_on, overwrite, track)
        if place != out:
            _clear(out)
        if place != out or not (out / NEXT / ROWS).exists():  # or a call was killed while it did this
            _move_in(out, variants)
    return kept


def _make(
    place: Path,
    variants: Sequence[Variant],
    make: Callable[[Variant], Tensor],
    facts: dict[str, Any],
    going_on: bool,
    overwrite: bool,
    track: Track,
) -> int:
    if not going_on:
        if place.name == NEXT:
            remove(place)  # an incomplete replacement of an earlier call
        write_text(place / ROWS, _rows(variants))
    write_text(place / TABLE, _table(variants))
    kept = 0
    for variant in track(variants):
        if going_on and (place / variant.file).exists():
            kept += 1
            continue
        write_picture(place / variant.file, to_pillow(make(variant)), overwrite)
    write_text(place / RECORD, dumps(facts) + "\n")
    return kept


def _move_in(out: Path, variants: Sequence[Variant]) -> None:
    """Move a complete set to its place: provenance first, so that a call that is stopped here can be repeated; the
    record last."""
    for name in (ROWS, TABLE, *(variant.file for variant in variants), RECORD):
        if (out / NEXT / name).exists():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / NEXT / name).replace(out / name)
    remove(out / NEXT)


def read_rows(out: Path) -> list[dict[str, Any]]:
    """Read the provenance in a folder, a row per variant. Errors: FormatError for a file that is none."""
    try:
        rows = [json.loads(line) for line in (out / ROWS).read_text(encoding="utf-8").splitlines()]
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{out / ROWS} is no provenance of variants: {str(error)[:100]}; move it, or choose another --out"
        ) from None
    if not all(isinstance(row, dict) and isinstance(row.get("file"), str) for row in rows):
        raise FormatError(
            f"{out / ROWS} is no provenance of variants, whose rows name files; move it, or choose another --out"
        )
    return rows


def _clear(out: Path) -> None:
    """Delete the images of the earlier set, so that none is left without its provenance."""
    (out / RECORD).unlink(missing_ok=True)
    if (out / ROWS).exists():
        for row in read_rows(out):
            place = out / row["file"]
            inside = place.parent.resolve().is_relative_to(out.resolve())  # whatever links and ".." are on the way
            if inside and place.suffix == ".png" and (place.is_file() or place.is_symlink()):
                place.unlink()


def _rows(variants: Sequence[Variant]) -> str:
    return "".join(json.dumps(variant.to_dict()) + "\n" for variant in variants)


def _table(variants: Sequence[Variant]) -> str:
    """The provenance as CSV, with one column per class for its probability."""
    classes = sorted({name for variant in variants for name in variant.label})
    rows: list[Sequence[object]] = [
        [
            "file",
            "method",
            "source",
            "partner",
            "weight",
            "seed",
            "draw",
            "temperature",
            *(f"label:{name}" for name in classes),
        ]
    ]
    for v in variants:
        partner = v.sources[1] if len(v.sources) > 1 else ""
        temperature = "" if v.noise is None or v.noise.temperature is None else v.noise.temperature
        facts = (v.file, v.method, v.sources[0], partner, v.weights[0], v.seed, v.draw, temperature)
        rows.append([*facts, *(v.label.get(name, 0.0) for name in classes)])
    return table(rows)
