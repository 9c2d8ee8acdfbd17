"""Which images a model was trained on: an evaluation leaves them out.

A run folder lists its images in data.json. The model that the run writes carries their digests in its file's metadata,
so that they are known as well where the file is copied, converted or fine-tuned.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FormatError
from ..files.atomic import read_json
from .image_ref import ImageFile
from .image_set import is_held_out

DATA = "data.json"
"""The file of a run folder that lists the run's images."""

METADATA_KEY = "vaeworks_trained_on"
"""Key of the digests in the safetensors metadata of every layout; other readers ignore it."""

NIBBLES = 10
"""Hexadecimal digits of a digest that are kept: among 100,000 images, one in ten million others has the same."""

MOST = 200_000
"""Digests that a file carries at most: 1.3 MB. Of more images, only the number."""


@dataclass(frozen=True)
class StreamedImages:
    """A stream of images: it does not list them, so every image that it did not hold out counts as trained on."""

    val_fraction: float
    judged: frozenset[str] = frozenset()
    """images that were held out besides"""

    def __contains__(self, digest: str) -> bool:
        return not is_held_out(digest, self.val_fraction) and digest[:NIBBLES] not in self.judged


@dataclass(frozen=True)
class TrainedOn:
    """The images that a model was trained on, by their SHA-256: `image.digest in trained_on`."""

    digests: frozenset[str] = frozenset()
    """the first NIBBLES digits of each"""
    streams: tuple[StreamedImages, ...] = ()
    unlisted: int = 0
    """images that are not listed, because they are too many"""

    @classmethod
    def of(cls, digests: Iterable[str], streams: Iterable[StreamedImages] = ()) -> TrainedOn:
        """Of images with these digests, in hex, and of these streams. Errors: ValueError for what is no digest."""
        return cls(frozenset(map(_first, digests)), tuple(streams))

    def __contains__(self, digest: object) -> bool:
        text = str(digest)
        return text[:NIBBLES] in self.digests or any(text in stream for stream in self.streams)

    def __or__(self, other: TrainedOn) -> TrainedOn:
        streams = tuple(dict.fromkeys((*self.streams, *other.streams)))
        return TrainedOn(self.digests | other.digests, streams, self.unlisted + other.unlisted)

    def to_metadata(self) -> dict[str, str]:
        """As metadata of a safetensors file."""
        return {METADATA_KEY: json.dumps(self.to_dict())}

    def to_dict(self) -> dict[str, Any]:
        """JSON values. Beyond MOST images, only their number."""
        few = len(self.digests) <= MOST
        return {
            "digests": _packed(self.digests if few else ()),
            "streams": [
                {"val_fraction": stream.val_fraction, "judged": _packed(stream.judged)} for stream in self.streams
            ],
            "unlisted": self.unlisted + (0 if few else len(self.digests)),
        }

    @classmethod
    def from_metadata(cls, metadata: dict[str, str], where: str) -> TrainedOn | None:
        """From the metadata of a file; None if they say nothing.

        Errors: FormatError for metadata that cannot be read.
        """
        if METADATA_KEY not in metadata:
            return None
        try:
            return cls.from_dict(json.loads(metadata[METADATA_KEY]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise FormatError(
                f"{where}: its metadata {METADATA_KEY!r} do not list images: {error!s:.100}; take another copy, or "
                "delete that key there"
            ) from None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainedOn:
        """From the values of `to_dict`. Errors: ValueError, KeyError, TypeError or AttributeError for others."""
        unlisted = values["unlisted"]
        if not isinstance(unlisted, int) or isinstance(unlisted, bool) or unlisted < 0:
            raise ValueError(f"{unlisted!r:.50} images are not listed")
        streams = tuple(
            StreamedImages(_share(stream["val_fraction"]), _unpacked(stream["judged"])) for stream in values["streams"]
        )
        return cls(_unpacked(values["digests"]), streams, unlisted)


def trained_on(folder: Path) -> TrainedOn | None:
    """What the run in a folder is trained on, with what the model that it started from was trained on; None for a path
    that is no run folder.

    Errors: FormatError for a file that does not list images.
    """
    if not (folder / DATA).is_file():
        return None
    values = read_json(folder / DATA)
    try:
        train, val = ([str(file["digest"]) for file in values.get(side, [])] for side in ("train", "val"))
        streams = []
        if (streamed := values.get("streamed")) is not None:
            streams, train = [StreamedImages(_share(streamed["val_fraction"]), frozenset(map(_first, val)))], []
        before = values.get("before")
        found = TrainedOn.of(train, streams)
        return found if before is None else found | TrainedOn.from_dict(before)
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError):
        raise FormatError(f"{folder / DATA} does not list a run's images by their digests") from None


def sentence(seen: TrainedOn | None, files: Sequence[ImageFile]) -> str | None:
    """A sentence on how many of the images a model was trained on; None where it was trained on none of them."""
    count = 0 if seen is None else sum(file.digest in seen for file in files)
    return f"the model was trained on {count:,} of these {len(files):,} images" if count else None


def _first(digest: str) -> str:
    """The digits of a digest that are kept. Errors: ValueError for what is no digest."""
    if not re.fullmatch("[0-9a-f]{10}", first := digest[:NIBBLES]):
        raise ValueError(f"{digest!r:.50} is no digest")
    return first


def _share(value: Any) -> float:
    share = float(value)
    if not 0 <= share <= 1:
        raise ValueError(f"{share} is no share")
    return share


def _packed(digests: Iterable[str]) -> str:
    return base64.b64encode(bytes.fromhex("".join(sorted(digests)))).decode()


def _unpacked(text: str) -> frozenset[str]:
    """Errors: ValueError for text that holds no whole digests."""
    try:
        digits = base64.b64decode(text, validate=True).hex()
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if len(digits) % NIBBLES:
        raise ValueError(f"{len(digits)} digits are no whole digests")
    return frozenset(digits[i : i + NIBBLES] for i in range(0, len(digits), NIBBLES))
