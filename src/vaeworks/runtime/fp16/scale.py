"""Scale the activations of an autoencoder without changing its results.

Every map between two blocks is read by a normalization, apart from convolutions that are linear in it. So all of these
maps can carry a factor, if epsilon carries its square: the normalized values stay the same.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator

import torch
from torch import nn

from ...errors import ConfigError
from ...models import Autoencoder, Decoder, Encoder
from ...nn import Downsample, ResBlock, SpatialAttention, Upsample


def scale_activations(autoencoder: Autoencoder, encoder: float = 1.0, decoder: float = 1.0) -> Autoencoder:
    """A copy whose activations are `encoder` and `decoder` times as large in each half, with equal latents and images.

    Powers of two are exact, unless a weight leaves the range of its dtype. Factors multiply those of the configuration.
    Errors: ConfigError for a TAESD, which has no normalization to undo a factor, and for factors that are not positive.
    """
    config = autoencoder.kl_config
    if not (encoder > 0 and decoder > 0):
        raise ConfigError(f"encoder (={encoder}) and decoder (={decoder}) must be positive")
    scaled = copy.deepcopy(autoencoder)
    config = dataclasses.replace(
        config, encoder_scale=config.encoder_scale * encoder, decoder_scale=config.decoder_scale * decoder
    )
    scaled.restate(config)
    for half, factor, total in (
        (scaled.encoder, encoder, config.encoder_scale),
        (scaled.decoder, decoder, config.decoder_scale),
    ):
        assert isinstance(half, (Encoder, Decoder))  # a KL autoencoder's
        _scale(half, factor)
        set_eps(half, config.norm_eps * total**2)
    return scaled


def writers(half: Encoder | Decoder) -> Iterator[tuple[nn.Conv2d | nn.Linear, bool]]:
    """The layers whose outputs carry the factor of a half, and whether their inputs do not, so that their weights
    introduce it."""
    yield half.conv_in, True
    for module in half.modules():
        if isinstance(module, ResBlock):
            yield from ((module.conv1, True), (module.conv2, True))
            if isinstance(module.conv_shortcut, nn.Conv2d):
                yield module.conv_shortcut, False
        elif isinstance(module, (Downsample, Upsample)):
            yield module.conv, False
        elif isinstance(module, SpatialAttention):
            yield module.out, True


def set_eps(module: nn.Module, eps: float) -> None:
    """Set epsilon of every group normalization, in place."""
    for norm in module.modules():
        if isinstance(norm, nn.GroupNorm):
            norm.eps = eps


@torch.no_grad()
def _scale(half: Encoder | Decoder, factor: float) -> None:
    for layer, weight in writers(half):
        assert layer.bias is not None
        layer.bias.mul_(factor)
        if weight:
            layer.weight.mul_(factor)
