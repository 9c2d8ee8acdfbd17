"""The result of loading a file in an application, in words, and rules that several applications share."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from ...config import MODELS, AutoencoderConfig, TinyConfig
from ..diffusers_config import only_in_metadata
from ..kinds.families import CheckpointFamily
from ..vae_slot import in_words
from .candidate import OfferedFile

TO_LDM = "`vaeworks convert SRC DST.safetensors --layout ldm` makes a file for it"
TO_DIFFUSERS = "`vaeworks convert SRC DST --layout diffusers` makes a folder for it"
EXTRACT = "`vaeworks extract CHECKPOINT DST` makes a file of its own"
NO_MEND = "no conversion changes that"

SD_GROUPS = 32
"""Groups of every GroupNorm in the applications' networks."""

PLAYGROUND_MEAN = (-1.6574, 1.886, -1.383, 2.5155)
"""latents_mean of Playground v2.5; ComfyUI applies it if the checkpoint is Playground's."""


@dataclass(frozen=True)
class Support:
    """The result of loading a file in an application."""

    loads: Literal["yes", "no", "wrong"]
    """wrong: it loads, but the images are wrong"""
    why: str
    """one sentence: how to load it, or why it fails and the remedy"""


def unless(how: str, problems: list[str]) -> Support:
    """Support with the way to load it, or with the problems after loading."""
    return Support("wrong", f"it loads, but {'; and '.join(problems)}") if problems else Support("yes", how)


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
    words = [setting for setting in only_in_metadata(config, "ldm") if not setting.startswith("norm_groups")]
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
    mean = config.latents_mean if config.normalization == "channel" else None
    return mean is not None and all(
        math.isclose(a, b, rel_tol=1e-3) for a, b in zip(mean, PLAYGROUND_MEAN, strict=False)
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


def _constants(config: AutoencoderConfig) -> dict[str, tuple[float, float]]:
    """Constants of the published VAEs with latents of this shape, by name."""
    published = {name: MODELS[name] for name in ("sd1", "sdxl", "sd3", "flux1")}
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
    """Whether this is the network of TAESD, TAESD3, TAEF1 or TAEF2."""
    about_latents = ("latents_", "scaling_", "shift_", "normalization")
    published = TinyConfig(latent_channels=config.latent_channels, mid_pool=config.mid_pool)
    fields = [field.name for field in dataclasses.fields(config) if not field.name.startswith(about_latents)]
    channels = (32,) if config.mid_pool else (4, 16)
    return config.latent_channels in channels and all(
        getattr(config, name) == getattr(published, name) for name in fields
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
