"""Photographs on every machine: scikit-image and scikit-learn contain them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

SCIKIT_IMAGE = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
    "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
"""Files in skimage/data. Of the stereo pair only the left photograph is used, so that no held-out one has a twin."""

SCIKIT_LEARN = ("china.jpg", "flower.jpg")
"""Files in sklearn/datasets/images."""


def photos() -> list[Path]:
    """Paths of the 16 bundled photographs, 10 in colour and 6 in gray, 300 to 1411 pixels on their shorter side."""
    return [
        *(_folder("skimage") / "data" / name for name in SCIKIT_IMAGE),
        *(_folder("sklearn") / "datasets" / "images" / name for name in SCIKIT_LEARN),
    ]


def _folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None  # both are required dependencies
    return Path(spec.origin).parent
