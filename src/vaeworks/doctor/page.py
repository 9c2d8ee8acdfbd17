"""report.html with the findings of one model, and compare.html with several models side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import differences, dumps
from ..errors import ConfigError
from ..files.atomic import write_text
from ..intervals import Interval
from ..metrics.standing import interval_standings
from ..pages import chart, data_uri, write_page
from .examination import Examination
from .finding import Figure, Finding, Picture, number
from .panels import TITLES
from .serialization import SCHEMA

REPORT, RECORD = "report.html", "report.json"
COMPARE, COMPARE_RECORD = "compare.html", "compare.json"

FIRST = ("fog", "fidelity")
"""Panels whose pictures compare.html shows open; those of the others are folded."""

BETTER = {"less": "↓", "more": "↑", "": ""}
"""What is better in a figure, as tables show it."""

JPEG_FROM = 160_000
"""Pixels from which a picture is stored as JPEG, so that photographs are small files and small maps stay exact."""


def write_report(folder: Path, examination: Examination, overwrite: bool = True) -> None:
    """Write report.html and report.json into a folder, each whole or not at all.

    Errors: MissingExtraError without jinja2; VaeworksError where they cannot be written.
    """
    write_text(folder / RECORD, dumps(examination.to_dict()) + "\n", overwrite)
    write_page(folder / REPORT, "doctor.html", page_values(examination), overwrite)


def page_values(examination: Examination) -> dict[str, Any]:
    """The values that the template shows."""
    return {
        "version": __version__,
        "model": short_name(examination.model),
        "path": examination.model,
        "facts": examination.facts,
        "protocol": examination.protocol,
        "counts": {verdict: count for verdict, count in examination.counts.items() if count},
        "seconds": sum(examination.seconds.values()),
        "panels": [_panel(name, finding) for name, finding in examination.findings.items()],
    }


def short_name(model: str) -> str:
    """A short name of a model: the last telling part of its path."""
    parts = [part for part in Path(model).parts if part not in ("/", "run", "vae", "model.safetensors")]
    return parts[-1] if parts else model


def _panel(name: str, finding: Finding) -> dict[str, Any]:
    return {
        "name": name,
        "title": TITLES[name],
        "finding": finding,
        "sentence": finding.sentence[:1].upper() + finding.sentence[1:],
        "verdict": finding.verdict,
        "figures": [
            {"label": f.label, "value": f.shown, "interval": f.interval, "limit": f.limit}
            for f in finding.figures.values()
        ],
        "pictures": list(map(_shown, finding.pictures)),
        "charts": [
            chart(_titled(c.title, c.y), c.lines, log=c.log, levels=c.levels, x_label=c.x, newest=False)
            for c in finding.curves
            if c.lines
        ],
        "tables": {title: _rows(table) for title, table in finding.tables.items() if table},
    }


def _shown(picture: Picture) -> dict[str, Any]:
    image = picture.image
    small = picture.pixelated or image.width * image.height < JPEG_FROM
    return {
        "uri": data_uri(image, None if small else 88),
        "caption": picture.caption,
        "pixelated": picture.pixelated,
        "width": image.width,
        "height": image.height,
        "wide": image.width > 2 * image.height,
    }


def _titled(title: str, y: str) -> str:
    return f"{title}, {y}" if y and y not in title else title


def _rows(table: Mapping[str, Sequence[float | str]]) -> dict[str, Any]:
    columns = [[v if isinstance(v, str) else number(v) for v in values] for values in table.values()]
    texts = [any(isinstance(v, str) for v in values) for values in table.values()]
    return {
        "head": list(zip(table, texts, strict=True)),
        "rows": [list(zip(row, texts, strict=True)) for row in zip(*columns, strict=True)],
    }


def write_comparison(
    folder: Path, examinations: Sequence[Examination], places: Sequence[str], overwrite: bool = True
) -> None:
    """Write compare.html and compare.json with every figure of several models.

    places: folders of the models' reports, relative to `folder`.
    Errors: ConfigError where the models were examined by different protocols, naming the difference.
    """
    rows = comparison(examinations)
    names = [place.rstrip("/") for place in places]
    values = {
        "schema": SCHEMA,
        "vaeworks": __version__,
        "models": {name: e.to_dict() for name, e in zip(names, examinations, strict=True)},
    }
    write_text(folder / COMPARE_RECORD, dumps(values) + "\n", overwrite)
    models = [
        {"name": name, "page": f"{name}/{REPORT}", "examination": e}
        for name, e in zip(names, examinations, strict=True)
    ]
    write_page(
        folder / COMPARE,
        "compare.html",
        {
            "version": __version__,
            "models": models,
            "panels": rows,
            "protocol": examinations[0].protocol,
            "first": FIRST,
        },
        overwrite,
    )


def comparison(examinations: Sequence[Examination]) -> list[dict[str, Any]]:
    """Every panel with each model's verdict and first picture, and every figure with each model's value and interval.

    Errors: ConfigError for different protocols.
    """
    check_alike(examinations)
    panels = []
    for name in TITLES:
        found = [e.findings.get(name) for e in examinations]
        if not any(found):
            continue
        keys = dict.fromkeys(key for f in found if f for key in f.figures)
        figures = []
        for key in keys:
            cells = [f.figures.get(key) if f else None for f in found]
            first = next(cell for cell in cells if cell)
            figures.append(
                {
                    "label": first.label
                    if all(c is None or c.label == first.label for c in cells)
                    else key.replace("_", " "),
                    "unit": first.unit,
                    "better": BETTER[first.better],
                    "cells": [
                        None if c is None else {"value": c.shown, "interval": c.interval, "standing": standing}
                        for c, standing in zip(cells, _standings(cells), strict=True)
                    ],
                }
            )
        pictures = [_shown(f.pictures[0]) if f and f.pictures else None for f in found]
        panels.append(
            {
                "name": name,
                "title": TITLES[name],
                "short": TITLES[name].partition(":")[0],
                "findings": found,
                "pictures": pictures if any(pictures) else [],
                "figures": figures,
            }
        )
    return panels


def _standings(figures: Sequence[Figure | None]) -> Sequence[str]:
    """Best, level or worse, where the figure says what is better and its intervals can tell."""
    known = next((figure for figure in figures if figure is not None), None)
    if known is None or not known.better:
        return [""] * len(figures)
    intervals = [
        None if f is None or f.low is None or f.high is None else Interval(f.value, f.low, f.high) for f in figures
    ]
    return interval_standings(intervals, known.better == "less")


def check_alike(examinations: Sequence[Examination]) -> None:
    """Errors: ConfigError for examinations by different protocols, which includes the reference VAE."""
    first = examinations[0]
    for other in examinations[1:]:
        found = differences(first.protocol, other.protocol)
        differing = [f"{name} ({_short(a)} and {_short(b)})" for name, (a, b) in found.items()]
        if differing:
            raise ConfigError(
                f"{first.model} and {other.model} were not examined alike: {', '.join(differing)} differ; examine both "
                "in one call"
            )


def _short(value: object) -> str:
    text = str(value)
    return text[:8] if len(text) == 64 else text or "none"
