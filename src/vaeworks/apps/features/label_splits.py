"""Choose the labelled images and the test half of a study with few labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...errors import ConfigError, DataError
from ..codes import first_half, pixel_digests

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Draws:
    """A test half, and several choices of labelled images from the other half."""

    classes: tuple[str, ...]
    targets: NDArray[np.int64]
    """class numbers of all images: n"""
    test: Rows
    labelled: tuple[Mapping[int, Rows], ...]
    """for every choice, labelled images by count per class; within a choice, larger counts contain smaller ones"""
    chance: float
    """share of the most common class in the test half: the accuracy of always naming it"""


def draw_labels(
    pixels: Tensor, labels: Sequence[str] | None, counts: Sequence[int], choices: int, seed: int = 0
) -> Draws:
    """Split off the test half, and choose labelled images `choices` times, with each of `counts` images per class.

    pixels: uint8 n c h w. Hashes of the pixels divide each class, so that equal images stay together and the halves do
    not depend on the order of images.
    Errors: those of `check_labels`; DataError where a half has too few images of a class because many are equal.
    """
    check_labels(labels, counts, choices)
    assert labels is not None
    classes = tuple(sorted(set(labels)))
    targets = np.array([classes.index(label) for label in labels])
    digests = np.array(pixel_digests(pixels))
    test, pools = [], []
    for number, name in enumerate(classes):
        mine = np.flatnonzero(targets == number)
        mine = mine[np.argsort(digests[mine], kind="stable")]
        held_out = first_half(digests[mine])
        test.append(mine[held_out])
        pools.append(mine[~held_out])
        _check_pool(name, len(mine), len(pools[-1]) if held_out.any() else 0, max(counts))
    labelled = tuple(
        {count: _some(pools, count, (seed, choice)) for count in sorted(set(counts))} for choice in range(choices)
    )
    tested = np.sort(np.concatenate(test))
    return Draws(classes, targets, tested, labelled, float(np.bincount(targets[tested]).max() / len(tested)))


def check_labels(labels: Sequence[str] | None, counts: Sequence[int], choices: int) -> None:
    """Check labels before any image is read.

    Errors: ConfigError for counts or choices below 1; DataError without two classes, or with too few images in one.
    """
    if not counts or min(counts) < 1 or choices < 1:
        raise ConfigError(f"counts (={tuple(counts)}) and choices of labels (={choices}) must be at least 1")
    if labels is None:
        raise DataError(
            "the images have no labels; --labels takes folders, names or a CSV file of file names and classes"
        )
    if len(found := Counter(labels)) < 2:
        raise DataError(f"all images are of one class, {labels[0]!r}; a classifier needs at least two")
    for name, count in sorted(found.items()):
        _check_pool(name, count, count - count // 2 if count > 1 else 0, max(counts))


def _check_pool(name: str, images: int, beside: int, count: int) -> None:
    if beside < count:
        raise DataError(
            f"class {name!r} has {images} images, {beside} beside its test half; {count} labels of a class need about "
            f"{2 * count}: give fewer with --counts"
        )


def _some(pools: Sequence[Rows], count: int, key: tuple[int, int]) -> Rows:
    """`count` images of each class: the first of a permutation, so that larger counts contain smaller ones."""
    return np.concatenate(
        [
            pool[np.random.default_rng([*key, number]).permutation(len(pool))[:count]]
            for number, pool in enumerate(pools)
        ]
    )
