"""Handwritten digits: those of scikit-learn, which are on every machine, and IDX files such as MNIST's.

digits      1,797 images of 8 x 8 pixels, of ten classes
FOLDER      of *-images-idx3-ubyte[.gz], with *-labels-idx1-ubyte[.gz] beside them where there are labels
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...images import regular_file
from ..synthetic.procedural import png

DIGITS = "digits"
"""Name of the source with scikit-learn's digits."""

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
"""Endings of the names of IDX files, before ".gz"."""


MOST, MOST_IMAGES = 2**30 - 2**25, 2**22
"""Most bytes and images of an IDX file. Usual files have less; a compressed one may claim anything."""


@dataclass(frozen=True, slots=True)
class Digit:
    """One gray image of a set of digits, white on black."""

    source: str
    """DIGITS, or the path of a file of images"""
    index: int

    @property
    def caption(self) -> str | None:
        """The words for one of scikit-learn's digits, such as "a handwritten seven"; None for IDX files, whose classes
        may be clothes as well."""
        labels = _arrays(self.source)[1]
        return f"a handwritten {WORDS[labels[self.index]]}" if self.source == DIGITS and labels is not None else None

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
    """All images of a source, in its order. Errors: DataError for a file that is not IDX, or labels that do not fit
    it."""
    return [Digit(source, index) for index in range(len(_arrays(source)[0]))]


def idx_files(folder: Path) -> list[Path]:
    """Files of images in IDX format, by their names, in order."""
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
        raise DataError(
            f"{beside} has {len(labels)} labels, {path} has {len(images)} images; they belong to different sets"
        )
    return images, labels


def _idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """What an IDX file holds. Errors: DataError."""
    try:
        with regular_file(path) as stored, gzip.GzipFile(fileobj=stored) if path.suffix == ".gz" else stored as file:
            head = file.read(4 + 4 * dimensions)
            zero, kind, count = struct.unpack(">HBB", head[:4])
            shape = struct.unpack(f">{dimensions}I", head[4:])
            claimed = math.prod(shape)
            content = file.read(claimed + 1) if max(claimed, MOST // MOST_IMAGES * shape[0]) <= MOST else b""
    except (OSError, EOFError, zlib.error, struct.error, DataError) as error:
        raise DataError(f"{path} cannot be read as IDX: {error}") from None
    if (zero, kind, count) != (0, 8, dimensions):
        raise DataError(
            f"{path} is no IDX file of {dimensions} dimensions of bytes; its first bytes are {head[:4].hex()}"
        )
    if len(content) != claimed or not claimed:
        has = (
            f"has {'more' if len(content) > claimed else len(content)}"
            if content
            else f"at most {MOST:,} of {MOST_IMAGES:,} are read"
        )
        raise DataError(f"{path} says that it has {' x '.join(map(str, shape))} bytes, and {has}; fetch it again")
    return np.frombuffer(content, np.uint8).reshape(shape)
