"""How the latents that a VAE is given are related to those that it expects, of the same pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EXPLAINED = 0.9
"""Share of every channel's variance that a linear map of the channels must explain, to be called a mixing of them."""

ALIKE = 0.6
"""Correlation of a channel with itself, below which it is another one."""

ALONE = 0.9
"""Correlation with one other channel, above which it is that channel."""


@dataclass(frozen=True)
class Relation:
    """The latents that are given, relative to those that are expected."""

    scale: float
    """standard deviation over standard deviation, over all channels, each centered at its mean"""
    offset: float
    """mean of what is given, minus `scale` times the mean of what is expected"""
    shift: float
    """largest difference of a channel's mean, in standard deviations"""
    worst: float
    """correlation of the channel that correlates least with itself"""
    mixing: str
    """in words, where channels have changed places, signs or axes; "" where they have not, or are unrelated"""

    def undone(self, given: Tensor) -> Tensor:
        """The best that one scale and one shift can make of latents."""
        return (given - self.offset) / self.scale if self.scale else given


def relation_of(expected: Tensor, given: Tensor) -> Relation:
    """The relation of latents n c h w of the same pictures."""
    e, g = (x.double().movedim(1, 0).flatten(1) for x in (expected, given))
    means = e.mean(1), g.mean(1)
    a, b = e - means[0][:, None], g - means[1][:, None]
    spread, other = a.square().mean().sqrt(), b.square().mean().sqrt()
    if not (spread > 0 and other > 0):
        return Relation(1.0, 0.0, 0.0, 0.0, "")
    scale = (other / spread).item()
    shifts = (means[1] - means[0]) / spread
    unit_a, unit_b = (x / x.norm(dim=1, keepdim=True).clamp_min(1e-12) for x in (a, b))
    table = unit_b @ unit_a.T  # given by expected
    own = table.diagonal()
    return Relation(
        scale,
        (means[1].mean() - scale * means[0].mean()).item(),
        shifts[shifts.abs().argmax()].item(),
        own.min().item(),
        _mixing(table, a, b) if own.min() < ALIKE else "",
    )


def _mixing(table: Tensor, a: Tensor, b: Tensor) -> str:
    """The change of channels, in words. table: correlations of given with expected channels."""
    count = len(table)
    place = table.abs().argmax(1)
    if sorted(place.tolist()) == list(range(count)) and bool((table.abs().gather(1, place[:, None]) >= ALONE).all()):
        moved = [i for i in range(count) if place[i] != i]
        turned = [i for i in range(count) if table[i, place[i]] < 0]
        words = [f"channels {_listed(moved)} have changed places" if moved else ""]
        words += [f"the signs of channels {_listed(turned)} are turned" if turned else ""]
        return " and ".join(filter(None, words))
    weights = torch.linalg.lstsq(a.T, b.T).solution
    rest = (b.T - a.T @ weights).square().sum(0) / b.square().sum(1).clamp_min(1e-12)
    return "its channels are mixed with each other" if bool((1 - rest >= EXPLAINED).all()) else ""


def _listed(channels: list[int]) -> str:
    if len(channels) > 8:
        return f"{', '.join(map(str, channels[:8]))} and {len(channels) - 8} more"
    return " and ".join(filter(None, (", ".join(map(str, channels[:-1])), str(channels[-1]))))
