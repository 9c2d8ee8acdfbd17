"""What the command line prints for people, and where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vaeworks.terminal import Terminal


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[int, int]]:
    """How often results, and how often all else, was printed since the last call."""
    places: list[bool] = []
    original = Terminal.print

    def noted(self: Terminal, *things: Any, **options: Any) -> None:
        places.append(self.stderr)
        original(self, *things, **options)

    def counted() -> tuple[int, int]:
        counts = places.count(False), places.count(True)
        places.clear()
        return counts

    monkeypatch.setattr(Terminal, "print", noted)
    return counted
