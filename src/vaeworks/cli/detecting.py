"""The command that finds anomalies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from ..data.inputs import data_source
from ..errors import ConfigError
from ..files.outputs import check_free, make_folder
from .console import TERMINAL, bar, console
from .options import Model, Out, Overwrite, Told
from .paths import check_seed, placed

if TYPE_CHECKING:
    from ..apps.anomaly.detector import AnomalyDetector, Readings
    from ..apps.anomaly.methods import MethodRow, Truth
    from ..data import ImageFile, ImageSet
    from ..models import Autoencoder

DETECTOR, SCORES, RECORD = "detector.safetensors", "scores.csv", "anomaly.json"
SHEETS = ("worst.jpg", "most-normal.jpg", "misses.jpg", "false-alarms.jpg")
SHOWN = 12
"""Images on a sheet."""


def anomaly(
    model: Model,
    out: Out,
    normal: Annotated[str | None, arg(metavar="SRC", help="normal images, to fit a detector on")] = None,
    detector: Annotated[
        Path | None, arg(metavar="FILE", help="take this detector.safetensors instead of fitting one")
    ] = None,
    test: Annotated[
        str | None, arg(metavar="SRC", help="images to score; those in folders called `good` are known to be normal")
    ] = None,
    masks: Annotated[
        Path | None, arg(metavar="DIR", help="where the test images are anomalous: a mask for each, by name")
    ] = None,
    labels: Annotated[
        str | None,
        arg(metavar="HOW", help="test images' classes: folders, names, none or a CSV file; `good` is normal"),
    ] = None,
    false_alarms: Annotated[float, arg(help="share of normal images that may be called anomalous")] = 0.05,
    held_out: Annotated[
        float, arg(help="share of the normal images that nothing is fitted on: they set the threshold")
    ] = 0.3,
    size: Annotated[
        int | None,
        arg(metavar="PX", help="side of the middle squares that images become; by default they are taken as they are"),
    ] = None,
    evidence: Annotated[
        tuple[Literal["reconstruction", "features", "density"], ...],
        arg(help="what speaks against an image; by default all"),
    ] = (),
    features: Annotated[
        str | None,
        arg(
            metavar="NET", help="network for `features`: vgg16_conv1to3, vgg16, MODULE:FUNCTION; by default the encoder"
        ),
    ] = None,
    features_weights: Annotated[Path | None, arg(metavar="PATH", help="that network's weights")] = None,
    density: Annotated[
        Literal["position", "shared"], arg(help="a Gaussian of latents for every place, or one for all")
    ] = "position",
    baselines: Annotated[bool, arg(help="also measure what the detector has to beat, on the same images")] = True,
    seed: Annotated[int, arg(help="of the split and of resampling")] = 0,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """What does not look like normal images, and where: scores, heat maps, and figures against baselines."""
    from ..apps.anomaly.folders import check_sizes, read_images
    from ..apps.anomaly.storage import save_detector
    from ..config import dumps
    from ..files.atomic import write_text

    check_seed(seed)
    _check(normal, detector, test, masks, out, overwrite)
    options = {
        "evidence": evidence or None,
        "density": density,
        "false_alarms": false_alarms,
        "held_out": held_out,
        "random_state": seed,
    }
    if detector is not None:
        _check_fitted(options)
    known, tested = _scanned(normal), _scanned(test)
    if known:
        _say_trained(Path(model), known.files)
    if known and tested:
        _say_shared(known.files, tested.files)
    for part in (known, tested):
        if part is not None:
            check_sizes(part.files, size)
    classes, truth = (None, None) if tested is None else _truth(tested, size, labels, masks)
    autoencoder = placed(model, told)
    channels = autoencoder.config.in_channels
    network = _network(features, features_weights, autoencoder)
    images = None if known is None else read_images(known.files, size, channels, bar("reading normal images"))
    pictures = None
    if tested is not None:
        pixels = read_images(tested.files, size, channels, bar("reading test images"))
        pictures = TestImages([str(file.path) for file in tested.files], pixels, classes, truth)
    found = _detector(detector, images, autoencoder, network, options)
    readings = None if pictures is None else found.readings(pictures.pixels)
    make_folder(out)
    result: dict[str, Any] = {"model": model, **_facts(found)}
    if detector is None:
        save_detector(found, out / DETECTOR, overwrite)
        result["detector"] = str(out / DETECTOR)
    console().print(_sentence(found))
    if pictures is not None and readings is not None:
        result |= _tested(found, images if baselines else None, pictures, readings, out, seed, overwrite)
    write_text(out / RECORD, dumps(result) + "\n", overwrite)
    return result


@dataclass(frozen=True, eq=False)
class TestImages:
    """Test images."""

    names: list[str]
    pixels: Any
    """uint8 n c h w"""
    classes: tuple[str, ...] | None
    truth: Truth | None


def _truth(
    tested: ImageSet, size: int | None, labels: str | None, masks: Path | None
) -> tuple[tuple[str, ...] | None, Truth | None]:
    """Classes of test images and what is known of them: by folders or labels, else by masks."""
    from ..apps.anomaly.folders import GOOD, class_labels, labels_by_masks, read_truth

    classes = class_labels(tested.files, labels)
    if classes is None and masks is not None:
        classes = labels_by_masks(tested.files, masks)
        bad = sum(label != GOOD for label in classes)
        console().print(
            f"{bad} of {len(classes)} test images have a mask that marks something; the others are taken to be normal"
        )
    return classes, None if classes is None else read_truth(tested.files, classes, masks, size)


def _check(
    normal: str | None, detector: Path | None, test: str | None, masks: Path | None, out: Path, overwrite: bool
) -> None:
    if (normal is None) == (detector is None):
        raise ConfigError(
            "give either --normal SRC, to fit a detector, or --detector FILE, to take one that was fitted"
        )
    if test is None and (detector is not None or masks is not None):
        raise ConfigError("there is nothing to score: give --test SRC")
    check_free(out, (DETECTOR, SCORES, RECORD, *SHEETS), overwrite)


def _check_fitted(options: dict[str, Any]) -> None:
    """What a fitted detector has already is not asked for again."""
    import inspect

    defaults = {name: p.default for name, p in inspect.signature(anomaly).parameters.items()}
    given = [name for name, value in options.items() if name != "random_state" and value != (defaults[name] or None)]
    if given:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise ConfigError(
            f"--detector has settings of its own, which {flags} cannot change; leave that away, or fit with --normal"
        )


def _scanned(source: str | None) -> ImageSet | None:
    from ..data import scan

    if source is None:
        return None
    found = scan(data_source(source, reporter=TERMINAL))
    for path, reason in found.skipped:
        console().print(f"skipped {path}: {reason}", style="yellow")
    return found


def _say_shared(known: Sequence[ImageFile], tested: Sequence[ImageFile]) -> None:
    shared = {file.digest for file in known} & {file.digest for file in tested}
    if shared:
        console().print(
            f"{len(shared)} test images are among the normal ones as well; their scores are too good", style="yellow"
        )


def _say_trained(model: Path, known: Sequence[ImageFile]) -> None:
    """The threshold is for images that neither the detector nor the autoencoder has learned from."""
    from ..data.trained_on import trained_on

    seen = trained_on(model)
    if count := sum(file.digest in seen for file in known):
        console().print(
            f"{count} of {len(known)} normal images are among those that the model was trained on, which look more "
            "normal to it than new ones will: the false-alarm rate is not kept; train it on others",
            style="yellow",
        )


def _network(name: str | None, path: Path | None, autoencoder: Autoencoder) -> Any:
    from ..features.backbones import load_backbone

    if name is None:
        if path is not None:
            raise ConfigError(f"--features-weights {path} are of no network; name it with --features")
        return None
    return load_backbone(name, path, autoencoder.downsample_factor, console().print).to(autoencoder.device)


def _detector(
    file: Path | None, images: Any, autoencoder: Autoencoder, features: Any, options: dict[str, Any]
) -> AnomalyDetector:
    """A detector that shows its progress: fitted on images, or from a file."""
    from ..apps.anomaly.detector import AnomalyDetector
    from ..apps.anomaly.storage import load_detector

    if file is not None:
        found = load_detector(file, autoencoder, features)
        found.track = bar("scoring")
        return found
    found = AnomalyDetector(autoencoder, features=features, track=bar("fitting"), **options).fit(images)
    found.track = bar("scoring")
    return found


def _facts(detector: AnomalyDetector) -> dict[str, Any]:
    from ..apps.anomaly.threshold import alarm_range

    split = detector.split_
    normals = {"fit": len(split.fit), "scale": len(split.scale), "threshold": len(split.threshold)}
    low, high = alarm_range(normals["threshold"], detector.false_alarms_)
    return {
        "evidence": list(detector.evidence_),
        "density": detector.density,
        "normals": normals,
        "threshold": -detector.offset_,
        "false_alarms": detector.false_alarms_,
        "false_alarms_range": [low, high],
    }


def _sentence(detector: AnomalyDetector) -> str:
    facts = _facts(detector)
    low, high = facts["false_alarms_range"]
    fit, scale, threshold = facts["normals"].values()
    return (
        f"{', '.join(detector.evidence_)}; fitted on {fit} normals, standardized on {scale}, threshold "
        f"{facts['threshold']:.2f} from {threshold}: false alarms {detector.false_alarms_:.1%} on average, by chance "
        f"of these {threshold} {low:.1%} to {high:.1%}"
    )


def _tested(
    detector: AnomalyDetector,
    normals: Any,
    pictures: TestImages,
    readings: Readings,
    out: Path,
    seed: int,
    overwrite: bool,
) -> dict[str, Any]:
    """Write what is to be seen of test images, and tell the figures."""
    alarms = readings.anomaly > -detector.offset_
    _write_scores(out / SCORES, detector, readings, pictures, alarms, overwrite)
    sheets = _write_sheets(out, detector, readings, pictures, alarms, overwrite)
    console().print(f"{alarms.sum()} of {len(alarms)} test images are called anomalous; {out / SCORES} has every score")
    result: dict[str, Any] = {
        "images": len(alarms),
        "alarms": int(alarms.sum()),
        "scores": str(out / SCORES),
        "pictures": sheets,
    }
    if pictures.truth is None or pictures.classes is None:
        console().print(
            "no test image lies in a folder called `good`, so AUROC is undefined; --labels or --masks can tell",
            style="yellow",
        )
        return result
    truth = pictures.truth
    if truth.anomalous.all() or not truth.anomalous.any():
        only = "anomalous" if truth.anomalous.all() else "normal"
        console().print(
            f"all test images are {only}: AUROC is undefined, and only the share of alarms is told", style="yellow"
        )
    if truth.masked is not None and not truth.masked.all():
        console().print(
            f"{(~truth.masked).sum()} anomalous images have no mask, and no part in figures of pixels", style="yellow"
        )
    rows = _rows(detector, readings, normals, pictures.pixels, truth, seed)
    _print(rows, detector.false_alarms_)
    by_class = _by_class(readings, pictures.classes, alarms, seed)
    _print_classes(by_class)
    return result | {"table": [asdict(row) for row in rows], "classes": by_class}


def _rows(
    detector: AnomalyDetector, readings: Readings, normals: Any, pixels: Any, truth: Truth, seed: int
) -> list[MethodRow]:
    from ..apps.anomaly.methods import baseline_rows, own_rows

    rows = list(own_rows(detector, readings, truth, seed))
    if normals is not None:
        rows += baseline_rows(detector, normals, pixels, truth, seed, bar("baselines"))
    return rows


def _by_class(readings: Readings, classes: Sequence[str], alarms: Any, seed: int) -> dict[str, dict[str, Any]]:
    """Of every class, how many are found, and the AUROC against the normal images."""
    import numpy as np

    from ..apps.anomaly.auroc import auroc, shares
    from ..apps.anomaly.folders import GOOD

    labels = np.array(classes)
    normal = readings.anomaly[labels == GOOD]
    found = {}
    for label in sorted(set(classes)):
        mine = labels == label
        against = auroc(normal, readings.anomaly[mine], seed) if label != GOOD and len(normal) else None
        facts = {"images": int(mine.sum()), "alarms": asdict(shares(alarms[mine]))}
        found[label] = facts | {"auroc": None if against is None else asdict(against)}
    return found


def _write_scores(
    path: Path, detector: AnomalyDetector, readings: Readings, pictures: TestImages, alarms: Any, overwrite: bool
) -> None:
    """A row per image, the most anomalous first."""
    from ..apps.anomaly.threshold import p_values
    from ..data.table import table
    from ..files.atomic import write_text

    rows: list[Sequence[object]] = [["image", "class", "alarm", "anomaly", "p_value", *readings.scores]]
    chances = p_values(readings.anomaly, detector.calibration_anomaly_)
    for i in (-readings.anomaly).argsort(kind="stable").tolist():
        values = (readings.anomaly[i], chances[i], *(scores[i] for scores in readings.scores.values()))
        label = pictures.classes[i] if pictures.classes else ""
        rows.append([pictures.names[i], label, int(alarms[i]), *(f"{v:.4f}" for v in values)])
    write_text(path, table(rows), overwrite)


def _write_sheets(
    out: Path, detector: AnomalyDetector, readings: Readings, pictures: TestImages, alarms: Any, overwrite: bool
) -> list[str]:
    """Pictures beside their heat: the worst, the most normal, what was missed, what was called anomalous wrongly."""
    from ..apps.anomaly.heat import sheet
    from ..files.atomic import write_picture

    truth = pictures.truth
    order = (-readings.anomaly).argsort(kind="stable").tolist()
    chosen = [order, order[::-1]]
    if truth is not None:
        chosen += [
            [i for i in order[::-1] if truth.anomalous[i] and not alarms[i]],
            [i for i in order if alarms[i] and not truth.anomalous[i]],
        ]
    written = []
    for name, rows in zip(SHEETS, chosen, strict=False):
        rows = rows[:SHOWN]
        if len(rows):
            masks = [None if truth is None or truth.masks is None else truth.masks[i] for i in rows]
            pixels, heats = [pictures.pixels[i] for i in rows], [readings.heat[i] for i in rows]
            write_picture(out / name, sheet(pixels, heats, masks, detector.normal_heat_), overwrite)
            written.append(str(out / name))
        elif overwrite:  # one of an earlier call would not be of these images
            (out / name).unlink(missing_ok=True)
    return written


def _print(rows: Sequence[MethodRow], rate: float) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("", "AUROC"):
        table.add_column(column, no_wrap=True)
    for column in (f"false alarms (of {rate:.0%})", "found", "pixel AUROC", "PRO"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            row.method,
            "" if row.auroc is None else f"{row.auroc.value:.3f} ({row.auroc.low:.3f}-{row.auroc.high:.3f})",
            *("" if share is None else f"{share.value:.1%}" for share in (row.false_alarms, row.found)),
            *("" if row.places is None else f"{value:.3f}" for value in _localized(row)),
        )
    console().print(table)


def _localized(row: MethodRow) -> tuple[float, float]:
    return (0.0, 0.0) if row.places is None else (row.places.pixel_auroc, row.places.pro)


def _print_classes(classes: dict[str, dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table("class", "images", "alarms", "AUROC against good", box=None, header_style="dim", pad_edge=False)
    for name, facts in classes.items():
        value = facts["auroc"]
        told = "" if value is None else f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
        table.add_row(name, str(facts["images"]), f"{facts['alarms']['value']:.1%}", told)
    console().print(table)
