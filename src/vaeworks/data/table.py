"""Write CSV tables. This is the only place that does, so that no cell is a formula.

Spreadsheet programs compute cells that begin like a formula, and a file or a class may have the name
`=HYPERLINK(...)`. Such text gets an apostrophe in front, as OWASP advises ("CSV Injection"); numbers stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

FORMULA = re.compile(r"\s*[=+\-@\t\r\n＝＋－＠]")
"""Beginnings of text that programs compute."""

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)", re.ASCII)

APART = re.compile(r"[,;|\"\t\r\n]")
"""Separators of cells in various programs; cells with one are quoted."""


def table(rows: Iterable[Sequence[object]]) -> str:
    """Rows as text, one line each; None is an empty cell."""
    return "".join(",".join(map(_cell, row)) + "\n" for row in rows)


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    if FORMULA.match(text) and not NUMBER.fullmatch(text):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if APART.search(text) else text


def plain(cell: str) -> str:
    """A cell's text without the apostrophe that `table` put in front."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell[1:]) else cell
