"""Train classifiers on few labels with latents as features, beside pixels, principal components and a network that was
trained with labels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError
from ...intervals import Interval, student
from ...metrics.feature_spaces import Features
from ...pages import chart_file
from ..anomaly.extractors import PcaExtractor
from ..codes import Codes, Track
from .label_splits import Draws
from .latent_features import Pool, pooled

Array = NDArray[Any]

LATENTS, PIXELS, COMPONENTS = "latents", "pixels", "PCA of pixels"

LINEAR, NEAREST = "linear probe", "neighbours"

NEIGHBOURS = 5
"""Neighbours in a vote; at most the number of labels per class."""

FOLDS = 5
"""Folds of the cross-validation that chooses C, and the fewest labels per class for it."""

FIXED = 10.0
"""C without cross-validation; rows have a mean squared length of 1."""

TRIED = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Values of C that cross-validation chooses from."""


@dataclass(frozen=True, eq=False)
class Representation:
    """Features of all images."""

    name: str
    stated: str
    """description in a few words"""
    rows: Array
    """float32 n d: centred, with a mean squared length of 1 over all images"""


@dataclass(frozen=True)
class RepresentationRow:
    """Accuracies of one classifier on one representation."""

    representation: str
    classifier: str
    dimensions: int
    each: Mapping[int, tuple[float, ...]]
    """accuracy on the test half, by count per class, for every choice of labels"""
    accuracy: Mapping[int, Interval]
    """mean over choices"""
    gain: Mapping[int, Interval]
    """mean difference to pixels with the same classifier, paired over choices"""
    c: Mapping[int, tuple[float, ...]]
    """C of the linear probe, for every choice of labels; empty for neighbours"""


def representations(
    codes: Codes, pool: Pool = "none", features: Features | None = None, track: Track = iter
) -> list[Representation]:
    """Latents, pixels, principal components and, if given, a network's features of the same images.

    Principal components are fitted on all images without labels, as the VAE is.
    """
    pixels = codes.pixels.flatten(1).numpy().astype(np.float32) / np.float32(255)
    found = [
        (LATENTS, f"means of the posteriors, pool {pool}", pooled(codes.mean.numpy(), pool)),
        (PIXELS, "as they are", pixels),
        (COMPONENTS, "that keep 90 % of the variance of all images", _components(pixels)),
    ]
    if features is not None:
        found.append(
            (features.name, features.stated, np.stack([features(image) for image in track(list(codes.pixels))]))
        )
    return [Representation(name, stated, normalized(rows)) for name, stated, rows in found]


def check_features(features: Features, size: int) -> None:
    """Errors: ConfigError for a network that needs larger images than `size` pixels."""
    if features.smallest > size:
        raise ConfigError(
            f"features {features.name!r} take images of at least {features.smallest} px, these have {size}; give --size"
        )


def _components(rows: Array) -> Array:
    return PcaExtractor.fitted(rows).latents(rows)[:, :, 0, 0]


def normalized(rows: Array) -> Array:
    """Rows n d, centred and divided by one number, so that their mean squared length is 1 and C means the same for all
    representations."""
    centred = np.subtract(rows, rows.mean(0, dtype=np.float64), dtype=np.float64)
    length = np.sqrt(np.einsum("nd,nd->", centred, centred) / len(rows))
    centred /= length or 1
    return centred.astype(np.float32)


def linear_probe(x: Array, y: Array, test: Array, seed: int) -> tuple[Array, float]:
    """Multinomial logistic regression with an L2 penalty: classes of test rows, and its C.

    C is FIXED where a class has fewer than FOLDS labels, else chosen from TRIED by stratified cross-validation. Rows
    are first projected onto the span of the labelled rows: the penalized solution lies in it, so the projection only
    saves time.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    centre = x.mean(0)
    _, sizes, basis = np.linalg.svd((x - centre).astype(np.float64), full_matrices=False)
    basis = basis[: max(1, int((sizes > sizes[0] * 1e-6).sum()))]
    known, asked = (x - centre) @ basis.T, (test - centre) @ basis.T
    classifier = LogisticRegression(C=FIXED, max_iter=500, tol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of separable rows: weights grow, the classes stay
        if np.bincount(y).min() < FOLDS:
            return classifier.fit(known, y).predict(asked), FIXED
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        search = GridSearchCV(classifier, {"C": TRIED}, cv=folds).fit(known, y)
    return search.predict(asked), float(search.best_params_["C"])


def nearest_neighbours(x: Array, y: Array, test: Array) -> Array:
    """Classes of test rows by a vote of the nearest labelled rows, weighted by 1 / distance."""
    from sklearn.neighbors import KNeighborsClassifier

    count = min(NEIGHBOURS, int(np.bincount(y).min()))
    return KNeighborsClassifier(count, weights="distance", algorithm="brute").fit(x, y).predict(test)


def few_labels(
    representations: Sequence[Representation], draws: Draws, seed: int = 0, track: Track = iter
) -> list[RepresentationRow]:
    """Train and test both classifiers on every representation, with the same labels and test images."""
    tasks = [
        (r, choice, count)
        for r in representations
        for choice, by_count in enumerate(draws.labelled)
        for count in by_count
    ]
    right: dict[tuple[str, str, int], list[float]] = {}
    chosen: dict[tuple[str, int], list[float]] = {}
    truth = draws.targets[draws.test]
    for representation, choice, count in track(tasks):
        rows = draws.labelled[choice][count]
        x, y, test = representation.rows[rows], draws.targets[rows], representation.rows[draws.test]
        found, c = linear_probe(x, y, test, seed + choice)
        chosen.setdefault((representation.name, count), []).append(c)
        for name, classes in ((LINEAR, found), (NEAREST, nearest_neighbours(x, y, test))):
            right.setdefault((representation.name, name, count), []).append(float((classes == truth).mean()))
    counts = list(draws.labelled[0])

    def row(r: Representation, classifier: str) -> RepresentationRow:
        each = {count: tuple(right[r.name, classifier, count]) for count in counts}
        gains = {count: student(np.subtract(each[count], right[PIXELS, classifier, count])) for count in counts}
        c = {count: tuple(chosen[r.name, count]) for count in counts} if classifier == LINEAR else {}
        return RepresentationRow(
            r.name,
            classifier,
            r.rows.shape[1],
            each,
            {count: student(values) for count, values in each.items()},
            gains,
            c,
        )

    return [row(r, classifier) for classifier in (LINEAR, NEAREST) for r in representations]


def curves(rows: Sequence[RepresentationRow]) -> dict[str, dict[str, list[tuple[float, float | None]]]]:
    """By classifier and representation, the accuracy over the number of labels per class."""
    return {
        classifier: {
            row.representation: [(float(count), interval.value) for count, interval in row.accuracy.items()]
            for row in rows
            if row.classifier == classifier
        }
        for classifier in (LINEAR, NEAREST)
    }


def charts(rows: Sequence[RepresentationRow], chance: float) -> dict[str, str]:
    """An SVG file for each classifier: accuracy over labels per class, a line for every representation."""
    return {
        classifier: chart_file(f"accuracy, {classifier}", lines, levels={"chance": chance}, x_label="labels per class")
        for classifier, lines in curves(rows).items()
    }
