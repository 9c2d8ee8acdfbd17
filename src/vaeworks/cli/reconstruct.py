"""The command `reconstruct`."""

from __future__ import annotations

from typing import Any

from .console import TERMINAL
from .options import Inputs, Memory, Model, Out, Overwrite, Precision, Told, settings_of


def reconstruct(
    model: Model,
    inputs: Inputs,
    out: Out,
    memory: Memory = None,
    precision: Precision = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Encode and decode images, as PNG files of the same size, and measure the PSNR of each.

    In Python: `vaeworks.reconstruct`.
    """
    from ..latents.reconstruct import reconstruct as run

    return run(
        model,
        inputs,
        out,
        memory=memory,
        precision=precision,
        settings=settings_of(told),
        overwrite=overwrite,
        reporter=TERMINAL,
    ).to_dict()
