"""The last word on a model file: whatever goes wrong while it is looked at is a sentence."""

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
"""What code that did not expect such a file may raise; RuntimeError is RecursionError, and PyTorch's, as well."""


@contextmanager
def understood(path: str | Path) -> Iterator[None]:
    """Foreign errors of the block are a FormatError about `path`, whose cause they stay; a VaeworksError passes
    unchanged.

    It is for what nobody thought of: the tests hold that no input comes to it, so that an error here is a fault of
    vaeworks.
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
            f"{path} could not be understood ({reason}); if it is sound, please report it, else take another copy"
        ) from error
