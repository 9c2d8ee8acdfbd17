"""The distance of a set of vectors from the standard normal distribution."""

from __future__ import annotations

import torch
from torch import Tensor

DIRECTIONS = 512
"""Number of directions: with so many, the mean over directions is certain to a few percent."""


def sliced_wasserstein(vectors: Tensor, seed: int = 0, directions: int = DIRECTIONS) -> float:
    """Sliced Wasserstein-2 distance of m vectors of d dimensions to N(0, I): the root of the mean, over random
    directions, of W2^2.

    In one dimension W2^2 is the mean squared difference of sorted values and normal quantiles at (i - 1/2) / m.
    Source: Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures".
    """
    m, d = vectors.shape
    generator = torch.Generator().manual_seed(seed)
    ways = torch.randn(d, directions, generator=generator, dtype=torch.float64)
    ways = (ways / ways.norm(dim=0)).to(vectors.dtype)
    quantiles = torch.special.ndtri((torch.arange(m, dtype=torch.float64) + 0.5) / m).to(vectors.dtype)[:, None]
    squares = [((vectors @ some).sort(0).values - quantiles).square().mean(0) for some in ways.split(64, dim=1)]
    return float(torch.cat(squares).mean().sqrt())


def floor(m: int, d: int, seed: int = 0, directions: int = DIRECTIONS) -> float:
    """`sliced_wasserstein` of m vectors drawn from N(0, I): a finite sample is never exactly normal."""
    vectors = torch.randn(m, d, generator=torch.Generator().manual_seed(seed + 1))
    return sliced_wasserstein(vectors, seed, directions)
