"""What counts as a caption in files, tables, samples of tars and columns of data sets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import DataError

NAMES = ("text", "caption", "prompt", "captions", "description", "sentence")
"""Columns and keys that hold captions, in this order; more are not guessed."""

ENDINGS = ("txt", "caption")
"""Endings of files beside images, and fields of tars' samples, that hold captions, in this order. `caption` is the
default of kohya's scripts, where most data sets have `txt`."""

LONGEST = 2**16
"""Most bytes of one caption's file. Text encoders read 77 to 512 tokens."""


def decoded(content: bytes, name: str) -> str:
    """The text of a caption's file, on one line. Errors: DataError for what is no UTF-8."""
    try:
        return on_one_line(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 text (byte {error.start:,}); save it as UTF-8") from None


def on_one_line(text: str) -> str:
    """The text, stripped, with every run of white space as one blank."""
    return " ".join(text.split())


def article(text: str) -> str:
    """The text with "an" for "a" before vowels: "an orange star"."""
    return re.sub(r"\b([Aa]) (?=[aeiouAEIOU])", r"\1n ", text)


def text_of(value: Any) -> str | None:
    """The caption in a cell: a text, or the first of a list of texts; None for anything else."""
    if isinstance(value, list):
        value = value[0] if value else ""
    return on_one_line(value) if isinstance(value, str) else None


def named_text(values: Mapping[str, Any], names: tuple[str, ...] = NAMES) -> str | None:
    """The caption under the first of these names that is there; None where none is, or where it holds no text."""
    return next((text_of(values[name]) for name in names if name in values), None)
