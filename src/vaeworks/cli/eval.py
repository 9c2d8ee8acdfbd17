"""The command `eval`: judge reconstructions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from .console import TERMINAL
from .exit_status import FailOnTriggered
from .options import Data, Models, Overwrite, Told, arg, settings_of
from .tables_eval import print_result


def evaluate(
    models: Models,
    data: Data,
    out: Annotated[Path | None, arg(metavar="DIR", help="folder for eval.json, gallery.png and report.html")] = None,
    against: Annotated[
        tuple[Path, ...], arg(metavar="JSON", help="eval.json files of earlier calls to compare with")
    ] = (),
    limit: Annotated[int, arg(help="longest side of the central crop that is evaluated, in pixels")] = 512,
    resize: Annotated[
        int | None,
        arg(metavar="PX", help="resize the shorter side to this before the crop; default: do not resize"),
    ] = None,
    kernel: Annotated[str, arg(help="filter of --resize: lanczos, bicubic, bilinear or box")] = "lanczos",
    multiple: Annotated[
        int | None, arg(metavar="PX", help="crop to multiples of this; default: the models' common downsample factor")
    ] = None,
    sample: Annotated[
        int | None, arg(metavar="SEED", help="seed: evaluate a sample of the posterior instead of its mode")
    ] = None,
    features: Annotated[
        str,
        arg(
            help="feature space for distances between sets: statistics (no network), inception (FID), mobilenetv2, a "
            "transformers folder, hf:OWNER/NAME, off"
        ),
    ] = "statistics",
    features_weights: Annotated[
        Path | None, arg(metavar="PATH", help="weights of that network; default: from the cache, else fetched")
    ] = None,
    lpips: Annotated[
        str,
        arg(
            metavar="HOW", help="LPIPS: auto (if its weights are in the cache), fetch, off, or a folder of its weights"
        ),
    ] = "auto",
    legibility: Annotated[bool, arg(help="also measure the smallest legible text, and edges")] = True,
    speed: Annotated[bool, arg(help="also measure throughput and peak memory")] = False,
    speed_size: Annotated[int, arg(metavar="PX", help="side of the images for --speed")] = 256,
    speed_batch: Annotated[int, arg(metavar="N", help="images in a batch for --speed")] = 1,
    val_fraction: Annotated[
        float | None, arg(help="share of files: evaluate only those that a run with this data.val-fraction held out")
    ] = None,
    include_training: Annotated[bool, arg(help="also evaluate images that the runs in MODEL were trained on")] = False,
    pca_data: Annotated[
        str | None,
        arg(
            metavar="SRC",
            help="images to fit the PCA baseline on; default: those of --data that the runs were trained on, else the "
            "other half of --data",
        ),
    ] = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Measure how faithfully VAEs reconstruct images, with intervals and baselines; compare several.

    Several models are compared by paired differences. See docs/eval.md.
    In Python: `vaeworks.evaluate_models`.
    """
    from ..metrics import evaluate_models
    from ..metrics.results import UnlikeEvaluationsError

    try:
        result = evaluate_models(
            models,
            data,
            limit=limit,
            multiple=multiple,
            resize=resize,
            kernel=kernel,
            seed=sample,
            features=features,
            features_weights=features_weights,
            lpips=lpips,
            legibility=legibility,
            speed=(speed_size, speed_batch) if speed else None,
            val_fraction=val_fraction,
            include_training=include_training,
            pca_data=pca_data,
            against=against,
            out=out,
            settings=settings_of(told),
            overwrite=overwrite,
            reporter=TERMINAL,
        )
    except UnlikeEvaluationsError as error:
        print_result(error.result)
        raise
    print_result(result)
    if result.failures:
        raise FailOnTriggered(result.to_dict(), result.failures)
    return result.to_dict()
