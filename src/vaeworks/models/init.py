"""Weights with which a plain KL autoencoder starts as a linear transform codec: a Haar wavelet packet tree.

Every residual branch starts at zero, so only the convolutions between the blocks act. They carry "bands": a colour
channel (of a cosine transform over the colours) at a vertical and a horizontal frequency, each at about unit variance.
Halving splits a band into four; the strongest bands that fit stay, and the strongest of the last level are the latents.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..nn import GroupNorm, ResBlock, SpatialAttention
from .autoencoder import Autoencoder
from .decoder import Decoder
from .encoder import Encoder

Band = tuple[int, int, int]  # colour, vertical and horizontal frequency (sign changes within a cell)
Pair = tuple[int, int]  # the two channels that carry x and -x

ANCHOR = 10.0  # a constant so large that the statistics of its GroupNorm group hardly depend on the image
LOGVAR = -8.0  # of the latents at the start: noise of about 2 % of their standard deviation
MEAN, HALF_DIFFERENCE = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.5, -0.5, 0.0])  # of the two cells halving sees
SMOOTH, SLOPE = torch.tensor([0.25, 0.5, 0.25]), torch.tensor([-0.5, 0.0, 0.5])  # of cells already doubled


@torch.no_grad()
def linear_init_(autoencoder: Autoencoder, generator: torch.Generator) -> None:
    """Overwrite all weights in place; the generator draws those that are not part of the linear transform."""
    for module in autoencoder.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            nn.init.zeros_(module.bias)
        elif isinstance(module, GroupNorm):
            module.reset_parameters()
    for module in autoencoder.modules():
        if isinstance(module, ResBlock):
            nn.init.zeros_(module.conv2.weight)
        elif isinstance(module, SpatialAttention):
            nn.init.zeros_(module.out.weight)
    bands = _encoder_(autoencoder.encoder, autoencoder.latent_channels)
    _decoder_(autoencoder.decoder, bands)
    for conv in (autoencoder.quant_conv, autoencoder.post_quant_conv):
        if isinstance(conv, nn.Conv2d):
            nn.init.dirac_(conv.weight)


def _encoder_(encoder: Encoder, latent_channels: int) -> list[Band]:
    """From colours down to the latents; returns the bands that the latents are, strongest first."""
    convs: list[nn.Conv2d] = [encoder.conv_in]
    for level in encoder.levels:
        convs += [m for m in (level.blocks[0].conv_shortcut, getattr(level.downsample, "conv", None)) if isinstance(m, nn.Conv2d)]
    pairs = _anchor_(convs[-1], encoder.norm_out)
    bands: list[Band] = [(colour, 0, 0) for colour in range(encoder.conv_in.in_channels)]
    for conv in convs:
        halves, old = conv.stride == (2, 2), bands
        if halves:
            bands = sorted(((k, 2 * y + i, 2 * x + j) for k, y, x in old for i in (0, 1) for j in (0, 1)), key=_strength, reverse=True)
        bands = bands[: len(pairs) if conv is convs[-1] else conv.out_channels]
        taps = torch.zeros(len(bands), *conv.weight.shape[1:])
        for row, band in zip(taps, bands, strict=True):
            if conv is encoder.conv_in:
                row[:, 1, 1] = _colours(conv.in_channels)[band[0]] / _strength(band)
            elif halves:
                y, x = (HALF_DIFFERENCE if _high(frequency) else MEAN for frequency in band[1:])
                row[old.index(_parent(band))] = torch.outer(y, x) * _strength(_parent(band)) / _strength(band)
            else:
                row[old.index(band)] = 1.0
        _write_(conv, taps, pairs if conv is convs[-1] else None)
    moments = encoder.conv_out
    moments.weight[latent_channels:] = 0.0
    moments.bias[latent_channels:] = LOGVAR
    bands = bands[:latent_channels]
    _read_(moments, torch.eye(len(bands)), pairs)
    return bands


def _decoder_(decoder: Decoder, bands: list[Band]) -> None:
    """From the latents, which are `bands`, up to colours."""
    convs: list[nn.Conv2d] = [decoder.conv_in]
    for level in decoder.levels:
        convs += [m for m in (level.blocks[0].conv_shortcut, getattr(level.upsample, "conv", None)) if isinstance(m, nn.Conv2d)]
    doubling = {id(level.upsample.conv) for level in decoder.levels if hasattr(level.upsample, "conv")}
    pairs = _anchor_(convs[-1], decoder.norm_out)
    for conv in convs:
        old = bands
        if id(conv) in doubling:
            bands = list(dict.fromkeys(_parent(band) for band in old))
        bands = bands[: len(pairs) if conv is convs[-1] else conv.out_channels]
        taps = torch.zeros(len(bands), *conv.weight.shape[1:])
        for channel, band in enumerate(old):
            if id(conv) in doubling:
                if _parent(band) in bands:
                    y, x = (SLOPE if _high(frequency) else SMOOTH for frequency in band[1:])
                    taps[bands.index(_parent(band)), channel] = torch.outer(y, x) * _strength(band) / _strength(_parent(band))
            elif band in bands:
                taps[bands.index(band), channel, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = 1.0
        _write_(conv, taps, pairs if conv is convs[-1] else None)
    colours = _colours(decoder.conv_out.out_channels)
    mix = torch.zeros(len(colours), len(bands))
    for column, band in enumerate(bands):
        if band[0] < len(colours):
            mix[:, column] = colours[band[0]] * _strength(band)
    _read_(decoder.conv_out, mix, pairs)


def _write_(conv: nn.Conv2d, taps: Tensor, pairs: list[Pair] | None) -> None:
    """Make the first outputs of conv the bands with these taps (bands in kh kw), or each pair of outputs (x, -x)."""
    for i, row in enumerate(taps):
        if pairs is None:
            conv.weight[i] = row
        else:
            conv.weight[pairs[i][0]], conv.weight[pairs[i][1]] = row, -row


def _read_(conv: nn.Conv2d, mix: Tensor, pairs: list[Pair]) -> None:
    """Make the first outputs of conv the mixtures (out bands) of bands that are paired and went through SiLU.

    silu(x) - silu(-x) = x, so nothing of the nonlinearity is left.
    """
    conv.weight[: len(mix)] = 0.0
    for column, (plus, minus) in zip(mix.T, pairs, strict=False):
        conv.weight[: len(mix), plus, 1, 1] = column
        conv.weight[: len(mix), minus, 1, 1] = -column


def _anchor_(conv: nn.Conv2d, norm: GroupNorm) -> list[Pair]:
    """Let conv add the constants +-ANCHOR to each group of `norm`, so that norm is nearly the identity for the rest.

    Returns the pairs of channels of one group that are left; groups of fewer than four channels get no constants.
    """
    size = max(norm.num_channels // norm.num_groups, 2)
    starts = range(0, norm.num_channels - size + 1, size)
    if size < 4:
        return [(start, start + 1) for start in starts]
    for start in starts:
        conv.weight[start : start + 2] = 0.0
        conv.bias[start : start + 2] = torch.tensor([ANCHOR, -ANCHOR])
        norm.weight[start + 2 : start + size] = math.sqrt((2 * ANCHOR**2 + size - 2) / size)
    return [(start + i, start + i + 1) for i in range(2, size - 1, 2) for start in starts]


def _colours(n: int) -> Tensor:
    """Orthonormal cosine transform over n colours, n n: luma first, then differences."""
    i = torch.arange(n)
    return torch.cos(math.pi / n * (i + 0.5) * i[:, None]) * torch.where(i > 0, 2 / n, 1 / n).sqrt()[:, None]


def _strength(band: Band) -> float:
    """Standard deviation of a band of photographs in [-1,1], about: falls with frequency, and from luma to chroma."""
    return 0.7 * 0.35 ** band[0] / (1 + 4 * (band[1] + band[2]))


def _parent(band: Band) -> Band:
    """The band of the larger image that this one is a quarter of."""
    return band[0], band[1] // 2, band[2] // 2


def _high(frequency: int) -> bool:
    """Whether this frequency is the difference, not the mean, of two neighbours of its parent (Walsh's sequency order)."""
    return bool((frequency ^ (frequency >> 1)) & 1)
