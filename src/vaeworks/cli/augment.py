"""The command `augment`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from ..apps.accuracies import accuracy, difference
from ..errors import ConfigError
from .console import TERMINAL, results
from .options import Data, Labels, Memory, Model, Overwrite, Precision, Told, arg, settings_of
from .tables_accuracy import accuracy_table

if TYPE_CHECKING:
    from ..apps.augmentation.augment import AugmentationJudgement, AugmentedFolder


def augment(
    model: Model,
    data: Data,
    out: Annotated[Path | None, arg(metavar="DIR", help="output folder; optional with --judge")] = None,
    per_image: Annotated[int, arg(help="number of variants of each image")] = 4,
    how: Annotated[
        Literal["noise", "interpolate", "mixup"],
        arg(
            help="method; noise: sample the posterior; interpolate: move towards an image of the same "
            "class; mixup: towards "
            "one of another class, with a soft label"
        ),
    ] = "noise",
    labels: Labels = None,
    temperature: Annotated[float, arg(help="factor of the noise's standard deviation")] = 1.0,
    noise: Annotated[
        float | None,
        arg(
            help="noise in standard deviations of the latent channels, instead of the posterior's; "
            "default: 0.2 for models "
            "without a posterior"
        ),
    ] = None,
    alpha: Annotated[float, arg(help="parameter of Beta(alpha, alpha), which mixup draws its weights from")] = 0.4,
    judge: Annotated[
        bool, arg(help="write no images: train classifiers with and without them, and compare their accuracies")
    ] = False,
    counts: Annotated[tuple[int, ...], arg(metavar="N", help="--judge: numbers of labels per class")] = (5, 20),
    choices: Annotated[int, arg(help="--judge: number of random choices of labels")] = 5,
    size: Annotated[
        int | None,
        arg(
            metavar="PX",
            help="--judge: side of the middle squares that images become; default: about their own, at most 256",
        ),
    ] = None,
    flip: Annotated[bool, arg(help="--judge: also mirror images; wrong for digits and letters")] = False,
    seed: Annotated[int, arg(help="random seed")] = 0,
    memory: Memory = None,
    precision: Precision = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Make new training images from labelled ones, or judge whether a classifier gains by them.

    In Python: `vaeworks.augment`, `vaeworks.judge_augmentation`.
    """
    from ..apps.augmentation.augment import augment as run
    from ..apps.augmentation.augment import judge_augmentation
    from ..apps.labelled_images import check_seed_and_size

    check_seed_and_size(seed, size)
    shared: dict[str, Any] = {
        "per_image": per_image,
        "labels": labels,
        "temperature": temperature,
        "noise": noise,
        "alpha": alpha,
        "seed": seed,
        "settings": settings_of(told),
        "overwrite": overwrite,
        "reporter": TERMINAL,
    }
    if judge:
        judgement = judge_augmentation(model, data, out, counts=counts, choices=choices, size=size, flip=flip, **shared)
        _print_arms(judgement)
        return judgement.to_dict()
    if out is None:
        raise ConfigError("--out DIR is missing: the folder for the new images")
    result = run(model, data, out, how=how, memory=memory, precision=precision, **shared)
    _print_folder(result)
    return result.to_dict()


def _print_folder(result: AugmentedFolder) -> None:
    kept = f", {result.kept} of them were there already" if result.kept else ""
    TERMINAL.say(
        f"{result.out}: {result.variants} images in {result.classes} folders{kept}; {result.rows} says what each is "
        "made of"
    )


def _print_arms(judgement: AugmentationJudgement) -> None:
    """A line per way to make training images: accuracy, and the difference to copies."""
    copies, *_ = arms = judgement.rows
    table = accuracy_table(copies.accuracy, "", beside="against copies")
    for arm in arms:
        cells = [
            (accuracy(arm.accuracy[n]), "" if arm is copies else difference(arm.gain[n]))
            if n in arm.accuracy
            else ("", "")
            for n in copies.accuracy
        ]
        table.add_row(arm.name, *(cell for pair in cells for cell in pair))
    results().print(table)
    TERMINAL.detail(
        f"accuracy of a small CNN, mean of {judgement.choices} choices of labels and seeds, ± half of Student's 95 % "
        f"interval; always naming the most common of {len(judgement.classes)} classes: {judgement.chance:.1%}"
    )
    if 1 in copies.accuracy:
        TERMINAL.detail("a single image of a class has no other to interpolate to: with 1 label there is no such arm")
