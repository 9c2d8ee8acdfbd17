"""The lines of a run's log, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...files.atomic import write_text
from .log_schema import EVENT, LOOK

JSONL = "log.jsonl"

LIMIT = 2**64
"""What whole numbers of a log are below, so that they become floats."""


def read_log(run: Path) -> list[dict[str, Any]]:
    """Lines of a run's log, oldest first; each has images_seen. A line torn by an interruption is left out."""
    return [line for _, line in _lines(run)]


def keep_log(run: Path, images_seen: int) -> list[dict[str, Any]]:
    """Drop the lines that an interrupted run logged after the checkpoint it goes on from, and a torn one; returns those
    that stay."""
    if not (run / JSONL).exists():
        return []
    kept = [(text, line) for text, line in _lines(run) if line["images_seen"] <= images_seen]
    write_text(run / JSONL, "".join(text + "\n" for text, _ in kept))
    return [line for _, line in kept]


def last_look(run: Path, images_seen: int) -> tuple[int | None, float | None, float | None]:
    """Where a run that goes on from `images_seen` was validated last, the PSNR then, and the best so far, in dB; None
    if never."""
    looks = [line for line in read_log(run) if LOOK in line and line["images_seen"] <= images_seen]
    if not looks:
        return None, None, None
    best = max((line[LOOK] for line in looks if line[LOOK] is not None), default=None)
    return int(looks[-1]["images_seen"]), looks[-1][LOOK], best


def _lines(run: Path) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for text in (
        (run / JSONL).read_text(encoding="utf-8", errors="replace").split("\n") if (run / JSONL).is_file() else []
    ):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and _is_line(line):
            found.append((text, line))
    return found


def _is_line(line: dict[str, Any]) -> bool:
    """Whether a line has what its kind has: where it was written, figures as numbers or lists of them, sentences as
    text."""
    if type(line.get("images_seen")) is not int or not 0 <= line["images_seen"] < LIMIT:
        return False
    if EVENT in line:
        return (
            isinstance(line[EVENT], str)
            and isinstance(line.get("alarm"), bool)
            and isinstance(line.get("kind", ""), str)
        )
    if LOOK in line and isinstance(line[LOOK], (str, list)):
        return False
    return all(_is_figure(value) for value in line.values())


def _is_figure(value: Any) -> bool:
    if isinstance(value, list):
        return all(v is None or _is_number(v) for v in value)
    return value is None or isinstance(value, (str, bool)) or _is_number(value)


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < LIMIT)
