"""Compare latents with other features where few labels are known: the function behind `vaeworks features`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from ...arguments import several
from ...config import dumps
from ...data.inputs import Images, warn_of_skipped
from ...data.table import table
from ...data.trained_on import sentence
from ...errors import ConfigError
from ...files.atomic import atomic, write_tensors, write_text
from ...files.outputs import check_free, make_folder
from ...images.channels import check_pictures
from ...metrics.feature_spaces import load_features
from ...pages import chart
from ...pages.call import Call
from ...pages.gallery import REPORT, Gallery, GallerySection, PageTable, page_place, write_gallery
from ...reporting import SILENT, Reporter
from ...runtime.opening import Model, name_of, open_model
from ..accuracies import accuracy
from ..codes import Codes, encode_squares
from ..labelled_images import check_seed_and_size, labelled_images, square_side
from .few_labels import RepresentationRow, charts, check_features, curves, few_labels, representations
from .label_splits import check_labels, draw_labels
from .latent_features import Pool, feature_names, pooled

RECORD, CHARTS = "features.json", ("linear-probe.svg", "neighbours.svg")

Written: TypeAlias = Literal["safetensors", "npy"]
"""File formats of features."""


@dataclass(frozen=True)
class FeatureComparison:
    """How well classifiers do on each representation."""

    model: str
    data: str
    size: int
    """side of the squares in pixels"""
    pool: Pool
    seed: int
    images: int
    tested: int
    """images of the test half"""
    classes: Sequence[str]
    chance: float
    """accuracy of always naming the most common class"""
    choices: int
    """times that labels were chosen anew"""
    representations: Mapping[str, str]
    """a description of each"""
    rows: Sequence[RepresentationRow]
    """accuracies, by classifier and representation"""
    features: Path | None = None
    """the file with the latents' features; None where it is not written"""
    page: Path | None = None
    """the page with the charts; None where it is not written"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as in features.json."""
        values = asdict(self)
        places = {name: str(place) for name in ("features", "page") if (place := values.pop(name)) is not None}
        return values | places


def compare_features(
    model: Model,
    data: Images = "digits",
    out: str | Path | None = None,
    *,
    labels: str | None = None,
    counts: Sequence[int] = (1, 5, 10, 50),
    choices: int = 10,
    size: int | None = None,
    pool: Pool = "none",
    features: str | None = None,
    features_weights: str | Path | None = None,
    write: Written | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> FeatureComparison:
    """Compare latents with pixels and principal components as features for classifiers with few labels.

    >>> result = vw.compare_features("runs/digits", "digits", counts=(1, 5))
    >>> result.rows[0].accuracy[5]                      # of a linear probe on latents, with 5 labels per class

    model: a run folder, a VAE file or folder, hf:OWNER/NAME, or an autoencoder. data: a data source whose images have
    classes. out: the folder for features.json, report.html, two charts and the features; None: write nothing.
    labels: the classes: "folders", "names" or a CSV file; None: folders where there are any. counts: numbers of labels
    per class. choices: times that labels are chosen anew; intervals are over these choices.
    size: side in pixels of the central squares that images become; None: about their own, 256 at most. pool: how
    latents become features, as in `LatentFeatures`. features: also compare a network that was trained with labels, by
    its name, with the file of its weights. write: also write the latents' features to `out`, with their names and
    labels.
    seed: of the choice of labels and of the classifiers. settings: facts about the model that its file lacks, as
    keywords of `vw.load`. overwrite: replace existing results.

    Returns accuracies on the test half with intervals, for each classifier and representation.
    Errors: ConfigError for settings that cannot be, or existing results; DataError for images without classes, or too
    few of a class; those of `vw.load`.
    """
    call = Call("features", compare_features, dict(locals()), ("model",))
    check_seed_and_size(seed, size)
    folder = None if out is None else Path(out)
    _check_output(folder, write, overwrite)
    images, classes = labelled_images(data, labels, reporter)
    counts = several(counts)
    check_labels(classes, counts, choices)
    autoencoder = open_model(model, settings)
    check_pictures(autoencoder.config, writes=False)
    if said := sentence(autoencoder.trained_on, images.files):
        reporter.warn(f"{said}, without their labels; PCA sees all of them as well")
    side = square_side(images, size, autoencoder.downsample_factor)
    network = None if features is None else load_features(features, features_weights, say=reporter.step)
    if network is not None:
        check_features(network, side)
    codes = encode_squares(autoencoder, images, side, classes, partial(reporter.track, what="images"))
    warn_of_skipped(codes.skipped, reporter)
    draws = draw_labels(codes.pixels, codes.labels, counts, choices, seed)
    kinds = representations(codes, pool, network, partial(reporter.track, what="features"))
    rows = few_labels(kinds, draws, seed, partial(reporter.track, what="classifiers"))
    result = FeatureComparison(
        model=name_of(model),
        data=images.source,
        size=side,
        pool=pool,
        seed=seed,
        images=len(codes),
        tested=len(draws.test),
        classes=list(draws.classes),
        chance=draws.chance,
        choices=choices,
        representations={kind.name: kind.stated for kind in kinds},
        rows=rows,
        features=folder / f"features.{write}" if folder and write else None,
        page=page_place(folder, reporter),
    )
    if folder is not None:
        make_folder(folder)
        if write is not None:
            _write_features(folder, codes, pool, write, overwrite)
        write_text(folder / RECORD, dumps(result.to_dict()) + "\n", overwrite)
        for name, svg in zip(CHARTS, charts(rows, draws.chance).values(), strict=True):
            write_text(folder / name, svg, overwrite)
        write_gallery(result.page, _gallery(result, call), overwrite, reporter)
    return result


def _gallery(result: FeatureComparison, call: Call) -> Gallery:
    counts = list(result.rows[0].accuracy)
    header = ("classifier and representation", "numbers", *(f"{count} per class" for count in counts))
    rows = [
        [f"{row.classifier}, {row.representation}", str(row.dimensions), *map(accuracy, row.accuracy.values())]
        for row in result.rows
    ]
    drawn = [
        chart(f"accuracy, {name}", lines, levels={"chance": result.chance}, x_label="labels per class", newest=False)
        for name, lines in curves(result.rows).items()
    ]
    text = f"Mean of {result.choices} choices of labels, ± half of Student's 95 % interval over these choices."
    told = PageTable(("representation", ""), [[name, said] for name, said in result.representations.items()])
    sections = [GallerySection("Accuracy", text, tables=[PageTable(header, rows)], charts=drawn)]
    sections.append(GallerySection("Representations", "", tables=[told]))
    lead = (
        f"{result.images:,} images of {result.data}, {result.size} px, in {len(result.classes)} classes; "
        f"{result.tested:,} are tested. Always naming the most common class is right on {result.chance:.1%}."
    )
    files = {RECORD: "all figures", **dict.fromkeys(CHARTS, "a chart"), "features.csv": "images and labels"}
    files |= {} if result.features is None else {result.features.name: "the features"}
    return Gallery("Learning from few labels", lead, call, sections, result.to_dict(), files=files)


def _check_output(out: Path | None, write: Written | None, overwrite: bool) -> None:
    if out is None:
        if write is not None:
            raise ConfigError(f"write (={write!r}) needs a folder; give out")
        return
    stored = [] if write is None else [f"features.{write}", "features.csv"]
    check_free(out, [RECORD, REPORT, *CHARTS, *stored], overwrite)


def _write_features(out: Path, codes: Codes, pool: Pool, kind: Written, overwrite: bool) -> None:
    """Write features n d with their names, and a CSV file with a row per image."""
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
