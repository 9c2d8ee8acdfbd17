"""The discriminator of latent diffusion."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from ...distributed import process_average, world_size
from .layers import SLOPE, check_size


class PatchDiscriminator(nn.Module):
    """PatchGAN with BatchNorm, as in pix2pix, taming-transformers and latent diffusion.

    One logit for every square of 70x70 pixels (num_layers 3). BatchNorm couples the images of a batch, so that real and
    reconstructed ones go in separately, and accumulation over micro-batches is not the same as one large batch.
    Source: Isola et al. 2016 (arXiv 1611.07004), 6.1.2. Layers are numbered as in its published implementations.
    """

    def __init__(self, in_channels: int = 3, channels: int = 64, num_layers: int = 3):
        super().__init__()
        self.least_size = 3 * 2**num_layers
        widths = [channels * min(2**i, 8) for i in range(num_layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        for i, (inner, outer) in enumerate(pairwise(widths)):
            stride = 2 if i + 1 < num_layers else 1
            layers += [
                nn.Conv2d(inner, outer, 4, stride=stride, padding=1, bias=False),
                BatchNorm(outer),
                nn.LeakyReLU(SLOPE),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.apply(_init_)

    def forward(self, images: Tensor) -> Tensor:
        """Images n c h w in [-1,1] to logits n 1 h' w', h' = h/8 - 2 with three layers.

        Errors: ConfigError for crops below `least_size`.
        """
        check_size(images, self.least_size, "patch")
        return self.layers(images)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalization by the statistics of the whole batch: those of all processes together, which have equal
    shares of it.

    torch's SyncBatchNorm does the same on GPUs alone, and cannot be differentiated twice, as gradient penalties need.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        """n c h w to n c h w."""
        if world_size() == 1 or not self.training:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = process_average(wide.mean((0, 2, 3)))
        centred = wide - mean[:, None, None]
        variance = process_average(centred.square().mean((0, 2, 3)))
        self._follow(mean, variance, x.numel() // x.shape[1] * world_size())
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics, which are of the unbiased variance, towards those of a batch of `count` numbers
        a channel."""
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var) * (count / (count - 1)), self.momentum)
        self.num_batches_tracked += 1


def _init_(module: nn.Module) -> None:
    """Weights N(0, 0.02), scales of normalization N(1, 0.02), as published (biases of convolutions are PyTorch's)."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
