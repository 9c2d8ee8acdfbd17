"""The command that judges reconstructions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from ..config import dumps
from ..data.inputs import data_source
from ..errors import ConfigError, DataError, FormatError, MissingExtraError
from ..files.outputs import check_free, make_folder
from .console import TERMINAL, bar, console
from .exit_status import FailOnTriggered
from .judging_show import print_comparisons, print_evaluation, print_evaluations
from .options import Data, Models, Overwrite, Told
from .paths import placed

if TYPE_CHECKING:
    from ..data import ImageFile, ImageSet
    from ..losses.perceptual import LPIPS
    from ..metrics import Evaluation
    from ..models import Autoencoder

RECORD, GALLERY, REPORT = "eval.json", "gallery.png", "report.html"


def evaluate(
    models: Models,
    data: Data,
    out: Annotated[Path | None, arg(metavar="DIR", help="for eval.json, gallery.png and report.html")] = None,
    against: Annotated[
        tuple[Path, ...], arg(metavar="JSON", help="earlier eval.json to tabulate as well, if measured alike")
    ] = (),
    limit: Annotated[int, arg(help="longest side of the central crop that is judged, in pixels")] = 512,
    resize: Annotated[
        int | None,
        arg(metavar="PX", help="resize the shorter side before the crop; by default pixels stay as they are"),
    ] = None,
    kernel: Annotated[str, arg(help="of --resize: lanczos, bicubic, bilinear or box, Pillow's")] = "lanczos",
    multiple: Annotated[
        int | None, arg(metavar="PX", help="crop to multiples of this; by default the models' common factor")
    ] = None,
    sample: Annotated[
        int | None, arg(metavar="SEED", help="judge a sample of the posterior instead of its mode")
    ] = None,
    features: Annotated[
        str,
        arg(
            help="for distances of sets: statistics (no network), inception (FID), mobilenetv2, a transformers folder, "
            "hf:OWNER/NAME, off"
        ),
    ] = "statistics",
    features_weights: Annotated[
        Path | None, arg(metavar="PATH", help="the network's weights; by default from the cache, or fetched")
    ] = None,
    lpips: Annotated[
        str,
        arg(
            metavar="HOW", help="auto (where weights are in the cache), fetch, off, or a folder with weights and heads"
        ),
    ] = "auto",
    legibility: Annotated[bool, arg(help="also measure how small rendered text may be, and edges")] = True,
    speed: Annotated[bool, arg(help="also measure throughput and peak memory")] = False,
    speed_size: Annotated[int, arg(metavar="PX", help="side of --speed's images")] = 256,
    speed_batch: Annotated[int, arg(metavar="N", help="images of --speed's batch")] = 1,
    val_fraction: Annotated[
        float | None, arg(help="judge only the files that a run with this data.val-fraction held out")
    ] = None,
    include_training: Annotated[bool, arg(help="judge also the files that the runs in MODEL were trained on")] = False,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """How faithful VAEs are: PSNR to legibility, with intervals and baselines. Several models: paired differences."""
    from ..data import scan
    from ..metrics import load_features

    if not models:
        raise ConfigError("no MODEL is given: vaeworks eval MODEL --data SRC")
    if out is not None:
        check_free(out, (RECORD, GALLERY, REPORT), overwrite)
    earlier = [e for path in against for e in read_evaluations(path)]
    _check_alike(earlier)
    vaes = [placed(model, told) for model in models]
    crop_multiple = _multiple(models, vaes, multiple)
    images = scan(data_source(data, reporter=TERMINAL))
    files = _unseen(models, images, data, val_fraction, include_training)
    space = None if features == "off" else load_features(features, features_weights, vaes[0].device, _say)
    distance, why = _lpips(lpips)
    options: dict[str, Any] = {
        "limit": limit,
        "multiple": crop_multiple,
        "resize": resize,
        "kernel": kernel,
        "seed": sample,
        "features": space,
        "lpips": distance and distance.to(vaes[0].device),
        "no_lpips": why,
    }
    found = []
    for name, vae in zip(_names(models), vaes, strict=True):
        found.append(
            _judged(name, vae, files, images, options, legibility, (speed_size, speed_batch) if speed else None)
        )
    try:
        _check_alike([*found, *earlier])
    except (
        ConfigError
    ):  # known only now, because it depends on which images could be read; what was measured is not lost
        _shown(out, found, found, vaes, files, options, overwrite)
        raise
    values = _shown(out, found, [*found, *earlier], vaes, files, options, overwrite)
    dead = {e.name: count for e in found if (count := sum(not score.finite for score in e.scores))}
    if dead:
        remedy = "`vaeworks repair` mends what overflows in float16"
        raise FailOnTriggered(
            values,
            [
                f"{name}: its output is not finite (NaN or infinite) for {n:,} images; {remedy}"
                for name, n in dead.items()
            ],
        )
    return values


def _check_alike(evaluations: Sequence[Evaluation]) -> None:
    """Errors: ConfigError for unlike protocols, naming what differs."""
    from ..metrics.comparison import titles
    from ..metrics.protocol import check_alike

    check_alike({title: e.protocol for title, e in zip(titles(evaluations), evaluations, strict=True)})


def _shown(
    out: Path | None,
    found: Sequence[Evaluation],
    everything: Sequence[Evaluation],
    vaes: Sequence[Autoencoder],
    files: tuple[ImageFile, ...],
    options: dict[str, Any],
    overwrite: bool,
) -> dict[str, Any]:
    """Print, and write where a folder is given; everything: with what was measured earlier."""
    from ..metrics import compare

    comparisons = compare(everything) if len(everything) > 1 else ()
    if len(everything) == 1:
        print_evaluation(found[0])
    else:
        print_evaluations(everything)
        print_comparisons(comparisons)
    values = _values(everything, comparisons)
    if out is not None:
        _write(out, values, found, everything, comparisons, vaes, files, options, overwrite)
    return values


def read_evaluations(path: Path) -> list[Evaluation]:
    """What an eval.json holds, of one model or of several.

    Errors: ConfigError for a file that holds none.
    """
    from ..metrics import Evaluation

    try:
        values = json.loads((path / RECORD if path.is_dir() else path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is no eval.json: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is no eval.json, but a list or a value")
    try:
        several = values.get("models", [values])
        if not isinstance(several, list) or not several or not all(isinstance(v, dict) for v in several):
            raise ConfigError("holds no results; give an eval.json that `vaeworks eval --out` wrote")
        found = [Evaluation.from_dict(v) for v in several]
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return [dataclasses.replace(e, name=e.name or path.parent.name) for e in found]


def _say(line: str) -> None:
    console().print(line, style="dim")


def _multiple(models: Sequence[str], vaes: Sequence[Autoencoder], asked: int | None) -> int:
    """Of which all models' crops are multiples.

    Errors: ConfigError for models that do not take the same images.
    """
    import math

    channels = [vae.config.in_channels for vae in vaes]
    if odd := next((i for i, c in enumerate(channels) if c != channels[0]), None):
        raise ConfigError(
            f"{models[0]} takes images of {channels[0]} channels and {models[odd]} of {channels[odd]}, so no image "
            "suits both; judge each alone"
        )
    common = math.lcm(*(vae.downsample_factor for vae in vaes))
    if asked is not None and asked % common:
        raise ConfigError(f"multiple (={asked}) must be a multiple of {common}, the models' common downsample_factor")
    return asked or common


def _names(models: Sequence[str]) -> list[str]:
    """A short name for each: the file's or folder's, with as many parents as make them differ."""
    parts = [
        [p for p in Path(m.removeprefix("hf:")).parts if p not in ("/", ".", "run", "model.safetensors")] or [m]
        for m in models
    ]
    names = list(models)
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            break
    return names


def _unseen(
    models: Iterable[str], images: ImageSet, data: str, val_fraction: float | None, include_training: bool
) -> tuple[ImageFile, ...]:
    """The images that none of the models was trained on."""
    from ..data.trained_on import trained_on

    if val_fraction is not None:
        _, images = images.split(val_fraction)
    seen = [] if include_training else [trained_on(Path(model)) for model in models]
    files = tuple(file for file in images.files if not any(file.digest in digests for digests in seen))
    if not files:
        why = (
            f"held out at val-fraction {val_fraction}"
            if val_fraction is not None
            else "unseen by this run; --include-training judges it"
        )
        raise DataError(f"no file of {data!r} is {why}")
    if left_out := len(images.files) - len(files):
        console().print(
            f"{left_out:,} images left out, because this run was (if streamed: may have been) trained on them; see "
            "--include-training"
        )
    return files


def _lpips(how: str) -> tuple[LPIPS | None, str]:
    """LPIPS with AlexNet, as figures have it; or why it is not measured.

    Errors: FormatError for weights that were asked for and are not there.
    """
    from ..features.weights import is_here, load_lpips

    if how == "off":
        return None, "LPIPS: not measured, because --lpips off was given"
    if how == "auto" and not is_here("alexnet"):
        return (
            None,
            "LPIPS: not measured, because AlexNet's weights and LPIPS's heads are not in the cache; --lpips fetch, or "
            "a folder",
        )
    if how in ("auto", "fetch"):
        return load_lpips("alexnet", say=_say), ""
    if not Path(how).exists():
        raise FormatError(
            f"lpips (={how}) must be auto, fetch, off, or a folder that holds AlexNet's weights and LPIPS's heads"
        )
    return load_lpips("alexnet", path=how), ""


def _judged(
    name: str,
    vae: Autoencoder,
    files: tuple[ImageFile, ...],
    images: ImageSet,
    options: dict[str, Any],
    text: bool,
    speed: tuple[int, int] | None,
) -> Evaluation:
    from ..metrics import evaluate as judge
    from ..metrics.legibility import legibility
    from ..metrics.throughput import throughput

    result = judge(vae, files, name=name, progress=bar(f"{name}: evaluating"), **options)
    return dataclasses.replace(
        result,
        skipped=(*images.skipped, *result.skipped),
        legibility=legibility(vae, progress=bar(f"{name}: reading text")) if text else None,
        speed=throughput(vae, *speed) if speed else None,
    )


def _values(everything: Sequence[Evaluation], comparisons: Sequence[Any]) -> dict[str, Any]:
    """One document: an evaluation, or several with their comparisons."""
    if len(everything) == 1:
        return everything[0].to_dict()
    paired = [{**dataclasses.asdict(c), "verdict": c.verdict} for c in comparisons]
    return {"schema": everything[0].to_dict()["schema"], "models": [e.to_dict() for e in everything], "paired": paired}


def _write(
    out: Path,
    values: dict[str, Any],
    found: Sequence[Evaluation],
    everything: Sequence[Evaluation],
    comparisons: Sequence[Any],
    vaes: Sequence[Autoencoder],
    files: tuple[ImageFile, ...],
    options: dict[str, Any],
    overwrite: bool,
) -> None:
    from ..files.atomic import write_picture, write_text
    from ..metrics.crop import Crop
    from ..metrics.gallery import chosen, gallery, sheet
    from ..pages.eval_page import write_report

    make_folder(out)
    crop = Crop(options["multiple"], options["limit"], options["resize"], options["kernel"])
    picks = chosen(found[0])
    shots = []
    for vae, evaluation in zip(vaes, found, strict=True):
        by_path = {score.path: score for score in evaluation.scores}  # the same images of every model
        alike = tuple((rank, by_path[score.path]) for rank, score in picks)
        shots.append(gallery(vae, evaluation, files, crop, options["seed"], alike))
    write_picture(out / GALLERY, sheet(tuple(shot for rows in zip(*shots, strict=True) for shot in rows)), overwrite)
    write_text(out / RECORD, dumps(values) + "\n", overwrite)
    console().print(f"{out / RECORD}, {out / GALLERY} (original, reconstruction, difference x 4)")
    try:
        write_report(out / REPORT, everything, comparisons, shots, overwrite)
    except MissingExtraError as error:
        console().print(f"no {REPORT}: {error}", style="yellow")
        return
    console().print(f"{out / REPORT} shows it all")
