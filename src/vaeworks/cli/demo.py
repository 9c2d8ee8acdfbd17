"""The command `demo`: every part of the work once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from .console import TERMINAL
from .options import Out


def demo(
    out: Out = Path("out/demo"),
    minutes: Annotated[float, arg(help="longest training time")] = 4.0,
    overwrite: Annotated[bool, arg(aliases=("--force",), help="replace an earlier demo in the same folder")] = False,
) -> dict[str, Any]:
    """Everything once, small and offline: train, evaluate, export, paint, and one page that shows it.

    In Python: `vaeworks.run_demo`.
    """
    from ..demo import run_demo

    result = run_demo(out, minutes, overwrite, TERMINAL)
    TERMINAL.say("")
    TERMINAL.say(f"{out / 'report.html'} shows it all; {out / 'report.json'} has every figure")
    return result.to_dict()
