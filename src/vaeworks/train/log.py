"""What a run tells: lines of JSON, TensorBoard where it is installed, and a progress bar for people."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from ..config import TrainConfig
from ..formats.files import write_text

JSONL = "log.jsonl"


class RunLog:
    """Writes a run's log. Used as a context; `show` draws the bar on stderr."""

    def __init__(self, run: Path, images_seen: int = 0, show: bool = True):
        self.console = Console(stderr=True, quiet=not show, highlight=False, markup=False)
        self._path = run / JSONL
        if self._path.exists():  # drop what an interrupted run logged after the checkpoint it goes on from
            kept = [line for line in read_log(run) if line["images_seen"] <= images_seen]
            write_text(self._path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = self._path.open("a", encoding="utf-8")
        self._board = _tensorboard(run, images_seen)
        if self._board is None:
            self.console.print("TensorBoard log left out: pip install 'vaeworks[tensorboard]' adds it")
        self._bar = Progress(
            TextColumn("{task.fields[images]:>9,} images"), BarColumn(bar_width=24), TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[figures]}"), console=self.console, auto_refresh=False,
        )  # fmt: skip
        self._task = self._bar.add_task("train", total=1.0, images=images_seen, figures="")

    def __enter__(self) -> RunLog:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()
        self._file.close()
        if self._board is not None:
            self._board.close()

    def bar(self, done: float, images_seen: int, rate: float, loss: float, psnr: float, val_psnr: float | None, left: float) -> None:
        """Redraw the bar: share done, images/s, loss, PSNR of training crops and of validation, seconds left."""
        val = "" if val_psnr is None else f"  val {val_psnr:.2f}"
        figures = f"{rate:.0f} img/s  loss {loss:.4f}  psnr {psnr:.2f}{val} dB  {_duration(left)} left"
        self._bar.update(self._task, completed=done, images=images_seen, figures=figures, refresh=True)

    def say(self, text: str) -> None:
        """A line for people, above the bar."""
        self.console.print(text, soft_wrap=True)

    def config(self, config: TrainConfig) -> None:
        """The resolved configuration, for people."""
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        values = dataclasses.asdict(config)
        parts = {"run": {k: v for k, v in values.items() if not isinstance(v, dict)}}
        parts |= {k: v for k, v in values.items() if isinstance(v, dict)}
        for part, fields in parts.items():
            table.add_row(part, "  ".join(f"{k} {v}" for k, v in fields.items() if v is not None), style="dim")
        self.console.print(table)

    def write(self, images_seen: int, values: dict[str, float]) -> None:
        """One line of JSON, and the same scalars for TensorBoard."""
        self._file.write(json.dumps({"images_seen": images_seen, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, images_seen)

    def picture(self, images_seen: int, name: str, image: Image.Image) -> None:
        """A picture for TensorBoard."""
        if self._board is not None:
            self._board.add_image(name, np.asarray(image), images_seen, dataformats="HWC")


def last_look(run: Path, images_seen: int) -> tuple[int | None, float | None]:
    """Where a run that goes on from `images_seen` was validated last, and the PSNR in dB; (None, None) if never."""
    looks = [line for line in read_log(run) if "val_psnr" in line and line["images_seen"] <= images_seen]
    return (int(looks[-1]["images_seen"]), looks[-1]["val_psnr"]) if looks else (None, None)


def read_log(run: Path) -> list[dict[str, float]]:
    """Lines of a run's log, oldest first; each has images_seen. A line torn by an interruption is left out."""
    lines = []
    for line in (run / JSONL).read_text(encoding="utf-8").splitlines() if (run / JSONL).exists() else []:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and "images_seen" in value:
            lines.append(value)
    return lines


def _tensorboard(run: Path, images_seen: int) -> Any | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run / "tensorboard"), purge_step=images_seen or None)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
