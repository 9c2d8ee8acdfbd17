"""Evaluation protocols: everything besides the model that a figure depends on. Only equal protocols compare."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config.plain import differences as fields_that_differ
from ..config.plain import from_dict
from ..errors import ConfigError
from ..images.profiles import STATED

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Protocol:
    """Everything besides the model that a figure depends on. Figures of different protocols are not comparable."""

    crop: str
    """the part of an image that is evaluated"""
    images: str
    """SHA-256 over the contents of the evaluated files, in order"""
    resize: str = "none"
    """resizing before the crop"""
    posterior: str = "mode"
    """mode, or sample with the seed of its noise"""
    colour: str = STATED
    """what is done to colour profiles"""
    rounding: str = "clamped and rounded to 8 bits"
    psnr: str = "per image over all channels, peak 255; mean over images, at most 100 dB each"
    ssim: str = "scikit-image, Gaussian 11x11, sigma 1.5, per channel; mean over images"
    ms_ssim: str = NOT_MEASURED
    """number of scales and weights"""
    lpips: str = NOT_MEASURED
    """the network, the version of its heads, and the hash of both"""
    features: str = NOT_MEASURED
    """feature space of the distances between sets, and its hash"""

    @property
    def digest(self) -> str:
        """SHA-256 over all fields, in hex: equal protocols have equal digests."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Protocol:
        """From JSON values. Errors: ConfigError for unknown fields."""
        return from_dict(cls, values)


def differences(a: Protocol, b: Protocol) -> tuple[str, ...]:
    """Every field that differs, with both values, as a phrase."""
    found = fields_that_differ(a, b)
    return tuple(f"{name.replace('_', '-')} ({_short(x)} and {_short(y)})" for name, (x, y) in found.items())


def check_alike(protocols: Mapping[str, Protocol]) -> None:
    """Errors: ConfigError for unlike protocols, naming every field that differs. protocols: by a result's title."""
    names = list(protocols)
    for name in names[1:]:
        if found := differences(protocols[names[0]], protocols[name]):
            raise ConfigError(
                f"{names[0]} and {name} were not measured alike, so their figures do not compare: they differ in "
                f"{', '.join(found)}; measure both in one call"
            )


def _short(value: str) -> str:
    """Hashes by their first 12 digits."""
    return " ".join(
        word[:12] if len(word) == 64 and set(word) <= set("0123456789abcdef") else word for word in value.split(" ")
    )
