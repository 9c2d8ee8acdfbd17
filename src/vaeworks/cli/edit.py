"""The command `edit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from .console import TERMINAL, results
from .options import Inputs, Memory, Model, Out, Overwrite, Told, arg, settings_of


def edit(
    model: Model,
    inputs: Inputs,
    out: Out,
    direction: Annotated[
        str | None,
        arg(
            metavar="WITH:WITHOUT",
            help="attribute to add: sources of images with it and without it, or a .safetensors file of a direction",
        ),
    ] = None,
    kind: Annotated[
        Literal["mean", "map", "logistic"], arg(help="method that fits the direction; map: for aligned images")
    ] = "mean",
    size: Annotated[
        int | None,
        arg(metavar="PX", help="side of the squares that the images of --direction become; default: about 256"),
    ] = None,
    save_direction: Annotated[
        Path | None, arg(metavar="FILE", help="file to write the fitted direction to (.safetensors)")
    ] = None,
    strength: Annotated[
        tuple[float, ...],
        arg(help="direction strengths, one output per value; 1: the distance between the two sets' means"),
    ] = (1.0,),
    arithmetic: Annotated[
        str | None, arg(metavar="SUM", help="sum of the inputs, by file name: 'a.png - b.png + 0.5*c.png'")
    ] = None,
    statistics_from: Annotated[
        Path | None, arg(metavar="IMAGE", help="image with the latent statistics to copy to the inputs")
    ] = None,
    statistics: Annotated[
        Literal["channel", "full"],
        arg(help="statistics to copy; channel: mean and standard deviation of each; full: mean and covariance"),
    ] = "channel",
    contrast: Annotated[float, arg(help="contrast factor")] = 1.0,
    brightness: Annotated[float, arg(help="gray levels to add")] = 0.0,
    saturation: Annotated[float, arg(help="saturation factor")] = 1.0,
    channel: Annotated[
        tuple[str, ...],
        arg(
            metavar="C:GAIN:SHIFT",
            help="gain about the mean and shift in standard deviations of latent channel C; one or more",
        ),
    ] = (),
    mask: Annotated[
        Path | None,
        arg(
            metavar="MASK",
            help="image that is white where edits apply, or a folder with a mask for each input, by name",
        ),
    ] = None,
    detail: Annotated[bool, arg(help="add the change to the original, instead of writing the decoded image")] = True,
    memory: Memory = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Change attributes, colours and statistics of images in latent space, or within a mask.

    See docs/edit.md.
    In Python: `vaeworks.edit`.
    """
    from ..apps.editing.edit import RECORD
    from ..apps.editing.edit import edit as run

    result = run(
        model,
        inputs,
        out,
        direction=direction,
        kind=kind,
        size=size,
        save_direction=save_direction,
        strength=strength,
        arithmetic=arithmetic,
        statistics_from=statistics_from,
        statistics=statistics,
        contrast=contrast,
        brightness=brightness,
        saturation=saturation,
        channel=channel,
        mask=mask,
        detail=detail,
        memory=memory,
        settings=settings_of(told),
        overwrite=overwrite,
        reporter=TERMINAL,
    )
    results().print(f"{out / RECORD} has every figure; {out / 'strips'} shows pictures side by side")
    return result.to_dict()
