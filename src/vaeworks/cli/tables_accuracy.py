"""Tables of accuracies by the number of labels per class, for `features` and `augment`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def accuracy_table(counts: Iterable[int], *columns: str, beside: str | None = None) -> Table:
    """A table with `columns` and one for each number of labels. beside: heading of a second one for each."""
    from rich.table import Table

    table = Table(*columns, box=None, header_style="dim", pad_edge=False)
    for count in counts:
        table.add_column(f"{count} a class", justify="right")
        if beside is not None:
            table.add_column(beside, justify="right")
    return table
