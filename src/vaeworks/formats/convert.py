"""A VAE file in another layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..devices import torch_dtype
from ..files.atomic import check_ending, check_free_name
from .apps import Support, support
from .diffusers_config import normalization_elsewhere, only_in_metadata
from .fingerprint import content_hash
from .io import read, write
from .locate import Located, locate
from .vaes_in_file import Layout


@dataclass(frozen=True)
class ConvertedFile:
    """What `convert` wrote."""

    out: str
    layout: Layout
    name: str
    """f and c of the VAE, such as "f8c4\""""
    content_hash: str
    """of the weights that were written"""
    source_hash: str
    """of the weights that were read; the hashes differ where `dtype` rounds"""
    notes: tuple[str, ...]
    """plain sentences on what other programs will not see, and on what is uncertain"""
    support: dict[str, Support]
    """by application, whether it loads the new file"""

    @property
    def same_content(self) -> bool:
        """Whether the weights have their old values."""
        return self.content_hash == self.source_hash

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "out": self.out,
            "layout": self.layout,
            "content_hash": self.content_hash,
            "same_content": self.same_content,
            "notes": list(self.notes),
            "support": {application: dataclasses.asdict(verdict) for application, verdict in self.support.items()},
        }


def convert(
    src: str | Path,
    dst: str | Path,
    layout: Layout,
    *,
    dtype: str | torch.dtype | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> ConvertedFile:
    """Write a VAE file in another layout without loss. (`save` writes an autoencoder that is in memory.)

    >>> vw.convert("vae.ckpt", "vae.safetensors", "ldm", dtype="fp16").notes
    ('scaling_factor 0.18215 are in our metadata only: ...',)

    src: a run folder, a VAE file or folder, a full checkpoint, hf:OWNER/NAME. layout: "diffusers" is a folder, "ldm",
    "native" and "taesd" are one .safetensors file. dtype: of the stored weights, "fp32", "bf16", "fp16" or a torch
    dtype; None keeps them. settings: facts that `src` leaves out, as keywords of `load`.
    Settings without a place in the layout go into the file's metadata, and a note names them.
    Errors: FormatError for a file without a VAE; ConfigError for a layout that cannot express the VAE, weights that
    overflow in `dtype`, another ending than .safetensors and, without `overwrite`, a name that is taken.
    """
    source, dst = locate(src, **(settings or {})), Path(dst)
    if layout in ("ldm", "native"):
        check_ending(dst)
    check_free_name(dst, overwrite)
    vae = read(source)
    write(vae, dst, layout, dtype=None if dtype is None else torch_dtype(dtype), overwrite=overwrite)
    written = locate(dst)
    return ConvertedFile(
        str(dst),
        layout,
        vae.config.name,
        content_hash(written),
        content_hash(source),
        tuple(_notes(source, layout)),
        support(written),
    )


def _notes(source: Located, layout: Layout) -> list[str]:
    """What the reader of the new file should know."""
    config, notes = source.config, [*source.lasting_doubts, *source.notes]
    for what in only_in_metadata(config, layout):
        guessed = what.split()[0] in config.guesses
        notes.append(f"other programs do not see {what}" + ("" if guessed else ", which is in our metadata only"))
    notes += filter(None, [normalization_elsewhere(config, layout)])
    if source.ignored:
        notes.append(f"left behind: {len(source.ignored)} tensors of its training, such as {source.ignored[0]}")
    if source.beside:
        notes.append(f"left behind: {len(source.beside)} tensors that are no part of the VAE: {source.beside[0]}, ...")
    return notes
