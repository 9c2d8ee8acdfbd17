"""Gradients at parameters, summed over strips."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.filtering import F4, DoubledConv, Filtering
from ...nn.winograd import filtered_backward
from ..conv_kernels import filters

Parameter = tuple[nn.Module, str]
"""A layer, and the name of one of its parameters."""


def names_in(layer: nn.Module) -> list[str]:
    """Names of a layer's parameters, including those it computes from others (torch.nn.utils.parametrize)."""
    return [name for name in ("weight", "bias") if isinstance(getattr(layer, name, None), Tensor)]


class Gradients:
    """Sums of the wanted gradients, in at least float32."""

    def __init__(self, wanted: Iterable[Parameter]):
        self._sums: dict[Parameter, Tensor | None] = dict.fromkeys(wanted)

    def wants(self, *layers: nn.Module) -> bool:
        """Whether the gradient at any parameter of these layers is wanted."""
        return any((layer, name) in self._sums for layer in layers for name in names_in(layer))

    def add(self, layer: nn.Module, name: str, gradient: Tensor | None) -> None:
        """Add a strip's part; unwanted gradients are dropped."""
        if gradient is None or (layer, name) not in self._sums:
            return
        wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        total = self._sums[layer, name]
        self._sums[layer, name] = wide if total is None else total.add_(wide)

    def add_convolution(self, conv: nn.Conv2d, x: Tensor, grad: Tensor, padding: tuple[int, int] = (0, 0)) -> None:
        """Add a strip's part at weight and bias. x: the convolution's input before its own padding, n c h w. grad: at
        its result."""
        wants = self._wants(conv)
        if any(wants):
            _, dweight, dbias = torch.ops.aten.convolution_backward(
                grad,
                x,
                conv.weight,
                [conv.out_channels],
                list(conv.stride),
                list(padding),
                [1, 1],
                False,
                [0, 0],
                1,
                wants,
            )
            self._add_both(conv, dweight, dbias)

    def add_same(self, conv: nn.Conv2d, x: Tensor, above: int, below: int, grad: Tensor) -> None:
        """Add a strip's part for a zero-padded 3x3 convolution: x n c above+h+below w, the gradient n o h w.

        above, below: 0 or 1 row of context in x at that end; 0 at the map's border, where zeros are padded.
        """
        if not any(self._wants(conv)):
            return
        if filters(conv):
            step = F4.advance
            down, right = -x.shape[2] % step, -x.shape[3] % step
            self._add_filtered(conv, F.pad(x, (0, right, 0, down)), F.pad(grad, (0, right, above, below + down)), F4())
        else:
            self.add_convolution(conv, F.pad(x, (0, 0, 1 - above, 1 - below)), grad, (0, 1))

    def add_doubled(self, conv: nn.Conv2d, x: Tensor, above: int, below: int, grad: Tensor) -> None:
        """As `add_same`, for the convolution of x after doubling: the gradient is n o 2h 2w."""
        if not any(self._wants(conv)):
            return
        if filters(conv, doubled=True):
            self._add_filtered(conv, x, F.pad(grad, (0, 0, 2 * above, 2 * below)), DoubledConv())
        else:
            doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")
            self.add_same(conv, doubled[:, :, above : doubled.shape[2] - below], above, below, grad)

    def _add_filtered(self, conv: nn.Conv2d, x: Tensor, grad: Tensor, filtering: Filtering) -> None:
        """By minimal filtering, two to three times faster; the gradient is zero in rows of context."""
        x = x.contiguous(memory_format=torch.channels_last)
        _, dweight, dbias = filtered_backward(grad, x, conv.weight.detach(), filtering, self._wants(conv))
        self._add_both(conv, dweight, dbias)

    def _wants(self, conv: nn.Conv2d) -> list[bool]:
        return [False, (conv, "weight") in self._sums, (conv, "bias") in self._sums]

    def _add_both(self, conv: nn.Conv2d, dweight: Tensor | None, dbias: Tensor | None) -> None:
        self.add(conv, "weight", dweight)
        self.add(conv, "bias", dbias)

    def of(self, layer: nn.Module, name: str) -> Tensor | None:
        """The sum in the parameter's dtype; None if it is not wanted."""
        total = self._sums.get((layer, name))
        return None if total is None else total.to(getattr(layer, name).dtype)
