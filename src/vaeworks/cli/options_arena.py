"""Options that `arena` and `arena study` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from ..arena.budget import BUDGETS
from ..config import ArenaConfig
from .options import arg

DEFAULT = ArenaConfig()

Budget = Annotated[
    str,
    arg(
        metavar="IMAGES",
        help=f"training images of each generator: a number, or {', '.join(f'{k} ({v:,})' for k, v in BUDGETS.items())}",
    ),
]
Tokens = Annotated[
    int,
    arg(
        help="tokens per image in the generators, for latents of any size: 16 fits 32 px and f8; 64 or 256 "
        "fit larger images"
    ),
]
Probes = Annotated[
    tuple[str, ...], arg(metavar="SIZE", help="sizes of generators: xs and s for CPUs, b and l for GPUs")
]
Seeds = Annotated[
    int, arg(metavar="N", help="number of generators of each size, each with its own weights, order and noise")
]
Shifts = Annotated[
    tuple[Literal["none", "dimension"], ...],
    arg(help="timestep shifts to try; each latent space keeps the one that scores best in a pilot run"),
]
Samples = Annotated[int, arg(metavar="N", help="images sampled from each generator for every score")]
FeatureSpace = Annotated[
    str,
    arg(
        help="feature space of the distances: classifier (trained on the same images), statistics, inception, "
        "mobilenetv2, a transformers folder"
    ),
]
Weights = Annotated[
    Path | None, arg(metavar="PATH", help="weights of that network; default: from the cache, else fetched")
]
Labels = Annotated[
    str | None,
    arg(metavar="HOW", help="classes of the images: folders, names, none, or a CSV file; default: folders, if any"),
]
Jobs = Annotated[
    int | None, arg(metavar="N", help="generators trained at once; default: one per core, or one on a GPU")
]
Data = Annotated[
    str,
    arg(
        metavar="SRC",
        help="folder of images (class subfolders are labels), procedural[:COUNT[:SIZE]], hf:OWNER/NAME, ... "
        "(docs/data.md)",
    ),
]
