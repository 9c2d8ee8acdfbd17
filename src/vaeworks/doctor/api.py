"""The examination of models from where they are: what the command `doctor` does, as functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..arguments import several
from ..data import ImageFile, ImageSet
from ..data.image_ref import ImageRef
from ..data.inputs import Images, image_set, warn_of_skipped
from ..data.labels import find_labels, find_masks
from ..data.trained_on import sentence
from ..devices import resolve_device
from ..errors import ConfigError
from ..files.outputs import check_free, make_folder, short_names
from ..formats.io import read
from ..formats.locate import locate
from ..formats.shared_weights import in_memory
from ..formats.vae_slot import is_certain
from ..images import default_size
from ..models import Autoencoder
from ..random_streams import check_seed
from ..reporting import SILENT, Reporter
from ..runtime.opening import Model, name_of
from .examination import Examination, check_panels, check_rules, examine_files, failing
from .image_sample import ImageSample
from .page import COMPARE, COMPARE_RECORD, RECORD, REPORT, check_alike, write_comparison, write_report
from .panels import TITLES
from .serialization import SCHEMA

Labels = str | Sequence[str] | None
Masks = str | Path | Sequence[ImageRef | None] | None


@dataclass(frozen=True)
class Examinations:
    """One or more models, examined on the same images."""

    models: tuple[Examination, ...]
    failures: tuple[str, ...] = ()
    """a sentence for every finding that `fail_on` names"""
    folders: tuple[Path, ...] = ()
    """where each model's report.html and report.json are"""
    comparison: Path | None = None
    """compare.html of several models"""

    def to_dict(self) -> dict[str, Any]:
        """Everything but pictures as JSON values: report.json of one model, or a list of several."""
        if len(self.models) == 1:
            return self.models[0].to_dict()
        return {"schema": SCHEMA, "models": [examination.to_dict() for examination in self.models]}


def examine(
    autoencoder: Model,
    data: Images,
    *,
    model: str = "",
    panels: Iterable[str] | None = None,
    size: int | None = None,
    limit: int | None = None,
    quick: bool = False,
    seed: int = 0,
    labels: Labels = None,
    masks: Masks = None,
    known: bool | None = None,
    reference: Model | None = None,
    keep: bool = True,
    settings: Mapping[str, Any] | None = None,
    reporter: Reporter = SILENT,
) -> Examination:
    """Examine a VAE on images: verdicts, figures and pictures of everything that can be wrong with its latents.

    >>> vw.examine("runs/dogs", "photos", quick=True).findings["tiling"].verdict
    'healthy'

    autoencoder: an Autoencoder, or the path or hub id of one. data: a source of images (docs/data.md), or what
    `vaeworks.data.scan` found. model: the result's title. panels: names from docs/doctor.md; None: all. size: side of
    the squares that images become, in pixels; None: about 256. limit: number of images at most, evenly spaced. quick:
    fewer images and probes. seed: of probes and noise.
    labels: a class for each image; or "folders", "names", "none" or a CSV file; None takes folders where `data` is a
    source. masks: a mask of the object for each image, or the folder of masks. known: whether the scaling factor is
    certain; None: what the file says. reference: the VAE that the diffusion model was made for, if this one is to
    replace it. keep: cache the findings, and reuse them for the same model, images and options. settings: facts that
    the model's file leaves out, as keywords of `load`.
    Errors: ConfigError for an unknown panel, and for a size that the model does not take; DataError for labels or masks
    that lack an image. Several models: `examine_models`.
    """
    names = check_panels(panels)
    check_seed(seed)
    images = image_set(data, reporter)
    derived = isinstance(data, (str, Path))
    loaded, certain = _loaded(autoencoder, settings, reporter)
    _say_trained(loaded, images, reporter)
    return examine_files(
        loaded,
        images.files,
        model=model or name_of(autoencoder),
        panels=names,
        size=size,
        limit=limit,
        quick=quick,
        seed=seed,
        labels=_labels(images.files, labels, derived, reporter),
        masks=_masks(images.files, masks, derived),
        known=certain if known is None else known,
        reference=None if reference is None else _loaded(reference, None, reporter)[0],
        keep=keep,
        begin=_tracks(reporter),
    )


def examine_models(
    models: Sequence[Model],
    data: Images,
    out: str | Path | None = None,
    *,
    panels: Iterable[str] | None = None,
    size: int | None = None,
    limit: int | None = None,
    quick: bool = False,
    seed: int = 0,
    labels: Labels = None,
    masks: Masks = None,
    reference: Model | None = None,
    keep: bool = True,
    fail_on: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> Examinations:
    """Examine one or more VAEs on the same images, and write their pages: `vaeworks doctor`.

    >>> vw.examine_models(["sdxl.safetensors", "runs/dogs"], "photos", "out/doctor", fail_on=["ill"]).failures
    ('runs/dogs: scale is ill: ...',)

    out: folder for report.html and report.json of one model; of several, each has a folder of its own in it, beside
    compare.html and compare.json. overwrite: replace them. size: None is a size that every model takes. fail_on: rules
    for the result's `failures`: "ill" (any panel that is), "watch" (that or worse), a panel's name, or PANEL:watch.
    All other arguments: as in `examine`.
    Errors: those of `examine`; ConfigError for what is no rule, and where `out` holds results.
    """
    models, fail_on = several(models), several(fail_on)
    if not models:
        raise ConfigError("no MODEL is given: vaeworks doctor MODEL --data SRC --out DIR")
    wanted = None if panels is None else check_panels(panels)
    check_rules(fail_on, wanted)
    check_seed(seed)
    names = [name_of(model) for model in models]
    folders = [] if out is None else _folders(Path(out), names, overwrite)
    if limit is not None and limit < 1:
        raise ConfigError(f"--images {limit} leaves nothing to examine; give at least 1")
    images = image_set(data, reporter)
    derived = isinstance(data, (str, Path))
    classes, shapes = _labels(images.files, labels, derived, reporter), _masks(images.files, masks, derived)
    if size is None:  # the same for all models, so that their figures compare
        size = default_size(*(_config(model, settings) for model in models))
    sample = ImageSample(images.files, size=size, limit=limit, quick=quick, labels=classes, masks=shapes)
    compared_with = None if reference is None else _loaded(reference, None, reporter)[0]
    found: list[Examination] = []
    for position, (model, name) in enumerate(zip(models, names, strict=True)):
        loaded, certain = _loaded(model, settings, reporter)
        reporter.step(f"{name}: {loaded.config.name}")
        _say_trained(loaded, images, reporter)
        found.append(
            examine_files(
                loaded,
                sample,
                model=name,
                panels=wanted,
                seed=seed,
                known=certain,
                reference=compared_with,
                keep=keep,
                begin=_tracks(reporter),
            )
        )
        if folders:
            make_folder(folders[position])
            write_report(folders[position], found[-1], overwrite)
    if len(found) > 1:
        check_alike(found)
        if out is not None:
            write_comparison(Path(out), found, [folder.name for folder in folders], overwrite)
    warn_of_skipped(images.skipped, reporter)
    failures = tuple(f"{e.model}: {sentence}" for e in found for sentence in failing(e, fail_on))
    comparison = Path(out) / COMPARE if out is not None and len(found) > 1 else None
    return Examinations(tuple(found), failures, tuple(folders), comparison)


def _config(model: Model, settings: Mapping[str, Any] | None) -> Any:
    known = in_memory(model)
    return locate(str(model), **(settings or {})).config if known is None else known.config


def _folders(out: Path, names: Sequence[str], overwrite: bool) -> list[Path]:
    """A folder for each model's report, before any work. Errors: ConfigError where one holds results."""
    folders = [out] if len(names) == 1 else [out / name for name in short_names(names)]
    for folder in (out, *folders):
        check_free(folder, (REPORT, RECORD, COMPARE, COMPARE_RECORD), overwrite)
    return folders


def _labels(files: Sequence[ImageFile], labels: Labels, derived: bool, reporter: Reporter) -> Sequence[str] | None:
    """A class for each image. derived: whether they may be found in the images' places without being asked for."""
    if isinstance(labels, str) or (labels is None and derived):
        return find_labels(files, labels, reporter)
    return labels


def _masks(files: Sequence[ImageFile], masks: Masks, derived: bool) -> Sequence[ImageRef | None] | None:
    if isinstance(masks, (str, Path)) or (masks is None and derived):
        return find_masks(files, None if masks is None else Path(masks))
    return masks


def _loaded(model: Model, settings: Mapping[str, Any] | None, reporter: Reporter) -> tuple[Autoencoder, bool | None]:
    """The model, on a GPU where there is one, and whether its file is certain of its scaling factor; None: unknown."""
    if (known := in_memory(model)) is not None:
        return known, None
    located = locate(str(model), **(settings or {}))
    autoencoder = read(located)
    for doubt in located.doubts:
        reporter.warn(f"{model}: {doubt}")
    return autoencoder.to(resolve_device("auto")), is_certain(located)


def _say_trained(autoencoder: Autoencoder, images: ImageSet, reporter: Reporter) -> None:
    """Say how many of the images the model was trained on, as far as its file says."""
    if said := sentence(autoencoder.trained_on, images.files):
        reporter.warn(f"{said}; figures of reconstructions are better on these than on new ones")


def _tracks(reporter: Reporter) -> Callable[[str], Callable[[Iterable[Any]], Iterable[Any]]]:
    """What `examine_files` asks for progress with: a panel's name, or "encoding", gives what wraps its loop."""

    def begin(what: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
        title = TITLES.get(what, "")
        label = f"{what}: {title.partition(': ')[2] or title}" if title else what
        return lambda items: reporter.track(items, label)

    return begin
