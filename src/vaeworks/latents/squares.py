"""The images of shards as squares, in batches that worker processes prepare."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..data import ImageFile
from ..data.crops import BatchShare, Loaded, Say
from ..data.image_ref import read_place
from ..data.square_images import square_of
from ..errors import DataError
from .plan import Shard


class Squares:
    """The images of some shards as squares: a source for `data.batches`. No batch has images of two shards.

    So batches, and with them rounding, are the same whatever has been done before.
    """

    def __init__(self, files: Sequence[ImageFile], shards: Sequence[Shard], size: int, channels: int):
        self.files = files
        self.shards = shards
        self.load: Callable[[list[Any]], Loaded] = partial(load_squares, size=size, channels=channels)
        self.broken: dict[int, str] = {}
        """why an image has no latents, by its number"""

    def parts(self, start: int, stop: int, batch: int, rank: int, world: int, say: Say) -> Generator[BatchShare]:
        """All batches of the shards, which already are this process's part."""
        for shard in self.shards:
            for first in range(shard.start, shard.stop, batch):
                numbers = list(range(first, min(first + batch, shard.stop)))
                yield BatchShare(numbers, [(self.files[n].path, self.files[n].digest) for n in numbers])

    def finish(self, part: BatchShare, loaded: Loaded, say: Say) -> Tensor:
        """The squares of the images that are not broken: uint8 n c size size."""
        squares, broken = loaded
        self.broken |= {part.counters[place]: reason for place, reason in broken.items()}
        return squares[[place for place in range(len(squares)) if place not in broken]] if broken else squares


def load_squares(work: list[Any], size: int, channels: int) -> Loaded:
    """Squares of the images at (place, SHA-256), and the reason for each that is broken.

    Errors: DataError for an image that can no longer be read, or has changed.
    """
    squares = torch.zeros(len(work), channels, size, size, dtype=torch.uint8)
    broken: dict[int, str] = {}
    for number, (place, digest) in enumerate(work):
        try:
            content = read_place(place)
        except DataError as error:
            raise DataError(f"{place} could be read when the images were listed and cannot now: {error}") from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise DataError(
                f"{place} has changed since the images were listed; leave them as they are until all are encoded"
            )
        try:
            squares[number] = square_of(content, size, channels)
        except DataError as error:
            broken[number] = str(error)
    return squares, broken
