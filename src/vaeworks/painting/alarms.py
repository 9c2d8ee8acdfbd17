"""Alarms of a painting run: held-out images that are predicted worse, a loss that rises, and a run that learns
nothing."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from ..training.monitor.alarm import Alarm
from ..training.monitor.log_schema import EVENT, STEP, number

HELD_OUT = "held_out_loss"
"""Key of a look's line: mean loss of held-out images at fixed noise and times."""

WINDOW = 32
"""Step lines in a window: the loss of a batch scatters by a tenth."""

RISEN = 1.3
"""Rise of a window's median over the lowest window's."""

OVERFITTED = 1.05
"""Rise of the held-out loss over its lowest, at two looks in a row, while the loss in training falls."""

NOTHING = 0.97
"""Loss of a run that learns nothing, as a share of that of predicting the mean, which is about that of the first
steps."""

PATIENCE = 4
"""Looks until then."""


class PaintAlarms:
    """All watches over a painting run. earlier: lines of the log whose alarms have been raised already."""

    def __init__(self, earlier: Iterable[Mapping[str, Any]] = ()):
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._lowest: float | None = None
        self._first: float | None = None
        self._held: list[float] = []
        self._medians: list[float] = []
        self._on: set[str] = set()
        for line in earlier:
            self.observe(line)

    def observe(self, line: Mapping[str, Any]) -> tuple[Alarm, ...]:
        """Take in a line of the log; returns the alarms that begin or end with it."""
        if EVENT in line:
            return ()
        if STEP in line:
            return tuple(self._stepped(line))
        held = number(line.get(HELD_OUT))
        return () if held is None else tuple(self._looked(held))

    def _stepped(self, line: Mapping[str, Any]) -> Iterable[Alarm]:
        if (loss := number(line.get(STEP))) is None:
            return
        self._losses.append(loss)
        if len(self._losses) < WINDOW:
            return
        median = statistics.median(self._losses)
        self._lowest = median if self._lowest is None else min(median, self._lowest)
        if median > RISEN * self._lowest and "learning rate" not in self._on:
            self._on.add("learning rate")
            yield Alarm(
                "learning rate",
                f"the loss has risen from {self._lowest:.3g} to {median:.3g}: most often optimizer.lr is too high; "
                "lower it 3 to 10 times",
            )
        elif median < 1.1 * self._lowest and "learning rate" in self._on:
            self._on.discard("learning rate")
            yield Alarm("learning rate", "the loss is as low as before", over=True)

    def _looked(self, held: float) -> Iterable[Alarm]:
        self._held.append(held)
        self._medians.append(statistics.median(self._losses) if self._losses else held)
        best = min(range(len(self._held)), key=self._held.__getitem__)
        worse = len(self._held) - 1 - best >= 2 and min(self._held[-2:]) > OVERFITTED * self._held[best]
        if worse and self._medians[-1] < self._medians[best] and "overfitting" not in self._on:
            self._on.add("overfitting")
            yield Alarm(
                "overfitting",
                f"overfitting: the loss of held-out images is {held:.3g}, and was {self._held[best]:.3g}, while that "
                "of training images falls; more images, --flip or a shorter run help",
            )
        elif held < 1.02 * self._held[best] and "overfitting" in self._on:
            self._on.discard("overfitting")
            yield Alarm("overfitting", "the loss of held-out images is as low as before", over=True)
        if self._first is None:
            self._first = held
        if len(self._held) == PATIENCE + 1 and held > NOTHING * self._first:
            self._on.add("no learning")
            yield Alarm(
                "no learning",
                f"the loss of held-out images is {held:.3g} and was {self._first:.3g} at the start: the run learns "
                "nothing; look at optimizer.lr, at the captions and at the images",
            )
        elif "no learning" in self._on and held < 0.9 * self._first:
            self._on.discard("no learning")
            yield Alarm("no learning", f"the run learns: the loss of held-out images is {held:.3g}", over=True)
