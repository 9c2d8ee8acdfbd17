"""Which of several models is best in a figure, as far as their intervals can tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..intervals import Interval, bootstrap

Standing = Literal["best", "level", "worse", ""]
"""level: among several whose difference to the highest may be chance; worse: certainly behind the highest; "": not
comparable, or nothing to compare with"""


def paired_standings(values: Sequence[Sequence[float]], lower: bool = False) -> list[Standing]:
    """The standing of every model by its figures on the same images.

    lower: whether less is better. A model is behind where the 95 % interval of the mean paired difference excludes 0.
    Models without a finite figure on every image, and single images, have no standing.
    """
    rows = [np.asarray(each, dtype=np.float64) * (-1 if lower else 1) for each in values]
    count = max((len(row) for row in rows), default=0)
    known = [i for i, row in enumerate(rows) if len(row) == count > 1 and bool(np.isfinite(row).all())]
    if len(known) < 2:
        return [""] * len(rows)
    highest = max(known, key=lambda i: rows[i].mean())
    behind = {i for i in known if i != highest and bootstrap(rows[highest] - rows[i]).low > 0}
    return _standings(len(rows), known, behind)


def interval_standings(intervals: Sequence[Interval | None], lower: bool = False) -> list[Standing]:
    """The standing of every model by its interval alone.

    A model is behind where its interval lies wholly beyond that of the best: then the interval of the difference
    excludes 0, however the two figures are correlated. Models without an interval have no standing.
    """
    sign = -1 if lower else 1
    ends = [None if i is None else sorted((sign * i.low, sign * i.high)) for i in intervals]
    known = [i for i, pair in enumerate(ends) if pair is not None and all(map(math.isfinite, pair))]
    if len(known) < 2:
        return [""] * len(intervals)
    highest = max(known, key=lambda i: sign * intervals[i].value)  # type: ignore[union-attr]
    low = ends[highest][0]  # type: ignore[index]
    behind = {i for i in known if i != highest and ends[i][1] < low}  # type: ignore[index]
    return _standings(len(intervals), known, behind)


def _standings(count: int, known: Sequence[int], behind: set[int]) -> list[Standing]:
    ahead: Standing = "best" if len(known) - len(behind) == 1 else "level"
    return ["" if i not in known else "worse" if i in behind else ahead for i in range(count)]
