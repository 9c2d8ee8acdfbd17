"""Architectures of autoencoders, and the normalization of their latents."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from ..errors import ConfigError
from .plain import abridged

MAX_LEVELS = 16
"""Most levels of an autoencoder. Published ones have six at most."""

OPEN = ("scaling_factor", "norm_groups", "norm_eps", "padding_mode", "num_heads", "bottleneck.bound")
"""Settings that cannot be read off the names and shapes of tensors; shift_factor goes with scaling_factor."""


FACTS = (
    "scaling_factor",
    "shift_factor",
    "latents_mean",
    "latents_std",
    "normalization",
    "latents_patch",
    "latents_norm_eps",
    "guessed",
)
"""Settings that are facts about the latents: they can change after a network is built."""


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """The part that all autoencoders share: channels of images and latents, and the normalization of the latents.

    `normalization` names the numbers that make the z of a diffusion model; the other numbers are kept as facts and not
    applied. Where a foreign config carries several, the order is batchnorm, channel, scalar (`formats/diffusers.py`).
    """

    in_channels: int = 3
    """channels of the images that are encoded"""
    out_channels: int = 3
    """channels of the images that are decoded"""
    latent_channels: int = 4
    """c: channels of the latents"""
    scaling_factor: float = 1.0
    """scale of the latents that a diffusion model sees: z = (latents - shift_factor) * scaling_factor"""
    shift_factor: float = 0.0
    """shift of the latents that a diffusion model sees"""
    latents_mean: tuple[float, ...] | None = None
    """mean of every latent channel, where it was measured"""
    latents_std: tuple[float, ...] | None = None
    """standard deviation of every latent channel, where it was measured"""
    normalization: Literal["scalar", "channel", "batchnorm"] = "scalar"
    """kind of normalization. scalar: by scaling_factor and shift_factor; channel: z = (latents - latents_mean) /
    latents_std * scaling_factor (Playground, Wan); batchnorm: by statistics of the channels after latents_patch, which
    are among the weights (Flux.2)"""
    latents_patch: int = 1
    """side of the squares of latents that a diffusion model sees as one latent of side * side * c channels (Flux.2:
    2)"""
    latents_norm_eps: float = 1e-4
    """epsilon of normalization "batchnorm" """
    guessed: tuple[str, ...] = field(default=(), compare=False)
    """settings that are guesses, as NAME=VALUE; a setting with another value is no guess any more; guesses are never
    written as facts"""

    def __post_init__(self) -> None:
        possible = _guesses(self, OPEN) if self.guessed else ()
        object.__setattr__(self, "guessed", tuple(guess for guess in possible if guess in self.guessed))
        for name in ("in_channels", "out_channels", "latent_channels", "latents_patch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} (={getattr(self, name)}) must be at least 1")
        for name in ("latents_mean", "latents_std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.latent_channels:
                raise ConfigError(f"{name} has {len(values)} entries, latent_channels is {self.latent_channels}")
            if not all(map(math.isfinite, values or ())):
                raise ConfigError(f"{name} (={abridged(values)}) must be finite")
        if self.normalization == "channel" and (self.latents_mean is None or self.latents_std is None):
            raise ConfigError("normalization 'channel' needs latents_mean and latents_std")
        if any(not std > 0 for std in self.latents_std or ()):
            raise ConfigError(f"latents_std (={abridged(self.latents_std)}) must be positive")
        if not (math.isfinite(self.scaling_factor) and self.scaling_factor != 0):
            raise ConfigError(f"scaling_factor (={self.scaling_factor}) must be finite and not 0")
        if not math.isfinite(self.shift_factor):
            raise ConfigError(f"shift_factor (={self.shift_factor}) must be finite")
        if not self.latents_norm_eps >= 0:
            raise ConfigError(f"latents_norm_eps (={self.latents_norm_eps}) must not be negative")

    @property
    def guesses(self) -> tuple[str, ...]:
        """Names of the settings that are guesses."""
        return tuple(guess.partition("=")[0] for guess in self.guessed)

    @property
    def normalization_known(self) -> bool:
        """Whether scaling_factor and shift_factor are facts."""
        return "scaling_factor" not in self.guesses

    def mark_guesses(self, names: Iterable[str]) -> Self:
        """The same configuration with these settings marked as guesses, too."""
        return dataclasses.replace(self, guessed=_guesses(self, dict.fromkeys((*self.guesses, *names))))

    def with_facts(self, **values: Any) -> Self:
        """The configuration with these values, which are marked as facts."""
        changed = dataclasses.replace(self, **values)
        return dataclasses.replace(
            changed, guessed=tuple(g for g in changed.guessed if g.partition("=")[0].split(".")[0] not in values)
        )

    @property
    def downsample_factor(self) -> int:
        """f: image size / latent size."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """f and c as the field writes them, for example f8c4."""
        return f"f{self.downsample_factor}c{self.latent_channels}"


def built_in(config: LatentConfig, other: LatentConfig) -> str | None:
    """The first setting in which two configurations differ and that a network is built with; None where there is none.

    A bottleneck's bound and noise are applied by name; only its kind is built in. Batch normalization is a layer.
    """
    for field_ in dataclasses.fields(config):
        name = field_.name
        if name not in (*FACTS, "bottleneck") and getattr(config, name) != getattr(other, name):
            return name
    if setting(config, "bottleneck.kind") != setting(other, "bottleneck.kind"):
        return "bottleneck.kind"
    kinds = config.normalization, other.normalization
    if "batchnorm" not in kinds:
        return None
    if len(set(kinds)) > 1:
        return "normalization"
    return "latents_patch" if config.latents_patch != other.latents_patch else None


def setting(config: LatentConfig, name: str) -> Any:
    """The value of one of OPEN, None where this kind of configuration has none."""
    found: Any = config
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _guesses(config: LatentConfig, names: Iterable[str]) -> tuple[str, ...]:
    """NAME=VALUE for every setting that this kind of configuration has; a scale that is not applied is no guess."""
    values = {name: setting(config, name) for name in names}
    if config.normalization != "scalar":
        values.pop("scaling_factor", None)
    return tuple(f"{name}={value}" for name, value in values.items() if value is not None)


@dataclass(frozen=True, kw_only=True)
class BottleneckConfig:
    """The kind of latents (a sample of a Gaussian posterior, or a bounded point), and their noise in training."""

    kind: Literal["kl", "point"] = "kl"
    """prediction of the encoder. kl: mean and log-variance; point: latents alone, without a KL term"""
    bound: Literal["none", "tanh", "softclamp", "clamp", "rmsnorm", "sphere", "layernorm"] = "none"
    """bound of the latents of kind point. tanh, softclamp, clamp: to +-limit; rmsnorm, sphere: at each position;
    layernorm: over the whole map"""
    limit: float = 3.0
    """limit of tanh, softclamp and clamp (TAESD: 3)"""
    eps: float = 1e-6
    """epsilon of rmsnorm, sphere and layernorm"""
    noise: Literal["none", "additive", "interpolative", "sigma"] = "none"
    """noise on the latents that the decoder is trained on (models/bottleneck.py)"""
    noise_scale: float = 0.3
    """strength of the noise, about as a share of the latents' standard deviation"""
    prefixes: tuple[int, ...] = ()
    """counts of leading channels; each training image keeps one of these counts (DC-AE 1.5); empty: all channels"""

    @property
    def disturbs(self) -> bool:
        """Whether the decoder is trained on disturbed latents."""
        return self.noise != "none" or bool(self.prefixes)

    def __post_init__(self) -> None:
        if self.kind == "kl" and self.bound != "none":
            raise ConfigError(f"bound {self.bound!r} is for kind 'point'; a Gaussian's samples have no bound")
        for name in ("limit", "eps", "noise_scale"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigError(f"{name} (={getattr(self, name)}) must be positive")
        if min(self.prefixes, default=1) < 1:
            raise ConfigError(f"prefixes (={abridged(self.prefixes)}) must be at least 1")


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(LatentConfig):
    """The KL autoencoder family of latent diffusion: architecture, and the normalization of its latents.

    One level per entry of `channel_mult`, each half as large as the one before, so that
    downsample_factor f = 2 ** (levels - 1). The defaults are Stable Diffusion's f8c4 network.
    """

    channels: int = 128
    """width of the first level"""
    channel_mult: tuple[float, ...] = (1, 2, 4, 4)
    """width of every level, in multiples of `channels`"""
    num_res_blocks: int = 2
    """residual blocks per encoder level; decoder levels have one more"""
    decoder_channels: int | None = None
    """width of the decoder's largest level; None: as in the encoder"""
    decoder_channel_mult: tuple[float, ...] | None = None
    """as channel_mult, for the decoder; None: as in the encoder"""
    mid_attention: bool = True
    """self-attention in the middle of encoder and decoder"""
    attention_factors: tuple[int, ...] = ()
    """factors of the levels with self-attention, at 1/factor of the image size (LDM's attn_resolutions=[16] at 256 px:
    16)"""
    num_heads: int = 1
    """heads of every self-attention block"""
    quant_conv: bool = True
    """1x1 convolution after the encoder (absent in SD3 and Flux.1)"""
    post_quant_conv: bool = True
    """1x1 convolution before the decoder (absent in SD3 and Flux.1)"""
    norm_groups: int = 32
    """groups of every GroupNorm"""
    norm_eps: float = 1e-6
    """epsilon of every GroupNorm"""
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros"
    """padding of 3x3 convolutions of stride 1 (some fine-tunes of SDXL's VAE: reflect)"""
    encoder_scale: float = 1.0
    """factor by which the encoder's weights scale its activations; every norm_eps is multiplied by its square
    (`runtime/fp16/repair.py` makes it small, so that float16 does not overflow)"""
    decoder_scale: float = 1.0
    """as encoder_scale, for the decoder"""
    bottleneck: BottleneckConfig = field(default_factory=BottleneckConfig)
    """kind of latents, and their noise in training"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("channels", "num_res_blocks", "num_heads", "norm_groups"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} (={getattr(self, name)}) must be at least 1")
        if not self.channel_mult:
            raise ConfigError("channel_mult must have at least one entry")
        if len(self.channel_mult) > MAX_LEVELS:
            raise ConfigError(
                f"channel_mult has {len(self.channel_mult)} entries; a model has {MAX_LEVELS} levels at most"
            )
        if self.decoder_channel_mult is not None and len(self.decoder_channel_mult) != len(self.channel_mult):
            raise ConfigError(
                f"decoder_channel_mult (={abridged(self.decoder_channel_mult)}) must have as many entries as "
                f"channel_mult (={self.channel_mult}): encoder and decoder share one downsample factor"
            )
        if self.decoder_channels is not None and self.decoder_channels < 1:
            raise ConfigError(f"decoder_channels (={self.decoder_channels}) must be at least 1")
        for part, widths in (("encoder", (self.channels, *self.widths)), ("decoder", self.decoder_widths)):
            for width in widths:
                if width % self.norm_groups:
                    raise ConfigError(
                        f"every {part} width (={list(widths)}) must be divisible by norm_groups (={self.norm_groups}); "
                        f"norm_groups={math.gcd(*widths)} would fit"
                    )
                if width % self.num_heads:
                    raise ConfigError(
                        f"every {part} width (={list(widths)}) must be divisible by num_heads (={self.num_heads})"
                    )
        if max(self.bottleneck.prefixes, default=0) > self.latent_channels:
            raise ConfigError(
                f"prefixes (={abridged(self.bottleneck.prefixes)}) must be at most latent_channels "
                f"(={self.latent_channels})"
            )
        if len(self.attention_factors) > len(self.channel_mult):
            raise ConfigError(
                f"attention_factors has {len(self.attention_factors)} entries; a model of {len(self.channel_mult)} "
                "levels has fewer"
            )
        possible = {2**level for level in range(len(self.channel_mult))}
        if unknown := set(self.attention_factors) - possible:
            raise ConfigError(
                f"attention_factors (={abridged(sorted(unknown))}) must be among this model's levels {sorted(possible)}"
            )
        for name in ("norm_eps", "encoder_scale", "decoder_scale"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigError(f"{name} (={getattr(self, name)}) must be positive")

    @property
    def moment_channels(self) -> int:
        """Channels that the encoder predicts: means and log-variances, or latents alone."""
        return self.latent_channels * (2 if self.bottleneck.kind == "kl" else 1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the encoder's levels, largest image first."""
        return _widths(self.channels, self.channel_mult)

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """Channels of the decoder's levels, largest image first."""
        return _widths(self.decoder_channels or self.channels, self.decoder_channel_mult or self.channel_mult)

    @property
    def downsample_factor(self) -> int:
        """f: image size / latent size."""
        return int(2 ** (len(self.channel_mult) - 1))


def _widths(channels: int, mult: tuple[float, ...]) -> tuple[int, ...]:
    widths = [channels * m for m in mult]
    if not all(math.isfinite(w) for w in widths) or any(abs(w - round(w)) > 1e-6 or round(w) < 1 for w in widths):
        raise ConfigError(f"channels (={channels}) times channel_mult (={mult}) must give whole numbers")
    return tuple(round(w) for w in widths)


@dataclass(frozen=True, kw_only=True)
class TinyConfig(LatentConfig):
    """The TAESD family (Bohan): small distilled autoencoders whose latents are the diffusion model's z, unscaled.

    Widths and blocks are given by level, largest image first. The defaults are TAESD's.
    """

    encoder_widths: tuple[int, ...] = (64, 64, 64, 64)
    """channels of the encoder's levels after the stem"""
    encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    """residual blocks of the encoder's levels after the stem"""
    decoder_widths: tuple[int, ...] = (64, 64, 64, 64)
    """channels of the decoder's levels"""
    decoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    """residual blocks of the decoder's levels"""
    stem: tuple[int, ...] = ()
    """channels of convolutions with stride 2 in front of the encoder's first level (TAESana: 32, 64)"""
    mid_pool: bool = False
    """the blocks of the smallest level begin with a normalized 1x1 branch, which sees the whole picture (TAEF2)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("encoder_widths", "decoder_widths", "encoder_blocks", "decoder_blocks", "stem"):
            if (count := len(getattr(self, name))) > MAX_LEVELS:
                raise ConfigError(f"{name} has {count} entries; a model has {MAX_LEVELS} levels at most")
        for half in ("encoder", "decoder"):
            widths, blocks = getattr(self, f"{half}_widths"), getattr(self, f"{half}_blocks")
            if not widths or len(widths) != len(blocks):
                raise ConfigError(
                    f"{half}_blocks (={blocks}) must have one entry for each of {half}_widths (={widths})"
                )
            if min(widths) < 1 or min(blocks) < 0:
                raise ConfigError(
                    f"{half}_widths (={widths}) must be at least 1 and {half}_blocks (={blocks}) not negative"
                )
        if min(self.stem, default=1) < 1:
            raise ConfigError(f"stem (={self.stem}) must be at least 1")
        if self.stem and self.stem[-1] != self.encoder_widths[0]:
            raise ConfigError(f"stem (={self.stem}) must end with the first of encoder_widths (={self.encoder_widths})")
        if len(self.stem) + len(self.encoder_widths) != len(self.decoder_widths):
            raise ConfigError(
                f"stem (={self.stem}) and encoder_widths (={self.encoder_widths}) must have as many entries in all as "
                f"decoder_widths (={self.decoder_widths}): encoder and decoder share one downsample factor"
            )

    @property
    def downsample_factor(self) -> int:
        """f: image size / latent size."""
        return int(2 ** (len(self.decoder_widths) - 1))
