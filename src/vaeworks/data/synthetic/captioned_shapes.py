"""Images of one plain figure on a plain ground, with captions: a data set without files, to learn painting from.

    shapes[:COUNT[:SIZE[:SEED]]]        such as shapes:6000:64; by default 6,000 images of 64 px, seed 0

Image number k is a function of (SEED, SIZE, k) alone, and, apart from its resolution, of (SEED, k). Its caption names
all that can be told from it: "a red circle on a blue ground".

One colour of each shape is held out (HELD_OUT): the source never draws it. So a generator can be asked for figures
whose colour and shape it has seen, but never together.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import DataError
from ...random_streams import SHAPE_ORDER, SHAPE_SCENE, random_uniforms, random_words
from . import shapes as outlines
from .letters import Array
from .procedural import MOST, SIDES, png

SHAPES = "shapes"
"""Name or beginning of a source of figures with captions."""

FORM = f"{SHAPES}[:COUNT[:SIZE[:SEED]]], such as {SHAPES}:6000:64:0"

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 45, 40), "green": (55, 145, 80), "blue": (50, 85, 170), "yellow": (230, 195, 75),
    "purple": (162, 80, 162), "turquoise": (90, 205, 205), "white": (240, 240, 240), "black": (20, 20, 20),
}  # fmt: skip
"""Colours of figures and grounds in RGB, 0 to 255; any two are at least 108 apart (Euclidean). They are no purer than
those of photographs, because a VAE that was trained on photographs alone fades what is."""


def upright_triangle(x: Array, y: Array, radius: float) -> Array:
    """The triangle with one corner at the top."""
    return outlines.triangle(x, -y, radius)


FIGURES: dict[str, outlines.Shape] = {
    "circle": outlines.disc, "square": outlines.square, "triangle": upright_triangle, "cross": outlines.cross,
}  # fmt: skip
"""Figures by the words of captions."""

HELD_OUT = (("red", "triangle"), ("blue", "circle"), ("green", "square"), ("yellow", "cross"))
"""(colour, shape) of figures that the source never draws."""

DIAMETERS = 0.6, 0.75
"""Diameter of the circle that a figure fills, in units of the image's side."""

AWAY, MARGIN = 0.04, 0.04
"""Largest distance of a figure's middle from the image's along each side, and the least width of the ground around a
figure, in units of the side."""

TILT = math.radians(6)
"""Largest angle of a figure, to either side."""

JITTER = 10.0
"""Largest difference of a colour from its name's, in each of red, green and blue, of 255."""


class Combination(NamedTuple):
    """What an image shows: words of COLOURS, FIGURES and COLOURS."""

    colour: str
    """of the figure"""
    shape: str
    ground: str
    """colour of the ground"""


def caption_of(colour: str, shape: str, ground: str) -> str:
    """The caption of an image: "a red circle on a blue ground"."""
    return f"a {colour} {shape} on a {ground} ground"


def prompts(seen: bool) -> tuple[Combination, ...]:
    """All combinations that the source draws (196), or all whose figure is held out (28); the ground has another colour
    than the figure. Their captions are `caption_of(*combination)`."""
    return tuple(
        Combination(colour, shape, ground)
        for colour in COLOURS
        for shape in FIGURES
        for ground in COLOURS
        if ground != colour and ((colour, shape) not in HELD_OUT) == seen
    )


SEEN = prompts(seen=True)


@dataclass(frozen=True, slots=True)
class DrawnShape:
    """An image of one figure, number `index` of a seed with `size` x `size` pixels, as an image reference."""

    index: int
    size: int = 64
    seed: int = 0

    @property
    def combination(self) -> Combination:
        """What the image shows. Any 196 images in a row, from a multiple of 196 on, show every combination once."""
        block, place = divmod(self.index, len(SEEN))
        return SEEN[_order(self.seed, block)[place]]

    @property
    def caption(self) -> str:
        """Its words, such as "a red circle on a blue ground"."""
        return caption_of(*self.combination)

    @property
    def stem(self) -> str:
        """The image's number."""
        return f"{self.index:06d}"

    def image(self) -> Tensor:
        """The image: uint8 3 size size."""
        return torch.from_numpy(self._values().transpose(2, 0, 1).copy())

    def read_bytes(self) -> bytes:
        """The image as a PNG."""
        return png(self._values())

    def _values(self) -> NDArray[np.uint8]:
        return figure(self.combination, self.size, self.seed, self.index)

    def __str__(self) -> str:
        return f"{SHAPES}/{self.combination.shape}/{self.stem}.png"


def figure(combination: Combination, size: int, seed: int, index: int) -> NDArray[np.uint8]:
    """An image of any combination, held-out ones included: size size 3. Place, diameter, angle and the exact colours
    depend on (seed, index)."""
    deal = 2 * random_uniforms(seed, SHAPE_SCENE, index, 10) - 1
    diameter = DIAMETERS[0] + (DIAMETERS[1] - DIAMETERS[0]) * (deal[0] + 1) / 2
    middle = 0.5 + min(AWAY, 0.5 - MARGIN - diameter / 2) * deal[1:3]
    places = (np.arange(size) + 0.5) / size
    x, y = places[None] - middle[0], places[:, None] - middle[1]
    cos, sin = math.cos(TILT * deal[3]), math.sin(TILT * deal[3])
    outline = FIGURES[combination.shape](cos * x + sin * y, cos * y - sin * x, diameter / 2)
    covered = (0.5 - outline * size).clip(0, 1)  # the share of a pixel within an edge that is nearly straight
    before, behind = (
        np.add(COLOURS[name], JITTER * deal[at : at + 3])
        for name, at in ((combination.colour, 4), (combination.ground, 7))
    )
    return np.rint(behind + covered[..., None] * (before - behind)).astype(np.uint8)


@lru_cache(maxsize=256)
def _order(seed: int, block: int) -> tuple[int, ...]:
    """The combinations of the images of one block, as numbers of SEEN."""
    return tuple(np.argsort(random_words(seed, SHAPE_ORDER, block, len(SEEN)), kind="stable").tolist())


def captioned_shapes(count: int = 6000, size: int = 64, seed: int = 0) -> list[DrawnShape]:
    """The first `count` images of a seed, of `size` x `size` pixels.

    Errors: DataError for numbers out of range.
    """
    for name, value, low, high in (("COUNT", count, 1, MOST), ("SIZE", size, *SIDES), ("SEED", seed, 0, 2**63 - 1)):
        if not low <= value <= high:
            raise DataError(f"{name} (={value}) of {SHAPES} must be {low} to {high}; write {FORM}")
    return [DrawnShape(index, size, seed) for index in range(count)]


def is_shapes(source: str) -> bool:
    """Whether a source is of figures with captions."""
    return source.partition(":")[0] == SHAPES


def shapes_source(source: str) -> list[DrawnShape]:
    """The images of the source shapes[:COUNT[:SIZE[:SEED]]].

    Errors: DataError for anything else, and as `captioned_shapes`.
    """
    if not re.fullmatch(rf"{SHAPES}(:[0-9]{{1,19}}){{0,3}}", source):
        raise DataError(f"{source!r} is no source of figures with captions; write {FORM}")
    return captioned_shapes(*map(int, source.split(":")[1:]))
