"""Heat maps: numbers as colours, interpolated between a few anchors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..images import labelled

SEQUENTIAL = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
"""Dark to light in even steps of lightness: five colours of viridis (Smith & van der Walt 2015)."""

DIVERGING = ((33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43))
"""Blue, white, red: five colours of ColorBrewer's RdBu."""


def heat(values: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """A map h w as uint8 3 h w: dark at `low` (default: the smallest value), light at `high` (the largest), gray for
    NaN."""
    finite = values[torch.isfinite(values)]
    if low is None:
        low = float(finite.min()) if finite.numel() else 0.0
    if high is None:
        high = float(finite.max()) if finite.numel() else 1.0
    return _coloured(values, low, high, SEQUENTIAL)


def diverging(values: Tensor, limit: float | None = None) -> Tensor:
    """A map h w as uint8 3 h w: white at 0, red at `limit` (default: the largest absolute value), blue at
    -`limit`."""
    finite = values[torch.isfinite(values)].abs()
    if limit is None:
        limit = float(finite.max()) if finite.numel() else 1.0
    return _coloured(values, -limit, limit, DIVERGING)


def enlarged(picture: Tensor, factor: int) -> Tensor:
    """An image c h w with every pixel enlarged to factor x factor."""
    return picture.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def _coloured(values: Tensor, low: float, high: float, anchors: tuple[tuple[int, int, int], ...]) -> Tensor:
    colours = torch.tensor(anchors, dtype=torch.float32)
    share = (values.float() - low) / (high - low) if high > low else torch.zeros_like(values, dtype=torch.float32)
    place = share.nan_to_num(0.0).clamp(0, 1) * (len(anchors) - 1)
    left = place.floor().long().clamp_max(len(anchors) - 2)
    mixed = torch.lerp(colours[left], colours[left + 1], (place - left)[..., None])
    mixed[~torch.isfinite(values)] = 128.0
    return mixed.round().to(torch.uint8).movedim(-1, 0)


def sheet(rows: Sequence[Sequence[Tensor]], titles: Sequence[str], side: int = 132) -> Image.Image:
    """Rows of uint8 images 1 or 3 h w, resized to side x side, with a title above each column."""
    return labelled([[_sized(picture, side) for picture in row] for row in rows], columns=titles)


def _sized(picture: Tensor, side: int) -> Tensor:
    mode = "area" if picture.shape[-1] > side else "nearest-exact"
    return F.interpolate(picture.expand(3, -1, -1)[None].float(), (side, side), mode=mode)[0].round().to(torch.uint8)
