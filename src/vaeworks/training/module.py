"""The trained module: the autoencoder, and the other parameters that are trained with it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..losses.equivariance import Transform
from ..models import Autoencoder, Posterior
from ..models.bottleneck import perturbed
from ..models.decoder import Decoder
from ..random_streams import INIT, random_seed
from .augmentation import NOTHING, StepAugmentation

LOG_VARIANCE = -3.0
"""The learned log-variance of pixels in [-1,1] at the start: about 22 dB."""


Disturbance = tuple[Tensor, Tensor]
"""How latents are disturbed in training: standard normal noise n c h/f w/f, independent of the posterior's, and n
levels in [0,1)."""


class ForwardOutput(NamedTuple):
    """The result of a forward pass in training; plain tensors, so that wrappers find them."""

    recon: Tensor
    """n 3 h w, decoded from the disturbed latents"""
    features: Tensor
    """n c' h w, the input of the last convolution"""
    latents: Tensor
    """n c h/f w/f, samples of the posterior, undisturbed"""
    mean: Tensor
    logvar: Tensor
    """mean and log-variance of the posterior, n c h/f w/f; the log-variance of a point is -inf"""
    small: Tensor | None
    """n 3 h/s w/s, decoded from latents shrunk by s; None where the step has no scale equivariance"""
    projected: Tensor | None
    """n d h/f w/f, latents projected to the width of the frozen network's features; None without alignment"""


class TrainModule(nn.Module):
    """All trained weights. Its forward pass is that of a whole step, so that DistributedDataParallel and compile see
    one call."""

    def __init__(self, autoencoder: Autoencoder, config: TrainConfig, feature_channels: int | None = None):
        """feature_channels: channels of the features that latents are aligned with."""
        super().__init__()
        self.autoencoder = autoencoder
        self.projection = (
            _projection(autoencoder.latent_channels, feature_channels, config.seed)
            if feature_channels is not None
            else None
        )
        gaussian = config.loss.reconstruction == "gaussian"
        # one element instead of a scalar, because FSDP splits the first dimension of every parameter
        self.log_variance = nn.Parameter(torch.tensor([LOG_VARIANCE])) if gaussian else None
        self._encoder_trains = True

    def train_parts(self, encoder: bool, decoder: bool = True) -> None:
        """Switch the training of each half of the autoencoder on or off. A half that is off gets no gradient, and no
        optimizer moves it."""
        self._encoder_trains = encoder
        vae = self.autoencoder
        for part, trains in (
            (vae.encoder, encoder),
            (vae.quant_conv, encoder),
            (vae.decoder, decoder),
            (vae.post_quant_conv, decoder),
        ):
            part.requires_grad_(trains)
        if self.projection is not None:
            self.projection.requires_grad_(encoder)  # only the encoder's training needs it

    @property
    def encoder_trains(self) -> bool:
        """Whether the encoder is trained."""
        return self._encoder_trains

    def forward(
        self, images: Tensor, noise: Tensor, disturbance: Disturbance | None = None, draw: StepAugmentation = NOTHING
    ) -> ForwardOutput:
        """Images n 3 h w in [-1,1], and standard normal noise n c h/f w/f for the posterior's sample."""
        vae = self.autoencoder
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._encoder_trains):
            posterior = vae.encode(images)
            latents = posterior.sample(noise=noise)
        given = latents if disturbance is None else perturbed(latents, vae.kl_config.bottleneck, *disturbance)
        features, recon = self._decoded(draw.on_latents(given))
        small = self._decoded(Transform(1 / draw.shrink)(given))[1] if draw.shrink else None
        projected = None if self.projection is None else self.projection(latents)
        # copies, because these are views of the moments, and wrappers put hooks on the results of a forward pass
        return ForwardOutput(
            recon, features, latents, posterior.mean.clone(), posterior.logvar.clone(), small, projected
        )

    def _decoded(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        decoder = self.autoencoder.decoder
        assert isinstance(decoder, Decoder)
        features = decoder.features(self.autoencoder.post_quant_conv(latents))
        return features, decoder.conv_out(features)

    def beside(self) -> dict[str, nn.Parameter]:
        """Trained parameters outside of the autoencoder, by name."""
        return {name: p for name, p in self.named_parameters() if not name.startswith("autoencoder.")}


def _projection(channels: int, feature_channels: int, seed: int) -> nn.Conv2d:
    """A linear layer with the random weights of this seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed(seed, INIT, 2))
        return nn.Conv2d(channels, feature_channels, 1)


def posterior_of(result: ForwardOutput, is_point: bool) -> Posterior:
    """The posterior of a pass."""
    return Posterior.point(result.mean) if is_point else Posterior.of(result.mean, result.logvar)
