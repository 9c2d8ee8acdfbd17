"""The type of an alarm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["posterior collapse", "dead channels", "latent blow-up", "learning rate", "overfitting", "no learning"]


@dataclass(frozen=True)
class Alarm:
    """Trouble that begins, grows, or is over."""

    kind: Kind
    message: str
    """a sentence: observation, meaning, remedy"""
    over: bool = False
