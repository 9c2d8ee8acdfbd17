"""Perceptual distances: distances of a frozen network's features.

The network is any module that returns feature maps, each n c h w, for images in [-1,1].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .ms_ssim import ms_ssim_loss
from .precision import full_precision
from .pyramids import haar_l1


class FeatureDistance(nn.Module):
    """Squared distance of unit-length features at every place: summed over channels, mean over places, summed over the
    taps.

    It is not calibrated: it serves as a loss, but its values are not LPIPS and compare only with each other. The
    network is frozen and stays in evaluation mode; the gradient reaches the images through it. It runs in the dtype of
    its own weights whatever autocast says: `distance.network.bfloat16()` is faster and differs in the third digit.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FeatureDistance:
        """As any module, but the network's dropout and statistics stay as in evaluation."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, recon: Tensor, images: Tensor) -> Tensor:
        """Mean over images n 3 h w in [-1,1]: a scalar."""
        return self.per_image(recon, images).mean()

    @full_precision
    def per_image(self, recon: Tensor, images: Tensor) -> Tensor:
        """The distance of every pair of images n 3 h w in [-1,1]: n, fp32."""
        pairs = zip(self.network(recon), self.network(images), strict=True)
        return torch.stack(
            [self.weighed((unit(a) - unit(b)).square(), tap).mean((1, 2)) for tap, (a, b) in enumerate(pairs)]
        ).sum(0)

    def weighed(self, squares: Tensor, tap: int) -> Tensor:
        """A tap's squared differences n c h w to n h w."""
        return squares.sum(1)


class LPIPS(FeatureDistance):
    """Learned perceptual image patch similarity: a `FeatureDistance` whose channels are weighed as people judge.

    Calibrated only with the backbone and the input scaling that its heads were fitted to (features/weights.py knows
    them).
    Source: Zhang et al. 2018 (arXiv 1801.03924); the value is theirs but for the epsilon in `unit`.
    """

    def __init__(self, network: nn.Module, heads: Sequence[Tensor]):
        """heads: the weights of every tap's channels, c numbers each in any shape."""
        super().__init__(network)
        for tap, head in enumerate(heads):
            self.register_buffer(f"head{tap}", head.detach().float().reshape(-1))
        self.taps = len(heads)

    def weighed(self, squares: Tensor, tap: int) -> Tensor:
        """A tap's squared differences n c h w to n h w."""
        if tap >= self.taps or (head := self.get_buffer(f"head{tap}")).numel() != squares.shape[1]:
            raise ConfigError(
                f"LPIPS has no head for tap {tap} of {squares.shape[1]} channels; give the heads of this backbone"
            )
        return torch.einsum("nchw,c->nhw", squares, head.to(squares.dtype))


@full_precision
def unit(features: Tensor, epsilon: float = 1e-10) -> Tensor:
    """Features n c ... with length 1 over the channels.

    The epsilon is within the root: where all channels are 0, as ReLU often leaves them, √ has no slope and its gradient
    would be NaN.
    """
    return features * (features.square().sum(1, keepdim=True) + epsilon).rsqrt()


def distance_without_weights(recon: Tensor, images: Tensor) -> Tensor:
    """½ (1 - MS-SSIM) + Haar L1: the substitute for a perceptual distance where no network is available; a scalar.

    For images of at least 11 x 11 pixels. It sees structure and edges at several sizes, but knows nothing of textures.
    """
    return 0.5 * ms_ssim_loss(recon, images) + haar_l1(recon, images)
