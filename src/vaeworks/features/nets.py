"""Networks that were trained to classify, kept for what their layers see: the backbones of perceptual losses.

A few lines each. Weights have torchvision's names, "features.0.weight" and so on, so that its files load
(features/weights.py). Taps are LPIPS's (Zhang et al. 2018, arXiv 1801.03924).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..nn.conv import convolved


@dataclass(frozen=True)
class Scaling:
    """How red, green and blue in [-1,1] become what a network was trained on: (x - shift) / scale."""

    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)


UNSCALED = Scaling()
"""LPIPS v0.0, by mistake: its heads were fitted so."""

IMAGENET = Scaling((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450))
"""torchvision's, and LPIPS v0.1's: mean (.485 .456 .406) and standard deviation (.229 .224 .225) of [0,1]."""

OXFORD = Scaling((123.68 / 127.5 - 1, 116.779 / 127.5 - 1, 103.939 / 127.5 - 1), (1 / 127.5, 1 / 127.5, 1 / 127.5))
"""The first VGG's: pixels of 255, less their mean. Source: Simonyan & Zisserman 2014 (arXiv 1409.1556)."""


class FeatureNet(nn.Module):
    """Layers in a row; the outputs of some of them are the features. Frozen: its weights never require a gradient."""

    def __init__(self, name: str, layers: Sequence[nn.Module], taps: Sequence[int], smallest: int, scaling: Scaling):
        """taps: numbers of the layers whose outputs are returned; smallest: side of the smallest image that reaches
        them, in pixels."""
        super().__init__()
        self.name, self.taps, self.smallest = name, tuple(taps), smallest
        self.features = nn.Sequential(*layers)
        for buffer in (
            "shift",
            "scale",
        ):  # on the CPU even where the network is built on "meta": weights are assigned, these are not
            self.register_buffer(
                buffer, torch.tensor(getattr(scaling, buffer), device="cpu").view(1, 3, 1, 1), persistent=False
            )
        self.requires_grad_(False).eval()

    shift: Tensor
    scale: Tensor

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images n 3 h w, or gray n 1 h w, in [-1,1], to what every tap sees, n c h' w', shallowest first; in the dtype
        of the weights.

        Errors: ConfigError for images smaller than `smallest`.
        """
        if min(images.shape[-2:]) < self.smallest:
            size = f"{images.shape[-2]}x{images.shape[-1]}"
            raise ConfigError(
                f"{self.name} needs images of at least {self.smallest}x{self.smallest} pixels, not {size}; use larger "
                "crops"
            )
        weight = next(self.features.parameters())
        x = ((images.to(torch.promote_types(images.dtype, torch.float32)) - self.shift) / self.scale).to(weight.dtype)
        if x.device.type == "cpu" and torch.is_grad_enabled():  # in training
            x = x.contiguous(memory_format=torch.channels_last)
        seen = []
        for number, layer in enumerate(self.features):
            x = convolved(x, layer) if isinstance(layer, nn.Conv2d) else layer(x)
            if number in self.taps:
                seen.append(x)
        return seen


class Fire(nn.Module):
    """SqueezeNet's block: a 1x1 convolution to few channels, then 1x1 and 3x3 ones side by side. Source: Iandola et al.
    2016."""

    def __init__(self, inner: int, squeezed: int, expanded: int):
        super().__init__()
        self.squeeze = nn.Conv2d(inner, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """n c h w to n 2*expanded h w."""
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()


def vgg16(scaling: Scaling = IMAGENET) -> FeatureNet:
    """VGG16 up to relu5_3, 14.7 M weights; taps of 64, 128, 256, 512 and 512 channels."""
    return FeatureNet(
        "VGG16", _vgg((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3), (3, 8, 15, 22, 29), 16, scaling
    )


def vgg16_conv1to3(scaling: Scaling = OXFORD) -> FeatureNet:
    """VGG16 up to relu3_3 alone, 1.7 M weights; taps of 64, 128 and 256 channels."""
    return FeatureNet("VGG16's conv1 to conv3", _vgg((64, 64), (128, 128), (256,) * 3), (3, 8, 15), 4, scaling)


def alexnet(scaling: Scaling = IMAGENET) -> FeatureNet:
    """AlexNet's convolutions, 2.5 M weights; taps of 64, 192, 384, 256 and 256 channels. Source: Krizhevsky 2014 (arXiv
    1404.5997)."""
    layers = [
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        _relu(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        _relu(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        _relu(),
        nn.Conv2d(384, 256, 3, padding=1),
        _relu(),
        nn.Conv2d(256, 256, 3, padding=1),
        _relu(),
    ]
    return FeatureNet("AlexNet", layers, (1, 4, 7, 9, 11), 31, scaling)


def squeezenet1_1(scaling: Scaling = IMAGENET) -> FeatureNet:
    """SqueezeNet 1.1's features, 0.7 M weights; taps of 64, 128, 256, 384, 384, 512 and 512 channels."""
    layers = [
        nn.Conv2d(3, 64, 3, stride=2),
        _relu(),
        _pool(),
        Fire(64, 16, 64),
        Fire(128, 16, 64),
        _pool(),
        Fire(128, 32, 128),
        Fire(256, 32, 128),
        _pool(),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        Fire(512, 64, 256),
    ]
    return FeatureNet("SqueezeNet 1.1", layers, (1, 4, 7, 9, 10, 11, 12), 17, scaling)


FEATURE_NETS: dict[str, Callable[..., FeatureNet]] = {
    "vgg16": vgg16, "alexnet": alexnet, "squeezenet1_1": squeezenet1_1, "vgg16_conv1to3": vgg16_conv1to3,
}  # fmt: skip
"""By name. A new one has random weights, which are good for tests only."""


def _vgg(*blocks: tuple[int, ...]) -> list[nn.Module]:
    """3x3 convolutions with ReLU, blocks separated by pools."""
    layers: list[nn.Module] = []
    inner = 3
    for i, widths in enumerate(blocks):
        layers += [nn.MaxPool2d(2)] if i else []
        for width in widths:
            layers += [nn.Conv2d(inner, width, 3, padding=1), _relu()]
            inner = width
    return layers


def _relu() -> nn.ReLU:
    return nn.ReLU(inplace=True)


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, ceil_mode=True)
