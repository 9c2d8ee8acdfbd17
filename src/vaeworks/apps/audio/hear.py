"""A sound through an autoencoder: what is heard again, and how far it is from what went in."""

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
    """Distances from the original; a signal-to-noise ratio is not among them, because the phase is new and would make
    it meaningless."""

    log_mel: float
    """dB between pictures: what the autoencoder loses"""
    log_mel_down_up: float
    """dB; the same of a picture that was bicubically shrunk by f and enlarged"""
    log_mel_ceiling: float
    """dB between the original's picture and that of the sound Griffin-Lim makes of it: what the way back loses"""
    log_mel_heard: float
    """dB; likewise of the reconstruction's sound: what both lose"""
    convergence_ceiling: float
    """spectral convergence of the sound that Griffin-Lim makes of the original's picture; nan where the original is
    silent"""
    convergence_heard: float
    """of that which it makes of the reconstruction"""


@dataclass(frozen=True, eq=False)
class Heard:
    """A sound, and what comes back. Sounds are samples n in [-1,1], MEL.rate a second; pictures uint8 1 bands columns.

    Of a model of two channels they are 2 n and 2 bands columns: left and right.
    """

    original: Samples
    ceiling: Samples
    """Griffin-Lim of the original's picture: as good as a perfect autoencoder would sound"""
    recon: Samples
    """Griffin-Lim of the reconstruction"""
    image: Tensor
    recon_image: Tensor
    figures: SoundDistances


def hear(codec: Codec, samples: Samples, *, iterations: int = ITERATIONS, seed: int = 0) -> Heard:
    """A sound through an autoencoder of spectrograms, by its posterior's mode; both ways back start from the same
    random phase.

    Models of three channels get gray, and the mean of what they answer counts; those of two get left and right, or
    samples n twice.
    Errors: ConfigError for no samples, and for samples 2 n where the model has other channels than two.
    """
    channels, length = codec.autoencoder.config.in_channels, samples.shape[-1]
    if not samples.size:
        raise ConfigError("a sound without samples cannot be heard")
    if samples.ndim == 2 and channels != 2:
        raise ConfigError(f"a sound in stereo, and a model of {channels} channels; give it the mean of both sides")
    if channels == 2:
        samples = np.atleast_2d(samples).repeat(3 - samples.ndim, axis=0)
    columns = columns_of(length)
    padded = picture(samples)  # a network wants more than a few columns
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
    """Root mean square over bands (and channels) of the difference in level, mean over columns, in dB, of two pictures
    of spectrograms.

    Source: the log spectral distance of Gray & Markel 1976, on mel bands.
    """
    return float(MEL.step * (image.double() - other.double()).square().mean((0, 1)).sqrt().mean())


def spectral_convergence(samples: Samples, other: Samples) -> float:
    """Distance of magnitudes as a share of the original's (Frobenius norms): 0 is equal, 1 as far away as silence.

    It hears loud parts only.
    Source: Sturmel & Daudet 2011.
    """
    a, b = (stft(torch.from_numpy(each)).abs() for each in (samples, other))
    size = float(a.norm())
    return float((a - b).norm()) / size if size else float("nan")
