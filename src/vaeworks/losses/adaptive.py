"""The adaptive weight of the adversarial term: as strong as the reconstruction, where both enter the decoder.

    weight = clamp(|gradient of the reconstruction loss| / (|gradient of the generator loss| + eps), 0, limit)

with both gradients at the weights of the decoder's last layer, and no gradient of its own.
Source: Esser et al. 2020 (arXiv 2012.09841), equation 7, and latent diffusion's constants.

Three ways to get the gradients; they agree, since both losses see the last layer through the images alone:

- `gradient_at(loss, last_layer.weight)`, for each loss. Every loss network is gone through backwards a second time
  later.
- pixel gradients first, of both losses at `recon`, and from there `pulled_back` to the last layer. The step then ends
  with `recon.backward(reconstruction_gradient + weight * adversarial_gradient)`: each loss network is gone through
  backwards once.
- the same, but from pixels to the layer by the formula of a convolution's gradient, from what it was given:
  `at_convolution`. The trainer's way: no graph is retained.

torch.compile: with the first two ways the last layer has to stand outside of what is compiled. Inside, autograd can
only run the whole compiled backward pass for it, which is slow, and which fails at the first adversarial step: compiled
graphs give their buffers away ("donated buffers") and cannot be retained.
DistributedDataParallel: nothing here calls its hooks; `adaptive_weight` averages the gradients over the processes
itself.
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


def gradient_at(loss: Tensor, tensor: Tensor) -> Tensor:
    """The gradient of a scalar loss at one tensor of its graph, in the tensor's shape, detached; the graph is kept."""
    return torch.autograd.grad(loss, tensor, retain_graph=True)[0].detach()


def pulled_back(recon: Tensor, tensor: Tensor, pixel_grad: Tensor) -> Tensor:
    """The gradient at one tensor of the graph of `recon`, from the gradient at `recon` itself; the graph of `recon` is
    kept."""
    return torch.autograd.grad(recon, tensor, pixel_grad.to(recon.dtype), retain_graph=True)[0].detach()


def at_convolution(conv: nn.Conv2d, features: Tensor, pixel_grad: Tensor) -> Tensor:
    """The gradient at the weights of a convolution of stride 1 that made pixels n c h w of `features`, from the
    gradient at the pixels."""
    x = features.detach()
    if conv.padding_mode != "zeros":
        x = F.pad(x, conv._reversed_padding_repeated_twice, mode=conv.padding_mode)
    padding = conv.padding if conv.padding_mode == "zeros" else 0
    return conv2d_weight(x, conv.weight.shape, pixel_grad.to(x.dtype), padding=padding)
