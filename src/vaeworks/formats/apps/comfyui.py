"""ComfyUI's support for a VAE. It chooses the network by a few names and shapes, and checks only the shapes.

Source: ComfyUI of 2026, comfy/sd.py (class VAE), comfy/diffusers_convert.py, nodes.py (VAELoader).
"""

from __future__ import annotations

import re

from ...config import AutoencoderConfig, TinyConfig
from .candidate import OfferedFile, Shapes, as_saved, differences, shapes_of, wrong_ending
from .rules import (
    EXTRACT,
    NO_MEND,
    SD_GROUPS,
    TO_LDM,
    Support,
    at_home,
    is_taesd,
    listed,
    no_network,
    problems,
    unknown_names,
    unless,
)

ENDINGS = (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl")

SD_CHANNELS, SD_MULT, SD_MULT_F4 = 128, (1, 2, 4, 4), (1, 2, 4)
"""The network that ComfyUI builds."""

HUNYUAN_CHANNELS = 64
"""Latent channels for which ComfyUI assumes HunyuanImage's VAE."""


def comfyui(offer: OfferedFile) -> Support:
    """ComfyUI's support for a VAE."""
    config = offer.config
    if isinstance(config, TinyConfig):
        return _tiny(offer, config)
    if reason := _refusal(offer):
        return Support("no", reason)
    network = _network(config, small=_looks_small(offer, config))
    shapes = _translated(offer.shapes, len(config.channel_mult)) if offer.layout == "diffusers" else offer.shapes
    found = differences(network, shapes)
    misfit = bool(found.misfit) or not network
    if found.first and offer.layout != "ldm" and (reason := _unknown_names(offer, config)):
        return Support("no" if misfit else "wrong", reason)
    if misfit:
        return no_network("ComfyUI builds SD's network", found.misfit, offer, config)
    lacks = [f"{found.lacks}, which ComfyUI's network has, would stay random, and {NO_MEND}"] if found.lacks else []
    ignores = [f"{found.left_over} has no place in ComfyUI's network, and {NO_MEND}"] if found.left_over else []
    return unless(_how(offer), (lacks or ignores) + problems(offer, config, playground=True))


def _refusal(offer: OfferedFile) -> str | None:
    """Why ComfyUI refuses the file before it builds a network."""
    if offer.foreign or offer.wrapper.count(".") > 1 or (offer.wrapper and offer.more):
        return f"{unknown_names(offer)}; {TO_LDM}"
    if not offer.whole:
        return f"ComfyUI does not load shards; {TO_LDM}"
    if offer.prefix and not at_home(offer):
        return f"its names begin with {offer.prefix}; {EXTRACT}"
    if wrong := wrong_ending(offer):
        return f"ComfyUI reads files by their ending: {wrong}"
    if offer.ending not in ENDINGS:
        return f"ComfyUI lists files that end with {listed(ENDINGS)}; {TO_LDM}"
    if offer.config.latent_channels == HUNYUAN_CHANNELS:
        return f"ComfyUI takes VAEs with {HUNYUAN_CHANNELS} latent channels for HunyuanImage's, and {NO_MEND}"
    return None


def _unknown_names(offer: OfferedFile, config: AutoencoderConfig) -> str | None:
    """The problem with names of another layout, and its remedy; None if names are not the problem."""
    if differences(_network(config, small=len(config.channel_mult) < len(SD_MULT)), shapes_of(config)).first:
        return comfyui(as_saved(config, "ldm")).why if offer.layout == "native" else None
    if offer.layout == "native":
        return f"it has vaeworks' own names, few of which ComfyUI knows; {TO_LDM}"
    return f"it has diffusers' names of other than four levels, not all of which ComfyUI knows; {TO_LDM}"


def _how(offer: OfferedFile) -> str:
    if offer.prefix:
        return "as part of its checkpoint, in models/checkpoints"
    copy = f"; of a folder, copy {offer.name} under a name of its own" if offer.folder else ""
    return f"in models/vae, chosen in Load VAE{copy}"


def _looks_small(offer: OfferedFile, config: AutoencoderConfig) -> bool:
    """Whether ComfyUI takes this for the x4 upscaler's VAE, because it finds no name of SD's fourth level.

    Its translation of diffusers' names makes their first decoder level the fourth, whatever their number."""
    levels = len(config.channel_mult)
    return offer.layout == "native" or (levels < 4 and not (offer.layout == "diffusers" and levels > 1))


def _network(config: AutoencoderConfig, small: bool) -> Shapes:
    """The shapes of the network that ComfyUI builds: SD's, with the file's latent channels and decoder width, and with
    both or no quant convolutions; {} if GroupNorm cannot divide the width."""
    mult = SD_MULT_F4 if small else SD_MULT
    decoder_channels = config.decoder_widths[-1] // mult[-1]
    if not decoder_channels or decoder_channels % SD_GROUPS:
        return {}
    return shapes_of(
        AutoencoderConfig(
            latent_channels=config.latent_channels,
            channels=SD_CHANNELS,
            channel_mult=mult,
            decoder_channels=decoder_channels,
            quant_conv=config.post_quant_conv,
            post_quant_conv=config.post_quant_conv,
            normalization="batchnorm" if config.normalization == "batchnorm" else "scalar",
            latents_patch=config.latents_patch,
        )
    )


def _translated(shapes: Shapes, levels: int) -> Shapes:
    """diffusers' names as ComfyUI translates them: it counts decoder levels down from SD's fourth."""

    def moved(level: re.Match[str]) -> str:
        return f"decoder.up.{int(level[1]) + len(SD_MULT) - levels}."

    return {re.sub(r"^decoder\.up\.(\d+)\.", moved, name): shape for name, shape in shapes.items()}


def _tiny(offer: OfferedFile, config: TinyConfig) -> Support:
    if not is_taesd(config):
        return Support("no", f"ComfyUI has no TAESD of these widths or channels, and {NO_MEND}")
    name = "taef2" if config.mid_pool else "taesd3 or taef1" if config.latent_channels == 16 else "taesd or taesdxl"
    pair = f"two files in models/vae_approx, with {name} before _encoder and _decoder"
    mend = f"`vaeworks convert SRC FOLDER --layout taesd` makes {pair}"
    if offer.layout == "taesd" and not offer.whole:
        return Support("yes", f"as {pair}, chosen by that name in Load VAE")
    if offer.layout == "taesd":
        return Support("wrong", f"it loads, but ComfyUI scales latents only for a TAESD that it finds by name; {mend}")
    return Support("no", f"it has other names than TAESD's; {mend}")
