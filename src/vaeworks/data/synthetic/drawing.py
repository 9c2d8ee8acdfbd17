"""Draw procedural images: shape, textures, colours and pixels of number k of a seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...random_streams import COLOURS, LATTICE, SCENE, random_uniforms
from ..caption_text import article
from . import shapes, textures
from .colour_names import colour_name, distance
from .letters import LETTERS, Array

T = TypeVar("T")

CLASSES = ("disc", "square", "triangle", "star", "ring", "cross", "text", "stripes")
"""Foregrounds. Image number k has class k mod 8; `stripes` is a disc filled with a grating."""

SHAPES: dict[str, shapes.Shape] = {
    "disc": shapes.disc, "square": shapes.square, "triangle": shapes.triangle, "star": shapes.star, "ring": shapes.ring,
    "cross": shapes.cross, "stripes": shapes.disc,
}  # fmt: skip

SIZES = dict.fromkeys(CLASSES, (0.35, 0.75)) | {"text": (0.6, 0.8), "stripes": (0.45, 0.75)}
"""Diameter of the circle that a shape fills, in units of the image's side: letters and gratings must be seen at 32
px."""

TILT = math.radians(20)
"""Largest angle of a word; other shapes have any angle."""

BACKGROUNDS = (textures.PLAIN, textures.GRADIENT, textures.NOISE, textures.GRAIN, textures.CHECKS, textures.STRIPES)

FILLS = (textures.PLAIN, textures.GRADIENT, textures.NOISE, textures.GRAIN, textures.CHECKS)
"""No stripes: they are a class."""

CONTRAST = 0.3
"""Smallest `distance` between foreground and background, over all blends of the two colours of each."""

GRATING = 0.5
"""Smallest `distance` between the two colours of a grating."""

COARSE = 16
"""Side in pixels at which mean colours are computed: pixels are averages, so that a larger one gives the same."""

FINER = 2
"""Points along each side of a pixel; a pixel is their average."""

BLENDS = np.linspace(0, 1, 5)[:, None]
TRIES = 16


def picture(index: int, size: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Image number `index`, size size 3, and its mask, size size: where the foreground covers half a pixel or more."""
    share, (a, b, c, d), behind, before = _layers(index, size, seed)
    values = a + share[..., None] * (c - a) + behind[..., None] * (b - a) + before[..., None] * (d - c)
    return np.rint(255 * values).astype(np.uint8), share >= 0.5


def words(index: int, seed: int) -> str:
    """The caption of image number `index`: its class, and the nearest names of the mean colours of figure and ground,
    such as "a red disc on a blue ground"."""
    share, (a, b, c, d), behind, before = _layers(index, COARSE, seed)
    ground = f"on a {colour_name(a + behind.sum() / (1 - share).sum() * (b - a))} ground"
    kind = CLASSES[index % len(CLASSES)]
    if kind == "stripes":
        bars = " and ".join(dict.fromkeys(map(colour_name, (c, d))))
        return article(f"a disc with {bars} stripes {ground}")
    colour = colour_name(c + before.sum() / share.sum() * (d - c))
    return article(f"{colour} text {ground}" if kind == "text" else f"a {colour} {kind} {ground}")


def _layers(index: int, size: int, seed: int) -> tuple[Array, Array, Array, Array]:
    """The foreground's share of every pixel, size size; two colours of the background and two of the foreground, 4 3 in
    [0,1]; the shares of the second of each, size size each."""
    kind = CLASSES[index % len(CLASSES)]
    deal = iter(random_uniforms(seed, SCENE, index, 32).tolist())
    side = FINER * size
    x = (np.arange(side)[None] + 0.5) / side
    y = x.T
    ground = _surface(BACKGROUNDS, deal, x - 0.5, y - 0.5, 1.0, side, (seed, 2 * index))
    diameter = _between(deal, *SIZES[kind])
    x, y = (axis - _between(deal, diameter / 2, 1 - diameter / 2) for axis in (x, y))  # the whole shape is in the image
    covered = (0.5 - _shape(kind, deal)(*_turned(x, y, _angle(kind, deal)), diameter / 2) * side).clip(0, 1)
    if kind == "stripes":
        fill = textures.stripes(x, y, _between(deal, 0, math.pi), _between(deal, 0.14, 0.2), 1 / side)
    else:
        fill = _surface(FILLS, deal, x, y, diameter, side, (seed, 2 * index + 1))
    share, blend_behind, blend = (_averaged(part) for part in (covered, ground - ground * covered, fill * covered))
    return share, colours(index, seed, least=GRATING if kind == "stripes" else 0.0), blend_behind, blend


def colours(index: int, seed: int, least: float = 0.0) -> Array:
    """Two colours of the background and two of the foreground, 4 3 in [0,1], at least CONTRAST apart.

    least: smallest `distance` between the two of the foreground.
    """
    for attempt in itertools.count():
        found = random_uniforms(seed, COLOURS, index + (attempt << 32), TRIES * 12).reshape(TRIES, 4, 3)
        if not least:
            found[:, 3] = 0.4 * found[:, 2] + 0.6 * found[:, 3]  # softer, so that more pairs leave room for another
        found[:, 1] = 0.4 * found[:, 0] + 0.6 * found[:, 1]
        behind, before = (found[:, i, None] + BLENDS * (found[:, i + 1] - found[:, i])[:, None] for i in (0, 2))
        seen = distance(behind[:, :, None], before[:, None]).min((1, 2)) >= CONTRAST
        seen &= distance(found[:, 2], found[:, 3]) >= least
        if seen.any():
            return found[seen.argmax()]
    raise AssertionError("counts without end")


def _surface(
    kinds: Sequence[str], deal: Iterator[float], x: Array, y: Array, extent: float, side: int, lattice: tuple[int, int]
) -> Array:
    """One of these textures. x, y: coordinates from the middle of the textured area; extent: its width; lattice: seed
    and counter of noise."""
    kind, angle = _pick(deal, kinds), _between(deal, 0, 2 * math.pi)
    if kind == textures.PLAIN:
        return np.zeros((side, side))
    if kind == textures.GRADIENT:
        return textures.gradient(x, y, angle, extent)
    if kind == textures.NOISE:
        return textures.noise(_lattice(int(_between(deal, 3, 8)), lattice), side)
    if kind == textures.GRAIN:
        return 0.6 * textures.gradient(x, y, angle, extent) + 0.4 * textures.noise(
            _lattice(textures.GRAIN_CELLS, lattice), side
        )
    draw = textures.checks if kind == textures.CHECKS else textures.stripes
    return draw(x, y, angle, _between(deal, 0.16, 0.36), 1 / side)


def _lattice(cells: int, key: tuple[int, int]) -> Array:
    return random_uniforms(key[0], LATTICE, key[1], (cells + 2) ** 2).reshape(cells + 2, cells + 2)


def _shape(kind: str, deal: Iterator[float]) -> shapes.Shape:
    if kind != "text":
        return SHAPES[kind]
    return shapes.lettering("".join(_pick(deal, LETTERS) for _ in range(_pick(deal, (2, 3)))))


def _angle(kind: str, deal: Iterator[float]) -> float:
    return _between(deal, -TILT, TILT) if kind == "text" else _between(deal, 0, 2 * math.pi)


def _turned(x: Array, y: Array, angle: float) -> tuple[Array, Array]:
    cos, sin = math.cos(angle), math.sin(angle)
    return cos * x + sin * y, cos * y - sin * x


def _between(deal: Iterator[float], low: float, high: float) -> float:
    return low + (high - low) * next(deal)


def _pick(deal: Iterator[float], choices: Sequence[T]) -> T:
    return choices[int(next(deal) * len(choices))]


def _averaged(field: Array) -> Array:
    """Means of 2 x 2 points."""
    rows = field[0::2] + field[1::2]
    return (rows[:, 0::2] + rows[:, 1::2]) / 4
