"""Find panels in sheets, and the words beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFont

from vaeworks.images.labels import wrapped

Box = tuple[int, int, int, int]


def panels(sheet: Image.Image, pictures: Sequence[Image.Image]) -> list[Box]:
    """The corners of pictures in a sheet that has their pixels bit for bit, from left to right."""
    found: list[Box] = []
    whole = np.asarray(sheet.convert("RGB"))
    for picture in pictures:
        wanted = np.asarray(picture.convert("RGB"))
        height, width = wanted.shape[:2]
        start = found[-1][2] if found else 0
        tops, lefts = np.nonzero((whole == wanted[0, 0]).all(-1)[: len(whole) - height + 1])
        hits = (
            (int(left), int(top), int(left) + width, int(top) + height)
            for left, top in sorted(zip(lefts, tops, strict=True))
            if left >= start
            and whole[top : top + height, left : left + width].shape == wanted.shape
            and (whole[top : top + height, left : left + width] == wanted).all()
        )
        box = next(hits, None)
        assert box is not None, "the sheet lacks a picture, or has other pixels"
        found.append(box)
    return found


def sheet_width(
    pictures: Sequence[int], columns: Sequence[str] = (), sides: Sequence[str] = (), gap: int = 4, size: int = 12
) -> int:
    """The width of a sheet of small pictures, restated: columns as wide as their pictures, or as the longest word above
    them; beside them the longest side, which is no wider than ten letters are high.

    pictures: widths, by column. columns, sides: labels in ASCII. size: of the letters, 12 for small pictures.
    """
    font = ImageFont.load_default(size)
    words = [max((font.getlength(word) for word in label.split()), default=0.0) for label in columns]
    words = [word if word == 0 else min(int(word) + 2, 9 * size) for word in (*words, *[0.0] * len(pictures))]
    lines = [line for side in sides for line in wrapped(side, font, 10 * size)]
    margin = int(max(map(font.getlength, lines))) + 3 * (size // 4) if lines else 0
    return int(margin + sum(map(max, pictures, words)) + gap * (len(pictures) - 1))


def words_above(sheet: Image.Image, box: Box, height: int = 12) -> bool:
    """Whether dark letters on white stand right above a panel."""
    left, top, right, _ = box
    strip = np.asarray(sheet.convert("L"))[max(0, top - 2 * height) : top, left:right]
    return strip.shape[0] >= height and bool((strip < 110).any()) and bool((strip > 250).mean() > 0.3)


def words_beside(sheet: Image.Image, box: Box) -> bool:
    """Whether dark letters on white stand to the left of a panel."""
    left, top, _, bottom = box
    strip = np.asarray(sheet.convert("L"))[top:bottom, :left]
    return left >= 12 and bool((strip < 110).any()) and bool((strip > 250).mean() > 0.5)
