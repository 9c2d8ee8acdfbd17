"""Send a sound through an autoencoder, and measure the distance from the original."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...data.sources.sound import picture
from ...data.spectrogram import MEL, columns_of, spectrogram, stft
from ...errors import ConfigError
from ...images import to_pillow, to_uint8
from ...metrics.baselines import down_up
from ...runtime import Codec
from ..codes import decode_picture, encode_picture
from .griffin_lim import ITERATIONS, audible

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class SoundDistances:
    """Distances from the original. There is no signal-to-noise ratio, because the phase is new, which makes it
    meaningless."""

    log_mel: float
    """dB between spectrograms of original and reconstruction: the loss of the autoencoder"""
    log_mel_down_up: float
    """dB; the same for a spectrogram that was bicubically shrunk by f and enlarged"""
    log_mel_ceiling: float
    """dB between the original spectrogram and that of its Griffin-Lim sound: the loss of the way back"""
    log_mel_heard: float
    """dB; the same for the sound of the reconstruction: the loss of both"""
    convergence_ceiling: float
    """spectral convergence of the Griffin-Lim sound of the original spectrogram; nan where the original is silent"""
    convergence_heard: float
    """of the Griffin-Lim sound of the reconstruction"""


@dataclass(frozen=True, eq=False)
class Heard:
    """A sound and its reconstruction. Sounds are samples n in [-1,1], MEL.rate a second; spectrograms are uint8 1 bands
    columns.

    With a model of two channels, sounds are 2 n and spectrograms 2 bands columns: left and right.
    """

    original: Samples
    ceiling: Samples
    """Griffin-Lim sound of the original spectrogram: the sound of a perfect autoencoder"""
    recon: Samples
    """Griffin-Lim sound of the reconstruction"""
    image: Tensor
    recon_image: Tensor
    figures: SoundDistances


def hear(codec: Codec, samples: Samples, *, iterations: int = ITERATIONS, seed: int = 0) -> Heard:
    """Send a sound through an autoencoder of spectrograms, by its posterior's mean. Both ways back start from the same
    random phase.

    Models of three channels get a gray image, and the mean of their channels is the reconstruction. Models of two
    channels get left and right; samples n are both.
    Errors: ConfigError for no samples, and for samples 2 n where the model does not have two channels.
    """
    samples = np.asarray(samples)
    if samples.dtype.kind != "f" or samples.ndim not in (1, 2):
        raise ConfigError(f"samples must be floats in [-1,1], n or 2 n; got {samples.dtype} of shape {samples.shape}")
    samples = samples.astype(np.float64, copy=False)
    channels, length = codec.autoencoder.config.in_channels, samples.shape[-1]
    if not samples.size:
        raise ConfigError("the sound has no samples; give at least one")
    if samples.ndim == 2 and channels != 2:
        raise ConfigError(f"the sound is stereo, and the model has {channels} channels; give it the mean of both sides")
    if channels == 2:
        samples = np.atleast_2d(samples).repeat(3 - samples.ndim, axis=0)
    columns = columns_of(length)
    padded = picture(samples)  # networks need more than a few columns
    code = encode_picture(codec, padded.expand(channels, -1, -1))
    decoded = decode_picture(codec, code.mean, code.height, code.width)
    answer = decoded if channels == 2 else decoded.float().mean(0, keepdim=True).round().to(torch.uint8)
    image, recon_image = padded[..., :columns], answer[..., :columns]
    ceiling, recon = (audible(each, length, iterations=iterations, seed=seed) for each in (image, recon_image))
    small = _down_up(padded, codec.autoencoder.downsample_factor)[..., :columns]
    figures = SoundDistances(
        log_mel=log_mel_distance(image, recon_image),
        log_mel_down_up=log_mel_distance(image, small),
        log_mel_ceiling=log_mel_distance(image, spectrogram(ceiling)),
        log_mel_heard=log_mel_distance(image, spectrogram(recon)),
        convergence_ceiling=spectral_convergence(samples, ceiling),
        convergence_heard=spectral_convergence(samples, recon),
    )
    return Heard(samples, ceiling, recon, image, recon_image, figures)


def _down_up(image: Tensor, factor: int) -> Tensor:
    return torch.cat([to_uint8(down_up(to_pillow(channel[None]), factor)) for channel in image])


def log_mel_distance(image: Tensor, other: Tensor) -> float:
    """Difference in level of two spectrograms in dB: root mean square over bands and channels, mean over columns.

    Source: the log spectral distance of Gray & Markel 1976, on mel bands.
    """
    return float(MEL.step * (image.double() - other.double()).square().mean((0, 1)).sqrt().mean())


def spectral_convergence(samples: Samples, other: Samples) -> float:
    """Distance of magnitudes as a share of the original's (Frobenius norms): 0 for equal sounds, 1 for silence.

    Loud parts dominate it.
    Source: Sturmel & Daudet 2011.
    """
    a, b = (stft(torch.from_numpy(each)).abs() for each in (samples, other))
    size = float(a.norm())
    return float((a - b).norm()) / size if size else float("nan")
