"""Weights must be finite, also after a cast."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import ConfigError


def is_finite(tensor: Tensor) -> bool:
    """Whether no element is infinite or NaN: in one pass, and without a copy of half-precision weights in float32."""
    if not tensor.numel() or not tensor.is_floating_point():
        return True
    return all(math.isfinite(bound) for bound in tensor.aminmax())


def finite_cast(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """The weights in another dtype.

    Errors: ConfigError naming the tensor whose values overflow in it.
    """
    cast = tensor.to(dtype)
    if not is_finite(cast):
        raise ConfigError(
            f"weights of {name} reach {tensor.abs().max().item():g}, more than {dtype} holds "
            f"({torch.finfo(dtype).max:g}); use bfloat16 or float32"
        )
    return cast
