"""The view of a run in the terminal: a block that is redrawn, or single lines where nothing can be redrawn.

All of it comes from the log's lines, except the pace, which is measured here and logged nowhere.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ...config import TrainConfig
from ..gan.balance_state import StepPlan
from .log_schema import DISCRIMINATOR, EVENT, LOOK, STEP, duration, logit_gap, number, percent, regularizers, written

PACE_SECONDS = 60.0
"""Window of the pace: it follows the start of a discriminator, and does not jump with every step."""

EVENTS = 4
"""Sentences shown, newest last."""

BLOCKS = "▁▂▃▄▅▆▇█"

SPARK = 8
"""Characters of a small curve, which shows the whole run."""

Row = tuple[str, str, str]
"""Label, value, small curve."""


class Pace:
    """Images per second and time left, over the last minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._marks: deque[tuple[float, int, float]] = deque()

    def step(self, images_seen: int, done: float) -> None:
        """Record that so many images, and this share of the run, are done by now."""
        now = self._clock()
        if len(self._marks) < 2 or now - self._marks[-2][0] >= PACE_SECONDS / 120:  # enough for the window
            self._marks.append((now, images_seen, done))
        else:
            self._marks[-1] = (now, images_seen, done)
        while len(self._marks) > 2 and now - self._marks[1][0] >= PACE_SECONDS:
            self._marks.popleft()

    @property
    def rate(self) -> float | None:
        """Images per second; None before there are two steps."""
        return self._per_second(1)

    @property
    def left(self) -> float | None:
        """Seconds until the run is done, at this pace; None where it is unknown."""
        share = self._per_second(2)
        return None if not share else max(0.0, 1 - self._marks[-1][2]) / share

    def _per_second(self, column: int) -> float | None:
        if len(self._marks) < 2 or self._marks[-1][0] <= self._marks[0][0]:
            return None
        return float((self._marks[-1][column] - self._marks[0][column]) / (self._marks[-1][0] - self._marks[0][0]))


class Curve:
    """A small curve of a figure over the whole run: the means of equal parts."""

    def __init__(self) -> None:
        self._sums: list[tuple[float, int]] = []
        self._part = 1

    def add(self, value: float) -> None:
        """Add the next value."""
        if self._sums and self._sums[-1][1] < self._part:
            total, count = self._sums[-1]
            self._sums[-1] = (total + value, count + 1)
            return
        self._sums.append((value, 1))
        if len(self._sums) > 2 * SPARK:  # twice as many values in a part from now on
            self._part *= 2
            pairs = zip(self._sums[::2], [*self._sums[1::2], (0.0, 0)], strict=False)
            self._sums = [(a + c, b + d) for (a, b), (c, d) in pairs]

    def __str__(self) -> str:
        values = [total / count for total, count in self._sums]
        if len(values) > SPARK:
            values = [sum(pair) / len(pair) for pair in zip(values[::2], values[1::2], strict=False)] + values[
                len(values) // 2 * 2 :
            ]
        low, high = min(values, default=0.0), max(values, default=0.0)
        if len(values) < 3 or not high > low:
            return ""
        return "".join(BLOCKS[round((value - low) / (high - low) * (len(BLOCKS) - 1))] for value in values)


class Figures(Protocol):
    """The figures of one kind of run, as they are shown."""

    curves: tuple[str, ...]
    """names of figures with a small curve"""

    def take(self, line: Mapping[str, Any]) -> None:
        """Take in a line of the log that is no event."""

    def columns(self, curves: Mapping[str, Curve]) -> tuple[list[Row], list[Row]]:
        """Losses, and quality."""

    def plan(self, plan: StepPlan | None) -> RenderableType | None:
        """A line about the discriminator, if there is one. plan: its supervisor's."""

    def words(self, plan: StepPlan | None) -> list[str]:
        """The same in a few words each, where nothing can be redrawn."""


class View:
    """The state of a run for display. It takes the log's lines, also those of an earlier part of the run.

    images: length of the run.
    """

    def __init__(self, images: int, figures: Figures, pace: Pace | None = None):
        self._images = images
        self._figures = figures
        self.pace = pace or Pace()
        self.done = 0.0
        self._images_seen = 0
        self._plan: StepPlan | None = None
        self._curves = {name: Curve() for name in figures.curves}
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS)

    def step(self, images_seen: int, done: float, plan: StepPlan | None) -> None:
        """Take in the progress of the run, and the plan of the discriminator's supervisor."""
        self._images_seen, self.done, self._plan = images_seen, done, plan
        self.pace.step(images_seen, done)

    def take(self, line: Mapping[str, Any]) -> None:
        """Take in a line of the log."""
        self._images_seen = max(self._images_seen, line["images_seen"])
        if EVENT in line:
            self._events.append(dict(line))
            return
        self._figures.take(line)
        for name, curve in self._curves.items():
            if (value := number(line.get(name))) is not None:
                curve.add(value)

    # ------------------------------------------------------------------ where lines can be redrawn

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Any:
        yield self.block(options.max_width, plain=options.ascii_only)

    def block(self, width: int, plain: bool = False) -> RenderableType:
        """The block for a terminal of this width in characters. plain: ASCII only."""
        parts = [self._progress(width), self._table(width, plain)]
        if (said := self._figures.plan(self._plan)) is not None:
            parts.append(said)
        return Group(*parts, *(self._event(line) for line in self._events))

    def _progress(self, width: int) -> RenderableType:
        words = f"{percent(self.done)}  {self._images_seen:,} of {self._images:,} images  {self._speed}"
        room = width - len(words) - 3
        if room < 8:
            return Text(words)
        row = Table.grid(padding=(0, 1))
        row.add_row(ProgressBar(total=1.0, completed=min(max(self.done, 0.0), 1.0), width=min(room, 40)), words)
        return row

    @property
    def _speed(self) -> str:
        rate = self.pace.rate
        figure = "–" if rate is None else f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        return f"{figure} images/s  {duration(self.pace.left)} left"

    def _table(self, width: int, plain: bool) -> RenderableType:
        """Figures in two columns with curves, or without curves, or in one column: the first that fits."""
        losses, quality = self._figures.columns(self._curves)
        for columns, curves in (
            ((losses, quality), not plain),
            ((losses, quality), False),
            (([*losses, *quality],), not plain),
        ):
            if _width(columns, curves) <= width:
                break
        table = Table.grid(padding=(0, 1))
        for i in range(max(map(len, columns))):
            cells: list[RenderableType] = []
            for column in columns:
                label, value, curve = column[i] if i < len(column) else ("", "", "")
                cells += [Text(label, "dim"), Text(value, "bold"), *([Text(curve, "cyan")] if curves else [])]
            table.add_row(*cells)
        return table

    def _event(self, line: Mapping[str, Any]) -> Text:
        return Text(f"{line['images_seen']:,}  {line[EVENT]}", style=event_style(line))

    # ------------------------------------------------------------------ where they cannot

    def line(self) -> str:
        """The state of the run in one line."""
        said = self._figures.words(self._plan)
        if self.pace.rate is not None:
            said.append(self._speed.replace("  ", ", "))
        return f"{self._images_seen:>11,} images {percent(self.done):>6}  {'; '.join(said)}"


def _width(columns: Sequence[Sequence[Row]], curves: bool) -> int:
    """Width of columns of figures in characters."""
    widths = [max(len(row[i]) for row in column) + 1 for column in columns for i in range(3 if curves else 2)]
    return sum(widths) - 1


def event_style(line: Mapping[str, Any]) -> str:
    """How an event looks in a terminal: red where the run was changed by force, yellow for other alarms."""
    if line.get("action") in ("restore", "stop"):
        return "bold red"
    return "yellow" if line.get("alarm") else "dim"


class TrainFigures:
    """The figures of an autoencoder's training."""

    curves: tuple[str, ...] = ("loss", "psnr", "val_psnr", "bits_per_dimension")

    def __init__(self, config: TrainConfig):
        self._config = config
        self._has_kl = config.model.bottleneck.kind == "kl"
        self._figures: dict[str, Any] = {}
        self._regularizers: dict[str, float | None] = {}
        self._best: float | None = None

    def take(self, line: Mapping[str, Any]) -> None:
        """Take in a line of the log that is no event."""
        if STEP in line:  # a paused discriminator has no figures
            self._figures = {name: value for name, value in self._figures.items() if name not in DISCRIMINATOR}
            self._regularizers = regularizers(line)
        self._figures |= line
        if (psnr := number(line.get(LOOK))) is not None:
            self._best = psnr if self._best is None else max(psnr, self._best)

    def columns(self, curves: Mapping[str, Curve]) -> tuple[list[Row], list[Row]]:
        """Losses, and quality."""
        return self._losses(curves), self._quality(curves)

    def plan(self, plan: StepPlan | None) -> RenderableType | None:
        """A line about the discriminator, if there is one."""
        plan = plan if self._config.adversarial.on else None
        return self._discriminator(plan) if plan is not None or "accuracy_real" in self._figures else None

    def _losses(self, curves: Mapping[str, Curve]) -> list[Row]:
        f = self._figures
        rows = [("loss", written(f.get("loss"), ".4g"), str(curves["loss"]))]
        rows.append(("reconstruction", written(f.get("reconstruction"), ".4g"), ""))
        if self._config.loss.perceptual != "none":
            rows.append(("perceptual", written(f.get("perceptual"), ".4g"), ""))
        rows += [(name.replace("_", " "), written(value, ".4g"), "") for name, value in self._regularizers.items()]
        if self._has_kl:
            rows.append(("KL", f"{written(f.get('bits_per_dimension'))} bits/dim", str(curves["bits_per_dimension"])))
        return rows

    def _quality(self, curves: Mapping[str, Curve]) -> list[Row]:
        f = self._figures
        rows = [
            ("PSNR, training", f"{written(f.get('psnr'), '.2f')} dB", str(curves["psnr"])),
            ("PSNR, held out", f"{written(f.get(LOOK), '.2f')} dB", str(curves["val_psnr"])),
            ("SSIM, held out", written(f.get("val_ssim"), ".4f"), ""),
            ("gradient norm", written(f.get("grad_norm")), ""),
            ("learning rate", written(f.get("lr")), ""),
        ]
        if self._best is not None and f.get(LOOK) != self._best:
            rows.insert(2, ("best so far", f"{self._best:.2f} dB", ""))
        return rows

    def _discriminator(self, plan: StepPlan | None) -> Text:
        f, said = self._figures, []
        if plan is not None:
            phase = plan.phase if plan.train_discriminator or plan.phase in ("reconstruction", "off") else "paused"
            said.append(phase + (f", weight {plan.weight:.2g}" if plan.weight else ""))
        if "accuracy_real" in f:
            said.append(
                f"right on {percent(f.get('accuracy_real'))} of images, {percent(f.get('accuracy_fake'))} of "
                "reconstructions"
            )
            said.append(f"logits {written(logit_gap(f), '.2g')} apart")
        if "adaptive_weight" in f:
            said.append(f"adaptive weight {written(f['adaptive_weight'])}")
        return Text.assemble(("discriminator  ", "dim"), " · ".join(said))

    def words(self, plan: StepPlan | None) -> list[str]:
        """The same in a few words each."""
        f, said = self._figures, []
        if LOOK in f:
            similar = "" if number(f.get("val_ssim")) is None else f", SSIM {written(f['val_ssim'], '.4f')}"
            said.append(f"{written(f[LOOK], '.2f')} dB{similar} on held-out images")
        if "loss" in f:
            bits = f", {written(f.get('bits_per_dimension'))} bits/dim" if self._has_kl else ""
            said.append(f"loss {written(f['loss'], '.4g')}, {written(f.get('psnr'), '.2f')} dB{bits} in training")
        if plan is not None and self._config.adversarial.on and plan.phase != "reconstruction":
            said.append(f"discriminator {plan.phase}, weight {plan.weight:.2g}")
        return said


def train_view(config: TrainConfig, pace: Pace | None = None) -> View:
    """The view of an autoencoder's training."""
    return View(config.images, TrainFigures(config), pace)
