"""FID's InceptionV3: the network whose 2048 features the Fréchet inception distance is taken of.

The architecture of Szegedy et al. 2015 (arXiv 1512.00567) as TensorFlow's graph of 2015-12-05 has it, which FID is
defined by: average pools do not count padding, and the last block's pool takes the maximum. Weights have the names of
the file that PyTorch's ports of FID load (features/weights.py).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 299
"""Pixels that images are resized to."""


class ConvNormReLU(nn.Module):
    """Convolution, batch normalization, ReLU."""

    def __init__(
        self,
        inner: int,
        outer: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ):
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outer, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """n c h w."""
        return F.relu(self.bn(self.conv(x)))


def _wide(inner: int, outer: int, length: int) -> ConvNormReLU:
    return ConvNormReLU(inner, outer, (1, length), padding=(0, length // 2))


def _tall(inner: int, outer: int, length: int) -> ConvNormReLU:
    return ConvNormReLU(inner, outer, (length, 1), padding=(length // 2, 0))


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class BlockA(nn.Module):
    """At 35 x 35: 224 channels and the pool's."""

    def __init__(self, inner: int, pooled: int):
        super().__init__()
        self.branch1x1 = ConvNormReLU(inner, 64)
        self.branch5x5_1, self.branch5x5_2 = ConvNormReLU(inner, 48), ConvNormReLU(48, 64, 5, padding=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = ConvNormReLU(inner, 64), ConvNormReLU(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNormReLU(96, 96, 3, padding=1)
        self.branch_pool = ConvNormReLU(inner, pooled)

    def forward(self, x: Tensor) -> Tensor:
        """n c h w to n 224+pooled h w."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat(
            [self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, self.branch_pool(_average(x))], 1
        )


class BlockB(nn.Module):
    """From 35 x 35 to 17 x 17: 480 channels more."""

    def __init__(self, inner: int):
        super().__init__()
        self.branch3x3 = ConvNormReLU(inner, 384, 3, 2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = ConvNormReLU(inner, 64), ConvNormReLU(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNormReLU(96, 96, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """n c h w to n c+480 h' w'."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class BlockC(nn.Module):
    """At 17 x 17: 768 channels, by kernels of 1 x 7 and 7 x 1."""

    def __init__(self, inner: int, c: int):
        super().__init__()
        self.branch1x1 = ConvNormReLU(inner, 192)
        self.branch7x7_1, self.branch7x7_2, self.branch7x7_3 = ConvNormReLU(inner, c), _wide(c, c, 7), _tall(c, 192, 7)
        self.branch7x7dbl_1, self.branch7x7dbl_2, self.branch7x7dbl_3 = (
            ConvNormReLU(inner, c),
            _tall(c, c, 7),
            _wide(c, c, 7),
        )
        self.branch7x7dbl_4, self.branch7x7dbl_5 = _tall(c, c, 7), _wide(c, 192, 7)
        self.branch_pool = ConvNormReLU(inner, 192)

    def forward(self, x: Tensor) -> Tensor:
        """n c h w to n 768 h w."""
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(_average(x))], 1)


class BlockD(nn.Module):
    """From 17 x 17 to 8 x 8: 512 channels more."""

    def __init__(self, inner: int):
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = ConvNormReLU(inner, 192), ConvNormReLU(192, 320, 3, 2)
        self.branch7x7x3_1, self.branch7x7x3_2 = ConvNormReLU(inner, 192), _wide(192, 192, 7)
        self.branch7x7x3_3, self.branch7x7x3_4 = _tall(192, 192, 7), ConvNormReLU(192, 192, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """n c h w to n c+512 h' w'."""
        long = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), long, F.max_pool2d(x, 3, 2)], 1)


class BlockE(nn.Module):
    """At 8 x 8: 2048 channels; the last one's pool takes the maximum."""

    def __init__(self, inner: int, last: bool):
        super().__init__()
        self.last = last
        self.branch1x1 = ConvNormReLU(inner, 320)
        self.branch3x3_1, self.branch3x3_2a, self.branch3x3_2b = (
            ConvNormReLU(inner, 384),
            _wide(384, 384, 3),
            _tall(384, 384, 3),
        )
        self.branch3x3dbl_1, self.branch3x3dbl_2 = ConvNormReLU(inner, 448), ConvNormReLU(448, 384, 3, padding=1)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = _wide(384, 384, 3), _tall(384, 384, 3)
        self.branch_pool = ConvNormReLU(inner, 192)

    def forward(self, x: Tensor) -> Tensor:
        """n c h w to n 2048 h w."""
        single, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, 1, 1) if self.last else _average(x)
        sides = [
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
        ]
        return torch.cat([self.branch1x1(x), *sides, self.branch_pool(pooled)], 1)


class InceptionV3(nn.Module):
    """Images to the 2048 features of FID. 21.8 M weights; frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = ConvNormReLU(3, 32, 3, 2), ConvNormReLU(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvNormReLU(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = ConvNormReLU(64, 80), ConvNormReLU(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (BlockC(768, c) for c in (128, 160, 160, 192))
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b, self.Mixed_7c = BlockE(1280, last=False), BlockE(2048, last=True)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Images n 3 h w in [-1,1], of any size, to n 2048, before dropout and classifier."""
        pixels = ((images + 1) * 127.5).round()  # what FID sees are whole gray levels
        x = (resized_like_tensorflow(pixels, SIDE, SIDE) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))


def resized_like_tensorflow(images: Tensor, height: int, width: int) -> Tensor:
    """Images n c h w to n c height width, bilinear as in TensorFlow 1: output i lies at input i·h/height, not at
    pixels' centres.

    Nothing is filtered before shrinking; it is what published figures were made with.
    """
    for axis, size in ((-2, height), (-1, width)):
        side = images.shape[axis]
        place = torch.arange(size, dtype=torch.float32, device=images.device) * (side / size)
        low = place.floor().long()
        share = (place - low).view(-1, 1) if axis == -2 else place - low
        high = (low + 1).clamp(max=side - 1)
        below, above = images.index_select(axis, low), images.index_select(axis, high)
        images = below + (above - below) * share
    return images
