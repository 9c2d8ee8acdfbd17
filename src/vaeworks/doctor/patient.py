"""The model that is examined, and images as it sees them: encoded once, kept on disk, read in parts by every panel."""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..config import to_dict
from ..data import ImageFile
from ..data.place import open_place
from ..errors import ConfigError, DataError
from ..images import from_model_range, to_model_range, to_uint8
from ..models import Autoencoder
from .finding import NotExamined

T = TypeVar("T")
Track = Callable[[Iterable[Any]], Iterable[Any]]
"""Wraps what is iterated over, to show progress."""

QUICK_IMAGES = 96
"""Images that --quick encodes: with an SD-sized encoder about a minute and a half on two cores."""


@dataclass(frozen=True)
class Protocol:
    """What a finding depends on besides the model."""

    images: str
    """SHA-256 over the examined files' contents in order"""
    count: int
    size: int
    """side of the squares that images become, in pixels: the middle of the image, its shorter side resized to it by Lanczos"""
    quick: bool = False
    """fewer images and probes in every panel"""
    seed: int = 0
    labels: str = ""
    """SHA-256 over labels and masks; empty without"""

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, in hex."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass
class Patient:
    """An autoencoder with images that went through its encoder.

    Panels read `pixels`, `mean` and `logvar` in parts (`parts`), because all of them may be larger than memory: they are on disk.
    """

    autoencoder: Autoencoder
    """a copy in float32, in evaluation mode, without gradients"""
    protocol: Protocol
    files: tuple[ImageFile, ...]
    pixels: Tensor
    """uint8 n c size size, on disk"""
    mean: Tensor
    """of the posteriors, float32 n c h w, unnormalized, on disk: what `decode` takes"""
    logvar: Tensor | None
    """likewise; None where latents are points"""
    labels: tuple[str, ...] | None = None
    """a class per image"""
    masks: Tensor | None = None
    """bool n size size: where the object is"""
    original: Autoencoder | None = None
    """as it was loaded, in its own precision"""
    known: bool = True
    """whether its file is sure of scaling and shift"""
    track: Track = iter
    _folder: Any = field(default=None, repr=False)

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.pixels)

    @property
    def quick(self) -> bool:
        """Whether panels should be content with fewer images and probes."""
        return self.protocol.quick

    @property
    def factor(self) -> int:
        """Pixels per latent along a side."""
        return self.autoencoder.downsample_factor

    @property
    def is_point(self) -> bool:
        """Whether latents are points, without a variance."""
        return self.logvar is None

    def need(self, least: int, what: str = "") -> None:
        """Errors: NotExamined where there are fewer images than a statistic needs."""
        if self.count < least:
            raise NotExamined(f"needs at least {least} images{what and ' ' + what}, not {self.count}; give more")

    def some(self, most: int) -> list[int]:
        """Numbers of at most `most` images, evenly spaced over all."""
        count = min(most, self.count)
        return sorted({i * self.count // count for i in range(count)}) if count else []

    def images(self, numbers: Sequence[int]) -> Tensor:
        """Images n c size size in [-1,1] on the model's device."""
        return to_model_range(self.pixels[list(numbers)]).to(self.autoencoder.device)

    def parts(self, tensor: Tensor, length: int = 64) -> Iterator[Tensor]:
        """A tensor with one entry per image (mean, logvar, pixels) in parts that fit into memory."""
        for start in range(0, len(tensor), length):
            yield tensor[start : start + length].clone()

    @torch.inference_mode()
    def encode(self, images: Tensor, batch: int = 8) -> Tensor:
        """Posterior means of images n c h w in [-1,1]."""
        return torch.cat([self.autoencoder.encode(part).mode() for part in images.split(batch)])

    @torch.inference_mode()
    def decode(self, latents: Tensor, batch: int = 4) -> Tensor:
        """Images n c h w, not clamped, of unnormalized latents."""
        device = self.autoencoder.device
        return torch.cat([self.autoencoder.decode(part.to(device)) for part in latents.split(batch)])

    def uint8(self, images: Tensor) -> Tensor:
        """Decoded images as uint8 on the CPU; what is no number becomes black."""
        return from_model_range(images.nan_to_num(-1.0, 1.0, -1.0)).cpu()


def admit(
    autoencoder: Autoencoder,
    files: Sequence[ImageFile],
    *,
    size: int = 256,
    limit: int | None = None,
    quick: bool = False,
    seed: int = 0,
    labels: Sequence[str] | None = None,
    masks: Sequence[Path | None] | None = None,
    known: bool = True,
    track: Track = iter,
) -> Patient:
    """Encode images, once for all panels.

    limit: so many images at most, evenly spaced; quick: at most QUICK_IMAGES, unless `limit` says otherwise. Images that cannot be read are
    left out. labels, masks: one per file. Latents are kept in a temporary file, which goes with the patient.
    Errors: DataError where no image can be read; ConfigError for a size that is no multiple of f, or images that are neither gray nor RGB.
    """
    factor, channels = autoencoder.downsample_factor * autoencoder.config.latents_patch, autoencoder.config.in_channels
    if size < 1 or size % factor:
        raise ConfigError(f"size (={size}) must be a multiple of {factor} for this model, such as {max(1, round(size / factor)) * factor}")
    if channels not in (1, 3):
        raise ConfigError(f"this model's images have {channels} channels; folders hold images of 1 or 3")
    most = limit if limit is not None else QUICK_IMAGES if quick else len(files)
    count = min(most, len(files))
    if count < 1:
        raise DataError(f"no image to examine (limit {limit}); give at least one")
    taken = [i * len(files) // count for i in range(count)]
    model = copy.deepcopy(autoencoder).float().eval().requires_grad_(False)
    side, c = size // autoencoder.downsample_factor, autoencoder.latent_channels
    folder = tempfile.TemporaryDirectory(prefix="vaeworks-doctor-")
    try:
        pixels = _on_disk(Path(folder.name, "pixels"), (count, channels, size, size), np.uint8)
        mean = _on_disk(Path(folder.name, "mean"), (count, c, side, side), np.float32)
        logvar: Tensor | None = None
        kept: list[int] = []
        reason = ""
        with torch.no_grad():  # not inference_mode: panels take gradients at these latents
            for number in track(taken):
                try:
                    picture = open_place(files[number].path, channels)
                except DataError as error:
                    reason = reason or f"{files[number].path}: {error}"
                    continue
                image = to_uint8(ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS))
                posterior = model.encode(to_model_range(image[None]).to(model.device))
                if logvar is None and not posterior.is_point:
                    logvar = _on_disk(Path(folder.name, "logvar"), (count, c, side, side), np.float32)
                place = len(kept)
                pixels[place], mean[place] = image, posterior.mean[0].float().cpu()
                if logvar is not None:
                    logvar[place] = posterior.logvar[0].float().cpu()
                kept.append(number)
        if not kept:
            raise DataError(f"none of the {count} images can be read; the first: {reason}")
    except BaseException:
        folder.cleanup()
        raise
    n = len(kept)
    chosen = tuple(files[i] for i in kept)
    digest = hashlib.sha256("".join(f.digest for f in chosen).encode()).hexdigest()
    names = tuple(labels[i] for i in kept) if labels is not None else None
    drawn = None if masks is None else torch.stack([_mask(masks[i], size) for i in kept])
    protocol = Protocol(digest, n, size, quick, seed, _labels_digest(names, drawn))
    return Patient(
        model, protocol, chosen, pixels[:n], mean[:n], None if logvar is None else logvar[:n], names, drawn,
        original=autoencoder, known=known, _folder=folder,
    )  # fmt: skip


def model_digest(autoencoder: Autoencoder) -> str:
    """SHA-256 over configuration and weights, in hex: equal models have equal digests, whatever file they are from."""
    digest = hashlib.sha256(json.dumps(to_dict(autoencoder.config), sort_keys=True, default=str).encode())
    for name, tensor in sorted(autoencoder.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _on_disk(path: Path, shape: tuple[int, ...], kind: Any) -> Tensor:
    """A tensor whose memory is a file: the system writes and reads its pages."""
    return torch.from_numpy(np.memmap(path, dtype=kind, mode="w+", shape=shape))


def _mask(path: Path | None, size: int) -> Tensor:
    """A mask image as bool size size, framed like the images; False everywhere where there is none."""
    if path is None:
        return torch.zeros(size, size, dtype=torch.bool)
    try:
        with Image.open(path) as file:
            picture = ImageOps.fit(file.convert("L"), (size, size), Image.Resampling.NEAREST)
    except OSError as error:
        raise DataError(f"mask {path} cannot be read: {error.strerror or error}") from None
    return to_uint8(picture)[0] > 127


def _labels_digest(labels: Sequence[str] | None, masks: Tensor | None) -> str:
    if labels is None and masks is None:
        return ""
    digest = hashlib.sha256(json.dumps(labels).encode())
    if masks is not None:
        digest.update(np.packbits(masks.numpy()).tobytes())
    return digest.hexdigest()
