"""The registry of random streams: one number for each use, and no stream outside of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from vaeworks import random_streams

SRC = Path(__file__).parents[1] / "src" / "vaeworks"
STREAMS = {name: value for name, value in vars(random_streams).items() if name.isupper() and isinstance(value, int)}
FILES = [path for path in sorted(SRC.rglob("*.py")) if path.name != "random_streams.py"]

KEYED = {"random_words": 1, "random_uniforms": 1, "random_seed": 1, "latent_noise": 3, "Order": 2}
"""Functions that take a stream, and its place among their arguments."""


def stream_arguments(path: Path) -> Iterator[ast.expr]:
    """The stream of every call of one of these functions, where it is given."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KEYED:
            yield from node.args[KEYED[node.func.id] : KEYED[node.func.id] + 1]
            yield from (keyword.value for keyword in node.keywords if keyword.arg == "stream")


def imported(path: Path) -> set[str]:
    """Names that a file imports from the registry."""
    return {
        alias.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("random_streams")
        for alias in node.names
    }


def test_no_two_streams_share_a_number() -> None:
    assert len(STREAMS) == len(set(STREAMS.values()))


def test_numbers_stay() -> None:
    """Results depend on them: those of the first release, and of the arena's third protocol."""
    names = "ORDER CROP NOISE INIT LEVEL STEP SHARDS BLOCKS DISTURBANCE SCENE COLOURS LATTICE SOUND PANNING"
    expected = {name: number for number, name in enumerate(names.split())}
    expected |= {"ARENA_NOISE": 64, "ARENA_SAMPLES": 65, "ARENA_WEIGHTS": 66, "VARIANTS": 96, "WALK": 97, "PRIOR": 98}
    expected |= {"DENSITY_WEIGHTS": 99, "DENSITY_TIMES": 100, "DENSITY_SAMPLES": 101, "DENSITY_POSTERIORS": 102}
    expected |= {
        "PARTNERS": 103,
        "VARIANT_NOISE": 104,
        "PIXEL_VARIANTS": 105,
        "CLASSIFIER_STEPS": 67,
        "ARENA_CLASSES": 68,
    }
    assert expected.items() <= STREAMS.items()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_streams_come_from_the_registry(path: Path) -> None:
    """Nobody passes a number, or a constant of his own: a stream is a name of the registry, or an argument."""
    for argument in stream_arguments(path):
        assert isinstance(argument, ast.Name), f"{path.name}:{argument.lineno} passes a stream that has no name"
        assert argument.id in imported(path) or argument.id == "stream", f"{path.name}: {argument.id} is no stream"


def test_every_stream_is_used() -> None:
    """A number is given for a use."""
    used = {argument.id for path in FILES for argument in stream_arguments(path) if isinstance(argument, ast.Name)}
    inside = {"ORDER", "LEVEL"}  # of Order and noise_levels
    passed_on = {"SHARDS", "BLOCKS"}  # to a function of data/streamed_crops.py
    assert used - {"stream"} | inside | passed_on == STREAMS.keys()
