"""Running out of memory, told as people need it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..errors import TrainingError

WORDS = ("out of memory", "not enough memory", "can't allocate memory")
"""What PyTorch's allocators say."""


@contextmanager
def memory_in_one_line(newest: Callable[[], Path | None]) -> Iterator[None]:
    """Errors: TrainingError where the block runs out of memory, with the newest checkpoint and what to try."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and not any(
            word in str(error).lower() for word in WORDS
        ):
            raise
        saved = newest()
        kept = f"checkpoint {saved} is kept" if saved else "no checkpoint had been written yet"
        raise TrainingError(
            f"memory ran out in a step; {kept}; --resume with a smaller --micro-batch or with --gradient-checkpointing "
            "gives the same run with less memory; a smaller data.size or batch needs a new one"
        ) from None
