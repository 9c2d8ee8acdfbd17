"""diffusers' config.json: read it as our configuration, and write ours as config.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ..config import MAX_LEVELS, AutoencoderConfig, LatentConfig, TinyConfig, abridged, from_dict
from ..errors import ConfigError, FormatError
from . import kinds
from .shapes import multiples

NORM_EPS = 1e-6
"""Epsilon of diffusers' AutoencoderKL, which has no field for it."""

FLUX2_PATCH = 2
"""Side of the squares of latents in Flux.2's own code, in ComfyUI, and in diffusers' pipelines (`_patchify_latents`),
whatever the VAE's patch_size."""

LATENTS_NORM_EPS = 1e-4
"""Epsilon of Flux.2's batch normalization in its own code and in ComfyUI; diffusers has a field for it."""

GUESSES_KEY = "_vaeworks_guessed"
"""Key in config.json for the names of numbers that are guesses, as `LatentConfig.guessed`; a number that was corrected
is not one. diffusers ignores keys that begin with an underscore."""


def diffusers_class(config: LatentConfig) -> str:
    """The name of diffusers' class for this kind of autoencoder."""
    if isinstance(config, TinyConfig):
        return "AutoencoderTiny"
    return "AutoencoderKLFlux2" if config.normalization == "batchnorm" else "AutoencoderKL"


def diffusers_config(config: AutoencoderConfig | TinyConfig) -> dict[str, Any]:
    """Constructor arguments of `diffusers_class` with this architecture.

    latents_mean and latents_std are written only if they are the normalization, because pipelines apply them on top of
    scaling_factor. shift_factor is always a number, because SD3's and Flux' pipelines compute with it.
    Errors: ConfigError for a network that the class cannot express; `only_in_metadata` lists settings without a field.
    """
    if isinstance(config, TinyConfig):
        return _tiny_arguments(config)
    widths, kind = list(config.widths), diffusers_class(config)
    if widths[0] != config.channels:
        raise ConfigError(
            f"diffusers' {kind} needs channel_mult to start with 1, not {config.channel_mult[0]}; layout 'ldm' or "
            "'native' can carry it"
        )
    if config.num_heads != 1:
        raise ConfigError(f"diffusers' {kind} has one attention head; layout 'native' can carry more")
    if config.bottleneck.kind != "kl":
        raise ConfigError(
            f"diffusers' {kind} has a posterior, and this encoder predicts latents alone; layout 'native' can carry it"
        )
    attention = [2**i in config.attention_factors for i in range(len(widths))]
    common = {
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "latent_channels": config.latent_channels,
        "block_out_channels": widths,
        "layers_per_block": config.num_res_blocks,
        "norm_num_groups": config.norm_groups,
        "down_block_types": ["AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attention],
        "up_block_types": ["AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in reversed(attention)],
        "mid_block_add_attention": config.mid_attention,
        "use_quant_conv": config.quant_conv,
        "use_post_quant_conv": config.post_quant_conv,
        "act_fn": "silu",
        "sample_size": 256,
    }
    if kind == "AutoencoderKLFlux2":
        own_widths = None if config.decoder_widths == config.widths else list(config.decoder_widths)
        return {
            **common,
            "decoder_block_out_channels": own_widths,
            "batch_norm_eps": config.latents_norm_eps,
            "patch_size": [config.latents_patch] * 2,
        }
    if config.decoder_widths != config.widths:
        raise ConfigError(
            "diffusers' AutoencoderKL has one list of widths for encoder and decoder; layout 'ldm' or 'native' can "
            "carry two"
        )
    per_channel = (
        config.normalization == "channel" and config.latents_mean is not None and config.latents_std is not None
    )
    return {
        **common,
        "scaling_factor": config.scaling_factor,
        "shift_factor": config.shift_factor,
        "latents_mean": list(config.latents_mean or ()) if per_channel else None,
        "latents_std": list(config.latents_std or ()) if per_channel else None,
        "force_upcast": True,
    }


def _tiny_arguments(config: TinyConfig) -> dict[str, Any]:
    if config.stem or config.mid_pool or len({*config.encoder_widths}) > 1 or len({*config.decoder_widths}) > 1:
        raise ConfigError(
            "diffusers' AutoencoderTiny has no stem, no pooling and one width; layout 'taesd' can carry them"
        )
    return {
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "latent_channels": config.latent_channels,
        "encoder_block_out_channels": list(config.encoder_widths),
        "decoder_block_out_channels": list(config.decoder_widths[::-1]),
        "num_encoder_blocks": list(config.encoder_blocks),
        "num_decoder_blocks": list(config.decoder_blocks[::-1]),
        "scaling_factor": config.scaling_factor,
        "shift_factor": config.shift_factor,
    }


def only_in_metadata(config: AutoencoderConfig | TinyConfig, layout: str) -> list[str]:
    """Settings that change the images or the latents' scale and have no place in this layout, in a few words each. Our
    metadata hold them; other programs use the value in brackets."""
    if layout == "native":
        return []
    if isinstance(config, TinyConfig):
        return _tiny_only_in_metadata(config, layout)
    found = epsilons_only_in_metadata(config)
    if config.padding_mode != "zeros":
        found.append(f"padding_mode {config.padding_mode} (zeros)")
    if config.normalization == "batchnorm":
        if layout == "ldm" and config.latents_norm_eps != LATENTS_NORM_EPS:
            found.append(f"latents_norm_eps {config.latents_norm_eps:g} ({LATENTS_NORM_EPS:g})")
    elif config.latents_patch != 1:
        found.append(f"latents_patch {config.latents_patch} (1)")
    if config.bottleneck.bound != "none":
        found.append(f"latents bounded by {config.bottleneck.bound} (not at all)")
    if layout == "ldm" and config.num_heads != 1:
        found.append(f"num_heads {config.num_heads} (1)")
    if (
        layout == "ldm"
        and config.norm_groups != 32
        and not any(w % 32 for w in (*config.widths, *config.decoder_widths))
    ):
        found.append(f"norm_groups {config.norm_groups} (32)")
    return found


def epsilons_only_in_metadata(config: AutoencoderConfig) -> list[str]:
    """Epsilons of GroupNorms that differ from every other program's, as in `only_in_metadata`."""
    found = [f"norm_eps {config.norm_eps:g} ({NORM_EPS:g})"] if config.norm_eps != NORM_EPS else []
    for half in ("encoder", "decoder"):
        if (scale := getattr(config, f"{half}_scale")) != 1:
            found.append(
                f"norm_eps {config.norm_eps * scale**2:g} of the {half}, whose activations are scaled by {scale:g} "
                f"({NORM_EPS:g})"
            )
    return found


def _tiny_only_in_metadata(config: TinyConfig, layout: str) -> list[str]:
    """AutoencoderTiny has the two numbers of a scale, and no more; TAESD's own files have nothing of the kind."""
    found = []
    usual = 2 if config.mid_pool else 1
    if config.latents_patch != usual:
        found.append(f"latents_patch {config.latents_patch} ({usual})")
    if config.normalization == "channel":
        found.append("latents_mean and latents_std (none)")
    elif layout == "taesd" and (config.scaling_factor, config.shift_factor) != (1, 0):
        found.append(f"scaling_factor {config.scaling_factor:g} and shift_factor {config.shift_factor:g} (none)")
    return found


def normalization_elsewhere(config: AutoencoderConfig | TinyConfig, layout: str) -> str | None:
    """A note for users of an LDM file: its readers normalize latents with the diffusion model's constants."""
    if layout != "ldm" or config.normalization == "batchnorm" or not config.normalization_known:
        return None
    numbers = "latents_mean and latents_std"
    if config.normalization == "scalar":
        shift = f" and shift_factor {config.shift_factor:g}" if config.shift_factor else ""
        numbers = f"scaling_factor {config.scaling_factor:g}{shift}"
    return (
        f"{numbers} are in our metadata only: applications normalize latents with the diffusion model's own constants"
    )


def guesses_written(config: AutoencoderConfig | TinyConfig) -> dict[str, Any]:
    """Further keys for config.json that mark guesses."""
    return {GUESSES_KEY: list(config.guessed)} if config.guessed else {}


def config_from_diffusers(values: dict[str, Any], where: str) -> AutoencoderConfig | TinyConfig:
    """Our configuration for a config.json of AutoencoderKL, AutoencoderKLFlux2 or AutoencoderTiny.

    Missing keys have diffusers' defaults. If the file has several normalizations, one is used: batch normalization
    before latents_mean and latents_std before scaling_factor and shift_factor. latents_std is combined with
    scaling_factor, as in diffusers' SDXL pipelines (Playground), unless the file has a shift_factor as well. In that
    case scaling_factor and shift_factor are the same statistics over all channels, and are ignored (EQ-SDXL-VAE, whose
    shift_factor also has the opposite sign).
    Errors: FormatError for another class or an unknown block type.
    """
    kind = values.get("_class_name", "AutoencoderKL")
    readers: dict[str, Callable[[dict[str, Any]], AutoencoderConfig | TinyConfig]] = {
        "AutoencoderKL": _kl_config,
        "AutoencoderKLFlux2": _flux2_config,
        "AutoencoderTiny": _tiny_config,
    }
    if not isinstance(kind, str) or kind not in readers:
        what = kinds.unsupported_class(kind) if isinstance(kind, str) else None
        raise FormatError(f"{where} describes {what or f'a {abridged(kind)}'}; supported: {', '.join(readers)}")
    try:
        return dataclasses.replace(readers[kind](values), guessed=tuple(values.get(GUESSES_KEY) or ()))
    except (ConfigError, TypeError, AttributeError, ValueError, LookupError, ArithmeticError) as error:
        raise FormatError(f"{where} does not describe an {kind}: {error}") from None


def _kl_config(values: dict[str, Any]) -> AutoencoderConfig:
    mean, std = values.get("latents_mean"), values.get("latents_std")
    scaling, shift = values.get("scaling_factor", 0.18215), values.get("shift_factor") or 0.0
    if mean and std and shift:
        scaling, shift = 1.0, 0.0
    normalization = {
        "scaling_factor": scaling,
        "shift_factor": shift,
        "latents_mean": mean or None,
        "latents_std": std or None,
        "normalization": "channel" if mean and std else "scalar",
    }
    return from_dict(
        AutoencoderConfig, {**_architecture(values, latent_channels=4, widths=[64], blocks=1), **normalization}
    )


def _flux2_config(values: dict[str, Any]) -> AutoencoderConfig:
    patch = _entries(values, "patch_size", [2, 2], int)
    if len(patch) != 2 or patch[0] != patch[1]:
        raise ConfigError(f"patch_size (={abridged(patch)}) must be two equal numbers")
    found = _architecture(values, latent_channels=32, widths=[128, 256, 512, 512], blocks=2)
    decoder_widths = (
        _entries(values, "decoder_block_out_channels", [], int) if values.get("decoder_block_out_channels") else None
    )
    if decoder_widths and len(decoder_widths) != len(found["channel_mult"]):
        raise ConfigError(
            f"decoder_block_out_channels (={abridged(decoder_widths)}) must have one entry for each level"
        )
    if decoder_widths and decoder_widths != values.get("block_out_channels"):
        own_mult = multiples(decoder_widths, decoder_widths[0])
        found |= {"decoder_channels": decoder_widths[0]} | (
            {} if own_mult == found["channel_mult"] else {"decoder_channel_mult": own_mult}
        )
    found |= {
        "normalization": "batchnorm",
        "latents_patch": patch[0],
        "latents_norm_eps": values.get("batch_norm_eps", 1e-4),
    }
    return from_dict(AutoencoderConfig, found)


def _architecture(values: dict[str, Any], latent_channels: int, widths: list[int], blocks: int) -> dict[str, Any]:
    """The fields that KL classes share. latent_channels, widths, blocks: the class's defaults."""
    down = _entries(values, "down_block_types", ["DownEncoderBlock2D"] * len(widths), str)
    up = _entries(values, "up_block_types", ["UpDecoderBlock2D"] * len(widths), str)
    widths = _entries(values, "block_out_channels", widths, int)
    if max(len(widths), len(down), len(up)) > MAX_LEVELS:
        raise ConfigError(
            f"block_out_channels and block types have {max(len(widths), len(down), len(up))} entries, more than "
            f"{MAX_LEVELS}"
        )
    types = [*down, *up]
    known = {"DownEncoderBlock2D", "UpDecoderBlock2D", "AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D"}
    if other := sorted(set(types) - known):
        raise ConfigError(f"blocks of type {abridged(other)[1:-1]}; supported: {', '.join(sorted(known))}")
    if not len(widths) == len(down) == len(up) or not widths:
        raise ConfigError(
            f"block_out_channels (={abridged(widths)}), down_block_types and up_block_types must have one entry for "
            "each level"
        )
    if (activation := values.get("act_fn", "silu")) not in ("silu", "swish"):
        raise ConfigError(f"act_fn is {abridged(activation)}; supported: 'silu'")
    return {
        "in_channels": values.get("in_channels", 3),
        "out_channels": values.get("out_channels", 3),
        "latent_channels": values.get("latent_channels", latent_channels),
        "channels": widths[0],
        "channel_mult": multiples(widths, widths[0]),
        "num_res_blocks": values.get("layers_per_block", blocks),
        "mid_attention": values.get("mid_block_add_attention", True),
        "attention_factors": [2**i for i in range(len(widths)) if types[i].startswith("Attn")],
        "quant_conv": values.get("use_quant_conv", True),
        "post_quant_conv": values.get("use_post_quant_conv", True),
        "norm_groups": values.get("norm_num_groups", 32),
    }


def _entries(values: dict[str, Any], name: str, default: list[Any], kind: type, least: int = 1) -> list[Any]:
    """A list in the file: of texts, or of whole numbers of at least `least`. Errors: ConfigError for anything else."""
    found: Any = values.get(name, default)
    if (
        not isinstance(found, (list, tuple))
        or {type(entry) for entry in found} - {kind}
        or (kind is int and min(found, default=least) < least)
    ):
        raise ConfigError(
            f"{name} (={abridged(found)}) must be a list of "
            f"{'texts' if kind is str else f'whole numbers of at least {least}'}"
        )
    return list(found)  # diffusers' own configurations hold tuples


def _tiny_config(values: dict[str, Any]) -> TinyConfig:
    if (activation := values.get("act_fn", "relu")) != "relu" or values.get("upsample_fn", "nearest") != "nearest":
        other = abridged(values.get("upsample_fn"))
        raise ConfigError(f"act_fn is {abridged(activation)} and upsample_fn {other}; supported: 'relu' and 'nearest'")
    if (factor := values.get("upsampling_scaling_factor", 2)) != 2:
        raise ConfigError(f"upsampling_scaling_factor is {abridged(factor)}; supported: 2")
    found = {
        "in_channels": values.get("in_channels", 3),
        "out_channels": values.get("out_channels", 3),
        "latent_channels": values.get("latent_channels", 4),
        "encoder_widths": _entries(values, "encoder_block_out_channels", [64] * 4, int),
        "encoder_blocks": _entries(values, "num_encoder_blocks", [1, 3, 3, 3], int, least=0),
        "decoder_widths": _entries(values, "decoder_block_out_channels", [64] * 4, int)[::-1],
        "decoder_blocks": _entries(values, "num_decoder_blocks", [3, 3, 3, 1], int, least=0)[::-1],
        "scaling_factor": values.get("scaling_factor", 1.0),
        "shift_factor": values.get("shift_factor") or 0.0,
    }
    return from_dict(TinyConfig, found)


def with_carried(
    config: AutoencoderConfig | TinyConfig, carried: AutoencoderConfig | TinyConfig | None
) -> AutoencoderConfig | TinyConfig:
    """config.json's configuration, with what our metadata carries and config.json cannot: statistics, padding, epsilon,
    scales, squares of latents."""
    if carried is None or type(carried) is not type(config):
        return config
    names: tuple[str, ...] = ("latents_patch",) if config.normalization != "batchnorm" else ()
    if isinstance(carried, AutoencoderConfig):
        names += ("padding_mode", "norm_eps", "encoder_scale", "decoder_scale", "bottleneck")
    elif carried.latents_mean is not None:
        names += ("normalization",)
    extra = {name: getattr(carried, name) for name in names}
    if config.normalization != "channel" and carried.latent_channels == config.latent_channels:
        extra |= {"latents_mean": carried.latents_mean, "latents_std": carried.latents_std}
    return dataclasses.replace(config, **extra)
