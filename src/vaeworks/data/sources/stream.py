"""Streams: sources that are read from front to back, because they are too large for a scan."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ...errors import DataError
from ...images import open_image
from ..image_ref import ImageFile, InMemoryImage
from ..image_set import ImageSet, is_held_out
from .dispatch import open_shards
from .hub import Shards
from .tar_stream import TarShards

BEGINNING = 64
"""Number of first rows that identify a stream."""


@dataclass(frozen=True)
class ImageStream:
    """The training images of a stream. Reading shows which of them are usable."""

    source: str
    shards: Shards | TarShards
    digest: str
    """SHA-256 over the number of shards and the contents of the first rows, in hex"""
    val_fraction: float
    """share of contents that are held out"""
    judged: frozenset[str] = frozenset()
    """digests of validation images of another source, which are held out as well"""
    files: tuple[ImageFile, ...] = ()
    """empty: no image is known in advance"""
    skipped: tuple[tuple[str, str], ...] = ()

    def trains(self, digest: str) -> bool:
        """Whether an image with this content is for training."""
        return not is_held_out(digest, self.val_fraction) and digest not in self.judged

    def held_out(self, count: int, min_side: int) -> ImageSet:
        """The first `count` usable images that `val_fraction` holds out, in memory. If there are fewer, the whole
        stream is read.

        min_side: smallest usable shorter side in pixels. Errors: DataError where the stream cannot be
        read.
        """
        if not self.val_fraction:
            return ImageSet(self.source, ())
        return _first(self.source, self.shards, count, min_side, lambda digest: is_held_out(digest, self.val_fraction))


def open_stream(source: str, val_fraction: float, judged: frozenset[str] = frozenset()) -> ImageStream:
    """The training images of a source that begins with `stream:`.

    Errors: DataError for a source that cannot be streamed, or has no row; MissingExtraError without `datasets`.
    """
    shards = open_shards(source)
    first = [content_digest(content) for _, content in itertools.islice(_rows(shards), BEGINNING)]
    if not first:
        raise DataError(f"{source!r} has no rows")
    beginning = hashlib.sha256(" ".join([str(shards.count), *first]).encode()).hexdigest()
    return ImageStream(source, shards, beginning, val_fraction, judged)


def first_images(source: str, count: int, min_side: int) -> ImageSet:
    """The first `count` usable images of a stream, in memory.

    Errors: DataError where it has none; those of `open_stream`.
    """
    found = _first(source, open_shards(source), count, min_side, lambda digest: True)
    if not found.files:
        raise DataError(f"no image of {source!r} can be used")
    return found


def content_digest(content: bytes | DataError) -> str:
    """SHA-256 in hex; empty where there is no image."""
    return "" if isinstance(content, DataError) else hashlib.sha256(content).hexdigest()


def _first(
    source: str, shards: Shards | TarShards, count: int, min_side: int, wanted: Callable[[str], bool]
) -> ImageSet:
    found: dict[str, ImageFile] = {}  # by content, because some data sets repeat a placeholder
    for name, content in _rows(shards):
        digest = content_digest(content)
        if isinstance(content, DataError) or digest in found or not wanted(digest):
            continue
        try:
            width, height = open_image(content).size
        except DataError:
            continue
        if min(width, height) >= min_side:
            found[digest] = ImageFile(InMemoryImage(name, content), digest, width, height)
        if len(found) == count:
            break
    return ImageSet(source, tuple(found.values()))


def _rows(shards: Shards | TarShards) -> Iterator[tuple[str, bytes | DataError]]:
    for shard in range(shards.count):
        yield from shards.rows(shard)
