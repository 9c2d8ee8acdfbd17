"""Signed distances of capital letters, to draw words at any size and angle."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Array = NDArray[np.float64]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

CAP = 64
"""Height of a capital letter in a cell, in pixels."""

GAP = 5
"""Pixels of a cell on either side of its letter: half the gap between letters."""

PAD = 8
"""Pixels of a cell above and below its letter; Q and J may reach into them."""

BOLD = 2.0
"""Pixels added to strokes on each side: in small images the font's own are thinner than a pixel."""


def word(text: str) -> Array:
    """Signed distances to the letters' outlines, in pixels, negative inside: CAP + 2 PAD rows, capitals side by
    side."""
    return np.concatenate([_letter(character) for character in text], axis=1)


def sampled(values: Array, row: Array, column: Array) -> Array:
    """Values h w at fractional rows and columns of pixel centres: bilinear, with border values outside."""
    height, width = values.shape
    row, column = row.clip(0, height - 1), column.clip(0, width - 1)
    top, left = row.astype(np.int64).clip(0, height - 2), column.astype(np.int64).clip(0, width - 2)
    flat, start = values.ravel(), top * width + left
    down, right = row - top, column - left
    upper = flat[start] * (1 - right) + flat[start + 1] * right
    lower = flat[start + width] * (1 - right) + flat[start + width + 1] * right
    return upper * (1 - down) + lower * down


@lru_cache(maxsize=len(LETTERS))
def _letter(character: str) -> Array:
    """A cell: the signed distances of one letter, in Pillow's own font."""
    font = ImageFont.load_default(round(CAP / 0.7))
    left, _, right, _ = font.getbbox(character)
    picture = Image.new("L", (round(right - left) + 2 * GAP, CAP + 2 * PAD))
    ImageDraw.Draw(picture).text((GAP - left, PAD + CAP), character, fill=255, font=font, anchor="ls")
    return signed_distance(np.asarray(picture, dtype=np.float64) / 255 - 0.5) - BOLD


def signed_distance(level: Array) -> Array:
    """Distance of every pixel from the outline, where `level` passes zero, in pixels; negative inside.

    level: h w, positive inside. Linear interpolation finds the points where the outline crosses rows and columns of
    pixel centres.
    """
    points = np.concatenate([_crossings(level), _crossings(level.T)[:, ::-1]])
    rows, columns = (points[:, axis].astype(np.float32) for axis in (0, 1))
    y, x = (np.arange(length, dtype=np.float32) for length in level.shape)
    square = ((y[:, None] - rows) ** 2)[:, None] + ((x[:, None] - columns) ** 2)[None]
    return np.where(level > 0, -1.0, 1.0) * np.sqrt(square.min(-1))


def _crossings(level: Array) -> Array:
    """(row, column) of the zeros between horizontal neighbours: n 2."""
    a, b = level[:, :-1], level[:, 1:]
    row, column = np.nonzero((a > 0) != (b > 0))
    a, b = a[row, column], b[row, column]
    return np.stack([row, column + a / (a - b)], axis=1)
