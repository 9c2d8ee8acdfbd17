"""3x3 convolutions with fewer multiplications, for training on CPUs.

A tile of the padded input is transformed along rows and columns (filtering.py), multiplied with the transformed kernel
at each of its places (one matrix product over the channels for each place), and transformed back; the backward pass
uses the transposes. All of it in NHWC memory, and some rows of tiles at a time, so that transformed tiles, which are
larger than the input, never leave the cache.
Source: Lavin & Gray 2015 (arXiv 1509.09308).
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .filtering import DoubledConv, Filtering

WORKSPACE = 2**21
"""Numbers of a chunk's transformed tiles: what stays in a cache."""


def minimal_filtering(x: Tensor, weight: Tensor, bias: Tensor | None, filtering: Filtering) -> Tensor:
    """The 3x3 convolution with a frame of one zero, of x n c h w, or of x doubled by `DoubledConv`, in NHWC memory.

    weight: o c 3 3, bias: o, both in the dtype of x. h and w are multiples of the filtering's `advance`.
    """
    with torch.autocast("cpu", enabled=False):
        return _MinimalFiltering.apply(x, weight, bias, filtering)


class _MinimalFiltering(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, filtering: Filtering) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.filtering, f = filtering, filtering
        n, _, height, width = x.shape
        outer = weight.shape[0]
        kernel = _transformed(weight, f).transpose(1, 2)
        rows = x.permute(0, 2, 3, 1)
        y = _empty(x, n, outer, height // f.advance * f.outputs, width // f.advance * f.outputs)
        for chunk in _chunks(f, rows, outer):
            m = chunk.buffer("products", f.products, f.products, outer)
            torch.bmm(_matrices(chunk.transformed(rows)), kernel, out=_matrices(m))
            chunk.transform_back(m, y.permute(0, 2, 3, 1), bias)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        f, wants = ctx.filtering, ctx.needs_input_grad
        if torch.is_grad_enabled():  # somebody differentiates twice
            return *_plain_backward(grad, x, weight, f, wants), None
        with torch.autocast("cpu", enabled=False):  # should somebody go backwards within it
            return *filtered_backward(grad, x, weight, f, wants), None


def filtered_backward(
    grad: Tensor, x: Tensor, weight: Tensor, f: Filtering, wants: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """Gradients at x, weight and bias, as far as they are wanted."""
    rows, dy = x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1).contiguous()
    outer, c = weight.shape[:2]
    dx = _empty(x, *x.shape) if wants[0] else None
    kernel = _transformed(weight, f) if wants[0] else None
    wide = torch.promote_types(weight.dtype, torch.float32)
    dkernel = workspace("kernel gradient", wide, f.products**2, outer, c).zero_() if wants[1] else None
    for chunk in _chunks(f, rows, outer):
        dm = _matrices(chunk.transformed_gradient(dy))
        if dkernel is not None:
            tiles = _matrices(chunk.transformed(rows))
            if dkernel.dtype == dm.dtype:
                dkernel.baddbmm_(dm.transpose(1, 2), tiles)
            else:
                dkernel += torch.bmm(dm.transpose(1, 2), tiles)
        if dx is not None and kernel is not None:
            dtiles = chunk.buffer("tiles", f.products, f.products, c)
            torch.bmm(dm, kernel, out=_matrices(dtiles))
            chunk.add_input_gradient(dtiles, dx.permute(0, 2, 3, 1))
    dweight = None if dkernel is None else _kernel_gradient(dkernel, f, weight)
    dbias = dy.sum((0, 1, 2)) if wants[2] else None
    return dx, dweight, dbias


class _Chunk:
    """Some rows of tiles, of all images."""

    def __init__(self, filtering: Filtering, first: int, rows: int, whole: Tensor, above: int = 0):
        """whole: the input n h w c; above: its rows over the first one that has an output, instead of the frame's, 0 or
        1."""
        self.f, self.first, self.rows, self.above = filtering, first, rows, above
        self.images, self.height, self.width, _ = whole.shape
        self.columns, self.dtype = -(-self.width // filtering.advance), whole.dtype
        self.frame = filtering.window - filtering.advance  # two rows, and columns, more than the tiles advance
        self.padded_width = self.columns * filtering.advance + self.frame

    def buffer(self, name: str, *shape: int, columns: int | None = None) -> Tensor:
        """Of shape (*shape[:-1], images, rows, columns, shape[-1])."""
        columns = self.columns if columns is None else columns
        return workspace(name, self.dtype, *shape[:-1], self.images, self.rows, columns, shape[-1])

    def padded(self, c: int) -> tuple[Tensor, int, int]:
        """A buffer for what the chunk sees, with a frame, n h' w+2 c; and which of the input's rows its first and last
        ones are (end)."""
        start = self.first * self.f.advance - 1 + self.above
        count = self.rows * self.f.advance + self.frame
        return workspace("padded", self.dtype, self.images, count, self.padded_width, c), start, start + count

    def transformed(self, whole: Tensor) -> Tensor:
        """Tiles of the input n h w c: products (rows), products (columns), n, rows, columns, c."""
        f, c = self.f, whole.shape[-1]
        padded, start, end = self.padded(c)
        low, high = max(start, 0), min(end, self.height)
        padded[:, :, 0] = 0
        padded[:, :, self.width + 1 :] = 0
        padded[:, : low - start] = 0
        padded[:, high - start :] = 0
        padded[:, low - start : high - start, 1 : self.width + 1] = whole[:, low:high]
        lines = self.buffer("lines", f.products, c, columns=self.padded_width)
        f.into(self.windows(padded, 1, self.rows), lines, self.buffer("spare", 2, c, columns=self.padded_width))
        tiles = self.buffer("tiles", f.products, f.products, c)
        f.into(self.windows(lines, 3, self.columns), tiles.transpose(0, 1), self.buffer("spare", 2, f.products, c))
        return tiles

    def add_input_gradient(self, dtiles: Tensor, dx: Tensor) -> None:
        """The transpose of `transformed`, into the chunk's rows of dx n h w c; earlier chunks are added to."""
        f, c = self.f, dx.shape[-1]
        lines = self.buffer("lines", f.products, c, columns=self.padded_width)
        lines[..., -self.frame :, :] = 0
        f.into_transposed(
            dtiles.transpose(0, 1), self.windows(lines, 3, self.columns), self.buffer("spare", 4, f.products, c)
        )
        padded, start, end = self.padded(c)
        padded[:, -self.frame :] = 0
        f.into_transposed(
            lines, self.windows(padded, 1, self.rows), self.buffer("spare", 4, c, columns=self.padded_width)
        )
        new, high = start + self.frame if self.first else 0, min(end, self.height)
        if self.first:
            dx[:, start:new] += padded[:, : self.frame, 1:-1]
        dx[:, new:high] = padded[:, new - start : high - start, 1:-1]

    def transform_back(self, m: Tensor, y: Tensor, bias: Tensor | None) -> None:
        """From products to outputs, the chunk's rows of y n h w o."""
        f, outer = self.f, y.shape[-1]
        lines = self.buffer("lines", f.outputs, f.products, outer)
        f.back(m, lines, self.buffer("spare", 4, f.products, outer))
        out = self.outputs_of(y)
        f.back(lines.transpose(0, 1), out.permute(4, 2, 0, 1, 3, 5), self.buffer("spare", 4, f.outputs, outer))
        if bias is not None:
            out.add_(bias)

    def transformed_gradient(self, dy: Tensor) -> Tensor:
        """The transpose of `transform_back`: products (rows), products (columns), n, rows, columns, o."""
        f, outer = self.f, dy.shape[-1]
        lines = self.buffer("lines", f.outputs, f.products, outer)
        f.back_transposed(
            self.outputs_of(dy).permute(4, 2, 0, 1, 3, 5),
            lines.transpose(0, 1),
            self.buffer("spare", 2, f.outputs, outer),
        )
        dm = self.buffer("products", f.products, f.products, outer)
        f.back_transposed(lines, dm, self.buffer("spare", 2, f.products, outer))
        return dm

    def windows(self, x: Tensor, dim: int, count: int) -> list[Tensor]:
        """The first, second, ... row or column of all windows."""
        step = self.f.advance
        index: list[Any] = [slice(None)] * dim
        return [x[(*index, slice(i, i + (count - 1) * step + 1, step))] for i in range(self.f.window)]

    def outputs_of(self, y: Tensor) -> Tensor:
        """The chunk's outputs: n, rows, outputs, columns, outputs, o."""
        k = self.f.outputs
        return (
            y[:, self.first * k : (self.first + self.rows) * k]
            .unflatten(2, (self.columns, k))
            .unflatten(1, (self.rows, k))
        )


def _chunks(f: Filtering, whole: Tensor, outer: int) -> Iterator[_Chunk]:
    n, height, width, c = whole.shape
    rows = height // f.advance
    size = max(1, min(rows, WORKSPACE // (n * (width // f.advance) * f.products**2 * max(c, outer))))
    for first in range(0, rows, size):
        yield _Chunk(f, first, min(size, rows - first), whole)


def prepared(weight: Tensor, f: Filtering) -> Tensor:
    """The transformed kernel of weights o c 3 3, for `filtered`: products², c, o."""
    return _transformed(weight, f).transpose(1, 2).contiguous()


def filtered(x: Tensor, kernel: Tensor, bias: Tensor | None, f: Filtering, above: int = 0, below: int = 0) -> Tensor:
    """The convolution of some rows of a map, n c h w in NHWC memory, of any height and width, without a gradient.

    kernel: of `prepared`; above, below: how many of the rows, 0 or 1, are there to be seen only; where none is, the
    frame of zeros is.
    """
    n, _, height, width = x.shape
    outer, rows = kernel.shape[2], x.permute(0, 2, 3, 1)
    wanted = height - above - below
    lines, columns = -(-wanted // f.advance), -(-width // f.advance)
    y = _empty(x, n, outer, lines * f.outputs, columns * f.outputs)
    size = max(1, min(lines, WORKSPACE // (n * columns * f.products**2 * max(rows.shape[-1], outer))))
    for first in range(0, lines, size):
        chunk = _Chunk(f, first, min(size, lines - first), rows, above)
        m = chunk.buffer("products", f.products, f.products, outer)
        torch.bmm(_matrices(chunk.transformed(rows)), kernel, out=_matrices(m))
        chunk.transform_back(m, y.permute(0, 2, 3, 1), bias)
    gain = f.outputs // f.advance
    return y[:, :, : wanted * gain, : width * gain].contiguous(memory_format=torch.channels_last)


def _empty(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, memory_format=torch.channels_last)


def _matrices(tiles: Tensor) -> Tensor:
    """products, products, n, rows, columns, c to products², places, c."""
    return tiles.view(tiles.shape[0] ** 2, -1, tiles.shape[-1])


def workspace(name: str, dtype: torch.dtype, *shape: int) -> Tensor:
    """Memory of a shape that every thread keeps for this name: fresh memory costs as much as filling it several times
    over."""
    key, count = (name, dtype), math.prod(shape)
    if key not in _kept.buffers or _kept.buffers[key].numel() < count:
        with torch.inference_mode(False):  # what is made within it could not be written outside
            _kept.buffers[key] = torch.empty(count, dtype=dtype)
    return _kept.buffers[key][:count].view(shape)


class _Kept(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[tuple[str, torch.dtype], Tensor] = {}


_kept = _Kept()


def _transformed(weight: Tensor, f: Filtering) -> Tensor:
    """G g G^T of weights o c 3 3, computed in no less than fp32: products², o, c in their dtype."""
    outer, c = weight.shape[:2]
    wide = weight.permute(2, 3, 0, 1).reshape(9, outer * c).to(torch.promote_types(weight.dtype, torch.float32))
    kernel = torch.mm(
        _both_dimensions(type(f), wide.dtype), wide, out=workspace("kernel", wide.dtype, f.products**2, outer * c)
    )
    if wide.dtype != weight.dtype:
        kernel = workspace("kernel", weight.dtype, f.products**2, outer * c).copy_(kernel)
    return kernel.view(-1, outer, c)


def _kernel_gradient(dkernel: Tensor, f: Filtering, weight: Tensor) -> Tensor:
    """The transpose of `_transformed`."""
    dweight = torch.mm(_both_dimensions(type(f), dkernel.dtype).t(), dkernel.flatten(1)).view(3, 3, *weight.shape[:2])
    return dweight.to(weight.dtype).permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)


@functools.cache
def _both_dimensions(f: type[Filtering], dtype: torch.dtype) -> Tensor:
    """G for rows and columns of a kernel at once: products² x 9."""
    g = torch.tensor(f.kernel, dtype=dtype)
    return torch.kron(g, g)


def _plain_backward(
    grad: Tensor, x: Tensor, weight: Tensor, f: Filtering, wants: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The same gradients by PyTorch's own differentiable operations."""
    doubled = isinstance(f, DoubledConv)
    seen = F.interpolate(x, scale_factor=2.0, mode="nearest") if doubled else x
    dx, dweight, dbias = torch.ops.aten.convolution_backward(
        grad, seen, weight, [weight.shape[0]], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, list(wants[:3])
    )
    if doubled and dx is not None:
        dx = dx.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).sum((3, 5))
    return dx, dweight, dbias
