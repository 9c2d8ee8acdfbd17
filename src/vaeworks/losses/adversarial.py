"""Adversarial losses: the discriminator's, and the autoencoder's.

`discriminator_objective` gives the autoencoder no gradient, and `generator_objective` gives the discriminator none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from .lecam import LeCam

Logits = Tensor | Sequence[Tensor]
"""A map of logits n 1 h w, or several: then losses are the mean of the maps' losses."""

Kind = Literal["hinge", "vanilla", "least-squares", "relativistic"]


def discriminator_loss(real: Logits, fake: Logits, kind: Kind) -> Tensor:
    """The discriminator's loss, a scalar in fp32, from the logits of images and of their reconstructions.

    - hinge, Lim & Ye 2017 (arXiv 1705.02894): mean of relu(1 - real) and relu(1 + fake)
    - vanilla, Goodfellow et al. 2014 (arXiv 1406.2661): mean of softplus(-real) and softplus(fake)
    - least-squares, Mao et al. 2016 (arXiv 1611.04076): mean of (real - 1)^2 and fake^2
    - relativistic, Jolicoeur-Martineau 2018 (arXiv 1807.00734), paired as in R3GAN: softplus(fake - real) of an image
      and its own reconstruction

    Errors: ConfigError where the two have different shapes.
    """
    return _mean(_discriminator_losses(kind), real, fake)


def generator_loss(fake: Logits, kind: Kind, real: Logits | None = None) -> Tensor:
    """The autoencoder's adversarial loss, a scalar in fp32, from the logits of its reconstructions.

    hinge: -fake; vanilla: softplus(-fake), the one that does not saturate (latent diffusion takes -fake here, too);
    least-squares: (fake - 1)^2 / 2; relativistic: softplus(real - fake), which needs the logits of the images as well.
    Errors: ConfigError for a relativistic loss without `real`.
    """
    if kind == "relativistic":
        if real is None:
            raise ConfigError("the relativistic generator loss needs the logits of the real images")
        return _mean(lambda r, f: F.softplus(r - f), real, fake)
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "hinge": lambda _, f: -f,
        "vanilla": lambda _, f: F.softplus(-f),
        "least-squares": lambda _, f: (f - 1).square() / 2,
    }
    return _mean(losses[kind], fake, fake)


def discriminator_objective(
    discriminator: Callable[[Tensor], Logits],
    images: Tensor,
    recon: Tensor,
    kind: Kind,
    *,
    r1: float = 0.0,
    r2: float = 0.0,
    lecam: LeCam | None = None,
    lecam_weight: float = 1e-3,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a discriminator step, and its figures (scalars, detached). No gradient reaches what made `recon`.

    r1, r2: weights gamma of the zero-centred gradient penalties gamma/2 * |gradient|^2 at images and at reconstructions
    (R3GAN: both). With them, `discriminator` must not be compiled: torch.compile cannot differentiate twice.
    DistributedDataParallel needs broadcast_buffers=False: the second forward pass would write over buffers that the
    first one keeps. Images and reconstructions go in separately, because BatchNorm would tell them apart by their
    mixture.
    Figures: adversarial, r1, r2, lecam before weighting; accuracy_real, accuracy_fake in [0,1]; logit_real, logit_fake,
    the means, with which `lecam.update_` is called once for each optimizer step. All are means over images: of
    micro-batches, they are added by shares, as the losses are.
    """
    real, real_penalty = _judged(discriminator, images, penalized=r1 > 0)
    fake, fake_penalty = _judged(discriminator, recon, penalized=r2 > 0)
    terms = {"adversarial": discriminator_loss(real, fake, kind), "r1": real_penalty, "r2": fake_penalty}
    loss = terms["adversarial"] + r1 / 2 * real_penalty + r2 / 2 * fake_penalty
    if lecam is not None:
        terms["lecam"] = lecam(real, fake)
        loss = loss + lecam_weight * terms["lecam"]
    with torch.no_grad():
        terms["accuracy_real"], terms["accuracy_fake"] = accuracy(real, fake, kind)
        terms["logit_real"], terms["logit_fake"] = (_mean(lambda x, _: x, side, side) for side in (real, fake))
    return loss, {name: value.detach() for name, value in terms.items()}


def generator_objective(discriminator: nn.Module, images: Tensor, recon: Tensor, kind: Kind) -> Tensor:
    """The adversarial loss of an autoencoder's step, before weighting. The discriminator's parameters get no gradient.

    discriminator: not its DistributedDataParallel wrapper, which would wait for gradients that never come.
    """
    with frozen(discriminator):
        real = discriminator(images) if kind == "relativistic" else None
        return generator_loss(discriminator(recon), kind, real)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within it, `module` computes without gradient for its parameters; the gradient still goes through to its input.

    Afterwards those that were trained are trained again, and no others. The backward pass may come later. Buffers
    (BatchNorm's running statistics, spectral norm's vectors) move as in every forward pass.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    try:
        for p in trained:
            p.requires_grad_(False)
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)


def gradient_penalty(logits: Logits, images: Tensor) -> Tensor:
    """Mean over images of |gradient of the logits|^2 at the images n c h w, which require a gradient: a scalar that can
    be minimized.

    For one logit an image it is the penalty of Mescheder et al. 2018 (arXiv 1801.04406), without gamma/2. Of maps, the
    gradient of their sum is divided by the square root of their size, so that it means the same for small and large
    crops.
    """
    maps = _maps(logits)
    score = sum(m.sum() / (m[0].numel() * len(maps)) ** 0.5 for m in maps)
    gradient = torch.autograd.grad(score, images, create_graph=True)[0]
    return gradient.square().sum((1, 2, 3)).mean()


@torch.no_grad()
def accuracy(real: Logits, fake: Logits, kind: Kind) -> tuple[Tensor, Tensor]:
    """Shares of images and of reconstructions with the right logit: scalars in [0,1]; 0.5 is chance.

    For the relativistic loss both are the share of pairs in the right order.
    """
    if kind == "relativistic":
        ordered = _mean(lambda r, f: (r > f).float() + (r == f).float() / 2, real, fake)
        return ordered, ordered
    middle = 0.5 if kind == "least-squares" else 0.0
    return _mean(lambda r, _: (r > middle).float(), real, real), _mean(lambda _, f: (f < middle).float(), fake, fake)


def _judged(discriminator: Callable[[Tensor], Logits], images: Tensor, penalized: bool) -> tuple[Logits, Tensor]:
    """Logits of detached images, and their gradient penalty (0 where it is not wanted).

    Penalties are computed in no less than fp32: squares of gradients have more range than half precision, and more
    digits than bfloat16.
    """
    images = images.detach()
    if not penalized:
        return discriminator(images), torch.zeros((), device=images.device)
    with torch.autocast(images.device.type, enabled=False):
        images = images.to(torch.promote_types(images.dtype, torch.float32)).requires_grad_()
        logits = discriminator(images)
        return logits, gradient_penalty(logits, images)


def _discriminator_losses(kind: Kind) -> Callable[[Tensor, Tensor], Tensor]:
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "hinge": lambda r, f: (F.relu(1 - r) + F.relu(1 + f)) / 2,
        "vanilla": lambda r, f: (F.softplus(-r) + F.softplus(f)) / 2,
        "least-squares": lambda r, f: ((r - 1).square() + f.square()) / 2,
        "relativistic": lambda r, f: F.softplus(f - r),
    }
    return losses[kind]


def _mean(of: Callable[[Tensor, Tensor], Tensor], real: Logits, fake: Logits) -> Tensor:
    """Mean over maps of the mean of a function of real and fake logits."""
    means = []
    for r, f in zip(_maps(real), _maps(fake), strict=True):
        if r.shape != f.shape:
            raise ConfigError(
                f"logits of images and of reconstructions must have one shape, not {tuple(r.shape)} and "
                f"{tuple(f.shape)}"
            )
        means.append(of(r.float(), f.float()).mean())
    return torch.stack(means).mean()


def _maps(logits: Logits) -> Sequence[Tensor]:
    return [logits] if isinstance(logits, Tensor) else logits
