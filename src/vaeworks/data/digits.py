"""Handwritten digits: scikit-learn's, which are on every machine, and files as MNIST is kept in (IDX).

digits      1,797 images of 8 x 8 pixels, of ten classes
FOLDER      of *-images-idx3-ubyte[.gz], with *-labels-idx1-ubyte[.gz] beside them where there are labels
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .procedural import png

DIGITS = "digits"
"""What a source is called that is scikit-learn's digits."""

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
"""What the names of IDX files end with, before ".gz"."""


@dataclass(frozen=True, slots=True)
class Digit:
    """A place with one gray image of a set of digits, white on black."""

    source: str
    """DIGITS, or the path of a file of images"""
    index: int

    @property
    def stem(self) -> str:
        """The image's number."""
        return f"{self.index:05d}"

    def read_bytes(self) -> bytes:
        """The image as a PNG."""
        return png(_arrays(self.source)[0][self.index])

    def __str__(self) -> str:
        labels = _arrays(self.source)[1]
        name = f"{self.stem}.png" if labels is None else f"{labels[self.index]}/{self.stem}.png"
        return f"{self.source}/{name}"


def digits(source: str = DIGITS) -> list[Digit]:
    """All images of a source, in its order. Errors: DataError for a file that is not IDX, or labels that do not fit it."""
    return [Digit(source, index) for index in range(len(_arrays(source)[0]))]


def idx_files(folder: Path) -> list[Path]:
    """Files of images that are IDX by their names, in order."""
    return sorted(path for ending in ("", ".gz") for path in folder.glob(f"*{IMAGES}{ending}"))


@cache
def _arrays(source: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Images n h w and labels n."""
    if source == DIGITS:
        from sklearn.datasets import load_digits

        found = load_digits()
        return np.round(found.images * (255 / 16)).astype(np.uint8), found.target.astype(np.uint8)
    path = Path(source)
    images = _idx(path, 3)
    beside = path.with_name(path.name.replace(IMAGES, LABELS))
    if not beside.exists():
        return images, None
    labels = _idx(beside, 1)
    if len(labels) != len(images):
        raise DataError(f"{beside} has {len(labels)} labels, {path} has {len(images)} images; they belong to different sets")
    return images, labels


def _idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """What an IDX file holds. Errors: DataError."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zero, kind, count = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{path} cannot be read as IDX: {error}") from None
    if (zero, kind, count) != (0, 8, dimensions):
        raise DataError(f"{path} is no IDX file of {dimensions} dimensions of bytes; its first bytes are {content[:4].hex()}")
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if values.size != int(np.prod(shape, dtype=np.int64)) or not values.size:
        raise DataError(f"{path} says that it has {' x '.join(map(str, shape))} bytes, and has {values.size}; fetch it again")
    return values.reshape(shape)
