"""Rows of maps in the backward pass, and which of them are freed."""

from __future__ import annotations

import torch
from torch import Tensor

from ..lazy_maps import Map, Stored, sweep


class Borrowed(Map):
    """Another map that is needed elsewhere, and therefore not freed here."""

    def __init__(self, source: Map):
        self.source, self.shape, self.itemsize = source, source.shape, source.itemsize

    def rows(self, start: int, stop: int) -> Tensor:
        return self.source.rows(start, stop)

    def release(self, before: int) -> None:
        pass


def held(x: Tensor) -> Stored:
    """A tensor n c h w as a map."""
    n, c, h, w = x.shape
    stored = Stored((n, c, h, w))
    stored.append(x.detach().contiguous(memory_format=torch.channels_last))
    return stored


def kept(map_: Map, rows: int) -> Stored:
    """Compute a map strip by strip and store it, while the maps that it is computed from are freed."""
    stored = Stored(map_.shape)
    sweep(map_, rows, None, into=stored, release=True)
    return stored


def around(x: Map, start: int, stop: int) -> tuple[Tensor, int, int]:
    """Rows with one row of context above and below, and the number of these rows, 0 or 1 each."""
    above, below = int(start > 0), int(stop < x.shape[2])
    return x.rows(start - above, stop + below), above, below
