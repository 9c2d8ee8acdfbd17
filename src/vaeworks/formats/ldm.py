"""The single-file layout of latent diffusion, which A1111, Forge, ComfyUI and others load: what its shapes tell."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping

from torch import Tensor

from ..config import MODELS, AutoencoderConfig
from ..errors import FormatError


def config_from_shapes(tensors: Mapping[str, Tensor], where: str) -> AutoencoderConfig:
    """The architecture of LDM tensors. Normalization, groups and epsilon are not in them: they keep their defaults,
    with fewer groups where 32 do not divide the widths.

    Errors: FormatError naming a tensor that is missing.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors:
            raise FormatError(f"{where} has no tensor {name!r}: it is not a whole VAE in LDM layout")
        found = tuple(tensors[name].shape)
        if len(found) != 4 or 0 in found:
            raise FormatError(f"{where}: tensor {name!r} has shape {found}, which is no convolution's")
        return found

    def count(pattern: str) -> int:
        n = 0
        while any(name.startswith(pattern.format(n)) for name in tensors):
            n += 1
        return n

    levels, blocks = count("encoder.down.{}."), count("encoder.down.0.block.{}.")
    widths = [shape(f"encoder.down.{i}.block.0.conv2.weight")[0] for i in range(levels)]
    decoder_widths = [shape(f"decoder.up.{i}.block.0.conv2.weight")[0] for i in range(levels)]
    channels = shape("encoder.conv_in.weight")[0]
    groups = 32
    while any(width % groups for width in widths + decoder_widths):
        groups //= 2
    found = AutoencoderConfig(
        in_channels=shape("encoder.conv_in.weight")[1],
        out_channels=shape("decoder.conv_out.weight")[0],
        latent_channels=shape("decoder.conv_in.weight")[1],
        channels=channels,
        channel_mult=_mult(widths, channels),
        decoder_channels=None if decoder_widths == widths else decoder_widths[0],
        decoder_channel_mult=None if decoder_widths == widths else _mult(decoder_widths, decoder_widths[0]),
        num_res_blocks=blocks,
        mid_attention="encoder.mid.attn_1.norm.weight" in tensors,
        attention_factors=tuple(2**i for i in range(levels) if f"encoder.down.{i}.attn.0.norm.weight" in tensors),
        quant_conv="quant_conv.weight" in tensors,
        post_quant_conv="post_quant_conv.weight" in tensors,
        norm_groups=groups,
    )
    return _with_known_normalization(found, where)


def _with_known_normalization(config: AutoencoderConfig, where: str) -> AutoencoderConfig:
    """The constants of the published VAE of this architecture; the first where there are several, with a warning."""

    def architecture(c: AutoencoderConfig) -> AutoencoderConfig:
        return dataclasses.replace(c, scaling_factor=1.0, shift_factor=0.0)

    known = {name: c for name, c in MODELS.items() if c.scaling_factor != 1.0 and architecture(c) == config}
    if not known:
        return config
    name, first = next(iter(known.items()))
    others = [f"{n} ({c.scaling_factor})" for n, c in known.items() if c.scaling_factor != first.scaling_factor]
    if others:
        warnings.warn(
            f"{where} does not say how its latents are scaled: taken for {name} ({first.scaling_factor}), "
            f"but it may be {', '.join(others)}; set vae.config = dataclasses.replace(vae.config, scaling_factor=...) then",
            stacklevel=4,
        )
    return first


def _mult(widths: list[int], channels: int) -> tuple[float, ...]:
    return tuple(w // channels if w % channels == 0 else w / channels for w in widths)
