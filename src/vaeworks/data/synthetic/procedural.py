"""Images that are drawn when they are read, labelled and masked: a data set without files.

    procedural[:COUNT[:SIZE[:SEED]]]        such as procedural:4096:64; without numbers 20,000 images of 32 px of seed 0

Image number k is a function of (SEED, SIZE, k) alone, and up to its resolution of (SEED, k): COUNT changes none.
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
from .drawing import CLASSES, picture

PROCEDURAL = "procedural"
"""What a source is called, or begins with, that is drawn."""

FORM = f"{PROCEDURAL}[:COUNT[:SIZE[:SEED]]], such as {PROCEDURAL}:20000:32:0"

MOST = 1_000_000
"""Images of a source: their names have six digits, and every image of a source is looked at once."""

SIDES = 8, 1024
"""Sides that can be drawn, in pixels."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A place whose image is drawn: number `index` of a seed, `size` x `size` pixels."""

    index: int
    size: int = 32
    seed: int = 0

    @property
    def label(self) -> int:
        """The class, as its place in CLASSES."""
        return self.index % len(CLASSES)

    @property
    def stem(self) -> str:
        """The image's number."""
        return f"{self.index:06d}"

    @property
    def mask(self) -> DrawnMask:
        """Where the foreground is, as a place of its own."""
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
    """A place with the foreground of a drawn image: 255 where it covers half a pixel or more, else 0."""

    of: Drawn

    @property
    def stem(self) -> str:
        """The image's, and what it is."""
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
    """Whether a source's images are to be drawn."""
    return source.partition(":")[0] == PROCEDURAL


def procedural_source(source: str) -> list[Drawn]:
    """The images that a source says: procedural[:COUNT[:SIZE[:SEED]]].

    Errors: DataError for anything else, and as `procedural`.
    """
    if not re.fullmatch(rf"{PROCEDURAL}(:[0-9]{{1,19}}){{0,3}}", source):
        raise DataError(f"{source!r} is no source of drawn images; write {FORM}")
    return procedural(*map(int, source.split(":")[1:]))


def png(values: NDArray[np.uint8], *notes: tuple[str, str]) -> bytes:
    """A PNG of uint8 values h w (gray) or h w 3 (RGB); notes: names and texts that go along, in ASCII.

    Its pixels are stored, not compressed: that is quick, and the bytes, whose hash decides on which side of a split an
    image is, do not depend on how a compressor was built.
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
