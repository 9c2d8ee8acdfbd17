"""The command `edit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from .console import TERMINAL, console
from .options import Inputs, Memory, Model, Out, Overwrite, Told, settings_of


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
        Literal["mean", "map", "logistic"], arg(help="how the direction is fitted; map: to aligned images")
    ] = "mean",
    size: Annotated[
        int | None, arg(metavar="PX", help="side of the squares that these images become; by default about 256")
    ] = None,
    save_direction: Annotated[Path | None, arg(metavar="FILE", help="file for the direction, .safetensors")] = None,
    strength: Annotated[
        tuple[float, ...],
        arg(help="direction strengths, one output per value; 1: the distance between the two sets' means"),
    ] = (1.0,),
    arithmetic: Annotated[
        str | None, arg(metavar="SUM", help="sum of IN by file name: 'a.png - b.png + 0.5*c.png'")
    ] = None,
    statistics_from: Annotated[
        Path | None, arg(metavar="IMAGE", help="image whose latent statistics the outputs get")
    ] = None,
    statistics: Annotated[
        Literal["channel", "full"], arg(help="mean and spread of every channel, or the whole covariance")
    ] = "channel",
    contrast: Annotated[float, arg(help="contrast factor")] = 1.0,
    brightness: Annotated[float, arg(help="gray levels to add")] = 0.0,
    saturation: Annotated[float, arg(help="saturation factor")] = 1.0,
    channel: Annotated[
        tuple[str, ...],
        arg(
            metavar="C:GAIN:SHIFT",
            help="gain about the mean, and shift in standard deviations, of latent channel C; several in a row",
        ),
    ] = (),
    mask: Annotated[
        Path | None, arg(metavar="MASK", help="image that is white where to edit, or a folder of masks, by name")
    ] = None,
    detail: Annotated[bool, arg(help="add the change to the original, instead of showing the decoded image")] = True,
    memory: Memory = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Change attributes, colours and statistics of images in latent space, or within a mask. (`vaeworks.edit`)

    docs/edit.md
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
    console().print(f"{out / RECORD} has every figure; {out / 'strips'} shows pictures side by side")
    return result.to_dict()
