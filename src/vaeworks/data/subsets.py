"""Some of many images, chosen alike every time."""

from __future__ import annotations

import numpy as np


def some(count: int, most: int) -> np.ndarray:
    """Numbers of at most so many of `count` images, in order, chosen at random and always alike: even spacing may meet
    one class alone."""
    chosen = np.random.Generator(np.random.Philox(count)).permutation(count)[:most]
    return np.sort(chosen)


def spaced(count: int, most: int) -> list[int]:
    """At most `most` of the numbers 0..count-1, evenly spaced."""
    taken = min(most, count)
    return [i * count // taken for i in range(taken)]
