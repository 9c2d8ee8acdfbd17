"""The arithmetic of float16 and bfloat16 on GPUs, emulated on CPUs."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...models import Autoencoder
from ...models.tiny import TinyBlock
from ...nn import GroupNorm, ResBlock, SpatialAttention


def in_precision(autoencoder: Autoencoder, dtype: torch.dtype) -> Autoencoder:
    """A copy that computes as a GPU does in `dtype`; inputs and outputs are float32 on the CPU, `dtype` elsewhere.

    On the CPU it computes in float32 and rounds to `dtype` whatever a GPU writes to memory. PyTorch's own float16 is
    many times slower there, and sums in float16 on some processors.
    """
    result = copy.deepcopy(autoencoder)
    if autoencoder.device.type != "cpu":
        return result.to(dtype)
    result = result.to(dtype).float()  # rounds the weights
    if dtype == torch.float32:
        return result
    for module in result.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_pre_hook(lambda module, inputs: (_rounded(inputs[0], dtype),))
        if isinstance(module, (nn.Conv2d, nn.Linear, ResBlock, SpatialAttention, TinyBlock)):
            module.register_forward_hook(lambda module, inputs, output: _rounded(output, dtype))
        elif isinstance(module, GroupNorm):
            module.register_forward_hook(_normalizing(dtype))
    return result


def _rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype).float()


def _normalizing(dtype: torch.dtype) -> Callable[..., Tensor]:
    def normalize(norm: GroupNorm, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Normalize as PyTorch's CUDA kernel: epsilon in the input's dtype, sums in float32; mean and 1/std in the
        input's dtype until about version 2.9."""
        x = _rounded(inputs[0], dtype).unflatten(1, (norm.num_groups, -1))
        var, mean = torch.var_mean(x, dim=(2, 3, 4), correction=0, keepdim=True)
        rstd = _rounded((var + _rounded(torch.tensor(norm.eps_for(dtype)), dtype)).rsqrt(), dtype)
        y = ((x - _rounded(mean, dtype)) * rstd).flatten(1, 2)
        return _rounded(y * norm.weight[:, None, None] + norm.bias[:, None, None], dtype)

    return normalize
