"""Choose some of many images, with the same choice every time."""

from __future__ import annotations

import numpy as np


def some(count: int, most: int) -> np.ndarray:
    """Indices of at most `most` of `count` images, in order: a random choice with a fixed seed, because even spacing
    may meet one class alone."""
    chosen = np.random.Generator(np.random.Philox(count)).permutation(count)[:most]
    return np.sort(chosen)


def spaced(count: int, most: int) -> list[int]:
    """At most `most` of the indices 0..count-1, evenly spaced."""
    taken = min(most, count)
    return [i * count // taken for i in range(taken)]
