"""Charts as files: well-formed, with title, legend and both sets of colours; and in pages, without any fixed colour."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from vaeworks.pages import chart, chart_file

LINES = {"a < b": [(0.0, 1.0), (1.0, 2.0)], "b": [(0.0, 3.0)], "none": [(0.0, math.nan)]}


def test_a_file_names_lines_levels_and_axes() -> None:
    root = ElementTree.fromstring(chart_file("Accuracy, %", LINES, levels={"chance": 0.5}, x_label="labels"))
    words = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"Accuracy, %", "a < b", "b", "chance", "labels"} <= words and "none" not in words
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    left, top, wide, high = map(float, root.get("viewBox", "").split())
    assert (left, wide, high) == (0, width, height) and top < 0
    for text in root.iter("{http://www.w3.org/2000/svg}text"):
        assert top <= float(text.get("y", "nan")) <= top + high


def test_a_file_without_values_is_a_title() -> None:
    root = ElementTree.fromstring(chart_file("Nothing", {"x": [(0.0, math.nan)]}, log=True))
    assert [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")] == ["Nothing"]


@pytest.mark.parametrize("count", [2, 7])
def test_colours_are_the_pages(count: int) -> None:
    """Variables that pages define for light and dark, so that no chart is white in a dark page."""
    figure = chart("title", {f"line {i}": [(0.0, i), (1.0, i + 1)] for i in range(count)}, levels={"limit": 1.0})
    assert not re.findall(r"#[0-9a-f]{3,6}|rgb\(|white|black", figure)
    text = chart_file("title", {f"line {i}": [(0.0, i), (1.0, i + 1)] for i in range(count)})
    light, dark = text.split("@media (prefers-color-scheme: dark)")
    for name in set(re.findall(r"var\((--[\w-]+)\)", text)):
        assert f"{name}:" in light and f"{name}:" in dark


def test_few_points_are_marked() -> None:
    assert chart("t", {"a": [(i, i) for i in range(4)]}).count("<circle") == 4
    assert chart("t", {"a": [(i, i) for i in range(40)]}).count("<circle") == 0
