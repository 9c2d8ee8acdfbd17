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

UNUSED: dict[str, str] = {}
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


def mentions(node: ast.AST) -> Counter[str]:
    """How often each name is used below a node: as a name, an attribute, or a text that is a name."""
    found: Counter[str] = Counter()
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            found[part.id] += 1
        elif isinstance(part, ast.Attribute):
            found[part.attr] += 1
        elif isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value.isidentifier():
            found[part.value] += 1
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
    """Each is used in the package, beside its own definition, or is exported: by `__all__`, or as a panel or a command.

    What is compared are names, so that a definition may hide behind another one of its name; but none is blamed wrongly.
    """
    everywhere: Counter[str] = Counter()
    own: Counter[tuple[Path, str]] = Counter()
    for path, tree in TREES.items():
        everywhere += mentions(tree)
        for name, node in definitions(tree):
            own[path, name] += mentions(node)[name]
    unused = {
        f"{path.relative_to(SRC).as_posix()}:{name}"
        for path, tree in TREES.items()
        for name, node in definitions(tree)
        if everywhere[name] - own[path, name] <= 0
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
        if len(line) > WIDEST and not re.fullmatch(r"\S*\[[^\]]*\]\(\S+\)\S*|\W*https?://\S+", line.strip())
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
