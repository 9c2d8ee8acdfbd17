"""Tensor names in every layout, and their translation. No other module knows foreign tensor names.

Sources: CompVis latent-diffusion (`ldm/modules/diffusionmodules/model.py`), Black Forest Labs' Flux.2, diffusers
`AutoencoderKL` and `AutoencoderTiny`, Bohan's TAESD.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from ..config import AutoencoderConfig, TinyConfig

LDM_ATTENTION = {"norm": "norm", "query": "q", "key": "k", "value": "v", "out": "proj_out"}
DIFFUSERS_ATTENTION = {"norm": "group_norm", "query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Attention names of diffusers before 0.18; well-known files such as sd-vae-ft-mse still have them."""

_OURS_FROM_LDM = {theirs: ours for ours, theirs in LDM_ATTENTION.items()}
_OURS_FROM_DIFFUSERS = {theirs: ours for ours, theirs in DIFFUSERS_ATTENTION.items()}
_OURS_FROM_OLD = {old: _OURS_FROM_DIFFUSERS[new] for old, new in OLD_ATTENTION.items()}
_OURS_FROM_ATTENTION = {**_OURS_FROM_LDM, **_OURS_FROM_DIFFUSERS, **_OURS_FROM_OLD, "to_out": "out"}
"""Our names of an attention's layers by those of every dialect: trainers have written each into every layout."""

WRAPPERS = (
    "_orig_mod",
    "module",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
)
"""Parts of names that PyTorch and trainers put in where they wrap a network: torch.compile, DataParallel, FSDP,
activation checkpointing, Lightning and DeepSpeed."""

PARTS = ("encoder", "decoder", "quant_conv", "post_quant_conv", "bn")
"""First parts of a VAE's names."""


def unwrapped(name: str) -> str:
    """A tensor's name without WRAPPERS, wherever they are."""
    if not any(wrapper in name for wrapper in WRAPPERS):
        return name
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def ldm_name(name: str, num_levels: int) -> str:
    """LDM's name of our tensor. LDM counts decoder levels from the largest image, we count from the smallest."""
    match name.split("."):
        case [half, "levels", i, part, j, *rest] if part in ("blocks", "attentions"):
            return f"{half}.{_ldm_level(half, int(i), num_levels)}.{_ldm_part(part)}.{j}.{_ldm_layer(part, rest)}"
        case [half, "levels", i, "downsample" | "upsample" as part, *rest]:
            return f"{half}.{_ldm_level(half, int(i), num_levels)}.{part}.{'.'.join(rest)}"
        case [half, "middle", "attention", *rest]:
            return f"{half}.mid.attn_1.{_ldm_layer('attentions', rest)}"
        case [half, "middle", block, *rest]:
            return f"{half}.mid.block_{block[-1]}.{'.'.join(rest)}"
        case _:
            return name


def flux2_name(name: str, num_levels: int) -> str:
    """Flux.2's name of our tensor: LDM's, with the 1x1 convolutions inside encoder and decoder."""
    half = {"quant_conv": "encoder.", "post_quant_conv": "decoder."}.get(name.split(".")[0], "")
    return half + ldm_name(name, num_levels)


def name_from_ldm(name: str, num_levels: int) -> str:
    """Our name of a tensor of LDM or Flux.2, but for an attention's layers; unknown names are unchanged."""
    match name.split("."):
        case [half, "down" | "up", i, "block" | "attn" as part, j, layer, *rest] if i.isdecimal():
            ours = {"block": "blocks", "attn": "attentions"}[part]
            level = int(i) if half == "encoder" else num_levels - 1 - int(i)
            return ".".join([half, "levels", str(level), ours, j, _layer_from_ldm(part, layer), *rest])
        case [half, "down" | "up", i, "downsample" | "upsample" as part, *rest] if i.isdecimal():
            level = int(i) if half == "encoder" else num_levels - 1 - int(i)
            return ".".join([half, "levels", str(level), part, *rest])
        case [half, "mid", "attn_1", layer, *rest]:
            return ".".join([half, "middle", "attention", _layer_from_ldm("attn", layer), *rest])
        case [half, "mid", "block_1" | "block_2" as block, *rest]:
            return ".".join([half, "middle", block.replace("_", ""), *rest])
        case ["encoder", "quant_conv" as conv, *rest] | ["decoder", "post_quant_conv" as conv, *rest]:
            return ".".join([conv, *rest])
        case _:
            return name


def _layer_from_ldm(part: str, layer: str) -> str:
    return layer if part == "attn" else layer.replace("nin_shortcut", "conv_shortcut")


def with_our_attention(name: str) -> str:
    """Our name of a tensor, with any dialect's name of an attention's layer; others are unchanged."""
    parts = name.split(".")
    match parts:
        case [_, "levels", _, "attentions", _, *rest] | [_, "middle", "attention", *rest] if rest:
            layer = ".".join(rest[:-1])
            return ".".join([*parts[: -len(rest)], _OURS_FROM_ATTENTION.get(layer, layer), rest[-1]])
        case _:
            return name


def num_ldm_levels(names: Iterable[str]) -> int:
    """The number of levels of the encoder and decoder with these LDM names."""
    found = (re.match(r"(?:encoder\.down|decoder\.up)\.(\d{1,3})\.", name) for name in names)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _ldm_level(half: str, i: int, num_levels: int) -> str:
    return f"down.{i}" if half == "encoder" else f"up.{num_levels - 1 - i}"


def _ldm_part(part: str) -> str:
    return {"blocks": "block", "attentions": "attn"}[part]


def _ldm_layer(part: str, rest: list[str]) -> str:
    layer = LDM_ATTENTION[rest[0]] if part == "attentions" else rest[0].replace("conv_shortcut", "nin_shortcut")
    return ".".join([layer, *rest[1:]])


def diffusers_name(name: str, num_levels: int) -> str:
    """diffusers' name (0.17 and later) of our tensor."""
    match name.split("."):
        case [half, "levels", i, "blocks", j, *rest]:
            return f"{half}.{_diffusers_level(half, i)}.resnets.{j}.{'.'.join(rest)}"
        case [half, "levels", i, "attentions", j, layer, *rest]:
            return f"{half}.{_diffusers_level(half, i)}.attentions.{j}.{DIFFUSERS_ATTENTION[layer]}.{'.'.join(rest)}"
        case [half, "levels", i, "downsample" | "upsample" as part, *rest]:
            return f"{half}.{_diffusers_level(half, i)}.{part}rs.0.{'.'.join(rest)}"
        case [half, "middle", "attention", layer, *rest]:
            return f"{half}.mid_block.attentions.0.{DIFFUSERS_ATTENTION[layer]}.{'.'.join(rest)}"
        case [half, "middle", block, *rest]:
            return f"{half}.mid_block.resnets.{int(block[-1]) - 1}.{'.'.join(rest)}"
        case [half, "norm_out", *rest]:
            return f"{half}.conv_norm_out.{'.'.join(rest)}"
        case _:
            return name


def name_from_diffusers(name: str) -> str:
    """Our name of a tensor of diffusers, but for an attention's layers; unknown names are unchanged."""
    match name.split("."):
        case [half, "down_blocks" | "up_blocks", i, "resnets", j, *rest]:
            return ".".join([half, "levels", i, "blocks", j, *rest])
        case [half, "down_blocks" | "up_blocks", i, "attentions", j, *rest]:
            return ".".join([half, "levels", i, "attentions", j, *rest])
        case [half, "down_blocks" | "up_blocks", i, "downsamplers" | "upsamplers" as part, "0", *rest]:
            return ".".join([half, "levels", i, part.removesuffix("rs"), *rest])
        case [half, "mid_block", "attentions", "0", *rest]:
            return ".".join([half, "middle", "attention", *rest])
        case [half, "mid_block", "resnets", "0" | "1" as j, *rest]:
            return ".".join([half, "middle", f"block{int(j) + 1}", *rest])
        case [half, "conv_norm_out", *rest]:
            return ".".join([half, "norm_out", *rest])
        case _:
            return name


def _diffusers_level(half: str, i: str) -> str:
    return f"down_blocks.{i}" if half == "encoder" else f"up_blocks.{i}"


TAESD_HALVES = {"encoder": "taesd_encoder.", "decoder": "taesd_decoder."}
"""Prefixes of the two halves in a TAESD file that ComfyUI reads."""


def taesd_name(name: str) -> str:
    """TAESD's name of our tensor, with the prefix of its half; its decoder counts the clamp as layer 0."""
    if not name.startswith(tuple(TAESD_HALVES)):  # statistics
        return name
    half, _, layer, *rest = name.split(".")
    return TAESD_HALVES[half] + ".".join([str(int(layer) + (half == "decoder")), *rest])


def name_from_taesd(name: str) -> str:
    """Our name of a TAESD tensor with the prefix of its half; unknown names are unchanged."""
    for half, prefix in TAESD_HALVES.items():
        layer, _, rest = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and layer.isdecimal():
            return f"{half}.layers.{int(layer) - (half == 'decoder')}.{rest}"
    return name


NAMES: dict[str, Callable[[str, int], str]] = {
    "native": lambda name, num_levels: name,
    "ldm": ldm_name,
    "diffusers": diffusers_name,
}
"""By layout, a function from our name and the number of levels to the layout's name, for the KL family."""


def layout_name(name: str, layout: str, config: AutoencoderConfig | TinyConfig) -> str:
    """A layout's name of our tensor in a model of this configuration."""
    if isinstance(config, TinyConfig):
        return taesd_name(name) if layout == "taesd" else name
    if layout == "ldm" and config.normalization == "batchnorm":
        return flux2_name(name, len(config.channel_mult))
    return NAMES.get(layout, NAMES["native"])(name, len(config.channel_mult))  # layout "taesd" has no names for it


def is_attention_matrix(name: str) -> bool:
    """Whether our tensor is an attention matrix, which LDM stores as a 1x1 convolution."""
    return name.endswith((".query.weight", ".key.weight", ".value.weight", ".out.weight"))
