"""The precision of losses."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(loss: Callable[P, R]) -> Callable[P, R]:
    """The loss in fp32, whatever autocast and its tensors say; fp64 tensors stay what they are.

    Half precision is for networks: the differences that a loss is made of are smaller than its rounding.
    """

    @functools.wraps(loss)
    def compute(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(a.device for a in (*args, *kwargs.values()) if isinstance(a, Tensor))
        with torch.autocast(device.type, enabled=False):
            return cast(Any, loss)(*map(_widened, args), **{name: _widened(value) for name, value in kwargs.items()})

    return compute


def _widened(value: object) -> object:
    """A floating tensor as fp32, if it is less; anything else unchanged."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(torch.promote_types(value.dtype, torch.float32))
    return value
