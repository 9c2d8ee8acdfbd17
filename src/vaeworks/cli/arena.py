"""The command `arena`: compare latent spaces by what a diffusion model learns of them."""

from __future__ import annotations

from typing import Annotated, Any

from .console import TERMINAL
from .options import Models, Out, Overwrite, arg
from .options_arena import (
    DEFAULT,
    Budget,
    Data,
    FeatureSpace,
    Jobs,
    Labels,
    Probes,
    Samples,
    Seeds,
    Shifts,
    Tokens,
    Weights,
)
from .tables_arena import print_outcome


def arena(
    model: Models,
    data: Data,
    out: Out,
    budget: Budget = "laptop",
    baseline: Annotated[
        str | None, arg(metavar="MODEL", help="model that the others are compared with; default: the first")
    ] = None,
    size: Annotated[
        int | None,
        arg(metavar="PX", help="side of the squares that images become; default: 32 on a CPU, 64 on a GPU"),
    ] = None,
    tokens: Tokens = DEFAULT.tokens,
    probes: Probes = DEFAULT.probes,
    seeds: Seeds = 2,
    shifts: Shifts = DEFAULT.shifts,
    samples: Samples = DEFAULT.samples,
    features: FeatureSpace = "auto",
    features_weights: Weights = None,
    labels: Labels = None,
    checks: Annotated[bool, arg(help="run the arena's own checks, without which it gives no verdict")] = True,
    jobs: Jobs = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Find out which VAE's latents a diffusion model learns best, with small generators.

    The same call continues after an interruption. See docs/arena.md, and `arena study`.
    In Python: `vaeworks.run_arena`.
    """
    from ..arena.api import run_arena
    from ..arena.page import RECORD, REPORT

    outcome = run_arena(
        model,
        data,
        out,
        budget=budget,
        baseline=baseline,
        size=size,
        tokens=tokens,
        probes=probes,
        seeds=seeds,
        shifts=shifts,
        samples=samples,
        features=features,
        features_weights=features_weights,
        labels=labels,
        checks=checks,
        jobs=jobs,
        overwrite=overwrite,
        reporter=TERMINAL,
    )
    print_outcome(outcome)
    TERMINAL.say(f"{out / REPORT} shows it; {out / RECORD} has every figure")
    return outcome.to_dict()
