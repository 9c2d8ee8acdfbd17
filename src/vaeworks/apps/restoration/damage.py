"""Damage intact images, so that the restoration can be compared with the truth."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...errors import ConfigError

SCRATCHES = 12
"""Number of straight scratches, each 1/100 of the shorter side wide."""

BLOCK = 0.25
"""Side of a missing block, as a share of the image's sides."""

SALT = 0.5
"""Share of missing pixels, drawn independently."""

TEXT = "vaeworks restores what a picture was"
"""Text over an image, in letters of 1/14 of its height."""


@dataclass(frozen=True, eq=False)
class Damage:
    """A damaged image, with its mask and noise."""

    image: Tensor
    """uint8 c h w"""
    missing: Tensor
    """bool h w: pixels whose values are lost"""
    noise: float = 0.0
    """standard deviation of the noise in the other pixels, in gray levels"""

    @property
    def region(self) -> Tensor:
        """bool h w: where the image is damaged; everywhere, if it is noisy."""
        return torch.ones_like(self.missing) if self.noise else self.missing


def parse_plant(how: str) -> tuple[tuple[str, ...], float]:
    """The masks and the noise in a description such as "block", "noise:25" or "scratches+noise:10".

    Errors: ConfigError for anything else.
    """
    masks, noise = [], 0.0
    for word in how.split("+"):
        name, _, value = word.partition(":")
        if name in MASKS and not value:
            masks.append(name)
        elif name == "noise":
            noise = parse_noise(value)
        else:
            raise ConfigError(
                f"damage {word!r} is not known; choose from {', '.join(MASKS)} and noise:SIGMA, joined by +"
            )
    return tuple(masks), noise


def parse_noise(value: float | str) -> float:
    """A standard deviation in gray levels. Errors: ConfigError for a value that is none."""
    try:
        sigma = float(value)
    except ValueError:
        sigma = -1.0
    if not 0 < sigma <= 128:
        raise ConfigError(
            f"noise {value!r} must be a standard deviation in gray levels, above 0 and at most 128, such as 25"
        )
    return sigma


def plant(image: Tensor, how: str, seed: int = 0) -> Damage:
    """Damage an image uint8 c h w. The damage depends on its pixels, on `how` (`parse_plant`) and on the seed alone.

    Noise is Gaussian, rounded and clipped to 8 bits, as in a camera. Missing pixels are painted over.
    """
    masks, noise = parse_plant(how)
    key = int.from_bytes(hashlib.sha256(image.numpy().tobytes()).digest()[:8], "little")
    rng = np.random.default_rng([seed, key])
    height, width = image.shape[-2:]
    missing = np.zeros((height, width), bool)
    for name in masks:
        missing |= MASKS[name](height, width, rng)
    damaged = image.numpy() + rng.normal(0, noise, image.shape) if noise else image.numpy()
    paint = np.where(rng.random((height, width)) < 0.5, 0, 255) if "salt" in masks else np.full((height, width), 255)
    damaged = np.where(missing, paint, np.clip(np.round(damaged), 0, 255))
    return Damage(torch.from_numpy(damaged.astype(np.uint8)), torch.from_numpy(missing), noise)


def _scratches(height: int, width: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    sheet = Image.new("L", (width, height))
    draw = ImageDraw.Draw(sheet)
    thick = max(1, round(min(height, width) / 100))
    for _ in range(SCRATCHES):
        (x, y), angle = rng.random(2) * (width, height), rng.random() * np.pi
        reach = np.array([np.cos(angle), np.sin(angle)]) * max(height, width) * rng.uniform(0.1, 0.5)
        draw.line((x - reach[0], y - reach[1], x + reach[0], y + reach[1]), fill=255, width=thick)
    return np.asarray(sheet) > 0


def _block(height: int, width: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A block that touches no border."""
    h, w = (max(1, round(BLOCK * side)) for side in (height, width))
    top, left = (
        int(rng.integers(min(1, side - part), max(1, side - part) + (side == part)))
        for side, part in ((height, h), (width, w))
    )
    missing = np.zeros((height, width), bool)
    missing[top : top + h, left : left + w] = True
    return missing


def _salt(height: int, width: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    return np.asarray(rng.random((height, width)) < SALT)


def _text(height: int, width: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    sheet = Image.new("L", (width, height))
    draw = ImageDraw.Draw(sheet)
    letters = max(6, round(height / 14))
    font = ImageFont.load_default(letters)
    for top in range(int(rng.integers(letters)), height, 3 * letters):
        draw.text(
            (-int(rng.integers(letters)), top),
            f"{TEXT} " * (1 + width // (letters * len(TEXT) // 3)),
            fill=255,
            font=font,
        )
    return np.asarray(sheet) > 127


MASKS: dict[str, Callable[[int, int, np.random.Generator], NDArray[np.bool_]]] = {
    "scratches": _scratches, "block": _block, "salt": _salt, "text": _text,
}  # fmt: skip
"""Functions from height, width and a random generator to missing pixels, bool h w, by name."""
