"""What can go wrong for a user. Every message is one line: the rule, the value, the remedy.

VaeworksError
├── ConfigError (ValueError)   a setting or an argument breaks a rule
├── FormatError (ValueError)   a model file is not what it should be
├── DataError (ValueError)     images cannot be used
├── TrainingError              a run had to stop; its last good checkpoint is kept
├── MissingExtraError (ImportError)   an optional package is not installed
└── NotFiniteError (ConfigError, DataError)   a network was given, or made, infinities or NaN
"""

from __future__ import annotations

from .words import one_line


class VaeworksError(Exception):
    """Base of all errors that a user can mend; the command line prints it as one line and exits with `exit_code`.

    Names and values from files stand in messages: they are made printable and cut here, in one place.
    """

    exit_code = 2

    def __init__(self, *args: object):
        super().__init__(*(one_line(arg) if isinstance(arg, str) else arg for arg in args))


class ConfigError(VaeworksError, ValueError):
    """A setting or an argument breaks a rule."""


class FormatError(VaeworksError, ValueError):
    """A model file is unreadable, incomplete or of a kind that is not supported."""


class DataError(VaeworksError, ValueError):
    """Images are missing, broken or too small."""


class TrainingError(VaeworksError):
    """A training run had to stop; the message says why, what is kept and what to try."""


class MissingExtraError(VaeworksError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs {package}: pip install 'vaeworks[{extra}]'")


class NotFiniteError(ConfigError, DataError):
    """Values that are NaN or infinite: the setting (a precision) or the data (images, latents, weights) can be to
    blame.

    They are never written: as a picture they would be black or white, and look like a result.
    """

    exit_code = 1


_SHORTAGES = {
    "no space left on device": "no room is left where processes exchange data, often /dev/shm; make room there, or "
    "take fewer workers",
    "shared memory": "shared memory (/dev/shm) ran out; make room there, or take fewer workers",
    "can't start new thread": "the system allows no more threads, or has no memory for them; close other programs",
    "out of memory": "memory ran out",
    "allocate memory": "memory ran out",
    "unable to mmap": "memory ran out",
    "unable to allocate": "memory ran out",
    "bad_alloc": "memory ran out",
    "could not create a memory": "memory ran out",
}
"""What libraries say when something has run out, in small letters, and what it means."""


def shortage(error: BaseException) -> str | None:
    """One sentence about what has run out, for a MemoryError or a library's RuntimeError of that kind; None for any
    other."""
    said = one_line(str(error), 300)
    meant = next((meant for words, meant in _SHORTAGES.items() if words in said.lower()), None)
    if isinstance(error, MemoryError):
        meant = "memory ran out"
    elif not isinstance(error, RuntimeError):
        return None
    if meant is None:
        return None
    remedy = "; close other programs, or take smaller batches or images" if meant == "memory ran out" else ""
    return meant + (f" ({said})" if said else "") + remedy
