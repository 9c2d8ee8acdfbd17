"""The scale that a file states in tensors beside the VAE."""

from __future__ import annotations

import math

from ..config import AutoencoderConfig, TinyConfig
from ..errors import FormatError
from . import kinds
from .archive import Archive
from .vaes_in_file import VaeInFile

SCALE = "scale_factor"
"""LDM's buffer, which it measures on the first batch (`scale_by_std`): z = scale_factor * latents."""

MEANS, STDS = ("latents_mean", "latent_mean"), ("latents_std", "latent_std")
"""Statistics of the latents by channel: z = (latents - mean) / std."""

ROUNDED = 1e-3
"""Relative difference that rounding to float16 or bfloat16 explains, with room: then the published number is meant."""


def stated_scale(
    config: AutoencoderConfig | TinyConfig, archive: Archive, vae: VaeInFile, where: str
) -> AutoencoderConfig | None:
    """The configuration with the normalization that tensors in the file state; None if they state none.

    Errors: FormatError for numbers that cannot normalize latents.
    """
    if isinstance(config, TinyConfig) or config.normalization == "batchnorm":
        return None
    mean, std = (_numbers(archive, [vae.prefix + name for name in names]) for names in (MEANS, STDS))
    if std is not None:
        mean = mean or (0.0,) * len(std)
        c = config.latent_channels
        if {len(mean), len(std)} != {c} or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
            raise FormatError(
                f"{where}: its latents_mean and latents_std are no finite mean and positive deviation for each of {c} "
                "channels; take another copy, or delete both"
            )
        if set(mean) == {0.0} and set(std) == {1.0}:
            return config.with_facts(scaling_factor=1.0, shift_factor=0.0)
        facts = {"latents_mean": mean, "latents_std": std, "scaling_factor": 1.0, "shift_factor": 0.0}
        return config.with_facts(normalization="channel", **facts)
    scale = _numbers(archive, [SCALE])
    if scale is None or len(scale) != 1:
        return None
    if not math.isfinite(scale[0]) or scale[0] <= 0:
        raise FormatError(f"{where}: its {SCALE} is {scale[0]:g}, which scales no latents; take another copy")
    family = kinds.checkpoint_family(archive.entries)
    known = None if family is None else family.scaling_factor
    if known is not None and math.isclose(known, scale[0], rel_tol=ROUNDED):
        return config.with_facts(scaling_factor=known, shift_factor=(family and family.shift_factor) or 0.0)
    return config.with_facts(scaling_factor=scale[0], shift_factor=0.0)


def _numbers(archive: Archive, names: list[str]) -> tuple[float, ...] | None:
    """The numbers of the first of these tensors that is there."""
    name = next((name for name in names if name in archive.entries), None)
    if name is None or not archive.entries[name].is_float or archive.entries[name].numel > 4096:
        return None
    return tuple(archive.read(name).double().flatten().tolist())
