"""Where Triton's kernels can run."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

TYPES = (torch.float32, torch.bfloat16, torch.float16)
INTERPRETER = "TRITON_INTERPRET"
"""Triton's own variable. If it is 1 before Triton is imported, kernels run slowly on CPUs, for tests."""


@cache
def installed() -> bool:
    """Whether Triton is installed."""
    return find_spec("triton") is not None


def suits(x: Tensor, *others: Tensor) -> bool:
    """Whether the kernels take a map n c h w: NHWC memory, a known dtype, a GPU that Triton supports, and no gradient
    wanted.

    They are left out while torch.compile traces, because it fuses the plain formula with its neighbours.
    """
    if x.dtype not in TYPES or x.ndim != 4 or not x.is_contiguous(memory_format=torch.channels_last) or not x.numel():
        return False
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and any(t.requires_grad for t in (x, *others))):
        return False
    return installed() and _runs_on(x.device)


def _runs_on(device: torch.device) -> bool:
    if os.environ.get(INTERPRETER) == "1":
        return device.type == "cpu"
    return device.type == "cuda" and _new_enough(device.index or 0)


@cache
def _new_enough(index: int) -> bool:
    return torch.version.hip is not None or torch.cuda.get_device_capability(index) >= (7, 0)  # Triton's least
