"""The slot of a checkpoint for a VAE: which VAE fits into it, and which constants applications use with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ..config import AutoencoderConfig, LatentConfig, TinyConfig
from ..errors import ConfigError, FormatError
from .archive import Archive
from .kinds import CheckpointFamily, checkpoint_family, foreign_kind
from .locate import Located, locate
from .shapes import same_architecture
from .sources import find_source

Constants = tuple[float, float]
"""(scaling_factor, shift_factor)"""

OWN_CONSTANTS = ("flux2", "playground-v2.5")
"""Families of the KL autoencoder whose latents two numbers do not normalize."""


@dataclass(frozen=True)
class VaeSlot:
    """The slot of a checkpoint for a VAE; its VAE may be whole, incomplete or missing."""

    path: Path
    archive: Archive
    prefix: str
    """before the VAE's names"""
    family: CheckpointFamily | None
    """None for an unknown diffusion model; then `old` is known"""
    old: Located | None
    """the VAE in the checkpoint; None if it is missing or incomplete"""
    problem: str
    """why `old` is None; empty if it is there"""

    @property
    def taken(self) -> tuple[str, ...]:
        """Names of the tensors in the slot, also of an incomplete VAE."""
        if self.old is not None:
            return (*self.old.names.values(), *self.old.ignored)
        return tuple(name for name in self.archive.entries if name.startswith(self.prefix))

    @property
    def title(self) -> str:
        """The kind of the diffusion model, for a sentence."""
        return self.family.title if self.family else "a diffusion model that vaeworks does not know"

    @property
    def latent_channels(self) -> int:
        return self.family.latent_channels if self.family else self._old_config.latent_channels

    @property
    def downsample_factor(self) -> int:
        return self.family.downsample_factor if self.family else self._old_config.downsample_factor

    @property
    def constants(self) -> Constants | None:
        """The constants that applications use with this checkpoint, whatever VAE is in it; None if they are unknown or
        not two numbers."""
        if self.family is not None:
            return (
                None
                if self.family.scaling_factor is None
                else (self.family.scaling_factor, self.family.shift_factor or 0.0)
            )
        config = self._old_config
        return (
            (config.scaling_factor, config.shift_factor)
            if config.normalization == "scalar" and config.normalization_known
            else None
        )

    @property
    def _old_config(self) -> LatentConfig:
        assert self.old is not None  # `find_slot` makes sure that one of the two is known
        return self.old.config


def find_slot(checkpoint: str | Path) -> VaeSlot:
    """The slot of a checkpoint: where its VAE is, or would be.

    Errors: FormatError for a file without a diffusion model; ConfigError for a folder of a diffusers pipeline.
    """
    path = Path(checkpoint).expanduser()
    if path.is_dir() and not (path / "vae").is_dir():
        raise ConfigError(f"{path} is a folder without vae/; give the file of a full checkpoint")
    if path.is_dir():
        raise ConfigError(
            f"{path} is a folder, which has its VAE in vae/: replace that folder by what `vaeworks convert --layout "
            "diffusers` writes"
        )
    old, problem = None, ""
    try:
        old = locate(path)
    except FormatError as error:  # there is none, or not a whole one, or the file is no checkpoint at all
        problem = str(error)
    archive = find_source(path).archive if old is None else old.archive
    family = checkpoint_family(archive.entries)
    if family is not None:
        return VaeSlot(path, archive, family.vae_prefix if old is None else old.prefix, family, old, problem)
    if old is not None and len(archive.entries) > len(old.names) + len(old.ignored) + len(old.beside):
        return VaeSlot(path, archive, old.prefix, None, old, "")
    what = "a VAE by itself" if old is not None else foreign_kind(archive.entries) or "of no kind that vaeworks knows"
    raise FormatError(f"{path} is {what}; give the checkpoint of a diffusion model")


def check_fits(located: Located, slot: VaeSlot) -> None:
    """Check that the checkpoint's diffusion model takes latents of this VAE's shape. Errors: ConfigError if not."""
    config, family = located.config, slot.family
    if isinstance(config, TinyConfig):
        raise ConfigError(
            f"{located.path} is a TAESD, and no application looks for one inside a checkpoint; `vaeworks install` "
            "places it"
        )
    if family is not None and family.scaling_factor is None and family.name not in OWN_CONSTANTS:
        raise ConfigError(
            f"{slot.path} is a checkpoint of {family.title}, which needs a kind of VAE that vaeworks does not have"
        )
    if misfit := misfit_of(config, slot):
        raise ConfigError(f"{slot.path} is made for {misfit}; with this VAE every picture would be wrong")


def misfit_of(config: LatentConfig, slot: VaeSlot) -> str:
    """How the latents' shape differs from the one that the checkpoint is made for; empty if it does not."""
    for what in ("latent_channels", "downsample_factor"):
        if getattr(config, what) != getattr(slot, what):
            return f"{what} {getattr(slot, what)} ({slot.title}), this VAE has {getattr(config, what)}"
    batchnorm = (
        slot.family.name == "flux2"
        if slot.family
        else slot.old is not None and slot.old.config.normalization == "batchnorm"
    )
    if isinstance(config, AutoencoderConfig) and (config.normalization == "batchnorm") != batchnorm:
        return (
            f"latents {'with' if batchnorm else 'without'} batch normalization ({slot.title}), and this VAE is the "
            "other way round"
        )
    return ""


def is_certain(located: Located) -> bool:
    """Whether the VAE's file states its normalization, so that it is not guessed from the architecture."""
    return located.config.normalization_known


def is_scaled_by(located: Located, constants: Constants) -> bool | None:
    """Whether these two numbers normalize the VAE's latents; None if its file leaves it open."""
    config = located.config
    if is_certain(located):
        return config.normalization == "scalar" and _equal((config.scaling_factor, config.shift_factor), constants)
    published = same_architecture(config).values()
    return True if any(_equal((p.scaling_factor, p.shift_factor), constants) for p in published) else None


def _equal(a: Constants, b: Constants) -> bool:
    return all(math.isclose(x, y, rel_tol=1e-6, abs_tol=1e-9) for x, y in zip(a, b, strict=True))


def config_for(located: Located, constants: Constants | None) -> AutoencoderConfig | TinyConfig:
    """The VAE's configuration for use with a checkpoint that has these constants.

    If the VAE's file leaves its constants open and these are possible, the checkpoint's are taken as facts. Without a
    checkpoint (None), a guess stays a guess.
    """
    if constants is None or is_certain(located) or not is_scaled_by(located, constants):
        return located.config
    return located.config.with_facts(scaling_factor=constants[0], shift_factor=constants[1])


def normalization_note(located: Located, slot: VaeSlot) -> str | None:
    """A note on the scale of this VAE's latents inside this checkpoint, if it is wrong or uncertain."""
    config, constants = located.config, slot.constants
    if constants is None or config.normalization == "batchnorm":
        return None
    fits = is_scaled_by(located, constants)
    numbers = in_words(constants)
    if fits is None:
        return (
            f"the VAE's file does not say how its latents are scaled; applications use {numbers} with this checkpoint"
        )
    if fits:
        return None if is_certain(located) else assumed(constants)
    theirs = (
        "statistics by channel"
        if config.normalization == "channel"
        else f"{config.scaling_factor:g} and {config.shift_factor:g}"
    )
    return (
        f"applications use {numbers} with this checkpoint, but the VAE has {theirs}: images will look washed out or "
        "harsh; `vaeworks fold` moves the difference into its weights"
    )


def assumed(constants: Constants) -> str:
    """A note: the VAE's file leaves its constants open, and the checkpoint's are used."""
    return (
        "its file does not say how its latents are scaled: it is taken for a VAE of this checkpoint, with "
        f"{in_words(constants)}"
    )


def in_words(constants: Constants) -> str:
    """The constants, for a sentence; a shift of 0 is left out."""
    scale, shift = constants
    return f"scaling_factor {scale:g}" + (f" and shift_factor {shift:g}" if shift else "")
