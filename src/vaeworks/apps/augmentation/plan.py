"""Plan variants before anything is computed: their source images, weights and labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ...data import ImageFile
from ...errors import ConfigError, DataError, FormatError
from ...random_streams import PARTNERS, random_seed, random_uniforms

Method = Literal["noise", "interpolate", "mixup"]

METHODS: tuple[Method, ...] = get_args(Method)
"""noise: a sample of the posterior; interpolate: a mixture with an image of the same class; mixup: with an image of
another class."""

ALPHA = 0.4
"""Parameter of the Beta distribution of mixup's weights. Source: Zhang et al. 2017 (arXiv 1710.09412), with 0.1 to 0.4
for photographs."""

HALFWAY = 0.5
"""Largest weight of the partner in an interpolation: beyond, the result is a variant of the partner."""

MOST = 2**16
"""Most variants of one image, plus 1."""


@dataclass(frozen=True)
class Noise:
    """Standard deviation of samples: `temperature` times the posterior's or, for latents that are points, one per
    channel."""

    temperature: float | None = None
    std: tuple[float, ...] | None = None
    """in the latents' own units"""


@dataclass(frozen=True)
class Blend:
    """The sources of a variant."""

    rows: tuple[int, ...]
    """the image, and its partner if it has one"""
    weights: tuple[float, ...]
    """weights of their latents and labels; the image's is at least as large as its partner's"""
    draw: int
    """key of its noise: 32 bits of the image's content and the variant's number"""


def blends(
    method: Method, labels: Sequence[str], keys: Sequence[int], per_image: int, seed: int, alpha: float = ALPHA
) -> list[Blend]:
    """`per_image` blends of every image, in order.

    labels: a class per image. keys: 32 bits of each image's content, so that noise does not depend on the other images;
    the choice of partners does. alpha: parameter of mixup.
    Errors: ConfigError for a setting; DataError where an image has no partner.
    """
    if method not in METHODS:
        raise ConfigError(f"method {method!r} is not known; choose from {', '.join(METHODS)}")
    check_settings(per_image, alpha)
    _check_partners(method, labels)
    classes = np.array(labels)
    found = []
    for row, label in enumerate(labels):
        others = np.flatnonzero(classes == label if method == "interpolate" else classes != label)
        others = others[others != row]
        for number in range(per_image):
            draw = (keys[row] << 16) + number
            if method == "noise":
                found.append(Blend((row,), (1.0,), draw))
                continue
            which, way = random_uniforms(seed, PARTNERS, draw, 2)
            share = (
                HALFWAY * float(way) if method == "interpolate" else _share(alpha, random_seed(seed, PARTNERS, draw))
            )
            found.append(Blend((row, int(others[int(which * len(others))])), (1 - share, share), draw))
    return found


def check_settings(per_image: int, alpha: float = ALPHA) -> None:
    """Errors: ConfigError for a number of variants or an alpha out of range."""
    if not 1 <= per_image < MOST or not 0 < alpha < float("inf"):
        raise ConfigError(f"per_image (={per_image}) must be from 1 to {MOST - 1}, and alpha (={alpha}) positive")


def check_classes(method: Method, labels: Sequence[str]) -> None:
    """Check classes before any image is read. Errors: DataError where an image has no partner; ConfigError for a class
    that cannot be a folder's name."""
    for label in sorted(set(labels)):
        if not label or label.startswith(".") or re.search(r"[/\\:\0]", label):
            raise ConfigError(f"class {label!r} cannot be the name of a folder; rename it")
    _check_partners(method, labels)


def _check_partners(method: Method, labels: Sequence[str]) -> None:
    if method == "mixup" and len(set(labels)) < 2:
        raise DataError(f"all images are of one class, {labels[0]!r}; mixup needs two, take noise or interpolate")
    alone = [name for name, count in Counter(labels).items() if count < 2]
    if method == "interpolate" and alone:
        raise DataError(
            f"class {alone[0]!r} has one image, and nothing to interpolate to; give two of each class, or take noise"
        )


def _share(alpha: float, seed: int) -> float:
    """The partner's weight, at most a half: the smaller part of a draw from Beta(alpha, alpha)."""
    weight = float(np.random.default_rng(seed).beta(alpha, alpha))
    return min(weight, 1 - weight)


def soft_label(blend: Blend, labels: Sequence[str]) -> dict[str, float]:
    """The probability of each class in a blend."""
    found: dict[str, float] = {}
    for row, weight in zip(blend.rows, blend.weights, strict=True):
        found[labels[row]] = found.get(labels[row], 0.0) + weight
    return found


@dataclass(frozen=True)
class Variant:
    """A planned image, with everything that is needed to make it again."""

    file: str
    """its path below the output folder"""
    label: dict[str, float]
    """the probability of each class in it; they sum to 1"""
    method: Method
    sources: tuple[str, ...]
    """names of the source images; the variant has the first one's size"""
    digests: tuple[str, ...]
    """SHA-256 of their encoded bytes, in hex"""
    weights: tuple[float, ...]
    seed: int
    draw: int
    noise: Noise | None
    """None where there is none"""
    model: str
    """SHA-256 of the model, in hex"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Variant:
        """From JSON values. Errors: FormatError."""
        try:
            noise = values["noise"]
            plain: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
            }
            std = None if noise is None or noise["std"] is None else tuple(noise["std"])
            plain["noise"] = None if noise is None else Noise(noise["temperature"], std)
            return cls(**plain)
        except (KeyError, TypeError) as error:
            raise FormatError(f"a row is no provenance of `vaeworks augment`: {error}") from None


def plan(
    files: Sequence[ImageFile],
    labels: Sequence[str],
    method: Method,
    per_image: int,
    seed: int,
    noise: Noise | None,
    model: str,
    alpha: float = ALPHA,
) -> list[Variant]:
    """Plan all variants of a set of images: their sources, labels and names. Errors: those of `blends` and of
    `check_classes`."""
    check_classes(method, labels)
    keys = [int(file.digest[:8], 16) for file in files]
    taken: set[str] = set()
    found = []
    for blend in blends(method, labels, keys, per_image, seed, alpha):
        row = blend.rows[0]
        places = [files[r] for r in blend.rows]
        name = _free_name(f"{labels[row]}/{_stem(files[row])}-{method}-{blend.draw % MOST:03}", taken)
        found.append(
            Variant(
                name,
                soft_label(blend, labels),
                method,
                tuple(str(place.path) for place in places),
                tuple(place.digest for place in places),
                blend.weights,
                seed,
                blend.draw,
                noise,
                model,
            )
        )
    return found


def _stem(file: ImageFile) -> str:
    return re.sub(r"[^\w.-]", "_", Path(str(file.path)).stem)


def _free_name(name: str, taken: set[str]) -> str:
    """A PNG file of this name, numbered if the name is taken."""
    found, number = f"{name}.png", 1
    while found in taken:
        number += 1
        found = f"{name}-{number}.png"
    taken.add(found)
    return found
