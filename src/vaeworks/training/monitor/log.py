"""The log of a run: lines of JSON, from which trackers, the view in the terminal, alarms, and the page are made.

The lines depend on no clock, so that a resumed run leaves the log of an undisturbed one.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

from PIL import Image
from rich.live import Live
from rich.table import Table

from ...config import TrainConfig, to_dict
from ...errors import MissingExtraError, VaeworksError
from ...reporting import Progress
from ...terminal import Terminal, bar
from ..gan.balance_state import StepPlan
from .alarm import Alarm
from .alarms import Alarms
from .card import write_card
from .log_lines import JSONL, keep_log, last_look, read_log
from .log_schema import EVENT, LOOK, plain
from .page import RunPage, Status
from .terminal import View, event_style, train_view
from .trackers import Trackers

__all__ = ["JSONL", "RunKind", "RunLog", "last_look", "read_log", "train_kind", "train_log"]

OPTIONAL_PARTS = ("regularizers", "adversarial", "finetune")
"""Parts of the configuration that do nothing by default."""

REDRAWS = 0.25
"""Shortest time between two redraws, in seconds."""


class Page(Protocol):
    """The page of a run."""

    def write(self, status: Status) -> None:
        """Write the page, whole or not at all. Errors: MissingExtraError without jinja2; VaeworksError."""


class LookResult(Protocol):
    """The result of a validation."""

    @property
    def picture(self) -> Image.Image | None:
        """A sheet of pictures."""

    @property
    def figures(self) -> Mapping[str, Any]:
        """Figures for the log."""


class Watch(Protocol):
    """What looks for trouble in the lines of a log."""

    def observe(self, line: Mapping[str, Any]) -> tuple[Alarm, ...]:
        """The alarms that begin, grow or end with a line."""


@dataclass(frozen=True)
class RunKind:
    """What is special about one kind of run for its log."""

    config: Any
    """a dataclass"""
    view: View
    alarms: Callable[[list[dict[str, Any]]], Watch]
    """given the lines of an earlier part of the run"""
    page: Callable[[Path], Page]
    card: Callable[[Path], Any]
    """writes the model card into the run's folder"""
    pictures: str
    """name of the pictures of a validation"""


def train_kind(config: TrainConfig) -> RunKind:
    """An autoencoder's training."""
    return RunKind(
        config,
        train_view(config),
        lambda kept: Alarms(config, kept),
        lambda run: RunPage(run, config),
        write_card,
        "reconstructions",
    )


def train_log(run: Path, config: TrainConfig, images_seen: int = 0, show: bool = True) -> RunLog:
    """The log of an autoencoder's training."""
    return RunLog(run, train_kind(config), images_seen, show)


class RunLog:
    """Writes a run's log and shows the run. A context, used in process 0; `silent` makes one for the others.

    images_seen: where the run resumes; later lines of the log are dropped. show: whether to print on stderr.
    """

    def __init__(self, run: Path | None, kind: RunKind, images_seen: int = 0, show: bool = True):
        config = kind.config
        self.console = Terminal(quiet=not show)
        self._config = config
        self._run = run
        kept = keep_log(run, images_seen) if run else []
        self._file = (run / JSONL if run else Path(os.devnull)).open("a", encoding="utf-8")
        self._kind = kind
        self._view = kind.view
        for line in kept:
            self._view.take(line)
        self._alarms = kind.alarms(kept)
        self._trackers = Trackers(config.trackers if run else (), run or Path(), config, images_seen, self.say)
        self._page = kind.page(run) if run else None
        self._looked = any(LOOK in line for line in kept)
        self._told_at = kept[-1]["images_seen"] if kept else 0
        redrawn = show and self.console.is_interactive and self.console.file.isatty()
        self._live = Live(self._view, console=self.console, auto_refresh=False) if redrawn else None
        self._drawn_at = 0.0

    @classmethod
    def silent(cls) -> RunLog:
        """A log that writes and shows nothing."""
        return cls(None, train_kind(TrainConfig()), show=False)

    def __enter__(self) -> RunLog:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            state: Literal["stopped", "failed"] = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            self._write_page(Status(state, self._view.done, reason=str(error) or type(error).__name__))
        if self._live is not None:
            self._live.stop()  # which draws the view for the last time
        self._trackers.close()
        self._file.close()

    @contextmanager
    def counting(self, what: str) -> Iterator[Progress]:
        """A bar for what is done after the training, below the view, which is drawn for the last time."""
        if self._live is not None:
            self._live.stop()
        with bar(self.console, what) as progress:
            yield progress

    # ------------------------------------------------------------------ what happens in a run

    def step(self, images_seen: int, figures: Mapping[str, Any]) -> None:
        """Log the figures of a step."""
        self._write(images_seen, figures)
        if not self._looked and images_seen - self._told_at > self._config.val_every:  # no image is held out
            self._tell(images_seen)

    def look(self, images_seen: int, seen: LookResult) -> None:
        """Log the figures of a validation, and write the page again."""
        self._looked = True
        if seen.picture is not None:
            self._trackers.picture(images_seen, self._kind.pictures, seen.picture)
        self._write(images_seen, seen.figures)
        self._tell(images_seen)

    def event(
        self, images_seen: int, sentence: str, alarm: bool = False, action: str | None = None, kind: str | None = None
    ) -> None:
        """Log a sentence for people, and print it.

        alarm: whether it reports trouble; action: the supervisor's action; kind: the kind of the alarm that begins or
        ends.
        """
        line = {"images_seen": images_seen, EVENT: sentence, "alarm": alarm, "action": action}
        self._append(line if kind is None else {**line, "kind": kind})
        self._trackers.event(images_seen, sentence, alarm)
        if self._live is None:
            word = "alarm: " if alarm else ""
            self.console.print(f"{images_seen:>11,} images  {word}{sentence}", style=event_style(line), soft_wrap=True)
        else:
            self._redraw()

    def live(self, images_seen: int, done: float, plan: StepPlan | None = None) -> None:
        """Redraw the view when it is time. Cheap enough to be called after every step.

        done: share of the run; plan: the plan of the discriminator's supervisor.
        """
        self._view.step(images_seen, done, plan)
        if time.monotonic() - self._drawn_at >= REDRAWS:
            self._redraw()

    def say(self, text: str) -> None:
        """Print a line for people above the view."""
        self.console.print(text, soft_wrap=True)

    def config(self, config: Any) -> None:
        """Print the resolved configuration, without optional parts at their defaults."""
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        values, defaults = to_dict(config), to_dict(type(config)())
        table.add_row("run", _words({k: v for k, v in values.items() if not isinstance(v, dict)}), style="dim")
        for part, fields in values.items():
            if isinstance(fields, dict) and not (part in OPTIONAL_PARTS and fields == defaults[part]):
                table.add_row(part, _words(fields), style="dim")
        self.console.print(table)

    def finish(self) -> None:
        """Write the page and the model card, after everything else is in the run folder."""
        self._write_page(Status("finished", 1.0))
        if self._run is not None:
            self._attempt("the model card", functools.partial(self._kind.card, self._run))

    # ------------------------------------------------------------------ how

    def _write(self, images_seen: int, values: Mapping[str, Any]) -> None:
        """Write a line of JSON, send its numbers to the trackers, and log the alarms that it raises. Figures that are
        not finite become null."""
        line = {"images_seen": images_seen, **plain(values)}
        self._append(line)
        self._trackers.scalars(images_seen, line)
        for alarm in self._alarms.observe(line):
            self.event(images_seen, alarm.message, alarm=not alarm.over, kind=alarm.kind)

    def _append(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._view.take(line)

    def _tell(self, images_seen: int) -> None:
        """Print a line where there is no view, and write the page."""
        self._told_at = images_seen
        if self._live is None:
            self.say(self._view.line())
        self._write_page(Status("training", self._view.done, self._view.pace.rate, self._view.pace.left))

    def _redraw(self) -> None:
        if self._live is not None:
            self._drawn_at = time.monotonic()
            self._live.refresh()

    def _write_page(self, status: Status) -> None:
        if self._page is not None and not self._attempt("the run's page", functools.partial(self._page.write, status)):
            self._page = None

    def _attempt(self, what: str, work: Callable[[], Any]) -> bool:
        """Do work that a run can do without; a failure is printed. Returns whether another try makes sense."""
        try:
            work()
        except MissingExtraError as error:
            self.say(f"{what} is left out: {error}")
            return False
        except Exception as error:  # any error: hours of training are worth more than a page
            reason = str(error) if isinstance(error, (VaeworksError, OSError)) else f"{type(error).__name__}: {error}"
            self.say(f"{what} could not be written, and the run goes on: {reason}")
        return True


def _words(fields: Mapping[str, Any], prefix: str = "") -> str:
    """Settings in a row, without those that are None."""
    said = [
        _words(value, f"{prefix}{name}.") if isinstance(value, Mapping) else f"{prefix}{name} {value}"
        for name, value in fields.items()
        if value is not None
    ]
    return "  ".join(said)
