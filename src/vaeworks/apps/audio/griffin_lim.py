"""From a mel spectrogram back to sound: a spectrum that has these bands, and a phase that fits it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...data.spectrogram import MEL, Mel, columns_of, filters, from_pixels, istft, stft
from ...errors import ConfigError

ITERATIONS = 64
"""Of Griffin-Lim; twice as many change little."""

MOMENTUM = 0.99
"""The value that Perraudin et al. recommend."""

UPDATES = 200
"""Of the non-negative least squares."""


def magnitudes(levels: Tensor, mel: Mel = MEL) -> Tensor:
    """Magnitudes of the spectrum, float32 bins columns, of levels in dB, bands columns; what is at the floor is silent.

    The bands say less than the bins: of all spectra one with the least squared error in the bands' powers is taken, no
    power negative. It is not that of scipy.optimize.nnls, which concentrates on few bins; this one stays near the
    bands' own shape, and sounds nearer.
    Source: multiplicative updates, Lee & Seung 2001 (theorem 1).
    """
    weights = filters(mel).to(levels.device)
    power = torch.where(levels > mel.floor, 10 ** (levels.double() / 10), 0)
    # every band counts by its own size: weights are divided by their sums, so that narrow low bands do not outweigh
    # wide high ones
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
    """So many samples, float32, whose spectrum has about these magnitudes, bins columns; it is one of many, chosen by a
    random phase.

    Errors: ConfigError for another number of columns than `length` samples have.
    Source: Griffin & Lim 1984; accelerated, Perraudin, Balazs & Sondergaard 2013 (algorithm 2).
    """
    if magnitudes.shape[-1] != columns_of(length, mel):
        raise ConfigError(
            f"{length} samples have {columns_of(length, mel)} columns, and there are {magnitudes.shape[-1]}"
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
    """The sound of a picture of a spectrogram, uint8 c bands columns: samples in [-1,1], by default as many as the
    columns reach.

    Of two channels it is 2 n, both from the same random phase, so that equal channels sound equal; of three their mean
    is taken.
    Errors: ConfigError for a picture of another height than the bands.
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
