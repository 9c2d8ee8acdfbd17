"""Training crops by counter: crop k of a run does not depend on the process or the time."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..config import DataConfig
from ..errors import DataError
from ..images import to_uint8
from ..random_streams import CROP, Order, random_uniforms
from .image_ref import ImageFile, open_place

Say = Callable[[str], None]
"""Prints a line for people."""

Loaded = tuple[Tensor, dict[int, str]]
"""Crops, uint8 n c size size, and the reasons for unreadable ones, by position in the part."""


@dataclass(frozen=True)
class BatchShare:
    """The crops that one process contributes to one batch."""

    counters: list[int]
    work: list[Any]
    """arguments for `load`, one entry per crop"""
    origin: list[Any] = field(default_factory=list)
    """facts that stay in this process, one entry per crop"""


class CropSource(Protocol):
    """A source of crops for `batches`."""

    @property
    def load(self) -> Callable[[list[Any]], Loaded]:
        """Function from a part's work to crops; it runs in any process. Errors: DataError."""
        ...

    def parts(self, start: int, stop: int, batch: int, rank: int, world: int, say: Say) -> Generator[BatchShare]:
        """This process's parts of the whole batches of crops start..stop."""
        ...

    def finish(self, part: BatchShare, loaded: Loaded, say: Say) -> Tensor:
        """A part's crops, from the result of `load`: uint8 n c size size."""
        ...


class Crops(Dataset[tuple[Tensor, int]]):
    """Crops of images that can be read in any order."""

    def __init__(self, files: tuple[ImageFile, ...], config: DataConfig, seed: int, channels: int = 3):
        self.files = files
        self.config = config
        self.seed = seed
        self.channels = channels
        self.order = Order(len(files), seed)
        self._cache: dict[int, Image.Image] = {}
        self._cached_bytes = 0

    def __getitem__(self, counter: int) -> tuple[Tensor, int]:
        """Crop number `counter`: uint8 c size size, and the counter."""
        image = self._image(self.order[counter])
        crop = random_crop(image, self.config.size, self.config.min_scale, self.config.flip, self.seed, counter)
        return to_uint8(crop), counter

    def _image(self, index: int) -> Image.Image:
        if index in self._cache:
            return self._cache[index]
        file = self.files[index]
        try:
            image = open_place(file.path, self.channels)
        except DataError as error:
            raise DataError(f"{file.path} could be read when the run started and cannot now: {error}") from None
        if image.size != (file.width, file.height):
            raise DataError(
                f"{file.path} had {file.width}x{file.height} pixels when the run started and has "
                f"{image.width}x{image.height} now"
            )
        size = image.size[0] * image.size[1] * self.channels
        if self._cached_bytes + size <= self.config.cache_mib * 2**20:
            self._cache[index] = image
            self._cached_bytes += size
        return image

    def parts(self, start: int, stop: int, batch: int, rank: int, world: int, say: Say) -> Generator[BatchShare]:
        """This process's parts of the whole batches of crops start..stop."""
        share = batch // world
        for first in range(start + rank * share, stop - batch + 1 + rank * share, batch):
            counters = list(range(first, first + share))
            yield BatchShare(counters, counters)

    def load(self, counters: list[int]) -> Loaded:
        """Crops as one tensor. Errors: DataError that names the image which cannot be read any more."""
        return torch.stack([self[counter][0] for counter in counters]), {}

    def finish(self, part: BatchShare, loaded: Loaded, say: Say) -> Tensor:
        """The crops as they were loaded."""
        return loaded[0]


def random_crop(image: Image.Image, size: int, min_scale: float, flip: bool, seed: int, counter: int) -> Image.Image:
    """A random square of the image, resized to size x size (Lanczos), mirrored half of the time.

    The square's side is min_scale to 1 times the image's shorter side, but at least `size`, so that nothing is
    enlarged. The crop depends on (seed, counter) alone.
    """
    scale, x, y, mirror = random_uniforms(seed, CROP, counter, 4)
    short = min(image.size)
    side = max(size, round(short * (min_scale + (1 - min_scale) * scale)))
    left, top = (int(np.floor(u * (full - side + 1))) for u, full in zip((x, y), image.size, strict=True))
    crop = image.resize(
        (size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side), reducing_gap=3.0
    )
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip and mirror < 0.5 else crop
