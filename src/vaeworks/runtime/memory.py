"""Sizes of memory: as people write them, and what is free."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import torch

from ..errors import ConfigError

UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def free_memory(device: torch.device) -> float:
    """Bytes that a device has free: on Linux's CPUs what the system or a container leaves, elsewhere half of what there is."""
    if device.type == "cuda":  # what PyTorch keeps for itself is free for it
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
        return min(available, container_memory())
    except (OSError, StopIteration, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if hasattr(os, "sysconf") else 2**32


def container_memory(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that a container's limit leaves (Linux control groups, version 2 or 1); infinite where there is none."""
    left = math.inf
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        try:
            left = min(left, int((root / limit).read_text()) - int((root / used).read_text()))
        except (OSError, ValueError):  # no such version, or "max"
            continue
    return max(left, 0)


def parse_size(size: int | str) -> int:
    """Bytes, or "4GiB", "800M", "2.5 GB" (all powers of 1024), as bytes.

    Errors: ConfigError for what is no size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", str(size).lower())
    if not found or float(found[1]) <= 0:
        raise ConfigError(f"memory (={size!r}) must be a size, such as 4GiB or 800MiB")
    return int(float(found[1]) * UNITS[found[2]])


def as_gib(nbytes: float) -> str:
    """For people: 1.23 GiB, 45 MiB, 6 KiB."""
    if nbytes >= 2**29:
        return f"{nbytes / 2**30:.2f} GiB"
    return f"{math.ceil(nbytes / 2**20)} MiB" if nbytes >= 2**20 else f"{math.ceil(nbytes / 2**10)} KiB"
