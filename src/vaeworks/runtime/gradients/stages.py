"""What a network's half consists of, each with its forward and backward pass in strips."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn import GroupNorm, ResBlock, SpatialAttention
from ..maps import Convolved, Enlarged, Halved, Map, Normalized, Statistics, Stored, Sum, affine, strips, sweep
from .parameters import Gradients
from .transposes import Denormalized, Pooled, Spread, Sums, transposed


class Stage(ABC):
    """A part of the chain that maps one feature map to the next."""

    normalizes = False
    """whether it needs the statistics of its input"""

    @abstractmethod
    def layers(self) -> Iterator[nn.Module]:
        """The layers that have parameters."""

    @abstractmethod
    def result(self, x: Map) -> Map:
        """The next map, for an input whose statistics have been measured."""

    @abstractmethod
    def backward(self, x: Map, grad: Stored, rows: int, gradients: Gradients, wanted: bool) -> Stored | None:
        """The gradient at x, if it is wanted, from that at the result. Adds those at parameters; releases x and grad."""

    def measured(self, x: Map, statistics: Statistics | None, rows: int, groups: int) -> Map:
        """The next map; keeps statistics for `result` and `backward`."""
        return self.result(x)


class Borrowed(Map):
    """Another map, which somebody else needs as well."""

    def __init__(self, source: Map):
        self.source, self.shape, self.itemsize = source, source.shape, source.itemsize

    def rows(self, start: int, stop: int) -> Tensor:
        return self.source.rows(start, stop)

    def release(self, before: int) -> None:
        pass


def held(x: Tensor) -> Stored:
    """A tensor n c h w as a map."""
    n, c, h, w = x.shape
    stored = Stored((n, c, h, w))
    stored.append(x.detach().contiguous(memory_format=torch.channels_last))
    return stored


def kept(map_: Map, rows: int) -> Stored:
    """A map, computed strip by strip, while what it is computed from is released."""
    stored = Stored(map_.shape)
    sweep(map_, rows, None, into=stored, release=True)
    return stored


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
                seen, above, below = _around(x, start, stop)
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
                seen, above, below = _around(x, start, stop)
                gradients.add_doubled(self.conv, seen, above, below, grad.rows(2 * start, 2 * stop))
        return kept(Pooled(Convolved(grad, transposed(self.conv))), half) if wanted else None


class Halve(Stage):
    """A 3x3 convolution with stride 2, after a row and a column of zeros at the bottom and the right."""

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


class Block(Stage):
    """A residual block."""

    normalizes = True

    def __init__(self, block: ResBlock):
        self.block = block

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

    def _inner(self, x: Map) -> Map:
        """h, what is between the convolutions."""
        return Convolved(Normalized(x, self.block.norm1, self.outer), self.block.conv1)

    def _sum(self, x: Map, inner: Map) -> Map:
        branch = Convolved(Normalized(inner, self.block.norm2, self.statistics), self.block.conv2)
        return Sum(x, self.block.conv_shortcut, branch)

    def backward(self, x: Map, grad: Stored, rows: int, gradients: Gradients, wanted: bool) -> Stored | None:
        b = self.block
        self._shortcut_parameters(x, grad, rows, gradients)
        wants_inner = wanted or gradients.wants(b.norm1, b.conv1)
        inner = self._inner(Borrowed(x))  # computed twice, rather than kept beside all that is kept now
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
    """Self-attention, on the whole map, by autograd: it stands where maps are small."""

    def __init__(self, attention: SpatialAttention):
        self.attention = attention

    def layers(self) -> Iterator[nn.Module]:
        a = self.attention
        yield from (a.norm, a.query, a.key, a.value, a.out)

    def result(self, x: Map) -> Map:
        with torch.no_grad():
            return held(self.attention(x.rows(0, x.shape[2])))

    def backward(self, x: Map, grad: Stored, rows: int, gradients: Gradients, wanted: bool) -> Stored | None:
        parameters = [(m, name) for m in self.layers() for name, _ in m.named_parameters(recurse=False) if gradients.wants(m)]
        parameters = [(m, name) for m, name in parameters if getattr(m, name).requires_grad]
        with torch.enable_grad():
            source = x.rows(0, x.shape[2]).detach().requires_grad_(wanted)
            y = self.attention(source)
        inputs = [*([source] if wanted else []), *(getattr(m, name) for m, name in parameters)]
        found = torch.autograd.grad(y, inputs, grad.rows(0, x.shape[2]))
        for (module, name), gradient in zip(parameters, found[int(wanted) :], strict=True):
            gradients.add(module, name, gradient)
        return held(found[0]) if wanted else None


def through(
    source: Map, norm: GroupNorm, statistics: Statistics, conv: nn.Conv2d, grad: Map, rows: int, gradients: Gradients, wanted: bool
) -> Denormalized | None:  # fmt: skip
    """The gradient at `source`, if it is wanted, from `grad` behind its normalization, SiLU and convolution; releases grad.

    Adds the gradients at parameters.
    """
    n, c, height, _ = source.shape
    scale, shift = (t[:, :, None, None] for t in affine(norm, statistics))
    back = Convolved(grad, transposed(conv)) if wanted or gradients.wants(norm) else None
    dz, of_dz, of_dzx = Stored(source.shape), 0, 0
    for start, stop in strips(height, rows):
        x, above, below = _around(source, start, stop)
        wide = torch.promote_types(x.dtype, torch.float32)
        z = torch.addcmul(shift.to(wide), x.to(wide), scale.to(wide))
        if gradients.wants(conv):
            gradients.add_same(conv, F.silu(z).to(x.dtype), above, below, grad.rows(start, stop))
        if back is None:
            continue
        middle = slice(above, above + stop - start)
        part = torch.ops.aten.silu_backward(back.rows(start, stop).to(wide), z[:, :, middle])
        of_dz += _per_channel(part)
        of_dzx += _per_channel(part * x[:, :, middle].to(wide))
        if wanted:
            dz.append(part.to(x.dtype))
        back.release(stop)
    if back is None:
        return None
    width = c // norm.num_groups
    mean, rstd = (t.repeat_interleave(width, 1) for t in (statistics.mean, (statistics.var + norm.eps).rsqrt()))
    gradients.add(norm, "weight", ((of_dzx - mean * of_dz) * rstd).sum(0))
    gradients.add(norm, "bias", of_dz.sum(0))
    return Denormalized(dz, source, norm, statistics, Sums(of_dz, of_dzx)) if wanted else None


def _per_channel(x: Tensor) -> Tensor:
    """Sums over pixels of n c h w: n c, float64."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).sum(1).double()


def _around(x: Map, start: int, stop: int) -> tuple[Tensor, int, int]:
    """Rows with those above and below them, and how many these are, 0 or 1."""
    above, below = int(start > 0), int(stop < x.shape[2])
    return x.rows(start - above, stop + below), above, below
