"""What a launcher of several processes tells each of them, in its environment, and which of them tells people. No torch."""

from __future__ import annotations

import os
from typing import NamedTuple, TypeVar

E = TypeVar("E", bound=BaseException)

NAMES = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),  # torchrun, and accelerate, which calls it
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),  # Open MPI
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),  # MPICH and Intel MPI
)


class Place(NamedTuple):
    """Where a process stands among those that were started together."""

    rank: int
    """0 is the one that writes and speaks"""
    size: int
    local: int
    """number on its machine"""


def place() -> Place | None:
    """This process's place; None where it is alone. Who has started several also says where they meet, in MASTER_ADDR."""
    for rank, size, local in NAMES:
        if rank in os.environ and int(os.environ.get(size, "1")) > 1 and "MASTER_ADDR" in os.environ:
            return Place(int(os.environ[rank]), int(os.environ[size]), int(os.environ.get(local, "0")))
    return None


def speaks() -> bool:
    """Whether this process is the one that tells people what has come out."""
    here = place()
    return here is None or here.rank == 0


def shared(error: E, teller: int = 0) -> E:
    """Mark an error that all processes raise, so that only one of them tells people."""
    error.teller = teller  # type: ignore[attr-defined]
    return error


def is_shared(error: BaseException) -> bool:
    """Whether all processes raise it."""
    return hasattr(error, "teller")


def tells(error: BaseException) -> bool:
    """Whether this process is the one that tells people of an error."""
    here = place()
    return here is None or getattr(error, "teller", here.rank) == here.rank
