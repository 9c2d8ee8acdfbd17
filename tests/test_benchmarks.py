"""Benchmarks start, and what they and the examples import from the package is there. None is run: they take long."""

from __future__ import annotations

import ast
import runpy
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
PROGRAMS = [*BENCHMARKS, *sorted((ROOT / "examples").glob("*.py"))]


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_help(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It starts without data, and says first how it is called."""
    monkeypatch.syspath_prepend(path.parent)  # where Python looks when it runs the file
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit, match=r"^0$"):
        runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().out
    assert said.startswith("usage:") and f"python benchmarks/{path.name}" in said


def taken(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(module, name) of everything that a program takes from the package, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vaeworks":
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "vw":
            yield "vaeworks", node.attr


def exists(module: str, name: str) -> bool:
    """Whether a module has a name, or a module below it has that name."""
    found = import_module(module)
    return hasattr(found, name) or (hasattr(found, "__path__") and find_spec(f"{module}.{name}") is not None)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_imports(path: Path) -> None:
    """Names and modules exist."""
    wanted = set(taken(ast.parse(path.read_text(encoding="utf-8"))))
    assert wanted
    assert [f"{module}.{name}" for module, name in sorted(wanted) if not exists(module, name)] == []
