"""Images as models take and return them: float tensors n c h w in [-1,1]; and errors that name the call to make one."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import ConfigError
from . import reading
from .pixels import from_model_range, square, to_model_range, to_pillow, to_uint8

ImageSource = str | Path | bytes | Image.Image | np.ndarray | Tensor
"""A file, its content, a Pillow image, an array h w or h w c, or a tensor c h w: uint8, or floats in [0,1]."""

Pixels = Image.Image | np.ndarray | Tensor
"""An image in memory, or several in an array n h w c or a tensor n c h w."""

BEYOND = 2.0
"""Largest value of floats that may still be meant for [-1,1]; floats in [0,255] have larger ones."""


def open_image(source: ImageSource, channels: int = 3, size: int | None = None) -> Tensor:
    """An image as a model takes it: a float32 tensor 1 c h w in [-1,1]. (`vaeworks.open_image`)

    source: a path, a file's content, a Pillow image, an array h w or h w c, or a tensor c h w. Arrays and tensors hold
    uint8, or floats in [0,1], which are rounded to 8 bits as in a file. EXIF orientation is applied, and transparent
    pixels become white. channels: 3, or 1 for a model of gray images. size: side in pixels of the square that is cut
    from the middle, its shorter side resized to it; None: the image's own size.

    >>> x = vw.open_image("dog.jpg", size=512)
    >>> vw.to_images(vae.reconstruct(x))[0].save("copy.png")

    Errors: DataError for a file that is no readable image; ConfigError for arrays of another type, range or shape.
    """
    if channels not in (1, 2, 3):
        raise ConfigError(f"channels (={channels}) must be 1, 2 or 3, as the model's in_channels")
    if size is not None and size < 1:
        raise ConfigError(f"size (={size}) must be at least 1 pixel")
    if isinstance(source, (str, Path, bytes)):
        image = reading.open_image(source, channels)
    elif channels == 2:
        raise ConfigError("an image of 2 channels is read from a file only; give its path")
    else:
        image = reading.converted(source if isinstance(source, Image.Image) else _pillow(source), channels)
    return to_model_range(to_uint8(image) if size is None else square(image, size))[None]


def to_images(images: Tensor) -> list[Image.Image]:
    """Pillow images of a tensor n c h w or c h w, in [-1,1] (clamped) or uint8. (`vaeworks.to_images`)

    >>> for image in vw.to_images(vae.decode(latents)):
    ...     display(image)

    Errors: ConfigError for another shape; NotFiniteError for infinities and NaN.
    """
    if not isinstance(images, Tensor):
        raise ConfigError(f"images must be a tensor n c h w, not {kind_of(images)}")
    batch = images[None] if images.ndim == 3 else images
    if batch.ndim != 4 or batch.shape[1] not in (1, 2, 3) or not batch.numel():
        raise ConfigError(
            f"images must have shape n c h w or c h w with 1 to 3 channels, not {tuple(images.shape)}; permute them"
        )
    if batch.dtype != torch.uint8 and not batch.is_floating_point():
        raise ConfigError(f"images must be floats in [-1,1] or uint8, not {kind_of(images)}")
    pixels = batch if batch.dtype == torch.uint8 else from_model_range(batch)
    return [to_pillow(image) for image in pixels.cpu()]


def check_images(images: Tensor, channels: int) -> None:
    """Errors: ConfigError for what is certainly no n c h w of floats; it names the call that makes one.

    Only type and shape are looked at, so that the check costs nothing on a GPU and is invisible to compilers.
    """
    wanted = f"a float tensor n {channels} h w in [-1,1]"
    call = f"`vaeworks.open_image(source{'' if channels == 3 else f', channels={channels}'})`"
    if not isinstance(images, Tensor):
        raise ConfigError(f"images must be {wanted}, not {kind_of(images)}; {call} makes one of files, PIL and arrays")
    shape = tuple(images.shape)
    if len(shape) not in (3, 4) or shape[-3] != channels:
        if len(shape) in (3, 4) and shape[-1] == channels:
            raise ConfigError(
                f"images must have shape n {channels} h w, not {shape}, whose channels come last; {call} turns an "
                f"array h w {channels} into one, or permute them"
            )
        raise ConfigError(f"images must have shape n {channels} h w, not {shape}; {call} makes them from files")
    if len(shape) == 3:
        raise ConfigError(
            f"images must have shape n {channels} h w, not {shape}, which has no batch axis; give images[None], or "
            f"open the file with {call}"
        )
    if not images.is_floating_point():
        raise ConfigError(f"images must be {wanted}, not {kind_of(images)}; {call} converts each of them")


def warn_of_range(images: Tensor) -> None:
    """A warning for floats that look like [0,1] or [0,255]. Called by a method that users hand images to.

    It is no error, because a bright image in [-1,1] looks the same. Only tensors on the CPU are looked at, because
    elsewhere the answer would have to be waited for; and only those of callers outside this package, which itself
    knows the range of its images.
    """
    if torch.compiler.is_compiling() or images.device.type != "cpu" or not images.numel():
        return
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        return
    caller = sys._getframe(2).f_globals.get("__name__", "")
    if caller.partition(".")[0] == __name__.partition(".")[0] or caller.startswith("torch."):
        return
    low, high = (value.item() for value in images.detach().aminmax())
    if not 0 <= low < high < float("inf"):  # not so of NaN either, which is reported elsewhere
        return
    if high <= 1:
        found = "lie in [0,1]"
    elif high > BEYOND:
        found = f"reach from {low:g} to {high:g}"
    else:
        return
    warnings.warn(
        f"the images {found}, and models take [-1,1]; `vaeworks.open_image` converts them (ignore this where they are "
        "that bright)",
        stacklevel=3,
    )


def is_pixels(value: object) -> bool:
    """Whether a value is an image in memory, or several of them."""
    return isinstance(value, Pixels)


def each_image(given: Iterable[Pixels]) -> Iterator[Image.Image]:
    """The images of Pillow images, arrays n h w c or h w c, and tensors n c h w or c h w, one by one.

    If any floats lie below 0, all floats are taken as [-1,1], a model's range; else as [0,1].
    Errors: ConfigError for another type, range or shape.
    """
    pictures = [_array(pixels) if isinstance(pixels, Tensor) else pixels for pixels in given]
    floats = [
        pixels for pixels in pictures if isinstance(pixels, np.ndarray) and pixels.dtype.kind == "f" and pixels.size
    ]
    signed = any(-1 <= values.min() < 0 for values in floats) and all(abs(values).max() <= 1 for values in floats)
    for pixels in pictures:
        if isinstance(pixels, Image.Image):
            yield pixels
            continue
        values = (pixels + 1) / 2 if signed and pixels.dtype.kind == "f" else pixels
        yield from map(_pillow, values if values.ndim == 4 else [values])


def _array(tensor: Tensor) -> np.ndarray:
    """An array n h w c or h w c of a tensor n c h w or c h w."""
    values = tensor.detach().cpu()
    if values.ndim not in (3, 4) or values.shape[-3] not in (1, 3, 4):
        raise ConfigError(
            f"a tensor of images must have shape n c h w or c h w with 1, 3 or 4 channels, not {tuple(tensor.shape)}"
        )
    return (values.float() if values.is_floating_point() else values).movedim(-3, -1).numpy()


def _pillow(values: np.ndarray | Tensor) -> Image.Image:
    """The Pillow image of an array h w or h w c, or of a tensor c h w."""
    if not isinstance(values, (np.ndarray, Tensor)):
        raise ConfigError(
            f"an image must be a path, bytes, a Pillow image, an array or a tensor, not {kind_of(values)}"
        )
    expected = "an array must have shape h w, h w 1, h w 3 or h w 4"
    if isinstance(values, Tensor):
        expected = "a tensor must have shape c h w (or 1 c h w) with 1, 3 or 4 channels"
        tensor = values.detach().cpu()
        tensor = tensor[0] if tensor.ndim == 4 and len(tensor) == 1 else tensor
        given = (tensor.permute(1, 2, 0) if tensor.ndim == 3 else tensor).numpy()
        fits = tensor.ndim == 3
    else:
        given = values
        fits = values.ndim in (2, 3)
    if not fits or (given.ndim == 3 and given.shape[-1] not in (1, 3, 4)) or not given.size:
        raise ConfigError(f"{expected}, not {tuple(values.shape)}")
    array = _eight_bits(given)
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array))


def _eight_bits(array: np.ndarray) -> np.ndarray:
    """uint8 as it is, and floats in [0,1] as uint8."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise ConfigError(f"an array must hold uint8, or floats in [0,1], not {array.dtype}; convert it first")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):
        remedy = "divide by 255" if low >= 0 and high <= 255 else "a tensor in [-1,1] is a model's image already"
        raise ConfigError(f"floats must lie in [0,1], not reach from {low:g} to {high:g}; {remedy}")
    return np.round(array.astype(np.float64) * 255).astype(np.uint8)


def kind_of(value: object) -> str:
    """A value's type in words, for errors."""
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{str(value.dtype).removeprefix('torch.')} ({type(value).__name__})"
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
