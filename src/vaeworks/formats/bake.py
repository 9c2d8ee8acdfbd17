"""Extract the VAE of a full checkpoint, or replace it; all other tensors pass through as bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..config import TinyConfig
from ..data.trained_on import METADATA_KEY as TRAINED_ON
from ..devices import torch_dtype
from ..errors import ConfigError, FormatError
from ..files.atomic import atomic, check_ending
from ..reporting import SILENT, Reporter
from . import native
from .apps.support import COMFYUI, WEBUI, support
from .archive.entries import Entry
from .archive.torch_dtypes import TORCH_DTYPES
from .diffusers_config import only_in_metadata
from .finite import finite_cast, is_finite
from .holes import check_holes
from .keymap import is_attention_matrix, layout_name
from .locate import Located, locate
from .provenance import trained_on_metadata
from .stream import DTYPE_NAMES, Chunks, Item, tensor_bytes, write_stream
from .vae_slot import Constants, VaeSlot, check_fits, config_for, find_slot, normalization_note

SOURCE_KEY = "vaeworks_source"
"""Metadata key of an extracted VAE: the name of its checkpoint."""

STALE = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256")
"""Metadata keys of hashes over a checkpoint's tensors, which are wrong once a tensor changes."""


@dataclass(frozen=True)
class Extracted:
    """What `extract` wrote."""

    dst: str
    tensors: int
    bytes: int
    """of the file"""
    notes: tuple[str, ...]
    """plain sentences"""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Baked:
    """What `bake` wrote."""

    dst: str
    prefix: str
    """before the VAE's names"""
    dtype: str
    """of the VAE's weights, in safetensors' name"""
    tensors: int
    """of the VAE"""
    replaced: int
    """old tensors under the prefix, which were left out"""
    kept: int
    """tensors of the checkpoint that are unchanged"""
    bytes: int
    """of the file"""
    notes: tuple[str, ...]
    """plain sentences"""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def extract(
    checkpoint: str | Path,
    dst: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> Extracted:
    """Write the VAE of a full checkpoint as a file of its own, without loading the rest.

    >>> vw.extract("model.safetensors", "vae.safetensors").tensors
    248

    checkpoint: a file of any container, or the folder of a diffusers pipeline. settings: facts about the VAE that the
    checkpoint leaves out, as keywords of `load`.
    The tensors keep their bytes. They get LDM's names (a TAESD gets TAESD's), and attention matrices become 1x1
    convolutions, so that every application loads the file.
    Errors: FormatError for a checkpoint without a whole VAE; ConfigError for a file that is a bare VAE, another ending
    than .safetensors and, without `overwrite`, a name that is taken; VaeworksError for a full disk.
    """
    dst = Path(dst)
    _check_target(dst)
    located = locate(checkpoint, **(settings or {}))
    if dst.exists() and dst.resolve() == located.archive.path.resolve():
        raise ConfigError(f"{dst} is the checkpoint itself, and the VAE would replace it; choose another name")
    if not _is_part(located):
        raise ConfigError(
            f"{checkpoint} is a VAE by itself, so nothing has to be extracted; `vaeworks convert` changes its layout"
        )
    check_holes(located)
    notes = [*located.remarks]
    if located.ignored:
        notes.append(f"left out, because only training uses them: {_listed(located, located.ignored)}")
    if located.beside:
        notes.append(f"left out, because they are no part of the VAE: {_listed(located, located.beside)}")
    items = vae_items(located)
    metadata = {"format": "pt", SOURCE_KEY: Path(checkpoint).name, **vae_metadata(located)}
    with atomic(dst, overwrite) as temporary, reporter.bytes("extracting") as progress:
        size = write_stream(temporary, items, metadata, progress=progress)
    return Extracted(str(dst), len(items), size, tuple(notes))


def _is_part(located: Located) -> bool:
    pipeline = located.path.is_dir() and (located.path / "vae").is_dir()
    more = len(located.archive.entries) > len(located.names) + len(located.ignored)
    return bool(located.prefix) or pipeline or more


def _check_target(dst: Path) -> None:
    check_ending(dst)
    if dst.is_dir():
        raise ConfigError(f"{dst} is a folder; choose the name of a file")


def vae_metadata(located: Located, constants: Constants | None = None) -> dict[str, str]:
    """The known part of the VAE's configuration, and which images it was trained on, as metadata.

    constants: scaling_factor and shift_factor of the checkpoint that the VAE is for.
    """
    config = config_for(located, constants)
    known = {} if located.bare and not config.normalization_known else native.config_metadata(config)
    return known | trained_on_metadata(located)


def vae_items(
    located: Located, *, prefix: str = "", dtype: torch.dtype | None = None, finite: bool = False
) -> list[Item]:
    """The VAE's tensors for `write_stream`, under LDM's names (TAESD's for a TAESD) behind `prefix`.

    dtype: of the weights; None keeps theirs. finite: check the weights while they are written, and raise a FormatError
    for values that are not finite.
    """
    layout = "taesd" if isinstance(located.config, TinyConfig) else "ldm"
    items = []
    for ours, theirs in located.names.items():
        entry = located.archive.entries[theirs]
        shape = (*entry.shape[:2], 1, 1) if layout == "ldm" and is_attention_matrix(ours) else entry.shape
        name = layout_name(ours, layout, located.config)
        to = dtype if dtype is not None and entry.is_float else TORCH_DTYPES[entry.dtype]
        cast = finite or to != TORCH_DTYPES[entry.dtype]
        chunks: Chunks = partial(_cast_chunks, located, theirs, to) if cast else partial(located.archive.chunks, theirs)
        items.append(Item(prefix + name, Entry(DTYPE_NAMES[to], shape), chunks))
    return items


def _cast_chunks(located: Located, name: str, dtype: torch.dtype) -> Iterator[memoryview]:
    tensor = located.archive.read(name)
    if not is_finite(tensor):
        raise FormatError(
            f"{located.path}: tensor {name!r} has values that are infinite or no numbers; take another copy of the file"
        )
    yield tensor_bytes(finite_cast(tensor, dtype, name))


def bake(
    vae: str | Path,
    checkpoint: str | Path,
    dst: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> Baked:
    """Write a copy of a full checkpoint with this VAE in place of its own, without loading the rest.

    >>> vw.bake("vae.safetensors", "model.safetensors", "baked.safetensors").prefix
    'first_stage_model.'

    vae: a VAE file or folder of any layout. dtype: of the VAE's weights, "fp32", "bf16", "fp16" or a torch dtype; None
    takes that of the VAE which it replaces, or its own if there is none. settings: facts that the VAE's file leaves
    out, as keywords of `load`.
    All tensors under the VAE's prefix are replaced. Every other tensor keeps its bytes, and the metadata are kept.
    Errors: FormatError for files without a VAE or a diffusion model; ConfigError for a VAE with latents of another
    shape than the checkpoint's, another ending than .safetensors and, without `overwrite`, a name that is taken;
    VaeworksError for a full disk.
    """
    dst = Path(dst)
    _check_target(dst)
    slot, located = find_slot(checkpoint), locate(vae, **(settings or {}))
    check_fits(located, slot)
    check_holes(located)
    notes = _notes(located, slot)
    stored = _old_dtype(slot, notes) if dtype is None else torch_dtype(dtype)
    items = vae_items(located, prefix=slot.prefix, dtype=stored, finite=True)
    taken, entries = set(slot.taken), slot.archive.entries
    others = [
        Item(name, entry, partial(slot.archive.chunks, name)) for name, entry in entries.items() if name not in taken
    ]
    metadata = _metadata(slot, located, notes)
    with atomic(dst, overwrite) as temporary, reporter.bytes("baking") as progress:
        size = write_stream(temporary, [*others, *items], metadata, progress=progress)
    if slot.archive.dropped:
        notes.append(f"not kept: {', '.join(slot.archive.dropped)}; a safetensors file has no place for them")
    return Baked(str(dst), slot.prefix, _main_dtype(items), len(items), len(taken), len(others), size, tuple(notes))


def _notes(located: Located, slot: VaeSlot) -> list[str]:
    """Notes for users who load the checkpoint with this VAE."""
    notes = [remark for remark in located.doubts if remark != located.ambiguity]
    notes += [note] if (note := normalization_note(located, slot)) else []
    loaders = support(located, "ldm")
    if loaders[WEBUI].loads == loaders[COMFYUI].loads == "no":
        notes.append(f"no application will load it: {loaders[COMFYUI].why}")
    if unseen := only_in_metadata(located.config, "ldm"):
        notes.append(f"applications ignore the VAE's {'; '.join(unseen)}: they use the value in brackets")
    if slot.family is not None and not slot.family.whole:
        notes.append(
            f"{slot.path.name} holds no text encoder: applications may take it for a bare diffusion model and load the "
            "VAE from another file"
        )
    return notes


def _old_dtype(slot: VaeSlot, notes: list[str]) -> torch.dtype | None:
    """The dtype of most weights of the VAE that is replaced."""
    if not slot.taken:
        return None
    dtype = _main_dtype([Item(name, slot.archive.entries[name], tuple) for name in slot.taken])
    if not Entry(dtype, ()).is_float:
        notes.append(f"the old VAE is stored as {dtype}, which no application loads; the new VAE keeps its own dtype")
        return None
    return TORCH_DTYPES[dtype]


def _main_dtype(items: list[Item]) -> str:
    sizes = Counter[str]()
    for item in items:
        sizes[item.entry.dtype] += item.entry.nbytes
    return sizes.most_common(1)[0][0]


def _metadata(slot: VaeSlot, located: Located, notes: list[str]) -> dict[str, str]:
    metadata = {"format": "pt"} if slot.archive.container == "pickle" else {}
    old = (*STALE, native.METADATA_KEY, TRAINED_ON)
    metadata |= {key: value for key, value in slot.archive.metadata.items() if key not in old}
    if stale := [key for key in STALE if key in slot.archive.metadata]:
        notes.append(f"left out of the metadata, because the content has changed: {', '.join(stale)}")
    return metadata | vae_metadata(located, slot.constants)


def _listed(located: Located, names: Sequence[str]) -> str:
    """First parts of tensors' names, with their counts."""
    heads = Counter(name.removeprefix(located.prefix).split(".")[0] for name in names)
    return ", ".join(f"{head}.* ({count})" for head, count in sorted(heads.items()))
