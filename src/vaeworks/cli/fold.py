"""The command `fold`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from .console import TERMINAL
from .options import Model, Overwrite, ScaleOf, Target, Told, arg, settings_of


def fold(
    model: Model,
    dst: Target,
    scaling_factor: Annotated[float | None, arg(help="scaling factor that the application hard-codes")] = None,
    shift_factor: Annotated[float, arg(help="shift factor that the application hard-codes")] = 0.0,
    like: Annotated[
        Literal["sd1", "sd2", "sdxl", "sd3", "flux1", "sd-x4-upscaler"] | None,
        arg(name="for", help="published model to take both numbers from"),
    ] = None,
    layout: Annotated[Literal["ldm", "native", "diffusers"], arg(help="layout of DST")] = "ldm",
    scale_of: ScaleOf = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Move the normalization of latents into the weights, for programs that hard-code theirs.

    In Python: `vaeworks.fold`.
    """
    from ..formats.fold import fold as run

    result = run(
        model,
        dst,
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
        like=like,
        layout=layout,
        settings=settings_of(told, scale_of=scale_of),
        overwrite=overwrite,
    )
    TERMINAL.say(
        f"{dst}  {layout}; {result.before} became scaling_factor {result.scaling_factor:g}, shift_factor "
        f"{result.shift_factor:g}"
    )
    if result.added_quant_convs:
        TERMINAL.say(
            "  quant_conv and post_quant_conv were added, because the decoder pads its first convolution with zeros"
        )
    return result.to_dict()
