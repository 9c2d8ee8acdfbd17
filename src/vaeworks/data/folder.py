"""Which images there are: every file of a folder tree, looked at once, and split for good."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..images import SUFFIXES, open_image
from .samples import photos


@dataclass(frozen=True)
class ImageFile:
    """A readable image file."""

    path: Path
    digest: str
    """SHA-256 of the file's bytes, in hex"""
    width: int
    """pixels, after EXIF orientation"""
    height: int


@dataclass(frozen=True)
class ImageSet:
    """The usable images of a source, and what was left out."""

    source: str
    files: tuple[ImageFile, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    """(path, reason) of every file that cannot be used"""

    def split(self, val_fraction: float) -> tuple[ImageSet, ImageSet]:
        """Training and validation part. A file's side depends on its content alone, so it never changes sides."""
        val = tuple(f for f in self.files if content_position(f.digest) < val_fraction)
        train = tuple(f for f in self.files if content_position(f.digest) >= val_fraction)
        return ImageSet(self.source, train, self.skipped), ImageSet(self.source, val)

    @property
    def digest(self) -> str:
        """SHA-256 over the files' contents in order, in hex: equal sets of images have equal digests."""
        return hashlib.sha256("".join(f.digest for f in self.files).encode()).hexdigest()


def content_position(digest: str) -> float:
    """A number in [0,1) that spreads file contents evenly: 32 bits of the SHA-256."""
    return int(digest[24:32], 16) / 2**32


def find_images(source: str | Path) -> list[Path]:
    """Paths of a source: `photos` (bundled with scikit-image and scikit-learn), one image file, or a folder tree.

    Errors: DataError where there is no such folder or no image file in it.
    """
    if str(source) == "photos":
        return photos()
    root = Path(source).expanduser()
    if not root.exists():
        raise DataError(f"data source {str(source)!r} does not exist; give a folder of images, or `photos` for the bundled ones")
    if root.is_file():
        return [root]
    paths = [
        Path(folder, name)
        for folder, _, names in os.walk(root, followlinks=False)
        if not any(part.startswith(".") for part in Path(folder).relative_to(root).parts)  # thumbnails and caches
        for name in names
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    ]
    if not paths:
        raise DataError(f"no image file in {str(source)!r}; looked for {' '.join(SUFFIXES)} in all its subfolders")
    return sorted(paths)


def scan(source: str | Path, min_side: int = 1, progress: Callable[[Iterable[Path], int], Iterable[Path]] | None = None) -> ImageSet:
    """Every image of a source, read whole once, so that no broken file interrupts a training run later.

    min_side: files with a shorter side, in pixels, are left out. progress: wraps the paths, told their number.
    Errors: DataError for a missing or empty source, or where no file is usable.
    """
    paths = find_images(source)
    files: list[ImageFile] = []
    skipped: list[tuple[str, str]] = []
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
        results = zip(paths, pool.map(lambda path: _look(path, min_side), paths), strict=True)
        for path, result in _tracked(results, len(paths), progress):
            if isinstance(result, ImageFile):
                files.append(result)
            else:
                skipped.append((str(path), result))
    if not files:
        raise DataError(f"none of the {len(paths)} image files in {str(source)!r} can be used; the first: {skipped[0][0]}: {skipped[0][1]}")
    return ImageSet(str(source), tuple(files), tuple(skipped))


def _tracked(results: Iterable, total: int, progress: Callable | None) -> Iterator:
    return iter(progress(results, total) if progress else results)


def _look(path: Path, min_side: int) -> ImageFile | str:
    """The file's facts, or why it cannot be used."""
    try:
        content = path.read_bytes()
        image = open_image(content)
    except OSError as error:
        return error.strerror or str(error)
    except DataError as error:
        return str(error)
    width, height = image.size
    if min(width, height) < min_side:
        return f"{width}x{height} pixels, smaller than {min_side}"
    return ImageFile(path, hashlib.sha256(content).hexdigest(), width, height)
