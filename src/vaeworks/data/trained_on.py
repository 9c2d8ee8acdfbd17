"""Which images a run was trained on: an evaluation leaves them out."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from ..errors import FormatError
from ..files.atomic import read_json
from .image_set import is_held_out

DATA = "data.json"
"""The file of a run folder that lists the run's images."""


def trained_on(model: Path) -> Container[str]:
    """The content digests of a run's training images, for `in`; empty for a path that is no run folder.

    A stream does not list its training images, so every image that it did not hold out counts as trained on.
    Errors: FormatError for a file that does not list images.
    """
    if not (model / DATA).is_file():
        return set()
    values = read_json(model / DATA)
    try:
        digests = {side: {str(file["digest"]) for file in values.get(side, [])} for side in ("train", "val")}
        if (streamed := values.get("streamed")) is not None:
            return _AllBut(float(streamed["val_fraction"]), frozenset(digests["val"]))
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError):
        raise FormatError(f"{model / DATA} does not list a run's images by their digests") from None
    return digests["train"]


@dataclass(frozen=True)
class _AllBut:
    """Every image but those that a stream holds out."""

    val_fraction: float
    judged: frozenset[str]

    def __contains__(self, digest: object) -> bool:
        return not is_held_out(str(digest), self.val_fraction) and digest not in self.judged
