"""What pictures of figures show, read from their pixels: right on every kind of picture that is drawn, and silent on
others."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from vaeworks.data.synthetic import captioned_shapes as captioned_shapes_module
from vaeworks.data.synthetic import shapes
from vaeworks.data.synthetic.captioned_shapes import (
    COLOURS,
    FIGURES,
    JITTER,
    Combination,
    captioned_shapes,
    figure,
    prompts,
)
from vaeworks.errors import ConfigError
from vaeworks.metrics import shape_chance, shape_shares
from vaeworks.metrics.shape_check import APART, NEAREST, NONE, Shares, recognize

EVERY = (*prompts(seen=True), *prompts(seen=False))
ROUNDS = 5
"""Pictures of each of the 224 combinations."""

Pictures = NDArray[np.uint8]


def drawn(combinations: list[Combination], size: int, seed: int = 11) -> Pictures:
    """Pictures of these: n 3 size size."""
    return np.stack([figure(words, size, seed, i) for i, words in enumerate(combinations)]).transpose(0, 3, 1, 2)


def disturbed(pictures: Pictures, blur: float, noise: float) -> Pictures:
    """Blurred by a Gaussian, in pixels, with noise in gray levels."""
    soft = ndimage.gaussian_filter(pictures.astype(np.float64), (0, 0, blur, blur))
    return (soft + np.random.default_rng(0).normal(0, noise, soft.shape)).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [32, 64])
def test_pictures_are_recognized(size: int) -> None:
    """All three words in 99 of 100, also of figures that the source never draws; of blurred and noisy ones in 97."""
    wanted = list(EVERY) * ROUNDS
    pictures = drawn(wanted, size)
    check = shape_shares(pictures, wanted)
    assert check.right.all >= 0.99 and check.recognized[0] == wanted[0]
    unseen = [i for i, words in enumerate(wanted) if words in prompts(seen=False)]
    assert shape_shares(pictures[unseen], [wanted[i] for i in unseen]).right.all >= 0.99
    assert shape_shares(disturbed(pictures, 1, 8), wanted).right.all >= 0.97


def test_a_generator_need_not_be_as_neat_as_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of other sizes, farther from the middle and at any angle are recognized as well."""
    monkeypatch.setattr(captioned_shapes_module, "DIAMETERS", (0.48, 0.85))
    monkeypatch.setattr(captioned_shapes_module, "AWAY", 0.15)
    monkeypatch.setattr(captioned_shapes_module, "TILT", np.pi)
    for size in (32, 64):
        assert shape_shares(drawn(list(EVERY) * 2, size), list(EVERY) * 2).right.all >= 0.99


def test_colours_are_nearer_to_their_names_than_to_others() -> None:
    """Half the least distance of two colours is the largest at which a name is given, and jitter stays well within."""
    places = np.array(list(COLOURS.values()), np.float64)
    distances = np.linalg.norm(places[:, None] - places, axis=-1)[np.triu_indices(len(places), 1)]
    assert 2 * NEAREST <= distances.min() < 2 * NEAREST + 2
    assert np.sqrt(3) * JITTER < NEAREST / 2 and distances.min() - np.sqrt(3) * 2 * JITTER > APART


def test_it_reads_the_source() -> None:
    """What `shapes` draws, as tensors; bytes through the image path included."""
    places = captioned_shapes(196, 48, 2)
    images = torch.stack([place.image() for place in places])
    assert recognize(images) == [place.combination for place in places]


def test_a_picture_without_a_figure_has_none() -> None:
    """A blank one has a ground; noise and gray have nothing that has a name."""
    for word, colour in COLOURS.items():
        blank = np.broadcast_to(np.array(colour, np.uint8)[None, :, None, None], (1, 3, 32, 32))
        assert recognize(blank) == [(NONE, NONE, word)]
        assert recognize(disturbed(blank, 0.1, 8)) == [(NONE, NONE, word)]
    random = np.random.default_rng(1)
    for size in (32, 64):
        uniform = random.integers(0, 256, (40, 3, size, size), dtype=np.uint8)
        normal = random.normal(128, 40, (40, 3, size, size)).clip(0, 255).astype(np.uint8)
        assert set(recognize(np.concatenate([uniform, normal]))) == {(NONE, NONE, NONE)}
    assert recognize(np.full((1, 3, 32, 32), 128, np.uint8)) == [(NONE, NONE, NONE)]


@pytest.mark.parametrize("shape", ["star", "ring", "half", "two", "gray"])
def test_what_is_not_of_the_words_gets_none(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other figures, two figures, and a colour without a name; what can be named still is."""
    recognize(drawn(list(EVERY[:1]), 32))  # its outlines are drawn before there are others
    others = {
        "star": shapes.star,
        "ring": shapes.ring,
        "half": lambda x, y, radius: np.maximum(shapes.disc(x, y, radius), x),
        "two": lambda x, y, radius: shapes.disc(abs(x) - radius * 0.6, y, radius * 0.4),
        "gray": shapes.disc,
    }
    monkeypatch.setitem(FIGURES, shape, others[shape])
    monkeypatch.setitem(COLOURS, "gray", (128, 128, 128))
    words = [Combination("gray" if shape == "gray" else "red", shape, "white")] * 40
    pictures = drawn(words, 64)
    monkeypatch.delitem(COLOURS, "gray")
    expected = (NONE, "circle", "white") if shape == "gray" else ("red", NONE, "white")
    assert set(recognize(pictures)) == {expected}


def test_shares_count_each_word_and_all_three() -> None:
    """Of four pictures: one right, one with a wrong colour, one with a wrong shape and ground, one blank."""
    red = Combination("red", "square", "white")
    shown = [red, Combination("blue", "square", "white"), Combination("red", "cross", "black")]
    pictures = np.concatenate([drawn(shown, 32), np.full((1, 3, 32, 32), 240, np.uint8)])
    check = shape_shares(pictures, [red] * 4)
    assert check.recognized == (*shown, (NONE, NONE, "white")) and check.wanted == (red,) * 4
    assert check.right == Shares(0.5, 0.5, 0.75, 0.25)
    assert check.shuffled == check.right  # one prompt alone: there is nothing to confuse


def test_shuffled_prompts_tell_a_generator_that_ignores_words() -> None:
    """Pictures of two combinations in a wrong order are right by half when dealt anew, and not at all as they are."""
    a, b = Combination("red", "square", "white"), Combination("blue", "cross", "black")
    check = shape_shares(drawn([a, b], 32), [b, a])
    assert check.right == Shares(0, 0, 0, 0) and check.shuffled == Shares(0.5, 0.5, 0.5, 0.5)


def test_chance_is_what_guessing_gives() -> None:
    """Counted over all 224 guesses, for any wanted combination."""
    for wanted in EVERY[:: len(EVERY) // 9]:
        hits = Counter(
            name
            for guess in EVERY
            for name, right in zip(("colour", "shape", "ground"), np.equal(guess, wanted), strict=True)
            if right
        )
        shares = [hits[name] / len(EVERY) for name in ("colour", "shape", "ground")]
        assert shape_chance() == Shares(*shares, 1 / len(EVERY))


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(1, 3, 32, 32),
        np.zeros((3, 32, 32), np.uint8),
        np.zeros((1, 1, 32, 32), np.uint8),
        np.zeros((1, 3, 32, 8), np.uint8),
    ],
)
def test_other_pictures_are_refused(images: torch.Tensor | Pictures) -> None:
    with pytest.raises(ConfigError, match=r"^pictures must be uint8 n 3 h w[^\n]*$"):
        recognize(images)


def test_prompts_must_be_as_many_as_pictures() -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]*not 2 for 1$"):
        shape_shares(np.zeros((1, 3, 32, 32), np.uint8), list(EVERY[:2]))
