"""Read a VAE's configuration from the names and shapes of its tensors."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..config import MAX_LEVELS, MODELS, AutoencoderConfig, BottleneckConfig, LatentConfig, TinyConfig
from ..errors import ConfigError, FormatError

Shapes = Mapping[str, tuple[int, ...]]  # by our names

IN_SHAPES = (
    "in_channels",
    "out_channels",
    "latent_channels",
    "channels",
    "widths",
    "decoder_widths",
    "num_res_blocks",
    "mid_attention",
    "attention_factors",
    "quant_conv",
    "post_quant_conv",
    "encoder_widths",
    "encoder_blocks",
    "decoder_blocks",
    "stem",
    "mid_pool",
)
"""Fields of configurations that the shapes of tensors show."""

PUBLISHED = {name: config for name, config in MODELS.items() if not name.startswith("small-")}
"""Entries of MODELS whose weights others have published."""


def config_from_shapes(shapes: Shapes, where: str) -> AutoencoderConfig | TinyConfig:
    """The architecture of tensors that have our names.

    Other fields keep their defaults, with fewer groups if 32 do not divide the widths; `guesses` improves on them.
    Errors: FormatError naming a tensor that is missing or that fits no such network.
    """
    try:
        if any(name.startswith(("encoder.layers.", "decoder.layers.")) for name in shapes):
            return _tiny_config(shapes, where)
        return _kl_config(shapes, where)
    except ConfigError as error:
        raise FormatError(f"{where} has tensors with shapes that no VAE has: {error}") from None


def _kl_config(shapes: Shapes, where: str) -> AutoencoderConfig:
    levels, blocks = _count(shapes, "encoder.levels."), _count(shapes, "encoder.levels.0.blocks.")
    if not levels or not blocks:
        raise FormatError(f"{where} has no encoder levels: it is not a whole VAE")
    if levels > MAX_LEVELS:
        raise FormatError(f"{where} has {levels} levels, more than {MAX_LEVELS}; it is no VAE")
    widths = [_conv(shapes, f"encoder.levels.{i}.blocks.0.conv2.weight", where)[0] for i in range(levels)]
    decoder_widths = [
        _conv(shapes, f"decoder.levels.{levels - 1 - i}.blocks.0.conv2.weight", where)[0] for i in range(levels)
    ]
    channels = _conv(shapes, "encoder.conv_in.weight", where)[0]
    groups = 32
    while any(width % groups for width in (channels, *widths, *decoder_widths)):
        groups //= 2
    batchnorm = "bn.running_mean" in shapes
    latent_channels = _conv(shapes, "decoder.conv_in.weight", where)[1]
    double = _conv(shapes, "encoder.conv_out.weight", where)[0] != latent_channels  # LDM's double_z
    return AutoencoderConfig(
        in_channels=_conv(shapes, "encoder.conv_in.weight", where)[1],
        out_channels=_conv(shapes, "decoder.conv_out.weight", where)[0],
        latent_channels=latent_channels,
        bottleneck=BottleneckConfig(kind="kl" if double else "point"),
        channels=channels,
        channel_mult=multiples(widths, channels),
        decoder_channels=None if decoder_widths == widths else decoder_widths[0],
        decoder_channel_mult=None if decoder_widths == widths else multiples(decoder_widths, decoder_widths[0]),
        num_res_blocks=blocks,
        mid_attention="encoder.middle.attention.norm.weight" in shapes,
        attention_factors=tuple(
            2**i for i in range(levels) if f"encoder.levels.{i}.attentions.0.norm.weight" in shapes
        ),
        quant_conv="quant_conv.weight" in shapes,
        post_quant_conv="post_quant_conv.weight" in shapes,
        norm_groups=groups,
        normalization="batchnorm" if batchnorm else "scalar",
        latents_patch=_patch(shapes["bn.running_mean"], latent_channels) if batchnorm else 1,
    )


def _patch(statistics: tuple[int, ...], latent_channels: int) -> int:
    """The side of the squares whose channels are normalized; Flux.2's where the shape shows none."""
    side = math.isqrt(math.prod(statistics) // latent_channels)
    return side if statistics == (latent_channels * side**2,) and side else 2


def _tiny_config(shapes: Shapes, where: str) -> TinyConfig:
    """TAESD numbers all its layers: convolutions without bias begin a level, and gaps in the numbers are ReLUs."""
    for half in ("encoder", "decoder"):
        if not any(name.startswith(f"{half}.") for name in shapes):
            raise FormatError(f"{where} has no {half}: it is half a TAESD, whose other file must lie beside it")
    encoder, decoder = (_layer_numbers(shapes, f"{half}.layers.") for half in ("encoder", "decoder"))
    if not encoder or not decoder:
        raise FormatError(f"{where} has no layers in its {'decoder' if encoder else 'encoder'}: it is not a whole VAE")
    stem = [i for i in encoder[:-1] if f"encoder.layers.{i}.bias" in shapes and i + 1 not in encoder]
    encoder_levels = _tiny_levels(shapes, "encoder", encoder[max(len(stem) - 1, 0) : -1], where)
    decoder_levels = _tiny_levels(shapes, "decoder", decoder[:-1], where)[::-1]
    pooled = any(".pool." in name for name in shapes)
    return TinyConfig(
        in_channels=_conv(shapes, f"encoder.layers.{encoder[0]}.weight", where)[1],
        out_channels=_conv(shapes, f"decoder.layers.{decoder[-1]}.weight", where)[0],
        latent_channels=_conv(shapes, f"decoder.layers.{decoder[0]}.weight", where)[1],
        stem=tuple(_conv(shapes, f"encoder.layers.{i}.weight", where)[0] for i in stem),
        encoder_widths=tuple(width for width, _ in encoder_levels),
        encoder_blocks=tuple(blocks for _, blocks in encoder_levels),
        decoder_widths=tuple(width for width, _ in decoder_levels),
        decoder_blocks=tuple(blocks for _, blocks in decoder_levels),
        mid_pool=pooled,
        latents_patch=2 if pooled else 1,  # only TAEF2 has it
    )


def _layer_numbers(shapes: Shapes, prefix: str) -> list[int]:
    return sorted({int(match[1]) for name in shapes if (match := re.match(re.escape(prefix) + r"(\d{1,3})\.", name))})


def _tiny_levels(shapes: Shapes, half: str, layers: list[int], where: str) -> list[tuple[int, int]]:
    """(width, number of blocks) of every level."""
    levels: list[tuple[int, int]] = []
    for i in layers:
        if f"{half}.layers.{i}.conv.0.weight" in shapes:
            width, blocks = levels.pop() if levels else (0, 0)
            levels.append((width, blocks + 1))
        else:
            levels.append((_conv(shapes, f"{half}.layers.{i}.weight", where)[0], 0))
    return levels


def _conv(shapes: Shapes, name: str, where: str) -> tuple[int, ...]:
    """The shape of a convolution's weights."""
    if name not in shapes:
        raise FormatError(f"{where} has no tensor for {name!r}: it is not a whole VAE")
    if len(shapes[name]) != 4 or 0 in shapes[name]:
        raise FormatError(f"{where}: the tensor for {name!r} has shape {shapes[name]}, which is no convolution's")
    return shapes[name]


def _count(shapes: Shapes, prefix: str) -> int:
    """Count the numbers, from 0 without a gap, that follow a prefix."""
    found = {
        number
        for name in shapes
        if name.startswith(prefix)
        for number, dot, _ in [name[len(prefix) :].partition(".")]
        if dot
    }
    return next(n for n in itertools.count() if str(n) not in found)


def multiples(widths: Sequence[int], channels: int) -> tuple[float, ...]:
    """Widths in multiples of `channels`, as whole numbers if possible."""
    return tuple(w // channels if w % channels == 0 else w / channels for w in widths)


def in_shapes(config: LatentConfig) -> dict[str, Any]:
    """The fields of a configuration that shapes show; the kind of a bottleneck, Gaussian or point, is not one."""
    shape = {name: getattr(config, name) for name in IN_SHAPES if hasattr(config, name)}
    return {**shape, "batchnorm": config.normalization == "batchnorm"}


def same_architecture(config: LatentConfig) -> dict[str, AutoencoderConfig]:
    """The published VAEs with this architecture, by name; a file of such shapes may have any of their constants."""
    if not isinstance(config, AutoencoderConfig):
        return {}
    shape, kind = in_shapes(config), config.bottleneck.kind
    return {name: c for name, c in PUBLISHED.items() if in_shapes(c) == shape and c.bottleneck.kind == kind}
