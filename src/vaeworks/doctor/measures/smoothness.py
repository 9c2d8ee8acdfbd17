"""Pictures of latents that are disturbed, mixed, or decoded and encoded repeatedly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...images import from_model_range, to_model_range
from ...metrics.colour import axes, colour_bias

Array = NDArray[np.floating[Any]]
Coder = Callable[[Tensor], Tensor]

LEVELS = 0.0, 0.05, 0.1, 0.2, 0.4, 0.8
"""Noise levels, in standard deviations of each channel (decode-under-noise of RobusTok and l-DeTok)."""

WORST = 4.0
"""Mean squared error of white against black, range [-1,1]."""


def error(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error by image of n k H W, the first clamped to [-1,1]: n."""
    return (a.clamp(-1, 1) - b).double().square().mean((1, 2, 3))


def psnr(errors: Array) -> Array:
    """dB of mean squared errors between images in [-1,1]; at most 100."""
    return np.asarray(10 * np.log10(WORST / np.maximum(errors, WORST * 1e-10)))


def noise_errors(
    decode: Coder, z: Tensor, x: Tensor, std: Tensor, seed: int, levels: Sequence[float] = LEVELS
) -> tuple[Array, Array, list[Tensor]]:
    """Errors of D(z + s std eps) against x and against D(z) for one image 1 k H W, by level s: two arrays l; and the
    pictures.

    std: c 1 1. The first level is 0. All levels share one eps, so that the curve is smooth.
    """
    eps = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed)).to(z) * std.to(z)
    pictures = [decode(z + s * eps) if s else decode(z) for s in levels]
    plain = pictures[0].clamp(-1, 1)
    return (
        np.array([float(error(p, x)) for p in pictures]),
        np.array([float(error(p, plain)) for p in pictures]),
        pictures,
    )


def level_of_loss(errors: Array, loss: float = 3.0, levels: Sequence[float] = LEVELS) -> float:
    """The noise level at which the error has grown by `loss` dB, from errors by level; the last level if it never has.

    Between levels the error is taken as linear in the level's square, which it is for a linear decoder.
    """
    wanted = errors[0] * 10 ** (loss / 10)
    for i in range(1, len(levels)):
        if errors[i] >= wanted:
            low, high = levels[i - 1] ** 2, levels[i] ** 2
            share = (wanted - errors[i - 1]) / max(errors[i] - errors[i - 1], 1e-30)
            return float(np.sqrt(low + (high - low) * np.clip(share, 0.0, 1.0)))
    return float(levels[-1])


def area(decibels: Array, levels: Sequence[float] = LEVELS) -> float:
    """Mean dB between the first level and the last, by trapezoids: of a curve l, or of the mean of curves n l."""
    curve = decibels.mean(0) if decibels.ndim == 2 else decibels
    return float(np.trapezoid(curve, levels) / (levels[-1] - levels[0]))


def lerp(a: Tensor, b: Tensor) -> Tensor:
    """The middle of two latents."""
    return (a + b) / 2


def slerp(a: Tensor, b: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The middle of the arc between two latents 1 c h w with standardized channels; its length is their mean length.


    Source: White 2016 (arXiv 1609.04468).
    """
    u, v = ((x - mean) / std for x in (a, b))
    middle = (u / u.norm().clamp_min(1e-12) + v / v.norm().clamp_min(1e-12)) / 2
    length = (u.norm() + v.norm()) / 2
    return middle / middle.norm().clamp_min(1e-12) * length * std + mean


def gradient_energy(images: Tensor) -> float:
    """Mean squared difference between neighbouring pixels of n k H W: a measure of fine detail."""
    x = images.clamp(-1, 1).double()
    return float((x.diff(dim=-1).square().mean() + x.diff(dim=-2).square().mean()) / 2)


@dataclass(frozen=True)
class Rounds:
    """One image, encoded and decoded k times; each round's picture is stored in 8 bits."""

    errors: Array
    """k: mean squared errors against the image"""
    drift: Array
    """k: root mean square distance of each round's latents from the first, in standard deviations"""
    colour: Array
    """k a: mean colour minus the image's, by the axes of metrics/colour.py"""
    gain: Array
    """k: contrast of each round's picture over the one before, the slope of the regression between them; 1 where the
    one before has no contrast"""
    pictures: tuple[Tensor, ...]
    """pictures of the rounds, uint8 1 k H W"""


def cycle(encode: Coder, decode: Coder, x: Tensor, std: Tensor, rounds: int) -> Rounds:
    """Rounds of decoding and encoding from an image 1 k H W in [-1,1]; std: of the channels, c 1 1.

    Contrast is that of squares as large as a latent, so that lost detail does not count as lost contrast.
    """
    image, first = from_model_range(x).cpu(), encode(x)
    z, before, f = first, x, x.shape[-1] // first.shape[-1]
    errors, drifts, colours, gains, pictures = [], [], [], [], []
    for _ in range(rounds):
        picture = from_model_range(decode(z).nan_to_num(-1.0, 1.0, -1.0)).cpu()
        now = to_model_range(picture).to(x)
        z = encode(now)
        errors.append(float(error(now, x)))
        drifts.append(float(((z - first) / std.to(z)).double().square().mean().sqrt()))
        colours.append(colour_bias(image[0], picture[0]))
        gains.append(contrast_gain(F.avg_pool2d(before, f), F.avg_pool2d(now, f)))
        pictures.append(picture)
        before = now
    return Rounds(np.array(errors), np.array(drifts), np.array(colours), np.array(gains), tuple(pictures))


def contrast_gain(before: Tensor, after: Tensor) -> float:
    """Slope of the regression of a picture 1 k H W on the one before, without the mean of each colour: g in
    after = g before + c."""
    a, b = ((x - x.mean((2, 3), keepdim=True)).double() for x in (before, after))
    power = float(a.square().mean())
    return float((a * b).mean()) / power if power > 1e-9 else 1.0


def lab_axes(channels: int) -> list[int]:
    """Positions of L, a and b in `Rounds.colour` (gray images have L alone)."""
    return [i for i, name in enumerate(axes(channels)) if name in ("L", "a", "b")]
