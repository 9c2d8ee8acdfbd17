"""Findings as files: JSON for programs and for the cache, with pictures beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..images import image_file
from .finding import Curves, Figure, Finding, Picture

SCHEMA = 1
"""Version of report.json: it rises when a key changes its meaning or goes; new keys do not raise it."""


def to_dict(finding: Finding) -> dict[str, Any]:
    """A finding as JSON values, without its pictures."""
    return {
        "verdict": finding.verdict,
        "sentence": finding.sentence,
        "figures": {name: asdict(figure) for name, figure in finding.figures.items()},
        "meaning": finding.meaning,
        "remedy": finding.remedy,
        "dispute": finding.dispute,
        "uncertainty": finding.uncertainty,
        "curves": [asdict(curves) for curves in finding.curves],
        "tables": {
            name: {column: list(values) for column, values in table.items()} for name, table in finding.tables.items()
        },
        "images": finding.images,
    }


def from_dict(values: Mapping[str, Any], pictures: tuple[Picture, ...] = ()) -> Finding:
    """The finding that `to_dict` wrote."""
    parts = dict(values)
    parts["figures"] = {name: Figure(**figure) for name, figure in parts["figures"].items()}
    parts["curves"] = tuple(
        Curves(
            **{**curves, "lines": {name: [tuple(point) for point in line] for name, line in curves["lines"].items()}}
        )
        for curves in parts["curves"]
    )
    return Finding(pictures=pictures, **parts)


def write_finding(folder: Path, finding: Finding, seconds: float) -> None:
    """Write a finding into a new folder; finding.json comes last, so that a torn folder has none."""
    folder.mkdir(parents=True)
    captions = []
    for number, picture in enumerate(finding.pictures):
        picture.image.save(folder / f"{number}.png")
        captions.append([picture.caption, picture.pixelated])
    values = {"finding": to_dict(finding), "pictures": captions, "seconds": seconds}
    (folder / "finding.json").write_text(
        json.dumps(values), encoding="utf-8"
    )  # NaN and Infinity as Python writes and reads them


def read_finding(folder: Path) -> tuple[Finding, float] | None:
    """A cached finding and the seconds it took; None where there is no whole one."""
    try:
        values = json.loads((folder / "finding.json").read_text(encoding="utf-8"))
        pictures = []
        for number, (caption, pixelated) in enumerate(values["pictures"]):
            with image_file(folder / f"{number}.png") as file:
                file.load()
            pictures.append(Picture(caption, file, pixelated))
        return from_dict(values["finding"], tuple(pictures)), float(values["seconds"])
    except (OSError, ValueError, TypeError, LookupError, AttributeError, AssertionError, RecursionError, OverflowError):
        return None
