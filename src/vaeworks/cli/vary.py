"""The command `vary`."""

from __future__ import annotations

from typing import Annotated, Any

from .console import TERMINAL
from .options import Inputs, Memory, Model, Out, Overwrite, Precision, Told, arg, settings_of


def vary(
    model: Model,
    inputs: Inputs,
    out: Out,
    count: Annotated[int, arg(help="number of variants of each image")] = 8,
    temperature: Annotated[float, arg(help="factor of the posterior's standard deviation")] = 1.0,
    noise: Annotated[
        float | None,
        arg(
            help="noise in standard deviations of the latent channels, instead of the posterior's; default: 0.2 "
            "for models without a posterior"
        ),
    ] = None,
    walk: Annotated[bool, arg(help="write a walk around each image as a GIF, instead of variants")] = False,
    steps: Annotated[int, arg(help="images of a walk")] = 32,
    seed: Annotated[int, arg(help="random seed of the noise")] = 0,
    memory: Memory = None,
    precision: Precision = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Make variants of images by sampling their posteriors, and measure how much they differ.

    In Python: `vaeworks.vary`.
    """
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
