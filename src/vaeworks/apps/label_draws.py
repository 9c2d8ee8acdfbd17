"""Which images a study with few labels knows the classes of, and how certain a mean over such choices is."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..errors import ConfigError, DataError
from ..metrics.bootstrap import Interval

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Draws:
    """A test half, and images of the other one whose labels are known, chosen several times."""

    classes: tuple[str, ...]
    targets: NDArray[np.int64]
    """number of the class: n, of all images"""
    test: Rows
    labelled: tuple[Mapping[int, Rows], ...]
    """for every choice, by count per class; of one choice, larger counts contain smaller ones"""
    chance: float
    """share of the test half's most common class: what always naming it would have right"""


def draw_labels(pixels: Tensor, labels: Sequence[str] | None, counts: Sequence[int], choices: int, seed: int = 0) -> Draws:
    """The test half, and `choices` choices of labels with each of `counts` images a class.

    pixels: uint8 n c h w. Images go to the halves by hashes of their pixels, within each class, so that equal images stay together, and
    the halves do not depend on the images' order.
    Errors: ConfigError for counts or choices below 1; DataError without two classes, or with too few images in one.
    """
    if not counts or min(counts) < 1 or choices < 1:
        raise ConfigError(f"counts (={tuple(counts)}) and choices of labels (={choices}) must be at least 1")
    if labels is None:
        raise DataError("the images have no labels; --labels takes folders, names or a CSV file of file names and classes")
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise DataError(f"all images are of one class, {classes[0]!r}; a classifier needs at least two")
    targets = np.array([classes.index(label) for label in labels])
    digests = np.array([hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in pixels])
    test, pools = [], []
    for number, name in enumerate(classes):
        mine = np.flatnonzero(targets == number)
        mine = mine[np.argsort(digests[mine], kind="stable")]
        held_out = digests[mine] < digests[mine[len(mine) // 2]]
        test.append(mine[held_out])
        pools.append(mine[~held_out])
        if len(pools[-1]) < max(counts) or not held_out.any():
            raise DataError(
                f"class {name!r} has {len(mine)} images, {len(pools[-1])} beside its test half; {max(counts)} labels of a class need "
                f"about {2 * max(counts)}: give fewer with --counts"
            )
    labelled = tuple({count: _some(pools, count, (seed, choice)) for count in sorted(set(counts))} for choice in range(choices))
    tested = np.sort(np.concatenate(test))
    return Draws(classes, targets, tested, labelled, float(np.bincount(targets[tested]).max() / len(tested)))


def _some(pools: Sequence[Rows], count: int, key: tuple[int, int]) -> Rows:
    """So many images of each class; the first of a permutation, so that more contain fewer."""
    return np.concatenate([pool[np.random.default_rng([*key, number]).permutation(len(pool))[:count]] for number, pool in enumerate(pools)])


def student(values: ArrayLike) -> Interval:
    """Mean over choices, with Student's 95 % interval; of one choice its ends are nan.

    It says how much the choice of labels (and the seed of training) changes the mean; the test images are the same in all of them.
    """
    from scipy.stats import t

    x: NDArray[Any] = np.asarray(values, dtype=np.float64)
    mean = float(x.mean())
    if len(x) < 2:
        return Interval(mean, math.nan, math.nan)
    width = float(t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return Interval(mean, mean - width, mean + width)
