"""What an alarm is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["posterior collapse", "dead channels", "latent blow-up", "learning rate", "overfitting", "no learning"]


@dataclass(frozen=True)
class Alarm:
    """A trouble that begins or grows, or that is over."""

    kind: Kind
    message: str
    """a sentence: what is seen, what it means, what to do"""
    over: bool = False
