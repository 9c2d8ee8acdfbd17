"""The adaptive weight of the adversarial term: as strong as the reconstruction, where both enter the decoder.

    weight = clamp(|gradient of the reconstruction loss| / (|gradient of the generator loss| + eps), 0, limit)

with both gradients at the weights of the decoder's last layer, and no gradient of its own.
Source: Esser et al. 2020 (arXiv 2012.09841), equation 7, and latent diffusion's constants.

The trainer differentiates both losses with respect to the pixels first, and gets from there to the last layer by the
formula of a convolution's gradient (`at_convolution`). So each loss network is gone through backwards once, no graph is
retained, and torch.compile may compile the decoder whole: autograd could reach a layer inside of it only by the
compiled backward pass of everything, whose buffers are given away ("donated buffers").
DistributedDataParallel: no hook is called here; `adaptive_weight` averages the gradients over processes itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from ..distributed import process_mean

EPS = 1e-4
LIMIT = 1e4


def adaptive_weight(
    reconstruction_grad: Tensor, adversarial_grad: Tensor, *, eps: float = EPS, limit: float = LIMIT
) -> Tensor:
    """The factor that makes the adversarial term as strong as the reconstruction: a scalar in [0, limit], detached.

    Both gradients at the weights of the decoder's last layer, of any shape. They are averaged over processes, which
    have equal shares of the batch; over micro-batches, add them (each loss times its share) before the call.
    """
    norms = [torch.linalg.vector_norm(process_mean(grad.float())) for grad in (reconstruction_grad, adversarial_grad)]
    return (norms[0] / (norms[1] + eps)).clamp(0.0, limit)


def at_convolution(conv: nn.Conv2d, features: Tensor, pixel_grad: Tensor) -> Tensor:
    """The gradient at the weights of a convolution of stride 1 that made pixels n c h w of `features`, from the
    gradient at the pixels."""
    x = features.detach()
    if conv.padding_mode != "zeros":
        x = F.pad(x, conv._reversed_padding_repeated_twice, mode=conv.padding_mode)
    padding = conv.padding if conv.padding_mode == "zeros" else 0
    return conv2d_weight(x, conv.weight.shape, pixel_grad.to(x.dtype), padding=padding)
