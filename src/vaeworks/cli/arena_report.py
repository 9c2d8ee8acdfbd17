"""The command `arena report`: judge six claims by finished studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional

from .console import TERMINAL
from .options import arg


def arena_report(
    folder: Annotated[Positional[Path], arg(metavar="DIR", help="folder that `arena study --out` has filled")],
    out: Annotated[Path, arg(metavar="DIR", help="folder for six-claims.md, and for its plots in images/")],
) -> dict[str, Any]:
    """Judge six claims about the SD VAE by finished studies, and write a page of tables and plots.

    In Python: `vaeworks.report_claims`.
    """
    from ..arena.api import report_claims

    report = report_claims(folder, out)
    for claim in report.claims:
        TERMINAL.say(f"{claim.standing}: {claim.said}")
    TERMINAL.say(f"{report.page} has the figures")
    return report.to_dict()
