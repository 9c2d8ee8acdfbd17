"""Accuracies and their differences in words, for tables and pages of `features` and `augment`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..intervals import Interval


def accuracy(interval: Interval) -> str:
    """A share in percent, with half of its interval."""
    width = (interval.high - interval.low) / 2
    return f"{interval.value:.1%}" + (f" ± {width:.1%}" if width == width else "")


def difference(interval: Interval) -> str:
    """A difference in percentage points, and whether the interval leaves 0 out."""
    width = (interval.high - interval.low) / 2
    verdict = "helps" if interval.low > 0 else "harms" if interval.high < 0 else "undecided"
    return f"{interval.value * 100:+.1f}" + (f" ± {width * 100:.1f}" if width == width else "") + f" {verdict}"
