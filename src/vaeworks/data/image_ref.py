"""References to encoded images, and the facts of an image after a scan."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from PIL import Image

from ..errors import DataError
from ..images import file_content, open_image


class ImageRef(Protocol):
    """A reference to an encoded image that can be read at any time: a `Path`, a member of a tar, a row of a data set, a
    drawn image.

    Its `str` is the name by which people find the image.
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
    """An image that can be read, with its facts."""

    path: ImageRef
    digest: str
    """SHA-256 of the encoded image's bytes, in hex"""
    width: int
    """pixels, after EXIF orientation"""
    height: int
    alpha: bool | None = field(default=None, compare=False)
    """whether its header promises transparency; None: not known"""
    look: bytes = field(default=b"", compare=False, repr=False)
    """16 x 16 gray levels that it shows; empty where its pixels were not read"""


@dataclass(frozen=True, slots=True)
class InMemoryImage:
    """An encoded image in memory, with the name of its origin."""

    name: str
    content: bytes

    @property
    def stem(self) -> str:
        """Last part of the name, without its ending."""
        return Path(self.name).stem

    def read_bytes(self) -> bytes:
        """The encoded image."""
        return self.content

    def __str__(self) -> str:
        return self.name


def read_place(place: ImageRef) -> bytes:
    """The encoded image of a reference.

    Errors: DataError, with the reason in a few words.
    """
    try:
        return file_content(place) if isinstance(place, Path) else place.read_bytes()
    except OSError as error:
        raise DataError(error.strerror or str(error)) from None
    except ValueError as error:  # a name with characters that no name may have
        raise error if isinstance(error, DataError) else DataError(str(error)) from None


def open_place(place: ImageRef | str, channels: int = 3) -> Image.Image:
    """The image of a reference, or in the file of that name, as by `open_image`.

    Errors: DataError, with the reason in a few words.
    """
    return open_image(read_place(Path(place) if isinstance(place, str) else place), channels)
