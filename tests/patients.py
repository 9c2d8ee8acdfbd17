"""Patients for the doctor's tests: small models with photographs, or with latents made by hand."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import vaeworks as vw
from vaeworks.data import ImageFile, photos
from vaeworks.doctor.image_sample import DoctorProtocol
from vaeworks.doctor.subject import Subject, encode_subject
from vaeworks.models.init import linear_init_


def linear(name: str = "small-f8c4", **overrides: object) -> vw.Autoencoder:
    """A VAE that works without training, whose latents of photographs have about unit variance once normalized."""
    vae = vw.build(name, **overrides).eval().requires_grad_(False)
    linear_init_(vae, torch.Generator().manual_seed(0))
    vae.config = dataclasses.replace(vae.config, scaling_factor=0.85)
    return vae


def files(paths: Sequence[Path] | None = None) -> list[ImageFile]:
    """The bundled photographs, or these."""
    return [ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest(), 0, 0) for path in paths or photos()]


def photos_patient(
    vae: vw.Autoencoder | None = None, size: int = 64, count: int | None = None, quick: bool = True
) -> Subject:
    """The bundled photographs through a model."""
    return encode_subject(vae or linear(), files()[:count], size=size, quick=quick)


def patient(
    mean: Tensor,
    logvar: Tensor | None = None,
    vae: vw.Autoencoder | None = None,
    pixels: Tensor | None = None,
    labels: Sequence[str] | None = None,
    masks: Tensor | None = None,
    quick: bool = True,
) -> Subject:
    """A patient whose latents n c h w are given: for statistics with a known answer."""
    n, c, h, w = mean.shape
    model = vae or vw.build("small-f8c4", latent_channels=c).eval().requires_grad_(False)
    f = model.downsample_factor
    if pixels is None:
        pixels = torch.randint(
            0, 256, (n, 3, h * f, w * f), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
        )
    protocol = DoctorProtocol("0" * 64, n, h * f, quick)
    names = None if labels is None else tuple(labels)
    return Subject(model, protocol, (), pixels, mean, logvar, names, masks, original=model)
