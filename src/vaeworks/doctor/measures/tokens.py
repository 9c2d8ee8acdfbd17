"""Structure of a latent's tokens (its vectors, one per position): similarity of near tokens, and of tokens of one
object.

The definitions are iREPA's. Distances are in pixels, so that models of different factors compare. "Centred" tokens lack
their image's mean token, because otherwise all tokens of an image are alike.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

NEAR, FAR = 24 / 252, 96 / 252
"""Largest near and smallest far distance, as shares of an image's side: 24 and 96 of 252 pixels. Near includes the
next token in any case."""

ANCHORS = 64
"""Most tokens of an object that are compared with the others."""


def directions(z: Tensor, centred: bool = True) -> Tensor:
    """Tokens n c h w of length 1, without their image's mean if `centred`; 0 where nothing is left."""
    if centred:
        z = z - z.mean((2, 3), keepdim=True)
    return F.normalize(z, dim=1)


def similarity_by_distance(u: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cosine of pairs of tokens of n c h w (of length 1) by their Manhattan distance 0, 1 ..: n d; and the number
    of pairs, d.

    Both directions of a pair count. The autocorrelation gives the sums without visiting all pairs.
    """
    h, w = u.shape[-2:]
    size = 2 * h - 1, 2 * w - 1
    ones = torch.ones(1, 1, h, w, dtype=torch.float64)
    sums, pairs = (
        torch.fft.irfft2(torch.fft.rfft2(x.double(), size).abs().square().sum(1), size).flatten(1) for x in (u, ones)
    )
    dy, dx = (torch.minimum(k, m - k) for k, m in ((torch.arange(m), m) for m in size))
    distance = (dy[:, None] + dx).flatten()
    member = F.one_hot(distance, h + w - 1).double()
    counts = (pairs @ member)[0].round()
    return (sums @ member) / counts, counts


def local_distant(u: Tensor, factor: int) -> Tensor:
    """LDS: mean cosine of near pairs minus that of far ones, by image: n; nan where an image is too small to have far
    ones.

    u: n c h w of length 1, centred. Near: Manhattan distance up to NEAR of the side, at least one token; far: from FAR
    on.
    """
    similarity, counts = similarity_by_distance(u)
    pixels = torch.arange(len(counts)) * factor
    near, far = _ranges(pixels, min(u.shape[-2:]) * factor, factor)
    return _mean(similarity, counts * near) - _mean(similarity, counts * far)


def decay(u: Tensor, factor: int) -> Tensor:
    """CDS: how much the mean cosine falls per 16 pixels, over distances up to half the side, by least squares: n.

    u: as in `local_distant`.
    """
    similarity, counts = similarity_by_distance(u)
    last = max(min(u.shape[-2:]) // 2, 2)
    d = torch.arange(1, min(last, len(counts) - 1) + 1, dtype=torch.float64) * factor / 16
    x = d - d.mean()
    return -(similarity[:, 1 : len(d) + 1] @ x) / x.square().sum()


def spread(z: Tensor) -> Tensor:
    """RMSC: root mean square distance of tokens (of length 1, not centred) from their mean, by image: n; 0 where all
    are alike, 1 where all differ."""
    u = directions(z, centred=False)
    return (u - u.mean((2, 3), keepdim=True)).square().sum(1).mean((1, 2)).sqrt().double()


def object_contrast(u: Tensor, mask: Tensor, factor: int) -> float:
    """SRSS of one image: mean cosine of the object's tokens to neighbours in the object, minus that to far background.

    u: c h w of length 1, centred; mask: bool h w, where the object is. Near: up to one token, itself left out; far: as
    in `local_distant`. nan where no token of the object has both.
    """
    h, w = u.shape[-2:]
    tokens, y, x = (
        u.flatten(1).T,
        *(k.flatten() for k in torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")),
    )
    inside = mask.flatten()
    anchors = inside.nonzero().flatten()
    anchors = (
        anchors[torch.linspace(0, len(anchors) - 1, min(ANCHORS, len(anchors))).round().long()]
        if len(anchors)
        else anchors
    )
    distance = (y[anchors, None] - y).abs() + (x[anchors, None] - x).abs()
    cosine = tokens[anchors] @ tokens.T
    near = (distance == 1) & inside
    far = _ranges(distance * factor, min(h, w) * factor, factor)[1] & ~inside
    both = near.any(1) & far.any(1)
    if not both.any():
        return math.nan
    each = [(cosine * some).sum(1)[both] / some.sum(1)[both] for some in (near, far)]
    return float((each[0] - each[1]).mean())


def _ranges(pixels: Tensor, side: int, factor: int) -> tuple[Tensor, Tensor]:
    return (pixels > 0) & (pixels <= max(NEAR * side, factor)), pixels >= FAR * side


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    total = weights.sum()
    return values @ weights / total if total > 0 else torch.full((len(values),), math.nan, dtype=values.dtype)
