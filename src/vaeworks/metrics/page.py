"""report.html of `vaeworks eval`: figures, pictures and protocol in one file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import __version__
from ..images import to_pillow
from ..images.notebook import data_uri
from ..intervals import Interval
from ..pages import chart, write_page
from .comparison import LOWER_IS_BETTER, PAIRED, Comparison, said, titles
from .evaluation import Evaluation, capped
from .gallery import GAIN, Shot
from .standing import paired_standings

NAMES = {"psnr": ("PSNR", "dB", ".2f", "↑"), "ssim": ("SSIM", "", ".4f", "↑"), "ms_ssim": ("MS-SSIM", "", ".4f", "↑"),
         "lpips": ("LPIPS", "AlexNet", ".4f", "↓")}  # fmt: skip
"""Of figures: label, unit, format, and whether more or less is better."""

BASELINES = ("psnr", "ssim")
"""Figures that baselines have."""


def write_report(
    path: Path,
    evaluations: Sequence[Evaluation],
    comparisons: Sequence[Comparison],
    galleries: Sequence[Sequence[Shot]] = (),
    overwrite: bool = True,
) -> None:
    """Write the page of one or more evaluations of equal protocol, the first of which have a gallery each, of the same
    images.

    Errors: MissingExtraError without jinja2.
    """
    write_page(path, "eval.html", page_values(evaluations, comparisons, galleries), overwrite)


def page_values(
    evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison], galleries: Sequence[Sequence[Shot]]
) -> dict[str, Any]:
    """What the template shows."""
    first = evaluations[0]
    names = titles(evaluations)
    return {
        "version": __version__,
        "names": names,
        "models": [e.model for e in evaluations],
        "count": len(first.scores),
        "protocol": asdict(first.protocol),
        "digest": first.protocol.digest,
        "rows": _figures(evaluations),
        "baselines": _rivals(evaluations),
        "codes": first.codes,
        "comparisons": [_comparison(c) for c in comparisons],
        "warnings": said(evaluations),
        "charts": [
            c
            for c in (
                _text_chart(names, evaluations),
                _edge_chart(names, evaluations),
                _spread_chart(names, evaluations),
            )
            if c
        ],
        "legibility": [_legible(e) for e in evaluations] if any(e.legibility for e in evaluations) else [],
        "pictures": "; ".join(dict.fromkeys(e.legibility.pictures for e in evaluations if e.legibility)),
        "speeds": [(n, e.speed) for n, e in _each(names, evaluations) if e.speed],
        "shots": _shots(names, galleries),
        "gain": GAIN,
        "scores": sorted(first.scores, key=lambda s: s.psnr if s.finite else -math.inf),
        "skipped": first.skipped,
    }


def _each(names: Sequence[str], evaluations: Sequence[Evaluation]) -> list[tuple[str, Evaluation]]:
    return list(zip(names, evaluations, strict=True))


def _legible(evaluation: Evaluation) -> str:
    if evaluation.legibility is None:
        return ""
    return "no size" if evaluation.legibility.smallest is None else f"{evaluation.legibility.smallest} px"


def _figures(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Rows of the table: label, unit, and a cell for each model and each baseline."""
    found, first, rivals = [e.figures for e in evaluations], evaluations[0], _rivals(evaluations)
    rows = []
    for key in dict.fromkeys(key for figures in found for key in figures):
        label, unit, form, better = NAMES.get(
            key, (key.replace("bias", "colour bias,"), _bias_unit(key), "+.2f", "→ 0")
        )
        cells = [_cell(f.get(key), form) for f in found] + [_baseline(first, name, key, form) for name in rivals]
        for cell, standing in zip(cells, _standings(evaluations, rivals, key), strict=True):
            if cell is not None:
                cell["standing"] = standing
        rows.append({"label": label, "unit": unit, "better": better, "cells": cells})
    for name, key in (("frechet_name", "frechet"), ("kernel_name", "kernel")):
        if (known := next((e.sets for e in evaluations if e.sets), None)) is not None:
            cells = [_cell(getattr(e.sets, key) if e.sets else None, ".4g") for e in evaluations] + [None] * len(rivals)
            rows.append({"label": getattr(known, name), "unit": f"N = {known.count:,}", "better": "↓", "cells": cells})
            if key == "frechet":
                half = [
                    {"value": f"{e.sets.frechet_half:.4g}", "interval": "", "standing": ""} if e.sets else None
                    for e in evaluations
                ] + [None] * len(rivals)
                rows.append(
                    {"label": f"{known.frechet_name}", "unit": "every second image alone", "better": "", "cells": half}
                )
    return rows


def _rivals(evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    """Baselines that stand beside a single model."""
    return evaluations[0].baselines if len(evaluations) == 1 else ()


def _baseline(evaluation: Evaluation, name: str, figure: str, form: str) -> dict[str, str] | None:
    """The cell of a baseline, which has PSNR and SSIM."""
    if figure not in BASELINES:
        return None
    mean = evaluation.baseline(name)[BASELINES.index(figure)]
    return {"value": format(mean, form), "interval": "", "standing": ""}


def _standings(evaluations: Sequence[Evaluation], rivals: Sequence[str], figure: str) -> Sequence[str]:
    """Of every model by its figures on the same images; and of every baseline, how the model is against it."""
    if figure not in PAIRED:
        return [""] * (len(evaluations) + len(rivals))
    values = [e.values(figure) for e in evaluations]
    found: list[str] = list(paired_standings(values, figure in LOWER_IS_BETTER))
    for name in rivals:
        if figure not in BASELINES:
            found.append("")
            continue
        theirs = [score.baselines[name][BASELINES.index(figure)] for score in evaluations[0].scores]
        both = paired_standings([values[0], [capped(v) for v in theirs] if figure == "psnr" else theirs])
        found.append({"best": "model better", "worse": "model worse"}.get(both[0], both[0]))
    return found


def _bias_unit(key: str) -> str:
    return "Lab" if key.split()[-1] in ("L", "a", "b") else "gray levels"


def _cell(interval: Interval | None, form: str) -> dict[str, str] | None:
    if interval is None:
        return None
    ends = (
        f"{interval.low:{form}} to {interval.high:{form}}"
        if math.isfinite(interval.low) and math.isfinite(interval.high)
        else ""
    )
    return {"value": format(interval.value, form), "interval": ends, "standing": ""}


def _comparison(c: Comparison) -> dict[str, str]:
    label, unit, form, _ = NAMES[c.figure]
    cell = _cell(c.difference, "+" + form) or {}
    return {
        **cell,
        "pair": f"{c.model} - {c.against}",
        "label": label,
        "unit": unit,
        "wins": f"{100 * c.wins:.0f} %",
        "verdict": c.verdict,
    }


def _text_chart(names: Sequence[str], evaluations: Sequence[Evaluation]) -> str:
    lines = {
        n: [(float(r.size), 100 * r.error_rate.value) for r in e.legibility.readings]
        for n, e in _each(names, evaluations)
        if e.legibility
    }
    return chart(
        "Characters read wrong, %", lines, levels={"90 % are read": 10.0}, x_label="font size, px", newest=False
    )


def _edge_chart(names: Sequence[str], evaluations: Sequence[Evaluation]) -> str:
    with_edges = [(n, e.legibility) for n, e in _each(names, evaluations) if e.legibility]
    if not with_edges:
        return ""
    lines = {n: [(float(e.contrast), e.recon) for e in text.edges] for n, text in with_edges}
    lines |= {"original": [(float(e.contrast), e.original) for e in with_edges[0][1].edges]}
    return chart("10-90 % rise of edges, px", lines, x_label="contrast, gray levels", newest=False)


def _spread_chart(names: Sequence[str], evaluations: Sequence[Evaluation]) -> str:
    """PSNR of every image, each model's in order."""
    lines = {}
    for name, e in _each(names, evaluations):
        values = sorted(e.values("psnr"))
        if len(values) > 1:
            lines[name] = [(100 * i / (len(values) - 1), v) for i, v in enumerate(values)]
    return chart("PSNR of the images in order, dB", lines, x_label="% of the images are worse", newest=False)


def _shots(names: Sequence[str], galleries: Sequence[Sequence[Shot]]) -> list[dict[str, Any]]:
    """Rows by image: the original once, and of every model reconstruction and difference."""
    rows = []
    for shots in zip(*galleries, strict=True):
        models = [
            {
                "name": name,
                "psnr": f"{shot.score.psnr:.2f}",
                "recon": data_uri(to_pillow(shot.recon), 92),
                "difference": data_uri(to_pillow(shot.difference), 92),
            }
            for name, shot in zip(names, shots, strict=False)
        ]
        score = shots[0].score
        rows.append(
            {
                "rank": shots[0].rank,
                "file": Path(score.path).name,
                "original": data_uri(to_pillow(shots[0].original), 92),
                "models": models,
            }
        )
    return rows
