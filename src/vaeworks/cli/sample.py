"""The command `sample`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from .console import TERMINAL, results
from .options import Model, Out, Overwrite, Told, arg, settings_of

if TYPE_CHECKING:
    from ..apps.generation.sampling import SampledSet


def sample(
    model: Model,
    out: Out,
    count: Annotated[int, arg(help="number of images")] = 64,
    source: Annotated[
        Literal["prior", "gaussian", "mixture", "flow"],
        arg(
            name="from",
            help="density to sample; prior: the standard normal; gaussian, mixture, flow: fitted to "
            "the latents of --data",
        ),
    ] = "prior",
    data: Annotated[
        str | None, arg(metavar="SRC", help="images to fit the density to and to score the samples with (docs/data.md)")
    ] = None,
    labels: Annotated[
        str | None,
        arg(metavar="HOW", help="classes of the images: folders, names, none, or a CSV file; default: folders, if any"),
    ] = None,
    size: Annotated[
        int | None, arg(metavar="PX", help="side of the samples; default: about that of the data's images")
    ] = None,
    components: Annotated[int, arg(help="number of Gaussians of --from mixture")] = 10,
    map: Annotated[
        bool, arg(help="also draw a map of the latent space, for models whose latents are two numbers")
    ] = False,
    seed: Annotated[int, arg(help="random seed")] = 0,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Sample the prior, or a density fitted to a data set's latents, and score the samples.

    In Python: `vaeworks.sample`.
    """
    from ..apps.generation.sample import sample as run

    result = run(
        model,
        out,
        count=count,
        source=source,
        data=data,
        labels=labels,
        size=size,
        components=components,
        map=map,
        seed=seed,
        settings=settings_of(told),
        overwrite=overwrite,
        reporter=TERMINAL,
    )
    _print_sampled(result.found)
    drawn = f"; {out / 'map.png'}" if map else ""
    results().print(f"{out / 'samples.png'}: {len(result.found.pixels)} pictures of {result.size} px{drawn}")
    return result.to_dict()


def _print_sampled(found: SampledSet) -> None:
    """A row for each metric, a column for the samples and for each baseline."""
    from rich.table import Table

    from ..apps.generation.sample import METRICS

    results().print(found.stated)
    if found.figures is None:
        return
    table = Table("", *found.figures, box=None, header_style="dim")
    for name, (field, form) in METRICS.items():
        values = [getattr(likeness, field) for likeness in found.figures.values()]
        if None not in values:
            table.add_row(name, *(f"{value:{form}}" for value in values))
    results().print(table)
    results().print(found.features or "", style="dim")
