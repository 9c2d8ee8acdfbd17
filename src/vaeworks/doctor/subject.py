"""The model that is examined, and images as it sees them: encoded once, kept on disk, read in parts by every panel."""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..data import ImageFile, ImageSet
from ..data.image_ref import ImageRef, open_place, read_place
from ..data.subsets import spaced
from ..errors import ConfigError, DataError
from ..files.atomic import map_file
from ..files.scratch import scratch
from ..images import from_model_range, has_alpha, marked, mask_image, square, to_model_range
from ..models import Autoencoder
from ..models.digest import model_digest
from .finding import NotExamined

Track = Callable[[Iterable[Any]], Iterable[Any]]
"""Wraps what is iterated over, to show progress."""

QUICK_IMAGES = 48
"""Images that --quick encodes: with an SD-sized encoder about a minute on two cores."""


@dataclass(frozen=True)
class DoctorProtocol:
    """What a finding depends on besides the model."""

    images: str
    """SHA-256 over the examined files' contents in order"""
    count: int
    size: int
    """side of the squares that images become, in pixels: the middle of the image, its shorter side resized to it by
    Lanczos"""
    quick: bool = False
    """fewer images and probes in every panel"""
    seed: int = 0
    labels: str = ""
    """SHA-256 over labels and masks; empty without"""
    reference: str = ""
    """digest of the VAE that the diffusion model was made for; empty: the examined one"""
    channels: int = 3
    """of the images, as the model takes them"""
    flattened: int = 0
    """images with transparency, which were flattened onto white"""

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, in hex."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(eq=False)
class Subject:
    """An autoencoder with images that went through its encoder.

    Panels read `pixels`, `mean` and `logvar` in parts (`parts`), because all of them may be larger than memory: they
    are on disk.
    """

    autoencoder: Autoencoder
    """a copy in float32, in evaluation mode, without gradients"""
    protocol: DoctorProtocol
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
    reference: Autoencoder | None = None
    """the VAE that the diffusion model was made for, if it is another one"""
    track: Track = iter

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
        return spaced(self.count, most)

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


def choose(files: Sequence[ImageFile], limit: int | None = None, quick: bool = False) -> list[int]:
    """Numbers of the files that are examined: `limit` at most, or QUICK_IMAGES, evenly spaced.

    Errors: DataError where that is none.
    """
    chosen = spaced(len(files), limit if limit is not None else QUICK_IMAGES if quick else len(files))
    if not chosen:
        raise DataError(f"no image to examine (limit {limit}, {len(files)} images); give at least one")
    return chosen


def protocol_of(
    files: Sequence[ImageFile],
    size: int,
    quick: bool = False,
    seed: int = 0,
    labels: Sequence[str] | None = None,
    masks: Sequence[ImageRef | None] | None = None,
    reference: Autoencoder | None = None,
    channels: int = 3,
) -> DoctorProtocol:
    """What an examination of exactly these files would depend on; known before anything is encoded."""
    digest = ImageSet("", tuple(files)).digest
    marks = "" if labels is None and masks is None else _labels_digest(labels, masks)
    flattened = sum(has_alpha(read_place(file.path)) for file in files)
    return DoctorProtocol(
        digest,
        len(files),
        size,
        quick,
        seed,
        marks,
        "" if reference is None else model_digest(reference),
        channels,
        flattened,
    )


def encode_subject(
    autoencoder: Autoencoder,
    files: Sequence[ImageFile],
    *,
    size: int = 256,
    limit: int | None = None,
    quick: bool = False,
    seed: int = 0,
    labels: Sequence[str] | None = None,
    masks: Sequence[ImageRef | None] | None = None,
    known: bool | None = None,
    reference: Autoencoder | None = None,
    track: Track = iter,
) -> Subject:
    """Encode images, once for all panels.

    size: as in `DoctorProtocol`; limit, quick: as in `choose`; labels, masks: one per file; known: whether the scaling
    factor is a fact, None: what the configuration says of it; reference: the VAE that the diffusion model was made for.
    Latents are kept in a temporary file, which goes with the patient.
    Errors: DataError for no images or one that cannot be read; ConfigError for a size that is no multiple of f, for
    images that are neither gray nor RGB, and for a reference with other latents.
    """
    check_examinable(autoencoder, size, reference)
    taken = choose(files, limit, quick)
    files = [files[i] for i in taken]
    names = None if labels is None else tuple(labels[i] for i in taken)
    places = None if masks is None else [masks[i] for i in taken]
    model = copy.deepcopy(autoencoder).float().eval().requires_grad_(False)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ending = ExitStack()
    try:
        folder = ending.enter_context(scratch(Path(tempfile.gettempdir())))
        folder.mkdir()
        pixels, mean, logvar = _encoded(model, files, size, folder, track)
        drawn = None if places is None else torch.stack([_mask(place, size) for place in places])
    except BaseException:
        ending.close()
        raise
    protocol = protocol_of(files, size, quick, seed, names, places, reference, autoencoder.config.in_channels)
    known = autoencoder.config.normalization_known if known is None else known
    patient = Subject(
        model,
        protocol,
        tuple(files),
        pixels,
        mean,
        logvar,
        names,
        drawn,
        original=autoencoder,
        known=known,
        reference=reference,
        track=track,
    )
    weakref.finalize(patient, ending.close)
    return patient


def check_examinable(autoencoder: Autoencoder, size: int, reference: Autoencoder | None = None) -> None:
    """Errors: ConfigError, as `encode_subject`."""
    config = autoencoder.config
    factor = autoencoder.downsample_factor * config.latents_patch
    if size < 1 or size % factor:
        raise ConfigError(
            f"size (={size}) must be a multiple of {factor} for this model, such as "
            f"{max(1, round(size / factor)) * factor}"
        )
    if config.in_channels not in (1, 3):
        raise ConfigError(f"this model's images have {config.in_channels} channels; folders hold images of 1 or 3")
    if config.out_channels != config.in_channels:
        raise ConfigError(
            f"this model takes {config.in_channels} channels and gives {config.out_channels}; only equal ones can be "
            "compared"
        )
    if reference is not None and (reference.config.name, reference.config.in_channels) != (
        config.name,
        config.in_channels,
    ):
        raise ConfigError(
            f"the reference's latents are {reference.config.name}, this VAE's {config.name}; they cannot be exchanged"
        )


def _encoded(
    model: Autoencoder, files: Sequence[ImageFile], size: int, folder: Path, track: Track
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Pixels, means and log-variances of the images, in files."""
    n, channels, c, side = len(files), model.config.in_channels, model.latent_channels, size // model.downsample_factor
    pixels = _on_disk(folder / "pixels", (n, channels, size, size), np.uint8)
    mean = _on_disk(folder / "mean", (n, c, side, side), np.float32)
    logvar: Tensor | None = None
    with torch.no_grad():  # not inference_mode: panels take gradients at these latents
        for place, file in enumerate(track(files)):
            try:
                picture = open_place(file.path, channels)
            except DataError as error:
                raise DataError(f"{file.path} cannot be read any more: {error}") from None
            image = square(picture, size)
            posterior = model.encode(to_model_range(image[None]).to(model.device))
            pixels[place], mean[place] = image, posterior.mean[0].float().cpu()
            if not posterior.is_point:
                logvar = _on_disk(folder / "logvar", (n, c, side, side), np.float32) if logvar is None else logvar
                logvar[place] = posterior.logvar[0].float().cpu()
    return pixels, mean, logvar


def _on_disk(path: Path, shape: tuple[int, ...], kind: Any) -> Tensor:
    """A tensor whose memory is a file: the system writes and reads its pages."""
    return torch.from_numpy(map_file(path, shape, kind))


def _mask(place: ImageRef | None, size: int) -> Tensor:
    """A mask image as bool size size, framed like the images; False everywhere where there is none."""
    if place is None:
        return torch.zeros(size, size, dtype=torch.bool)
    try:
        picture = ImageOps.fit(mask_image(read_place(place)), (size, size), Image.Resampling.NEAREST)
    except DataError as error:
        raise DataError(f"mask {place} cannot be read: {error}") from None
    return marked(picture)


def _labels_digest(labels: Sequence[str] | None, masks: Sequence[ImageRef | None] | None) -> str:
    digest = hashlib.sha256(json.dumps(labels).encode())
    for place in masks or ():
        digest.update(b"-" if place is None else place.read_bytes())
    return digest.hexdigest()
