"""Read images of one size with their classes and masks into memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ...data import ImageFile
from ...data.image_ref import ImageRef, open_place
from ...data.labels import find_labels, find_masks
from ...errors import ConfigError, DataError
from ...images import marked, square, to_uint8
from ..codes import Track
from .methods import Truth

GOOD = "good"
"""Class of normal images, the name of their folder in MVTec AD."""

ANOMALOUS = "anomalous"
"""Class of images that are known to be anomalous by their masks alone."""


def read_images(files: Sequence[ImageFile], size: int | None, channels: int, track: Track = iter) -> NDArray[np.uint8]:
    """uint8 n c h w. size: side of the middle squares that images become; None: images stay as they are.

    Errors: those of `check_sizes`.
    """
    check_sizes(files, size)
    images = (open_place(file.path, channels) for file in track(files))
    return np.stack([(to_uint8(image) if size is None else square(image, size)).numpy() for image in images])


def check_sizes(files: Sequence[ImageFile], size: int | None) -> None:
    """Errors: ConfigError for a size below 1; DataError where images differ in size and no size is given."""
    if size is not None and size < 1:
        raise ConfigError(f"size (={size}) must be at least 1")
    first = files[0]
    for file in files if size is None else ():
        if (file.width, file.height) != (first.width, first.height):
            raise DataError(
                f"images must have one size: {first.path} is {first.width}x{first.height}, {file.path} is "
                f"{file.width}x{file.height}; --size PX takes the middle square of each, resized"
            )


def class_labels(files: Sequence[ImageFile], how: str | None) -> tuple[str, ...] | None:
    """A class per image; GOOD is normal. By default the folder's name, if a folder is called GOOD. None where no class
    is known."""
    if how is not None:
        return find_labels(files, how)
    folders = tuple(Path(str(file.path)).parent.name for file in files)
    return folders if GOOD in folders else None


def labels_by_masks(files: Sequence[ImageFile], masks: Path) -> tuple[str, ...]:
    """ANOMALOUS for images whose mask marks a pixel, GOOD for all others. Errors: those of `find_masks`; DataError for
    a broken mask."""
    places = find_masks(files, masks) or ()
    return tuple(GOOD if place is None or not marked(open_place(place, 1)).any() else ANOMALOUS for place in places)


def read_truth(files: Sequence[ImageFile], labels: Sequence[str], masks: Path | None, size: int | None) -> Truth:
    """Which test images are anomalous, and where. size: as for `read_images`.

    masks: a folder with a mask for each anomalous image, by name, or a subfolder of masks for each class. What a mask
    marks, `images.marked` defines. Errors: those of `check_sizes`; DataError for a mask of another size than its image,
    where there is no mask at all, or where no mask marks anything.
    """
    check_sizes(files, size)
    anomalous = np.array([label != GOOD for label in labels])
    if masks is None or not anomalous.any():
        return Truth(anomalous)
    places = _mask_places(files, labels, masks)
    found = np.zeros((len(files), *((files[0].height, files[0].width) if size is None else (size, size))), dtype=bool)
    marks = False
    for i, place in enumerate(places):
        if place is not None:
            whole = _mask(files[i], place)
            marks = marks or bool(whole.any())
            found[i] = (
                whole if size is None else ImageOps.fit(Image.fromarray(whole), (size, size), Image.Resampling.NEAREST)
            )
    if not marks:
        raise DataError(f"no mask in {str(masks)!r} marks anything; what is anomalous must be white in it")
    return Truth(anomalous, found, ~anomalous | np.array([place is not None for place in places]))


def _mask_places(files: Sequence[ImageFile], labels: Sequence[str], masks: Path) -> list[ImageRef | None]:
    """The mask of each image. Where masks have folders by class, each class has its own folder: MVTec AD names images
    000 in each class."""
    classes = sorted(set(labels) - {GOOD})
    folders = [masks / label for label in classes if (masks / label).is_dir()]
    if not folders:
        bad = [file for file, label in zip(files, labels, strict=True) if label != GOOD]
        found = dict(zip((str(file.path) for file in bad), find_masks(bad, masks) or (), strict=True))
        return [found.get(str(file.path)) for file in files]
    places: list[ImageRef | None] = [None] * len(files)
    for folder in folders:
        rows = [i for i, label in enumerate(labels) if label == folder.name]
        for i, place in zip(rows, find_masks([files[i] for i in rows], folder) or (), strict=True):
            places[i] = place
    return places


def _mask(file: ImageFile, place: ImageRef) -> NDArray[np.bool_]:
    mask = open_place(place, 1)
    if mask.size != (file.width, file.height):
        raise DataError(
            f"mask {place} is {mask.width}x{mask.height}, its image {file.path} is {file.width}x{file.height}; make "
            "them equal"
        )
    return marked(mask).numpy()
