"""The house is kept: names, sizes, docstrings, and no code that only tests call."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "vaeworks"
FILES = sorted(SRC.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
FOLDERS = ("src", "tests", "benchmarks", "examples", "docs")

WIDEST = 120
LONGEST = 120
"""Lines of a function, the training loop's included."""

UNUSED = {}
"""Public definitions without a caller in the package, and why each stays. At most ten."""

PUBLIC = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """Public names that a module defines itself: functions, classes, constants."""
    for node in tree.body:
        if isinstance(node, PUBLIC):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        else:
            continue
        for name in names:
            if not name.startswith("_"):
                yield name, node


def module_of(path: Path) -> str:
    """Dotted name below the package; "" for the package itself."""
    return ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


MODULES = {module_of(path): path for path in FILES}


def imported(path: Path) -> Iterator[tuple[str, str, str]]:
    """(module, name there, name here) of what a file imports from the package."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.ImportFrom) and node.level:
            here = path.relative_to(SRC).parent.parts
            base = [*here[: len(here) - (node.level - 1)], *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                yield ".".join(base), alias.name, alias.asname or alias.name


REEXPORTS = {
    (module, here): (source, name)
    for module, path in MODULES.items()
    if path.name == "__init__.py"
    for source, name, here in imported(path)
}


def home(module: str, name: str) -> tuple[str, str]:
    """Where a name that a package passes on is defined."""
    while (source := REEXPORTS.get((module, name))) not in (None, (module, name)):
        module, name = source
    return module, name


def used() -> set[tuple[str, str]]:
    """(module, name) of what the package uses or exports."""
    found = {("", name) for name in ("main", "run")}
    for path, tree in TREES.items():
        exports = {
            text.value
            for node in tree.body
            if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "__all__" for t in node.targets)
            for text in ast.walk(node)
            if isinstance(text, ast.Constant)
        }
        names = Counter(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
        modules = {}
        for module, name, here in imported(path):
            if f"{module}.{name}".strip(".") in MODULES and home(module, name) == (module, name):
                modules[here] = f"{module}.{name}".strip(".")
            elif names[here] or here in exports:
                found.add(home(module, name))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):  # of a module, or of whatever stands for one of those imported here
                of = modules.get(getattr(node.value, "id", ""))
                found |= {(module, node.attr) for module in ([of] if of else modules.values())}
        for name, node in definitions(tree):
            inside = sum(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node))
            if names[name] > inside or name in exports:
                found.add((module_of(path), name))
    return found


def test_no_public_class_name_stands_twice() -> None:
    """One word, one meaning."""
    names = Counter(
        node.name
        for tree in TREES.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_no_public_definition_is_there_for_tests_alone() -> None:
    """Each is used in the package, beside its own definition, or exported by an `__all__`; a panel is found by name."""
    called = used()
    unused = {
        f"{module}.{name}"
        for module, path in MODULES.items()
        for name, _ in definitions(TREES[path])
        if (module, name) not in called and not (module.startswith("doctor.panels.") and name == "examine")
    }
    assert len(UNUSED) <= 10
    assert unused - UNUSED.keys() == set(), "only tests use these: call them, delete them, or move them into the tests"
    assert UNUSED.keys() - unused == set(), "these are used by now"


def test_no_function_is_longer_than_a_page_or_two() -> None:
    """Steps have names."""
    long = {
        f"{path.relative_to(SRC)}:{node.name}": node.end_lineno - node.lineno + 1
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.end_lineno and node.end_lineno - node.lineno >= LONGEST
    }
    assert long == {}


def test_the_training_loop_has_no_closures() -> None:
    """It is one function of named steps; the only functions within functions are what other processes wait for."""
    tree = TREES[SRC / "training" / "loop.py"]
    nested = [
        inner.name
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef)
        for inner in ast.walk(outer)
        if isinstance(inner, ast.FunctionDef) and inner is not outer
    ]
    assert nested == []
    assert not any(isinstance(node, ast.Nonlocal) for node in ast.walk(tree))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_public_definitions_say_what_they_are(path: Path) -> None:
    """A docstring for each module, class and function; overloads have their implementation's."""
    tree = TREES[path]
    assert ast.get_docstring(tree), path
    for node in tree.body:
        if isinstance(node, PUBLIC) and not node.name.startswith("_"):
            overload = any(isinstance(mark, ast.Name) and mark.id == "overload" for mark in node.decorator_list)
            assert overload or ast.get_docstring(node), f"{path.name}:{node.lineno} {node.name}"


def test_lines_fit() -> None:
    """120 columns, in code and in documents; a line that is one address may be longer."""
    texts = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md")]
    texts += [*ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "pyproject.toml"]
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in texts
        if "results" not in path.parts or path.suffix == ".md"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > WIDEST
        and not (path.name == "six-claims.md" and line.startswith("|"))  # tables that `arena report` writes
        and not re.fullmatch(r"\S*\[[^\]]*\]\(\S+\)\S*|\W*https?://\S+", line.strip())
    ]
    assert wide == []


def test_formatting_is_switched_off_for_tables_alone() -> None:
    """A literal at the module's level that reads as a table."""
    for path, tree in TREES.items():
        lines = path.read_text(encoding="utf-8").splitlines()
        tables = {
            node.end_lineno
            for node in tree.body
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, (ast.Dict, ast.List, ast.Tuple))
        }
        switched = {number for number, line in enumerate(lines, 1) if re.search(r"# fmt: (skip|off)", line)}
        assert switched <= tables, f"{path.relative_to(SRC)}: {sorted(switched - tables)}"


def test_tests_stand_as_the_package_does() -> None:
    """Folders of tests have the names of packages; what concerns the whole stands at the top, attacks in hostile/."""
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - {"hostile"} <= {path.name for path in SRC.iterdir() if path.is_dir()}
