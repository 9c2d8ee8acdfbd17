"""Running out of memory, reported in one line with a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..errors import TrainingError
from .run.checkpoint import newest_checkpoint

WORDS = ("out of memory", "not enough memory", "can't allocate memory")
"""Phrases of PyTorch's allocators."""


@contextmanager
def memory_in_one_line(checkpoints: Path) -> Iterator[None]:
    """Errors: TrainingError where the block runs out of memory; it names the newest checkpoint and what to try."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        saved = newest_checkpoint(checkpoints)
        kept = f"checkpoint {saved} is kept" if saved else "no checkpoint had been written yet"
        raise TrainingError(
            f"memory ran out in a step; {kept}; --resume with a smaller --micro-batch or with --gradient-checkpointing "
            "gives the same run with less memory; a smaller data.size or batch needs a new one"
        ) from None


def _is_out_of_memory(error: Exception) -> bool:
    """Whether a library says that memory ran out, in whatever type of error."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(word in str(error).lower() for word in WORDS)
