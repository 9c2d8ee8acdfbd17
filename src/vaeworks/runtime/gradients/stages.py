"""The stages of a network's half, each with its forward and backward pass in strips."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from ...nn import GroupNorm, ResBlock, SpatialAttention
from ..lazy_maps import Convolved, Enlarged, Halved, Map, Normalized, Statistics, Stored, Sum, strips, sweep
from .normalized import through
from .parameters import Gradients, names_in
from .rows import Borrowed, around, held, kept
from .transposes import Pooled, Spread, transposed


class Stage(ABC):
    """A part of the chain that maps one feature map to the next."""

    normalizes = False
    """whether the stage needs the statistics of its input"""

    @abstractmethod
    def layers(self) -> Iterator[nn.Module]:
        """The stage's layers with parameters."""

    @abstractmethod
    def result(self, x: Map) -> Map:
        """The next map, for an input whose statistics are stored."""

    def again(self, x: Map, rows: int) -> Map:
        """The next map in the backward pass, where x is needed again."""
        return self.result(Borrowed(x))

    @abstractmethod
    def backward(self, x: Map, grad: Stored, rows: int, gradients: Gradients, wanted: bool) -> Stored | None:
        """The gradient at x, if it is wanted, from the gradient at the result. Adds the gradients at parameters; frees
        x and grad."""

    def measured(self, x: Map, statistics: Statistics | None, rows: int, groups: int) -> Map:
        """The next map; stores statistics for `result` and `backward`."""
        return self.result(x)


class Same(Stage):
    """A 3x3 convolution that keeps height and width."""

    def __init__(self, conv: nn.Conv2d):
        self.conv = conv

    def layers(self) -> Iterator[nn.Module]:
        yield self.conv

    def result(self, x: Map) -> Map:
        return Convolved(x, self.conv)

    def backward(self, x: Map, grad: Stored, rows: int, gradients: Gradients, wanted: bool) -> Stored | None:
        if gradients.wants(self.conv):
            for start, stop in strips(x.shape[2], rows):
                seen, above, below = around(x, start, stop)
                gradients.add_same(self.conv, seen, above, below, grad.rows(start, stop))
        return kept(Convolved(grad, transposed(self.conv)), rows) if wanted else None


class Enlarge(Stage):
    """Nearest-neighbour doubling and a 3x3 convolution."""

    def __init__(self, conv: nn.Conv2d):
        self.conv = conv

    def layers(self) -> Iterator[nn.Module]:
        yield self.conv

    def result(self, x: Map) -> Map:
        return Enlarged(x, self.conv)

    def backward(self, x: Map, grad: Stored, rows: int, gradients: Gradients, wanted: bool) -> Stored | None:
        half = max(1, rows // 2)
        if gradients.wants(self.conv):
            for start, stop in strips(x.shape[2], half):
                seen, above, below = around(x, start, stop)
                gradients.add_doubled(self.conv, seen, above, below, grad.rows(2 * start, 2 * stop))
        return kept(Pooled(Convolved(grad, transposed(self.conv))), half) if wanted else None


class Halve(Stage):
    """A 3x3 convolution with stride 2; zeros pad a row at the bottom and a column at the right."""

    def __init__(self, conv: nn.Conv2d):
        self.conv = conv

    def layers(self) -> Iterator[nn.Module]:
        yield self.conv

    def result(self, x: Map) -> Map:
        return Halved(x, self.conv)

    def backward(self, x: Map, grad: Stored, rows: int, gradients: Gradients, wanted: bool) -> Stored | None:
        height = x.shape[2]
        if gradients.wants(self.conv):
            for start, stop in strips(grad.shape[2], rows):
                seen = F.pad(x.rows(2 * start, min(2 * stop + 1, height)), (0, 1, 0, int(2 * stop + 1 > height)))
                gradients.add_convolution(self.conv, seen, grad.rows(start, stop))
        return kept(Spread(grad, self.conv), rows) if wanted else None


class Out(Stage):
    """Group normalization, SiLU and the last convolution."""

    normalizes = True

    def __init__(self, norm: GroupNorm, conv: nn.Conv2d):
        self.norm, self.conv = norm, conv

    def layers(self) -> Iterator[nn.Module]:
        yield from (self.norm, self.conv)

    def measured(self, x: Map, statistics: Statistics | None, rows: int, groups: int) -> Map:
        assert statistics is not None
        self.statistics = statistics
        return self.result(x)

    def result(self, x: Map) -> Map:
        return Convolved(Normalized(x, self.norm, self.statistics), self.conv)

    def backward(self, x: Map, grad: Stored, rows: int, gradients: Gradients, wanted: bool) -> Stored | None:
        dx = through(x, self.norm, self.statistics, self.conv, grad, rows, gradients, wanted)
        return None if dx is None else kept(dx, rows)


class Residual(Stage):
    """A residual block."""

    normalizes = True
    keeps_inner = False
    """whether the backward pass stores h, the map between the convolutions, instead of computing it twice more"""

    def __init__(self, block: ResBlock):
        self.block = block
        self.inner: Map | None = None

    def layers(self) -> Iterator[nn.Module]:
        b = self.block
        yield from (b.norm1, b.conv1, b.norm2, b.conv2, b.conv_shortcut)

    def measured(self, x: Map, statistics: Statistics | None, rows: int, groups: int) -> Map:
        assert statistics is not None
        self.outer = statistics
        inner = Stored(self._inner(x).shape)
        found = sweep(self._inner(x), rows, groups, into=inner)
        assert found is not None
        self.statistics = found
        return self._sum(x, inner)

    def result(self, x: Map) -> Map:
        return self._sum(x, self._inner(x))

    def again(self, x: Map, rows: int) -> Map:
        if not self.keeps_inner:
            return super().again(x, rows)
        self.inner = kept(self._inner(Borrowed(x)), rows)
        return self._sum(Borrowed(x), Borrowed(self.inner))

    def _inner(self, x: Map) -> Map:
        """h, the map between the convolutions."""
        return Convolved(Normalized(x, self.block.norm1, self.outer), self.block.conv1)

    def _sum(self, x: Map, inner: Map) -> Map:
        branch = Convolved(Normalized(inner, self.block.norm2, self.statistics), self.block.conv2)
        return Sum(x, self.block.conv_shortcut, branch)

    def backward(self, x: Map, grad: Stored, rows: int, gradients: Gradients, wanted: bool) -> Stored | None:
        b = self.block
        self._shortcut_parameters(x, grad, rows, gradients)
        wants_inner = wanted or gradients.wants(b.norm1, b.conv1)
        inner, self.inner = self.inner or self._inner(Borrowed(x)), None
        dh = through(inner, b.norm2, self.statistics, b.conv2, Borrowed(grad), rows, gradients, wants_inner)
        if dh is None:
            return None
        dx = through(x, b.norm1, self.outer, b.conv1, kept(dh, rows), rows, gradients, wanted)
        if dx is None:
            return None
        shortcut = transposed(b.conv_shortcut) if isinstance(b.conv_shortcut, nn.Conv2d) else nn.Identity()
        return kept(Sum(grad, shortcut, dx), rows)

    def _shortcut_parameters(self, x: Map, grad: Map, rows: int, gradients: Gradients) -> None:
        if isinstance(self.block.conv_shortcut, nn.Conv2d) and gradients.wants(self.block.conv_shortcut):
            for start, stop in strips(x.shape[2], rows):
                gradients.add_convolution(self.block.conv_shortcut, x.rows(start, stop), grad.rows(start, stop))


class Attend(Stage):
    """Self-attention on the whole map, by autograd: the maps are small where it stands."""

    def __init__(self, attention: SpatialAttention):
        self.attention = attention

    def layers(self) -> Iterator[nn.Module]:
        a = self.attention
        yield from (a.norm, a.query, a.key, a.value, a.out)

    def result(self, x: Map) -> Map:
        with torch.no_grad():
            return held(self.attention(x.rows(0, x.shape[2])))

    def backward(self, x: Map, grad: Stored, rows: int, gradients: Gradients, wanted: bool) -> Stored | None:
        parameters = [(layer, name) for layer in self.layers() for name in names_in(layer) if gradients.wants(layer)]
        parameters = [(layer, name) for layer, name in parameters if getattr(layer, name).requires_grad]
        with torch.enable_grad():
            source = x.rows(0, x.shape[2]).detach().requires_grad_()
            y = self.attention(source)
        # source's is always asked for: without it, PyTorch 2.13's backward pass of group_norm in NHWC memory on CPUs
        # crashes
        dx, *found = torch.autograd.grad(
            y, [source, *(getattr(layer, name) for layer, name in parameters)], grad.rows(0, x.shape[2])
        )
        for (layer, name), gradient in zip(parameters, found, strict=True):
            gradients.add(layer, name, gradient)
        return held(dx) if wanted else None
