"""Sheets with words: every panel keeps its pixels, every label is there, and nothing covers anything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont
from sheets import panels, words_above, words_beside
from torch import Tensor

from vaeworks.images import labelled, to_pillow
from vaeworks.images.labels import drawable, font_size, shortened, wrapped


def noise(*shape: int) -> Tensor:
    return torch.randint(60, 200, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(sum(shape)))


SIZES = {"tiny": (8, 8), "digits": (28, 28), "photographs": (192, 256), "tall": (90, 20)}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_panels_keep_their_pixels_beside_words(size: tuple[int, int], channels: int) -> None:
    rows = [[noise(channels, *size).add(i) for i in range(3)], [noise(channels, *size).sub(i + 1) for i in range(3)]]
    sheet = labelled(rows, columns=["input", "VAE", "difference × 4"], sides=["path", "cross-fade"], title="A title")
    for number, row in enumerate(rows):
        places = panels(sheet, [to_pillow(x) for x in row])
        assert words_beside(sheet, (places[0][0], places[0][1], *places[0][2:]))
        assert number or all(words_above(sheet, place) for place in places)


def test_what_is_no_panel_is_white_or_ink() -> None:
    """Letters are nowhere on a panel, and no panel is nearer to another than the gap."""
    rows = [[torch.full((3, 40, 50), 90, dtype=torch.uint8)] * 2] * 2
    sheet = np.asarray(labelled(rows, captions=[["a", "b"], ["c", "d"]], gap=5))
    panel = (sheet == 90).all(-1)
    assert panel.sum() == 4 * 40 * 50
    columns = panel.any(0).nonzero()[0]
    assert sorted(set(np.diff(columns))) == [1, 6]
    assert (sheet[~panel] == 255).mean() > 0.5 and (sheet[~panel] < 90).any()


def test_captions_stand_above_every_row() -> None:
    images = [noise(3, 30, 30).add(i) for i in range(4)]
    sheet = labelled([images[:2], images[2:]], captions=[["one", "two"], ["three", ""]])
    boxes = [box for pair in (images[:2], images[2:]) for box in panels(sheet, [to_pillow(x) for x in pair])]
    assert [words_above(sheet, box) for box in boxes] == [True, True, True, False]


def test_without_words_it_is_the_grid() -> None:
    rows = [[noise(3, 8, 8), noise(3, 8, 9)], [noise(1, 5, 8)]]
    from vaeworks.images import grid

    assert labelled(rows, gap=4).tobytes() == grid(rows, 4).tobytes()


def test_letters_grow_with_the_sheet() -> None:
    """Shown 1,280 pixels wide, letters are 12 high or more; on small panels a label has room for a word."""
    for width, count in ((32, 2), (256, 3), (512, 5), (1024, 5), (2048, 3)):
        size = font_size([width] * count)
        shown = min(1.0, 1280 / (count * width))
        assert size * shown >= 11.5
    assert font_size([256] * 33) == 32


def test_long_labels_are_shortened_within_their_column() -> None:
    font = ImageFont.load_default(12)
    name = "a-very-long-name-of-a-photograph-from-a-camera-0001.png"
    short = shortened(name, font, 90)
    assert font.getlength(short) <= 90 and short[0] == "a" and short.endswith(".png") and "…" in short
    assert shortened("VAE", font, 90) == "VAE" and font.getlength(shortened(name, font, 1)) < 20
    wide = labelled([[noise(3, 64, 64)] * 2], columns=[name, "VAE"])
    assert wide.width < 64 * 2 + 4 + 9 * 12


def test_letters_that_the_font_lacks() -> None:
    """Of Pillow's own font, in which they would all be the same box."""
    assert drawable("Zoë × 4 − 中文.png") == "Zoe x 4 - ??.png"
    font = ImageFont.load_default(20)
    box = bytes(font.getmask("\uffff"))
    assert all(bytes(font.getmask(c)) != box for c in drawable("Zoë × 4 − 中文 …·≥→±’"))


def test_words_break_between_words() -> None:
    font = ImageFont.load_default(12)
    lines = wrapped("the difference between the two is multiplied by four", font, 100)
    assert " ".join(lines) == "the difference between the two is multiplied by four"
    assert all(font.getlength(line) <= 100 for line in lines) and len(lines) > 2


def test_a_title_wider_than_the_panels_is_whole() -> None:
    sheet = labelled([[noise(3, 16, 16)]], title="samples of the standard normal prior: 64 of 64")
    ink = np.asarray(sheet.convert("L")) < 110
    assert isinstance(sheet, Image.Image) and not ink[:, -2:].any() and sheet.width > 100
