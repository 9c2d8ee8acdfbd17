"""The command `recipes`: list what can be trained."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from ..recipes import RecipeInfo, list_recipes
from .console import results


def recipes() -> list[dict[str, str]]:
    """List what can be trained, and the claim that each recipe tests.

    In Python: `vaeworks.list_recipes`.
    """
    rows = list_recipes()
    for group, members in groupby(rows, key=lambda row: row.group):
        _print_group(group, list(members))
    results().print(
        "NAME-tiny: the same on a network that trains in seconds. Every number is an option: vaeworks train NAME --help"
    )
    return [row.to_dict() for row in rows]


def _print_group(group: str, rows: Sequence[RecipeInfo]) -> None:
    from rich.table import Table
    from rich.text import Text

    head = ("recipe", "model", "purpose and claim")
    table = Table(*head, box=None, header_style="dim", title=group, title_style="bold", title_justify="left")
    for row in rows:
        what = Text(row.purpose)
        if row.claim:
            what.append("\n" + row.claim, style="dim")
        table.add_row(row.recipe, "as the VAE" if group == "fine-tuning" else row.model, what)
    results().print(table, "")
