"""The evaluation of models on images: how faithful their reconstructions are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..arguments import several
from ..data import ImageFile, ImageSet
from ..data.duplicates import without_copies
from ..data.inputs import Images, image_set
from ..errors import ConfigError, DataError, FormatError
from ..features.weights import is_here, load_lpips
from ..files.outputs import check_free
from ..formats.shared_weights import in_memory
from ..losses.perceptual import LPIPS
from ..models import Autoencoder
from ..random_streams import check_seed
from ..reporting import SILENT, Reporter
from ..runtime.opening import Model, name_of, open_model
from .crop import Crop
from .evaluation import Evaluation
from .feature_spaces import Features, load_features
from .gallery import Shot, chosen, gallery
from .legibility import legibility as measure_legibility
from .measure import NO_LPIPS, check_judged, measure
from .results import (
    GALLERY,
    RECORD,
    REPORT,
    Evaluations,
    UnlikeEvaluationsError,
    check_evaluations_alike,
    combined,
    read_evaluations,
    write_evaluations,
)
from .throughput import throughput


def evaluate(
    model: Model,
    data: Images,
    *,
    limit: int | None = 512,
    multiple: int | None = None,
    resize: int | None = None,
    kernel: str = "lanczos",
    seed: int | None = None,
    features: Features | str | None = None,
    features_weights: str | Path | None = None,
    lpips: LPIPS | str | None = None,
    no_lpips: str = NO_LPIPS,
    legibility: bool = False,
    speed: tuple[int, int] | None = None,
    val_fraction: float | None = None,
    include_training: bool = False,
    pca_data: Images | None = None,
    name: str = "",
    settings: Mapping[str, Any] | None = None,
    reporter: Reporter = SILENT,
) -> Evaluation:
    """Measure how faithfully a model reconstructs images, beside baselines without a network.

    >>> vw.evaluate("runs/dogs", "photos").psnr
    31.2

    model: an Autoencoder, or the path or hub id of one. data: a source of images (docs/data.md), or what
    `vaeworks.data.scan` found. Images that the model was trained on, as far as its file or run folder says, are left
    out, unless include_training is on.
    val_fraction: only the images that a run with this data.val_fraction holds out.
    pca_data: images that the PCA baseline is fitted on. None: the images of `data` that the model was trained on;
    without any, each half of the judged images is coded by components of the other half.
    limit: longest side of the central crop that is judged, in pixels; None: whole images. multiple: the crop's sides
    are multiples of this, by default of the downsample factor. resize: length in pixels to which the shorter side is
    resized before the crop, by `kernel`, one of Pillow's filters; None: not at all.
    seed: None judges the posterior's mode, a number a sample. features: the space of the distances between sets, by a
    name that `load_features` takes, with `features_weights`; None or "off": no distances. lpips: an LPIPS network;
    "auto" (where its weights are in the cache), "fetch", or a folder of weights; None or "off": not measured, which
    `no_lpips` explains. legibility: measure rendered text and edges, too. speed: (pixels of a side, images of a batch)
    at which throughput and memory are measured.
    name: the result's title. settings: facts that the model's file leaves out, as keywords of `load`.
    Errors: ConfigError for settings that break a rule; DataError where no image can be used; FormatError for missing
    weights. Several models: `evaluate_models`.
    """
    _check_seed_and_share(seed, val_fraction)
    autoencoder = open_model(model, settings)
    check_judged(autoencoder.config)
    crop = Crop(_common_multiple([model], [autoencoder], multiple), limit, resize, kernel)
    images = image_set(data, reporter)
    files, trained = _unseen([name or name_of(model)], [autoencoder], images, val_fraction, include_training, reporter)
    space = _features(features, features_weights, autoencoder.device, reporter)
    distance, why = _lpips(lpips, no_lpips, autoencoder.device, reporter)
    found = measure(
        autoencoder,
        files,
        crop,
        seed=seed,
        features=space,
        lpips=distance,
        no_lpips=why,
        name=name,
        pca_data=trained if pca_data is None else image_set(pca_data, reporter),
        reporter=reporter,
    )
    return dataclasses.replace(
        found,
        skipped=(*images.skipped, *found.skipped),
        legibility=measure_legibility(autoencoder, progress=_reading(reporter, name)) if legibility else None,
        speed=throughput(autoencoder, *speed) if speed else None,
    )


def evaluate_models(
    models: Sequence[Model],
    data: Images,
    *,
    limit: int | None = 512,
    multiple: int | None = None,
    resize: int | None = None,
    kernel: str = "lanczos",
    seed: int | None = None,
    features: Features | str | None = "statistics",
    features_weights: str | Path | None = None,
    lpips: LPIPS | str | None = "auto",
    legibility: bool = True,
    speed: tuple[int, int] | None = None,
    val_fraction: float | None = None,
    include_training: bool = False,
    pca_data: Images | None = None,
    against: Sequence[str | Path] = (),
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> Evaluations:
    """Evaluate one or more models on the same pixels, with paired differences against the first: `vaeworks eval`.

    >>> vw.evaluate_models(["sd.safetensors", "runs/dogs"], "photos").paired[0].verdict
    'better'

    models, data and what is measured: as in `evaluate`; multiple is by default the models' common downsample factor,
    and images that any of the models was trained on are left out. against: earlier eval.json files, which join the
    comparison if they were measured alike. out: folder for eval.json, gallery.png and report.html; overwrite: replace
    them.
    Errors: those of `evaluate`; ConfigError for models that take unlike images, and where `out` holds results;
    UnlikeEvaluationsError for earlier results of another protocol, after everything was measured and written.
    """
    models, against = several(models), several(against)
    if not models:
        raise ConfigError("no MODEL is given: vaeworks eval MODEL --data SRC")
    _check_seed_and_share(seed, val_fraction)
    folder = None if out is None else Path(out)
    if folder is not None:
        check_free(folder, (RECORD, GALLERY, REPORT), overwrite)
    earlier = [e for path in against for e in read_evaluations(path)]
    check_evaluations_alike(earlier)
    titles, vaes = _titles(models), [open_model(model, settings) for model in models]
    for model, vae in zip(models, vaes, strict=True):
        check_judged(vae.config, name_of(model))
    crop = Crop(_common_multiple(models, vaes, multiple), limit, resize, kernel)
    images = image_set(data, reporter)
    files, trained = _unseen(titles, vaes, images, val_fraction, include_training, reporter)
    images = dataclasses.replace(images, files=files)
    fitted_on = trained if pca_data is None else image_set(pca_data, reporter)
    device = vaes[0].device
    space = _features(features, features_weights, device, reporter)
    distance, why = _lpips(lpips, NO_LPIPS, device, reporter)
    measured = [
        evaluate(
            vae,
            images,
            limit=limit,
            multiple=crop.multiple,
            resize=resize,
            kernel=kernel,
            seed=seed,
            features=space,
            lpips=distance,
            no_lpips=why,
            legibility=legibility,
            speed=speed,
            include_training=True,  # what was to be left out is left out
            pca_data=fitted_on,
            name=title,
            reporter=reporter,
        )
        for title, vae in zip(titles, vaes, strict=True)
    ]
    try:
        check_evaluations_alike([*measured, *earlier])
        unlike = None
    except ConfigError as error:  # known only now, because the protocol names the images that could be read
        unlike, earlier = error, []
    result = combined(measured, earlier)
    if folder is not None:
        galleries = _galleries(vaes, measured, images.files, crop, seed)
        result = write_evaluations(folder, result, galleries, overwrite, reporter)
    if unlike is not None:
        raise UnlikeEvaluationsError(str(unlike), result)
    return result


def _check_seed_and_share(seed: int | None, val_fraction: float | None) -> None:
    """Errors: ConfigError for a negative seed, and for a share that a run cannot hold out."""
    if seed is not None:
        check_seed(seed)
    if val_fraction is not None and not 0 <= val_fraction < 1:
        raise ConfigError(f"val_fraction (={val_fraction}) must be in [0, 1)")


def _common_multiple(models: Sequence[Model], vaes: Sequence[Autoencoder], multiple: int | None) -> int:
    """The number of which the sides of all models' crops are multiples.

    Errors: ConfigError for models that do not take the same images.
    """
    channels = [vae.config.in_channels for vae in vaes]
    if odd := next((i for i, c in enumerate(channels) if c != channels[0]), None):
        raise ConfigError(
            f"{name_of(models[0])} takes images of {channels[0]} channels and {name_of(models[odd])} of "
            f"{channels[odd]}, so no image suits both; judge each alone"
        )
    common = math.lcm(*(vae.downsample_factor for vae in vaes))
    if multiple is not None and (multiple < 1 or multiple % common):
        whose = "the models' common downsample_factor" if len(vaes) > 1 else "the model's downsample_factor"
        raise ConfigError(f"multiple (={multiple}) must be a multiple of {common}, {whose}")
    return multiple or common


def _titles(models: Sequence[Model]) -> list[str]:
    """A title for each path: its last part, with as many parents as make them differ; "" for an autoencoder."""
    paths = [str(model) if in_memory(model) is None else "" for model in models]
    parts = [
        [p for p in Path(path.removeprefix("hf:")).parts if p not in ("/", ".", "run", "model.safetensors")] or [path]
        for path in paths
    ]
    titles = paths
    for depth in range(1, max(map(len, parts)) + 1):
        titles = ["/".join(part[-depth:]) for part in parts]
        if len(set(titles)) == len(titles):
            break
    return titles


def _unseen(
    names: Sequence[str],
    vaes: Sequence[Autoencoder],
    images: ImageSet,
    val_fraction: float | None,
    include_training: bool,
    reporter: Reporter,
) -> tuple[tuple[ImageFile, ...], ImageSet | None]:
    """The images that none of the models was trained on; and those that one was, for the PCA, if there are any.

    Errors: DataError where all were trained on.
    """
    trained: tuple[ImageFile, ...] = ()
    if val_fraction is not None:
        held_in, images = images.split(val_fraction)
        trained = held_in.files
    seen = [] if include_training else [vae.trained_on for vae in vaes]
    files = tuple(f for f in images.files if not any(known is not None and f.digest in known for known in seen))
    if not files:
        why = (
            f"held out at val-fraction {val_fraction}"
            if val_fraction is not None
            else "new to the model: it was trained on all; --include-training judges them"
        )
        raise DataError(f"no file of {images.source!r} is {why}")
    if left_out := len(images.files) - len(files):
        reporter.warn(
            f"{left_out:,} images left out, because the model was (if streamed: may have been) trained on them; see "
            "--include-training"
        )
        judged = {file.digest for file in files}
        trained += tuple(file for file in images.files if file.digest not in judged)
    if not include_training and trained and len(new := without_copies(files, trained)) < len(files):
        copies = len(files) - len(new)
        reporter.say(f"{copies:,} images left out, because they look like training images (saved again?)")
        files = new
    for name, known in zip(names, seen, strict=False):
        if known is None:
            reporter.detail(f"{name} does not say which images it was trained on, so none is left out for it")
        elif known.unlisted:
            reporter.warn(
                f"{name} was trained on {known.unlisted:,} images that its file does not list, so they are not left out"
            )
    return files, ImageSet("the training images", trained) if trained else None


def _features(
    asked: Features | str | None, weights: str | Path | None, device: torch.device, reporter: Reporter
) -> Features | None:
    if not isinstance(asked, str):
        return asked
    return None if asked == "off" else load_features(asked, weights, device, reporter.detail)


def _lpips(
    asked: LPIPS | str | None, why_not: str, device: torch.device, reporter: Reporter
) -> tuple[LPIPS | None, str]:
    """LPIPS with AlexNet, as published figures have it; or why it is not measured.

    Errors: FormatError for weights that were asked for and are missing.
    """
    if not isinstance(asked, str):
        return asked, why_not
    if asked == "off":
        return None, "LPIPS: not measured, because --lpips off was given"
    if asked == "auto" and not is_here("alexnet"):
        return (
            None,
            "LPIPS: not measured, because AlexNet's weights and LPIPS's heads are not in the cache; --lpips fetch, or "
            "a folder",
        )
    if asked in ("auto", "fetch"):
        return load_lpips("alexnet", say=reporter.detail).to(device), ""
    if not Path(asked).exists():
        raise FormatError(
            f"lpips (={asked}) must be auto, fetch, off, or a folder that holds AlexNet's weights and LPIPS's heads"
        )
    return load_lpips("alexnet", path=asked).to(device), ""


def _reading(reporter: Reporter, name: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    return lambda pictures: reporter.track(pictures, f"{name}: reading text")


def _galleries(
    vaes: Sequence[Autoencoder],
    evaluations: Sequence[Evaluation],
    files: tuple[ImageFile, ...],
    crop: Crop,
    seed: int | None,
) -> list[tuple[Shot, ...]]:
    """The first model's best, median and worst images, as every model reconstructs them."""
    picks = chosen(evaluations[0])
    galleries = []
    for vae, evaluation in zip(vaes, evaluations, strict=True):
        by_path = {score.path: score for score in evaluation.scores}
        alike = tuple((rank, by_path[score.path]) for rank, score in picks)
        galleries.append(gallery(vae, evaluation, files, crop, seed, alike))
    return galleries
