"""Memory sizes: parsing and printing them, and how much is free."""

from __future__ import annotations

import ctypes
import functools
import math
import os
import platform
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..errors import ConfigError

FREED = 2**20
"""Least bytes of a block that returns to the system as soon as it is freed, in `freed_at_once`."""

LARGEST_KEPT = 2**25
"""The same outside of `freed_at_once`: glibc raises its own, moving threshold to at most this value (malloc/malloc.c,
DEFAULT_MMAP_THRESHOLD_MAX)."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h

UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def free_memory(device: torch.device) -> float:
    """Free bytes of a device. For a CPU: what Linux or the container has left; on other systems, half of all memory."""
    if device.type == "cuda":  # PyTorch's own cache counts as free
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
        return min(available, container_memory())
    except (OSError, StopIteration, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if hasattr(os, "sysconf") else 2**32


def container_memory(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes left below a container's limit (Linux control groups, version 2 or 1); infinite without a limit."""
    left = math.inf
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            left = min(left, int((root / limit).read_text()) - int((root / used).read_text()))
        except (OSError, ValueError):  # no such version, or "max"
            continue
    return max(left, 0)


def parse_size(size: int | str) -> int:
    """A size such as 4096, "4GiB", "800M" or "2.5 GB" in bytes; all units are powers of 1024.

    Errors: ConfigError for any other text.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", str(size).lower())
    if not found or float(found[1]) <= 0:
        raise ConfigError(f"memory (={size!r}) must be a size, such as 4GiB or 800MiB")
    return int(float(found[1]) * UNITS[found[2]])


def as_gib(nbytes: float) -> str:
    """A size in text: 1.23 GiB, 45 MiB, 6 KiB."""
    if nbytes >= 2**29:
        return f"{nbytes / 2**30:.2f} GiB"
    return f"{math.ceil(nbytes / 2**20)} MiB" if nbytes >= 2**20 else f"{math.ceil(nbytes / 2**10)} KiB"


@contextmanager
def freed_at_once() -> Iterator[None]:
    """Return memory of freed tensors to the system at once, on Linux with glibc; no change elsewhere, or where the user
    has set the threshold.

    glibc keeps freed blocks of up to 32 MiB, scattered over a heap where larger ones find no room. A decode in strips
    that holds at most 650 MiB would take 1.4 GiB, and keep them (docs/log.md).
    """
    mallopt = _mallopt()
    if mallopt is None:
        yield
        return
    with _Depth.lock:
        _Depth.value += 1
        mallopt(M_MMAP_THRESHOLD, FREED)
    try:
        yield
    finally:
        with _Depth.lock:
            _Depth.value -= 1
            if not _Depth.value:
                mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
                mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_KEPT)


class _Depth:
    """The number of threads within `freed_at_once`."""

    lock = threading.Lock()
    value = 0


@functools.cache
def _mallopt() -> Callable[[int, int], int] | None:
    """glibc's `mallopt`; None where it is absent, or the user has set its threshold."""
    chosen = "MALLOC_MMAP_THRESHOLD_" in os.environ or "mmap_threshold" in os.environ.get("GLIBC_TUNABLES", "")
    return None if chosen or platform.libc_ver()[0] != "glibc" else ctypes.CDLL(None).mallopt
