"""Gradients at parameters, summed strip by strip."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

Parameter = tuple[nn.Module, str]
"""A layer, and the parameter's name in it."""


class Gradients:
    """Sums of gradients, as far as they are wanted, in no less than float32."""

    def __init__(self, wanted: Iterable[Parameter]):
        self._sums: dict[Parameter, Tensor | None] = dict.fromkeys(wanted)

    def wants(self, *layers: nn.Module) -> bool:
        """Whether the gradient at any parameter of these layers is wanted."""
        return any((layer, name) in self._sums for layer in layers for name, _ in layer.named_parameters(recurse=False))

    def add(self, layer: nn.Module, name: str, gradient: Tensor | None) -> None:
        """Add a strip's part; what is not wanted is dropped."""
        if gradient is None or (layer, name) not in self._sums:
            return
        wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        total = self._sums[layer, name]
        self._sums[layer, name] = wide if total is None else total.add_(wide)

    def add_convolution(self, conv: nn.Conv2d, x: Tensor, grad: Tensor, padding: tuple[int, int] = (0, 0)) -> None:
        """A strip's part at weight and bias: x as the convolution sees it before this padding, n c h w, and the gradient at its result."""
        wants = [False, (conv, "weight") in self._sums, (conv, "bias") in self._sums]
        if any(wants):
            _, dweight, dbias = torch.ops.aten.convolution_backward(
                grad, x, conv.weight, [conv.out_channels], list(conv.stride), list(padding), [1, 1], False, [0, 0], 1, wants
            )
            self.add(conv, "weight", dweight)
            self.add(conv, "bias", dbias)

    def of(self, layer: nn.Module, name: str) -> Tensor | None:
        """The sum, in the parameter's dtype; None if it is not wanted."""
        total = self._sums.get((layer, name))
        return None if total is None else total.to(getattr(layer, name).dtype)
