"""Detects that a loss has stopped falling, by a robust slope over a window of images. No torch, no clock."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from itertools import combinations

BINS = 16
"""number of means in a window"""
CONFIRMATIONS = 4
"""number of bins in a row at whose end the loss must be flat"""


@dataclass
class Plateau:
    """The recent history of a noisy positive loss, as means over bins of images: plain numbers that can be saved.

    Figures may come at any interval, as long as a window has at least BINS / 2 of them.
    """

    window: int
    """images over which the change is measured"""
    ends: tuple[int, ...] = ()
    """images at the ends of full bins, newest last"""
    means: tuple[float, ...] = ()
    """mean loss of full bins"""
    total: float = 0.0
    """sum of losses times images in the bin that is being filled"""
    weight: int = 0
    """images of the bin that is being filled"""
    seen: int = 0
    """images at the last figure"""
    flat: int = 0
    """full bins in a row at whose end the loss looked flat"""

    def add(self, images_seen: int, loss: float, threshold: float) -> None:
        """Take in the loss of the images since the last figure. threshold: relative change per window below which the
        loss is flat."""
        images = max(images_seen - self.seen, 0)
        self.seen = images_seen
        self.total += loss * images
        self.weight += images
        if self.weight < self.window / BINS:
            return
        self.ends, self.means = (*self.ends, images_seen), (*self.means, self.total / self.weight)
        self.total, self.weight = 0.0, 0
        while len(self.ends) > 2 and images_seen - self.ends[1] >= self.window:
            self.ends, self.means = self.ends[1:], self.means[1:]
        change = self.change
        self.flat = self.flat + 1 if change is not None and abs(change) < threshold else 0

    @property
    def change(self) -> float | None:
        """Relative change per window, negative where the loss falls; None before there is a window full of figures.

        The median of the slopes of all pairs of bins (Theil 1950, Sen 1968), which is robust to outliers.
        """
        if len(self.ends) < BINS // 2 or self.ends[-1] - self.ends[0] < 0.9 * self.window:
            return None
        points = zip(self.ends, self.means, strict=True)
        slope = statistics.median((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2))
        level = abs(statistics.median(self.means))
        return slope * self.window / level if level > 0 else 0.0

    @property
    def reached(self) -> bool:
        """Whether the loss has been flat for some time."""
        return self.flat >= CONFIRMATIONS
