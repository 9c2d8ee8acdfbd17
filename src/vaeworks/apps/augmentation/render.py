"""Render planned variants, and reproduce an image from its row of provenance, bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from PIL import Image, ImageOps
from torch import Tensor

from ...data.image_ref import ImageRef, read_place
from ...data.source_lookup import place_named
from ...errors import ConfigError, DataError
from ...images import open_image, to_uint8
from ...models.digest import SAME_PRECISION, model_digest
from ...random_streams import VARIANT_NOISE, latent_noise
from ...runtime import Codec
from ..codes import Code, decode_picture, encode_picture
from ..generation.interpolate import linear
from .plan import Noise, Variant

KEPT = 64
"""Codes in the cache."""


def variant_latents(
    codes: Sequence[Code], weights: Sequence[float], noise: Noise | None, seed: int, draw: int
) -> Tensor:
    """Latents c h w: of one code with noise, or the mixture of two codes of one shape by their weights."""
    if len(codes) == 2:
        return linear(codes[0], codes[1], weights[1])
    if noise is None:
        return codes[0].mean
    drawn = latent_noise(seed, [draw], tuple(codes[0].mean.shape), VARIANT_NOISE)[0]  # type: ignore[arg-type]
    if noise.std is None:
        return codes[0].sample(noise.temperature or 0.0, noise=drawn)
    return codes[0].mean + torch.tensor(noise.std)[:, None, None] * drawn


class Renderer:
    """Renders variants as images uint8 c h w, each independent of the others."""

    def __init__(self, codec: Codec, places: Mapping[str, ImageRef] | None = None):
        """places: source images by name; others are found by their names, if they are files, members of tars or
        digits."""
        self.codec, self.places = codec, places or {}
        self.model = model_digest(codec.autoencoder)
        self._code = lru_cache(KEPT)(self._encode)

    def __call__(self, variant: Variant) -> Tensor:
        """Render a variant. Errors: ConfigError for another model; DataError for a missing or changed image."""
        if variant.model != self.model:
            raise ConfigError(
                f"{variant.file} is by another model ({variant.model[:12]}, this is {self.model[:12]}); give that one "
                f"{SAME_PRECISION}"
            )
        first = self._code(variant.sources[0], variant.digests[0], None)
        size = first.width, first.height
        codes = [
            first,
            *(self._code(*source, size) for source in zip(variant.sources[1:], variant.digests[1:], strict=True)),
        ]
        latents = variant_latents(codes, variant.weights, variant.noise, variant.seed, variant.draw)
        return decode_picture(self.codec, latents, first.height, first.width)

    def _encode(self, source: str, digest: str, size: tuple[int, int] | None) -> Code:
        """The code of an image; the middle of an image of another size is first resized to width x height."""
        content = read_place(self.places.get(source) or _found(source))
        if hashlib.sha256(content).hexdigest() != digest:
            raise DataError(f"{source} has changed since its variants were planned; start again with another --out")
        image = open_image(content, self.codec.autoencoder.config.in_channels)
        if size is not None and image.size != size:
            image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
        return encode_picture(self.codec, to_uint8(image))


def _found(source: str) -> ImageRef:
    """The image with this name. Errors: DataError with a remedy."""
    try:
        return place_named(source)
    except DataError as error:
        raise DataError(
            f"{error}; pass places={{str(file.path): file.path for file in vaeworks.data.scan(SRC).files}}, SRC being "
            "what was augmented"
        ) from None


def reproduce(codec: Codec, row: Mapping[str, object], places: Mapping[str, ImageRef] | None = None) -> Tensor:
    """The image uint8 c h w of a row of provenance.jsonl: the same pixels, on the same kind of machine.

    places: as in `Renderer`; rows of data sets, and drawn or made images, are not found without it.
    Errors: those of `Renderer`.
    """
    return Renderer(codec, places)(Variant.from_dict(dict(row)))
