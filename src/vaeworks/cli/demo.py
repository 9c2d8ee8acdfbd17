"""The command `demo`: every part of the work once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from .console import TERMINAL
from .options import Out, arg


def demo(
    out: Out = Path("out/demo"),
    minutes: Annotated[float, arg(name="max-minutes", help="longest training time in minutes")] = 4.0,
    overwrite: Annotated[bool, arg(aliases=("--force",), help="replace an earlier demo in the same folder")] = False,
) -> dict[str, Any]:
    """Train, evaluate, export and paint with a small VAE, offline, and write a page that shows it all.

    In Python: `vaeworks.run_demo`.
    """
    from ..demo import run_demo

    result = run_demo(out, minutes, overwrite, TERMINAL)
    TERMINAL.say("")
    TERMINAL.say(f"{out / 'report.html'} shows it all; {out / 'report.json'} has every figure")
    return result.to_dict()
