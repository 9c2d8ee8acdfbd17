"""The project's own files: versions and minima agree, workflows and hooks name what exists."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from minima import ROOT, constraints, minima
from packaging.version import Version
from release import disagreements

import vaeworks

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]


def pinned(file: str) -> dict[str, str]:
    """Versions by name of a file of constraints."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE))


def test_the_oldest_versions_are_those_that_are_allowed() -> None:
    """`make constraints-oldest.txt` mends it."""
    assert (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8") == constraints()


def test_pinned_versions_are_allowed() -> None:
    """constraints.txt has all that users install but trackers, none of it older than pyproject.toml allows."""
    pins = {name.lower(): version for name, version in pinned("constraints.txt").items()}
    for name, oldest in minima().items():
        if name not in ("trackio", "wandb"):
            assert Version(pins[name]) >= Version(oldest), name


def test_the_version_is_the_same_everywhere() -> None:
    """And a release's tag must be it."""
    assert disagreements() == disagreements(f"v{vaeworks.__version__}") == []
    assert disagreements("v0.0.0") == [
        f"the tag is v0.0.0, and __version__ is {vaeworks.__version__}; tag the commit v{vaeworks.__version__}"
    ]


def test_the_version_is_written_once() -> None:
    """In src/vaeworks/__init__.py; neither elsewhere in the package nor in the docs, where it would grow old."""
    texts = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), ROOT / "pyproject.toml"]
    number = re.compile(rf"(?<![\d.v]){re.escape(vaeworks.__version__)}(?![\d.])")
    found = {path.relative_to(ROOT).as_posix() for path in texts if number.search(path.read_text(encoding="utf-8"))}
    assert found == {"src/vaeworks/__init__.py", "CHANGELOG.md"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_what_exists(path: Path) -> None:
    """Targets of make, files of the repository, and the extra of the tests."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    jobs: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    lines = [line for job in jobs.values() for step in job["steps"] for line in step.get("run", "").splitlines()]
    assert lines
    for words in map(shlex.split, lines):
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), words
        for word in words:
            assert not re.search(r"\.(py|txt)$", word) or (ROOT / word).is_file(), word


def test_workflows_run_every_python_that_is_promised() -> None:
    """Those of the classifiers; the oldest is the one that is required."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))["jobs"]
    promised = [found[1] for text in project["classifiers"] if (found := re.search(r":: (3\.\d+)$", text))]
    assert jobs["check"]["strategy"]["matrix"]["python"] == promised
    assert project["requires-python"] == f">={promised[0]}"
    setup = next(step["with"] for step in jobs["oldest"]["steps"] if "setup-python" in step.get("uses", ""))
    assert setup["python-version"] == promised[0]


def test_hooks_need_no_network_and_run_the_linters() -> None:
    """They are local, and call the programs that `make lint` calls."""
    hooks = [hook for repo in HOOKS for hook in repo["hooks"]]
    assert {repo["repo"] for repo in HOOKS} == {"local"}
    assert {hook["language"] for hook in hooks} == {"system", "pygrep"}
    called = {hook["entry"].split()[0] for hook in hooks if hook["language"] == "system"}
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert lint is not None
    linters = {line.split()[0].replace("$(BIN)", ".venv/bin") for line in lint[1].splitlines()}
    assert linters <= called


def test_files_pass_the_hooks() -> None:
    """Texts end with one newline, and no line ends with a space."""
    patterns = {hook["id"]: hook["entry"] for repo in HOOKS for hook in repo["hooks"] if hook["language"] == "pygrep"}
    texts = [path for path in ROOT.glob("*") if path.suffix in (".md", ".txt", ".toml", ".cff", ".yaml")]
    for folder in ("src", "tests", "benchmarks", "examples", "docs", ".github"):
        texts += [
            p for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".md", ".yml", ".typed", ".json", ".txt")
        ]
    for path in texts:
        text = path.read_text(encoding="utf-8")
        assert not re.search(patterns["end-of-file"], text, re.MULTILINE | re.DOTALL), path
        assert not re.search(patterns["trailing-space"], text, re.MULTILINE), path
