"""A program with two tasks in two processes: one ends at once, the other goes on until it is asked to stop.

Each task prints its name, and the long one `kept` when it has kept its result.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from vaeworks.arena.pool import run_all


def work(task: str, wanted: Callable[[], bool], tell: Callable[[int], None]) -> str | None:
    """The task."""
    print(task, flush=True)
    if task == "short":
        return task
    while not wanted():
        time.sleep(0.02)
    time.sleep(0.2)  # a step that must be ended first
    print("kept", flush=True)
    return None


if __name__ == "__main__":
    run_all(work, {"short": "short", "long": "long"}, 2, told=lambda task, result: None)
