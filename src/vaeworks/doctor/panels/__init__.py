"""The panels of the doctor by name; equally bad findings keep this order on the page."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from ..finding import Finding
from ..subject import Subject

Panel = Callable[[Subject], Finding]

TITLES = {
    "fidelity": "Fidelity: colour, place, sharpness and tone",
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
"""Titles by the names in --panels and report.json. Each panel has a module of its name with a function
`examine(subject)`."""


def panel(name: str) -> Panel:
    """The function of a panel; its module is imported here, when it is needed."""
    function: Panel = importlib.import_module(f".{name}", __package__).examine
    return function
