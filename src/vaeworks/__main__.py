"""`python -m vaeworks`, and what the installed command calls: Ctrl-C ends both with one line, whatever is being done,
imports as well."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn


def run() -> NoReturn:
    """Do what the command line says, and exit."""
    global _code
    try:
        from .cli import main

        code = _code = main()
    except KeyboardInterrupt:  # while something was imported, or a second one while a command was being ended
        _end()
    signal.signal(
        signal.SIGINT, lambda *_: _end(told=code == 130)
    )  # while threads end, and what is registered for the end is done
    sys.exit(code)


_code = 0
"""What the command has ended with."""


@atexit.register  # before all others, so that it is called after them
def _last() -> None:
    """The exit code is settled, and Python takes itself to pieces: nothing is left to interrupt.

    After an interrupt it leaves at once. Python would kill itself by SIGINT where one came while it executed a text,
    such as the methods that a dataclass writes for itself.
    """
    _deaf()
    if _code == 130:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(_code)


def _deaf() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end(told: bool = False) -> NoReturn:
    """Leave at once: what is half-written has no name yet, and the next call removes it."""
    _deaf()
    if not told:
        os.write(2, b"vaeworks: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    run()
