"""Square images of one size, made alike once and kept in a mapped file, with their classes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..config import dumps
from ..errors import DataError, FormatError
from ..files.arrays import read_array
from ..files.atomic import atomic, map_file, read_json, write_text
from ..images import square
from . import ImageSet
from .image_ref import open_place

PIXELS, FACTS = "pixels.npy", "pictures.json"

Progress = Callable[[int, int], None]
"""Is told how many are done, and of how many."""


@dataclass(frozen=True, eq=False)
class SquareImages:
    """Squares, and their classes."""

    pixels: np.ndarray
    """uint8, n c size size, mapped"""
    labels: Tensor
    """numbers of classes: n, int64; 0 where there are none"""
    classes: tuple[str, ...]
    """names; () where there are none"""
    digest: str
    """of images, size and labels"""
    source: str
    skipped: tuple[tuple[str, str], ...] = ()
    """(name, reason) of images that could not be read"""

    @property
    def count(self) -> int:
        """Images."""
        return len(self.pixels)

    @property
    def size(self) -> int:
        """Side of the squares, in pixels."""
        return int(self.pixels.shape[-1])

    def batch(self, rows: Sequence[int] | np.ndarray | slice) -> Tensor:
        """Some of them: uint8 n c size size."""
        return torch.from_numpy(np.array(self.pixels[rows]))  # a copy, which may be written to


def prepare(
    images: ImageSet,
    folder: Path,
    size: int,
    channels: int,
    labels: Sequence[str] | None,
    progress: Progress | None = None,
) -> SquareImages:
    """Read every image once, as the middle square of `size` pixels, into a folder; what is there of the same images is
    taken.

    labels: a class per image. Errors: DataError where fewer than two can be read; VaeworksError where the disk is full.
    """
    key = hashlib.sha256(
        json.dumps([images.digest, size, channels, None if labels is None else list(labels)]).encode()
    ).hexdigest()
    place = folder / key[:16]
    if not (place / FACTS).exists():
        with atomic(place, overwrite=True) as temporary:
            temporary.mkdir()
            _read(images, temporary, size, channels, labels, key, progress)
    return open_pictures(place)


def _read(
    images: ImageSet,
    folder: Path,
    size: int,
    channels: int,
    labels: Sequence[str] | None,
    key: str,
    progress: Progress | None,
) -> None:
    total = len(images.files)
    pixels = map_file(folder / PIXELS, (total, channels, size, size), np.uint8)
    kept: list[int] = []
    skipped = [(str(name), reason) for name, reason in images.skipped]
    for number, file in enumerate(images.files):
        try:
            pixels[len(kept)] = square(open_place(file.path, channels), size).numpy()
            kept.append(number)
        except DataError as error:
            skipped.append((str(file.path), str(error)))
        if progress:
            progress(number + 1, total)
    if len(kept) < 2:
        raise DataError(
            f"{len(kept)} of {total} images in {images.source!r} can be read; at least two are needed"
            + (f"; {skipped[0]}" if skipped else "")
        )
    pixels.flush()
    classes = sorted({labels[n] for n in kept}) if labels is not None else []
    numbers = [classes.index(labels[n]) for n in kept] if labels is not None else [0] * len(kept)
    facts = {
        "digest": key,
        "source": images.source,
        "count": len(kept),
        "classes": classes,
        "labels": numbers,
        "skipped": skipped,
    }
    write_text(folder / FACTS, dumps(facts) + "\n")


def open_pictures(place: Path) -> SquareImages:
    """What `prepare` has left in a folder of its own.

    Errors: FormatError for a folder without it.
    """
    facts, pixels = read_json(place / FACTS), read_array(place / PIXELS, mapped=True)
    try:
        count, labels = facts["count"], torch.tensor(facts["labels"], dtype=torch.int64)
        found = SquareImages(
            pixels[:count],
            labels,
            tuple(facts["classes"]),
            facts["digest"],
            facts["source"],
            tuple((name, reason) for name, reason in facts["skipped"]),
        )
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise FormatError(
            f"{place / FACTS} does not describe pictures ({error}); delete {place}, and they are read again"
        ) from None
    if (
        pixels.ndim != 4
        or pixels.dtype != np.uint8
        or type(count) is not int
        or not 0 < count <= len(pixels)
        or labels.shape != (count,)
    ):
        raise FormatError(
            f"{place} does not hold the pictures and labels that it says; delete it, and they are read again"
        )
    if labels.min() < 0 or labels.max() >= max(1, len(found.classes)):
        raise FormatError(
            f"{place / FACTS} has labels beyond its {len(found.classes)} classes; delete {place}, and they are read "
            "again"
        )
    return found
