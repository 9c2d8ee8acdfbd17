"""Images of random characters, and a reader that recognizes them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Array = NDArray[np.floating[Any]]

CHARACTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789abdefghnqrt"
"""Characters without those that look alike in many fonts: 0 O, 1 I l i j, and lower case like a small upper case."""

STYLES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "dark on light": ((20, 20, 20), (240, 240, 240)),
    "light on dark": ((235, 235, 235), (25, 25, 25)),
    "red on blue": ((205, 60, 50), (40, 70, 150)),
}
"""Colours of the characters and of the background."""

SEARCH = 1
"""Largest shift of a character in pixels."""

MOST = 256
"""Largest number of characters that are read in one image."""

LEAST = 1.0
"""Standard deviation in gray levels below which a cell is empty."""


@dataclass(frozen=True)
class TextPicture:
    """An image full of characters in a grid of cells."""

    image: Image.Image
    size: int
    """font size in pixels"""
    style: str
    text: str
    """the characters to read, row by row; of very many, every second or third, the others being neighbours only"""
    corners: tuple[tuple[int, int], ...]
    """left and top of their cells, in pixels"""


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


@cache
def _boxes(size: int) -> dict[str, tuple[float, float, float, float]]:
    """Left, top, right and bottom of every character's ink."""
    return {character: _font(size).getbbox(character) for character in CHARACTERS}


@cache
def cell(size: int) -> tuple[int, int]:
    """Width and height in pixels of cells that hold every character of a font with a margin of `SEARCH` + 1."""
    boxes = _boxes(size).values()
    width = max(right - left for left, _, right, _ in boxes) + 2 * SEARCH + 2
    height = max(bottom for *_, bottom in boxes) - min(top for _, top, *_ in boxes) + 2 * SEARCH + 2
    return int(np.ceil(width)), int(np.ceil(height))


def text_picture(size: int, style: str, side: int, seed: int = 0, channels: int = 3) -> TextPicture:
    """A square image of `side` pixels, filled with random characters of a font of `size` pixels, at a random offset.

    The font is Pillow's own, so the same version of Pillow renders the same image everywhere.
    """
    random = np.random.default_rng([seed, size, list(STYLES).index(style)])
    ink, ground = STYLES[style]
    image = Image.new("RGB", (side, side), ground)
    draw = ImageDraw.Draw(image)
    width, height = cell(size)
    left, top = (int(random.integers(0, max(1, min(8, side - step)))) for step in (width, height))
    corners = tuple((x, y) for y in range(top, side - height + 1, height) for x in range(left, side - width + 1, width))
    text = "".join(random.choice(list(CHARACTERS), size=len(corners)))
    for corner, character in zip(corners, text, strict=True):
        draw.text(_place(size, character, corner), character, fill=ink, font=_font(size))
    step = -(-len(corners) // MOST)
    return TextPicture(image if channels == 3 else image.convert("L"), size, style, text[::step], corners[::step])


def _place(size: int, character: str, corner: tuple[int, int]) -> tuple[float, float]:
    """Position of a character in the middle of its cell, on one baseline with the others."""
    width, _ = cell(size)
    left, _, right, _ = _boxes(size)[character]
    return corner[0] + (width - (right - left)) // 2 - left, corner[1] + SEARCH + 1 - _highest(size)


@cache
def _highest(size: int) -> float:
    """Top of the tallest character's ink."""
    return min(box[1] for box in _boxes(size).values())


@cache
def templates(size: int) -> Array:
    """Every character alone in a cell, 0 to 1: k h w, in the order of `CHARACTERS`."""
    width, height = cell(size)
    drawn = []
    for character in CHARACTERS:
        image = Image.new("L", (width, height))
        ImageDraw.Draw(image).text(_place(size, character, (0, 0)), character, fill=255, font=_font(size))
        drawn.append(np.asarray(image, dtype=np.float64) / 255)
    return np.stack(drawn)


def read_text(picture: TextPicture, image: Array) -> str:
    """The text that the reader finds in an image h w c of gray levels, in the cells of `picture`.

    In every cell it takes the template with the largest normalized correlation at any shift of up to `SEARCH` pixels;
    " " in an empty cell.
    """
    pixels = _contrast(picture, image)
    width, height = cell(picture.size)
    rows, columns = height - 2 * SEARCH, width - 2 * SEARCH
    inner = templates(picture.size)[:, SEARCH:-SEARCH, SEARCH:-SEARCH]
    known = _unit(inner.reshape(len(inner), -1))
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (rows, columns))
    left, top = np.array(picture.corners).T
    best = np.zeros((len(picture.corners), len(known)))
    spread = np.zeros(len(picture.corners))
    for down in range(2 * SEARCH + 1):
        for right in range(2 * SEARCH + 1):
            parts = windows[top + down, left + right].reshape(len(best), -1)
            best = np.maximum(best, _unit(parts) @ known.T)
            spread = np.maximum(spread, parts.std(1))
    return "".join(CHARACTERS[k] if s >= LEAST else " " for k, s in zip(best.argmax(1), spread, strict=True))


def _contrast(picture: TextPicture, image: Array) -> Array:
    """Distance of pixels from the background colour towards the ink colour: h w, in gray levels."""
    ink, ground = (np.array(colour, dtype=np.float64) for colour in STYLES[picture.style])
    image = np.nan_to_num(np.asarray(image, dtype=np.float64))
    if image.ndim == 2 or image.shape[-1] == 1:
        sign = 1 if (ink - ground) @ (0.299, 0.587, 0.114) > 0 else -1
        return sign * image.reshape(image.shape[:2])
    direction = (ink - ground) / np.linalg.norm(ink - ground)
    return (image - ground) @ direction


def _unit(rows: Array) -> Array:
    """Rows without their mean, of length 1; a constant row becomes 0."""
    centred = rows - rows.mean(1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > 1e-9)
