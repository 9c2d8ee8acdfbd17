"""Charts as SVG files of their own, with their colours for light and dark, their title and their legend."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from pathlib import Path

LETTER, LINE = 6.3, 16
"""Approximate width of a letter and height of a line, in SVG units."""


def alone(figure: str, legend: Mapping[str, str] | None = None, title: str = "") -> str:
    """A figure's SVG as a file of its own.

    figure: as `chart` and `scatter` make it. legend: colours by the lines' names, written with the title above the
    plot, because the figure has both outside of its SVG.
    """
    css = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    colors = "".join(re.findall(r"^:root {.*}$", css, re.MULTILINE))
    dark = "".join(re.findall(r"^@media \(prefers-color-scheme: dark\) { (:root {[^}]*})", css, re.MULTILINE))
    shapes = "".join(re.findall(r"\.chart ((?:text|polyline|\.[\w-]+) {[^}]*})", css))
    svg = figure[figure.index("<svg") : figure.index("</svg>") + 6]
    start = svg.index(">") + 1
    width, height = map(int, re.findall(r'viewBox="0 0 (\d+) (\d+)"', svg)[0])
    head, words = _head(legend or {}, title, width)
    tag = svg[:start].replace(f'viewBox="0 0 {width} {height}"', f'viewBox="0 {-head} {width} {height + head}"')
    size = f'width="{width}" height="{height + head}" '
    tag = tag.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" {size}', 1)
    style = f"<style>{colors}@media (prefers-color-scheme: dark) {{{dark}}}{shapes}</style>"
    ground = f'<rect y="{-head}" width="{width}" height="{height + head}" rx="8" fill="var(--card)"/>'
    return f"{tag}{style}{ground}{words}{svg[start:]}\n"


def _head(legend: Mapping[str, str], title: str, width: int) -> tuple[int, str]:
    """Height of title and legend above the plot, and both as SVG."""
    y = 1.4 * LINE if title else 0.0
    rows, x, places = 0, 10.0, []
    for name, color in legend.items():
        wide = 24 + LETTER * len(name)
        if x > 10 and x + wide > width:
            rows, x = rows + 1, 10.0
        places.append((name, color, x, rows))
        x += wide
    head = int(y + (rows + 1) * LINE + 4) if legend else int(y + (4 if title else 0))
    drawn = []
    if title:
        drawn.append(f'<text class="name" x="10" y="{LINE - head}" style="font-weight:600">{escape(title)}</text>')
    for name, color, left, row in places:
        base = y - head + (row + 0.8) * LINE
        drawn.append(f'<rect x="{left}" y="{base - 8:.1f}" width="9" height="9" rx="2" fill="{color}"/>')
        drawn.append(f'<text x="{left + 13}" y="{base:.1f}">{escape(name)}</text>')
    return head, "".join(drawn)
