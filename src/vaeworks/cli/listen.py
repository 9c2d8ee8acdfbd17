"""The command `listen`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional

from .console import TERMINAL, results
from .options import Memory, Model, Out, Overwrite, Precision, Told, arg, settings_of

if TYPE_CHECKING:
    from ..apps.audio.listen import SoundMeans


def listen(
    model: Model,
    inputs: Annotated[
        Positional[tuple[str, ...]],
        arg(metavar="IN", help="one or more sound files or folders, or made[:COUNT[:SEED]] (synthetic sounds)"),
    ],
    out: Out,
    iterations: Annotated[int, arg(metavar="N", help="number of iterations of Griffin-Lim")] = 64,
    seed: Annotated[int, arg(help="seed of the phase that Griffin-Lim starts from")] = 0,
    memory: Memory = None,
    precision: Precision = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Send sounds through a VAE of spectrograms, and compare them with what a perfect VAE gives.

    In Python: `vaeworks.listen`.
    """
    from ..apps.audio import listen as run

    result = run(
        model,
        inputs,
        out,
        iterations=iterations,
        seed=seed,
        memory=memory,
        precision=precision,
        settings=settings_of(told),
        overwrite=overwrite,
        reporter=TERMINAL,
    )
    _print_means(result.classes)
    results().print(
        f"{out} has every sound's files: original, original-griffin-lim (the ceiling), reconstruction, spectrograms"
    )
    return result.to_dict()


def _print_means(classes: Mapping[str, SoundMeans]) -> None:
    """A line per class."""
    from rich.table import Table

    from ..apps.audio.listen import COLUMNS

    table = Table("", "sounds", *COLUMNS.values(), box=None, header_style="dim", pad_edge=False)
    for name, row in classes.items():
        values = [row.means[key] for key in COLUMNS]
        table.add_row(name, str(row.sounds), *("" if v is None or v != v else f"{v:.2f}" for v in values))
    results().print(table)
