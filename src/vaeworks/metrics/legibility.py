"""Legibility of small text, and sharpness of edges, in rendered images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import PIL
from PIL import Image

from ..images import to_pillow, to_uint8
from ..intervals import Interval
from ..models import Autoencoder
from .edges import CONTRASTS, edge_picture, rise
from .roundtrip import reconstruction
from .text_pictures import STYLES, TextPicture, read_text, text_picture

SIZES = (6, 8, 10, 12, 16, 20, 24, 32)
"""Font sizes in pixels."""

SIDE = 256
"""Side of the images in pixels; larger for models whose factor does not divide it."""

LEGIBLE = 0.9
"""Share of the characters that must be read correctly."""


@dataclass(frozen=True)
class Reading:
    """Characters of one size that were read wrong."""

    size: int
    """of the font, in pixels"""
    characters: int
    errors: int
    original_errors: int
    """errors of the reader itself, in the original images"""

    @property
    def error_rate(self) -> Interval:
        """Share of the characters read wrong, with Wilson's 95 % interval."""
        return wilson(self.errors, self.characters)


@dataclass(frozen=True)
class Edge:
    """Width of a step of one contrast."""

    contrast: int
    """gray levels"""
    original: float
    """pixels between 10 % and 90 %, mean over an upright and a level edge"""
    recon: float
    """nan where no step is left"""


@dataclass(frozen=True)
class Legibility:
    """Text by size, smallest first, and edges by contrast."""

    readings: tuple[Reading, ...]
    edges: tuple[Edge, ...]
    pictures: str = ""
    """images and font that were rendered: figures of other images do not compare"""

    @property
    def smallest(self) -> int | None:
        """The smallest size from which at least 90 % of the characters are read at every larger size; None: no size."""
        found = None
        for reading in sorted(self.readings, key=lambda r: -r.size):
            if 1 - reading.errors / reading.characters < LEGIBLE:
                break
            found = reading.size
        return found

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Legibility:
        """From JSON values; null is nan."""
        edges = tuple(
            Edge(e["contrast"], *(math.nan if e[side] is None else e[side] for side in ("original", "recon")))
            for e in values["edges"]
        )
        return cls(
            tuple(Reading(**{k: v for k, v in r.items() if k != "error_rate"}) for r in values["readings"]),
            edges,
            values["pictures"],
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, with the error rates and the smallest legible size."""
        readings = [{**asdict(r), "error_rate": asdict(r.error_rate)} for r in self.readings]
        edges = [asdict(edge) for edge in self.edges]
        return {"smallest_legible": self.smallest, "readings": readings, "edges": edges, "pictures": self.pictures}


Through = Callable[[Image.Image], Image.Image]
"""An image through a model and back."""


def legibility(
    autoencoder: Autoencoder | None,
    *,
    through: Through | None = None,
    sizes: tuple[int, ...] = SIZES,
    seed: int = 0,
    side: int | None = None,
    channels: int | None = None,
    progress: Callable[[Any], Any] = iter,
) -> Legibility:
    """Characters drawn in three styles and edges in three contrasts, reconstructed and read.

    through: the operation on an image, by default the model's reconstruction from the posterior's mode, in 8 bits.
    side: of the images, in pixels, by default about 256.
    """
    if autoencoder is not None:
        factor = autoencoder.downsample_factor
        side, channels = side or -(-SIDE // factor) * factor, autoencoder.config.in_channels
        model = autoencoder
        through = through or (lambda picture: to_pillow(reconstruction(model, to_uint8(picture))[0]))
    if through is None:
        raise TypeError("give a model, or `through`")
    side, channels = side or SIDE, channels or 3
    pictures = [text_picture(size, style, side, seed, channels) for size in sizes for style in STYLES]
    counted = [_counted(picture, through, seed) for picture in progress(pictures)]
    readings = []
    for size in sizes:
        wrong, own, total = np.sum(
            [c for p, c in zip(pictures, counted, strict=True) if p.size == size], axis=0
        ).tolist()
        readings.append(Reading(size, total, wrong, own))
    edges = tuple(_edge(contrast, side, channels, through) for contrast in CONTRASTS)
    return Legibility(
        tuple(readings), edges, f"{side} px, {channels} channels, seed {seed}, the font of Pillow {PIL.__version__}"
    )


def _counted(picture: TextPicture, through: Through, seed: int) -> tuple[int, int, int]:
    """Errors in the reconstruction, errors in the picture itself, characters."""
    recon = through(picture.image)
    return (
        _errors(picture, recon),
        _own_errors(picture.size, picture.style, picture.image.width, seed, len(picture.image.getbands())),
        len(picture.text),
    )


@cache
def _own_errors(size: int, style: str, side: int, seed: int, channels: int) -> int:
    """The reader's errors in the original; computed once for all models."""
    picture = text_picture(size, style, side, seed, channels)
    return _errors(picture, picture.image)


def _errors(picture: TextPicture, image: Image.Image) -> int:
    return sum(a != b for a, b in zip(picture.text, read_text(picture, np.asarray(image)), strict=True))


def _edge(contrast: int, side: int, channels: int, through: Through) -> Edge:
    widths = []
    for upright in (True, False):
        picture = edge_picture(contrast, side, upright, channels)
        widths.append((rise(np.asarray(picture), upright), rise(np.asarray(through(picture)), upright)))
    original, recon = np.mean(widths, axis=0).tolist()
    return Edge(contrast, original, recon)


def wilson(errors: int, count: int, z: float = 1.959964) -> Interval:
    """The share of errors in `count`, with its 95 % score interval. Source: Wilson 1927."""
    if not count:
        return Interval(math.nan, math.nan, math.nan)
    share = errors / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))
