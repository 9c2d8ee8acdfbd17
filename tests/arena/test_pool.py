"""The pool of processes: its workers end with their parent, however that ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="a POSIX system's signals")
def test_workers_end_when_their_parent_is_killed() -> None:
    """A worker that waits for a task ends, and so does one that works, after its step."""
    command = [sys.executable, str(Path(__file__).with_name("pool_cases.py"))]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert parent.stdout is not None
    try:
        assert {parent.stdout.readline().strip() for _ in range(2)} == {"short", "long"}
        os.kill(parent.pid, signal.SIGKILL)
        rest, _ = parent.communicate(timeout=60)  # the pipe ends when all have ended: workers have inherited it
        assert rest == "kept\n"
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()
        raise
