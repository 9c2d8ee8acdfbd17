"""Turn a mel spectrogram back into sound: estimate the spectrum of its bands, then a phase that fits."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...data.spectrogram import MEL, Mel, columns_of, filters, from_pixels, istft, stft
from ...errors import ConfigError

ITERATIONS = 64
"""Iterations of Griffin-Lim; twice as many change little."""

MOMENTUM = 0.99
"""Momentum of accelerated Griffin-Lim, as Perraudin et al. recommend."""

UPDATES = 200
"""Updates of the non-negative least squares."""


def magnitudes(levels: Tensor, mel: Mel = MEL) -> Tensor:
    """Magnitudes of the spectrum, float32 bins columns, from levels in dB, bands columns; levels at the floor are
    silent.

    There are fewer bands than bins, so many spectra fit. The result has the least squared error in the bands' powers
    under non-negative powers. The solution of scipy.optimize.nnls concentrates on few bins; this one keeps the shape of
    the bands, and sounds nearer to the original.
    Source: multiplicative updates, Lee & Seung 2001 (theorem 1).
    """
    weights = filters(mel).to(levels.device)
    power = torch.where(levels > mel.floor, 10 ** (levels.double() / 10), 0)
    # weights are divided by their sums, so that every band counts equally, narrow low ones and wide high ones
    sums = weights.sum(1, keepdim=True)
    weights, power = (weights / sums).float(), (power / sums).float()
    aimed = weights.T @ power
    found = aimed.clone()
    for _ in range(UPDATES):
        found *= aimed / (weights.T @ (weights @ found)).clamp_min(torch.finfo(found.dtype).tiny)
    return found.sqrt()


def griffin_lim(
    magnitudes: Tensor, length: int, *, iterations: int = ITERATIONS, seed: int = 0, mel: Mel = MEL
) -> Tensor:
    """`length` samples, float32, whose spectrum has about these magnitudes, bins columns. Many sounds do; a random
    phase decides.

    Errors: ConfigError for a number of columns that `length` samples do not have.
    Source: Griffin & Lim 1984; accelerated, Perraudin, Balazs & Sondergaard 2013 (algorithm 2).
    """
    if magnitudes.shape[-1] != columns_of(length, mel):
        raise ConfigError(
            f"{length} samples have {columns_of(length, mel)} columns, got {magnitudes.shape[-1]}; give matching ones"
        )
    generator = torch.Generator().manual_seed(seed)
    angles = 2 * torch.pi * torch.rand(magnitudes.shape, generator=generator).to(magnitudes)
    consistent = torch.zeros_like(magnitudes, dtype=torch.complex64)
    phase = torch.polar(torch.ones_like(magnitudes), angles)
    for _ in range(iterations):
        before, consistent = consistent, stft(istft(magnitudes * phase, length, mel), mel)
        ahead = consistent + MOMENTUM * (consistent - before)
        phase = ahead / ahead.abs().clamp_min(torch.finfo(torch.float32).tiny)
    return istft(magnitudes * phase, length, mel)


def audible(
    image: Tensor, length: int | None = None, *, iterations: int = ITERATIONS, seed: int = 0, mel: Mel = MEL
) -> NDArray[np.float64]:
    """The sound of a spectrogram image uint8 c bands columns: samples in [-1,1], by default as many as the columns
    cover.

    Two channels give samples 2 n, both from the same random phase, so that equal channels sound equal; of three
    channels the mean is used.
    Errors: ConfigError for an image whose height is not the number of bands.
    """
    if image.shape[-2] != mel.bands:
        raise ConfigError(f"a spectrogram has {mel.bands} rows, one a band; this picture has {image.shape[-2]}")
    if len(image) == 2:
        return np.stack(
            [audible(channel[None], length, iterations=iterations, seed=seed, mel=mel) for channel in image]
        )
    length = (image.shape[-1] - 1) * mel.hop if length is None else length
    image = image[..., : columns_of(length, mel)]
    samples = griffin_lim(magnitudes(from_pixels(image, mel), mel), length, iterations=iterations, seed=seed, mel=mel)
    return samples.double().clamp(-1, 1).numpy()
