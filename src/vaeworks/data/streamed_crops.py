"""Crops of a stream. Image number k is a function of the source, the seed and k; finding it takes reading up to it.

An epoch reads the shards in an order from (seed, epoch), and their rows as they are stored. Rows that are held out or
unusable are skipped; every `BLOCK` of the others are shuffled by (seed, epoch, block). An image with a good header and
broken pixels is replaced by the next image of its block. So all processes agree without communication, although each
decodes its own share. In an epoch's last, smaller block broken images are left out instead.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..config import DataConfig
from ..errors import DataError
from ..images import image_size, open_image, to_uint8
from ..random_streams import BLOCKS, SHARDS, random_words
from .crops import BatchShare, Crops, Loaded, Say, random_crop
from .image_set import ImageSet
from .sources.stream import ImageStream, content_digest

SAID = 5
"""Number of skipped rows that are named."""

BLOCK = 1000
"""Images that are shuffled together and kept in memory, encoded; twice as many while the next block is read."""


@dataclass(frozen=True)
class Bookmark:
    """The beginning of a block."""

    counter: int
    """of its first crop"""
    epoch: int = 0
    block: int = 0
    """within the epoch"""
    shard: int = 0
    """position in the epoch's order of shards"""
    row: int = 0
    """within the shard"""

    @property
    def is_possible(self) -> bool:
        """Whether the values are possible counts; a file may hold anything."""
        return (
            all(type(n) is int and 0 <= n < 2**48 for n in dataclasses.astuple(self))
            and max(self.epoch, self.block) < 2**31
        )


@dataclass(frozen=True)
class StreamBlock:
    """Consecutive images of a stream, shuffled: names and encoded bytes."""

    first: int
    """counter of the first crop"""
    images: list[tuple[str, bytes]]


@dataclass(frozen=True)
class Cut:
    """Cuts crops out of encoded images."""

    config: DataConfig
    seed: int
    channels: int

    def __call__(self, work: list[tuple[int, bytes]]) -> Loaded:
        """Crops of (counter, encoded image); a black one and the reason for an image that cannot be read."""
        size = self.config.size
        crops, reasons = torch.zeros(len(work), self.channels, size, size, dtype=torch.uint8), {}
        for place, (counter, content) in enumerate(work):
            try:
                crops[place] = self.crop(open_image(content, self.channels), counter)
            except DataError as error:
                reasons[place] = str(error)
        return crops, reasons

    def crop(self, image: Image.Image, counter: int) -> Tensor:
        """Crop number `counter`: uint8 c size size."""
        return to_uint8(
            random_crop(image, self.config.size, self.config.min_scale, self.config.flip, self.seed, counter)
        )


class StreamedCrops:
    """Crops of a stream, for `batches`."""

    def __init__(
        self, stream: ImageStream, config: DataConfig, seed: int, channels: int = 3, bookmarks: Path | None = None
    ):
        """bookmarks: a file that keeps the beginnings of blocks, so that a continued run need not read everything
        again; None: no file."""
        self.stream = stream
        self.load = Cut(config, seed, channels)
        self.bookmarks = Bookmarks(
            bookmarks, [stream.digest, stream.val_fraction, sorted(stream.judged), seed, config.size, BLOCK]
        )
        self.rows_read = 0
        """rows read, over all epochs"""
        self.rows_skipped = 0
        """rows of these that cannot be used"""

    def parts(self, start: int, stop: int, batch: int, rank: int, world: int, say: Say) -> Generator[BatchShare]:
        """This process's parts of the whole batches of crops start..stop. Errors: DataError where the stream cannot be
        read on."""
        share = batch // world
        mark = self.bookmarks.before(start)
        stopped = threading.Event()
        with closing(_read_ahead(self._blocks(mark, rank == 0, stopped, say), stopped)) as blocks:
            places = ((block, place) for block in blocks for place in range(len(block.images)))
            slots = itertools.islice(places, start - mark.counter, None)
            for first in range(start, stop - batch + 1, batch):
                mine = list(itertools.islice(slots, batch))[rank * share : (rank + 1) * share]
                counters = [block.first + place for block, place in mine]
                assert counters[0] == first + rank * share
                yield BatchShare(
                    counters, [(block.first + place, block.images[place][1]) for block, place in mine], mine
                )

    def finish(self, part: BatchShare, loaded: Loaded, say: Say) -> Tensor:
        """The crops; those that could not be read are replaced by crops of the next images of the block.

        Errors: DataError where no image of a block can be read.
        """
        images, reasons = loaded
        for place, reason in reasons.items():
            block, first = part.origin[place]
            self._skip(block.images[first][0], reason, say)
            images[place] = self._stand_in(block, first, part.counters[place])
        return images

    def _stand_in(self, block: StreamBlock, first: int, counter: int) -> Tensor:
        for step in range(1, len(block.images)):
            _, content = block.images[(first + step) % len(block.images)]
            crops, reasons = self.load([(counter, content)])
            if not reasons:
                return crops[0]
        raise DataError(f"none of the {len(block.images)} images around {block.images[first][0]} can be read")

    def _blocks(self, mark: Bookmark, keep: bool, stopped: threading.Event, say: Say) -> Iterator[StreamBlock]:
        """Blocks from a bookmark on, until `stopped`. keep: write bookmarks."""
        count = self.stream.shards.count
        while True:
            order = _shuffled(count, self.load.seed, SHARDS, mark.epoch)
            images: list[tuple[str, bytes]] = []
            first = mark
            for shard in range(first.shard, count):
                start = first.row if shard == first.shard else 0
                for row, (name, content) in enumerate(self.stream.shards.rows(order[shard], start), start):
                    if stopped.is_set():
                        return
                    if usable := self._usable(name, content, say):
                        images.append((name, usable))
                    if len(images) == BLOCK:
                        yield self._block(mark, images)
                        mark = Bookmark(mark.counter + BLOCK, mark.epoch, mark.block + 1, shard, row + 1)
                        self.bookmarks.add(mark, keep)
                        images = []
            # the last block may lack images to replace broken ones, so broken ones are left out before counting
            images = [
                (name, content)
                for name, content in images
                if not stopped.is_set() and self._is_whole(name, content, say)
            ]
            if stopped.is_set():
                return
            if images:
                yield self._block(mark, images)
            elif not mark.block:
                raise DataError(
                    f"no image of {self.stream.source!r} can be trained on: all are held out, too small or unreadable"
                )
            mark = Bookmark(mark.counter + len(images), mark.epoch + 1)
            self.bookmarks.add(mark, keep)

    def _block(self, mark: Bookmark, images: list[tuple[str, bytes]]) -> StreamBlock:
        order = _shuffled(len(images), self.load.seed, BLOCKS, mark.epoch * 2**32 + mark.block)
        return StreamBlock(mark.counter, [images[place] for place in order])

    def _usable(self, name: str, content: bytes | DataError, say: Say) -> bytes | None:
        """The encoded image, if it is for training and large enough by its header."""
        self.rows_read += 1
        if isinstance(content, bytes):
            if not self.stream.trains(content_digest(content)):
                return None
            if not (fault := self._fault(content)):
                return content
        else:
            fault = str(content)
        self._skip(name, fault, say)
        return None

    def _fault(self, content: bytes) -> str:
        try:
            width, height = image_size(content)
        except DataError as error:
            return str(error)
        smallest = self.load.config.size
        return f"{width}x{height} pixels, smaller than {smallest}" if min(width, height) < smallest else ""

    def _is_whole(self, name: str, content: bytes, say: Say) -> bool:
        try:
            open_image(content)
        except DataError as error:
            self._skip(name, str(error), say)
            return False
        return True

    def _skip(self, name: str, reason: str, say: Say) -> None:
        self.rows_skipped += 1
        if self.rows_skipped <= SAID:
            say(
                f"skipped {name}: {reason}"
                + ("; what else is skipped is only counted" if self.rows_skipped == SAID else "")
            )


class Bookmarks:
    """The known beginnings of blocks, also in a file for a continued run, if there is one."""

    def __init__(self, path: Path | None, of: list[Any]):
        """of: everything that the beginnings depend on, as JSON values; bookmarks of other values are ignored."""
        self.path = path
        self.of = hashlib.sha256(json.dumps(of).encode()).hexdigest()
        self.known = [Bookmark(0)]
        for line in path.read_text(errors="replace").splitlines() if path is not None and path.is_file() else ():
            with suppress(
                ValueError, TypeError, KeyError, AttributeError, RecursionError
            ):  # a line that was being written when the run was killed
                values = json.loads(line)
                if values.pop("of") == self.of and (mark := Bookmark(**values)).is_possible:
                    self.known.append(mark)

    def before(self, counter: int) -> Bookmark:
        """The last known beginning of a block at or before this crop."""
        return max((mark for mark in self.known if mark.counter <= counter), key=lambda mark: mark.counter)

    def add(self, mark: Bookmark, keep: bool) -> None:
        """Add a beginning, and write it to the file if `keep`; a known one is not written again."""
        if mark.counter <= self.known[-1].counter:
            return
        self.known.append(mark)
        if keep and self.path is not None:
            with suppress(OSError), self.path.open("a") as file:  # a full disk only makes the next start longer
                file.write("\n" + json.dumps({"of": self.of, **dataclasses.asdict(mark)}))


def _shuffled(length: int, seed: int, stream: int, counter: int) -> list[int]:
    return np.argsort(random_words(seed, stream, counter, length), kind="stable").tolist()


def _read_ahead(blocks: Iterator[StreamBlock], stopped: threading.Event) -> Generator[StreamBlock]:
    """The same blocks; the next is read while one is in use. Sets `stopped` at the end."""
    with ThreadPoolExecutor(1) as reader:
        try:
            coming = reader.submit(next, blocks)
            while True:
                block = coming.result()
                coming = reader.submit(next, blocks)
                yield block
        finally:
            stopped.set()


def training_crops(
    images: ImageSet | ImageStream, config: DataConfig, seed: int, channels: int = 3, bookmarks: Path | None = None
) -> Crops | StreamedCrops:
    """Training crops of a set of images, or of a stream, for `batches`.

    bookmarks: the file for the beginnings of a stream's blocks.
    """
    if isinstance(images, ImageStream):
        return StreamedCrops(images, config, seed, channels, bookmarks)
    return Crops(images.files, config, seed, channels)
