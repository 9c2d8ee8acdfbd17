"""Alarms: sentences about trouble in a run's figures, each once until it is over.

An alarm is a function of the log's lines alone: no clock, no file. A resumed run takes in the lines that were kept, and
then raises the alarms of an undisturbed run. The discriminator's supervisor reports whether it wins (balance.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...config import TrainConfig
from .alarm import Alarm
from .log_schema import EVENT
from .watch_curves import HeldOut, LearningRate
from .watch_latents import BlowUp, Collapse


class Alarms:
    """All watches over a run. earlier: lines of the log whose alarms have been raised already."""

    def __init__(self, config: TrainConfig, earlier: Iterable[Mapping[str, Any]] = ()):
        self._watches = (Collapse(config), BlowUp(config), LearningRate(config), HeldOut(config))
        for line in earlier:
            self.observe(line)

    def observe(self, line: Mapping[str, Any]) -> tuple[Alarm, ...]:
        """Take in a line of the log; returns the alarms that begin, grow or end with it."""
        if EVENT in line:
            return ()
        return tuple(alarm for watch in self._watches for alarm in watch.observe(line))
