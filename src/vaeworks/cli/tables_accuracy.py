"""Tables of accuracies by the number of labels per class, for `features` and `augment`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from ..intervals import Interval


def accuracy_table(counts: Iterable[int], *columns: str, beside: str | None = None) -> Table:
    """A table with `columns` and one for each number of labels. beside: heading of a second one for each."""
    from rich.table import Table

    table = Table(*columns, box=None, header_style="dim", pad_edge=False)
    for count in counts:
        table.add_column(f"{count} a class", justify="right")
        if beside is not None:
            table.add_column(beside, justify="right")
    return table


def accuracy(interval: Interval) -> str:
    """A share in percent, with half of its interval."""
    width = (interval.high - interval.low) / 2
    return f"{interval.value:.1%}" + (f" ± {width:.1%}" if width == width else "")


def difference(interval: Interval) -> str:
    """A difference in percentage points, and whether the interval leaves 0 out."""
    width = (interval.high - interval.low) / 2
    verdict = "helps" if interval.low > 0 else "harms" if interval.high < 0 else "undecided"
    return f"{interval.value * 100:+.1f}" + (f" ± {width * 100:.1f}" if width == width else "") + f" {verdict}"
