"""What a file is that holds no VAE of ours, in words that fit into an error message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from .families import UNETS, CheckpointFamily, Entries, checkpoint_family, is_denoiser_name
from .signatures import CLASSES, ENCODERS, HALVES, LORA, LYCORIS, PARTS, VAES, Table

__all__ = [
    "DIFFUSERS_CLASSES",
    "CheckpointFamily",
    "checkpoint_family",
    "foreign_kind",
    "is_denoiser_name",
    "unsupported_class",
    "unsupported_vae",
]

EMBEDDING_WIDTHS = (768, 1024, 1280, 2048, 4096)
"""Widths of text encoders' tokens."""

DIFFUSERS_CLASSES = ("AutoencoderKL", "AutoencoderKLFlux2", "AutoencoderTiny")
"""VAE classes of diffusers whose networks vaeworks has."""

_CROSS_ATTENTION = re.compile(
    r"attn2[._](?:processor\.)?to_k(?:_lora)?\.(?:lora_down|lora_A|lora\.down|down)(?:\.default)?\.weight$"
)
_UNETS_BY_CONTEXT = {
    768: "an SD 1 U-Net",
    1024: "an SD 2 U-Net",
    2048: "an SDXL U-Net",
    1280: "the U-Net of SDXL's refiner",
}
FIRST, DOWN = "decoder.conv_in.weight", "encoder.down.0.downsample.conv.weight"
TIME, TO_QUERY = "time_embedding.linear_1.weight", "transformer_blocks.0.attn1.to_q.weight"

ENDS = frozenset(
    (FIRST, DOWN, TIME, TO_QUERY),
).union(
    (end for table in (PARTS, VAES, ENCODERS) for _, rows in table for row in rows for end in row),
    (end for _, _, ends in HALVES for end in ends),
)
"""All ends of names that are asked for. Others are not looked at: a name may have very many."""

MAX_PARTS = 1 + max(end.count(".") for end in ENDS)

_HYPERNETWORK = re.compile(r"\d+\.[01]\.linear\.\d+\.(?:weight|bias)")


@dataclass(frozen=True)
class _Names:
    """The names of a file's tensors, by their ends, and as one text."""

    entries: Entries

    @cached_property
    def ends(self) -> dict[str, str]:
        """Those of ENDS that a name has at one of its dots, or is -> the name."""
        return {end: name for name in self.entries for end in _ends(name) if end in ENDS}

    @cached_property
    def text(self) -> str:
        return "\n".join(self.entries)

    def kind(self, table: Table) -> str | None:
        """The first kind of a table of which all names of one row are there."""
        return next((kind for kind, rows in table if any(all(end in self.ends for end in row) for row in rows)), None)

    def say(self, *parts: str) -> bool:
        """Whether one of these is part of a name."""
        return any(part in self.text for part in parts)

    def shape(self, end: str) -> tuple[int, ...]:
        """The shape of the tensor whose name ends so, with one of ENDS; () where there is none."""
        assert end in ENDS
        return self.entries[self.ends[end]].shape if end in self.ends else ()


def _ends(name: str) -> Iterator[str]:
    """The name, and what follows each of its last dots."""
    yield name
    at = len(name)
    for _ in range(MAX_PARTS):
        at = name.rfind(".", 0, at)
        if at < 0:
            return
        yield name[at + 1 :]


def foreign_kind(entries: Entries) -> str | None:
    """What these tensors are, in one phrase such as "a LoRA (for an SD 1 U-Net)", if they are no VAE of ours; None
    where nothing is recognized."""
    if not entries:
        return "a file without tensors"
    names = _Names(entries)
    return (
        _adapter(names)
        or names.kind(PARTS)
        or _vae(names)
        or _denoiser(names)
        or names.kind(ENCODERS)
        or _embedding(entries)
        or _half(names)
        or ("the state of an optimizer" if names.say("exp_avg") else None)
        or ("a hypernetwork" if all(map(_HYPERNETWORK.fullmatch, entries)) else None)
    )


def unsupported_vae(entries: Entries) -> str | None:
    """A VAE that is known and not supported, in one phrase; None for other files."""
    return _vae(_Names(entries))


def _vae(names: _Names) -> str | None:
    kind = names.kind(VAES)
    first, down = names.shape(FIRST), names.shape(DOWN)
    if kind is None and len(first) == 5:
        kind = (
            "the VAE of HunyuanImage's refiner"
            if first[1] == 32
            else "a video VAE (its convolutions have three dimensions)"
        )
    if kind is None and len(first) == 3:
        kind = "an audio VAE (its convolutions have one dimension)"
    if kind is None and len(down) == 4 and down[0] != down[1]:
        kind = "the VAE of HunyuanImage 2.1 (f32, 64 channels)"
    return f"{kind}, which vaeworks does not support" if kind else None


def _adapter(names: _Names) -> str | None:
    """LoRAs, and what else changes a network's weights a little."""
    methods = {
        LYCORIS[end] for name in names.entries if (end := name.removesuffix(".weight").rpartition(".")[2]) in LYCORIS
    }
    if methods:
        return f"a LyCORIS/{min(methods)} (for {_target(names)})"
    if names.say(*LORA):
        return f"a LoRA (for {_target(names)})"
    if names.say("lora_unet_") and all(
        name.endswith((".diff", ".diff_b", ".alpha", ".w_norm", ".b_norm")) for name in names.entries
    ):
        return f"a LyCORIS/full difference (for {_target(names)})"
    return None


def _target(names: _Names) -> str:
    """What an adapter is for."""
    shapes = (entry.shape for name, entry in names.entries.items() if _CROSS_ATTENTION.search(name))
    context = next((shape[1] for shape in shapes if len(shape) > 1), None)
    if context in _UNETS_BY_CONTEXT:
        return _UNETS_BY_CONTEXT[context]
    if names.say("double_stream_modulation"):
        return "Flux.2"
    if names.say("double_blocks", "single_transformer_blocks"):
        return "Flux"
    if names.say("joint_blocks", "attn.add_k_proj", "attn_add_k_proj"):
        return "SD 3 or a model like it"
    if names.say("lora_te2_", "lora_unet_input_blocks", "text_encoder_2."):
        return _UNETS_BY_CONTEXT[2048]
    if names.say("lora_unet_", "unet."):
        return "a U-Net"
    return "a text encoder" if names.say("lora_te", "text_encoder.") else "a diffusion model"


def _denoiser(names: _Names) -> str | None:
    family = checkpoint_family(names.entries)
    if family is None:
        if names.say("model.diffusion_model.") or names.shape(TIME) or names.shape(TO_QUERY):
            return "a U-Net or diffusion transformer of an unknown family, without a VAE"
        return None
    title = f"{family.title} for inpainting" if family.inpainting else family.title
    if family.whole:
        return f"a checkpoint of {title} in which no VAE is baked; pass a VAE's own file"
    return f"the {'U-Net' if family.name in UNETS else 'diffusion transformer'} of {title} without a VAE"


def _embedding(entries: Entries) -> str | None:
    """A textual inversion of diffusers' is one small tensor with the name of its token."""
    shapes = [entry.shape for entry in entries.values()]
    one = len(shapes) == 1 and 1 <= len(shapes[0]) <= 2
    return "a textual inversion embedding" if one and shapes[0][-1] in EMBEDDING_WIDTHS else None


def _half(names: _Names) -> str | None:
    for half, other, ends in HALVES:
        if any(names.shape(end) for end in ends) and not names.say(f"{other}."):
            return f"the {half} of a VAE without its {other}"
    return None


def unsupported_class(name: str) -> str | None:
    """What a class of diffusers, from a config.json, is, in one phrase; None for one of ours and for a name that says
    nothing."""
    if name in DIFFUSERS_CLASSES:
        return None
    return next((f"{words} ({name})" for part, words in CLASSES if part in name), None)
