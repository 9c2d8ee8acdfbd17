"""Find anomalies among the images of a source: the function behind `vaeworks anomaly`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...arguments import several
from ...config import dumps
from ...data import ImageFile, ImageSet
from ...data.inputs import Images, image_set, say_flattened, warn_of_skipped
from ...data.trained_on import TrainedOn, sentence
from ...errors import ConfigError
from ...features.backbones import Backbone, load_backbone
from ...files.atomic import write_text
from ...files.outputs import check_free, make_folder
from ...images.channels import check_pictures
from ...intervals import Interval
from ...models import Autoencoder
from ...pages.call import Call
from ...pages.gallery import REPORT, Exhibit, Gallery, GallerySection, PageTable, page_place, write_gallery
from ...random_streams import check_seed
from ...reporting import SILENT, Reporter
from ...runtime.opening import Model, name_of, open_model
from .density import Kind
from .detector import AnomalyDetector
from .extractors import Maps
from .folders import GOOD, check_sizes, class_labels, labels_by_masks, read_images, read_truth
from .heat import LEGEND
from .methods import MethodRow, Truth
from .scored import (
    SCORES,
    SHEETS,
    ClassFigures,
    ScoredImages,
    class_figures,
    method_rows,
    write_scores,
    write_sheets,
)
from .storage import load_detector, save_detector
from .threshold import DEFAULT_RATE, alarm_range

DETECTOR, RECORD = "detector.safetensors", "anomaly.json"

HELD_OUT = 0.3
"""Share of the normal images that nothing is fitted on, by default."""


@dataclass(frozen=True)
class AnomalyTest:
    """The results on test images."""

    images: int
    alarms: int
    """images that the detector calls anomalous"""
    scores: Path | None
    """the CSV file with every score; None where nothing is written"""
    pictures: Sequence[str]
    """the sheets that were written"""
    table: Sequence[MethodRow] | None
    """figures of every method; None where no test image is known to be normal or anomalous"""
    classes: Mapping[str, ClassFigures] | None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        values: dict[str, Any] = {"images": self.images, "alarms": self.alarms}
        if self.scores is not None:
            values |= {"scores": str(self.scores), "pictures": list(self.pictures)}
        if self.table is not None and self.classes is not None:
            values["table"] = [asdict(row) for row in self.table]
            values["classes"] = {name: asdict(figures) for name, figures in self.classes.items()}
        return values


@dataclass(frozen=True)
class AnomalyResult:
    """A detector, and what it found in the test images."""

    model: str
    evidence: tuple[str, ...]
    """kinds of evidence that the detector uses"""
    density: Kind
    normals: Mapping[str, int]
    """how many normal images the fit, the scales and the threshold are from"""
    threshold: float
    """combined z-score above which an image is called anomalous"""
    false_alarms: float
    """share of normal images that is called anomalous, on average"""
    false_alarms_range: tuple[float, float]
    """in which that share lies with 95 %, by chance of the images that set the threshold"""
    file: Path | None
    """where the detector was written"""
    test: AnomalyTest | None
    detector: AnomalyDetector = field(repr=False, compare=False)
    page: Path | None = None
    """the page with the pictures; None where it was not written"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as in anomaly.json."""
        return {
            "model": self.model,
            "evidence": list(self.evidence),
            "density": self.density,
            "normals": dict(self.normals),
            "threshold": self.threshold,
            "false_alarms": self.false_alarms,
            "false_alarms_range": list(self.false_alarms_range),
            **({} if self.file is None else {"detector": str(self.file)}),
            **({} if self.test is None else self.test.to_dict()),
            **({} if self.page is None else {"page": str(self.page)}),
        }

    @property
    def sentence(self) -> str:
        """The evidence, the images that it rests on, and the rate of false alarms."""
        low, high = self.false_alarms_range
        fit, scale, threshold = self.normals.values()
        return (
            f"{', '.join(self.evidence)}; fitted on {fit} normals, standardized on {scale}, threshold "
            f"{self.threshold:.2f} from {threshold}: false alarms {self.false_alarms:.1%} on average, by chance "
            f"of these {threshold} {low:.1%} to {high:.1%}"
        )


def detect_anomalies(
    model: Model,
    out: str | Path | None = None,
    *,
    normal: Images | None = None,
    detector: str | Path | None = None,
    test: Images | None = None,
    masks: str | Path | None = None,
    labels: str | None = None,
    false_alarms: float = DEFAULT_RATE,
    held_out: float = HELD_OUT,
    size: int | None = None,
    evidence: Sequence[Literal["reconstruction", "features", "density"]] = (),
    features: str | Maps | None = None,
    features_weights: str | Path | None = None,
    density: Kind = "position",
    baselines: bool = True,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> AnomalyResult:
    """Fit a detector on normal images, or take a fitted one, and score test images.

    >>> result = vw.detect_anomalies("runs/tiles", "out", normal="tiles/train/good", test="tiles/test")
    >>> result.test.alarms, result.detector.heat_maps(images)

    model: a run folder, a VAE file or folder, hf:OWNER/NAME, or an autoencoder. out: the folder for
    detector.safetensors, scores.csv, sheets of images, anomaly.json and report.html; None: write nothing.
    normal: a data source of normal images to fit a detector on, or images in memory. detector: the file of a fitted
    one. Give one of both.
    test: a data source of images to score; those in folders called `good` are known to be normal.
    masks: a folder with a mask for each anomalous test image, by name. labels: the classes of test images: "folders",
    "names", "none" or a CSV file; `good` is normal.
    false_alarms: share of normal images that may be called anomalous. held_out: share of the normal images that nothing
    is fitted on; they set the threshold. size: side in pixels of the central squares that images become; None: images
    stay as they are. evidence: kinds of evidence; none named: all. features: the network of the evidence "features": a
    name, MODULE:FUNCTION or a callable, with the file of its weights; None: the model's encoder.
    density: a Gaussian of latents for each position, or one shared by all. baselines: also fit and score methods
    without an autoencoder. seed: of the split of normal images and of resampling. settings: facts about the model that
    its file lacks, as keywords of `vw.load`. overwrite: replace existing results.

    Returns the detector, its threshold and the figures on the test images.
    Errors: ConfigError for settings that do not fit together, or existing results; DataError for too few images, or
    images and masks that cannot be used; those of `vw.load`.
    """
    call = Call("anomaly", detect_anomalies, dict(locals()), ("model",))
    folder, file = None if out is None else Path(out), None if detector is None else Path(detector)
    mask_folder = None if masks is None else Path(masks)
    evidence = several(evidence)
    check_seed(seed)
    _check(normal, file, test, mask_folder, folder, overwrite)
    if file is not None:
        _check_fitted(evidence, density, false_alarms, held_out)
    known, tested = _scanned(normal, reporter), _scanned(test, reporter)
    if known and tested:
        _warn_of_shared(known.files, tested.files, reporter)
    for part in (known, tested):
        if part is not None:
            check_sizes(part.files, size)
    classes, truth = (None, None) if tested is None else _truth(tested, size, labels, mask_folder, reporter)
    autoencoder = open_model(model, settings)
    check_pictures(autoencoder.config)
    if known:
        warn_of_trained(autoencoder.trained_on, known.files, reporter)
    network = _network(features, features_weights, autoencoder, reporter)

    channels = autoencoder.config.in_channels
    images = None if known is None else _pixels(known, size, channels, "reading normal images", reporter)
    tests = None if tested is None else _pixels(tested, size, channels, "reading test images", reporter)
    if file is None:
        found = AnomalyDetector(
            autoencoder,
            evidence=evidence or None,
            features=network,
            density=density,
            false_alarms=false_alarms,
            held_out=held_out,
            random_state=seed,
            track=partial(reporter.track, what="fitting"),
        )
        assert images is not None  # _check: normal images, or a file
        found.fit(images)
    else:
        found = load_detector(file, autoencoder, network)
    found.track = partial(reporter.track, what="scoring")
    scored = None
    if tested is not None and tests is not None:
        readings = found.readings(tests)
        names = [str(image.path) for image in tested.files]
        scored = ScoredImages(names, tests, classes, truth, readings, readings.anomaly > -found.offset_)
    if folder is not None:
        make_folder(folder)
        if file is None:
            save_detector(found, folder / DETECTOR, overwrite)
    result = _result(name_of(model), found, folder / DETECTOR if folder and file is None else None)
    reporter.say(result.sentence)
    if scored is not None:
        tested_on = _tested(found, scored, images if baselines else None, folder, seed, overwrite, reporter)
        result = replace(result, test=tested_on)
    if folder is not None:
        result = replace(result, page=page_place(folder, reporter))
        write_text(folder / RECORD, dumps(result.to_dict()) + "\n", overwrite)
        write_gallery(result.page, _gallery(result, folder, call), overwrite, reporter)
    return result


def _check(
    normal: Images | None,
    detector: Path | None,
    test: Images | None,
    masks: Path | None,
    out: Path | None,
    overwrite: bool,
) -> None:
    if (normal is None) == (detector is None):
        raise ConfigError(
            "give either --normal SRC, to fit a detector, or --detector FILE, to take one that was fitted"
        )
    if test is None and (detector is not None or masks is not None):
        raise ConfigError("there is nothing to score: give --test SRC")
    if out is not None:
        check_free(out, (DETECTOR, SCORES, RECORD, REPORT, *SHEETS), overwrite)


def _check_fitted(evidence: Sequence[str], density: str, false_alarms: float, held_out: float) -> None:
    """Errors: ConfigError for settings that a fitted detector has of its own."""
    changed = {
        "--evidence": bool(evidence),
        "--density": density != "position",
        "--false-alarms": false_alarms != DEFAULT_RATE,
        "--held-out": held_out != HELD_OUT,
    }
    if flags := ", ".join(flag for flag, given in changed.items() if given):
        raise ConfigError(
            f"--detector has settings of its own, which {flags} cannot change; leave that away, or fit with --normal"
        )


def _scanned(source: Images | None, reporter: Reporter) -> ImageSet | None:
    if source is None:
        return None
    images = image_set(source, reporter)
    warn_of_skipped(images.skipped, reporter)
    say_flattened(images.files, reporter)
    return images


def _pixels(images: ImageSet, size: int | None, channels: int, what: str, reporter: Reporter) -> NDArray[np.uint8]:
    return read_images(images.files, size, channels, partial(reporter.track, what=what))


def warn_of_trained(seen: TrainedOn | None, known: Sequence[ImageFile], reporter: Reporter) -> None:
    """Warn where the model was trained on some of the normal images: the threshold needs images that are new to it."""
    if said := sentence(seen, known):
        reporter.warn(
            f"{said}, which look more normal to it than new ones will: the false-alarm rate is not kept; train it on "
            "others"
        )


def _warn_of_shared(known: Sequence[ImageFile], tested: Sequence[ImageFile], reporter: Reporter) -> None:
    if shared := {file.digest for file in known} & {file.digest for file in tested}:
        reporter.warn(f"{len(shared)} test images are among the normal ones as well; their scores are too good")


def _truth(
    tested: ImageSet, size: int | None, labels: str | None, masks: Path | None, reporter: Reporter
) -> tuple[tuple[str, ...] | None, Truth | None]:
    """Classes of test images by labels or folders, else by masks; and which are anomalous, and where."""
    classes = class_labels(tested.files, labels)
    if classes is None and masks is not None:
        classes = labels_by_masks(tested.files, masks)
        bad = sum(label != GOOD for label in classes)
        reporter.step(
            f"{bad} of {len(classes)} test images have a mask that marks something; the others are taken to be normal"
        )
    return classes, None if classes is None else read_truth(tested.files, classes, masks, size)


def _network(
    network: str | Maps | None, weights: str | Path | None, autoencoder: Autoencoder, reporter: Reporter
) -> Backbone | None:
    if network is None:
        if weights is not None:
            raise ConfigError(f"--features-weights {weights} are of no network; name it with --features")
        return None
    return load_backbone(network, weights, autoencoder.downsample_factor, reporter.step).to(autoencoder.device)


def _result(model: str, detector: AnomalyDetector, file: Path | None) -> AnomalyResult:
    split = detector.split_
    normals = {"fit": len(split.fit), "scale": len(split.scale), "threshold": len(split.threshold)}
    return AnomalyResult(
        model,
        tuple(detector.evidence_),
        detector.density,
        normals,
        -detector.offset_,
        detector.false_alarms_,
        alarm_range(normals["threshold"], detector.false_alarms_),
        file,
        None,
        detector,
    )


def _gallery(result: AnomalyResult, out: Path, call: Call) -> Gallery:
    files = {DETECTOR: "the detector", SCORES: "the score of every image", RECORD: "all figures"}
    lead = f"{result.sentence[0].upper()}{result.sentence[1:]}."
    figures = {
        "threshold of the anomaly": f"{result.threshold:.2f}",
        "false alarms aimed at": f"{result.false_alarms:.1%}",
    }
    sections = []
    if (test := result.test) is not None:
        figures["test images called anomalous"] = f"{test.alarms} of {test.images}"
        shown = [Exhibit(Path(path), SHEETS[Path(path).name]) for path in test.pictures]
        sections.append(GallerySection("Pictures", LEGEND[0].upper() + LEGEND[1:] + ".", shown))
        if test.table is not None and test.classes is not None:
            sections.append(
                GallerySection("Methods and classes", "", tables=[_methods(test.table), _classes(test.classes)])
            )
    return Gallery("Images that differ from normal ones", lead, call, sections, result.to_dict(), figures, files)


def _methods(rows: Sequence[MethodRow]) -> PageTable:
    header = ("method", "AUROC", "95 % interval", "false alarms", "found", "pixel AUROC", "PRO")
    found = []
    for row in rows:
        shares = ["" if share is None else f"{share.value:.1%}" for share in (row.false_alarms, row.found)]
        places = ("", "") if row.places is None else (f"{row.places.pixel_auroc:.3f}", f"{row.places.pro:.3f}")
        found.append([row.method, *_auroc(row.auroc), *shares, *places])
    return PageTable(header, found)


def _auroc(found: Interval | None) -> tuple[str, str]:
    """The cells of an AUROC and its interval."""
    return ("", "") if found is None else (f"{found.value:.3f}", f"{found.low:.3f} to {found.high:.3f}")


def _classes(classes: Mapping[str, ClassFigures]) -> PageTable:
    rows = []
    for name, figures in classes.items():
        rows.append([name, str(figures.images), f"{figures.alarms.value:.1%}", *_auroc(figures.auroc)])
    return PageTable(("class", "images", "alarms", "AUROC against good", "95 % interval"), rows)


def _tested(
    detector: AnomalyDetector,
    scored: ScoredImages,
    normals: NDArray[np.uint8] | None,
    out: Path | None,
    seed: int,
    overwrite: bool,
    reporter: Reporter,
) -> AnomalyTest:
    """Write scores and sheets, and measure where the truth is known."""
    alarms, truth = scored.alarms, scored.truth
    sheets: list[str] = []
    where = ""
    if out is not None:
        write_scores(out / SCORES, detector, scored, overwrite)
        sheets = write_sheets(out, detector, scored, overwrite)
        where = f"; {out / SCORES} has every score"
    reporter.say(f"{alarms.sum()} of {len(alarms)} test images are called anomalous{where}")
    rows = classes = None
    if truth is None:
        reporter.warn(
            "no test image lies in a folder called `good`, so AUROC is undefined; --labels or --masks can tell"
        )
    else:
        _warn_of_missing_truth(truth, reporter)
        rows, classes = method_rows(detector, scored, normals, seed, reporter), class_figures(scored, seed)
    scores = None if out is None else out / SCORES
    return AnomalyTest(len(alarms), int(alarms.sum()), scores, sheets, rows, classes)


def _warn_of_missing_truth(truth: Truth, reporter: Reporter) -> None:
    """Warn where figures are undefined, or leave images out."""
    if truth.anomalous.all() or not truth.anomalous.any():
        only = "anomalous" if truth.anomalous.all() else "normal"
        reporter.warn(f"all test images are {only}: AUROC is undefined, and only the share of alarms is reported")
    if truth.masked is not None and not truth.masked.all():
        reporter.warn(f"{(~truth.masked).sum()} anomalous images have no mask; figures of pixels leave them out")
