"""Which images there are: every one of a source, looked at once, and split for good."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..images import image_facts
from .image_ref import ImageFile, ImageRef, read_place
from .sources.dispatch import find_places


@dataclass(frozen=True)
class ImageSet:
    """The usable images of a source, and what was left out."""

    source: str
    files: tuple[ImageFile, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    """(name, reason) of every image that cannot be used"""

    def split(self, val_fraction: float) -> tuple[ImageSet, ImageSet]:
        """Training and validation part. An image's side depends on its content alone, so it never changes sides."""
        val = tuple(f for f in self.files if is_held_out(f.digest, val_fraction))
        train = tuple(f for f in self.files if not is_held_out(f.digest, val_fraction))
        return ImageSet(self.source, train, self.skipped), ImageSet(self.source, val)

    @property
    def digest(self) -> str:
        """SHA-256 over the images' contents in order, in hex: equal sets of images have equal digests."""
        return hashlib.sha256("".join(f.digest for f in self.files).encode()).hexdigest()


def content_position(digest: str) -> float:
    """A number in [0,1) that spreads contents evenly: 32 bits of the SHA-256."""
    return int(digest[24:32], 16) / 2**32


def is_held_out(digest: str, val_fraction: float) -> bool:
    """Whether an image of this content is held out for validation."""
    return content_position(digest) < val_fraction


def scan(
    source: str | Path,
    min_side: int = 1,
    progress: Callable[[Iterable[ImageRef], int], Iterable[ImageRef]] | None = None,
    *,
    decode: bool = True,
) -> ImageSet:
    """Every image of a source, read whole once, so that no broken one interrupts a training run later.

    source: as sources.py says, but no stream. min_side: images with a shorter side, in pixels, are left out.
    progress: wraps the places, told their number. decode: False hashes files and looks at their headers alone, which is
    many times faster; broken pixels then show when they are read, and sides are those before EXIF orientation.
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
    """The image's facts, or why it cannot be used."""
    try:
        content = read_place(place)
        width, height, alpha = image_facts(content, decode)
    except DataError as error:
        return str(error)
    if min(width, height) < min_side:
        return f"{width}x{height} pixels, smaller than {min_side}"
    return ImageFile(place, hashlib.sha256(content).hexdigest(), width, height, alpha)
