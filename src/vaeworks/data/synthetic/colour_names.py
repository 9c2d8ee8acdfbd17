"""Words for colours."""

from __future__ import annotations

import numpy as np

from .letters import Array

NAMES: dict[str, tuple[int, int, int]] = {
    "red": (210, 40, 40), "orange": (240, 140, 40), "yellow": (235, 215, 60), "green": (60, 160, 60),
    "turquoise": (60, 200, 195), "blue": (50, 70, 205), "purple": (140, 50, 170), "pink": (240, 140, 190),
    "brown": (120, 75, 40), "gray": (128, 128, 128), "white": (240, 240, 240), "black": (20, 20, 20),
}  # fmt: skip
"""RGB, 0 to 255."""

PLACES = np.array(list(NAMES.values()), dtype=np.float64) / 255

WEIGHTS = np.sqrt(np.array([2.0, 4.0, 3.0]) / 9)


def distance(a: Array, b: Array) -> Array:
    """Euclidean distance of colours ... 3 in [0,1], with red, green and blue weighted 2:4:3; 1 from black to white."""
    return np.sqrt((((a - b) * WEIGHTS) ** 2).sum(-1))


def colour_name(colour: Array) -> str:
    """The nearest name of a colour 3 in [0,1]."""
    return list(NAMES)[int(distance(PLACES, colour).argmin())]
