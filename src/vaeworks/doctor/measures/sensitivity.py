"""The sensitivity of pixels to each element of the latents, and its relation to log-variances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.floating[Any]]
Network = Callable[[Tensor], Tensor]


def sensitivity(decode: Network, latents: Tensor, probes: int, seed: int = 0) -> Tensor:
    """||J_i||^2, the squared length of a picture's derivative by each element of latents 1 c h w, estimated twice: 2 c
    h w.

    Hutchinson's estimator: for v with independent signs, E (J^T v)_i^2 = ||J_i||^2. Each half of the probes gives its
    own estimate, so that their covariance is free of the probes' noise; the mean of both is the estimate.
    probes: even, at least 2.
    Source: Hutchinson 1990; Bekas et al. 2007.
    """
    assert probes >= 2 and probes % 2 == 0
    random = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        z = latents.detach().clone().requires_grad_()
        pictures = decode(z)
        halves = torch.zeros(2, *z.shape[1:], device=z.device)
        for probe in range(probes):
            v = (torch.randint(0, 2, pictures.shape, generator=random).float() * 2 - 1).to(pictures)
            (gradient,) = torch.autograd.grad(pictures, z, v, retain_graph=probe + 1 < probes)
            halves[probe % 2] += gradient[0].square() / (probes // 2)
    return halves.cpu()


def covariances(logvar: Tensor, halves: Tensor) -> tuple[float, float, float]:
    """Covariances over the elements of one picture: of log-variance with ln ||J||^2, variance of ln ||J||^2, variance
    of log-variance.

    logvar: c h w; halves: the two estimates of `sensitivity`, which give the second value without the probes' noise,
    because that would make slopes too flat. Elements without any sensitivity are left out; nan where fewer than 3 are
    left.
    """
    used = (halves > 0).all(0)
    if int(used.sum()) < 3:
        return (float("nan"),) * 3
    a, b = (half[used].double().log() for half in halves)
    a, b, y = (x - x.mean() for x in (a, b, logvar[used].double()))
    return float(((a + b) / 2 * y).mean()), float((a * b).mean()), float(y.square().mean())


def slope(rows: Array) -> float:
    """Slope of log-variance against ln ||J||^2, from `covariances` n 3; nan where sensitivity does not vary.

    With squared error and KL weight beta the best variance is sigma_i^2 = beta / (beta + 2 ||J_i||^2), so that the
    slope is -1 as long as sigma is small.
    """
    xy, xx, _ = rows.mean(0)
    return float(xy / xx) if xx > 0 else float("nan")


def explained(rows: Array) -> float:
    """R^2 of that line, 0..1: the share of the log-variance's variance that sensitivity explains; 0 of a constant
    log-variance.

    nan where sensitivity does not vary.
    """
    xy, xx, yy = rows.mean(0)
    if not xx > 0:
        return float("nan")
    return float(min(1.0, xy * xy / (xx * yy))) if yy > 0 else 0.0
