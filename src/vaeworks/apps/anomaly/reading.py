"""Images and masks of folders, all of one size, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ...data import ImageFile
from ...data.labels import find_labels, find_masks
from ...data.place import Place, open_place
from ...errors import DataError
from ...images import square, to_uint8
from ..codes import Track
from .comparison import Truth

Array = NDArray[Any]

GOOD = "good"
"""The class of normal images, by the name of its folder, as MVTec AD has it."""


def read_images(files: Sequence[ImageFile], size: int | None, channels: int, track: Track = iter) -> NDArray[np.uint8]:
    """uint8 n c h w. size: side of the middle squares that images become; None: they are taken as they are.

    Errors: DataError where they differ in size and no size is given.
    """
    if size is None:
        first = files[0]
        for file in files:
            if (file.width, file.height) != (first.width, first.height):
                raise DataError(
                    f"images must have one size: {first.path} is {first.width}x{first.height}, {file.path} is {file.width}x{file.height}; "
                    f"--size PX takes the middle square of each, resized"
                )
    images = (open_place(file.path, channels) for file in track(files))
    return np.stack([(to_uint8(image) if size is None else square(image, size)).numpy() for image in images])


def class_labels(files: Sequence[ImageFile], how: str | None) -> tuple[str, ...] | None:
    """A class per image, GOOD being normal; by default that of the folder, if one is called so. None where nothing is known."""
    if how is not None:
        return find_labels(files, how)
    folders = tuple(Path(str(file.path)).parent.name for file in files)
    return folders if GOOD in folders else None


def read_truth(files: Sequence[ImageFile], labels: Sequence[str], masks: Path | None, size: int | None, shape: tuple[int, int]) -> Truth:
    """What is known of test images h w = `shape`, read with `size` as `read_images` does.

    masks: a folder with a mask for anomalous images, by name, in a subfolder for each class where there are such; what is light in
    them is anomalous, or not 0 where nothing is light. Errors: DataError for a mask of another size than its image's, or where there
    is none at all.
    """
    anomalous = np.array([label != GOOD for label in labels])
    if masks is None or not anomalous.any():
        return Truth(anomalous)
    places = _mask_places(files, labels, masks)
    found = np.zeros((len(files), *shape), dtype=bool)
    for i, place in enumerate(places):
        if place is not None:
            found[i] = _mask(files[i], place, size)
    return Truth(anomalous, found, ~anomalous | np.array([place is not None for place in places]))


def _mask_places(files: Sequence[ImageFile], labels: Sequence[str], masks: Path) -> list[Place | None]:
    """Where masks have folders by class, classes are looked up one by one: MVTec AD's images are called 000 in each of them."""
    classes = sorted(set(labels) - {GOOD})
    folders = [masks / label for label in classes if (masks / label).is_dir()]
    if not folders:
        bad = [file for file, label in zip(files, labels, strict=True) if label != GOOD]
        found = dict(zip((str(file.path) for file in bad), find_masks(bad, masks) or (), strict=True))
        return [found.get(str(file.path)) for file in files]
    places: list[Place | None] = [None] * len(files)
    for folder in folders:
        rows = [i for i, label in enumerate(labels) if label == folder.name]
        for i, place in zip(rows, find_masks([files[i] for i in rows], folder) or (), strict=True):
            places[i] = place
    return places


def _mask(file: ImageFile, place: Place, size: int | None) -> NDArray[np.bool_]:
    mask = open_place(place, 1)
    if mask.size != (file.width, file.height):
        raise DataError(f"mask {place} is {mask.width}x{mask.height}, its image {file.path} is {file.width}x{file.height}; make them equal")
    if size is not None:
        mask = ImageOps.fit(mask, (size, size), Image.Resampling.NEAREST)
    values = np.asarray(mask)
    return values > (127 if values.max() > 127 else 0)
