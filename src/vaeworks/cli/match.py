"""The command `match`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional

from .console import TERMINAL
from .options import Checkpoint, Overwrite, Told, arg, settings_of


def match(
    checkpoint: Checkpoint,
    vaes: Annotated[
        Positional[tuple[str, ...]],
        arg(metavar="VAE", help="candidates, or a folder of them to rank; default: judge the checkpoint's own alone"),
    ] = (),
    out: Annotated[
        Path | None,
        arg(metavar="PNG", help="comparison image to write: original, correct decode, decode with this VAE"),
    ] = None,
    data: Annotated[str | None, arg(metavar="SRC", help="photographs to decode; default: four bundled ones")] = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Judge which VAE fits a checkpoint, and whether its own is missing, broken or foggy.

    In Python: `vaeworks.match`.
    """
    from ..doctor.compatibility.match import match as run

    result = run(checkpoint, vaes, data, out=out, settings=settings_of(told), overwrite=overwrite, reporter=TERMINAL)
    for sentence in result.sentences():
        TERMINAL.say(sentence)
    if out is not None and result.picture is None:
        TERMINAL.warn("no picture was written, because nothing could be decoded")
    elif out is not None:
        TERMINAL.say(str(out))
    return result.to_dict()
