"""Where an image is kept, and what is known of it once it has been looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from PIL import Image

from ..errors import DataError
from ..images import file_content, open_image


class ImageRef(Protocol):
    """A place that holds an encoded image and can be read at any time: a `Path`, a tar's member, a data set's row, an
    image that is drawn.

    Its `str` is the name by which people find it.
    """

    @property
    def stem(self) -> str:
        """A short name."""
        ...

    def read_bytes(self) -> bytes:
        """The encoded image. Errors: OSError, DataError."""
        ...


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A readable image."""

    path: ImageRef
    digest: str
    """SHA-256 of the encoded image's bytes, in hex"""
    width: int
    """pixels, after EXIF orientation"""
    height: int
    alpha: bool | None = field(default=None, compare=False)
    """whether its header promises transparency; None: not known"""


@dataclass(frozen=True, slots=True)
class InMemoryImage:
    """An encoded image in memory, with the name of the place it came from."""

    name: str
    content: bytes

    @property
    def stem(self) -> str:
        """The name's last part."""
        return Path(self.name).stem

    def read_bytes(self) -> bytes:
        """The encoded image."""
        return self.content

    def __str__(self) -> str:
        return self.name


def read_place(place: ImageRef) -> bytes:
    """The encoded image at a place.

    Errors: DataError, with the reason in a few words.
    """
    try:
        return file_content(place) if isinstance(place, Path) else place.read_bytes()
    except OSError as error:
        raise DataError(error.strerror or str(error)) from None
    except ValueError as error:  # a name that holds what no name may
        raise error if isinstance(error, DataError) else DataError(str(error)) from None


def open_place(place: ImageRef | str, channels: int = 3) -> Image.Image:
    """The image at a place, or in the file of that name: as `open_image`.

    Errors: DataError, with the reason in a few words.
    """
    return open_image(read_place(Path(place) if isinstance(place, str) else place), channels)
