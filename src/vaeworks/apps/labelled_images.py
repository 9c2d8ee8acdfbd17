"""Data sources whose images have classes, for features and augmentation."""

from __future__ import annotations

from ..data import ImageSet
from ..data.inputs import Images, image_set, say_flattened, warn_of_skipped
from ..data.labels import find_labels
from ..errors import ConfigError, DataError
from ..random_streams import check_seed
from ..reporting import Reporter

LARGEST = 256
"""Largest side of the squares that images become by default, in pixels."""


def labelled_images(data: Images, labels: str | None, reporter: Reporter) -> tuple[ImageSet, tuple[str, ...]]:
    """The images of a data source, and the class of each. labels: as in `find_labels`. Errors: DataError without
    classes."""
    images = image_set(data, reporter)
    warn_of_skipped(images.skipped, reporter)
    say_flattened(images.files, reporter)
    classes = find_labels(images.files, labels, reporter)
    if classes is None:
        raise DataError(
            f"the images of {images.source!r} have no classes; put them into folders, or give --labels names or a CSV "
            "file"
        )
    return images, classes


def square_side(images: ImageSet, size: int | None, factor: int) -> int:
    """`size`, or the multiple of `factor` nearest to the largest image's shorter side, up to LARGEST."""
    own = min(max(min(file.width, file.height) for file in images.files), LARGEST)
    return size if size is not None else max(1, round(own / factor)) * factor


def check_seed_and_size(seed: int, size: int | None) -> None:
    """Errors: ConfigError for a negative seed or a size below 1."""
    check_seed(seed)
    if size is not None and size < 1:
        raise ConfigError(f"size (={size}) must be at least 1")
