"""Witnesses: that nothing ran, and that nothing large was allocated."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vaeworks.formats.archive import open_archive

FORBIDDEN = (
    "exec",
    "compile",
    "import",
    "marshal",
    "pickle",
    "os.",
    "subprocess",
    "socket",
    "ctypes",
    "webbrowser",
    "shutil",
    "code.",
)
"""Beginnings of audit events that reading a file gives no reason for."""

_events: list[str] | None = None


def _witness(event: str, arguments: tuple) -> None:
    if _events is not None and event.startswith(FORBIDDEN):
        _events.append(f"{event} {arguments!r:.200}")


sys.addaudithook(_witness)  # can never be taken away again, but sleeps while _events is None


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test of this folder leaves a canary."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "canary").exists()


@pytest.fixture(scope="session", autouse=True)
def _imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What readers import when first used is imported: torch's parts, and codecs."""
    assert str(b"x", "raw-unicode-escape") == "x".encode("unicode_escape").decode()
    folder = tmp_path_factory.mktemp("first")
    save_file({"x": torch.zeros(1)}, folder / "a")
    torch.save({"x": torch.zeros(1)}, folder / "b")
    for name in "ab":
        open_archive(folder / name).read("x")


@pytest.fixture
def watched() -> Iterator[list[str]]:
    """Audit events of the test that reading a file gives no reason for."""
    global _events
    _events = []
    yield _events
    _events = None


@pytest.fixture
def modest() -> Iterator[None]:
    """The test's peak memory stays within 200 MiB of what there was before."""
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before < 200 * 2**20
