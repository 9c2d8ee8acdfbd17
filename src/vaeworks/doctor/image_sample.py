"""The images of an examination: chosen once, and read once into files that every model and every panel shares."""

from __future__ import annotations

import hashlib
import json
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..data import ImageFile, ImageSet
from ..data.image_ref import ImageRef, read_place
from ..data.square_images import read_squares
from ..data.subsets import spaced
from ..errors import DataError
from ..files.atomic import map_file
from ..files.scratch import scratch
from ..images import has_alpha, marked, mask_image, to_uint8
from ..models import Autoencoder
from ..models.digest import model_digest

Track = Callable[[Iterable[Any]], Iterable[Any]]
"""Wraps an iterable to show progress."""

QUICK_IMAGES = 48
"""Images that --quick encodes: with an SD-sized encoder about a minute on two cores."""

WHOLE_IMAGES = 3
"""Images that are kept whole, the largest of all: for panels that need more than squares."""


@dataclass(frozen=True)
class DoctorProtocol:
    """Everything besides the model that a finding depends on."""

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
    """channels of the model's images"""
    flattened: int = 0
    """number of images with transparency, which were flattened onto white"""

    @property
    def digest(self) -> str:
        """SHA-256 over all fields, in hex."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class SamplePixels:
    """The images of a sample as models of one number of channels take them."""

    squares: Tensor
    """uint8 n c size size, on disk"""
    whole: tuple[Tensor, ...]
    """the WHOLE_IMAGES largest images as they are, largest first: uint8 c h w each, on disk"""


class ImageSample:
    """The images that one or several models are examined on, with their classes and masks.

    Files are read when their pixels are first needed, each of them once; the pixels stay in temporary files, which go
    with this object.

        sample = ImageSample(scan("photos").files, size=256, quick=True)
        reports = [examine(load(path), sample, model=path) for path in paths]
    """

    def __init__(
        self,
        files: Sequence[ImageFile],
        *,
        size: int,
        limit: int | None = None,
        quick: bool = False,
        labels: Sequence[str] | None = None,
        masks: Sequence[ImageRef | None] | None = None,
    ) -> None:
        """files: images to choose from; size: side of the squares that they become, in pixels; limit, quick: as in
        `choose`; labels, masks: one for each file.

        Errors: DataError where no image is left.
        """
        taken = choose(files, limit, quick)
        self.files = tuple(files[i] for i in taken)
        self.size = size
        self.quick = quick
        self.labels = None if labels is None else tuple(labels[i] for i in taken)
        self.mask_files = None if masks is None else [masks[i] for i in taken]
        self._pixels: dict[int, SamplePixels] = {}
        self._ending = ExitStack()
        weakref.finalize(self, self._ending.close)

    def protocol(self, channels: int, seed: int = 0, reference: Autoencoder | None = None) -> DoctorProtocol:
        """Everything that an examination of these images depends on, besides the model. Nothing is encoded for it.

        Errors: DataError for a file or a mask that cannot be read.
        """
        return DoctorProtocol(
            ImageSet("", self.files).digest,
            len(self.files),
            self.size,
            self.quick,
            seed,
            self._labels_digest,
            "" if reference is None else model_digest(reference),
            channels,
            self._flattened,
        )

    def pixels(self, channels: int, track: Track = iter) -> SamplePixels:
        """All images in `channels` channels.

        Errors: DataError for an image that cannot be read; VaeworksError where the disk is full.
        """
        if channels not in self._pixels:
            self._pixels[channels] = self._read(channels, track)
        return self._pixels[channels]

    @cached_property
    def masks(self) -> Tensor | None:
        """Where the object is: bool n size size; None without masks. Errors: DataError for a broken mask."""
        if self.mask_files is None:
            return None
        return torch.stack([read_mask(place, self.size) for place in self.mask_files])

    def _read(self, channels: int, track: Track) -> SamplePixels:
        largest = sorted(range(len(self.files)), key=lambda n: -min(self.files[n].width, self.files[n].height))
        largest = largest[:WHOLE_IMAGES]
        whole: dict[int, Tensor] = {}
        with ExitStack() as ending:
            folder = ending.enter_context(scratch(Path(tempfile.gettempdir())))
            folder.mkdir()

            def keep_whole(number: int, image: Image.Image) -> None:
                if number in largest:
                    pixels = to_uint8(image)
                    whole[number] = on_disk(folder / f"whole-{number}", tuple(pixels.shape))
                    whole[number].copy_(pixels)

            squares = on_disk(folder / "pixels", (len(self.files), channels, self.size, self.size))
            for number, image in read_squares(track(self.files), self.size, channels, _refuse, keep_whole):
                squares[number] = image
            self._ending.push(ending.pop_all())  # the folder stays until this object goes
        return SamplePixels(squares, tuple(whole[number] for number in largest))

    @cached_property
    def _flattened(self) -> int:
        return sum(has_alpha(read_place(file.path)) if file.alpha is None else file.alpha for file in self.files)

    @cached_property
    def _labels_digest(self) -> str:
        if self.labels is None and self.mask_files is None:
            return ""
        digest = hashlib.sha256(json.dumps(self.labels).encode())
        for place in self.mask_files or ():
            digest.update(b"-" if place is None else _mask_content(place))
        return digest.hexdigest()


def choose(files: Sequence[ImageFile], limit: int | None = None, quick: bool = False) -> list[int]:
    """Numbers of the files that are examined, evenly spaced over all: at most `limit`, by default all, or QUICK_IMAGES
    where `quick`.

    Errors: DataError where that is none.
    """
    chosen = spaced(len(files), limit if limit is not None else QUICK_IMAGES if quick else len(files))
    if not chosen:
        raise DataError(f"no image to examine (limit {limit}, {len(files)} images); give at least one")
    return chosen


def on_disk(path: Path, shape: tuple[int, ...], kind: Any = np.uint8) -> Tensor:
    """A tensor whose memory is a new file: the operating system writes and reads its pages."""
    return torch.from_numpy(map_file(path, shape, kind))


def read_mask(place: ImageRef | None, size: int) -> Tensor:
    """A mask image as bool size size, framed like the images; False everywhere where there is none.

    Errors: DataError naming a mask that cannot be read.
    """
    if place is None:
        return torch.zeros(size, size, dtype=torch.bool)
    content = _mask_content(place)
    try:
        return marked(ImageOps.fit(mask_image(content), (size, size), Image.Resampling.NEAREST))
    except DataError as error:
        raise DataError(f"mask {place} cannot be read: {error}") from None


def _mask_content(place: ImageRef) -> bytes:
    try:
        return read_place(place)
    except DataError as error:
        raise DataError(f"mask {place} cannot be read: {error}") from None


def _refuse(file: ImageFile, error: DataError) -> None:
    raise DataError(f"{file.path} cannot be read any more: {error}") from None
