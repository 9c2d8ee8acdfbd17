"""Maps as pictures: the colours at the ends and in the middle, and what is no number."""

from __future__ import annotations

import math

import torch

from vaeworks.pages.heatmap import DIVERGING, SEQUENTIAL, diverging, enlarged, heat


def test_colours_of_the_limits_and_between() -> None:
    values = torch.tensor([[0.0, 5.0, 10.0, 99.0, math.nan]])
    found = heat(values, 0.0, 10.0)[:, 0].T.tolist()
    assert found == [list(SEQUENTIAL[0]), list(SEQUENTIAL[2]), list(SEQUENTIAL[-1]), list(SEQUENTIAL[-1]), [128] * 3]
    signed = diverging(torch.tensor([[-2.0, 0.0, 2.0, 1.0]]), 2.0)[:, 0].T.tolist()
    assert signed == [list(DIVERGING[0]), list(DIVERGING[2]), list(DIVERGING[-1]), list(DIVERGING[3])]


def test_limits_are_the_maps_own_where_none_are_given() -> None:
    assert torch.equal(heat(torch.tensor([[3.0, 4.0, 5.0]])), heat(torch.tensor([[0.0, 0.5, 1.0]]), 0.0, 1.0))
    assert torch.equal(diverging(torch.tensor([[-1.0, 3.0]])), diverging(torch.tensor([[-1.0, 3.0]]), 3.0))
    assert heat(torch.full((2, 2), math.nan)).unique().tolist() == [128] and heat(torch.ones(2, 2)).shape == (3, 2, 2)


def test_enlarging_makes_squares() -> None:
    picture = torch.tensor([[[1, 2], [3, 4]]], dtype=torch.uint8)
    assert enlarged(picture, 2)[0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
