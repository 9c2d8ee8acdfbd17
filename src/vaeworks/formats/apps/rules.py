"""The result of loading a file in an application, in words, and rules that several applications share."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

from ...config import MODELS, AutoencoderConfig, TinyConfig
from ..diffusers_config import NORM_EPS, epsilons_only_in_metadata, only_in_metadata
from ..kinds.families import CheckpointFamily
from ..vae_slot import in_words
from .candidate import OfferedFile

TO_LDM = "`vaeworks convert SRC DST.safetensors --layout ldm` makes a file for it"
TO_DIFFUSERS = "`vaeworks convert SRC DST --layout diffusers` makes a folder for it"
EXTRACT = "`vaeworks extract CHECKPOINT DST` makes a file of its own"
NO_MEND = "no conversion changes that"

SD_GROUPS = 32
"""Groups of every GroupNorm in the applications' networks."""

SLIGHT_EPS = 3e-4
"""Largest difference of a GroupNorm's epsilon that nobody sees, where activations have a variance of about 1. Measured
on photographs in [-1,1]: 1e-5 instead of 1e-6 changes images of SD-like VAEs by 4e-5; this difference changes those of
a small-f8c16 by 5e-3 at most and by 5e-4 in the mean, where a gray level of 8 bits is 7.8e-3."""

PLAYGROUND: dict[str, tuple[float, ...]] = {
    "latents_mean": (-1.6574, 1.886, -1.383, 2.5155),
    "latents_std": (8.4927, 5.9022, 6.5498, 5.2299),
    "scaling_factor": (0.5,),
}
"""Normalization of Playground v2.5; ComfyUI applies it if the checkpoint is Playground's."""


@dataclass(frozen=True)
class Support:
    """The result of loading a file in an application."""

    loads: Literal["yes", "no", "wrong"]
    """wrong: it loads, but the images are wrong"""
    why: str
    """one sentence: how to load it, or why it fails and the remedy"""


def unless(how: str, problems: list[str], slight: str = "") -> Support:
    """Support with the way to load it, or with the problems after loading. slight: a clause on what nobody sees."""
    words = f"it loads, but {'; and '.join(problems)}" if problems else how
    return Support("wrong" if problems else "yes", f"{words}; {slight}" if slight else words)


def no_network(network: str, name: str, offer: OfferedFile, config: AutoencoderConfig) -> Support:
    """No support: the application builds another network, and a tensor of the file does not fit into it."""
    if ".attn" in name and len(offer.shapes.get(name, ())) in (2, 3):
        return Support("no", f"{network}, in which {name} is a convolution; {TO_LDM}")
    own = f" and, in the decoder, {listed(config.decoder_widths)}" if config.decoder_widths != config.widths else ""
    reason = f"into which {name} does not fit" if name else "which does not fit"
    return Support(
        "no", f"{network}, {reason} (this VAE is {config.name} with widths {listed(config.widths)}{own}), and {NO_MEND}"
    )


def problems(
    offer: OfferedFile, config: AutoencoderConfig, *, foldable: bool = True, playground: bool = False
) -> list[str]:
    """Assumptions of an application that do not hold for a VAE whose tensors fit.

    foldable: whether the application's network has quant convolutions, which folding needs. playground: whether the
    application knows Playground's normalization.
    """
    words = [setting for setting in unseen_settings(config, "ldm") if not setting.startswith("norm_groups")]
    if config.norm_groups != SD_GROUPS:
        words.append(f"norm_groups {config.norm_groups} ({SD_GROUPS})")
    found = [f"{unseen(words)}, and {NO_MEND}"] if words else []
    if (
        offer.normalization_known
        and not (playground and _is_playground(config))
        and (reason := _other_latents(config, offer.family))
    ):
        mend = f"`vaeworks fold SRC DST --for {'|'.join(_constants(config))}` adapts the weights"
        found.append(f"{reason}; {mend if foldable else 'folding would add quant convolutions, which it lacks'}")
    return found


def _is_playground(config: AutoencoderConfig) -> bool:
    own = {
        "latents_mean": config.latents_mean or (),
        "latents_std": config.latents_std or (),
        "scaling_factor": (config.scaling_factor,),
    }
    return config.normalization == "channel" and all(
        len(own[name]) == len(values) and all(map(partial(math.isclose, rel_tol=1e-3), own[name], values))
        for name, values in PLAYGROUND.items()
    )


def _other_latents(config: AutoencoderConfig, family: CheckpointFamily | None) -> str | None:
    """Why latents are wrong in an application that normalizes them with the diffusion model's constants."""
    constants = _constants(config)
    if family is not None and family.scaling_factor is not None:
        constants = {family.name: (family.scaling_factor, family.shift_factor or 0.0)}
    if config.normalization == "batchnorm" or not constants:
        return None
    if config.normalization == "channel":
        own = "latents_mean and latents_std"
    else:
        own = in_words((config.scaling_factor, config.shift_factor))
        pairs = constants.values()
        if any(
            math.isclose(config.scaling_factor, s, rel_tol=1e-3) and abs(config.shift_factor - t) < 1e-3
            for s, t in pairs
        ):
            return None
    theirs = " or ".join(map(in_words, constants.values()))
    return f"its latents are normalized by {own}, but the application uses the diffusion model's {theirs}"


def unseen_settings(config: AutoencoderConfig, layout: str) -> list[str]:
    """Settings that other programs do not see in this layout, without epsilons that make no visible difference."""
    slight = epsilons_only_in_metadata(config) if is_slight(config) else []
    return [setting for setting in only_in_metadata(config, layout) if setting not in slight]


def slightly(config: AutoencoderConfig | TinyConfig) -> str:
    """A clause on epsilons of which other programs have another, if that makes no visible difference; else empty."""
    words = epsilons_only_in_metadata(config) if isinstance(config, AutoencoderConfig) and is_slight(config) else []
    return f"{unseen(words)}, which changes images by less than a gray level" if words else ""


def is_slight(config: AutoencoderConfig) -> bool:
    """Whether nobody sees the images change if every GroupNorm gets `NORM_EPS` instead of its own epsilon.

    A half whose activations are scaled by s computes with NORM_EPS as the unscaled one with NORM_EPS / s**2."""
    scales = (config.encoder_scale, config.decoder_scale)
    return all(abs(NORM_EPS / scale**2 - config.norm_eps) <= SLIGHT_EPS for scale in scales)


def _constants(config: AutoencoderConfig) -> dict[str, tuple[float, float]]:
    """Constants of the published VAEs with latents of this shape, by name."""
    published = {name: MODELS[name] for name in ("sd1", "sdxl", "sd3", "flux1", "sd-x4-upscaler")}
    latents = (config.latent_channels, config.downsample_factor)
    return {
        n: (vae.scaling_factor, vae.shift_factor)
        for n, vae in published.items()
        if (vae.latent_channels, vae.downsample_factor) == latents
    }


def unseen(words: list[str]) -> str:
    """A clause: the application ignores these settings, each with its own value in brackets."""
    return f"{'; '.join(words)} is ignored there; the value in brackets is used"


def listed(items: tuple[int, ...] | tuple[str, ...]) -> str:
    """Numbers or words, with commas."""
    return ", ".join(map(str, items))


def is_taesd(config: TinyConfig) -> bool:
    """Whether this is the network of TAESD, TAESD3, TAEF1 or TAEF2, whose latents are a diffusion model's z. Statistics
    of the latents that are measured and not applied are no difference."""
    published = TinyConfig(
        latent_channels=config.latent_channels, mid_pool=config.mid_pool, latents_patch=2 if config.mid_pool else 1
    )
    channels = (32,) if config.mid_pool else (4, 16)
    normalized = config.normalization != "scalar"
    return (
        config.latent_channels in channels
        and not normalized
        and published
        == dataclasses.replace(
            config,
            latents_mean=None,
            latents_std=None,
            normalization=published.normalization,
            latents_norm_eps=published.latents_norm_eps,
        )
    )


def unknown_names(offer: OfferedFile) -> str:
    """Why no application finds the tensors by their names; empty if they are the layout's."""
    if offer.foreign:
        return f"it has names that no application looks for, such as {offer.foreign}"
    if offer.wrapper:
        return f"its tensors lie in a dict under {offer.wrapper[:-1]!r}, where applications do not look"
    return ""


def at_home(offer: OfferedFile) -> bool:
    """Whether the VAE has the prefix that its checkpoint's readers expect."""
    return offer.family is not None and offer.prefix == offer.family.vae_prefix
