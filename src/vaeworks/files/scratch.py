"""Hidden folders in which files and folders are made before they get their names.

Every call has names of its own, under a lock. The next call in the same folder removes what killed processes have left,
and puts an old folder back that was about to be replaced.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .locks import Busy, locked, remove_empty

SCRATCH = f".vaeworks-{os.getuid() if hasattr(os, 'getuid') else 0}"
"""The hidden folder's name; one for each user, because of permissions. Names in it are short, however long the final
name is."""

_LOCK, _NEW, _OLD = ".lock", ".tmp", ".old"


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A name on the disk of `folder` that no other call has. At the end, what was made there is removed.

    Errors: OSError where nothing can be written.
    """
    hidden = folder / SCRATCH
    with ExitStack() as ending:
        ending.callback(remove_empty, [hidden])  # if nobody else is in it
        own = _claim(hidden, ending)
        ending.callback(_clear, own)
        _sweep(hidden)
        yield own.with_suffix(_NEW)


def _claim(hidden: Path, ending: ExitStack) -> Path:
    """A name in the hidden folder, which is made, under a lock until the end."""
    while True:
        own = hidden / secrets.token_hex(6)
        hidden.mkdir(0o700, exist_ok=True)
        if hidden.is_symlink():
            raise OSError(errno.ELOOP, f"{hidden} is a link; remove it", str(hidden))
        with suppress(
            Busy, FileNotFoundError
        ):  # a call that has just ended took the folder for empty, or this name for left behind
            ending.enter_context(locked(own.with_suffix(_LOCK)))
            return own


def home(path: Path) -> Path:
    """The folder that `path` will finally stand in: its parent, or for a name that `scratch` gave, the folder beside
    it."""
    return path.parent.parent if path.parent.name == SCRATCH else path.parent


def sweep(folder: Path) -> None:
    """Remove what killed processes have left in a folder."""
    if (folder / SCRATCH).is_dir():
        with suppress(OSError), scratch(folder):
            pass


def stepped_aside(name: Path, path: Path) -> Path:
    """Where the old folder at `path` waits while the one at `name`, which `scratch` gave, takes its place."""
    place = name.with_suffix(_OLD) / path.name
    place.parent.mkdir()
    return place


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there and can be."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _sweep(hidden: Path) -> None:
    for lock in hidden.glob(f"*{_LOCK}"):
        with suppress(Busy, OSError), locked(lock, sure=True):
            _clear(lock.with_suffix(""))


def _clear(own: Path) -> None:
    """Remove what a call has left; an old folder whose successor never came goes back to its place."""
    old = own.with_suffix(_OLD)
    for waiting in old.iterdir() if old.is_dir() else ():
        place = own.parent.parent / waiting.name
        with suppress(OSError):
            if not os.path.lexists(place):
                waiting.rename(place)
            remove(old)
    remove(own.with_suffix(_NEW))
