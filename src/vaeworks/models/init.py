"""Weights with which a plain KL autoencoder starts as a linear transform codec: a Haar wavelet packet tree.

Every residual branch starts at zero, so only the convolutions between the blocks act. They carry "bands": a colour
channel (of a cosine transform over the colours) at a vertical and a horizontal frequency, each at about unit variance.
Halving splits a band into four; the strongest bands that fit stay, and the strongest of the last level are the latents.
Doubling puts them together again, by interpolation: a convolution after nearest-neighbour doubling cannot invert Haar.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn import GroupNorm, ResBlock, SpatialAttention
from .autoencoder import Autoencoder
from .decoder import Decoder
from .encoder import Encoder

Band = tuple[int, int, int]  # colour, vertical and horizontal frequency (sign changes within a cell)
Slot = tuple[int, ...]  # the channel that carries a band x, or the two channels that carry x and -x

ANCHOR = 6.0  # a constant so large that the statistics of its GroupNorm group depend little on the image
LOGVAR = -8.0  # of the latents at the start: noise of about 2 % of their standard deviation
KERNELS = {  # of one axis: for a band that is the mean, and for one that is half the difference, of two neighbours
    "downsample": torch.tensor([[0.5, 0.5, 0.0], [0.5, -0.5, 0.0]]),
    "upsample": torch.tensor([[0.25, 0.5, 0.25], [-0.5, 0.0, 0.5]]),
}


@torch.no_grad()
def linear_init_(autoencoder: Autoencoder, generator: torch.Generator) -> None:
    """Overwrite all weights in place; the generator draws those that are not part of the linear transform."""
    for module in autoencoder.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            nn.init.zeros_(_bias(module))
        elif isinstance(module, GroupNorm):
            module.reset_parameters()
    for module in autoencoder.modules():
        if isinstance(module, ResBlock):
            nn.init.zeros_(module.conv2.weight)
        elif isinstance(module, SpatialAttention):
            nn.init.zeros_(module.out.weight)
    encoder, decoder, c = autoencoder.encoder, autoencoder.decoder, autoencoder.latent_channels
    assert isinstance(encoder, Encoder) and isinstance(decoder, Decoder)
    colours = _colours(encoder.conv_in.in_channels)
    bands = [(colour, 0, 0) for colour in range(len(colours))]
    strengths = torch.tensor([[_strength(band)] for band in bands])
    bands, slots = _carry_(encoder, bands, colours / strengths)
    bands = bands[:c]  # these are the latents
    _read_(encoder.conv_out, torch.eye(c, len(bands)), slots)
    encoder.conv_out.weight[c:], _bias(encoder.conv_out)[c:] = 0.0, LOGVAR
    bands, slots = _carry_(decoder, bands, torch.eye(len(bands), c))
    inverse = F.pad(colours * strengths, (0, decoder.conv_out.out_channels - len(colours)))  # padded or cut to fit
    _read_(decoder.conv_out, inverse[[band[0] for band in bands]].T, slots)
    for conv in (autoencoder.quant_conv, autoencoder.post_quant_conv):
        if isinstance(conv, nn.Conv2d):
            nn.init.dirac_(conv.weight)


def _carry_(network: Encoder | Decoder, bands: list[Band], entry: Tensor) -> tuple[list[Band], list[Slot]]:
    """Carry bands, made by `entry` (bands in), through the network; returns those at its norm_out and their
    channels."""
    path = [
        (name, m) for name, m in network.named_modules() if name.endswith(("conv_in", "conv_shortcut", "sample.conv"))
    ]
    convs = [(name, conv) for name, conv in path if isinstance(conv, nn.Conv2d)]
    slots: list[Slot] = []
    for name, conv in convs:
        step = name.split(".")[-2] if name.endswith("sample.conv") else "same"
        links = [(i, band, target) for i, band in enumerate(bands) for target in _targets(band, step)]
        slots = _pairs_(conv, network.norm_out) if conv is convs[-1][1] else [(i,) for i in range(conv.out_channels)]
        bands = sorted(dict.fromkeys(target for _, _, target in links), key=_strength, reverse=True)[: len(slots)]
        taps = torch.zeros(len(bands), len(entry) if conv is network.conv_in else conv.in_channels, *conv.kernel_size)
        for i, band, target in links:
            if target in bands:
                finer = max(band, target, key=lambda b: b[1] + b[2])  # its frequencies tell how it is part of the other
                y, x = (KERNELS[step][_is_difference(f)] if step in KERNELS else _delta(conv) for f in finer[1:])
                taps[bands.index(target), i] = torch.outer(y, x) * _strength(band) / _strength(target)
        if conv is network.conv_in:
            taps = torch.einsum("obyx,bi->oiyx", taps, entry)
        for row, slot in zip(taps, slots, strict=False):
            for channel, sign in zip(slot, (1, -1), strict=False):
                conv.weight[channel] = sign * row
    return bands, slots


def _targets(band: Band, step: str) -> list[Band]:
    """The bands that this one becomes part of: its four quarters, or the band that it is a quarter of, or itself."""
    k, y, x = band
    quarters = [(k, 2 * y + i, 2 * x + j) for i in (0, 1) for j in (0, 1)]
    return {"downsample": quarters, "upsample": [(k, y // 2, x // 2)], "same": [band]}[step]


def _pairs_(conv: nn.Conv2d, norm: GroupNorm) -> list[Slot]:
    """Let conv add the constants +-ANCHOR to each group of `norm`, so that norm is nearly the identity for the rest.

    Returns the pairs of channels of one group that are left; groups of fewer than four channels get no constants.
    """
    if norm.num_channels == 1:
        return [(0,)]
    size = max(norm.num_channels // norm.num_groups, 2)
    starts = range(0, norm.num_channels - size + 1, size)
    if size < 4:
        return [(start, start + 1) for start in starts]
    for start in starts:
        conv.weight[start : start + 2] = 0.0
        _bias(conv)[start : start + 2] = torch.tensor([ANCHOR, -ANCHOR])
        norm.weight[start + 2 : start + size] = math.sqrt((2 * ANCHOR**2 + size - 2) / size)  # undoes the division
    return [(start + i, start + i + 1) for i in range(2, size - 1, 2) for start in starts]


def _read_(conv: nn.Conv2d, mix: Tensor, slots: list[Slot]) -> None:
    """Make the first outputs of conv the mixtures (out bands) of bands after SiLU, using silu(x) - silu(-x) = x."""
    conv.weight[: len(mix)] = 0.0
    for column, slot in zip(mix.T, slots, strict=False):
        for channel, sign in zip(slot, (1, -1), strict=False):
            conv.weight[: len(mix), channel, 1, 1] = sign * column


def _bias(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """The bias, which every layer of these networks has: n_out."""
    assert layer.bias is not None
    return layer.bias


def _delta(conv: nn.Conv2d) -> Tensor:
    """The kernel of one axis that changes nothing, of conv's size."""
    return torch.eye(conv.kernel_size[0])[conv.kernel_size[0] // 2]


def _colours(n: int) -> Tensor:
    """Orthonormal cosine transform over n colours, n n: luma first, then differences."""
    i = torch.arange(n)
    return torch.cos(math.pi / n * (i + 0.5) * i[:, None]) * torch.where(i > 0, 2 / n, 1 / n).sqrt()[:, None]


def _strength(band: Band) -> float:
    """Standard deviation of a band of photographs in [-1,1], about: falls with frequency, and from luma to chroma."""
    return 0.7 * 0.35 ** band[0] / (1 + 4 * (band[1] + band[2]))


def _is_difference(frequency: int) -> int:
    """1 for the difference, 0 for the mean of two neighbours of the band of half this frequency (Walsh's sequency)."""
    return (frequency ^ (frequency >> 1)) & 1
