"""Textures of procedural images: fields h w in [0,1] that blend two colours, equal at every resolution.

Coordinates are in units of the image's side; `pixel` is a pixel's side in these units. Edges are ramps one
pixel wide, and noise is averaged over each pixel, so that averages of a fine field are the pixels of a coarse one.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from .letters import Array

PLAIN, GRADIENT, NOISE, GRAIN, CHECKS, STRIPES = "plain", "gradient", "noise", "grain", "checks", "stripes"

GRAIN_CELLS = 24
"""Grains along a side: hardly finer than the pixels of 32 px, so that grain is no pure noise."""


def gradient(x: Array, y: Array, angle: float, extent: float) -> Array:
    """From 0 to 1 along a direction, 1/2 at the origin. extent: width of the filled area."""
    cos, sin = math.cos(angle), math.sin(angle)
    return (0.5 + (cos * x + sin * y) / extent).clip(0, 1)


def stripes(x: Array, y: Array, angle: float, period: float, pixel: float) -> Array:
    """Bars of 0 and 1, each half a period wide."""
    phase = (math.cos(angle) * x + math.sin(angle) * y) / period
    from_edge = (abs(phase - np.floor(phase) - 0.5) - 0.25) * period
    return (0.5 + from_edge / pixel).clip(0, 1)


def checks(x: Array, y: Array, angle: float, period: float, pixel: float) -> Array:
    """Squares of 0 and 1, half a period wide, as on a chessboard."""
    a, b = stripes(x, y, angle, period, pixel), stripes(x, y, angle + math.pi / 2, period, pixel)
    return a + b - 2 * a * b


def noise(lattice: Array, side: int) -> Array:
    """Smooth noise of side x side pixels around 1/2: a quadratic spline over the image with these coefficients k k in
    [0,1]."""
    weights = _pixel_weights(side, len(lattice) - 2)
    return (0.5 + 1.8 * (weights @ lattice @ weights.T - 0.5)).clip(0, 1)


@lru_cache(maxsize=64)
def _pixel_weights(side: int, cells: int) -> Array:
    """Averages of quadratic B-splines, `cells` to the unit, over every pixel: side, cells + 2."""
    edges = np.arange(side + 1)[:, None] * (cells / side) - (np.arange(cells + 2) - 0.5)
    return np.diff(_spline_integral(edges), axis=0) * (side / cells)


def _spline_integral(t: Array) -> Array:
    """Integral up to t of the quadratic B-spline around 0: from 0 at -3/2 to 1 at 3/2."""
    left, right = np.maximum(t + 1.5, 0) ** 3 / 6, 1 - np.maximum(1.5 - t, 0) ** 3 / 6
    return np.where(t < -0.5, left, np.where(t > 0.5, right, 0.5 + 0.75 * t - t**3 / 3))
