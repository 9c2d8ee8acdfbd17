"""Foreign text (names, metadata, messages of libraries) made printable: readers see all of it, and a terminal acts on
none of it."""

from __future__ import annotations

import os
import re
import sys
from typing import IO

MOST = 4_000
"""Characters of one message; of a longer one the beginning and the end are kept, where the rule and the remedy
stand."""


def printable(text: str) -> str:
    """The text with everything escaped that a terminal would act upon or not show: controls, line ends, changes of
    direction."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def many(count: int, noun: str) -> str:
    """A number and its noun: "1 image", "1,200 images"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def cut(text: str, most: int = MOST) -> str:
    """The text; of a longer one its first two thirds and its last third, and how much is missing between them."""
    if len(text) <= most:
        return text
    return f"{text[: most * 2 // 3]} ... ({len(text) - most:,} characters left out) ... {text[-(most // 3) :]}"


def one_line(text: str, most: int = MOST) -> str:
    """The text as one line of at most about `most` printable characters; line ends become spaces."""
    return cut(printable(_BREAK.sub(_joined, cut(text, most)).strip()), most)


def speak(text: str) -> None:
    """Print one line on stderr."""
    print(one_line(text), file=sys.stderr)


def close_pipe(stream: IO[str]) -> None:
    """Let a stream whose reader has gone lead nowhere, so that nothing fails when it is flushed at the exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def close_if_broken(stream: IO[str]) -> None:
    """The same, for a stream whose reader may have gone; a whole one is flushed and left."""
    try:
        stream.flush()
    except BrokenPipeError:
        close_pipe(stream)


_BREAK = re.compile(r"\s+")


def _joined(match: re.Match[str]) -> str:
    """White space as it stands in a line."""
    return match[0] if match[0].isprintable() else " "


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
