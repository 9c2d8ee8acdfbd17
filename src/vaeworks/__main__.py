"""`python -m vaeworks`, and what the installed command calls: Ctrl-C ends both with one line, whatever is being done, imports as well."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import NoReturn


def run() -> NoReturn:
    """Do what the command line says, and exit."""
    try:
        from .cli import main

        code = main()
    except KeyboardInterrupt:  # while something was imported, or a second one while a command was being ended
        _end()
    signal.signal(signal.SIGINT, lambda *_: _end(told=code == 130))  # while threads end, and what is registered for the end is done
    sys.exit(code)


@atexit.register  # before all others, so that it is called after them
def _deaf() -> None:
    """The exit code is settled, and Python takes itself to pieces: nothing is left to interrupt."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end(told: bool = False) -> NoReturn:
    """Leave at once: what is half-written has no name yet, and the next call removes it."""
    _deaf()
    if not told:
        os.write(2, b"vaeworks: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    run()
