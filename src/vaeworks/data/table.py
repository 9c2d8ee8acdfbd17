"""Tables of comma-separated values: the only place where they are written, so that no cell of them is a formula.

Programs that show tables compute what begins like a formula, and a file or a class may be called `=HYPERLINK(...)`.
Such text gets an apostrophe in front, as OWASP advises ("CSV Injection"); numbers stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

FORMULA = re.compile(r"\s*[=+\-@\t\r\n＝＋－＠]")
"""What text begins with that is computed."""

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)", re.ASCII)

APART = re.compile(r"[,;|\"\t\r\n]")
"""What keeps cells apart in one program or another, so that what holds it stands in quotes."""


def table(rows: Iterable[Sequence[object]]) -> str:
    """Rows as text, a line for each; None is an empty cell."""
    return "".join(",".join(map(_cell, row)) + "\n" for row in rows)


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    if FORMULA.match(text) and not NUMBER.fullmatch(text):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if APART.search(text) else text


def plain(cell: str) -> str:
    """A cell's text without the apostrophe that `table` has given it."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell[1:]) else cell
