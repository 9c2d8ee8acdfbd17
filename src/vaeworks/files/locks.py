"""Locks that the system releases when a process dies: what lies under a free lock belongs to nobody any more.

They are the kernel's (flock). Process numbers would mislead, because another process may have a dead one's number by
now, and so would other machines or containers on the same disk. Where a system or a disk has no such locks, nothing is
locked, and no process is taken for dead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..errors import ConfigError, VaeworksError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class Busy(Exception):  # noqa: N818 - what it means is for the caller to say
    """Somebody holds the lock."""


@contextmanager
def locked(path: Path, *, sure: bool = False) -> Iterator[None]:
    """Hold the lock of this name: an empty file that exists as long as the lock is held (after a death, until the next
    holder). sure: also refuse where there are no locks.

    Errors: Busy; OSError where the file cannot be made.
    """
    held = _take(path)
    if held == _NONE and sure:
        raise Busy
    try:
        yield
    finally:
        if held in _ours or held == _NONE:  # neither in a process that was forked meanwhile
            with suppress(OSError):
                path.unlink()
        if held in _ours:
            _ours.remove(held)
            fcntl.flock(held, fcntl.LOCK_UN)  # whoever else has it open
            os.close(held)


LOCK = ".vaeworks-lock"
"""Name of the lock of a folder."""


@contextmanager
def alone_in(folder: Path, name: str = LOCK) -> Iterator[None]:
    """Hold the lock of a folder, which is made if needed; at the end the folder is removed again if it is still empty.

    Errors: ConfigError where another process is at work there, and for a file; VaeworksError where the folder cannot be
    made.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output folder {folder} is a file; choose another name")
    with ExitStack() as held:
        try:
            held.callback(remove_empty, make_folder(folder))
            held.enter_context(locked(folder / name))
        except Busy:
            raise ConfigError(
                f"another process is at work in {folder}; wait until it has ended, or choose another folder"
            ) from None
        except OSError as error:
            raise VaeworksError(
                f"{folder} could not be written: {error.strerror or error}; choose another folder"
            ) from None
        yield


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and its parents. Returns the new ones, the innermost first.

    Errors: OSError.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return made


def remove_empty(folders: list[Path]) -> None:
    """Remove each of these folders that is still empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()  # refused where there is anything in it


_NONE = -1
_ours: set[int] = set()
"""Open files of the locks that this process holds."""


def _take(path: Path) -> int:
    """An open file that has the lock; _NONE where there are no locks."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            if fcntl is None:
                raise OSError
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise Busy from None
        except OSError:
            os.close(file)
            return _NONE
        if _is_at(file, path):
            _ours.add(file)
            return file
        os.close(file)  # its last holder has removed it in between


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _forget() -> None:
    """In a forked process: the locks are its parent's."""
    for file in _ours:
        with suppress(OSError):
            os.close(file)
    _ours.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
