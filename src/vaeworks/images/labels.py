"""Words in pictures: sheets whose rows and columns say what they show, beside panels that stay as they are.

The font is Pillow's own, so that a sheet looks alike on every machine. It draws ASCII and little else: accents are
dropped, and what it cannot draw becomes a question mark.
"""

from __future__ import annotations

import statistics
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .pixels import grid

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

SMALLEST = 12
"""Lowest size of a label's font in pixels: what is legible on a screen that shows the sheet as it is."""

SHARE = 100
"""A sheet is this many times as wide as its font is high, or less: shown as wide as a screen, its labels are legible
still."""

PER_PANEL = 8
"""A panel is at least this many times as wide as its font is high, unless it is very small."""

WORD = 9
"""Widest part of a label that may widen the column of a smaller panel, in font sizes."""

BESIDE = 10
"""Width of the labels beside rows, in font sizes."""

LINES = 3
"""Most lines of a label."""

INK, PAPER = (29, 35, 41), (255, 255, 255)

DRAWN = {"×": "x", "−": "-", "–": "-", "—": "-", "→": "->", "≥": ">=", "≤": "<=", "’": "'", "±": "+-"}
"""Characters that the font lacks, and what is drawn instead."""


@dataclass(frozen=True)
class _Lettering:
    """Labels as lines of text, and the places that they need."""

    font: Font
    size: int
    title: list[str]
    captions: list[list[list[str]]]
    sides: list[list[str]]
    widths: list[int]
    """of the columns"""

    @property
    def line(self) -> int:
        return self.size * 5 // 4

    @property
    def pad(self) -> int:
        return max(2, self.size // 4)

    def height(self, labels: Sequence[list[str]]) -> int:
        """Of a strip above panels; 0 where none of them has a label."""
        lines = max((len(label) for label in labels), default=0)
        return lines * self.line + 2 * self.pad if lines else 0

    @property
    def left(self) -> int:
        """Width of the margin beside the rows."""
        widest = max((self.font.getlength(text) for label in self.sides for text in label), default=0.0)
        return int(widest) + 3 * self.pad if widest else 0


def labelled(
    rows: Sequence[Sequence[Tensor]],
    *,
    columns: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    sides: Sequence[str] = (),
    title: str = "",
    gap: int = 4,
) -> Image.Image:
    """Rows of uint8 images c h w as one picture, with words on white above and beside them.

    columns: a label above each column. captions: instead, a label above every image. sides: a label to the left of
    each row. title: a line above everything. Images keep their pixels and their size; a column is wider than its images
    where a word needs more room. Long labels break into lines, and what is longer still is shortened.
    """
    above = [list(captions[i]) if i < len(captions) else [] for i in range(len(rows))]
    if columns:
        above[0] = list(columns)
    words = _lettering(rows, above, sides, title, gap)
    strips = [words.height(labels) for labels in words.captions]
    beside = [len(label) * words.line for label in words.sides] + [0] * len(rows)
    heights = [max(least, *(image.shape[-2] for image in row)) for row, least in zip(rows, beside, strict=False)]
    head = words.height([words.title])
    width = words.left + sum(words.widths) + gap * (len(words.widths) - 1)
    width = max(width, *(int(words.font.getlength(line)) + 2 * words.pad for line in words.title), 0)
    sheet = Image.new("RGB", (width, head + sum(strips) + sum(heights) + gap * (len(rows) - 1)), PAPER)
    draw = ImageDraw.Draw(sheet)
    _write(draw, words, words.title, words.pad, words.pad)
    top = head
    for number, (row, strip, height) in enumerate(zip(rows, strips, heights, strict=True)):
        left = words.left
        for place, image in enumerate(row):
            if place < len(words.captions[number]):
                label = words.captions[number][place]
                _write(draw, words, label, left + 1, top + strip - words.pad - len(label) * words.line)
            sheet.paste(grid([[image]]), (left, top + strip))
            left += words.widths[place] + gap
        if number < len(words.sides):
            label = words.sides[number]
            _write(draw, words, label, words.pad, top + strip + (height - len(label) * words.line) // 2)
        top += strip + height + gap
    return sheet


def wrapped(text: str, font: Font, width: float) -> list[str]:
    """Text as lines of at most `width` pixels; a longer word has a line of its own."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def shortened(text: str, font: Font, width: float) -> str:
    """Text of at most `width` pixels: of a longer one, its beginning and its end, which tells files apart."""
    kept = len(text)
    while kept > 2 and font.getlength(text) > width:
        kept -= 1
        text = text[: (kept + 1) // 3] + "…" + text[-(kept - (kept + 1) // 3) :] if kept > 2 else text[:1] + "…"
    return text


def drawable(text: str) -> str:
    """Text as Pillow's own font can draw it."""
    plain = unicodedata.normalize("NFKD", "".join(DRAWN.get(c, c) for c in text))
    kept = (c for c in plain if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" or c in "…·" else "?" for c in kept)


def font_size(widths: Sequence[int], gap: int = 4) -> int:
    """Size of the labels of columns with these widths, in pixels."""
    whole = sum(widths) + gap * (len(widths) - 1)
    return max(SMALLEST, min(whole // SHARE, int(statistics.median(widths)) // PER_PANEL))


def _lettering(
    rows: Sequence[Sequence[Tensor]], above: Sequence[Sequence[str]], sides: Sequence[str], title: str, gap: int
) -> _Lettering:
    count = max(len(row) for row in rows)
    widths = [max(row[i].shape[-1] for row in rows if i < len(row)) for i in range(count)]
    size = font_size(widths, gap)
    font = ImageFont.load_default(size)
    for i in range(count):
        words = [word for labels in above if i < len(labels) for word in drawable(labels[i]).split()]
        widths[i] = max(widths[i], *(min(int(font.getlength(word)) + 2, WORD * size) for word in words), 0)
    captions = [[_lines(text, font, width) for text, width in zip(labels, widths, strict=False)] for labels in above]
    beside = [_lines(text, font, BESIDE * size) for text in sides]
    whole = sum(widths) + gap * (count - 1)
    return _Lettering(font, size, _lines(title, font, max(whole, 20 * size) - size), captions, beside, widths)


def _lines(text: str, font: Font, width: float) -> list[str]:
    """A label as at most LINES lines that fit; none for an empty one."""
    lines = wrapped(drawable(text), font, width)
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], " ".join(lines[LINES - 1 :])]
    return [shortened(line, font, width) for line in lines if line]


def _write(draw: ImageDraw.ImageDraw, words: _Lettering, lines: Sequence[str], left: int, top: int) -> None:
    for number, line in enumerate(lines):
        draw.text((left, top + number * words.line), line, fill=INK, font=words.font)
