"""One file a command, named like it; one public function behind each; and a short body between them."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vaeworks as vw
from vaeworks.cli import COMMANDS
from vaeworks.cli.console import summary

SRC = Path(vw.__file__).parent
SHARED = {"__init__", "main", "options", "console", "exit_status", "parsing", "mistakes"}
"""Files of cli/ that are no command's, besides tables_NAME.py and options_NAME.py."""
LONGEST = 40


def function_of(command: Callable[..., Any]) -> str:
    """The public function that a command's docstring names, in backquotes."""
    names = re.findall(r"`(vaeworks(?:\.\w+)+)`", inspect.getdoc(command) or "")
    assert names, f"the docstring of {command.__name__} does not name its function"
    return names[0]


def resolved(name: str) -> Any:
    """What a dotted name means."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def test_one_file_a_command() -> None:
    """The list of files is the list of commands."""
    files = {path.stem for path in (SRC / "cli").glob("*.py")}
    files = {name for name in files - SHARED if not name.startswith(("tables_", "options_"))}
    assert files == {name.replace(" ", "_").replace("-", "_") for name in COMMANDS}
    for name, command in COMMANDS.items():
        assert command.__module__ == f"vaeworks.cli.{name.replace(' ', '_').replace('-', '_')}"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_short_and_calls_its_function(name: str) -> None:
    """Its body has at most so many lines, and the function that its docstring names is imported and called in it."""
    command = COMMANDS[name]
    tree = ast.parse(inspect.getsource(command)).body[0]
    assert isinstance(tree, ast.FunctionDef)
    body = tree.body[1:]
    assert body[-1].end_lineno - body[0].lineno + 1 <= LONGEST, f"{name} has a body of more than {LONGEST} lines"
    target = resolved(function_of(command))
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    imported = {
        alias.asname or alias.name: alias.name
        for n in ast.walk(ast.parse(Path(inspect.getfile(command)).read_text(encoding="utf-8")))
        if isinstance(n, ast.ImportFrom)
        for alias in n.names
    }
    assert target.__name__ in {imported.get(c) for c in called}, f"{name} does not call {target.__name__}"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_function_is_worth_reading(name: str) -> None:
    """It has a docstring of more than a line, typed arguments and a typed result."""
    function = resolved(function_of(COMMANDS[name]))
    assert len((inspect.getdoc(function) or "").splitlines()) > 1
    signature = inspect.signature(function)
    assert all(p.annotation is not p.empty for p in signature.parameters.values())
    assert signature.return_annotation is not signature.empty
    assert not str(signature.return_annotation).startswith(("dict", "tuple[dict", "list[dict"))


def test_public_names() -> None:
    """`dir` shows them; each resolves; none is the name of a package or a module, which would hide it once imported."""
    modules = {path.stem for path in SRC.glob("*.py")} | {path.parent.name for path in SRC.glob("*/__init__.py")}
    assert set(vw.__all__) <= set(dir(vw))
    assert not set(vw.__all__) & modules
    for name in vw.__all__:
        assert getattr(vw, name).__doc__
    exported = {function_of(command) for command in COMMANDS.values()}
    assert {name.removeprefix("vaeworks.") for name in exported} <= set(vw.__all__)


@pytest.mark.parametrize("name", COMMANDS)
def test_summaries(name: str) -> None:
    """The list of commands has one whole sentence for each, on one line of a terminal of 120 columns."""
    line = summary(COMMANDS[name])
    assert line[0].isupper() and line.endswith(".")
    assert len(line) <= 100


@pytest.mark.parametrize("name", [name for name in vw.__all__ if inspect.isroutine(getattr(vw, name))])
def test_public_functions_have_an_example(name: str) -> None:
    """`help()` of a function shows a call, and how the result is used or what it is."""
    assert ">>> " in (inspect.getdoc(getattr(vw, name)) or "")


@pytest.mark.parametrize("name", COMMANDS)
def test_overwriting_has_two_names(name: str) -> None:
    """--force is --overwrite, in each command that refuses to replace files."""
    options = typing.get_type_hints(COMMANDS[name], include_extras=True)
    if "overwrite" in options:
        (settings,) = options["overwrite"].__metadata__
        assert settings.aliases == ("--force",)


def test_importing_vaeworks_loads_no_torch() -> None:
    """Nor does looking at its names."""
    code = "import sys, vaeworks; dir(vaeworks); assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
