"""Where in a file VAEs are: each by the prefix of its names and by its layout. A file may hold several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import ConfigError, FormatError
from . import kinds
from .archive.entries import Entry
from .archive.pickle_vm import shown
from .keymap import PARTS, TAESD_HALVES, unwrapped

Layout = Literal["native", "diffusers", "ldm", "taesd"]

SIGNATURES: dict[Layout, tuple[str, ...]] = {
    "native": ("decoder.levels.0.blocks.0.norm1.weight",),
    "diffusers": ("decoder.up_blocks.0.resnets.0.norm1.weight", "decoder.layers.0.weight"),
    "ldm": ("decoder.up.0.block.0.norm1.weight",),
    "taesd": ("taesd_decoder.1.weight",),
}
"""Tensor names that identify a layout; in a full checkpoint they have a prefix."""

PREFIXES = ("", "first_stage_model.", "vae.", "model.", "model_state_dict.", "vae_state_dict.", "autoencoder.")
"""Prefixes of a VAE's tensor names, most usual first; others are accepted as well."""

AVERAGES = ("ema", "average", "avg", "shadow")
"""Parts of a prefix that say that it is an average of the weights over training."""

LEFTOVERS = ("loss.", "model_ema.", "vae_scale", "vae_shift")
"""Tensors that training leaves in LDM files, and the scale that ComfyUI saves with a TAESD."""

EMA = "model_ema."
"""Prefix of LDM's average of the weights, whose names have lost their dots."""


@dataclass(frozen=True)
class VaeInFile:
    """A VAE in a file."""

    layout: Layout
    prefix: str
    """before its names; in the file there may be WRAPPERS within"""
    names: Mapping[str, str]
    """name without prefix and wrappers -> name in the file: parts of the VAE, and nothing else"""
    title: str
    """what to call it: its prefix without the dot, "ema", or "raw" for names without a prefix"""


def detect(names: Iterable[str]) -> Layout | None:
    """The layout that these tensor names, without a prefix, belong to; None for an unknown one."""
    present = set(names)
    return next((layout for layout in get_args(Layout) if present.intersection(SIGNATURES[layout])), None)


def vaes_in(entries: Mapping[str, Entry], where: str) -> list[VaeInFile]:
    """The VAEs in a file, the one that is meant by default first.

    Errors: FormatError for a file without a VAE.
    """
    plain = unwrapped_names(entries)
    found: dict[str, Layout] = {}
    for layout, signatures in SIGNATURES.items():
        for signature in signatures:
            found.update((name.removesuffix(signature), layout) for name in plain if name.endswith(signature))
    found = {prefix: layout for prefix, layout in found.items() if not prefix or prefix.endswith(".")}
    if not found:
        what = kinds.foreign_kind(entries)
        first = ", ".join(shown(name) for name in sorted(entries)[:3])
        raise FormatError(
            f"{where} holds no VAE that vaeworks knows: "
            + (f"it is {what}" if what else f"its first tensors are {first}" if entries else "it has no tensors")
        )
    vaes: list[VaeInFile] = []
    for prefix in sorted(found, key=_rank):
        names = _part_names(plain, prefix, found[prefix])
        vaes.append(VaeInFile(found[prefix], prefix, names, prefix.rstrip(".") or "raw"))
        if averaged := _averaged(plain, prefix, names):
            vaes.append(VaeInFile(found[prefix], prefix, averaged, "ema"))
    return vaes


def chosen(vaes: list[VaeInFile], weights: str | None, where: str) -> VaeInFile:
    """The VAE that a user names, or the one that is meant by default.

    weights: the title of one, or a part of it, such as "ema". Errors: ConfigError for a word that names none of
    them, or several.
    """
    if weights is None:
        return vaes[0]
    exact = [vae for vae in vaes if vae.title == weights]
    alike = exact or [vae for vae in vaes if weights in vae.title]
    if len(alike) != 1:
        titles = ", ".join(shown(vae.title) for vae in vaes)
        raise ConfigError(f"weights (={weights!r}) must name one of the VAEs in {where}: {titles}")
    return alike[0]


def unwrapped_names(entries: Mapping[str, Entry]) -> dict[str, str]:
    """Names without WRAPPERS -> names in the file. A wrapped name whose bare one is there as well stays as it is."""
    plain: dict[str, str] = {}
    for name in sorted(entries, key=lambda name: unwrapped(name) != name):  # bare names first
        short = unwrapped(name)
        plain[name if short in plain else short] = name
    return plain


def _rank(prefix: str) -> tuple[bool, int, int, str]:
    """Raw weights come before averages, usual prefixes before others, short ones before long ones."""
    averaged = any(word in prefix.lower() for word in AVERAGES)
    place = PREFIXES.index(prefix) if prefix in PREFIXES else len(PREFIXES)
    return averaged, place, len(prefix), prefix


def _part_names(plain: Mapping[str, str], prefix: str, layout: Layout) -> dict[str, str]:
    parts = (*(half[:-1] for half in TAESD_HALVES.values()), "bn") if layout == "taesd" else PARTS
    starts = tuple(f"{prefix}{part}." for part in parts)
    return {name.removeprefix(prefix): theirs for name, theirs in plain.items() if name.startswith(starts)}


def _averaged(plain: Mapping[str, str], prefix: str, names: Mapping[str, str]) -> dict[str, str]:
    """LDM's average of these weights; empty where it is missing or incomplete."""
    found = {name: plain.get(f"{prefix}{EMA}{name.replace('.', '')}", "") for name in names}
    return found if found and all(found.values()) else {}
