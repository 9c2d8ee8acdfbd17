"""Images that show the same, although their files differ: saved again, in another format, or resized.

Two images are candidates if their looks (16 x 16 gray levels, kept from the scan) differ by little everywhere. They are
duplicates if their details correlate, too, which is measured on their pixels. Only images with alike means of their
four quadrants are compared, so that the work does not grow with the square of their number.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import DataError
from .image_ref import ImageFile, open_place

SIDE = 16
"""Side of a look."""

MEAN, MOST = 3.0, 32
"""Gray levels by which the looks of duplicates differ, on average and at most. A JPEG of quality 50 differs by 1 and 8,
two photographs of one scene by more than 10 on average."""

DETAIL, ALIKE = 64, 0.9
"""Side at which details are compared, and the least correlation of duplicates' details."""

SMALLEST = 48
"""Shorter side in pixels of images that are compared: digits and icons look alike without being the same."""

FLATTEST = 1.0
"""Standard deviation of details of duplicates, in gray levels: flat images are no copies of each other."""

STEP = 2 * MEAN + 2
"""Side of a grid's cell, in gray levels of a quadrant's mean."""

CROWD = 64
"""Neighbours in a crowded bucket that an image is compared with."""


def duplicate_groups(files: Sequence[ImageFile]) -> list[list[int]]:
    """Groups of two or more images that look the same, as numbers of files. Images without a look are in none."""
    numbers = [i for i, f in enumerate(files) if len(f.look) == SIDE**2 and min(f.width, f.height) >= SMALLEST]
    if len(numbers) < 2:
        return []
    looks = np.stack([np.frombuffer(files[i].look, np.uint8) for i in numbers]).astype(np.int16)
    parent = list(range(len(numbers)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    details: dict[int, NDArray[np.float64] | None] = {}

    def detail(i: int) -> NDArray[np.float64] | None:
        if i not in details:
            details[i] = _detail(files[numbers[i]])
        return details[i]

    for i, j in _candidates(looks):
        if root(i) == root(j):
            continue
        difference = np.abs(looks[i] - looks[j])
        if difference.mean() <= MEAN and difference.max() <= MOST:
            a, b = detail(i), detail(j)
            if a is not None and b is not None and float((a * b).sum()) >= ALIKE:
                parent[root(i)] = root(j)
    groups: dict[int, list[int]] = defaultdict(list)
    for i, number in enumerate(numbers):
        groups[root(i)].append(number)
    return [group for group in groups.values() if len(group) > 1]


def without_copies(files: Sequence[ImageFile], others: Sequence[ImageFile]) -> tuple[ImageFile, ...]:
    """The files that are none of the others, by their bytes or by what they look like."""
    known = {other.digest for other in others}
    both = [*files, *others]
    copies = {
        i
        for group in duplicate_groups(both)
        if any(number >= len(files) for number in group)
        for i in group
        if i < len(files)
    }
    return tuple(file for i, file in enumerate(files) if file.digest not in known and i not in copies)


def _detail(file: ImageFile) -> NDArray[np.float64] | None:
    """What an image shows beside its look, as a vector of length one; None where it cannot be read, or is flat."""
    try:
        image = open_place(file.path, 1)
    except DataError:
        return None
    gray = np.asarray(image.resize((DETAIL, DETAIL), Image.Resampling.BOX), np.float64)
    blocks = gray.reshape(SIDE, DETAIL // SIDE, SIDE, DETAIL // SIDE)
    rest = blocks - blocks.mean(axis=(1, 3), keepdims=True)
    return None if rest.std() < FLATTEST else rest / np.linalg.norm(rest)


def _candidates(looks: NDArray[np.int16]) -> Iterator[tuple[int, int]]:
    """Pairs whose four quadrants have about the same means: within STEP / 2, they share a cell of one of 16 grids."""
    means = looks.reshape(-1, 2, SIDE // 2, 2, SIDE // 2).mean(axis=(2, 4)).reshape(-1, 4)
    totals = means.sum(axis=1)
    for offsets in itertools.product((0, STEP / 2), repeat=4):
        buckets: dict[bytes, list[int]] = defaultdict(list)
        for i, cell in enumerate(((means + offsets) // STEP).astype(np.uint8)):
            buckets[cell.tobytes()].append(i)
        for bucket in buckets.values():
            ordered = sorted(bucket, key=lambda i: float(totals[i]))
            for at, i in enumerate(ordered):
                for j in ordered[at + 1 : at + 1 + CROWD]:
                    yield i, j
