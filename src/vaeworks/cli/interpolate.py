"""The command `interpolate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional

from .console import TERMINAL, results
from .options import Memory, Model, Out, Overwrite, Precision, Told, arg, settings_of

if TYPE_CHECKING:
    from ..apps.generation.interpolate import Interpolation


def interpolate(
    model: Model,
    inputs: Annotated[
        Positional[tuple[str, ...]], arg(metavar="IMAGE", help="two or more files, or folders of them, in order")
    ],
    out: Out,
    path: Annotated[
        Literal["linear", "spherical", "posterior"],
        arg(help="path between latents; spherical: about the origin; posterior: weighted by the posteriors' precision"),
    ] = "linear",
    steps: Annotated[int, arg(help="number of steps from each image to the next")] = 8,
    video: Annotated[Literal["gif", "mp4"], arg(help="format of the film; mp4 needs ffmpeg")] = "gif",
    memory: Memory = None,
    precision: Precision = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Interpolate between images in latent space, and compare the path with a cross-fade.

    It writes a strip, frames and a film.
    In Python: `vaeworks.interpolate`.
    """
    from ..apps.generation.interpolate import interpolate as run

    found = run(
        model,
        inputs,
        steps,
        path,
        out=out,
        video=video,
        memory=memory,
        precision=precision,
        settings=settings_of(told),
        overwrite=overwrite,
        reporter=TERMINAL,
    )
    _print_path(found)
    return found.to_dict()


def _print_path(found: Interpolation) -> None:
    """A line for each frame, and one for each segment."""
    from rich.table import Table

    columns = {
        "norm": "norm",
        "(independent)": "norm_independent",
        "E(D(z)) - z": "recon",
        "(fade)": "recon_fade",
        "contrast": "contrast",
        "(fade) ": "contrast_fade",
        "ghost": "ghost",
    }
    table = Table("at", *map(str.strip, columns), box=None, header_style="dim")
    for frame in found.frames:
        at = f"{frame.segment + frame.t:.2f}"
        table.add_row(at, *(f"{getattr(frame, field):.3f}" for field in columns.values()))
    results().print(table)
    for sentence in found.segments:
        results().print(sentence)
