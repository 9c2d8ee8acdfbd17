"""Differentiable decoding and encoding in little memory.

Autograd stores every map of the forward pass. Checkpointing stores the maps between residual blocks, and computes each
block on whole maps. Here the forward pass stores the smallest map of every resolution and the statistics of group
normalizations; from these the backward pass recomputes the rest strip by strip.
"""

from __future__ import annotations

from torch import Tensor, nn

from ...images import check_divisible
from ...models import Autoencoder, Decoder, Encoder
from ...models.decoder import DecoderLevel
from ...models.encoder import EncoderLevel
from ...models.middle import Middle
from ...nn import Downsample, ResBlock, SpatialAttention, Upsample
from .chain import Chain
from .stages import Attend, Enlarge, Halve, Out, Residual, Same, Stage


def decode_with_gradient(autoencoder: Autoencoder, latents: Tensor, rows: int) -> Tensor:
    """Decode unnormalized latents n c h w to images n 3 f*h f*w, about in [-1,1], differentiable by latents and decoder
    parameters.

    rows: most rows of a strip. Gradients equal the whole picture's to rounding, and are computed only where wanted.
    Everything is computed in the weights' dtype, with or without autocast. With padding other than zeros, blocks are
    checkpointed whole; a TAESD uses plain autograd.
    Errors: ConfigError for latents of other channels, and for a gradient of the gradient.
    Sources: recomputation from Chen et al. 2016, arXiv 1604.06174; global statistics as in runtime/strips.py.
    """
    decoder = autoencoder.decoder
    if (
        not isinstance(decoder, Decoder)
        or latents.ndim != 4
        or latents.shape[1] != autoencoder.latent_channels
        or not latents.numel()
    ):
        return autoencoder.decode(latents)  # a TAESD, or an error that `decode` raises
    z = autoencoder.post_quant_conv(latents)
    if autoencoder.kl_config.padding_mode != "zeros":
        return _decoded_by_blocks(decoder, z)
    return Chain(_of_decoder(decoder), rows, autoencoder.kl_config.norm_groups)(z)


def encode_with_gradient(autoencoder: Autoencoder, images: Tensor, rows: int) -> Tensor:
    """Encode images n 3 h w in [-1,1] to moments n 2c h/f w/f, differentiable by images and encoder parameters.

    `autoencoder.posterior` takes the moments. All else is as in `decode_with_gradient`.
    Errors: ConfigError for a size that is no multiple of f.
    """
    encoder = autoencoder.encoder
    check_divisible(images.shape[-2], images.shape[-1], autoencoder.downsample_factor)
    if not isinstance(encoder, Encoder):
        return autoencoder.quant_conv(encoder(images))
    if autoencoder.kl_config.padding_mode != "zeros":
        return autoencoder.quant_conv(_encoded_by_blocks(encoder, images))
    return autoencoder.quant_conv(Chain(_of_encoder(encoder), rows, autoencoder.kl_config.norm_groups)(images))


def _of_decoder(decoder: Decoder) -> list[list[Stage]]:
    """Segments of the decoder; each begins with the smallest map of its resolution, before the doubling."""
    segments: list[list[Stage]] = [[Same(decoder.conv_in), *_of_middle(decoder.middle)]]
    for level in decoder.levels:
        assert isinstance(level, DecoderLevel)
        segments[-1] += _of_blocks(level)
        if isinstance(level.upsample, Upsample):
            segments.append([Enlarge(level.upsample.conv)])
    segments[-1].append(Out(decoder.norm_out, decoder.conv_out))
    return segments


def _of_encoder(encoder: Encoder) -> list[list[Stage]]:
    """Segments of the encoder; each ends with the halving."""
    segments: list[list[Stage]] = [[Same(encoder.conv_in)]]
    for level in encoder.levels:
        assert isinstance(level, EncoderLevel)
        segments[-1] += _of_blocks(level)
        if isinstance(level.downsample, Downsample):
            segments[-1].append(Halve(level.downsample.conv))
            segments.append([])
    segments[-1] += [*_of_middle(encoder.middle), Out(encoder.norm_out, encoder.conv_out)]
    return segments


def _of_middle(middle: Middle) -> list[Stage]:
    return [Residual(middle.block1), *_of_attention(middle.attention), Residual(middle.block2)]


def _of_blocks(level: DecoderLevel | EncoderLevel) -> list[Stage]:
    stages: list[Stage] = []
    for block, attention in zip(level.blocks, level.attentions, strict=True):
        assert isinstance(block, ResBlock)
        stages += [Residual(block), *_of_attention(attention)]
    return stages


def _of_attention(attention: nn.Module) -> list[Stage]:
    return [Attend(attention)] if isinstance(attention, SpatialAttention) else []


def _decoded_by_blocks(decoder: Decoder, z: Tensor) -> Tensor:
    x = decoder.middle(decoder.conv_in(z), True)
    for level in decoder.levels:
        x = level(x, True)
    return decoder.conv_out(decoder.norm_out.silu(x))


def _encoded_by_blocks(encoder: Encoder, images: Tensor) -> Tensor:
    x = encoder.conv_in(images)
    for level in encoder.levels:
        x = level(x, True)
    return encoder.conv_out(encoder.norm_out.silu(encoder.middle(x, True)))
