"""The command `arena study`: train autoencoders that differ in one thing, and compare them in an arena."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional

from ..recipes.studies import STUDIES, StudyScale
from .console import TERMINAL
from .options import arg
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


def arena_study(
    name: Annotated[Positional[str], arg(metavar="NAME", help=f"study: {', '.join(STUDIES)}")],
    data: Data,
    out: Annotated[Path, arg(metavar="DIR", help="folder that studies share; the report is NAME/report.html in it")],
    arms: Annotated[
        tuple[str, ...], arg(metavar="ARM", help="autoencoders to train besides the baseline; default: all")
    ] = (),
    size: Annotated[int, arg(metavar="PX", help="side of images: 32 on a CPU, 64 or 128 on a GPU")] = StudyScale.size,
    channels: Annotated[int, arg(metavar="N", help="width of the autoencoders' first level")] = StudyScale.channels,
    images: Annotated[int, arg(metavar="N", help="training images of each autoencoder")] = StudyScale.images,
    vae_seeds: Annotated[
        int, arg(metavar="N", help="number of trainings of each autoencoder, with different seeds")
    ] = 2,
    budget: Budget = "laptop",
    tokens: Tokens = DEFAULT.tokens,
    probes: Probes = DEFAULT.probes,
    seeds: Seeds = 2,
    shifts: Shifts = DEFAULT.shifts,
    samples: Samples = DEFAULT.samples,
    features: FeatureSpace = "auto",
    features_weights: Weights = None,
    labels: Labels = None,
    jobs: Jobs = None,
) -> dict[str, Any]:
    """Train autoencoders that differ in one thing, and compare them in an arena.

    The same call continues after an interruption. See docs/arena.md.
    In Python: `vaeworks.run_study`.
    """
    from ..arena.api import run_study
    from ..arena.page import REPORT, STUDY_RECORD

    result = run_study(
        name,
        data,
        out,
        arms=arms,
        size=size,
        channels=channels,
        images=images,
        vae_seeds=vae_seeds,
        budget=budget,
        tokens=tokens,
        probes=probes,
        seeds=seeds,
        shifts=shifts,
        samples=samples,
        features=features,
        features_weights=features_weights,
        labels=labels,
        jobs=jobs,
        reporter=TERMINAL,
    )
    print_outcome(result.outcome)
    TERMINAL.say(f"{out / name / REPORT} shows it; {out / name / STUDY_RECORD} has every figure")
    return result.to_dict()
