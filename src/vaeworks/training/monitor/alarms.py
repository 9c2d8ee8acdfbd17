"""Alarms: what a run's figures say about trouble, in plain words, each once until it has passed.

An alarm is a function of the log's lines alone: no clock, no file. A run that goes on feeds the lines that were kept,
and then decides what the undisturbed run would have decided. Whether the discriminator wins is its supervisor's to say
(balance.py).
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
    """All watches over a run. earlier: the lines of the log so far, whose alarms have been raised already."""

    def __init__(self, config: TrainConfig, earlier: Iterable[Mapping[str, Any]] = ()):
        self._watches = (Collapse(config), BlowUp(config), LearningRate(config), HeldOut(config))
        for line in earlier:
            self.observe(line)

    def observe(self, line: Mapping[str, Any]) -> tuple[Alarm, ...]:
        """Take in a line of the log; returns the alarms that begin, grow or are over with it."""
        if EVENT in line:
            return ()
        return tuple(alarm for watch in self._watches for alarm in watch.observe(line))
