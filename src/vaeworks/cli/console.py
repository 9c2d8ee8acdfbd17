"""What people see: results on stdout; on stderr what a command does, and warnings."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ..launcher import speaks
from ..reporting import Progress, Reporter
from ..words import one_line

if TYPE_CHECKING:
    from ..formats.apps import Support
    from ..terminal import Terminal

T = TypeVar("T")


WIDE = 10_000
"""Characters of a line where no terminal is near: what a file or a program gets is neither broken nor cut."""


def results() -> Terminal:
    """stdout, for results; with --json, stderr. Of several processes that train together one alone speaks."""
    from ..terminal import Terminal

    near = "COLUMNS" in os.environ or any(map(os.isatty, range(3)))
    return Terminal(stderr=False, soft_wrap=True, quiet=not speaks(), width=None if near else WIDE)


def console() -> Terminal:
    """stderr, for all that is no result."""
    from ..terminal import Terminal

    return Terminal(soft_wrap=True, quiet=not speaks())


class ConsoleReporter(Reporter):
    """Tells people on the terminal; of several processes one alone speaks."""

    def say(self, line: str) -> None:
        results().print(line)

    def step(self, line: str) -> None:
        console().print(line)

    def detail(self, line: str) -> None:
        console().print(line, style="dim")

    def warn(self, line: str) -> None:
        console().print(line, style="yellow")

    def track(self, items: Iterable[T], what: str) -> Iterable[T]:
        from rich.progress import track

        return track(list(items), _title(what), console=console(), transient=True, disable=not console().is_terminal)

    @contextmanager
    def counting(self, what: str) -> Iterator[Progress]:
        from ..terminal import bar

        with bar(console(), what) as progress:
            yield progress

    @contextmanager
    def bytes(self, what: str) -> Iterator[Progress]:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (
            TextColumn(_title(what)),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console(), transient=True, disable=not console().is_terminal) as bars:
            task = bars.add_task(_title(what))
            yield lambda done, total: bars.update(task, completed=done, total=total)


def _title(what: str) -> str:
    """The title of a bar, which may hold names of files: one line, without markup."""
    from rich.markup import escape

    return escape(one_line(what))


TERMINAL = ConsoleReporter()
"""The command line's reporter."""


def print_notes(notes: Iterable[str]) -> None:
    """Print what a user should know about a result, a line each."""
    for note in notes:
        TERMINAL.warn(f"note: {note}")


def print_support(support: Mapping[str, Support]) -> None:
    """Print which applications load a file that was written, a line each."""
    for application, verdict in support.items():
        TERMINAL.say(f"  {application}: {verdict.why}")


def summary(function: Callable[..., Any]) -> str:
    """The first line of a command's description."""
    return description(function).splitlines()[0]


def description(function: Callable[..., Any]) -> str:
    """A command's docstring as help shows it, a paragraph a line."""
    paragraphs = inspect.cleandoc(function.__doc__ or "").replace("`", "").split("\n\n")
    return "\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
