"""The examined model with its images: encoded once, kept on disk, read in parts by every panel."""

from __future__ import annotations

import copy
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data import ImageFile
from ..data.image_ref import ImageRef
from ..data.subsets import spaced
from ..errors import ConfigError
from ..files.scratch import scratch
from ..images import from_model_range, to_model_range
from ..images.channels import PICTURES, check_pictures
from ..latents.posteriors import encode_batches
from ..latents.sizes import check_square
from ..models import Autoencoder
from .finding import NotExamined
from .image_sample import DoctorProtocol, ImageSample, Track, on_disk


@dataclass(eq=False)
class Subject:
    """An autoencoder with images and their posteriors.

    `pixels`, `mean` and `logvar` are on disk, because they may be larger than memory: panels read them in parts
    (`parts`).
    """

    autoencoder: Autoencoder
    """a copy in float32, in evaluation mode, without gradients"""
    protocol: DoctorProtocol
    files: tuple[ImageFile, ...]
    pixels: Tensor
    """uint8 n c size size, on disk"""
    mean: Tensor
    """posterior means, float32 n c h w, unnormalized, on disk: `decode` takes them"""
    logvar: Tensor | None
    """posterior log-variances, likewise; None where latents are points"""
    labels: tuple[str, ...] | None = None
    """a class per image"""
    masks: Tensor | None = None
    """bool n size size: where the object is"""
    original: Autoencoder | None = None
    """the autoencoder as it was loaded, in its own precision"""
    known: bool = True
    """whether scaling and shift are facts of its file, not guesses"""
    reference: Autoencoder | None = None
    """the VAE that the diffusion model was made for, if it is another one"""
    track: Track = iter
    sample: ImageSample | None = None
    """where the images come from"""

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.pixels)

    @property
    def quick(self) -> bool:
        """Whether panels use fewer images and probes."""
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
        """Errors: NotExamined where there are fewer than `least` images."""
        if self.count < least:
            raise NotExamined(f"needs at least {least} images{what and ' ' + what}, not {self.count}; give more")

    @property
    def whole(self) -> tuple[Tensor, ...]:
        """The largest images as they are, largest first: uint8 c h w each; () without a sample."""
        return () if self.sample is None else self.sample.pixels(self.autoencoder.config.in_channels).whole

    def some(self, most: int) -> list[int]:
        """Numbers of at most `most` images, evenly spaced over all."""
        return spaced(self.count, most)

    def images(self, numbers: Sequence[int]) -> Tensor:
        """Images n c size size in [-1,1] on the model's device."""
        return to_model_range(self.pixels[list(numbers)]).to(self.autoencoder.device)

    def parts(self, tensor: Tensor, length: int = 64) -> Iterator[Tensor]:
        """A tensor with one entry per image (mean, logvar, pixels), in parts that fit into memory."""
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
        """Decoded images as uint8 on the CPU; NaN becomes black."""
        return from_model_range(images.nan_to_num(-1.0, 1.0, -1.0)).cpu()


def encode_subject(
    autoencoder: Autoencoder,
    images: Sequence[ImageFile] | ImageSample,
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

    images: files, or an `ImageSample`, which has size, limit, quick, labels and masks of its own; these arguments are
    for files alone. known: whether the scaling factor is a fact, None: what the configuration says; reference: the VAE
    that the diffusion model was made for. Latents are kept in temporary files, which go with the subject.
    Errors: DataError for no images or one that cannot be read; ConfigError for a size that is no multiple of f, for
    images that are neither gray nor RGB, and for a reference with other latents.
    """
    check_examinable(autoencoder, images.size if isinstance(images, ImageSample) else size, reference)
    sample = (
        images
        if isinstance(images, ImageSample)
        else ImageSample(images, size=size, limit=limit, quick=quick, labels=labels, masks=masks)
    )
    channels = autoencoder.config.in_channels
    model = copy.deepcopy(autoencoder).float().eval().requires_grad_(False)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = sample.pixels(channels)
    marks = sample.masks
    with ExitStack() as ending:
        folder = ending.enter_context(scratch(Path(tempfile.gettempdir())))
        folder.mkdir()
        mean, logvar = _encoded(model, pixels.squares, folder, track)
        subject = Subject(
            model,
            sample.protocol(channels, seed, reference),
            sample.files,
            pixels.squares,
            mean,
            logvar,
            sample.labels,
            marks,
            original=autoencoder,
            known=autoencoder.config.normalization_known if known is None else known,
            reference=reference,
            track=track,
            sample=sample,
        )
        weakref.finalize(subject, ending.pop_all().close)
    return subject


def check_examinable(autoencoder: Autoencoder, size: int, reference: Autoencoder | None = None) -> None:
    """Errors: ConfigError, as `encode_subject`."""
    config = autoencoder.config
    check_square(size, config)
    check_pictures(config, channels=PICTURES)
    if reference is not None and (reference.config.name, reference.config.in_channels) != (
        config.name,
        config.in_channels,
    ):
        raise ConfigError(
            f"the reference's latents are {reference.config.name}, this VAE's {config.name}; they cannot be exchanged"
        )


def _encoded(model: Autoencoder, squares: Tensor, folder: Path, track: Track) -> tuple[Tensor, Tensor | None]:
    """Means and log-variances of all images, in files; no log-variances where latents are points."""
    side = squares.shape[-1] // model.downsample_factor
    shape = (len(squares), model.latent_channels, side, side)
    mean = on_disk(folder / "mean", shape, np.float32)
    logvar: Tensor | None = None
    batches = track(squares.split(1))
    with torch.no_grad():  # not inference_mode: panels take gradients at these latents
        encoded = encode_batches(model.encode, batches, model.device, spread="logvar")
        for number, (image_mean, image_logvar) in enumerate(encoded):
            mean[number] = image_mean[0]
            if image_logvar is not None:
                logvar = on_disk(folder / "logvar", shape, np.float32) if logvar is None else logvar
                logvar[number] = image_logvar[0]
    return mean, logvar
