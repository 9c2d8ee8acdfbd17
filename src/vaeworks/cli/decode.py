"""The command `decode`."""

from __future__ import annotations

from typing import Any

from .console import TERMINAL
from .options import Inputs, Memory, Model, Out, Overwrite, Precision, Told, Verify, settings_of


def decode(
    model: Model,
    inputs: Inputs,
    out: Out,
    memory: Memory = None,
    precision: Precision = None,
    verify: Verify = False,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Decode latents (files or shards) to PNG files of any size within a memory limit.

    See docs/runtime.md.
    In Python: `vaeworks.decode`.
    """
    from ..latents.decode_files import decode as run

    return run(
        model,
        inputs,
        out,
        memory=memory,
        precision=precision,
        verify=verify,
        settings=settings_of(told),
        overwrite=overwrite,
        reporter=TERMINAL,
    ).to_dict()
