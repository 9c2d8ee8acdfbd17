"""What the environment says of a process: its place among those started together, and how threads wait. No torch."""

from __future__ import annotations

import os
from typing import NamedTuple, TypeVar

E = TypeVar("E", bound=BaseException)

NAMES = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),  # torchrun, and accelerate, which calls it
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),  # Open MPI
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),  # MPICH and Intel MPI
)


SPIN_COUNT, WAIT_POLICY = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"
"""What GNU's OpenMP, which PyTorch's wheels bring, reads once, when it is loaded."""

SPINS = "1000"
"""Turns that a thread waits at a barrier before it sleeps; GNU's own are 300,000 or, where OMP_WAIT_POLICY is active,
without end.

On two cores with one other busy process, the thread that works waits for a core on which one that waits spins. Stable
Diffusion's decoder at 192 px takes 1.7 s there with 1,000 turns and 2.6 without; alone it takes 7 % longer
(benchmarks/busy_cores.py).
"""


def share_cores() -> None:
    """Let OpenMP's threads release their cores soon while they wait, here and in processes started from here.

    Call it before torch is imported; afterwards it affects started processes only. What a user has set stays.
    """
    if SPIN_COUNT not in os.environ and WAIT_POLICY not in os.environ:
        os.environ[SPIN_COUNT] = SPINS


class ProcessPlace(NamedTuple):
    """Where a process stands among those that were started together."""

    rank: int
    """0 is the one that writes and speaks"""
    size: int
    local: int
    """number on its machine"""


def place() -> ProcessPlace | None:
    """This process's place; None where it runs alone. A launcher sets MASTER_ADDR as well."""
    for rank, size, local in NAMES:
        if rank in os.environ and int(os.environ.get(size, "1")) > 1 and "MASTER_ADDR" in os.environ:
            return ProcessPlace(int(os.environ[rank]), int(os.environ[size]), int(os.environ.get(local, "0")))
    return None


def speaks() -> bool:
    """Whether this process is the one that prints results."""
    here = place()
    return here is None or here.rank == 0


def shared(error: E, teller: int = 0) -> E:
    """Mark an error that all processes raise, so that only one of them tells people."""
    error.teller = teller  # type: ignore[attr-defined]
    return error


def is_shared(error: BaseException) -> bool:
    """Whether all processes raise this error."""
    return hasattr(error, "teller")


def tells(error: BaseException) -> bool:
    """Whether this process is the one that prints an error."""
    here = place()
    return here is None or getattr(error, "teller", here.rank) == here.rank


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
