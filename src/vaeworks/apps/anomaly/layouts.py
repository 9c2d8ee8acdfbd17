"""Convert scikit-learn's X, in any layout, to images n c h w."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data
from torch import Tensor

from ...errors import ConfigError, DataError
from ...images import is_pixels

CHANNELS = 1, 3


def image_layout(shape: Sequence[int]) -> tuple[int, int, int]:
    """The axes of channels, height and width in a shape h w, h w c or c h w; -1 for channels in h w.

    Errors: ConfigError for any other shape; there are 1 or 3 channels.
    """
    if len(shape) == 2:
        return -1, 0, 1
    if len(shape) == 3 and shape[2] in CHANNELS:
        return 2, 0, 1
    if len(shape) == 3 and shape[0] in CHANNELS:
        return 0, 1, 2
    raise ConfigError(f"images cannot have the shape {tuple(shape)}; give h w, h w c or c h w with 1 or 3 channels")


def as_images(x: NDArray[Any], image_shape: Sequence[int] | None) -> NDArray[Any]:
    """Images n c h w of n h w c, n c h w or n h w; or of rows n d, which `image_shape` unfolds (None: n 1 1 d, the rows
    of a table).

    Errors: ConfigError for another shape.
    """
    if x.ndim == 2:
        if image_shape is None:
            return x[:, None, None]
        if np.prod(image_shape) != x.shape[1]:
            raise ConfigError(
                f"image_shape (={tuple(image_shape)}) has {np.prod(image_shape)} values, a row of X has {x.shape[1]}"
            )
        x = x.reshape(len(x), *image_shape)
    channels, height, width = image_layout(x.shape[1:])
    if channels < 0:
        return x[:, None]
    return np.ascontiguousarray(x.transpose(0, channels + 1, height + 1, width + 1))


def validated(
    estimator: BaseEstimator, x: ArrayLike, image_shape: Sequence[int] | None, channels: int | None, reset: bool
) -> NDArray[Any]:
    """Images n c h w of an estimator's X: uint8 with `channels` for an autoencoder, float64 without one (None).

    reset: as in scikit-learn's `validate_data`.
    Errors: ConfigError, DataError; ValueError and TypeError of scikit-learn.
    """
    first = x[0] if isinstance(x, (list, tuple)) and x else x
    if isinstance(first, (str, bytes, Path)):
        raise ConfigError(
            "X must be images in an array n h w c, not the name of a source; `vaeworks.detect_anomalies` takes folders"
        )
    if isinstance(x, Tensor):
        x = x.detach().cpu().numpy()
    elif isinstance(x, Image.Image):
        x = _stacked([x])
    elif isinstance(x, (list, tuple)) and any(is_pixels(one) and np.ndim(one) != 1 for one in x):
        x = _stacked(x)
    if getattr(x, "ndim", 2) > 2:
        array = validate_data(estimator, np.asarray(x), reset=reset, dtype=None, ensure_2d=False, allow_nd=True)
    else:
        array = validate_data(estimator, x, reset=reset, dtype="numeric")
    if channels is None:
        return as_images(array, image_shape).astype(np.float64)
    if array.ndim == 2 and image_shape is None:
        raise ConfigError(
            f"X has rows of {array.shape[1]} values; an autoencoder needs image_shape=(h, w), (h, w, c) or (c, h, w)"
        )
    return as_pixels(as_images(array, image_shape), channels)


def _stacked(images: Sequence[Any]) -> NDArray[Any]:
    """An array of Pillow images, arrays or tensors. Errors: ConfigError for unlike sizes."""
    arrays = [image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image) for image in images]
    if len({array.shape for array in arrays}) > 1:
        raise ConfigError(f"images of X have unlike shapes, {arrays[0].shape} and others; resize them to one size")
    return np.stack(arrays)


def as_pixels(images: NDArray[Any], channels: int) -> NDArray[np.uint8]:
    """uint8 n `channels` h w of images n c h w with values in 0..255. A gray channel is repeated for a network of
    colours.

    Errors: DataError for other values; ConfigError for colours where the network takes gray.
    """
    if images.shape[1] != channels:
        if images.shape[1] != 1:
            raise ConfigError(f"images have {images.shape[1]} channels, the autoencoder takes {channels}; convert them")
        images = np.repeat(images, channels, axis=1)
    if images.dtype == np.uint8:
        return images
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 255 or (0 < high <= 1 and images.dtype.kind == "f"):
        raise DataError(
            f"pixels must be uint8, or have values in 0..255; these are {images.dtype} in {low:g}..{high:g}; "
            + ("multiply them by 255" if low >= 0 else "multiply (x + 1) by 127.5" if low >= -1 else "convert them")
        )
    return np.round(images).astype(np.uint8)
