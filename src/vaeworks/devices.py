"""Devices and precisions by name."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from .errors import ConfigError
from .launcher import place

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Short names of floating-point types, as the command line has them."""


def torch_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The dtype that a short name stands for; a dtype is returned as it is.

    Errors: ConfigError for an unknown name.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    return DTYPES[dtype]


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """The context of forward passes: bf16 autocast, or nothing for fp32. Weights stay fp32 in both."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def resolve_device(name: str) -> torch.device:
    """A device by name; "auto" is cuda where there is one, else cpu; of several processes each has a GPU of its own.

    Errors: ConfigError for a device that is unknown or not there.
    """
    try:
        device = torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
        if device.type == "cuda" and device.index is None and (here := place()) is not None:
            device = torch.device("cuda", here.local)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return device


def resolve_precision(device: torch.device) -> Literal["fp32", "bf16"]:
    """The precision "auto" on a device: bf16 where the hardware computes with it, else fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"
