"""Turn unexpected errors about a model file into one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import FormatError, VaeworksError
from .archive.pickle_vm import shown

FOREIGN = (
    LookupError,
    ValueError,
    ArithmeticError,
    RuntimeError,
    TypeError,
    AttributeError,
    AssertionError,
    MemoryError,
    OSError,
)
"""Errors that code may raise for an unexpected file; RuntimeError includes RecursionError and PyTorch's errors."""


@contextmanager
def understood(path: str | Path) -> Iterator[None]:
    """Raise a FormatError about `path` for any foreign error of the block, which becomes its cause; a VaeworksError
    passes unchanged.

    This is the last resort: tests check that no known input reaches it, so an error here is a bug of vaeworks.
    """
    try:
        yield
    except VaeworksError:
        raise
    except MemoryError as error:
        raise FormatError(
            f"{path} needs more memory than there is; close other programs, or take a smaller model"
        ) from error
    except FOREIGN as error:
        reason = shown(f"{type(error).__name__}: {error}", 200)
        raise FormatError(
            f"{path} could not be understood ({reason}); please report it if the file is intact, else take another copy"
        ) from error
