"""Images with labels and masks that are drawn when they are read: a data set without files.

    procedural[:COUNT[:SIZE[:SEED]]]        such as procedural:4096:64; by default 20,000 images of 32 px, seed 0

Image number k is a function of (SEED, SIZE, k) alone, and, apart from its resolution, of (SEED, k).
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import DataError
from .drawing import CLASSES, picture, words

PROCEDURAL = "procedural"
"""Name or beginning of a source of drawn images."""

FORM = f"{PROCEDURAL}[:COUNT[:SIZE[:SEED]]], such as {PROCEDURAL}:20000:32:0"

MOST = 1_000_000
"""Most images of a source: their names have six digits, and a scan draws every image once."""

SIDES = 8, 1024
"""Sides that can be drawn, in pixels."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A drawn image, number `index` of a seed with `size` x `size` pixels, as an image reference."""

    index: int
    size: int = 32
    seed: int = 0

    @property
    def label(self) -> int:
        """Index of the class in CLASSES."""
        return self.index % len(CLASSES)

    @property
    def caption(self) -> str:
        """Its words, such as "a red disc on a blue ground"."""
        return words(self.index, self.seed)

    @property
    def stem(self) -> str:
        """The image's number."""
        return f"{self.index:06d}"

    @property
    def mask(self) -> DrawnMask:
        """The mask of the foreground, as an image reference."""
        return DrawnMask(self)

    def image(self) -> Tensor:
        """The image: uint8 3 size size."""
        return torch.from_numpy(picture(self.index, self.size, self.seed)[0].transpose(2, 0, 1).copy())

    def read_bytes(self) -> bytes:
        """The image as a PNG."""
        return png(picture(self.index, self.size, self.seed)[0])

    def __str__(self) -> str:
        return f"{PROCEDURAL}/{CLASSES[self.label]}/{self.stem}.png"


@dataclass(frozen=True, slots=True)
class DrawnMask:
    """The mask of a drawn image: 255 where the foreground covers half a pixel or more, else 0."""

    of: Drawn

    @property
    def stem(self) -> str:
        """Name of the image, with "_mask" behind it."""
        return f"{self.of.stem}_mask"

    def image(self) -> Tensor:
        """The mask: uint8 1 size size."""
        return torch.from_numpy(self._values()[None])

    def read_bytes(self) -> bytes:
        """The mask as a gray PNG."""
        return png(self._values())

    def _values(self) -> NDArray[np.uint8]:
        return picture(self.of.index, self.of.size, self.of.seed)[1].astype(np.uint8) * np.uint8(255)

    def __str__(self) -> str:
        return str(self.of).removesuffix(".png") + "_mask.png"


def procedural(count: int = 20_000, size: int = 32, seed: int = 0) -> list[Drawn]:
    """The first `count` images of a seed, of `size` x `size` pixels.

    Errors: DataError for numbers out of range.
    """
    for name, value, low, high in (("COUNT", count, 1, MOST), ("SIZE", size, *SIDES), ("SEED", seed, 0, 2**63 - 1)):
        if not low <= value <= high:
            raise DataError(f"{name} (={value}) of {PROCEDURAL} images must be {low} to {high}; write {FORM}")
    return [Drawn(index, size, seed) for index in range(count)]


def is_procedural(source: str) -> bool:
    """Whether a source is of drawn images."""
    return source.partition(":")[0] == PROCEDURAL


def procedural_source(source: str) -> list[Drawn]:
    """The images of the source procedural[:COUNT[:SIZE[:SEED]]].

    Errors: DataError for anything else, and as `procedural`.
    """
    if not re.fullmatch(rf"{PROCEDURAL}(:[0-9]{{1,19}}){{0,3}}", source):
        raise DataError(f"{source!r} is no source of drawn images; write {FORM}")
    return procedural(*map(int, source.split(":")[1:]))


def png(values: NDArray[np.uint8], *notes: tuple[str, str]) -> bytes:
    """A PNG of uint8 values h w (gray) or h w 3 (RGB). notes: names and texts to store in it, in ASCII.

    Pixels are stored without compression. That is fast, and the bytes, whose hash decides the side of a split, do not
    depend on the build of a compressor.
    """
    height, width = values.shape[:2]
    rows = np.zeros((height, 1 + values.size // height), dtype=np.uint8)  # a row begins with its filter: 0, none
    rows[:, 1:] = values.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if values.ndim == 2 else 2, 0, 0, 0)
    said = ((b"tEXt", "\0".join(note).encode("ascii")) for note in notes)
    chunks = (b"IHDR", header), *said, (b"IDAT", zlib.compress(rows.tobytes(), 0)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
