"""Points in the plane: everything is drawn inside the picture, and names cover nothing where that can be."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaeworks.pages.alone import alone
from vaeworks.pages.names import name_places, overlap
from vaeworks.pages.scatter import BOTTOM, HEIGHT, LEFT, WIDTH, Point, scatter

FIELD = (LEFT, 0, WIDTH - 2, HEIGHT - BOTTOM)


def drawn(points: dict[str, Point], **options: bool) -> ElementTree.Element:
    """The SVG, parsed."""
    figure = scatter("title", points, "x", "y", **options)
    return ElementTree.fromstring(figure[figure.index("<svg") : figure.index("</svg>") + 6])


values = (
    st.floats(min_value=-1e12, max_value=1e12)
    | st.floats(min_value=1e-9, max_value=1e-3)
    | st.sampled_from([math.nan, math.inf, 0.0])
)


@given(st.lists(st.tuples(values, values, values, values), max_size=12), st.booleans())
def test_any_points_can_be_drawn(rows: list[tuple[float, float, float, float]], log: bool) -> None:
    """Equal, huge, tiny, infinite, none: every point, bar and name lies within the picture."""
    points = {
        f"p{i}": Point(x, y, (min(x, a), max(x, a)), (min(y, b), max(y, b))) for i, (x, y, a, b) in enumerate(rows)
    }
    figure = scatter("title", points, "x", "y", log=log)
    sound = [p for p in points.values() if math.isfinite(p.x) and math.isfinite(p.y) and (p.y > 0 or not log)]
    assert figure.count("<circle") == len(sound)
    if not sound:
        assert figure == ""
        return
    assert not re.findall(r'="-?(?:nan|inf)', figure)
    for name, end in (("x", WIDTH), ("y", HEIGHT)):
        for value in re.findall(rf'\b(?:{name}|{name}1|{name}2|c{name})="([^"]*)"', figure):
            assert -0.1 <= float(value) <= end + 0.1


def test_places_are_right() -> None:
    """Up is more, right is more; a logarithm's steps are equal."""
    root = drawn({str(i): Point(float(i), 10.0**i) for i in range(3)}, log=True)
    circles = [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in root.iter("circle")]
    (a, b), (c, d), (e, f) = circles
    assert a < c < e
    assert b > d > f
    assert b - d == pytest.approx(d - f, abs=0.11)


def test_intervals_are_bars() -> None:
    """An interval without an upper end is cut at the field's edge, not left out: it is the one that is least
    certain."""
    root = drawn(
        {"a": Point(1, 1, None, (0.5, math.inf)), "b": Point(2, 2, (1.5, 2.5), (math.nan, math.nan)), "c": Point(3, 1)}
    )
    bars = [line for line in root.iter("line") if line.get("class") == "bar"]
    assert len(bars) == 2
    assert min(float(bars[0].get("y1", "")), float(bars[0].get("y2", ""))) == pytest.approx(14, abs=0.1)


def test_special_is_hollow() -> None:
    """What others are compared with has the card's colour inside."""
    root = drawn({"a": Point(1, 1, special=True), "b": Point(2, 2)})
    assert [c.get("fill") for c in root.iter("circle")] == ["var(--card)", "var(--line-1)"]


CROWDS = {
    "a heap": {f"name-{i}": (300.0 + 3 * (i % 3), 150.0 + 3 * (i // 3)) for i in range(9)},
    "one place": {f"kl-0.{i}": (300.0, 150.0) for i in range(6)},
    "a row": {f"variance-{i}": (80.0 + 40 * i, 200.0) for i in range(12)},
    "a corner": {f"f8c{i}": (WIDTH - 25.0 - 2 * i, 20.0 + 2 * i) for i in range(5)},
    "the other corner": {f"layernorm{i}": (LEFT + 4.0 + i, HEIGHT - BOTTOM - 5.0 - i) for i in range(5)},
}


@pytest.mark.parametrize("crowd", CROWDS)
def test_names_cover_nothing(crowd: str) -> None:
    """There is room, so no name covers a point or another name, and all are inside."""
    places = CROWDS[crowd]
    found = name_places(places, [], FIELD)
    boxes = [w.box for w in found.values()]
    points = [(x - 5, y - 5, x + 5, y + 5) for x, y in places.values()]
    for i, box in enumerate(boxes):
        assert all(overlap(box, other) == 0 for other in (*points, *boxes[:i]))
        assert box[0] >= FIELD[0] and box[1] >= FIELD[1] and box[2] <= FIELD[2] and box[3] <= FIELD[3]


def test_a_name_alone_is_beside_its_point() -> None:
    """To the right, without a line; beside the bars of intervals rather than on them."""
    found = name_places({"alone": (300.0, 150.0)}, [(300, 100, 300, 200)], FIELD)["alone"]
    assert not found.far
    assert found.x == pytest.approx(309)
    for bars in ([(200.0, 150.0, 400.0, 150.0)], [(200.0, 150.0, 400.0, 150.0), (300.0, 100.0, 300.0, 200.0)]):
        aside = name_places({"variance-expansion": (300.0, 150.0)}, bars, FIELD)["variance-expansion"]
        assert not aside.far
        assert all(overlap(aside.box, (a - 1, b - 1, c + 1, d + 1)) == 0 for a, b, c, d in bars)


def test_names_that_are_far_have_a_line() -> None:
    """Where many points are in one place, a name that had to leave is connected with its point."""
    points = {f"point-{i}": Point(1, 1) for i in range(14)} | {"other": Point(2, 2)}
    root = drawn(points)
    assert any(line.get("class") == "lead" for line in root.iter("line"))


def test_alone_brings_its_colours() -> None:
    """A file of its own: well-formed, its own size, every variable defined, for light and for dark."""
    text = alone(
        scatter("a < b", {"a & b": Point(1, 1, None, (0.5, 2)), "c": Point(2, 2)}, "x", "y", trail=("a & b", "c"))
    )
    root = ElementTree.fromstring(text)
    assert (root.get("width"), root.get("height")) == (str(WIDTH), str(HEIGHT))
    assert root.get("aria-label") == "a < b"
    light, dark = text.split("@media (prefers-color-scheme: dark)")
    for name in set(re.findall(r"var\((--[\w-]+)\)", text)):
        assert f"{name}:" in light
        assert f"{name}:" in dark
