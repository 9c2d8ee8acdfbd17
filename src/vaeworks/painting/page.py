"""The page, the live view and the card of a painting run."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from .. import __version__
from ..config import PaintConfig, differences, to_dict
from ..errors import ConfigError
from ..files.atomic import write_text
from ..images import image_file
from ..pages import chart, data_uri, write_page
from ..recipes.painting import paint_recipe
from ..training.gan.balance_state import StepPlan
from ..training.monitor.log_lines import read_log
from ..training.monitor.log_schema import EVENT, STEP, number, open_alarms, percent, written
from ..training.monitor.page import Status, pace_words, settings_by_part, spread, state_words
from ..training.monitor.terminal import Curve, Row, View
from .alarms import HELD_OUT
from .folder import SAMPLES, PaintRecord, read_record, resume_command

REPORT, CARD = "report.html", "README.md"

SHEETS = 6
"""Earlier sheets on the page."""

EVENTS = 200


class PaintFigures:
    """The figures of a painting run in the terminal."""

    curves: tuple[str, ...] = ("loss", HELD_OUT)

    def __init__(self) -> None:
        self._figures: dict[str, Any] = {}

    def take(self, line: Mapping[str, Any]) -> None:
        """Take in a line of the log that is no event."""
        self._figures |= line

    def columns(self, curves: Mapping[str, Curve]) -> tuple[list[Row], list[Row]]:
        """Losses, and what moves the weights."""
        f = self._figures
        losses = [
            ("loss", written(f.get("loss"), ".4g"), str(curves["loss"])),
            ("loss, held out", written(f.get(HELD_OUT), ".4g"), str(curves[HELD_OUT])),
        ]
        return losses, [
            ("gradient norm", written(f.get("grad_norm")), ""),
            ("learning rate", written(f.get("lr")), ""),
        ]

    def plan(self, plan: StepPlan | None) -> RenderableType | None:
        """Nothing: there is no discriminator."""
        return None

    def words(self, plan: StepPlan | None) -> list[str]:
        """The same in a few words each."""
        f, said = self._figures, []
        if "loss" in f:
            said.append(f"loss {written(f['loss'], '.4g')}")
        if HELD_OUT in f:
            said.append(f"{written(f[HELD_OUT], '.4g')} on held-out images")
        return said


def paint_view(config: PaintConfig) -> View:
    """The live view of a run."""
    return View(config.images, PaintFigures())


class PaintPage:
    """Writes RUN/report.html."""

    def __init__(self, run: Path, config: PaintConfig, prompts: Sequence[str]):
        self._run, self._config, self._prompts = run, config, prompts

    def write(self, status: Status) -> None:
        """Write the page, whole or not at all.

        Errors: MissingExtraError without jinja2; VaeworksError where it cannot be written.
        """
        record, lines = read_record(self._run.parent), read_log(self._run)
        events = [line for line in lines if EVENT in line]
        sheets = [line for line in lines if HELD_OUT in line and self._sample(line["images_seen"]).is_file()]
        values = {
            "version": __version__,
            "name": self._run.parent.resolve().name,
            "recipe": record.recipe,
            "network": network_words(record),
            "config": self._config,
            "status": status,
            "state": state_words(status),
            "pace": pace_words(status),
            "percent": percent(status.done),
            "written": time.strftime("%H:%M:%S on %Y-%m-%d"),
            "written_seconds": round(time.time()),
            "images_seen": lines[-1]["images_seen"] if lines else 0,
            "alarms": open_alarms(events),
            "headlines": _headlines(lines),
            "sheet": self._picture(sheets[-1]) if sheets else None,
            "strip": [self._picture(line) for line in spread(sheets[:-1], SHEETS)[::-1]],
            "events": events[::-1][:EVENTS],
            "events_left_out": max(len(events) - EVENTS, 0),
            "sections": _sections(lines),
            "data": _data(record),
            "changed": _changed(record),
            "parts": settings_by_part(to_dict(self._config)),
            "commands": _commands(self._run.parent, record, status, self._prompts),
        }
        write_page(self._run / REPORT, "paint_run.html", values)

    def _sample(self, images: int) -> Path:
        return self._run / SAMPLES / f"{images:010d}.png"

    def _picture(self, line: Mapping[str, Any]) -> dict[str, Any]:
        images = line["images_seen"]
        with image_file(self._sample(images)) as picture:
            uri = data_uri(picture, quality=85)
        loss = written(line[HELD_OUT], ".4g")
        return {"images": images, "picture": uri, "caption": f"after {images:,} images, held-out loss {loss}"}


def network_words(record: PaintRecord) -> str:
    """The denoiser in a few words."""
    config, d = record.config, record.config.denoiser
    if record.start is not None:
        how = f"LoRA of rank {config.move.rank}" if config.move.train == "lora" else "all weights"
        return f"denoiser of {Path(record.start).name} in new latents ({how} trained), {config.size} px"
    if d.kind == "sd3":
        return f"transformer of SD3's kind, {d.depth} blocks of width {d.width}, {config.size} px"
    return f"U-Net of SD 1's kind, width {d.width}, {config.size} px"


def _headlines(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    held = [value for line in lines if (value := number(line.get(HELD_OUT))) is not None]
    steps = [line for line in lines if STEP in line]
    found = []
    if held:
        found.append((written(held[-1], ".4g"), "loss of held-out images"))
    if steps:
        found.append((written(steps[-1][STEP], ".4g"), "loss of the newest batch"))
    return found


def _sections(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    steps = [line for line in lines if STEP in line]
    looks = [line for line in lines if HELD_OUT in line]
    losses = {
        "training": [(line["images_seen"], number(line[STEP])) for line in steps],
        "held out": [(line["images_seen"], number(line[HELD_OUT])) for line in looks],
    }
    drawn = [chart("Loss", losses, log=True)]
    drawn += [
        chart(title, {title: [(line["images_seen"], number(line.get(name))) for line in steps]})
        for name, title in (("grad_norm", "Gradient norm"), ("lr", "Learning rate"))
    ]
    text = "Over images seen. The held-out loss is at the same times and noise in every look."
    charts = [c for c in drawn if c]
    return [{"title": "Curves", "text": text, "charts": charts}] if charts else []


def _data(record: PaintRecord) -> str:
    moved = "" if record.start is None else f" It began as {record.start}."
    return f"Images and captions of {record.source}, in the latents of {record.vae}.{moved}"


def _changed(record: PaintRecord) -> dict[str, tuple[Any, Any]]:
    try:
        return differences(paint_recipe(record.recipe), record.config)
    except ConfigError:  # no recipe of ours
        return {}


def _commands(out: Path, record: PaintRecord, status: Status, prompts: Sequence[str]) -> list[str]:
    if status.state != "finished":
        return ["# go on after an interruption", resume_command(record, out)]
    prompt = prompts[0] if prompts else "a prompt"
    config = record.config
    options = ["--guidance", f"{config.guidance:g}", "--steps", str(config.steps), "--out", "painted.png"]
    return [
        "# at the command line",
        shlex.join(["vaeworks", "generate", str(out), prompt, *options]),
        "",
        "# in Python, with diffusers alone",
        "from diffusers import DiffusionPipeline",
        f"pipe = DiffusionPipeline.from_pretrained({out.as_posix()!r})",
        f"pipe({prompt!r}, guidance_scale={config.guidance:g}, num_inference_steps={config.steps}, "
        f"height={config.size}, width={config.size}).images[0]",
    ]


def write_card(run: Path, prompts: Sequence[str]) -> Path:
    """Write the model card of a finished pipeline, OUT/README.md."""
    record, lines = read_record(run.parent), read_log(run)
    held = [value for line in lines if (value := number(line.get(HELD_OUT))) is not None]
    config = record.config
    loss = f" Loss of held-out images: {held[-1]:.4g}." if held else ""
    seen = lines[-1]["images_seen"] if lines else 0
    objective = f"objective {config.objective}, " if record.start is None else ""
    commands = _commands(run.parent, record, Status("finished", 1.0), prompts)
    text = "\n".join(
        [
            "---",
            "library_name: diffusers",
            "pipeline_tag: text-to-image",
            "---",
            "",
            f"# {Path(run.parent).resolve().name}",
            "",
            f"A {network_words(record)}, trained with vaeworks {__version__} on {seen:,} images of "
            f"`{Path(record.source).name}` with captions.{loss}",
            "It paints in the latents of the VAE in `vae/`. `vaeworks.json` says how these are standardized.",
            "",
            "```python",
            *commands[commands.index("# in Python, with diffusers alone") + 1 :],
            "```",
            "",
            f"Recipe `{record.recipe}`: {objective}batch {config.batch}, caption dropout {config.caption_dropout:g}, "
            f"seed {config.seed}. The run's figures are in `training/`.",
            "",
        ]
    )
    write_text(run.parent / CARD, text)
    return run.parent / CARD


__all__ = ["PaintFigures", "PaintPage", "network_words", "paint_view", "write_card"]
