"""Words that were not chosen here (names, metadata, what libraries say) as they may stand before a reader: seen whole,
never acted upon."""

from __future__ import annotations

import re
import sys

MOST = 4_000
"""Characters of one message; of a longer one the beginning and the end are kept, where the rule and the remedy
stand."""


def printable(text: str) -> str:
    """The text with all that a terminal would act upon or not show as escapes: controls, line ends, changes of
    direction."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def cut(text: str, most: int = MOST) -> str:
    """The text, or of a longer one its first two thirds and its last third, and how much lies between."""
    if len(text) <= most:
        return text
    return f"{text[: most * 2 // 3]} ... ({len(text) - most:,} characters left out) ... {text[-(most // 3) :]}"


def one_line(text: str, most: int = MOST) -> str:
    """The text as one line of at most about `most` printable characters; line ends become spaces."""
    return cut(printable(_BREAK.sub(_joined, cut(text, most)).strip()), most)


def speak(text: str) -> None:
    """Tell people one line, on stderr."""
    print(one_line(text), file=sys.stderr)


_BREAK = re.compile(r"\s+")


def _joined(match: re.Match[str]) -> str:
    """White space as it stands in a line."""
    return match[0] if match[0].isprintable() else " "


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
