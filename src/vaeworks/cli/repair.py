"""The command `repair`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from .console import TERMINAL, print_notes, print_support
from .options import DType, Model, Overwrite, ScaleOf, Target, Told, arg, dtype_of, settings_of


def repair(
    model: Model,
    dst: Target,
    purpose: Annotated[
        Literal["fp16"], arg(name="for", help="goal; fp16: activations that stay finite in float16")
    ] = "fp16",
    layout: Annotated[
        Literal["native", "ldm", "diffusers", "taesd"] | None, arg(help="layout of DST; default: the source's")
    ] = None,
    dtype: DType = "keep",
    headroom: Annotated[float, arg(help="factor by which activations may exceed the measured ones")] = 4.0,
    data: Annotated[str | None, arg(metavar="SRC", help="images to measure on; default: bundled photographs")] = None,
    scale_of: ScaleOf = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Rescale a VAE that gives black images in float16, without training, and measure the error.

    In Python: `vaeworks.repair`.
    """
    from ..runtime import repair as run

    result = run(
        model,
        dst,
        layout=layout,
        dtype=dtype_of(dtype),
        headroom=headroom,
        data=data,
        settings=settings_of(told, scale_of=scale_of),
        overwrite=overwrite,
        reporter=TERMINAL,
    )
    for sentence in result.result.sentences():
        TERMINAL.say(sentence)
    unchanged = "" if result.result.needed else ", unchanged, because nothing overflows"
    TERMINAL.say(f"{dst}  {result.layout}{unchanged}")
    print_notes(result.notes)
    print_support(result.support)
    return result.to_dict()
