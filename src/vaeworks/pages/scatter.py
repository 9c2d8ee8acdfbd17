"""Scatter plots as SVG: named points with intervals in both directions, in a page or as a file of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from .chart import _nice, _short, _ticks
from .names import Box, name_places

WIDTH, HEIGHT = 620, 380
LEFT, RIGHT, TOP, BOTTOM = 62, 22, 14, 46
"""Margins around the plot in SVG units, about pixels."""

RADIUS = 5
"""Radius of a point."""


@dataclass(frozen=True)
class Point:
    """A point and its intervals."""

    x: float
    y: float
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    """ends of its interval; the edge of the plot cuts what lies beyond"""
    special: bool = False
    """drawn hollow: the point that the others are compared with"""


Place = Callable[[float, float], tuple[float, float]]


def scatter(
    title: str, points: Mapping[str, Point], x_label: str, y_label: str, *, log: bool = False, trail: Sequence[str] = ()
) -> str:
    """A figure of named points; "" where no point is finite.

    log: a logarithmic y axis. trail: names of points that a thin line connects, in this order.
    """
    drawn = {n: p for n, p in points.items() if math.isfinite(p.x) and math.isfinite(p.y) and (p.y > 0 or not log)}
    if not drawn:
        return ""
    xs = _ends([v for p in drawn.values() for v in (p.x, *(p.x_range or ()))], False)
    ys = _ends([v for p in drawn.values() for v in (p.y, *(p.y_range or ()))], log)

    def place(x: float, y: float) -> tuple[float, float]:
        scaled = y if not log else math.log10(y) if y > 0 else -math.inf
        across, up = ((min(max(v, low), high) - low) / (high - low) for v, (low, high) in ((x, xs), (scaled, ys)))
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - TOP)

    parts = [*_axes(xs, ys, log, place), *_labels(x_label, y_label)]
    if len(line := [place(drawn[n].x, drawn[n].y) for n in trail if n in drawn]) > 1:
        parts.append('<polyline class="trail" points="' + " ".join(f"{x:.1f},{y:.1f}" for x, y in line) + '"/>')
    bars = {name: _bars(point, place) for name, point in drawn.items()}
    for i, (name, point) in enumerate(drawn.items()):
        color, (x, y) = f"var(--line-{i % 6})", place(point.x, point.y)
        parts += [
            f'<line class="bar" stroke="{color}" x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}"/>'
            for a, b, c, d in bars[name]
        ]
        fill = "var(--card)" if point.special else color
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}" fill="{fill}" stroke="{color}" stroke-width="2"/>'
        )
    places = {n: place(p.x, p.y) for n, p in drawn.items()}
    parts += _named(places, [bar for found in bars.values() for bar in found])
    return (
        f'<figure class="chart scatter"><figcaption><h3>{escape(title)}</h3></figcaption><svg viewBox="0 0 {WIDTH} '
        f'{HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg></figure>'
    )


def _axes(xs: tuple[float, float], ys: tuple[float, float], log: bool, place: Place) -> list[str]:
    parts = []
    for value in _ticks(*ys, log):
        _, y = place(xs[0], value)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>')
    for value in _nice(*xs, 6):
        x, _ = place(value, 1.0)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_short(value)}</text>')
    return parts


def _labels(x_label: str, y_label: str) -> list[str]:
    return [
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>',
    ]


def _bars(point: Point, place: Place) -> list[Box]:
    """The lines x y x y of a point's intervals."""
    found = []
    if point.y_range and not any(map(math.isnan, point.y_range)):
        found.append((*place(point.x, point.y_range[0]), *place(point.x, point.y_range[1])))
    if point.x_range and not any(map(math.isnan, point.x_range)):
        found.append((*place(point.x_range[0], point.y), *place(point.x_range[1], point.y)))
    return found


def _named(places: Mapping[str, tuple[float, float]], bars: Sequence[Box]) -> list[str]:
    """Names, and thin lines to points that their names do not touch."""
    parts = []
    for name, found in name_places(places, bars, (LEFT, 0, WIDTH - 2, HEIGHT - BOTTOM)).items():
        if found.far:
            (x, y), (a, b) = places[name], found.nearest(places[name])
            parts.append(
                f'<line class="lead" x1="{x:.1f}" y1="{y:.1f}" x2="{a:.1f}" y2="{b:.1f}" stroke="var(--soft)" '
                'stroke-width=".7"/>'
            )
        parts.append(f'<text class="name" x="{found.x:.1f}" y="{found.y:.1f}">{escape(name)}</text>')
    return parts


def _ends(values: Sequence[float], log: bool) -> tuple[float, float]:
    """Ends of an axis in scaled units, with a margin around the values."""
    scaled = [math.log10(v) if log else v for v in values if math.isfinite(v) and (v > 0 or not log)]
    low, high = min(scaled), max(scaled)
    level = high - low <= 1e-6 * max(abs(low), abs(high))  # but for rounding
    margin = (abs(high) * 0.1 or 1.0) if level else (high - low) * 0.08
    return low - margin, high + margin
