"""Files to square images of one size: the one reader, and a folder that keeps the squares with their classes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..config import dumps
from ..errors import DataError, FormatError
from ..files.arrays import read_array
from ..files.atomic import atomic, map_file, read_json, write_text
from ..images import open_image, square
from ..reporting import Progress, counted
from .image_ref import ImageFile, read_place
from .image_set import ImageSet

PIXELS, FACTS = "pixels.npy", "pictures.json"


def read_squares(
    files: Iterable[ImageFile],
    size: int,
    channels: int,
    broken: Callable[[ImageFile, DataError], None],
    decoded: Callable[[int, Image.Image], None] = lambda number, image: None,
) -> Iterator[tuple[int, Tensor]]:
    """(place in `files`, uint8 c size size): the largest middle square of every readable image, resized by Lanczos.

    broken: called with every image that cannot be read; it may raise. decoded: called with the place and the whole of
    every image before it becomes a square. Each file is read once.
    """
    for number, file in enumerate(files):
        try:
            image = open_image(read_place(file.path), channels)
        except DataError as error:
            broken(file, error)
            continue
        decoded(number, image)
        yield number, square(image, size)


def square_of(content: bytes, size: int, channels: int) -> Tensor:
    """As `read_squares`, of an encoded image. Errors: DataError."""
    return square(open_image(content, channels), size)


@dataclass(frozen=True, eq=False)
class SquareImages:
    """Square images and their classes."""

    pixels: np.ndarray
    """uint8, n c size size, mapped"""
    labels: Tensor
    """class numbers: n, int64; 0 where there are no classes"""
    classes: tuple[str, ...]
    """class names; () where there are none"""
    digest: str
    """SHA-256 over images, size, channels and labels, in hex"""
    source: str
    skipped: tuple[tuple[str, str], ...] = ()
    """(name, reason) of images that could not be read"""

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.pixels)

    @property
    def size(self) -> int:
        """Side of the squares, in pixels."""
        return int(self.pixels.shape[-1])

    def batch(self, rows: Sequence[int] | np.ndarray | slice) -> Tensor:
        """Some of the squares: uint8 n c size size, a copy that may be written to."""
        return torch.from_numpy(np.array(self.pixels[rows]))

    def batches(self, length: int) -> Iterator[Tensor]:
        """All squares in order, in batches of `length`: uint8 n c size size."""
        for start in range(0, self.count, length):
            yield self.batch(slice(start, start + length))


def prepare(
    images: ImageSet,
    folder: Path,
    size: int,
    channels: int,
    labels: Sequence[str] | None,
    progress: Progress | None = None,
) -> SquareImages:
    """The squares of a set of images, read once and kept in a folder; a second call with the same images opens them.

    size: side of the squares, in pixels; labels: a class per image.
    Errors: DataError where fewer than two images can be read; VaeworksError where the disk is full.
    """
    key = hashlib.sha256(
        json.dumps([images.digest, size, channels, None if labels is None else list(labels)]).encode()
    ).hexdigest()
    place = folder / key[:16]
    if not (place / FACTS).exists():
        with atomic(place, overwrite=True) as temporary:
            temporary.mkdir()
            _fill(images, temporary, size, channels, labels, key, progress)
    return open_pictures(place)


def _fill(
    images: ImageSet,
    folder: Path,
    size: int,
    channels: int,
    labels: Sequence[str] | None,
    key: str,
    progress: Progress | None,
) -> None:
    """Read all images into the folder's two files."""
    total = len(images.files)
    pixels = map_file(folder / PIXELS, (total, channels, size, size), np.uint8)
    kept: list[int] = []
    skipped = [(str(name), reason) for name, reason in images.skipped]
    files = counted(images.files, total, progress) if progress else images.files
    for number, image in read_squares(
        files, size, channels, lambda file, error: skipped.append((str(file.path), str(error)))
    ):
        pixels[len(kept)] = image.numpy()
        kept.append(number)
    if len(kept) < 2:
        raise DataError(
            f"{len(kept)} of {total} images in {images.source!r} can be read; at least two are needed"
            + (f"; {skipped[0]}" if skipped else "")
        )
    pixels.flush()
    classes = sorted({labels[n] for n in kept}) if labels is not None else []
    places = {name: number for number, name in enumerate(classes)}
    numbers = [places[labels[n]] for n in kept] if labels is not None else [0] * len(kept)
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
    """The squares that `prepare` kept in their own folder.

    Errors: FormatError for a folder without them.
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
            f"{place} does not hold the pictures and labels that it lists; delete it, and they are read again"
        )
    if labels.min() < 0 or labels.max() >= max(1, len(found.classes)):
        raise FormatError(
            f"{place / FACTS} has labels beyond its {len(found.classes)} classes; delete {place}, and they are read "
            "again"
        )
    return found
