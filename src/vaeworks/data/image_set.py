"""Scan all images of a source once, and split them by content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..images import image_facts
from .duplicates import duplicate_groups
from .image_ref import ImageFile, ImageRef, read_place
from .sources.dispatch import find_places


@dataclass(frozen=True)
class ImageSet:
    """The usable images of a source, and those that were skipped."""

    source: str
    files: tuple[ImageFile, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    """(name, reason) of every image that cannot be used"""

    def split(self, val_fraction: float) -> tuple[ImageSet, ImageSet]:
        """Split into training and validation images. The side of an image depends on its content alone; images that
        look the same are on one side, that of the first of their digests."""
        sides = [f.digest for f in self.files]
        for group in duplicate_groups(self.files):
            first = min(self.files[i].digest for i in group)
            for i in group:
                sides[i] = first
        held_out = [is_held_out(digest, val_fraction) for digest in sides]
        val = tuple(f for f, out in zip(self.files, held_out, strict=True) if out)
        train = tuple(f for f, out in zip(self.files, held_out, strict=True) if not out)
        return ImageSet(self.source, train, self.skipped), ImageSet(self.source, val)

    @property
    def digest(self) -> str:
        """SHA-256 over the images' contents in order, in hex: equal sets have equal digests."""
        return hashlib.sha256("".join(f.digest for f in self.files).encode()).hexdigest()


def content_position(digest: str) -> float:
    """A number in [0,1), evenly distributed over contents: 32 bits of the SHA-256."""
    return int(digest[24:32], 16) / 2**32


def is_held_out(digest: str, val_fraction: float) -> bool:
    """Whether an image with this content is held out for validation."""
    return content_position(digest) < val_fraction


def scan(
    source: str | Path,
    min_side: int = 1,
    progress: Callable[[Iterable[ImageRef], int], Iterable[ImageRef]] | None = None,
    *,
    decode: bool = True,
) -> ImageSet:
    """Read every image of a source once, so that no broken one interrupts a training run later.

    source: as in sources/dispatch.py, but no stream. min_side: smallest usable shorter side in pixels.
    progress: function of the images and their number that returns the images, to show progress. decode: False hashes
    files and reads their headers alone, which is many times faster; broken pixels then show later, and width and height
    are those before EXIF orientation.
    Errors: DataError for a missing or empty source, or where no image is usable.
    """
    places, unusable = find_places(source)
    files: list[ImageFile] = []
    skipped = list(unusable)
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
        results = zip(places, pool.map(lambda place: _look(place, min_side, decode), places), strict=True)
        for place, result in _tracked(results, len(places), progress):
            if isinstance(result, ImageFile):
                files.append(result)
            else:
                skipped.append((str(place), result))
    if not files:
        raise DataError(
            f"none of the {len(skipped)} images in {str(source)!r} can be used; the first: {skipped[0][0]}: "
            f"{skipped[0][1]}"
        )
    return ImageSet(str(source), tuple(files), tuple(skipped))


def _tracked(results: Iterable, total: int, progress: Callable | None) -> Iterator:
    return iter(progress(results, total) if progress else results)


def _look(place: ImageRef, min_side: int, decode: bool) -> ImageFile | str:
    """The image's facts, or the reason why it cannot be used."""
    try:
        content = read_place(place)
        width, height, alpha, look = image_facts(content, decode)
    except DataError as error:
        return str(error)
    if min(width, height) < min_side:
        return f"{width}x{height} pixels, smaller than {min_side}"
    return ImageFile(place, hashlib.sha256(content).hexdigest(), width, height, alpha, look)
