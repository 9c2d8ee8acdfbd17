"""3x3 convolutions on strips of rows, in the fastest form for a dtype and a device.

On CPUs in float32 and float64 this is minimal filtering (nn/winograd.py); its transformed weights take four times the
memory. Elsewhere it is PyTorch's convolution. A doubling followed by a convolution takes 9 products per pixel
(filtered) or 16 (four 2x2 kernels) instead of 36.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.conv import LEAST_CHANNELS, LEAST_DOUBLED
from ..nn.filtering import F4, DoubledConv, Filtering
from ..nn.winograd import filtered, prepared

FILTERED = (torch.float32, torch.float64)
"""dtypes in which filtering rounds about as the convolution does: F(4,3) has 1.3 times its error in the median. In
bfloat16, F(2,3) has 4.1 times (benchmarks/filtering_error.py)."""


class Prepared(ABC):
    """A convolution that computes some rows of a map padded with zeros."""

    @abstractmethod
    def rows(self, x: Tensor, above: int, below: int) -> Tensor:
        """x: n c h w. above, below: 0 or 1 row of context at that end, which is read and not computed; 0 at the map's
        border, where zeros are padded."""


class Direct(Prepared):
    """PyTorch's convolution."""

    def __init__(self, conv: nn.Conv2d):
        self.weight, self.bias = conv.weight.contiguous(memory_format=torch.channels_last), conv.bias

    def rows(self, x: Tensor, above: int, below: int) -> Tensor:
        """Result n o (h - above - below) w."""
        weight, bias = self.weight, self.bias
        if not (above or below):
            return F.conv2d(x, weight, bias, padding=1)
        if not (above and below):
            x = F.pad(x, (0, 0, 1 - above, 1 - below))
        return F.conv2d(x, weight, bias, padding=(0, 1))


class Filtered(Prepared):
    """Minimal filtering; with `DoubledConv`, of the map after nearest-neighbour doubling."""

    def __init__(self, conv: nn.Conv2d, filtering: Filtering):
        self.filtering, self.bias = filtering, conv.bias
        self.kernel = prepared(conv.weight, filtering)

    def rows(self, x: Tensor, above: int, below: int) -> Tensor:
        """Result n o (h - above - below) w; doubled, n o 2(h - above - below) 2w."""
        return filtered(x, self.kernel, self.bias, self.filtering, above, below)


class Quartered(Prepared):
    """Nearest-neighbour doubling and the convolution as one: four 2x2 convolutions, one for each parity of row and
    column.

    Two or four of the nine pixels that the convolution reads are equal. So 4 products replace 9, with an equal result
    to rounding.
    """

    def __init__(self, conv: nn.Conv2d):
        self.bias, self.kernels = conv.bias, quartered(conv.weight)

    def rows(self, x: Tensor, above: int, below: int) -> Tensor:
        """Result n o 2(h - above - below) 2w."""
        x = F.pad(x, (1, 1, 1 - above, 1 - below))
        n, _, h, w = x.shape
        size = (n, self.kernels[0][0].shape[0], 2 * (h - 2), 2 * (w - 2))
        y = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        for a in range(2):
            for b in range(2):  # one row and column too many, because slicing x would copy it
                y[:, :, a::2, b::2] = F.conv2d(x, self.kernels[a][b], self.bias)[:, :, a : h - 2 + a, b : w - 2 + b]
        return y


def quartered(weight: Tensor) -> list[list[Tensor]]:
    """A 3x3 kernel o c 3 3 as four kernels o c 2 2 on the map before doubling: for even and odd rows and columns."""
    sums = torch.tensor(
        [[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], dtype=torch.float64, device=weight.device
    )  # a, place, tap
    kernels = torch.einsum("aiy,bjx,ocyx->abocij", sums, sums, weight.double()).to(weight.dtype)
    return [[kernel.contiguous(memory_format=torch.channels_last) for kernel in row] for row in kernels]


class Kernels:
    """Prepared convolutions of a network. Each is prepared at its first use; kept ones are prepared again when their
    weights change.

    Changes that autograd does not count (through `.data`) are not seen. Weights made in inference mode are not counted,
    so they are prepared at each use.
    """

    def __init__(self, keep: bool = False):
        self.keep = keep
        self._kept: dict[tuple[nn.Conv2d, bool], tuple[State, Prepared]] = {}

    def same(self, conv: nn.Conv2d) -> Prepared:
        """The prepared form of a convolution that keeps height and width."""
        return self._of(conv, doubled=False)

    def doubled(self, conv: nn.Conv2d) -> Prepared:
        """The prepared form of nearest-neighbour doubling and the convolution after it."""
        return self._of(conv, doubled=True)

    def _of(self, conv: nn.Conv2d, doubled: bool) -> Prepared:
        weight, bias = conv.weight, conv.bias  # read once: a parametrized weight is computed anew each time
        if (found := self._kept.get((conv, doubled))) and found[0].holds(weight, bias):
            return found[1]
        made = _prepare(conv, doubled)
        if self.keep:
            self._kept[conv, doubled] = State(weight, bias), made
        return made

    @property
    def bytes(self) -> int:
        """Bytes of the kept weights."""
        return sum(prepared_bytes(conv, doubled) for conv, doubled in self._kept)

    def clear(self) -> None:
        """Free the kept weights."""
        self._kept.clear()


class State:
    """The identity of weights: the tensors, their addresses, and autograd's count of writes."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        self.tensors = [t for t in (weight, bias) if t is not None]
        self.facts = [_fact(t) for t in self.tensors]

    def holds(self, weight: Tensor, bias: Tensor | None) -> bool:
        """Whether weight and bias are unchanged."""
        now = [t for t in (weight, bias) if t is not None]
        same = len(now) == len(self.tensors) and all(a is b for a, b in zip(now, self.tensors, strict=True))
        return same and not any(t.is_inference() for t in now) and [_fact(t) for t in now] == self.facts


def _fact(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version


def _prepare(conv: nn.Conv2d, doubled: bool) -> Prepared:
    if filters(conv, doubled):
        return Filtered(conv, DoubledConv() if doubled else F4())
    return Quartered(conv) if doubled else Direct(conv)


def filters(conv: nn.Conv2d, doubled: bool = False) -> bool:
    """Whether minimal filtering applies and is faster. A plan, whose weights have no values, counts as on a CPU."""
    weight = conv.weight
    if weight.device.type not in ("cpu", "meta") or weight.dtype not in FILTERED:
        return False
    return min(conv.in_channels, conv.out_channels) >= (LEAST_DOUBLED if doubled else LEAST_CHANNELS[weight.dtype])


def prepared_bytes(conv: nn.Conv2d, doubled: bool) -> int:
    """Bytes that `Kernels` takes for a convolution, beside its weights."""
    size = conv.weight.numel() // 9 * conv.weight.element_size()
    if filters(conv, doubled):
        return size * (9 if doubled else 36)
    return size * 16 if doubled else 0
