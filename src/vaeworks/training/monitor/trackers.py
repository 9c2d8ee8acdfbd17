"""Programs that show a run's figures beside its own page: TensorBoard, Weights & Biases, Trackio.

A tracker never stops a run: one that fails is left out from then on, and that is said once.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ...config import to_dict
from ...errors import ConfigError, FormatError, MissingExtraError, VaeworksError
from ...files.atomic import read_json, write_text
from .log_schema import number

PROJECT = "vaeworks"
"""Name under which Weights & Biases and Trackio gather runs."""

IDENTITY = "wandb.json"
"""In the run folder: by which id Weights & Biases knows the run, so that a resumed one goes on there."""


class Tracker(Protocol):
    """Where figures go."""

    def scalars(self, images_seen: int, values: Mapping[str, float]) -> None:
        """Numbers of one line of the log."""

    def picture(self, images_seen: int, name: str, picture: Image.Image) -> None:
        """A picture."""

    def event(self, images_seen: int, sentence: str, alarm: bool) -> None:
        """A sentence for people."""

    def close(self) -> None:
        """Nothing follows."""


class TensorBoard:
    """Event files in RUN/tensorboard. Errors: ImportError where TensorBoard is not installed."""

    def __init__(self, run: Path, config: Any, images_seen: int):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=images_seen or None)

    def scalars(self, images_seen: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, images_seen)

    def picture(self, images_seen: int, name: str, picture: Image.Image) -> None:
        self._writer.add_image(name, np.asarray(picture), images_seen, dataformats="HWC")

    def event(self, images_seen: int, sentence: str, alarm: bool) -> None:
        self._writer.add_text("alarms" if alarm else "events", sentence, images_seen)

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of Weights & Biases, whose x axis is images seen; WANDB_MODE=offline keeps it on this machine. Alarms
    become its alerts."""

    def __init__(self, run: Path, config: Any, images_seen: int):
        import wandb

        self._library = wandb
        identity = read_json(run / IDENTITY).get("id") if (run / IDENTITY).is_file() else None
        if identity is not None and not (isinstance(identity, str) and re.fullmatch(r"[\w-]{1,128}", identity)):
            raise FormatError(
                f"{run / IDENTITY} does not hold the id of a run of Weights & Biases; delete it, and a new one begins"
            )
        self._run = wandb.init(
            project=PROJECT, name=run.resolve().name, dir=str(run), config=to_dict(config), id=identity, resume="allow"
        )
        self._run.define_metric("images_seen", hidden=True)
        self._run.define_metric("*", step_metric="images_seen")
        write_text(run / IDENTITY, json.dumps({"id": self._run.id}) + "\n")

    def scalars(self, images_seen: int, values: Mapping[str, float]) -> None:
        self._run.log({"images_seen": images_seen, **values})

    def picture(self, images_seen: int, name: str, picture: Image.Image) -> None:
        self._run.log({"images_seen": images_seen, name: self._library.Image(picture)})

    def event(self, images_seen: int, sentence: str, alarm: bool) -> None:
        if alarm:
            self._run.alert(title=f"{images_seen:,} images", text=sentence, level="WARN")

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A run of Hugging Face's Trackio, on this machine: `trackio show` opens it. Alarms become its alerts."""

    def __init__(self, run: Path, config: Any, images_seen: int):
        import trackio

        self._library = trackio
        resume = "allow" if images_seen else "never"
        trackio.init(project=PROJECT, name=run.resolve().name, config=to_dict(config), resume=resume)

    def scalars(self, images_seen: int, values: Mapping[str, float]) -> None:
        self._library.log(dict(values), step=images_seen)

    def picture(self, images_seen: int, name: str, picture: Image.Image) -> None:
        self._library.log({name: self._library.Image(picture)}, step=images_seen)

    def event(self, images_seen: int, sentence: str, alarm: bool) -> None:
        if alarm:
            self._library.alert(title=f"{images_seen:,} images", text=sentence)

    def close(self) -> None:
        self._library.finish()


TRACKERS: dict[str, Callable[[Path, Any, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "trackio": Trackio,
}
"""By the names of their packages, which are also those of the extras that install them."""


def check_trackers(names: Sequence[str]) -> None:
    """Check, before any work, that what was asked for is there; TensorBoard, which is on by default, may be absent.

    Errors: ConfigError for an unknown name, MissingExtraError for a package that is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"unknown tracker {name!r}; known: {', '.join(TRACKERS)}")
        if name != "tensorboard" and importlib.util.find_spec(name) is None:
            raise MissingExtraError(name, name, f"tracker {name!r}")


class Trackers:
    """Several trackers as one that never fails. say: prints a line about a tracker that is left out."""

    def __init__(self, names: Sequence[str], run: Path, config: Any, images_seen: int, say: Callable[[str], None]):
        self._say = say
        self._open: dict[str, Tracker] = {}
        for name in names:
            try:
                with _stdout_to_stderr():
                    self._open[name] = TRACKERS[name](run, config, images_seen)
            except ImportError:
                say(f"{name} is left out, because it is not installed: pip install 'vaeworks[{name}]' adds it")
            except Exception as error:
                self._drop(name, error)

    def scalars(self, images_seen: int, values: Mapping[str, Any]) -> None:
        """The numbers among these values: neither lists nor words, nor what is not finite."""
        found = {
            name: value
            for name, item in values.items()
            if (value := number(item)) is not None and name != "images_seen"
        }
        if found:
            self._each(lambda tracker: tracker.scalars(images_seen, found))

    def picture(self, images_seen: int, name: str, picture: Image.Image) -> None:
        """A picture."""
        self._each(lambda tracker: tracker.picture(images_seen, name, picture))

    def event(self, images_seen: int, sentence: str, alarm: bool) -> None:
        """A sentence for people."""
        self._each(lambda tracker: tracker.event(images_seen, sentence, alarm))

    def close(self) -> None:
        """Nothing follows."""
        self._each(lambda tracker: tracker.close())
        self._open.clear()

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                with _stdout_to_stderr():
                    tell(tracker)
            except Exception as error:
                self._drop(name, error)

    def _drop(self, name: str, error: Exception) -> None:
        self._open.pop(name, None)
        reason = str(error) if isinstance(error, VaeworksError) else f"{type(error).__name__}: {error}"
        self._say(
            f"{name} is left out from now on, because it failed ({' '.join(reason.split())[:200]}); the run goes on"
        )


def _stdout_to_stderr() -> contextlib.AbstractContextManager[Any]:
    """Some trackers print to stdout, which belongs to --json."""
    return contextlib.redirect_stdout(sys.stderr)
