"""The command `extract`."""

from __future__ import annotations

from typing import Any

from .console import TERMINAL, print_notes
from .options import Checkpoint, Overwrite, Target, Told, settings_of


def extract(checkpoint: Checkpoint, dst: Target, told: Told = (), overwrite: Overwrite = False) -> dict[str, Any]:
    """Write the VAE of a full checkpoint as its own file, byte for byte.

    In Python: `vaeworks.extract`.
    """
    from ..formats.bake import extract as run

    result = run(checkpoint, dst, settings=settings_of(told), overwrite=overwrite, reporter=TERMINAL)
    TERMINAL.say(f"{result.dst}  {result.tensors} tensors, {result.bytes / 1e6:,.0f} MB")
    print_notes(result.notes)
    return result.to_dict()
