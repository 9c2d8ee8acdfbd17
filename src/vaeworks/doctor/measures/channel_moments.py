"""Moments of latents by channel: summed in one pass over any number of images, in float64, and merged exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...intervals import DRAWS, Interval, bootstrap, jackknife

Array = NDArray[np.float64]

GROUPS = 128
"""Most sets of images whose moments are kept apart for the bootstrap. Up to this many images, each is its own set;
beyond it, a set has images from all over the folder, which bounds the memory."""


@dataclass(frozen=True)
class ChannelMoments:
    """Moments of g sets of vectors with c channels."""

    count: Array
    """g: number of vectors"""
    mean: Array
    """g c: means"""
    comoment: Array
    """g c c: sums of products of deviations from the mean"""
    cube: Array
    """g c: sums of deviations to the third power"""
    fourth: Array
    """g c: likewise to the fourth"""

    @classmethod
    def of(cls, latents: Tensor) -> ChannelMoments:
        """The moments of n c h w as one set."""
        x = latents.detach().double().movedim(1, -1).reshape(-1, latents.shape[1]).cpu().numpy()
        mean = x.mean(0)
        d = x - mean
        return cls(np.array([float(len(x))]), mean[None], (d.T @ d)[None], (d**3).sum(0)[None], (d**4).sum(0)[None])

    def pooled(self, sets: Sequence[int] | NDArray[np.integer[Any]] | None = None) -> ChannelMoments:
        """One set merged from these sets (numbers, which may repeat), by default from all.

        Exact, whatever the sets' sizes and means. Source: Pebay 2008, "Formulas for robust, one-pass parallel
        computation of covariances and arbitrary-order statistical moments" (SAND2008-6212), equations 1.1 and 3.1.
        """
        some = self if sets is None else ChannelMoments(*(getattr(self, f.name)[sets] for f in fields(self)))
        n = some.count[:, None]
        total = n.sum()
        mean = (n * some.mean).sum(0) / total
        d = some.mean - mean
        square = np.diagonal(some.comoment, axis1=1, axis2=2)
        comoment = some.comoment.sum(0) + (n * d).T @ d
        cube = (some.cube + 3 * d * square + n * d**3).sum(0)
        fourth = (some.fourth + 4 * d * some.cube + 6 * d**2 * square + n * d**4).sum(0)
        return ChannelMoments(np.array([total]), mean[None], comoment[None], cube[None], fourth[None])

    @classmethod
    def side_by_side(cls, parts: Iterable[ChannelMoments]) -> ChannelMoments:
        """The sets of several moments, one after the other."""
        found = list(parts)
        return cls(*(np.concatenate([getattr(part, f.name) for part in found]) for f in fields(cls)))

    def widened(self, variance: Array) -> ChannelMoments:
        """The moments with independent noise of variance g c added; third and fourth powers stay as they are."""
        noise = np.einsum("g,gc,cd->gcd", self.count, variance, np.eye(variance.shape[1]))
        return replace(self, comoment=self.comoment + noise)

    @property
    def covariance(self) -> Array:
        """Covariance of the only set: c c."""
        value: Array = self.comoment[0] / self.count[0]
        return value

    @property
    def std(self) -> Array:
        """Variance of the only set: c."""
        return np.sqrt(np.diagonal(self.covariance).clip(0))

    @property
    def kurtosis(self) -> Array:
        """Excess kurtosis of the only set's channels, 0 of a normal distribution: c. nan where a channel is
        constant."""
        square = np.diagonal(self.comoment[0])
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(square > 0, self.count[0] * self.fourth[0] / square**2 - 3, np.nan)

    @property
    def overall(self) -> tuple[float, float]:
        """Mean and standard deviation over all elements of the only set, channels taken together."""
        mean = self.mean[0].mean()
        return float(mean), float(np.sqrt((np.diagonal(self.covariance) + (self.mean[0] - mean) ** 2).mean()))


class Gathering:
    """Collects the moments of images that come one after the other, in at most GROUPS sets."""

    def __init__(self, groups: int = GROUPS):
        self._groups, self._seen = groups, 0
        self._sets: list[ChannelMoments] = []

    def add(self, latents: Tensor) -> None:
        """Add latents n c h w."""
        for image in latents:
            new, place = ChannelMoments.of(image[None]), self._seen % self._groups
            if place == len(self._sets):
                self._sets.append(new)
            else:
                self._sets[place] = ChannelMoments.side_by_side([self._sets[place], new]).pooled()
            self._seen += 1

    @property
    def sets(self) -> ChannelMoments:
        """The moments of all images that came."""
        return ChannelMoments.side_by_side(self._sets)


def interval(
    sets: ChannelMoments, statistic: Callable[[ChannelMoments], float], *, seed: int = 0, draws: int = DRAWS
) -> Interval:
    """A statistic of pooled moments, with the bootstrap's interval over their sets."""
    numbers = np.arange(len(sets.count), dtype=np.float64)
    return bootstrap(numbers, lambda drawn: statistic(sets.pooled(drawn.astype(np.int64))), draws=draws, seed=seed)


def jackknifed(sets: ChannelMoments, statistic: Callable[[ChannelMoments], float]) -> Interval:
    """As `interval`, by the jackknife: for statistics that repeated images would bias, such as ranks and kurtosis."""
    numbers = np.arange(len(sets.count))
    without = [statistic(sets.pooled(numbers[numbers != i])) for i in numbers] if len(numbers) > 1 else []
    return jackknife(statistic(sets.pooled()), without)


def effective_rank(covariance: Array) -> float:
    """The participation ratio (sum l)^2 / sum l^2 of the eigenvalues l, 1..c: the number of equally strong,
    uncorrelated channels with the same spread.

    nan where there is no variance.
    """
    square = float((covariance**2).sum())
    return float(np.trace(covariance)) ** 2 / square if square > 0 else float("nan")


def correlation(covariance: Array) -> Array:
    """Correlation of channels, c c; 0 for constant channels."""
    std = np.sqrt(np.diagonal(covariance).clip(0))
    product = np.outer(std, std)
    return np.divide(covariance, product, out=np.zeros_like(covariance), where=product > 0)


def condition_number(covariance: Array) -> float:
    """Largest over smallest eigenvalue; infinite where a direction has no variance that float32 can tell from 0, nan
    where none has."""
    values = np.linalg.eigvalsh(covariance)
    if not values[-1] > 0:
        return float("nan")
    return float(values[-1] / values[0]) if values[0] > values[-1] * 1e-12 else float("inf")
