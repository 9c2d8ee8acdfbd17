"""Minimal filterings: how few multiplications give the outputs of a convolution with three weights, in one dimension.

With d the window of a tile of the input, g the kernel and y the outputs, y = A^T ((G g) * (B^T d)), where * goes number
by number. Transforms work on whole slices of feature maps, and write into memory that is given.
Sources: Winograd 1980; Lavin & Gray 2015 (arXiv 1509.09308) for convolutional networks. In exact arithmetic they are
exact.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

Slices = Sequence[Tensor] | Tensor
"""Tensors of one shape, in a row or stacked."""

P, Q = 0.5**0.5, 2.0**0.5
"""The points of F(4,3): 0, +-P, +-Q and infinity, whose powers stay near 1. With the usual 0, +-1, +-2 the error is
twice as large (measured), with these it is that of oneDNN's direct convolution at 256 channels, and up to twice that at
64."""


class Filtering(ABC):
    """A minimal filtering: a window of the input, which moves by `advance`, gives `outputs` outputs by `products`
    multiplications."""

    window: int
    advance: int
    outputs: int
    products: int
    kernel: tuple[tuple[float, ...], ...]
    """G: products x 3"""

    @abstractmethod
    def into(self, d: Slices, out: Slices, spare: Slices) -> None:
        """out = B^T d: `window` slices to `products` slices. spare: two of their shape."""

    @abstractmethod
    def into_transposed(self, v: Slices, out: Slices, spare: Slices) -> None:
        """out = B v, `products` slices to `window` slices, of which those from `advance` on are the next window's first
        ones.

        The first ones are written, then the others added; beyond the last window, `out` is to be 0 before. spare: four.
        """

    @abstractmethod
    def back(self, m: Slices, out: Slices, spare: Slices) -> None:
        """out = A^T m: `products` slices to `outputs` slices. spare: four."""

    @abstractmethod
    def back_transposed(self, y: Slices, out: Slices, spare: Slices) -> None:
        """out = A y: `outputs` slices to `products` slices. spare: two."""


class F4(Filtering):
    """F(4,3): 6 products for 4 outputs instead of 12; 36 for 16 instead of 144 in two dimensions. For fp32 and fp64.

    In fp32 it has 1.05 to 3.4 times the error of the direct convolution, 1.3 in the median over the shapes of SD's VAE
    (benchmarks/filtering_error.py).
    """

    window, advance, outputs, products = 6, 4, 4, 6
    kernel = (
        (1, 0, 0),
        (-2 / 3, -2 / 3 * P, -1 / 3),
        (-2 / 3, 2 / 3 * P, -1 / 3),
        (1 / 6, Q / 6, 1 / 3),
        (1 / 6, -Q / 6, 1 / 3),
        (0, 0, 1),
    )

    def into(self, d: Slices, out: Slices, spare: Slices) -> None:
        """As the base class says."""
        even, odd = spare[:2]
        torch.sub(d[4], d[2], alpha=2.5, out=out[0]).add_(d[0])
        torch.sub(d[5], d[3], alpha=2.5, out=out[5]).add_(d[1])
        for i, (square, point) in enumerate(((2.0, P), (0.5, Q))):
            torch.sub(d[4], d[2], alpha=square, out=even)
            torch.sub(d[3], d[1], alpha=square, out=odd)
            torch.add(even, odd, alpha=point, out=out[2 * i + 1])
            torch.sub(even, odd, alpha=point, out=out[2 * i + 2])

    def into_transposed(self, v: Slices, out: Slices, spare: Slices) -> None:
        """As the base class says."""
        (even_p, odd_p), (even_q, odd_q) = _sums(v[1], v[2], spare[:2]), _sums(v[3], v[4], spare[2:])
        out[0].copy_(v[0])
        torch.sub(v[5], odd_p, alpha=2 * P, out=out[1]).sub_(odd_q, alpha=0.5 * Q)
        torch.add(even_p, even_q, alpha=0.25, out=out[2]).mul_(-2).sub_(v[0], alpha=2.5)
        torch.add(odd_q, odd_p, alpha=0.5, out=out[3]).mul_(Q).sub_(v[5], alpha=2.5)
        out[4].add_(even_p.add_(even_q).add_(v[0]))
        out[5].add_(v[5])

    def back(self, m: Slices, out: Slices, spare: Slices) -> None:
        """As the base class says."""
        (even_p, odd_p), (even_q, odd_q) = _sums(m[1], m[2], spare[:2]), _sums(m[3], m[4], spare[2:])
        torch.add(even_p, even_q, out=out[0]).add_(m[0])
        torch.add(even_q, even_p, alpha=0.25, out=out[2]).mul_(2)
        torch.add(odd_q, odd_p, alpha=0.5, out=out[1]).mul_(Q)
        torch.add(m[5], odd_q.add_(odd_p, alpha=0.125), alpha=2 * Q, out=out[3])

    def back_transposed(self, y: Slices, out: Slices, spare: Slices) -> None:
        """As the base class says."""
        even, odd = spare[:2]
        out[0].copy_(y[0])
        out[5].copy_(y[3])
        for i, (square, point) in enumerate(((0.5, P), (2.0, Q))):
            torch.add(y[0], y[2], alpha=square, out=even)
            torch.add(y[1], y[3], alpha=square, out=odd)
            torch.add(even, odd, alpha=point, out=out[2 * i + 1])
            torch.sub(even, odd, alpha=point, out=out[2 * i + 2])


class F2(Filtering):
    """F(2,3): 4 products for 2 outputs instead of 6; 16 for 4 instead of 36 in two dimensions. Points 0, +-1, infinity.

    For bf16, where F(4,3) would have seven times the error of the direct convolution; this has 4.1 times
    (benchmarks/filtering_error.py).
    """

    window, advance, outputs, products = 4, 2, 2, 4
    kernel = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))

    def into(self, d: Slices, out: Slices, spare: Slices) -> None:
        """As the base class says."""
        torch.sub(d[0], d[2], out=out[0])
        torch.add(d[1], d[2], out=out[1])
        torch.sub(d[2], d[1], out=out[2])
        torch.sub(d[1], d[3], out=out[3])

    def into_transposed(self, v: Slices, out: Slices, spare: Slices) -> None:
        """As the base class says."""
        even, odd = _sums(v[1], v[2], spare[:2])
        out[0].copy_(v[0])
        torch.add(odd, v[3], out=out[1])
        out[2].add_(even.sub_(v[0]))
        out[3].sub_(v[3])

    def back(self, m: Slices, out: Slices, spare: Slices) -> None:
        """As the base class says."""
        even, odd = _sums(m[1], m[2], spare[:2])
        torch.add(m[0], even, out=out[0])
        torch.sub(odd, m[3], out=out[1])

    def back_transposed(self, y: Slices, out: Slices, spare: Slices) -> None:
        """As the base class says."""
        out[0].copy_(y[0])
        torch.add(y[0], y[1], out=out[1])
        torch.sub(y[0], y[1], out=out[2])
        torch.neg(y[1], out=out[3])


class DoubledConv(Filtering):
    """A convolution after nearest-neighbour doubling: 3 products for 2 outputs instead of 6, 9 for 4 instead of 36 in
    two dimensions.

    F(2,3) of the doubled input d0 d1 d1 d2 has a product with d1 - d1. What is left works on the small input: y0 = (g0
    + g1 + g2) d1 + g0 (d0 - d1), y1 = (g0 + g1 + g2) d1 - g2 (d1 - d2). In fp32 it has half the error of the
    convolution itself; in bf16, where products are rounded before they are added, 3.2 times its error
    (benchmarks/filtering_error.py).
    """

    window, advance, outputs, products = 3, 1, 2, 3
    kernel = ((1, 0, 0), (1, 1, 1), (0, 0, -1))

    def into(self, d: Slices, out: Slices, spare: Slices) -> None:
        """As the base class says."""
        torch.sub(d[0], d[1], out=out[0])
        out[1].copy_(d[1])
        torch.sub(d[1], d[2], out=out[2])

    def into_transposed(self, v: Slices, out: Slices, spare: Slices) -> None:
        """As the base class says."""
        out[0].copy_(v[0])
        out[1].add_(torch.sub(v[1], v[0], out=spare[0]).add_(v[2]))
        out[2].sub_(v[2])

    def back(self, m: Slices, out: Slices, spare: Slices) -> None:
        """As the base class says."""
        torch.add(m[1], m[0], out=out[0])
        torch.add(m[1], m[2], out=out[1])

    def back_transposed(self, y: Slices, out: Slices, spare: Slices) -> None:
        """As the base class says."""
        out[0].copy_(y[0])
        torch.add(y[0], y[1], out=out[1])
        out[2].copy_(y[1])


def _sums(a: Tensor, b: Tensor, out: Slices) -> tuple[Tensor, Tensor]:
    return torch.add(a, b, out=out[0]), torch.sub(a, b, out=out[1])
