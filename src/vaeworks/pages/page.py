"""A template rendered to one self-contained HTML file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import MissingExtraError
from ..files.atomic import write_text

COLORS = ("#3b6ea8", "#c8553d", "#6a8d3f", "#8a5a9e")


def line_chart(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    *,
    log: bool = False,
    levels: Mapping[str, float] | None = None,
) -> str:
    """An SVG of named lines (x values, y values) and of named horizontal levels; `log` scales y."""
    try:
        import matplotlib
    except ImportError:
        raise MissingExtraError("matplotlib", "report", "the page's curves") from None
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "vaeworks", "font.family": "DejaVu Sans", "svg.fonttype": "none"}):
        figure = Figure(figsize=(5.6, 3.1), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for (name, (x, y)), color in zip(lines.items(), COLORS, strict=False):
            axes.plot(x, y, label=name, color=color, linewidth=1.6, marker="o" if len(x) < 15 else None, markersize=3.5)
        for name, level in (levels or {}).items():
            axes.axhline(level, color="#888", linewidth=1, linestyle="--")
            axes.annotate(
                name, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8, color="#666"
            )
        axes.set(xlabel=x_label, ylabel=y_label, yscale="log" if log else "linear")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=8)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]


def write_page(path: Path, template: str, values: Mapping[str, Any], overwrite: bool = True) -> None:
    """Render a template of this folder into one file, whole or not at all; over what was there, or only where nothing
    is."""
    write_text(path, _environment().get_template(template).render(values), overwrite)


@cache
def _environment() -> Any:
    """Templates, each compiled once: a run writes its page at every look."""
    try:
        import jinja2
    except ImportError:
        raise MissingExtraError("jinja2", "report", "the page") from None
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
