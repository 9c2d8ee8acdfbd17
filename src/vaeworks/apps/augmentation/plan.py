"""Which images a variant is made of, by what weights, and what its label is: decided before anything is computed."""

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
"""noise: a sample of the posterior; interpolate: towards an image of the same class; mixup: towards one of another
class."""

ALPHA = 0.4
"""Of the Beta distribution of mixup's weights. Source: Zhang et al. 2017 (arXiv 1710.09412), who take 0.1 to 0.4 for
photographs."""

HALFWAY = 0.5
"""How far towards another image of its class one goes at most: beyond, it is the other's variant."""

MOST = 2**16
"""Variants of one image, at most."""


@dataclass(frozen=True)
class Noise:
    """How far samples go: `temperature` times the posterior's std or, for latents that are points, a std for every
    channel."""

    temperature: float | None = None
    std: tuple[float, ...] | None = None
    """in the latents' own units"""


@dataclass(frozen=True)
class Blend:
    """What a variant is made of."""

    rows: tuple[int, ...]
    """the image, and its partner where there is one"""
    weights: tuple[float, ...]
    """of their latents and labels; the image's own is at least as large as its partner's"""
    draw: int
    """key of its noise: 32 bits of the image's content and the variant's number"""


def blends(
    method: Method, labels: Sequence[str], keys: Sequence[int], per_image: int, seed: int, alpha: float = ALPHA
) -> list[Blend]:
    """`per_image` blends of every image, in order.

    labels: a class per image. keys: 32 bits of its content each; so noise does not depend on which other images there
    are, and only the choice of partners does. alpha: of mixup.
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
    """Errors: ConfigError for a number of variants or an alpha that cannot be."""
    if not 1 <= per_image < MOST or not 0 < alpha < float("inf"):
        raise ConfigError(f"per_image (={per_image}) must be from 1 to {MOST - 1}, and alpha (={alpha}) positive")


def check_classes(method: Method, labels: Sequence[str]) -> None:
    """Before any image is read. Errors: DataError where an image has no partner; ConfigError for a class that cannot be
    a folder."""
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
    """A partner's, at most a half: the smaller part of a draw from Beta(alpha, alpha)."""
    weight = float(np.random.default_rng(seed).beta(alpha, alpha))
    return min(weight, 1 - weight)


def soft_label(blend: Blend, labels: Sequence[str]) -> dict[str, float]:
    """A probability for each class that is in a blend."""
    found: dict[str, float] = {}
    for row, weight in zip(blend.rows, blend.weights, strict=True):
        found[labels[row]] = found.get(labels[row], 0.0) + weight
    return found


@dataclass(frozen=True)
class Variant:
    """An image to be made, with all that it takes to make it again."""

    file: str
    """its place below the folder"""
    label: dict[str, float]
    """a probability for each class that is in it; they sum to 1"""
    method: Method
    sources: tuple[str, ...]
    """names of the images' places; the variant has the first one's size"""
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
    """Every variant of a set of images: which are in it, its label, its name. Errors: those of `blends` and of
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
    """A PNG of this name; numbered where images of equal names are of one class."""
    found, number = f"{name}.png", 1
    while found in taken:
        number += 1
        found = f"{name}-{number}.png"
    taken.add(found)
    return found
