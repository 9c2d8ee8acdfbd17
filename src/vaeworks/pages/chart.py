"""Line charts as SVG, in the colours of the page around them, light or dark; or as files with colours of their own.

They are text, because a plotting library takes 0.2 s for each chart: too long for a page of a dozen that is written
during training.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape

from .alone import alone

WIDTH, HEIGHT = 460, 210
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 8, 24
"""Margins around the plot in SVG units, about pixels."""

POINTS = 400
"""Largest number of points of a curve."""

NAMED = 16
"""Largest number of lines that a legend without values names."""

MARKED = 15
"""Most points of a curve whose points are marked."""

Line = Sequence[tuple[float, float | None]]
"""(x, y) in the order of x; None: no value."""


LARGEST = 1e100
"""Largest value that is drawn; the mean of much larger values overflows."""


def thinned(line: Line, limit: int = POINTS) -> list[tuple[float, float]]:
    """At most `limit` points: means of equally many neighbours. Points without a value, or beyond LARGEST, are left
    out."""
    points = [(x, y) for x, y in line if y is not None and abs(y) <= LARGEST]
    if len(points) <= limit:
        return points
    edges = [i * len(points) // limit for i in range(limit + 1)]
    parts = [points[a:b] for a, b in itertools.pairwise(edges)]
    return [(math.fsum(x for x, _ in part) / len(part), math.fsum(y for _, y in part) / len(part)) for part in parts]


def chart(
    title: str,
    lines: Mapping[str, Line],
    *,
    form: str = ".3g",
    log: bool = False,
    levels: Mapping[str, float] | None = None,
    marks: Sequence[tuple[float, str]] = (),
    x_label: str = "",
    newest: bool = True,
) -> str:
    """A figure of named curves; "" where there is nothing to draw.

    newest: show the newest value of each curve in the legend, in the format `form`. log: a logarithmic y axis, if all
    values are positive. levels: named horizontal lines. marks: events as (x, what happened). x_label: label of the x
    axis.
    """
    limit = POINTS if len(lines) <= 6 else max(3 * POINTS // len(lines), 40)
    drawn = {name: points for name, line in lines.items() if (points := thinned(line, limit))}
    if not drawn:
        return ""
    values = [y for points in drawn.values() for _, y in points]
    log = log and min(values) > 0
    low, high = _range([*values, *(levels or {}).values()], log)
    start, end = min(points[0][0] for points in drawn.values()), max(points[-1][0] for points in drawn.values())
    end = end if end > start else start + 1

    def place(x: float, y: float) -> tuple[float, float]:
        share = (_scaled(y, log) - low) / (high - low)
        return LEFT + (x - start) / (end - start) * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - share * (
            HEIGHT - BOTTOM - TOP
        )

    parts = []
    for value in _ticks(low, high, log):
        _, y = place(start, value)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>')
    for value in _nice(start, end, 4):
        x, _ = place(value, values[0])
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{_short(value)}</text>')
    below = 16 if x_label else 0
    if x_label:
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text x="{middle}" y="{HEIGHT + 10}" text-anchor="middle">{escape(x_label)}</text>')
    for x, what in marks:
        if start <= x <= end:
            x, _ = place(x, values[0])
            line = f'x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"'
            parts.append(f'<line class="mark" {line}><title>{escape(what)}</title></line>')
    for name, level in (levels or {}).items():
        _, y = place(start, level)
        parts.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT}" y="{y - 4:.1f}" text-anchor="end">{escape(name)}</text>')
    for i, (name, points) in enumerate(drawn.items()):
        alone, color = len(points) == 1, _color(i, len(drawn))
        steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        style = f'class="point" stroke="{color}"' if alone else f'stroke="{color}"'
        parts.append(
            f'<polyline {style} points="{steps}{" " + steps if alone else ""}"><title>{escape(name)}</title></polyline>'
        )
        if 1 < len(points) <= MARKED and len(drawn) <= 6:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>' for x, y in (place(*p) for p in points)
            ]
    return (
        "<figure "
        f'class="chart"><figcaption><h3>{escape(title)}</h3>{_legend(drawn, form if newest else "")}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + below}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg></figure>'
    )


def chart_file(
    title: str,
    lines: Mapping[str, Line],
    *,
    log: bool = False,
    levels: Mapping[str, float] | None = None,
    x_label: str = "",
) -> str:
    """The figure of `chart` as an SVG file of its own, with title and legend; the title alone where there is nothing to
    draw."""
    figure = chart(title, lines, log=log, levels=levels, x_label=x_label, newest=False)
    names = [name for name, line in lines.items() if thinned(line)]
    legend = {name: _color(i, len(names)) for i, name in enumerate(names)} if len(names) > 1 else {}
    return alone(
        figure or f'<svg viewBox="0 0 {WIDTH} 8" role="img" aria-label="{escape(title)}"></svg>', legend, title
    )


def _legend(drawn: Mapping[str, Sequence[tuple[float, float]]], form: str) -> str:
    """Names, colours and, with a format, newest values; of many lines, their number and the range of values."""
    if not form:
        colors = {name: _color(i, len(drawn)) for i, name in enumerate(drawn)}
        shown = dict(list(colors.items())[:NAMED])
        more = f"<span>and {len(colors) - len(shown)} more</span>" if len(colors) > len(shown) else ""
        return (
            "".join(f'<span><i style="background:{color}"></i>{escape(name)}</span>' for name, color in shown.items())
            + more
        )
    newest = [points[-1][1] for points in drawn.values()]
    if len(drawn) > 6:
        return (
            f"<span>{len(drawn)} channels, now from <b>{min(newest):{form}}</b> to <b>{max(newest):{form}}</b></span>"
        )
    return "".join(
        f'<span><i style="background:{_color(i, len(drawn))}"></i>{escape(name)} <b>{value:{form}}</b></span>'
        for i, (name, value) in enumerate(zip(drawn, newest, strict=True))
    )


def _color(index: int, count: int) -> str:
    """One of the page's six colours; with more lines, a hue of the colour wheel."""
    return f"var(--line-{index})" if count <= 6 else f"hsl({index * 360 // count} 60% 52%)"


def _scaled(value: float, log: bool) -> float:
    return math.log10(value) if log else value


def _range(values: Sequence[float], log: bool) -> tuple[float, float]:
    """Ends of the y axis in scaled units, with a margin around the values."""
    scaled = [_scaled(v, log) for v in values if v > 0 or not log]
    low, high = min(scaled), max(scaled)
    level = high - low <= 1e-6 * max(abs(low), abs(high))  # but for rounding
    margin = (abs(high) * 0.1 or 1.0) if level else (high - low) * 0.06
    return low - margin, high + margin


def _ticks(low: float, high: float, log: bool) -> list[float]:
    """Values of the grid lines: round numbers; on a logarithmic axis over more than a factor of 5, powers of ten, or 1,
    2 and 5 times those."""
    if not log:
        return _nice(low, high, 4)
    if high - low < 0.7:
        return _nice(10**low, 10**high, 4)
    steps = [1] if high - low > 3 else [1, 2, 5]
    exponents = range(math.floor(low), math.ceil(high) + 1)
    found = [
        m * 10.0**exponent for exponent in exponents for m in steps if low <= math.log10(m * 10.0**exponent) <= high
    ]
    return found[:: -(-len(found) // 6)]


def _nice(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers between two values."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step)
    return [float(f"{i * step:.10g}") for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _short(value: float) -> str:
    """A number as an axis shows it: 20k, 1.5M, 0.01, 3e-6."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.3g}".replace("e-0", "e-")
