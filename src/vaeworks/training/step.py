"""One optimizer step of the autoencoder, and one of the discriminator."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..devices import autocast
from ..distributed import process_mean, world_size
from ..errors import ConfigError
from ..features.backbones import UNKNOWN, Backbone
from ..images import to_model_range
from ..losses.adaptive import adaptive_weight, at_convolution
from ..losses.equivariance import Transform
from ..losses.ms_ssim import WINDOW
from ..losses.objective import Terms, latent_terms, pixel_terms, weighted, weights
from ..losses.reconstruction import l1, mse
from ..losses.regularize import cosine_alignment, distance_alignment
from ..models.decoder import Decoder
from ..random_streams import DISTURBANCE, latent_noise, noise_levels
from .augmentation import StepAugmentation, draw_augmentation
from .gan.balance_state import StepPlan
from .module import Disturbance, ForwardOutput, posterior_of
from .optim import set_learning_rate
from .state import TrainState

ALONE = StepPlan("reconstruction", train_discriminator=False, weight=0.0)
"""A step without a discriminator."""


@dataclass(frozen=True)
class StepResult:
    """Figures of one step, each a mean over the batch and all processes."""

    loss: float
    """the loss of the autoencoder"""
    reconstruction: float
    """mean distance of pixels in [-1,1], of the configured kind"""
    perceptual: float
    """mean perceptual distance, 0 where there is none"""
    kl: float
    """nats per latent element"""
    mse: float
    """mean squared error of pixels in [-1,1]"""
    grad_norm: float
    """gradient norm before clipping"""
    others: dict[str, float] = field(default_factory=dict)
    """other figures by their names in the log: regularizers and the discriminator's"""

    @property
    def psnr(self) -> float:
        """PSNR of the batch in dB, peak 2, without clamping or rounding."""
        return 10 * math.log10(4 / self.mse) if self.mse > 0 else math.inf

    @property
    def bits_per_dimension(self) -> float:
        """KL in bits per latent element."""
        return self.kl / math.log(2)

    @property
    def finite(self) -> bool:
        """Whether loss and gradient norm are finite, the discriminator's included."""
        return all(map(math.isfinite, (self.loss, self.grad_norm, self.others.get("discriminator_grad_norm", 0.0))))

    def figures(self, lr: float) -> dict[str, float]:
        """The figures of a step line in the log."""
        return {
            "loss": self.loss,
            "reconstruction": self.reconstruction,
            "perceptual": self.perceptual,
            "kl": self.kl,
            "psnr": self.psnr,
            "bits_per_dimension": self.bits_per_dimension,
            "grad_norm": self.grad_norm,
            "lr": lr,
            **self.others,
        }


@dataclass(frozen=True)
class MicroBatch:
    """A micro-batch, ready for the forward pass."""

    images: Tensor
    """n 3 h w in [-1,1], as they are encoded"""
    target: Tensor
    """n 3 h' w', the target of the reconstruction"""
    noise: Tensor
    disturbance: Disturbance | None
    draw: StepAugmentation
    share: float
    """share of this process's batch"""


def training_step(
    t: TrainState,
    batch: Tensor,
    counters: list[int],
    plan: StepPlan = ALONE,
    *,
    done: float = 0.0,
    lr: float | None = None,
    discriminator_lr: float | None = None,
    first_counter: int | None = None,
) -> StepResult:
    """One step of the autoencoder, and one of the discriminator, on a batch, uint8 n c h w.

    Random numbers are functions of the images' counters, and of the first counter of the global batch (first_counter).
    The gradient is that of the global batch over all processes, whatever micro_batch is, adaptive weights included.
    `plan.weight` scales the adversarial term; the discriminator then learns from the same reconstructions, detached. If
    loss or gradient are not finite, weights stay as they were. done: share of the run. lr, discriminator_lr: None
    leaves the optimizers' own.
    """
    first = counters[0] if first_counter is None else first_counter
    parts = list(_parts(t, batch, counters, first))
    gan_weight = plan.weight * t.config.adversarial.weight if t.adversary is not None else 0.0
    adaptive = _measured(t, parts) if gan_weight and t.config.adversarial.adaptive and len(parts) > 1 else None
    t.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    recons = []
    for part in parts:
        with _message(t.model, last=part is parts[-1]):
            result = _forward(t, part)
            figures = _backward(t, part, result, gan_weight, adaptive)
        recons.append((part.target, _wide(result.recon)))
        for name, value in figures.items():
            sums[name] = sums.get(name, 0.0) + value * (part.share if name not in _WHOLE else 1.0 / len(parts))
    norm = nn.utils.clip_grad_norm_(t.learner.parameters(), t.config.optimizer.clip_norm or math.inf)
    sums["grad_norm"] = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # a shard of it, with fsdp
    sums["loss"] = process_mean(sums["loss"])  # so that all processes take the step, or none
    if (sums["loss"] + sums["grad_norm"]).isfinite():
        if lr is not None:
            set_learning_rate(t.optimizer, lr)
        t.optimizer.step()
    if t.adversary is not None and plan.train_discriminator:
        sums |= t.adversary.step(recons, t.config.precision, done, discriminator_lr)
    return _result(sums)


_WHOLE = {"adaptive_weight", "adversarial_weight", "alignment_weight"}
"""Figures of the whole batch, which are the same in every part."""


def _parts(t: TrainState, batch: Tensor, counters: list[int], first: int) -> Iterator[MicroBatch]:
    """The micro-batches of a batch, on the device."""
    config, vae = t.config, t.autoencoder
    size, f = config.micro_batch or len(batch), vae.downsample_factor
    draw = draw_augmentation(config.regularizers, config.seed, first, min(batch.shape[-2:]), smallest(t), f)
    for start in range(0, len(batch), size):
        some = counters[start : start + size]
        images = draw.prepared(
            to_model_range(batch[start : start + size].to(vae.device, non_blocking=True)), f * vae.config.latents_patch
        )
        if config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        shape = (vae.latent_channels, images.shape[-2] // f, images.shape[-1] // f)
        noise = latent_noise(config.seed, some, shape).to(vae.device, non_blocking=True)
        disturbance = None
        if config.model.bottleneck.disturbs:
            other = latent_noise(config.seed, some, shape, DISTURBANCE)
            disturbance = other.to(vae.device, non_blocking=True), noise_levels(config.seed, some).to(vae.device)
        yield MicroBatch(images, draw.on_target(images, f), noise, disturbance, draw, len(some) / len(batch))


def smallest(t: TrainState) -> int:
    """Least side in pixels of an image whose size is drawn: enough for every loss and network, in whole latents."""
    needs = [
        _smallest_for_losses(t),
        *([t.features.smallest] if isinstance(t.features, Backbone) else [UNKNOWN] if t.features else []),
    ]
    needs += [int(t.adversary.network.least_size)] if t.adversary is not None else []  # type: ignore[arg-type]
    unit = t.autoencoder.downsample_factor * t.autoencoder.config.latents_patch
    return -(-max(needs) // unit) * unit


def check_size(t: TrainState) -> None:
    """Errors: ConfigError for crops smaller than the losses need."""
    if t.config.data.size < (least := _smallest_for_losses(t)):
        raise ConfigError(
            f"data.size (={t.config.data.size}) is too small for the losses of this run, which need {least}; take "
            "larger crops"
        )


def _smallest_for_losses(t: TrainState) -> int:
    loss, network = t.config.loss, getattr(t.perceptual, "network", None)
    window = WINDOW if loss.reconstruction == "ms_ssim" or loss.perceptual == "without-weights" else 1
    return max(window, 1 if network is None else getattr(network, "smallest", UNKNOWN))


def _forward(t: TrainState, part: MicroBatch) -> ForwardOutput:
    with autocast(part.images.device, t.config.precision):
        return t.model(part.images, part.noise, part.disturbance, part.draw)


def _backward(
    t: TrainState, part: MicroBatch, result: ForwardOutput, gan_weight: float, adaptive: Tensor | None
) -> dict[str, Tensor]:
    """Accumulate the gradients of a part's share of the loss; returns figures of the part.

    Every pixel loss reaches the network only through the reconstruction, so we differentiate there first. The sum of
    these gradients then enters the autoencoder in one backward pass: each loss network has one, too, and the adaptive
    weight needs none.
    """
    config = t.config
    pixels = _wide(result.recon).requires_grad_()
    learned = [p for p in (t.learner.log_variance,) if p is not None]
    terms = pixel_terms(pixels, part.target, config.loss, t.perceptual, t.learner.log_variance)
    loss = weighted(terms, weights(config.loss))
    pixel_grad, *learned_grads = torch.autograd.grad(loss, [pixels, *learned])
    figures = {**terms, "mse": mse(pixels.detach(), part.target)}
    # the gradient of these parameters is known; taken before any backward pass, which may free their memory
    other = sum(((p * g).sum() for p, g in zip(learned, learned_grads, strict=True)), loss.new_zeros(()))

    at_latents, more = _latent_loss(t, part, result, pixel_grad)
    figures |= more
    other = other + at_latents
    loss = loss.detach() + at_latents.detach()

    if gan_weight:
        adversarial, adversarial_grad = _adversarial(t, part.target, pixels)
        if config.adversarial.adaptive and adaptive is None:
            adaptive = adaptive_weight(*(_at_last_layer(t, result, grad) for grad in (pixel_grad, adversarial_grad)))
        weight = loss.new_tensor(gan_weight) if adaptive is None else gan_weight * adaptive
        pixel_grad = pixel_grad + weight * adversarial_grad
        loss = loss + weight * adversarial
        figures |= {"adversarial": adversarial, "adversarial_weight": weight}
        figures |= {} if adaptive is None else {"adaptive_weight": adaptive}

    roots: list[tuple[Tensor, Tensor | None]] = [(result.recon, (part.share * pixel_grad).to(result.recon.dtype))]
    roots += [(part.share * other, None)] if other.requires_grad else []
    torch.autograd.backward([root for root, _ in roots], [grad for _, grad in roots])
    return {name: value.detach().float() for name, value in {**figures, "loss": loss}.items()}


def _adversarial(t: TrainState, target: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The generator's adversarial loss, and its gradient at the reconstruction."""
    assert t.adversary is not None
    with autocast(pixels.device, t.config.precision):
        loss = t.adversary.generator_loss(target, pixels)
    return loss.detach(), torch.autograd.grad(loss, pixels)[0]


def _latent_loss(t: TrainState, part: MicroBatch, result: ForwardOutput, pixel_grad: Tensor) -> tuple[Tensor, Terms]:
    """The weighted sum of the latent terms, and the terms."""
    config, f = t.config, t.autoencoder.downsample_factor
    posterior = posterior_of(result, config.model.bottleneck.kind == "point")
    terms = latent_terms(posterior, result.latents, part.images, config.loss, config.regularizers)
    if result.small is not None:
        terms["scale_equivariance"] = l1(result.small, Transform(1 / part.draw.shrink)(part.images, f))
    loss = weighted(terms, weights(config.loss, config.regularizers))
    if t.features is not None and result.projected is not None and t.learner.encoder_trains:
        with torch.no_grad(), autocast(part.images.device, config.precision):
            found = t.features(part.images)
        features = found if isinstance(found, Tensor) else found[-1]
        margins = config.regularizers.alignment_margins
        alignment = cosine_alignment(result.projected, features, margins[0]) + distance_alignment(
            result.latents, features, margins[1]
        )
        weight = (
            _alignment_weight(result, pixel_grad, alignment)
            if config.regularizers.alignment_adaptive
            else loss.new_ones(())
        )
        loss = loss + config.regularizers.alignment * weight * alignment
        terms |= {"alignment": alignment, "alignment_weight": weight}
    if t.teacher is not None and t.learner.encoder_trains:
        with torch.no_grad(), autocast(part.images.device, config.precision):
            target = t.teacher.normalize(t.teacher.encode(part.images).mode())
        terms["teacher"] = mse(t.teacher.normalize(result.mean), target)
        loss = loss + config.finetune.teacher_weight * terms["teacher"]
    return loss, terms


def _alignment_weight(result: ForwardOutput, pixel_grad: Tensor, alignment: Tensor) -> Tensor:
    """Ratio of the gradient norms of reconstruction and alignment at the latents: a scalar, at most 1e8.

    VA-VAE (arXiv 2501.01423) measures both at the weight of the encoder's last layer. They reach it only through the
    latents, but the ratio of norms is another there, by a factor of 1.7 to 2.4: a weight of VA-VAE's is not ours.
    """
    ours = torch.autograd.grad(result.recon, result.latents, pixel_grad.to(result.recon.dtype), retain_graph=True)[0]
    theirs = torch.autograd.grad(alignment, result.latents, retain_graph=True)[0]
    # a mean over the whole batch has 1/world_size of the gradient that the mean over this process's images has
    squares = process_mean(torch.stack([g.float().square().sum() for g in (ours, theirs)])) / world_size()
    return (squares[0].sqrt() / (squares[1].sqrt() + 1e-4)).clamp(max=1e8)


def _at_last_layer(t: TrainState, result: ForwardOutput, pixel_grad: Tensor) -> Tensor:
    decoder = t.autoencoder.decoder
    assert isinstance(decoder, Decoder)
    return at_convolution(decoder.conv_out, result.features, pixel_grad)


def _measured(t: TrainState, parts: list[MicroBatch]) -> Tensor:
    """The adaptive weight of a batch in parts: a forward pass of its own sums their gradients at the last layer."""
    sums = [torch.zeros((), device=t.autoencoder.device)] * 2
    for part in parts:
        with torch.no_grad():
            result = _forward(t, part)
        pixels = _wide(result.recon).requires_grad_()
        loss = weighted(
            pixel_terms(pixels, part.target, t.config.loss, t.perceptual, t.learner.log_variance),
            weights(t.config.loss),
        )
        grads = torch.autograd.grad(loss, pixels)[0], _adversarial(t, part.target, pixels)[1]
        sums = [
            total + part.share * _at_last_layer(t, result, grad).float()
            for total, grad in zip(sums, grads, strict=True)
        ]
    return adaptive_weight(*sums)


def _wide(recon: Tensor) -> Tensor:
    """A reconstruction, detached, in at least fp32."""
    return recon.detach().to(torch.promote_types(recon.dtype, torch.float32))


def _message(model: nn.Module, last: bool) -> AbstractContextManager:
    """The context of a part's passes: processes exchange gradients once a step, with the last part."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()


def _result(sums: dict[str, Tensor]) -> StepResult:
    """Figures as numbers, means over processes: one message between them, and one synchronization with the device."""
    values = dict(
        zip(sums, process_mean(torch.stack([value.float() for value in sums.values()])).tolist(), strict=True)
    )
    named = {name: values.pop(name, 0.0) for name in ("loss", "reconstruction", "perceptual", "kl", "mse", "grad_norm")}
    return StepResult(**named, others=values)
