"""Foregrounds of procedural images: shapes as signed distances.

A shape is a function of coordinates, with the origin in its middle, x to the right and y down, and of the radius of its
circumscribed circle. It is negative inside and positive outside; near the outline it is the distance from it, in units
of the image's side.
Source of the star: Quilez, "2D distance functions".
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .letters import CAP, Array, sampled, word

Shape = Callable[[Array, Array, float], Array]

STAR_WAIST = 0.45
"""Radius of a star's inner corners, as a share of the outer ones."""

RING_HOLE = 0.55
"""Radius of a ring's hole, as a share of the ring's."""

CROSS_ARM = 0.3
"""Half the width of a cross's arms, as a share of its radius."""


def disc(x: Array, y: Array, radius: float) -> Array:
    """All points within the radius."""
    return np.sqrt(x * x + y * y) - radius


def ring(x: Array, y: Array, radius: float) -> Array:
    """A disc with a hole."""
    middle, half = radius * (1 + RING_HOLE) / 2, radius * (1 - RING_HOLE) / 2
    return abs(np.sqrt(x * x + y * y) - middle) - half


def square(x: Array, y: Array, radius: float) -> Array:
    """A square whose corners are on the circle."""
    return np.maximum(abs(x), abs(y)) - radius * math.sqrt(0.5)


def triangle(x: Array, y: Array, radius: float) -> Array:
    """An equilateral triangle whose corners are on the circle, one at the bottom."""
    return np.maximum(-y, abs(x) * math.sqrt(0.75) + y / 2) - radius / 2


def cross(x: Array, y: Array, radius: float) -> Array:
    """Two bars at a right angle, whose corners are on the circle."""
    x, y, arm = abs(x), abs(y), CROSS_ARM * radius
    length = math.sqrt(radius * radius - arm * arm)
    return np.maximum(np.maximum(x, y) - length, np.minimum(x, y) - arm)


def star(x: Array, y: Array, radius: float) -> Array:
    """A five-pointed star whose points are on the circle."""
    cos, sin = math.cos(math.pi / 5), math.sin(math.pi / 5)
    x = abs(x)
    for side in (cos, -cos):  # two reflections leave one half of one point
        beyond = 2 * np.maximum(side * x - sin * y, 0)
        x, y = x - beyond * side, y + beyond * sin
    x, y = abs(x), y - radius
    along_x, along_y = STAR_WAIST * sin, STAR_WAIST * cos - 1
    part = ((x * along_x + y * along_y) / (along_x**2 + along_y**2)).clip(0, radius)
    away_x, away_y = x - along_x * part, y - along_y * part
    return np.sqrt(away_x * away_x + away_y * away_y) * np.sign(y * along_x - x * along_y)


def lettering(text: str) -> Shape:
    """A word whose corners are on the circle."""
    values = word(text)
    height, width = values.shape
    half_diagonal = math.hypot(width, CAP) / 2

    def shape(x: Array, y: Array, radius: float) -> Array:
        scale = radius / half_diagonal
        return sampled(values, y / scale + (height - 1) / 2, x / scale + (width - 1) / 2) * scale

    return shape
