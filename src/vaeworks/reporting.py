"""What long work tells whoever waits for it: lines, warnings and progress. The library tells nothing by default."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Takes how much is done, and of how much."""


def counted(items: Iterable[T], total: int, progress: Progress) -> Iterator[T]:
    """The items, while `progress` is told how many of `total` are done."""
    for number, item in enumerate(items, 1):
        yield item
        progress(number, total)


def under_bar(bar: AbstractContextManager[Progress], items: Iterable[T], total: int) -> Iterator[T]:
    """The items, while a bar shows how many of `total` are done."""
    with bar as progress:
        yield from counted(items, total, progress)


class Reporter:
    """What a function reports while it works. This one reports nothing; a subclass says where lines and bars go.

    >>> class Lines(vw.Reporter):
    ...     def say(self, line): print(line)
    >>> vw.encode("runs/dogs", "photos", "latents", reporter=Lines())
    """

    def say(self, line: str) -> None:
        """A result. The command line prints it on stdout, and everything else on stderr."""

    def step(self, line: str) -> None:
        """What is being done now, or how."""

    def detail(self, line: str) -> None:
        """What only some people want to know."""

    def warn(self, line: str) -> None:
        """What is left out or not as it was asked for."""

    def track(self, items: Iterable[T], what: str) -> Iterable[T]:
        """The same items, while a bar shows how many of them are done."""
        return items

    @contextmanager
    def counting(self, what: str) -> Iterator[Progress]:
        """A bar that is moved by hand, in any unit."""
        yield lambda done, total: None

    @contextmanager
    def bytes(self, what: str) -> Iterator[Progress]:
        """A bar in bytes."""
        yield lambda done, total: None


SILENT = Reporter()
"""The default of every function."""
