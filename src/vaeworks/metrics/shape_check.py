"""What pictures of the source `shapes` show, read from their pixels: colour and shape of the figure, colour of the
ground.

So a generator that was trained on that source is judged without a network: it is given captions, and this says whether
the pictures show them. The reader was not fitted to any generator. It takes the ground from the border, the figure from
what differs from the ground, colours by the nearest name, and the shape by the best overlap with drawn outlines of the
same area at every angle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..data.synthetic.captioned_shapes import COLOURS, FIGURES, Combination
from ..errors import ConfigError

Array = NDArray[np.float64]

NONE = "none"
"""Word for a part that is not there, or has no name."""

NEAREST = 54.0
"""Largest distance of a colour from its name's, Euclidean in RGB of 0 to 255: half the least distance of two names."""

APART = 60.0
"""Distance from which on a pixel differs from the ground; those of the same colour are nearer."""

EVEN = 0.5
"""Least share of a border's pixels, and of a figure's, within APART of their median: noise has no colour."""

SMALLEST, LARGEST = 0.02, 0.85
"""Share of the picture that a figure covers; those of the source cover 0.11 to 0.45."""

WHOLE = 0.7
"""Least share of the pixels of the figure's colour that are in one piece."""

OVERLAP = 0.8
"""Least overlap of a figure with an outline. Those of the source have 0.92 to 1, at 32 px with a blur of 1 px and noise
0.90; stars, rings, half discs and bars have at most 0.73, ellipses of 4 to 3 still 0.88."""

GRID, REACH, STEP = 48, 1.0, 5
"""Points along the side of the square in which overlaps are measured; half its side, in units of the square root of the
figure's area; degrees between the angles that are tried."""

PERIODS = {"circle": STEP, "square": 90, "triangle": 120, "cross": 90}
"""Degrees after which a turned outline is the same."""


@dataclass(frozen=True)
class Shares:
    """Shares of pictures that show what was wanted, each in [0,1]."""

    colour: float
    """of the figure"""
    shape: float
    ground: float
    all: float
    """all three at once"""


@dataclass(frozen=True)
class ShapeCheck:
    """What pictures show, beside what they were to show."""

    recognized: tuple[Combination, ...]
    wanted: tuple[Combination, ...]
    right: Shares
    shuffled: Shares
    """the same pictures against every prompt in turn: what a generator reaches that paints as well, and ignores the
    words"""


def chance() -> Shares:
    """What guessing gives: each of the 224 combinations equally often, whatever was wanted.

    With n colours and m shapes, there are n m (n - 1) combinations, as a figure has another colour than its ground. By
    symmetry colour and ground are right with probability 1/n each, and the shape with 1/m: 1/8, 1/8 and 1/4; all three
    with 1 / (n m (n - 1)) = 1/224.
    """
    n, m = len(COLOURS), len(FIGURES)
    return Shares(1 / n, 1 / m, 1 / n, 1 / (n * m * (n - 1)))


def shares(images: Tensor | NDArray[np.uint8], wanted: Sequence[tuple[str, str, str]]) -> ShapeCheck:
    """The pictures' shares that are right. images: uint8 n 3 h w; wanted: (colour, shape, ground) of each.

    Errors: ConfigError where there is not one combination for each picture, or no picture; those of `recognize`.
    """
    found = recognize(images)
    if not found or len(found) != len(wanted):
        raise ConfigError(f"there must be one combination for each picture, not {len(wanted)} for {len(found)}")
    asked = tuple(Combination(*words) for words in wanted)
    seen, words = np.array(found), np.array(asked)
    shuffled = np.mean([_right(seen, word).mean(0) for word in words], axis=0)
    return ShapeCheck(
        tuple(found),
        asked,
        Shares(*_right(seen, words).mean(0).tolist()),
        Shares(*shuffled.tolist()),
    )


def _right(seen: NDArray[np.str_], wanted: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Which of colour, shape, ground and all three are equal: n 4. seen, wanted: words n 3."""
    equal = seen == wanted
    return np.concatenate([equal, equal.all(1, keepdims=True)], axis=1)


def recognize(images: Tensor | NDArray[np.uint8]) -> list[Combination]:
    """(colour, shape, ground) that each picture shows; NONE for what it does not show, or what has no name.

    images: uint8 n 3 h w, of 16 pixels a side or more.
    Errors: ConfigError for another type or shape.
    """
    values = images.numpy(force=True) if isinstance(images, Tensor) else np.asarray(images)
    if values.dtype != np.uint8 or values.ndim != 4 or values.shape[1] != 3 or min(values.shape[2:]) < 16:
        raise ConfigError(
            f"pictures must be uint8 n 3 h w with sides of 16 pixels or more, not {values.dtype} "
            f"{' '.join(map(str, values.shape))}"
        )
    return [_shown(picture.transpose(1, 2, 0).astype(np.float64)) for picture in values]


def _shown(picture: Array) -> Combination:
    """picture: h w 3."""
    edge = max(1, min(picture.shape[:2]) // 32)
    inside = np.zeros(picture.shape[:2], dtype=bool)
    inside[edge:-edge, edge:-edge] = True
    behind, ground = _colour(picture[~inside])
    away = _distance(picture, behind)
    far = away > APART
    if not SMALLEST <= far.mean() <= LARGEST:
        return Combination(NONE, NONE, ground)
    before, colour = _colour(picture[away > 0.7 * np.percentile(away[far], 90)])
    return Combination(colour, _shape(_cover(picture, behind, before)), ground)


def _colour(pixels: Array) -> tuple[Array, str]:
    """The median of pixels n 3 and its name."""
    middle = np.median(pixels, axis=0)
    apart = _distance(np.array(list(COLOURS.values()), np.float64), middle)
    named = apart.min() <= NEAREST and (_distance(pixels, middle) <= APART).mean() >= EVEN
    return middle, list(COLOURS)[apart.argmin()] if named else NONE


def _distance(pixels: Array, colour: Array) -> Array:
    return np.sqrt(((pixels - colour) ** 2).sum(-1))


def _cover(picture: Array, behind: Array, before: Array) -> Array:
    """The share of the figure in every pixel, in [0,1]; 0 where a pixel is no blend of the two colours."""
    way = before - behind
    share = ((picture - behind) @ way / (way @ way)).clip(0, 1)
    return np.where(_distance(picture, behind + share[..., None] * way) <= APART, share, 0.0)


def _shape(cover: Array) -> str:
    """The shape of what is covered, h w."""
    from scipy import ndimage  # a fifth of a second, for every command that imports this package

    pieces, count = ndimage.label(cover > 0.5)
    if not count:
        return NONE
    sizes = np.bincount(pieces.ravel())[1:]
    if sizes.max() < WHOLE * sizes.sum():
        return NONE
    piece = ndimage.binary_dilation(pieces == 1 + sizes.argmax()) * cover
    area = piece.sum()
    row, column = ((piece.sum(1 - axis) * np.arange(piece.shape[axis])).sum() / area for axis in (0, 1))
    places = _places() * math.sqrt(area)
    seen = ndimage.map_coordinates(
        piece, np.meshgrid(row + places, column + places, indexing="ij"), order=1, mode="constant"
    ).ravel()
    names, outlines = _outlines()
    common = outlines @ seen
    overlap = common / (seen @ seen + (outlines**2).sum(1) - common)
    return names[overlap.argmax()] if overlap.max() >= OVERLAP else NONE


def _places() -> Array:
    return ((np.arange(GRID) + 0.5) / GRID * 2 - 1) * REACH


@cache
def _outlines() -> tuple[list[str], Array]:
    """Names, and what the figures of area 1 cover at all angles: n, GRID^2."""
    x, y, step = _places()[None], _places()[:, None], 2 * REACH / GRID
    names, covers = [], []
    for name, shape in FIGURES.items():
        area = float((shape(x, y, 0.5) < 0).mean()) * (2 * REACH) ** 2
        for angle in np.radians(np.arange(0, PERIODS[name], STEP)):
            cos, sin = math.cos(angle), math.sin(angle)
            outline = shape(cos * x + sin * y, cos * y - sin * x, 0.5 / math.sqrt(area))
            names.append(name)
            covers.append((0.5 - outline / step).clip(0, 1).ravel())
    return names, np.array(covers)
