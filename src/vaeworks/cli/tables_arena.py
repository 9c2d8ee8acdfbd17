"""The tables of `arena` and `arena study`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .console import TERMINAL, results

if TYPE_CHECKING:
    from ..arena.results import Distance, Outcome

WIDTH = 130
"""Characters of a table at least: a row that a narrow terminal breaks is easier to read than cells that are broken."""

STYLES = {"better": "green", "worse": "red", "tie": "", "undecided": "dim"}


def print_outcome(outcome: Outcome) -> None:
    """A line per row, and what the arena says of itself."""
    from rich.table import Table
    from rich.text import Text

    from ..arena.page import between, number, shared_reason

    probes = outcome.config.probes
    out = results()
    distances: dict[Distance, str] = {
        "fd_recon": "distance to reconstructions: how well the latents are learned",
        "fd_real": "distance to real images",
    }
    for distance, what in distances.items():
        table = Table(
            "",
            *(f"{p}, interval" for p in probes),
            *(f"{p}, times baseline" for p in probes),
            "verdict",
            "",
            box=None,
            header_style="dim",
            pad_edge=False,
            title=what,
            title_justify="left",
            title_style="bold",
        )
        reason = shared_reason(outcome, distance)
        for row in outcome.rows:
            found = row.comparisons.get(distance)
            figures = row.figures[distance]
            cells = [f"{number(figures[p].value)}  {between(figures[p])}" for p in probes]
            ratios = [
                f"{found.ratios[p].value:.2f}  {between(found.ratios[p])}" if found and p in found.ratios else ""
                for p in probes
            ]
            verdict = Text(found.verdict, style=STYLES[found.verdict]) if found else Text("baseline")
            table.add_row(
                row.entrant.name, *cells, *ratios, verdict, Text(found.why if found and not reason else "", style="dim")
            )
        out.print(table, width=max(out.width, WIDTH))
        if reason:
            out.print(Text(f"The reason, for every row: {reason}.", style="dim"))
        out.print(Text(f"{'. '.join(outcome.controls[distance].sentences)}.\n"), width=max(out.width, WIDTH))
    for line in outcome.failures:
        TERMINAL.warn(f"concludes nothing: {line}")
    for line in outcome.notes:
        TERMINAL.warn(line)
