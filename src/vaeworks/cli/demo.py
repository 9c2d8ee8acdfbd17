"""The command `demo`: every part of the work once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from .console import TERMINAL
from .options import Out, arg


def demo(
    out: Out = Path("out/demo"),
    minutes: Annotated[float, arg(name="max-minutes", help="longest training time of the VAE, in minutes")] = 4.0,
    paint_minutes: Annotated[float, arg(help="longest training time of the denoiser, in minutes")] = 3.0,
    skip: Annotated[tuple[Literal["paint"], ...], arg(help="part to leave out: paint, the denoiser's training")] = (),
    seed: Annotated[int, arg(help="seed of both trainings")] = 0,
    overwrite: Annotated[bool, arg(aliases=("--force",), help="replace an earlier demo in the same folder")] = False,
) -> dict[str, Any]:
    """Train a small VAE and a denoiser for it, evaluate, export and paint, offline, and write a page.

    In Python: `vaeworks.run_demo`.
    """
    from ..demo import run_demo

    result = run_demo(out, minutes, overwrite, TERMINAL, paint_minutes=paint_minutes, skip=skip, seed=seed)
    TERMINAL.say("")
    TERMINAL.say(f"{out / 'report.html'} shows it all; {out / 'report.json'} has every figure")
    return result.to_dict()
