"""Rows of maps in the backward pass: which are needed again, and which are not."""

from __future__ import annotations

import torch
from torch import Tensor

from ..lazy_maps import Map, Stored, sweep


class Borrowed(Map):
    """Another map, which somebody else needs as well."""

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
    """A map, computed strip by strip, while what it is computed from is released."""
    stored = Stored(map_.shape)
    sweep(map_, rows, None, into=stored, release=True)
    return stored


def around(x: Map, start: int, stop: int) -> tuple[Tensor, int, int]:
    """Rows with those above and below them, and how many these are, 0 or 1."""
    above, below = int(start > 0), int(stop < x.shape[2])
    return x.rows(start - above, stop + below), above, below
