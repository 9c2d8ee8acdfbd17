"""The command `anomaly`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from .console import TERMINAL, results
from .options import Model, Out, Overwrite, Told, arg, settings_of

if TYPE_CHECKING:
    from ..apps.anomaly.methods import MethodRow
    from ..apps.anomaly.scored import ClassFigures


def anomaly(
    model: Model,
    out: Out,
    normal: Annotated[str | None, arg(metavar="SRC", help="normal images to fit a detector to (docs/data.md)")] = None,
    detector: Annotated[
        Path | None, arg(metavar="FILE", help="detector.safetensors of an earlier call, instead of --normal")
    ] = None,
    test: Annotated[
        str | None, arg(metavar="SRC", help="images to score; those in folders called `good` count as normal")
    ] = None,
    masks: Annotated[
        Path | None, arg(metavar="DIR", help="masks of the anomalous regions, one per test image, by name")
    ] = None,
    labels: Annotated[
        str | None,
        arg(metavar="HOW", help="classes of test images: folders, names, none or a CSV file; `good` is normal"),
    ] = None,
    false_alarms: Annotated[float, arg(help="share of normal images that may be called anomalous, in (0, 1)")] = 0.05,
    held_out: Annotated[float, arg(help="share of the normal images that set the threshold, and are not fitted")] = 0.3,
    size: Annotated[
        int | None,
        arg(metavar="PX", help="side of the middle squares that images become; default: whole images"),
    ] = None,
    evidence: Annotated[
        tuple[Literal["reconstruction", "features", "density"], ...],
        arg(help="kinds of evidence against an image; default: all"),
    ] = (),
    features: Annotated[
        str | None,
        arg(metavar="NET", help="network for `features`: vgg16_conv1to3, vgg16, MODULE:FUNCTION; default: the encoder"),
    ] = None,
    features_weights: Annotated[Path | None, arg(metavar="PATH", help="weights of that network")] = None,
    density: Annotated[
        Literal["position", "shared"], arg(help="Gaussian of the latents: one for each position, or one shared by all")
    ] = "position",
    baselines: Annotated[bool, arg(help="also score methods without an autoencoder on the same images")] = True,
    seed: Annotated[int, arg(help="seed of the split and of resampling")] = 0,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Find images that differ from normal ones, and where, and compare with simple baselines.

    In Python: `vaeworks.detect_anomalies`.
    """
    from ..apps.anomaly.detect import detect_anomalies

    result = detect_anomalies(
        model,
        out,
        normal=normal,
        detector=detector,
        test=test,
        masks=masks,
        labels=labels,
        false_alarms=false_alarms,
        held_out=held_out,
        size=size,
        evidence=evidence,
        features=features,
        features_weights=features_weights,
        density=density,
        baselines=baselines,
        seed=seed,
        settings=settings_of(told),
        overwrite=overwrite,
        reporter=TERMINAL,
    )
    if result.test is not None and result.test.table is not None and result.test.classes is not None:
        _print_methods(result.test.table, result.false_alarms)
        _print_classes(result.test.classes)
    return result.to_dict()


def _print_methods(rows: Sequence[MethodRow], rate: float) -> None:
    """A line per method."""
    from rich.table import Table

    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("", "AUROC"):
        table.add_column(column, no_wrap=True)
    for column in (f"false alarms (of {rate:.0%})", "found", "pixel AUROC", "PRO"):
        table.add_column(column)
    for row in rows:
        places = ("", "") if row.places is None else (f"{row.places.pixel_auroc:.3f}", f"{row.places.pro:.3f}")
        table.add_row(
            row.method,
            "" if row.auroc is None else f"{row.auroc.value:.3f} ({row.auroc.low:.3f}-{row.auroc.high:.3f})",
            *("" if share is None else f"{share.value:.1%}" for share in (row.false_alarms, row.found)),
            *places,
        )
    results().print(table)


def _print_classes(classes: Mapping[str, ClassFigures]) -> None:
    """A line per class."""
    from rich.table import Table

    table = Table("class", "images", "alarms", "AUROC against good", box=None, header_style="dim", pad_edge=False)
    for name, figures in classes.items():
        value = figures.auroc
        auroc = "" if value is None else f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
        table.add_row(name, str(figures.images), f"{figures.alarms.value:.1%}", auroc)
    results().print(table)
