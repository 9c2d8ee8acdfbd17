"""How much a model file may hold, so that any file has its answer within seconds and in little memory.

Every limit is many times what is known of real files; a file beyond one is refused in a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, field

from ...errors import FormatError
from ...files.atomic import MAX_HEADER
from .pickle_vm import all_steps, shown

MAX_TENSORS = 100_000
"""Tensors of a file or of a set of files. SDXL's checkpoint has 2,500, the largest open language model 92,000 in its
index."""

MAX_VAE_TENSORS = 5000
"""Tensors of a VAE. SD's has 248, the largest of vaeworks' own 400."""

MAX_NAME = 1000
"""Characters of a tensor's name. Those of checkpoints have 100, those of wrappers within wrappers 300."""


MAX_METADATA = 10_000
"""Entries of a safetensors file's metadata. Trainers of LoRAs write 100."""

MAX_SHARDS = 1000
"""Files of one model: each is mapped. The largest open language model has 163."""

MAX_HEADERS = 2 * MAX_HEADER
"""Headers of the files of one model together, in bytes; 92,000 tensors take 10 MB."""


@dataclass
class Allowance:
    """What is left of the work that one model may make, however many files it is in."""

    steps: Iterator[int] = field(default_factory=all_steps)
    """opcodes of pickles"""
    headers: int = MAX_HEADERS
    """bytes of safetensors headers"""

    def take_header(self, length: int, where: str) -> None:
        """Errors: FormatError for the header that is too much."""
        self.headers -= length
        if self.headers < 0:
            raise FormatError(
                f"{where} and the files before it have headers of more than {MAX_HEADERS} bytes; this is no model"
            )


def check_names(names: Iterable[str], where: str) -> None:
    """Errors: FormatError for more tensors, or a longer name, than any model has."""
    if isinstance(names, Sized) and len(names) > MAX_TENSORS:
        raise FormatError(f"{where} has {len(names)} tensors, more than {MAX_TENSORS}; it is no model that holds a VAE")
    if long := next((name for name in names if len(name) > MAX_NAME), ""):
        raise FormatError(
            f"{where} has a tensor whose name is {len(long)} characters long, more than {MAX_NAME} "
            f"('{shown(long, 40)}'); it was altered or is no model file"
        )
