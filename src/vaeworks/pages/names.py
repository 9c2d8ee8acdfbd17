"""Positions for the names of points, so that names cover neither points nor each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LETTER, LINE = 6.3, 13
"""Approximate width of a letter and height of a line, in SVG units."""

GAP = 9
"""Distance between a point's centre and its name."""

FAR = 16
"""Distance beyond which a line connects a point with its name."""

SWEEPS = 4
"""Number of passes in which every name may move, given the others."""

ANGLES = (0, 180, 90, 270, 45, 315, 135, 225, *(angle for angle in range(15, 360, 15) if angle % 45))
"""Directions from a point to its name in degrees, preferred ones first."""

Box = tuple[float, float, float, float]
"""x y x y: corners of a rectangle, or ends of a horizontal or vertical line, in any order"""


@dataclass(frozen=True)
class Written:
    """Position of a name: the left end of its baseline."""

    x: float
    y: float
    width: float
    far: bool
    """whether a line should connect it with its point"""

    @property
    def box(self) -> Box:
        """The rectangle that the name covers."""
        return self.x, self.y - LINE + 3, self.x + self.width, self.y + 3

    def nearest(self, point: tuple[float, float]) -> tuple[float, float]:
        """The nearest position to a point on the name's edge."""
        left, top, right, bottom = self.box
        return min(max(point[0], left), right), min(max(point[1], top), bottom)


def name_places(places: Mapping[str, tuple[float, float]], bars: Sequence[Box], field: Box) -> dict[str, Written]:
    """A position for each name near its point, inside the field, with the least overlap.

    places: centres of points. bars: lines that names should not cover; overlap with them costs less than with points
    and names. One name moves at a time to its best position given the others, until none moves.
    """
    points = [(x - 7, y - 7, x + 7, y + 7) for x, y in places.values()]
    lines = [(min(a, c) - 1, min(b, d) - 1, max(a, c) + 1, max(b, d) + 1) for a, b, c, d in bars]
    choices = {name: _choices(place, LETTER * len(name), field) for name, place in places.items()}
    found: dict[str, Written] = {}
    for _ in range(SWEEPS):
        before = dict(found)
        for name in places:
            others = [w.box for other, w in found.items() if other != name]
            found[name] = min(
                choices[name], key=lambda choice: choice[0] + _cost(choice[1].box, points, others, lines)
            )[1]
        if found == before:
            break
    return found


def _choices(place: tuple[float, float], width: float, field: Box) -> list[tuple[float, Written]]:
    """Positions around a point with their costs: farther and less usual ones cost more, right beside it is free."""
    x, y = place
    made = []
    for ring, gap in enumerate((GAP, 20, 34, 50, 66, 82, 98)):
        for turn, angle in enumerate(ANGLES):
            dx, dy = math.cos(math.radians(angle)), -math.sin(math.radians(angle))
            reach = gap * (1 + 0.4 * abs(dx * dy))  # a name that is aslant begins beside its point and not on it
            left = x + reach * dx - width * (0.5 if abs(dx) < 0.2 else float(dx < 0))
            base = y + reach * dy + 4 + (LINE / 2 - 2) * dy
            top, bottom = base - LINE + 3, base + 3
            if left >= field[0] and left + width <= field[2] and top >= field[1] and bottom <= field[3]:
                made.append((40.0 * ring + 2.0 * turn, Written(left, base, width, False)))
    made = made or [(0.0, Written(min(max(x + GAP, field[0]), max(field[2] - width, field[0])), y + 4, width, False))]
    return [(cost, Written(w.x, w.y, w.width, math.dist(w.nearest(place), place) > FAR)) for cost, w in made]


def _cost(box: Box, points: Sequence[Box], names: Sequence[Box], lines: Sequence[Box]) -> float:
    """Cost of the areas that a name would cover: names and points cost much more than bars, and any overlap costs a
    fixed amount besides."""
    dear = [overlap(box, other) for other in (*points, *names)]
    return sum(500 + 20 * area for area in dear if area > 0) + sum(
        30 + area for area in (overlap(box, line) for line in lines) if area > 0
    )


def overlap(a: Box, b: Box) -> float:
    """Common area of two rectangles."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
