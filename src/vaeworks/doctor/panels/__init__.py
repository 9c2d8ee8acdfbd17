"""All panels of the doctor, by name, in the order in which equally bad findings stand on the page."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from ..finding import Finding
from ..subject import Subject

Panel = Callable[[Subject], Finding]

TITLES = {
    "fog": "Fog: washed-out or tinted pictures",
    "precision": "Half precision: black images",
    "collapse": "Collapse: channels that carry nothing",
    "scale": "Scale and shape of the latents",
    "smuggling": "Smuggling: latents that act far away",
    "noise": "Noise and smoothness",
    "tiling": "Tiling: what applications' tiles do",
    "spectrum": "Spectrum of the latents",
    "equivariance": "Equivariance: small, turned, mirrored, shifted",
    "semantics": "Semantics and structure",
}
"""By the names that --panels and report.json know. Each has a module of its name with a function `examine(subject)`."""


def panel(name: str) -> Panel:
    """The function of a panel; its module is imported only now."""
    function: Panel = importlib.import_module(f".{name}", __package__).examine
    return function
