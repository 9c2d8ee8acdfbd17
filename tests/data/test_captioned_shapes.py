"""Figures with captions: what number k of a seed is, what is held out, and how the source is read."""

from __future__ import annotations

import math
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from vaeworks.cli.console import TERMINAL
from vaeworks.data import captioned_shapes, scan
from vaeworks.data.duplicates import duplicate_groups
from vaeworks.data.inputs import data_source
from vaeworks.data.labels import find_labels
from vaeworks.data.source_lookup import is_source
from vaeworks.data.synthetic.captioned_shapes import (
    AWAY,
    COLOURS,
    DIAMETERS,
    FIGURES,
    HELD_OUT,
    JITTER,
    SEEN,
    Combination,
    DrawnShape,
    caption_of,
    figure,
    prompts,
)
from vaeworks.errors import DataError
from vaeworks.images import open_image, to_uint8


def test_an_image_is_a_function_of_seed_size_and_number_alone() -> None:
    """Not of the order of drawing, nor of how many there are; and another number or seed is another image."""
    forward = [place.read_bytes() for place in captioned_shapes(40)]
    assert forward[:16] == [place.read_bytes() for place in reversed(captioned_shapes(16))][::-1]
    assert len({*forward, *(place.read_bytes() for place in captioned_shapes(40, seed=1))}) == 80
    assert DrawnShape(5) == DrawnShape(5, 64, 0) and DrawnShape(5).combination == DrawnShape(5, 32).combination
    assert [p.caption for p in captioned_shapes(200)] != [p.caption for p in captioned_shapes(200, seed=1)]


def test_a_size_is_a_resolution_of_the_same_scene() -> None:
    """Averaged to half its size an image is that size's own image, to antialiasing."""
    for index in range(40):
        large, small = DrawnShape(index, 64).image().double(), DrawnShape(index, 32).image().double()
        halved = large.unflatten(1, (32, 2)).unflatten(3, (32, 2)).mean((2, 4))
        assert (halved - small).abs().mean() < 1
    assert (halved - DrawnShape(0, 32).image()).abs().mean() > 20


def test_every_combination_is_drawn_equally_often_and_those_held_out_never() -> None:
    """Each block of 196 images shows each combination once, in an order of its own."""
    places = captioned_shapes(3 * 196, seed=7)
    assert set(Counter(place.combination for place in places).values()) == {3}
    assert {place.combination for place in places} == set(prompts(seen=True))
    assert [p.combination for p in places[:196]] != [p.combination for p in places[196:392]]
    assert not {(p.combination.colour, p.combination.shape) for p in places} & set(HELD_OUT)


def test_held_out_figures_are_of_words_that_are_seen() -> None:
    """One colour of each shape, all different; with the others they are all combinations of two unlike colours."""
    assert len(HELD_OUT) == 4 and {shape for _, shape in HELD_OUT} == set(FIGURES)
    assert len({colour for colour, _ in HELD_OUT}) == 4
    seen, unseen = prompts(seen=True), prompts(seen=False)
    assert (len(seen), len(unseen)) == (196, 28) and seen == SEEN
    assert {(c.colour, c.shape) for c in unseen} == set(HELD_OUT)
    assert len({*seen, *unseen}) == 8 * 4 * 7 and all(c.colour != c.ground for c in (*seen, *unseen))
    assert {c.colour for c in seen} == {c.ground for c in seen} == {c.ground for c in unseen} == set(COLOURS)


def test_captions_name_what_is_drawn() -> None:
    """In words, and unlike for unlike combinations."""
    assert caption_of("red", "circle", "blue") == "a red circle on a blue ground"
    assert DrawnShape(9).caption == caption_of(*DrawnShape(9).combination)
    assert len({caption_of(*combination) for combination in (*prompts(True), *prompts(False))}) == 224


@pytest.mark.parametrize("size", [16, 32, 64, 101])
def test_pixels_are_as_the_caption_says(size: int) -> None:
    """Corners have the ground's colour, what differs most from them the figure's, which covers what its formula says;
    between them are blends alone."""
    areas = {"circle": math.pi, "square": 2.0, "triangle": 0.75 * math.sqrt(3), "cross": 1.929}
    for index, combination in enumerate((*prompts(True), *prompts(False))):
        pixels = figure(combination, size, 3, index).astype(np.float64)
        behind, before = (np.array(COLOURS[word]) for word in (combination.ground, combination.colour))
        assert pixels.shape == (size, size, 3)
        for corner in (pixels[0, 0], pixels[-1, 0], pixels[0, -1], pixels[-1, -1]):
            assert abs(corner - behind).max() <= JITTER + 1
        farthest = abs(pixels - pixels[0, 0]).sum(-1).argmax()
        way = pixels.reshape(-1, 3)[farthest] - pixels[0, 0]
        assert abs(pixels[0, 0] + way - before).max() <= JITTER + 1
        share = (pixels - pixels[0, 0]) @ way / (way @ way)
        assert abs(pixels - pixels[0, 0] - share[..., None] * way).max() < 3
        radius = np.array(DIAMETERS) / 2
        low, high = areas[combination.shape] * radius**2
        assert 0.93 * low < share.mean() < 1.07 * high, combination


def test_figures_differ_in_place_size_angle_and_colour() -> None:
    """Two images of one combination are never the same picture; their middles stay near the image's."""
    combination = Combination("red", "square", "white")
    pictures = [figure(combination, 64, 0, index).astype(np.float64) for index in range(60)]
    shares = np.array([(p[0, 0, 1] - p[..., 1]) / (p[0, 0, 1] - p[..., 1].min()) for p in pictures])
    areas = shares.mean((1, 2))
    places = (np.arange(64) + 0.5) / 64
    middles = np.stack([(shares.mean(axis) @ places) / areas / 64 for axis in (1, 2)], axis=1)
    assert areas.max() > 1.4 * areas.min()
    assert abs(middles - 0.5).max() < AWAY + 0.01 and (middles.std(0) > AWAY / 3).all()
    assert len({tuple(p[0, 0]) for p in pictures}) > 50
    assert np.std([p[32, 32] for p in pictures], axis=0).min() > 3


def test_what_is_read_is_what_is_drawn() -> None:
    """The PNGs decode to exactly the image."""
    for place in captioned_shapes(6, 33, 3):
        image = place.image()
        assert image.dtype == torch.uint8 and image.shape == (3, 33, 33)
        assert torch.equal(to_uint8(open_image(place.read_bytes())), image)


def test_a_source_is_scanned_like_any_other() -> None:
    """Numbers in the source's name, or none of them; a split by content; shapes are classes; few look the same."""
    found = scan("shapes:588:64:5")
    assert [file.path for file in found.files] == captioned_shapes(588, 64, 5) and not found.skipped
    assert len({file.digest for file in found.files}) == 588
    train, val = found.split(0.25)
    assert 80 < len(val.files) < 220 and len(train.files) + len(val.files) == 588
    assert sum(map(len, duplicate_groups(found.files))) <= 6
    labels = find_labels(found.files)
    assert labels is not None and set(labels) == set(FIGURES)
    assert str(found.files[3].path) == f"shapes/{captioned_shapes(4, 64, 5)[3].combination.shape}/000003.png"
    assert len(captioned_shapes()) == 6000 and scan("shapes:3").files == scan("shapes:9").files[:3]
    assert is_source("shapes") and is_source("shapes:9:32:1") and not is_source("shapes:x")


@pytest.mark.parametrize("source", ["shapes:", "shapes:x", "shapes:8:32:0:1", "shapes:-8", "shapes::32"])
def test_wrong_syntax_is_said_with_the_right_form(source: str) -> None:
    with pytest.raises(DataError, match=r"^[^\n]*write shapes\[:COUNT\[:SIZE\[:SEED\]\]\], such as shapes:6000:64:0$"):
        scan(source)


@pytest.mark.parametrize(
    ("source", "said"),
    [("shapes:0", "COUNT (=0)"), ("shapes:9:7", "SIZE (=7)"), ("shapes:9999999", "1 to 1000000")],
)
def test_numbers_out_of_range_are_refused(source: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        scan(source)
    assert said in str(caught.value) and "shapes[:COUNT" in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_of_the_same_name_is_mentioned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The word means what is built in; ./ names the folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes").mkdir()
    assert data_source("shapes", reporter=TERMINAL) == "shapes"
    assert "for the folder of that name write ./shapes" in capsys.readouterr().err
    with pytest.raises(DataError, match="no image file"):
        scan("./shapes")


def test_drawing_is_fast() -> None:
    """6,000 images of 64 px take half a second on one core; a busy machine gets ten times as long."""
    start = time.process_time()
    for place in captioned_shapes(600):
        place.read_bytes()
    assert time.process_time() - start < 0.5
