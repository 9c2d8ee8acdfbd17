"""Names of the same tensors in the layouts of the field. The only place that knows foreign key names.

Sources: CompVis latent-diffusion (`ldm/modules/diffusionmodules/model.py`), diffusers `AutoencoderKL`.
"""

from __future__ import annotations

from collections.abc import Callable

LDM_ATTENTION = {"norm": "norm", "query": "q", "key": "k", "value": "v", "out": "proj_out"}
DIFFUSERS_ATTENTION = {"norm": "group_norm", "query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}


def ldm_name(name: str, num_levels: int) -> str:
    """LDM's name of a tensor of ours. Its decoder levels count from the largest image, ours from the smallest."""
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


def _ldm_level(half: str, i: int, num_levels: int) -> str:
    return f"down.{i}" if half == "encoder" else f"up.{num_levels - 1 - i}"


def _ldm_part(part: str) -> str:
    return {"blocks": "block", "attentions": "attn"}[part]


def _ldm_layer(part: str, rest: list[str]) -> str:
    layer = LDM_ATTENTION[rest[0]] if part == "attentions" else rest[0].replace("conv_shortcut", "nin_shortcut")
    return ".".join([layer, *rest[1:]])


def diffusers_name(name: str, num_levels: int) -> str:
    """diffusers' name (0.17 and later) of a tensor of ours."""
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


OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Before diffusers 0.18; well-known files such as sd-vae-ft-mse still have these names."""


def current_name(name: str) -> str:
    """diffusers' present name of a tensor that may have one of its old names."""
    match name.split("."):
        case [*head, layer, last] if layer in OLD_ATTENTION and "attentions" in head:
            return ".".join([*head, OLD_ATTENTION[layer], last])
        case _:
            return name


def _diffusers_level(half: str, i: str) -> str:
    return f"down_blocks.{i}" if half == "encoder" else f"up_blocks.{i}"


NAMES: dict[str, Callable[[str, int], str]] = {
    "native": lambda name, num_levels: name,
    "ldm": ldm_name,
    "diffusers": diffusers_name,
}
"""From our name and the number of levels to the layout's name."""


def is_attention_matrix(name: str) -> bool:
    """Whether a tensor of ours is one of attention's matrices, which LDM stores as 1x1 convolutions."""
    parts = name.split(".")
    return parts[-1] == "weight" and parts[-2] in ("query", "key", "value", "out")
