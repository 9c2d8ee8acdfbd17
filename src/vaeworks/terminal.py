"""The consoles that everything for people is printed on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.text import Text

from .words import close_pipe, cut, one_line, printable


class Terminal(Console):
    """A console without markup: text is shown as it is and never acted upon, wherever it comes from.

    A string is one line; for several lines print several strings, or a `Text`. stderr: where it prints; else stdout.
    """

    def __init__(self, stderr: bool = True, **options: Any):
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False, **options)

    def on_broken_pipe(self) -> NoReturn:
        """The reader of a pipe has gone: end at once, and print nothing more there, not even at the exit."""
        self.quiet = True
        close_pipe(self.file)
        raise SystemExit(1)

    def render_str(self, text: str, **options: Any) -> Text:
        """Strings, in tables too: their widths are measured as they will be shown."""
        return super().render_str(cut(printable(cut(text))), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """All else, such as `Text`."""
        for segment in super().render(renderable, options):
            yield (
                segment
                if segment.control or segment.text.isprintable()
                else Segment(_lines(segment.text), segment.style)
            )


@contextmanager
def bar(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time that is left, on a terminal; nothing elsewhere. what: its title."""
    from rich.progress import Progress as Bars

    with Bars(console=console, transient=True, disable=not console.is_terminal or console.quiet) as bars:
        task = bars.add_task(escape(one_line(what)), total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))
