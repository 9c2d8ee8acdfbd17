"""The command `convert`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from .console import TERMINAL, print_notes, print_support
from .options import DType, Model, Overwrite, ScaleOf, Target, Told, arg, dtype_of, settings_of


def convert(
    src: Model,
    dst: Target,
    layout: Annotated[
        Literal["diffusers", "ldm", "native", "taesd"], arg(help="layout of DST; diffusers: a folder; others: one file")
    ],
    dtype: DType = "keep",
    scale_of: ScaleOf = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Write a VAE in another layout without loss, and name the settings that the layout cannot hold.

    In Python: `vaeworks.convert`.
    """
    from ..formats.convert import convert as run

    settings = settings_of(told, scale_of=scale_of)
    result = run(src, dst, layout, dtype=dtype_of(dtype), settings=settings, overwrite=overwrite)
    content = "as before" if result.same_content else f"rounded from {result.source_hash}"
    TERMINAL.say(f"{dst}  {layout}, {result.name}, content {result.content_hash}, {content}")
    print_notes(result.notes)
    print_support(result.support)
    return result.to_dict()
