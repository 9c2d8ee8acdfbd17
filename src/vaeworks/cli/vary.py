"""The command `vary`."""

from __future__ import annotations

from typing import Annotated, Any

from tyro.conf import arg

from .console import TERMINAL
from .options import Inputs, Memory, Model, Out, Overwrite, Precision, Told, settings_of


def vary(
    model: Model,
    inputs: Inputs,
    out: Out,
    count: Annotated[int, arg(help="variants of each image")] = 8,
    temperature: Annotated[float, arg(help="factor of the posterior's standard deviation")] = 1.0,
    noise: Annotated[
        float | None,
        arg(
            help="noise in standard deviations of the latent channels, in place of the posterior's; by default 0.2 "
            "where latents are points"
        ),
    ] = None,
    walk: Annotated[bool, arg(help="write a walk around each image as a GIF, in place of variants")] = False,
    steps: Annotated[int, arg(help="pictures of a walk")] = 32,
    seed: Annotated[int, arg(help="random seed of the noise")] = 0,
    memory: Memory = None,
    precision: Precision = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Sample each image's posterior and measure how much the variants differ, or walk around it. (`vaeworks.vary`)"""
    from ..apps.generation.vary import vary as run

    return run(
        model,
        inputs,
        out,
        count=count,
        temperature=temperature,
        noise=noise,
        walk=walk,
        steps=steps,
        seed=seed,
        memory=memory,
        precision=precision,
        settings=settings_of(told),
        overwrite=overwrite,
        reporter=TERMINAL,
    ).to_dict()
