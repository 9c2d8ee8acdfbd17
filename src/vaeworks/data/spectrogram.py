"""Sounds as images: mel spectrograms of 8 bits, one channel per channel of the sound, a column every 16 ms, low
frequencies at the bottom.

Level L of band m in column t, in dB:

    L = 10 log10(sum_k F[m, k] |X[k, t]|^2)
    pixel = round((L - FLOOR) / STEP), 0..255

X is the STFT with a Hann window, scaled so that a sine of amplitude 1 peaks at 1. The bands are evenly spaced on
Slaney's mel scale (linear up to 1 kHz, logarithmic above). F are triangles of area 1 (in Hz), the default of librosa:
Slaney 1998, "Auditory Toolbox". White noise then has the same level in all bands. The phase is not kept.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NOTE = "vaeworks-mel"
"""Key of the transform's parameters in a PNG file."""

BREAK, SLOPE, LOG_STEP = 1000.0, 3 / 200, math.log(6.4) / 27
"""Slaney's scale: `SLOPE` mel per Hz up to `BREAK` Hz; above it a mel is a factor of exp(`LOG_STEP`)."""


@dataclass(frozen=True, slots=True)
class Mel:
    """Parameters of the spectrogram. vaeworks always uses `MEL`; its PNG files hold these parameters."""

    rate: int = 16_000
    """samples per second; sounds with other rates are resampled"""
    window: int = 1024
    """length of the Hann window and of the transform, in samples: 64 ms, bins of 15.6 Hz"""
    hop: int = 256
    """samples between columns: 16 ms"""
    bands: int = 128
    """height of the spectrogram in pixels"""
    highest: float = 8000.0
    """Hz; the lowest band begins at 0"""
    floor: float = -108.0
    """dB; lower levels become pixel 0, which stands for silence"""
    step: float = 0.4
    """dB between gray levels, so that rounding errs by 0.2 dB at most. Differences are audible from about 0.5 to 1 dB
    (Zwicker & Fastl 1999, chapter 7). 255 steps end at -6 dB; the loudest samples within [-1,1], low square waves,
    reach -9 dB"""

    @property
    def note(self) -> str:
        """The parameters as JSON."""
        return json.dumps(dataclasses.asdict(self))

    def seconds(self, columns: float) -> float:
        """Duration of so many columns in seconds."""
        return columns * self.hop / self.rate


MEL = Mel()


def hertz_to_mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mel of frequencies in Hz, by Slaney's scale."""
    return np.where(hertz < BREAK, SLOPE * hertz, SLOPE * BREAK + np.log(np.maximum(hertz, BREAK) / BREAK) / LOG_STEP)


def mel_to_hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of `hertz_to_mel`."""
    start = SLOPE * BREAK
    return np.where(mel < start, mel / SLOPE, BREAK * np.exp(LOG_STEP * (np.maximum(mel, start) - start)))


@cache
def edges(mel: Mel = MEL) -> NDArray[np.float64]:
    """Edges of the bands, bands + 2 frequencies in Hz: band m is a triangle on edges m, m + 1, m + 2."""
    return mel_to_hertz(np.linspace(0, hertz_to_mel(np.array(mel.highest)), mel.bands + 2))


@cache
def filters(mel: Mel = MEL) -> Tensor:
    """Weights of the bands, float64 bands bins, lowest band first, in 1/Hz."""
    low, peak, high = (edges(mel)[i : i + mel.bands, None] for i in range(3))
    bins = np.arange(mel.window // 2 + 1) * mel.rate / mel.window
    triangles = np.minimum((bins - low) / (peak - low), (high - bins) / (high - peak)).clip(0)
    return torch.from_numpy(triangles * (2 / (high - low)))


def stft(samples: Tensor, mel: Mel = MEL) -> Tensor:
    """The spectrum, complex bins columns, of samples n. Column t is centred on sample t * hop; the sound is padded with
    silence."""
    window = hann(mel, samples)
    return torch.stft(
        samples, mel.window, mel.hop, window=window, center=True, pad_mode="constant", return_complex=True
    ) * _scale(mel)


def istft(spectrum: Tensor, length: int, mel: Mel = MEL) -> Tensor:
    """The `length` samples whose spectrum is nearest in least squares (Griffin & Lim 1984, equation 6)."""
    return torch.istft(
        spectrum / _scale(mel), mel.window, mel.hop, window=hann(mel, spectrum.real), center=True, length=length
    )


def hann(mel: Mel, like: Tensor) -> Tensor:
    """The Hann window, with dtype and device of another tensor."""
    return torch.hann_window(mel.window, dtype=like.dtype, device=like.device)


def _scale(mel: Mel) -> float:
    return 4 / mel.window  # half the window's sum belongs to the positive frequency


def columns_of(length: int, mel: Mel = MEL) -> int:
    """Number of columns of `length` samples."""
    return 1 + length // mel.hop


def levels(samples: NDArray[np.float64], mel: Mel = MEL) -> Tensor:
    """Levels in dB, float64 bands columns, lowest band first, of samples n in [-1,1]; at least the floor.

    The computation is in float64, so that hardly any pixel depends on the machine: hashes of images decide their side
    of a split.
    """
    power = filters(mel) @ stft(torch.from_numpy(samples), mel).abs().square()
    return 10 * power.clamp_min(10 ** (mel.floor / 10)).log10()


def to_pixels(levels: Tensor, mel: Mel = MEL) -> Tensor:
    """The image of levels bands columns: uint8 1 bands columns, highest band first."""
    return ((levels - mel.floor) / mel.step).round().clamp(0, 255).to(torch.uint8).flip(0)[None]


def from_pixels(image: Tensor, mel: Mel = MEL) -> Tensor:
    """The inverse of `to_pixels`: levels, float64 bands columns, from the mean of the channels of an image uint8 c
    bands columns."""
    return image.double().mean(0).flip(0) * mel.step + mel.floor


def spectrogram(samples: NDArray[np.float64], mel: Mel = MEL) -> Tensor:
    """The spectrogram, uint8 c bands columns, of samples n or c n in [-1,1]."""
    return torch.cat([to_pixels(levels(channel, mel), mel) for channel in np.atleast_2d(samples)])
