"""The command `features`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from ..apps.accuracies import accuracy
from .console import TERMINAL, results
from .options import Data, Labels, Model, Out, Overwrite, Told, arg, settings_of
from .tables_accuracy import accuracy_table

if TYPE_CHECKING:
    from ..apps.features.compare import FeatureComparison


def features(
    model: Model,
    out: Out,
    data: Data = "digits",
    labels: Labels = None,
    counts: Annotated[tuple[int, ...], arg(metavar="N", help="numbers of labels per class")] = (1, 5, 10, 50),
    choices: Annotated[int, arg(help="number of random choices of labels; the intervals are over these choices")] = 10,
    size: Annotated[
        int | None, arg(metavar="PX", help="side of the middle squares that images become; default: about their own")
    ] = None,
    pool: Annotated[
        Literal["none", "mean", "mean-std", "pyramid"], arg(help="pooling of latents over positions")
    ] = "none",
    features: Annotated[
        str | None,
        arg(
            metavar="NET",
            help="pretrained network to compare with: mobilenetv2, inception, MODULE:FUNCTION, ...",
        ),
    ] = None,
    features_weights: Annotated[Path | None, arg(metavar="PATH", help="weights of that network")] = None,
    write: Annotated[
        Literal["safetensors", "npy"] | None,
        arg(help="format in which to write the features too, with names and labels"),
    ] = None,
    seed: Annotated[int, arg(help="seed of the choice of labels and of the classifiers")] = 0,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Compare latents with pixels and PCA as features for classifiers with few labels.

    In Python: `vaeworks.compare_features`.
    """
    from ..apps.features.compare import RECORD, compare_features

    result = compare_features(
        model,
        data,
        out,
        labels=labels,
        counts=counts,
        choices=choices,
        size=size,
        pool=pool,
        features=features,
        features_weights=features_weights,
        write=write,
        seed=seed,
        settings=settings_of(told),
        overwrite=overwrite,
        reporter=TERMINAL,
    )
    _print_rows(result)
    results().print(f"{out / RECORD} has every figure")
    return result.to_dict()


def _print_rows(result: FeatureComparison) -> None:
    """A line per classifier and representation."""
    TERMINAL.say(
        f"{len(result.classes)} classes, {result.tested} test images; always naming the most common one: "
        f"{result.chance:.1%}"
    )
    table = accuracy_table(result.rows[0].accuracy, "", "", "d")
    for row in result.rows:
        cells = [accuracy(interval) for interval in row.accuracy.values()]
        table.add_row(row.classifier, row.representation, str(row.dimensions), *cells)
    results().print(table)
    TERMINAL.detail(f"accuracy, mean of {result.choices} choices of labels, ± half of Student's 95 % interval")
