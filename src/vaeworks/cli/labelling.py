"""Commands for classes: features, what latents are worth where few labels are known; augment, new images for
training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from ..config import dumps
from ..data.inputs import data_source, warn_of_skipped
from ..errors import ConfigError, MissingExtraError
from ..files.outputs import check_free, make_folder
from .console import TERMINAL, bar, console
from .options import Data, Memory, Model, Out, Overwrite, Precision, Told
from .paths import check_seed, codec, placed

if TYPE_CHECKING:
    from ..apps.augmentation.judgement import TrainingArm
    from ..apps.augmentation.plan import Noise
    from ..apps.codes import Codes
    from ..apps.features.few_labels import RepresentationRow
    from ..apps.features.label_splits import Draws
    from ..data import ImageSet
    from ..intervals import Interval
    from ..models import Autoencoder
    from ..runtime import Codec

Labels = Annotated[
    str | None, arg(metavar="HOW", help="folders, names, or a CSV file; by default folders where there are any")
]
Seed = Annotated[int, arg(help="of everything random")]

RECORD = "features.json"
JUDGED = "judge.json"

LARGEST = 256
"""Side in pixels of the squares that images become by default, at most."""

LEVEL = 0.2
"""Of noise for latents that are points, in stds of their channels, where none is given."""

PROBED = 8
"""Images on which the variants' variety is measured."""


def features(
    model: Model,
    out: Out,
    data: Data = "digits",
    labels: Labels = None,
    counts: Annotated[tuple[int, ...], arg(metavar="N", help="labels of each class")] = (1, 5, 10, 50),
    choices: Annotated[int, arg(help="times that labels are chosen anew; the intervals are over these")] = 10,
    size: Annotated[
        int | None, arg(metavar="PX", help="side of the middle squares that images become; by default about their own")
    ] = None,
    pool: Annotated[
        Literal["none", "mean", "mean-std", "pyramid"], arg(help="latents as they are, or summed up over places")
    ] = "none",
    features: Annotated[
        str | None,
        arg(
            metavar="NET",
            help="also the features of a network that saw labels: mobilenetv2, inception, MODULE:FUNCTION, ...",
        ),
    ] = None,
    features_weights: Annotated[Path | None, arg(metavar="PATH", help="that network's weights")] = None,
    write: Annotated[
        Literal["safetensors", "npy"] | None, arg(help="also write the latents' features, with names and labels")
    ] = None,
    seed: Seed = 0,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """What latents are worth as features where few labels are known: beside pixels and PCA, with intervals over the
    choice of labels."""
    from ..apps.codes import encode_squares
    from ..apps.features.few_labels import charts, check_features, few_labels, representations
    from ..apps.features.label_splits import check_labels, draw_labels
    from ..files.atomic import write_text
    from ..metrics.feature_spaces import load_features

    _check(seed, size)
    stored = [] if write is None else [f"features.{write}", "features.csv"]
    check_free(out, [RECORD, *CHARTS, *stored], overwrite)
    if find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "report", "the charts")
    images, classes = _labelled(data, labels)
    check_labels(classes, counts, choices)
    autoencoder = placed(model, told)
    side = _side(images, size, autoencoder.downsample_factor)
    network = None if features is None else load_features(features, features_weights, say=console().print)
    if network is not None:
        check_features(network, side)
    codes = encode_squares(autoencoder, images, side, classes, bar("images"))
    warn_of_skipped(codes.skipped, TERMINAL)
    draws = draw_labels(codes.pixels, codes.labels, counts, choices, seed)
    kinds = representations(codes, pool, network, bar("features"))
    rows = few_labels(kinds, draws, seed, bar("classifiers"))
    make_folder(out)
    result: dict[str, Any] = {
        "model": model,
        "data": data,
        "size": side,
        "pool": pool,
        "seed": seed,
        "images": len(codes),
        "tested": len(draws.test),
        "classes": list(draws.classes),
        "chance": draws.chance,
        "choices": choices,
        "representations": {kind.name: kind.stated for kind in kinds},
        "rows": [asdict(row) for row in rows],
    }
    if write is not None:
        _write_features(out, codes, pool, write, overwrite)
        result["features"] = str(out / stored[0])
    write_text(out / RECORD, dumps(result) + "\n", overwrite)
    for name, svg in zip(CHARTS, charts(rows, draws.chance).values(), strict=True):
        write_text(out / name, svg, overwrite)
    _print_rows(rows, draws)
    console().print(f"{out / CHARTS[0]} and {out / CHARTS[1]} show it; {out / RECORD} has every figure")
    return result


CHARTS = ("linear-probe.svg", "neighbours.svg")


def augment(
    model: Model,
    data: Data,
    out: Annotated[Path | None, arg(metavar="DIR", help="output folder; with --judge it may be left away")] = None,
    per_image: Annotated[int, arg(help="variants of each image")] = 4,
    how: Annotated[
        Literal["noise", "interpolate", "mixup"],
        arg(
            help="a sample of the posterior; towards an image of its class; towards one of another class, with a soft "
            "label"
        ),
    ] = "noise",
    labels: Labels = None,
    temperature: Annotated[
        float, arg(help="of samples: times the std of the posterior, or of --noise; 1 is the posterior itself")
    ] = 1.0,
    noise: Annotated[
        float | None,
        arg(
            help="noise of so many stds of the latents' channels in place of the posterior's; by default 0.2 for points"
        ),
    ] = None,
    alpha: Annotated[float, arg(help="of mixup's weights, from Beta(alpha, alpha)")] = 0.4,
    judge: Annotated[
        bool, arg(help="write no images: train classifiers with and without, and tell the difference")
    ] = False,
    counts: Annotated[tuple[int, ...], arg(metavar="N", help="--judge: labels of each class")] = (5, 20),
    choices: Annotated[int, arg(help="--judge: times that labels are chosen anew")] = 5,
    size: Annotated[
        int | None, arg(metavar="PX", help="--judge: side of the middle squares that images become")
    ] = None,
    flip: Annotated[bool, arg(help="--judge: pixels may be mirrored, which makes other digits")] = False,
    seed: Seed = 0,
    memory: Memory = None,
    precision: Precision = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """New training images from labelled ones, with soft labels and provenance; or with --judge, whether a classifier
    gains by them."""
    from ..apps.augmentation.plan import check_settings

    _check(seed, size)
    check_settings(per_image, alpha)
    for name, value in (("temperature", temperature), ("noise", noise)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{name} (={value}) must be positive")
    if judge:
        if out is not None:
            check_free(out, [JUDGED], overwrite)
        found = _judged(
            model, data, labels, counts, choices, size, per_image, temperature, noise, alpha, flip, seed, told
        )
        if out is not None:
            from ..files.atomic import write_text

            make_folder(out)
            write_text(out / JUDGED, dumps(found) + "\n", overwrite)
        return found
    if out is None:
        raise ConfigError("--out DIR is missing: the folder for the new images")
    from ..apps.augmentation import Renderer, write_folder
    from ..apps.augmentation.folder import RECORD, ROWS, check_folder
    from ..apps.augmentation.plan import check_classes, plan

    check_free(out, [RECORD], overwrite)
    images, classes = _labelled(data, labels)
    check_classes(how, classes)
    through = codec(model, memory, precision, told)
    used, level, spread = _probed(through, images, temperature, noise, seed) if how == "noise" else (None, None, None)
    render = Renderer(through, {str(file.path): file.path for file in images.files})
    variants = plan(images.files, classes, how, per_image, seed, used, render.model, alpha)
    check_folder(out, variants, overwrite)
    if spread is not None:
        _say_level(level, noise)
        _say_spread(spread)
    facts = {
        "model": model,
        "data": data,
        "method": how,
        "per_image": per_image,
        "seed": seed,
        "images": len(images.files),
        "variants": len(variants),
        "alpha": alpha if how == "mixup" else None,
        "noise": level,
        "temperature": None if used is None else temperature,
        "pixel_std": spread,
    }
    make_folder(out)
    kept = write_folder(out, variants, render, facts, overwrite, bar("images"))
    went_on = f", {kept} of them were there already" if kept else ""
    console().print(
        f"{out}: {len(variants)} images in {len(set(classes))} folders{went_on}; {out / ROWS} says what each is made of"
    )
    return {"out": str(out), **facts, "record": str(out / RECORD), "kept": kept}


def _check(seed: int, size: int | None) -> None:
    check_seed(seed)
    if size is not None and size < 1:
        raise ConfigError(f"size (={size}) must be at least 1")


def _labelled(data: str, how: str | None) -> tuple[ImageSet, tuple[str, ...]]:
    """Images and a class for each. Errors: DataError without classes."""
    from ..data import scan
    from ..data.labels import find_labels
    from ..errors import DataError

    images = scan(data_source(data, reporter=TERMINAL))
    for path, reason in images.skipped:
        console().print(f"skipped {path}: {reason}", style="yellow")
    classes = find_labels(images.files, how)
    if classes is None:
        raise DataError(
            f"the images of {data!r} have no classes; put them into folders, or give --labels names or a CSV file"
        )
    return images, classes


def _side(images: ImageSet, size: int | None, factor: int) -> int:
    """What is asked for, or the multiple of f next to the largest image's shorter side, up to LARGEST."""
    own = min(max(min(file.width, file.height) for file in images.files), LARGEST)
    return size if size is not None else max(1, round(own / factor)) * factor


def _write_features(out: Path, codes: Codes, pool: Any, kind: str, overwrite: bool) -> None:
    """Features n d, their names, and a row for every image."""
    import numpy as np
    import torch

    from ..apps.features.latent_features import feature_names, pooled
    from ..data.table import table
    from ..files.atomic import atomic, write_tensors, write_text

    rows = np.ascontiguousarray(pooled(codes.mean.numpy(), pool))
    write_text(
        out / "features.csv",
        table([("image", "label"), *zip(codes.names, codes.labels or [""] * len(codes), strict=True)]),
        overwrite,
    )
    with atomic(out / f"features.{kind}", overwrite) as temporary:
        if kind == "npy":
            with temporary.open("wb") as file:
                np.save(file, rows)
            return
        facts = {"features": feature_names(codes.mean.shape[1:], pool), "images": codes.names, "labels": codes.labels}
        write_tensors(
            temporary, {"features": torch.from_numpy(rows)}, {name: json.dumps(value) for name, value in facts.items()}
        )


def _judged(
    model: str,
    data: str,
    labels: str | None,
    counts: tuple[int, ...],
    choices: int,
    size: int | None,
    per_image: int,
    temperature: float,
    noise: float | None,
    alpha: float,
    flip: bool,
    seed: int,
    told: tuple[str, ...],
) -> dict[str, Any]:
    from ..apps.augmentation.judgement import SEEN, judge
    from ..apps.codes import encode_squares
    from ..apps.features.label_splits import check_labels, draw_labels

    images, classes = _labelled(data, labels)
    check_labels(classes, counts, choices)
    autoencoder = placed(model, told)
    side = _side(images, size, autoencoder.downsample_factor)
    codes = encode_squares(autoencoder, images, side, classes, bar("images"))
    warn_of_skipped(codes.skipped, TERMINAL)
    draws = draw_labels(codes.pixels, codes.labels, counts, choices, seed)
    used, level = _noise(autoencoder, codes.mean, bool(codes.std.any()), temperature, noise)
    _say_level(level, noise)
    arms = judge(
        autoencoder,
        codes,
        draws,
        used,
        per_image=per_image,
        alpha=alpha,
        flip=flip,
        seed=seed,
        track=bar("classifiers"),
    )
    _print_arms(arms, draws)
    return {
        "model": model,
        "data": data,
        "size": side,
        "per_image": per_image,
        "seed": seed,
        "images": len(codes),
        "choices": choices,
        "classes": list(draws.classes),
        "chance": draws.chance,
        "noise": level,
        "temperature": temperature,
        "alpha": alpha,
        "flip": flip,
        "classifier": f"a small CNN, {SEEN} images seen",
        "rows": [asdict(arm) for arm in arms],
    }


def _noise(
    autoencoder: Autoencoder, means: Any, spread: bool, temperature: float, level: float | None
) -> tuple[Noise, float | None]:
    """What samples go by, and its level where it is not the posterior's own. spread: whether posteriors have a std."""
    from ..apps.augmentation.plan import Noise
    from ..apps.generation.vary import latent_scale

    if level is None and spread:
        return Noise(temperature=temperature), None
    level = LEVEL if level is None else level
    return Noise(std=tuple((temperature * level * latent_scale(autoencoder, list(means))).tolist())), level


def _probed(
    through: Codec, images: ImageSet, temperature: float, noise: float | None, seed: int
) -> tuple[Noise, float | None, float]:
    """The noise and its level, and how many gray levels it makes between variants: of PROBED images, evenly spaced."""
    import torch

    from ..apps.codes import encode_picture
    from ..apps.generation.vary import disturbed, variants
    from ..data.image_ref import open_place
    from ..images import to_uint8

    chosen = images.files[:: max(1, len(images.files) // PROBED)][:PROBED]
    pictures = [to_uint8(open_place(file.path, through.autoencoder.config.in_channels)) for file in chosen]
    codes = [encode_picture(through, picture) for picture in pictures]
    used, level = _noise(
        through.autoencoder, [code.mean for code in codes], any(c.std.any() for c in codes), temperature, noise
    )
    if used.std is not None:
        codes = [disturbed(code, torch.tensor(used.std), 1.0) for code in codes]
    found = [variants(through, code, 3, used.temperature or 1.0, seed)[1] for code in codes]
    return used, level, (sum(v.pixel_std**2 for v in found) / len(found)) ** 0.5


def _say_level(level: float | None, given: float | None) -> None:
    if level is not None and given is None:
        console().print(
            f"this model's latents are points: noise of {level} stds of their channels; --noise sets it", style="yellow"
        )


def _say_spread(spread: float) -> None:
    from ..apps.generation.vary import ALIKE

    alike = spread < ALIKE
    remedy = ": they are all alike to the eye, and to a classifier; --noise 0.3 varies more" if alike else ""
    console().print(
        f"variants of an image differ by {spread:.2f} gray levels{remedy}", style="yellow" if alike else None
    )


def _print_rows(rows: Sequence[RepresentationRow], draws: Draws) -> None:
    """A line per classifier and representation."""
    from rich.table import Table

    console().print(
        f"{len(draws.classes)} classes, {len(draws.test)} test images; always naming the most common one: "
        f"{draws.chance:.1%}"
    )
    table = Table("", "", "d", box=None, header_style="dim", pad_edge=False)
    for count in rows[0].accuracy:
        table.add_column(f"{count} a class", justify="right")
    for row in rows:
        table.add_row(
            row.classifier, row.representation, str(row.dimensions), *(_shown(i) for i in row.accuracy.values())
        )
    console().print(table)
    console().print(
        f"accuracy, mean of {len(draws.labelled)} choices of labels, ± half of Student's 95 % interval", style="dim"
    )


def _print_arms(arms: Sequence[TrainingArm], draws: Draws) -> None:
    """A line per arm: accuracy, and the difference to copies."""
    from rich.table import Table

    tested = f"always naming the most common of {len(draws.classes)} classes: {draws.chance:.1%}"
    table = Table("", box=None, header_style="dim", pad_edge=False)
    for count in arms[0].accuracy:
        table.add_column(f"{count} a class", justify="right")
        table.add_column("against copies", justify="right")
    for one in arms:
        cells = [
            (_shown(one.accuracy[n]), _difference(one.gain[n]) if one is not arms[0] else "")
            if n in one.accuracy
            else ("", "")
            for n in arms[0].accuracy
        ]
        table.add_row(one.name, *(cell for pair in cells for cell in pair))
    console().print(table)
    console().print(
        f"accuracy of a small CNN, mean of {len(draws.labelled)} choices of labels and seeds, ± half of Student's 95 % "
        f"interval; {tested}",
        style="dim",
    )
    if 1 in arms[0].accuracy:
        console().print(
            "a single image of a class has no other to interpolate to: with 1 label there is no such arm", style="dim"
        )


def _shown(interval: Interval) -> str:
    width = (interval.high - interval.low) / 2
    return f"{interval.value:.1%}" + (f" ± {width:.1%}" if width == width else "")


def _difference(interval: Interval) -> str:
    """Percentage points, and whether the interval leaves 0 out."""
    width = (interval.high - interval.low) / 2
    told = "helps" if interval.low > 0 else "harms" if interval.high < 0 else "undecided"
    return f"{interval.value * 100:+.1f}" + (f" ± {width * 100:.1f}" if width == width else "") + f" {told}"
