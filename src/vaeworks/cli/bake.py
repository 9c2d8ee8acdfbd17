"""The command `bake`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from .console import TERMINAL, print_notes
from .options import Checkpoint, Overwrite, ScaleOf, Target, Told, Vae, arg, dtype_of, settings_of


def bake(
    vae: Vae,
    checkpoint: Checkpoint,
    dst: Target,
    dtype: Annotated[
        Literal["keep", "fp32", "bf16", "fp16"],
        arg(help="dtype of the VAE's weights; keep: that of the VAE which it replaces"),
    ] = "keep",
    scale_of: ScaleOf = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Copy a full checkpoint and replace its VAE; all other tensors keep their bytes.

    In Python: `vaeworks.bake`.
    """
    from ..formats.bake import bake as run

    settings = settings_of(told, scale_of=scale_of)
    result = run(vae, checkpoint, dst, dtype=dtype_of(dtype), settings=settings, overwrite=overwrite, reporter=TERMINAL)
    TERMINAL.say(
        f"{result.dst}  {result.tensors} tensors of the VAE under {result.prefix} in {result.dtype} replace "
        f"{result.replaced}; {result.kept} others are unchanged; {result.bytes / 1e6:,.0f} MB"
    )
    print_notes(result.notes)
    return result.to_dict()
