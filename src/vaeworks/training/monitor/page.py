"""The page of a run, RUN/report.html: one file that can be opened during the training."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ... import __version__
from ...config import TrainConfig, asked_options, differences, to_dict
from ...errors import ConfigError
from ...features.nets import FEATURE_NETS
from ...images import image_file
from ...pages import data_uri, write_page
from ...recipes import recipe
from ..run.folder import RunRecord, read_data, read_result, read_run
from ..validation import CROP, SHOWN, first_panel
from .charts import sections
from .log_lines import read_log
from .log_schema import EVENT, LOOK, STEP, duration, number, open_alarms, percent, written

REPORT = "report.html"

STEPS = 12
"""Pictures of the first held-out image."""

STEP_SIDE = 192
"""Their longest side, in pixels."""

EVENTS = 200
"""Events that are shown."""

SKIPPED = 50
"""Files that could not be used, and are named."""


@dataclass(frozen=True)
class Status:
    """The state of a run that is not in its folder."""

    state: Literal["training", "finished", "stopped", "failed"]
    done: float
    """share of the run"""
    rate: float | None = None
    """images per second"""
    left: float | None = None
    """seconds"""
    reason: str = ""
    """why it has stopped or failed"""


class RunPage:
    """Writes a run's page. What does not change in a run is read once."""

    def __init__(self, run: Path, config: TrainConfig):
        self._run = run
        self._config = config
        self._data: dict[str, Any] | None = None
        self._pictures: dict[tuple[int, int], str] = {}

    def write(self, status: Status) -> None:
        """Write the page, whole or not at all.

        Errors: MissingExtraError without jinja2; VaeworksError where it cannot be written.
        """
        write_page(self._run / REPORT, "run.html", self._values(status))

    def _values(self, status: Status) -> dict[str, Any]:
        record, lines = read_run(self._run), read_log(self._run)
        events = [line for line in lines if EVENT in line]
        looks = [line for line in lines if LOOK in line]
        if self._data is None:
            self._data = read_data(self._run)
        return {
            "version": __version__,
            "name": self._run.resolve().name,
            "recipe": record.recipe,
            "config": self._config,
            "status": status,
            "state": state_words(status),
            "pace": pace_words(status),
            "percent": percent(status.done),
            "written": time.strftime("%H:%M:%S on %Y-%m-%d"),
            "written_seconds": round(time.time()),
            "images_seen": lines[-1]["images_seen"] if lines else 0,
            "alarms": open_alarms(events),
            "headlines": self._headlines(lines, looks),
            "sheet": self._sheet(looks),
            "strip": self._strip(looks),
            "events": events[::-1][:EVENTS],
            "events_left_out": max(len(events) - EVENTS, 0),
            "sections": sections(lines, self._config),
            "data": _images(self._data, record.source),
            "changed": _changed(record.recipe, self._config),
            "parts": settings_by_part(to_dict(self._config)),
            "commands": _commands(self._run, record, status),
        }

    def _headlines(
        self, lines: Sequence[Mapping[str, Any]], looks: Sequence[Mapping[str, Any]]
    ) -> list[tuple[str, str]]:
        step: Mapping[str, Any] = next((line for line in reversed(lines) if STEP in line), {})
        psnrs = [value for line in looks if (value := number(line[LOOK])) is not None]
        found = []
        if psnrs:
            best = max(psnrs)
            highest = f"; highest of {len(psnrs)} looks at the same images {best:.2f}" if best > psnrs[-1] else ""
            found.append((f"{psnrs[-1]:.2f} dB", f"PSNR on held-out images{highest}"))
            if number(looks[-1].get("val_ssim")) is not None:
                found.append((written(looks[-1]["val_ssim"], ".4f"), "SSIM on held-out images"))
        elif step:
            found.append((f"{written(step.get('psnr'), '.2f')} dB", "PSNR of training crops"))
        if self._config.model.bottleneck.kind == "kl" and step:
            found.append((written(step.get("bits_per_dimension")), "bits per latent element (KL)"))
        result = read_result(self._run)
        if result and lines and result["images_seen"] == lines[-1]["images_seen"]:
            found.append((f"{result['num_parameters']:,}", "parameters"))
            found.append(
                (
                    duration(result["seconds"]),
                    f"of training, {result['images_per_second']:,.1f} images/s, {result['precision']}",
                )
            )
            found.append((written(1 / result["latents"]["scaling_factor"], ".4f"), "standard deviation of the latents"))
        return found

    def _sheet(self, looks: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        """The newest grid."""
        images = looks[-1]["images_seen"] if looks else -1
        path = self._sample(images)
        if not path.is_file():
            return None
        with image_file(path) as picture:
            return {"images": images, "picture": data_uri(picture, quality=82)}

    def _strip(self, looks: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
        """The first held-out image out of the newest grid, and its reconstruction out of some grids, the earlier the
        closer."""
        known = [look for look in looks if self._sample(look["images_seen"]).is_file()]
        sizes = self._sizes()
        if not known or not sizes:
            return []
        rows = [{"picture": self._cut(known[0]["images_seen"], 0, sizes), "caption": "original"}]
        for look in spread(known, STEPS - 1):
            caption = f"{look['images_seen']:,} · {written(look[LOOK], '.1f')} dB"
            rows.append({"picture": self._cut(look["images_seen"], 1, sizes), "caption": caption})
        return rows

    def _cut(self, images_seen: int, row: int, sizes: Sequence[tuple[int, int]]) -> str:
        """The first picture in a row of a grid of images of these sizes."""
        if (images_seen, row) not in self._pictures:
            with image_file(self._sample(images_seen)) as grid:
                picture = first_panel(grid, row, sizes)
            picture.thumbnail((STEP_SIDE, STEP_SIDE))
            self._pictures[images_seen, row] = data_uri(picture, quality=85)
        return self._pictures[images_seen, row]

    def _sizes(self) -> list[tuple[int, int]]:
        """Width and height of the held-out images of a grid, as they are judged; none where one has no pixels left."""
        files = sorted((self._data or {}).get("val", []), key=lambda file: str(file["digest"]))
        shown = files[: min(SHOWN, self._config.data.val_images)]
        factor = self._config.model.downsample_factor
        sides = ((min(int(file[side]), CROP) // factor * factor for side in ("width", "height")) for file in shown)
        sizes = [(width, height) for width, height in sides]
        return sizes if all(width and height for width, height in sizes) else []

    def _sample(self, images_seen: int) -> Path:
        return self._run / "samples" / f"{images_seen:010d}.png"


def state_words(status: Status) -> str:
    """The state of a run in words."""
    share = percent(status.done)
    return {
        "training": f"training, {share} done",
        "finished": "finished",
        "stopped": f"stopped at {share}",
        "failed": f"failed at {share}",
    }[status.state]


def pace_words(status: Status) -> str:
    """Images per second and time left in words."""
    rate = "" if status.rate is None else f"{status.rate:,.1f} images/s"
    return rate if status.left is None else f"{rate}, about {duration(status.left)} left"


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of them, with the first and the last, at distances that grow."""
    if len(items) <= count:
        return list(items)
    places = {round(len(items) ** (i / (count - 1))) - 1 for i in range(count)}
    return [items[place] for place in sorted(places)]


def _images(data: Mapping[str, Any], source: str) -> dict[str, Any]:
    skipped, held_out = list(data.get("skipped", [])), f"{len(data['val']):,} are held out"
    if "streamed" in data:
        sentence = f"The images of {source} are trained on as they come; {held_out} and looked at."
    else:
        sentence = f"{len(data['train']):,} images of {source} are trained on, {held_out}."
    return {"sentence": sentence, "skipped": skipped[:SKIPPED], "count": len(skipped)}


def _changed(name: str, config: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """What is other than in the recipe: {setting: (there, here)}."""
    try:
        return differences(recipe(name), config)
    except ConfigError:  # no recipe of ours
        return {}


def settings_by_part(values: Mapping[str, Any], name: str = "run") -> dict[str, dict[str, Any]]:
    """Settings by the part of the configuration that they belong to."""
    found: dict[str, dict[str, Any]] = {
        name: {k: v for k, v in values.items() if not isinstance(v, dict) and v is not None}
    }
    for part, inner in values.items():
        if isinstance(inner, dict):
            found |= settings_by_part(inner, part if name == "run" else f"{name}.{part}")
    return found


def _commands(run: Path, record: RunRecord, status: Status) -> list[str]:
    found = []
    if status.state != "finished":
        options = ["--data", record.source, "--out", str(run), "--resume", *asked_options(record.config, FEATURE_NETS)]
        again = shlex.join(["vaeworks", "train", record.recipe, *options])
        found += ["# go on after an interruption", again, ""]
    model = run if status.state == "finished" else run / "best.safetensors"
    which = "the finished model" if status.state == "finished" else "the best state so far"
    return [*found, f"# {which}, in Python", "import vaeworks as vw", f'vae = vw.load("{model.as_posix()}")']
