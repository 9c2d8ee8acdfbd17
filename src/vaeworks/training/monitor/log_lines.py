"""Reading the lines of a run's log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...files.atomic import write_text
from .log_schema import EVENT, LOOK

JSONL = "log.jsonl"

LIMIT = 2**64
"""Bound of whole numbers in a log, so that they can become floats."""


def read_log(run: Path) -> list[dict[str, Any]]:
    """Lines of a run's log, oldest first; each has images_seen. Torn lines are left out."""
    return [line for _, line in _lines(run)]


def keep_log(run: Path, images_seen: int) -> list[dict[str, Any]]:
    """Drop torn lines, and lines after the checkpoint at which the run resumes; returns the lines that stay."""
    if not (run / JSONL).exists():
        return []
    kept = [(text, line) for text, line in _lines(run) if line["images_seen"] <= images_seen]
    write_text(run / JSONL, "".join(text + "\n" for text, _ in kept))
    return [line for _, line in kept]


def last_look(run: Path, images_seen: int) -> tuple[int | None, float | None, float | None]:
    """For a run that resumes at `images_seen`: images at its last validation, the PSNR then, and the best PSNR, in dB.

    None without any validation.
    """
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
    """Whether a line is valid: images_seen, figures as numbers or lists of numbers, sentences as text."""
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
