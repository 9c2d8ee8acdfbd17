"""Make new training images, or judge whether they help: the functions behind `vaeworks augment`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...arguments import several
from ...config import dumps
from ...data import ImageSet
from ...data.image_ref import open_place
from ...data.inputs import Images, warn_of_skipped
from ...errors import ConfigError
from ...files.atomic import write_text
from ...files.outputs import check_free, make_folder
from ...images import to_uint8
from ...images.channels import check_pictures
from ...models import Autoencoder
from ...pages import chart
from ...pages.call import Call
from ...pages.gallery import REPORT, Exhibit, Gallery, GallerySection, PageTable, page_place, write_gallery
from ...random_streams import check_seed
from ...reporting import SILENT, Reporter
from ...runtime import Codec
from ...runtime.opening import Model, Precision, name_of, open_codec, open_model
from ...words import many
from ..accuracies import accuracy, difference
from ..codes import encode_picture, encode_squares
from ..features.label_splits import check_labels, draw_labels
from ..generation.vary import ALIKE, disturbed, latent_scale, variants
from ..labelled_images import check_seed_and_size, labelled_images, square_side
from .examples import examples
from .folder import RECORD, ROWS, TABLE, check_folder, write_folder
from .judgement import SEEN, TrainingArm, judge
from .plan import ALPHA, Method, Noise, check_classes, check_settings, plan
from .render import Renderer

JUDGED = "judge.json"

LEVEL = 0.2
"""Noise for latents that are points, in standard deviations of their channels, where none is given."""

PROBED = 8
"""Images on which the difference between variants is measured."""


@dataclass(frozen=True)
class AugmentedFolder:
    """A folder of new training images."""

    out: Path
    model: str
    data: str
    method: Method
    per_image: int
    seed: int
    images: int
    variants: int
    alpha: float | None
    """of mixup; None for other methods"""
    noise: float | None
    """in standard deviations of the latent channels; None where the posterior's own is used"""
    temperature: float | None
    """of noise; None for other methods"""
    pixel_std: float | None
    """between variants of an image, in gray levels; None for other methods than noise"""
    classes: int
    kept: int
    """images that an interrupted call had written already"""
    page: Path | None = None
    """the page with some of the images; None where it was not written"""

    @property
    def record(self) -> Path:
        """augment.json."""
        return self.out / RECORD

    @property
    def rows(self) -> Path:
        """provenance.jsonl, with a row per new image."""
        return self.out / ROWS

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        page = {} if self.page is None else {"page": str(self.page)}
        return {"out": str(self.out), **self.facts(), "record": str(self.record), "kept": self.kept, **page}

    def facts(self) -> dict[str, Any]:
        """JSON values of augment.json, which do not depend on interruptions."""
        return {name: value for name, value in asdict(self).items() if name not in ("out", "classes", "kept", "page")}


@dataclass(frozen=True)
class AugmentationJudgement:
    """Whether a classifier gains by new images, and beside what."""

    model: str
    data: str
    size: int
    """side of the squares in pixels"""
    per_image: int
    seed: int
    images: int
    choices: int
    classes: Sequence[str]
    chance: float
    """accuracy of always naming the most common class"""
    noise: float | None
    temperature: float
    alpha: float
    flip: bool
    rows: Sequence[TrainingArm]
    """the ways to make training images; the first are copies of the labelled ones"""
    page: Path | None = None
    """the page with the accuracies; None where it was not written"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as in judge.json."""
        values = asdict(self)
        rows, page = values.pop("rows"), values.pop("page")
        found = values | {"classifier": f"a small CNN, {SEEN} images seen", "rows": rows}
        return found if page is None else found | {"page": str(page)}


def augment(
    model: Model,
    data: Images,
    out: str | Path,
    *,
    per_image: int = 4,
    how: Method = "noise",
    labels: str | None = None,
    temperature: float = 1.0,
    noise: float | None = None,
    alpha: float = ALPHA,
    seed: int = 0,
    memory: str | int | None = None,
    precision: Precision | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> AugmentedFolder:
    """Make new training images from labelled ones, with soft labels and provenance.

    >>> vw.augment("runs/dogs", "breeds", "more-breeds", per_image=8)
    >>> vw.augment("runs/dogs", "breeds", "mixed", how="mixup", alpha=0.2)

    model: a run folder, a VAE file or folder, hf:OWNER/NAME, or an autoencoder. data: a data source whose images have
    classes. out: the folder for the new images, one subfolder per class, with provenance.jsonl, provenance.csv,
    augment.json and report.html; an interrupted call goes on where it stopped.
    per_image: new images of each image. how: "noise", a sample of the posterior; "interpolate", towards an image of the
    same class; "mixup", towards one of another class, with a soft label. labels: the classes: "folders", "names" or a
    CSV file; None: folders where there are any. temperature: factor of the noise's standard deviation. noise: standard
    deviation of the noise, in those of the latent channels; None: the posterior's own, or 0.2 where latents are points.
    alpha: mixup's weights are from Beta(alpha, alpha). seed: random seed. memory: most memory beside the
    weights, in bytes or as "4GiB". precision: of the computation; None: the weights' own, but fp32 for fp16 weights on
    a CPU. settings: facts about the model that its file lacks, as keywords of `vw.load`. overwrite: replace existing
    results.

    Errors: ConfigError for settings that cannot be, or existing results; DataError for images without classes or
    without a partner; those of `vw.load`.
    """
    call = Call("augment", augment, dict(locals()), ("model",))
    check_seed(seed)
    _check_settings(per_image, alpha, temperature, noise)
    folder = Path(out)
    check_free(folder, [RECORD, REPORT], overwrite)
    images, classes = labelled_images(data, labels, reporter)
    check_classes(how, classes)
    codec = open_codec(model, memory, precision, settings)
    check_pictures(codec.autoencoder.config)
    used, level, spread = _probed(codec, images, temperature, noise, seed) if how == "noise" else (None, None, None)
    render = Renderer(codec, {str(file.path): file.path for file in images.files})
    planned = plan(images.files, classes, how, per_image, seed, used, render.model, alpha)
    check_folder(folder, planned, overwrite)
    if spread is not None:
        _report_level(level, noise, reporter)
        _report_spread(spread, reporter)
    result = AugmentedFolder(
        out=folder,
        model=name_of(model),
        data=images.source,
        method=how,
        per_image=per_image,
        seed=seed,
        images=len(images.files),
        variants=len(planned),
        alpha=alpha if how == "mixup" else None,
        noise=level,
        temperature=None if used is None else temperature,
        pixel_std=spread,
        classes=len(set(classes)),
        kept=0,
    )
    make_folder(folder)
    kept = write_folder(folder, planned, render, result.facts(), overwrite, partial(reporter.track, what="images"))
    result = replace(result, kept=kept, page=page_place(folder, reporter))
    if result.page is not None:
        places = {str(file.path): file.path for file in images.files}
        shown = [
            Exhibit(None, said, sheet)
            for said, sheet in examples(folder, planned, places, codec.autoencoder.config.in_channels)
        ]
        write_gallery(result.page, _gallery(result, shown, call), overwrite=True, reporter=reporter)
    return result


def _gallery(result: AugmentedFolder, shown: Sequence[Exhibit], call: Call) -> Gallery:
    text = "An image, and new images that are made of it, below their file names."
    lead = f"{many(result.variants, 'new image')}, {result.per_image} of each of {many(result.images, 'image')}"
    lead += f" of {result.data} in {result.classes} classes, by {result.method}."
    figures = {"new images": f"{result.variants:,}", "classes": f"{result.classes:,}"}
    if result.pixel_std is not None:
        figures["gray levels between variants of an image"] = f"{result.pixel_std:.2f}"
    files = {ROWS: "what each image is made of", TABLE: "the same as a table", RECORD: "settings and figures"}
    sections = [GallerySection("Some of them", text, shown)]
    return Gallery("New training images", lead, call, sections, result.to_dict(), figures, files)


def judge_augmentation(
    model: Model,
    data: Images,
    out: str | Path | None = None,
    *,
    per_image: int = 4,
    labels: str | None = None,
    temperature: float = 1.0,
    noise: float | None = None,
    alpha: float = ALPHA,
    counts: Sequence[int] = (5, 20),
    choices: int = 5,
    size: int | None = None,
    flip: bool = False,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> AugmentationJudgement:
    """Train small classifiers with and without the images that `augment` would make, and compare their accuracies.

    >>> judgement = vw.judge_augmentation("runs/digits", "digits", counts=(5,))
    >>> {row.name: row.gain[5] for row in judgement.rows}

    out: the folder for judge.json and report.html; None: write nothing. counts: numbers of labels per class. choices:
    times that labels are chosen anew; intervals are over these choices. size: side in pixels of the central squares
    that images become; None: about their own, 256 at most. flip: augmented pixels may be mirrored, which makes other
    digits of digits.
    The other arguments are those of `augment`.

    Returns accuracies and paired differences for every way to make training images.
    Errors: ConfigError for settings that cannot be, or existing results; DataError for images without classes, or too
    few of a class; those of `vw.load`.
    """
    call = Call("augment", judge_augmentation, dict(locals()), ("model",))
    check_seed_and_size(seed, size)
    _check_settings(per_image, alpha, temperature, noise)
    folder = None if out is None else Path(out)
    if folder is not None:
        check_free(folder, [JUDGED, REPORT], overwrite)
    images, classes = labelled_images(data, labels, reporter)
    counts = several(counts)
    check_labels(classes, counts, choices)
    autoencoder = open_model(model, settings)
    check_pictures(autoencoder.config)
    side = square_side(images, size, autoencoder.downsample_factor)
    codes = encode_squares(autoencoder, images, side, classes, partial(reporter.track, what="images"))
    warn_of_skipped(codes.skipped, reporter)
    draws = draw_labels(codes.pixels, codes.labels, counts, choices, seed)
    used, level = _noise(autoencoder, codes.mean, bool(codes.std.any()), temperature, noise)
    _report_level(level, noise, reporter)
    arms = judge(
        autoencoder,
        codes,
        draws,
        used,
        per_image=per_image,
        alpha=alpha,
        flip=flip,
        seed=seed,
        track=partial(reporter.track, what="classifiers"),
    )
    result = AugmentationJudgement(
        model=name_of(model),
        data=images.source,
        size=side,
        per_image=per_image,
        seed=seed,
        images=len(codes),
        choices=choices,
        classes=list(draws.classes),
        chance=draws.chance,
        noise=level,
        temperature=temperature,
        alpha=alpha,
        flip=flip,
        rows=arms,
        page=page_place(folder, reporter),
    )
    if folder is not None:
        make_folder(folder)
        write_text(folder / JUDGED, dumps(result.to_dict()) + "\n", overwrite)
        write_gallery(result.page, _judged(result, call), overwrite, reporter)
    return result


def _judged(result: AugmentationJudgement, call: Call) -> Gallery:
    counts = list(result.rows[0].accuracy)
    rows = []
    for arm in result.rows:
        cells = []
        for count in counts:
            known = count in arm.accuracy
            cells += [accuracy(arm.accuracy[count]), difference(arm.gain[count])] if known else ["", ""]
        rows.append([arm.name, *cells])
    header = ["training images", *(word for n in counts for word in (f"{n} per class", "against copies"))]
    lines = {arm.name: [(float(n), 100 * i.value) for n, i in arm.accuracy.items()] for arm in result.rows}
    drawn = chart(
        "accuracy, %", lines, levels={"chance": 100 * result.chance}, x_label="labels per class", newest=False
    )
    text = (
        f"Accuracy of a small CNN on the test half, mean of {result.choices} choices of labels; differences to copies "
    )
    text += "of the labelled images are paired, ± half of Student's 95 % interval: helps or harms where it excludes 0."
    lead = f"{many(result.images, 'image')} of {result.data} in {len(result.classes)} classes; "
    lead += f"{many(result.per_image, 'variant')} of each labelled image."
    section = GallerySection(
        "Accuracy", text, tables=[PageTable(header, rows)], charts=[drawn] if len(counts) > 1 else []
    )
    return Gallery("Does augmentation help?", lead, call, [section], result.to_dict(), files={JUDGED: "all figures"})


def _check_settings(per_image: int, alpha: float, temperature: float, noise: float | None) -> None:
    check_settings(per_image, alpha)
    for name, value in (("temperature", temperature), ("noise", noise)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{name} (={value}) must be positive")


def _noise(
    autoencoder: Autoencoder, means: Iterable[Tensor], spread: bool, temperature: float, level: float | None
) -> tuple[Noise, float | None]:
    """The noise of samples, and its level where it is not the posterior's own. spread: whether posteriors have a
    standard deviation."""
    if level is None and spread:
        return Noise(temperature=temperature), None
    level = LEVEL if level is None else level
    return Noise(std=tuple((temperature * level * latent_scale(autoencoder, list(means))).tolist())), level


def _probed(
    codec: Codec, images: ImageSet, temperature: float, noise: float | None, seed: int
) -> tuple[Noise, float | None, float]:
    """The noise, its level, and the difference between variants in gray levels, measured on PROBED images."""
    chosen = images.files[:: max(1, len(images.files) // PROBED)][:PROBED]
    pictures = [to_uint8(open_place(file.path, codec.autoencoder.config.in_channels)) for file in chosen]
    codes = [encode_picture(codec, picture) for picture in pictures]
    spread = any(code.std.any() for code in codes)
    used, level = _noise(codec.autoencoder, [code.mean for code in codes], spread, temperature, noise)
    if used.std is not None:
        codes = [disturbed(code, torch.tensor(used.std), 1.0) for code in codes]
    found = [variants(codec, code, 3, used.temperature or 1.0, seed)[1] for code in codes]
    return used, level, (sum(v.pixel_std**2 for v in found) / len(found)) ** 0.5


def _report_level(level: float | None, given: float | None, reporter: Reporter) -> None:
    if level is not None and given is None:
        reporter.warn(f"this model's latents are points: noise of {level} stds of their channels; --noise sets it")


def _report_spread(spread: float, reporter: Reporter) -> None:
    if spread < ALIKE:
        reporter.warn(
            f"variants of an image differ by {spread:.2f} gray levels: they are all alike to the eye, and to a "
            "classifier; --noise 0.3 varies more"
        )
    else:
        reporter.say(f"variants of an image differ by {spread:.2f} gray levels")
