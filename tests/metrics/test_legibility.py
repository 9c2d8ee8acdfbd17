"""Text and edges: the reader must read what is there, and read worse what is damaged."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image, ImageFilter

from vaeworks.metrics.edges import CONTRASTS, edge_picture, rise
from vaeworks.metrics.legibility import Legibility, Reading, legibility, wilson
from vaeworks.metrics.text_pictures import CHARACTERS, STYLES, read_text, templates, text_picture

SIZES = (6, 10, 16)
SIDE = 96


def blur(radius: float):
    return lambda picture: picture.filter(ImageFilter.GaussianBlur(radius))


def errors(through) -> list[int]:
    return [r.errors for r in legibility(None, through=through, sizes=SIZES, side=SIDE).readings]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("channels", [3, 1])
def test_undamaged_text_is_read(style: str, channels: int) -> None:
    """At every size, in every style, in gray as well, with gray levels compressed, offset and a little noise."""
    for size in (6, 8, 12, 32):
        picture = text_picture(size, style, 128, seed=3, channels=channels)
        assert read_text(picture, np.asarray(picture.image)) == picture.text
        noise = np.random.default_rng(0).normal(0, 1, np.asarray(picture.image).shape)
        assert read_text(picture, np.asarray(picture.image) * 0.5 + 40 + noise) == picture.text
    assert len(picture.text) > 5 and set(picture.text) <= set(CHARACTERS)


def test_moved_text_is_read_and_a_wrong_one_is_not() -> None:
    """A shift of one pixel costs nothing; other text is read as what it is; an empty picture is read as nothing."""
    picture = text_picture(12, "dark on light", 96)
    other = text_picture(12, "dark on light", 96, seed=0)
    moved = np.roll(np.asarray(picture.image), (1, -1), (0, 1))
    assert read_text(picture, moved) == picture.text == other.text
    assert read_text(picture, np.full_like(moved, 77)).strip() == ""
    assert read_text(picture, np.full(moved.shape, np.nan)).strip() == ""
    upside = read_text(
        picture, 255 - np.asarray(picture.image)
    )  # ink and ground changed places: correlations are negative
    assert sum(a == b for a, b in zip(upside, picture.text, strict=True)) < 0.2 * len(picture.text)


def test_templates_are_all_different() -> None:
    """No two characters are drawn alike at any size."""
    for size in (6, 8, 10, 32):
        known = templates(size).reshape(len(CHARACTERS), -1)
        assert np.corrcoef(known)[np.triu_indices(len(CHARACTERS), 1)].max() < 0.999


def test_blur_costs_small_text_first() -> None:
    """Errors grow with the blur at every size, and are more at smaller sizes; nothing costs nothing."""
    clear, soft, softer, gone = (errors(through) for through in (lambda p: p, blur(1), blur(2), blur(8)))
    assert clear == [0, 0, 0]
    assert soft[0] > 0 == soft[2]
    for mild, strong in ((clear, soft), (soft, softer), (softer, gone)):
        assert all(a <= b for a, b in zip(mild, strong, strict=True))
    assert sum(soft) < sum(softer) < sum(gone)


def test_smallest_legible_size() -> None:
    """From it on, all sizes are read to 90 %: a lucky smaller one does not count; none is none."""
    readings = [Reading(6, 100, 5, 0), Reading(8, 100, 30, 0), Reading(10, 100, 10, 0), Reading(12, 100, 0, 0)]
    assert Legibility(tuple(readings), ()).smallest == 10
    assert Legibility((Reading(6, 100, 11, 0),), ()).smallest is None


def test_wilsons_interval() -> None:
    """The textbook's: 0 of 10 is up to 27.75 %, 5 of 10 from 23.66 % to 76.34 %."""
    assert (wilson(0, 10).low, wilson(0, 10).high) == (pytest.approx(0, abs=1e-12), pytest.approx(0.2775, abs=1e-4))
    assert (wilson(5, 10).low, wilson(5, 10).high) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))


@pytest.mark.parametrize("upright", [True, False])
@pytest.mark.parametrize("contrast", CONTRASTS)
def test_edges_rise_as_gaussians_do(upright: bool, contrast: int) -> None:
    """A step blurred with sigma rises in 2.563 sigma, the pixel's own width in quadrature; contrast and direction do
    not matter."""
    picture = edge_picture(contrast, 128, upright)
    sharp = rise(np.asarray(picture), upright)
    assert 0.7 < sharp < 1.0
    for sigma in (1.5, 3.0):
        axis = np.arange(-12, 13)
        window = np.exp(-(axis**2) / (2 * sigma**2))
        window /= window.sum()
        levels = np.asarray(picture)[..., 0].astype(float)
        padded = np.pad(levels, 12, mode="edge")
        soft = np.apply_along_axis(
            np.convolve, 1, np.apply_along_axis(np.convolve, 0, padded, window, "valid"), window, "valid"
        )
        assert rise(soft, upright) == pytest.approx(math.hypot(2.563 * sigma, sharp), rel=0.05)
    assert math.isnan(rise(np.full((128, 128, 3), 128.0), upright))
    assert math.isnan(rise(np.full((128, 128, 3), np.nan), upright))
    assert math.isnan(rise(255 - np.asarray(picture), upright))  # it falls


def test_edges_are_in_the_result() -> None:
    """Blur widens every edge, and a picture without edges has none."""
    found = legibility(None, through=blur(2), sizes=(32,), side=SIDE)
    assert all(edge.recon > 3 * edge.original for edge in found.edges)
    lost = legibility(None, through=lambda p: Image.new(p.mode, p.size), sizes=(32,), side=SIDE)
    assert lost.readings[0].errors == lost.readings[0].characters and all(math.isnan(edge.recon) for edge in lost.edges)
