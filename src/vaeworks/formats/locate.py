"""Locate a VAE: its file, its tensor names and its configuration. Only headers are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..config import AutoencoderConfig, TinyConfig
from ..errors import FormatError
from ..files.atomic import MAX_CONFIG, read_json
from . import kinds, native
from .archive import Archive
from .archive.entries import Entry
from .archive.limits import MAX_VAE_TENSORS
from .archive.pickle_vm import shown
from .diffusers_config import config_from_diffusers, with_carried
from .guesses import ambiguity, assumption, scale_source, with_guesses, with_settings
from .keymap import (
    OLD_ATTENTION,
    is_attention_matrix,
    layout_name,
    name_from_diffusers,
    name_from_ldm,
    name_from_taesd,
    num_ldm_levels,
)
from .shapes import config_from_shapes
from .sources import find_source
from .tensor_shapes import each_shape
from .understood import understood

Layout = Literal["native", "diffusers", "ldm", "taesd"]

SIGNATURES: dict[Layout, tuple[str, ...]] = {
    "native": ("decoder.levels.0.blocks.0.norm1.weight",),
    "diffusers": ("decoder.up_blocks.0.resnets.0.norm1.weight", "decoder.layers.0.weight"),
    "ldm": ("decoder.up.0.block.0.norm1.weight",),
    "taesd": ("taesd_decoder.1.weight",),
}
"""Tensor names that identify a layout; in a full checkpoint they have a prefix."""

PREFIXES = ("", "first_stage_model.", "vae.")
"""Prefixes of a VAE's tensor names, most usual first; other prefixes (`module.`) are accepted as well."""

LEFTOVERS = ("loss.", "model_ema.", "vae_scale", "vae_shift")
"""Tensors that training leaves in LDM files, and the scale that ComfyUI saves with a TAESD."""

OPTIONAL = "bn.num_batches_tracked"
"""A count of training batches, which files may leave out."""


@dataclass(frozen=True)
class Located:
    """A VAE inside a file or folder: the place of each tensor; none is read yet."""

    path: Path
    """path that the user gave"""
    archive: Archive
    layout: Layout
    old_names: bool
    """whether it has the attention names of diffusers before 0.18"""
    prefix: str
    """prefix of the VAE's names: "", or "first_stage_model.", "vae." in a full checkpoint"""
    names: dict[str, str]
    """our tensor name -> name in the archive; complete, shapes checked"""
    config: AutoencoderConfig | TinyConfig
    normalization_source: Literal["metadata", "config", "family", "unknown", "given"]
    """source of scaling and shift: our metadata, a config.json, the published VAE of this architecture, none, the
    user"""
    has_config: bool = False
    """whether a config.json describes it"""
    bare: bool = False
    """whether only names and shapes of tensors describe it"""
    ignored: tuple[str, ...] = ()
    """names of further tensors: loss.*, model_ema.*"""
    notes: tuple[str, ...] = ()
    """plain sentences on what was assumed"""
    replaced: tuple[str, ...] = ()
    """sentences on facts of the file that a user's settings replace"""

    @property
    def ambiguity(self) -> str:
        """A sentence on the guessed scale of the latents, which decides a diffusion model's images; empty if the file
        states it."""
        return ambiguity(self.config)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Sentences on what may be wrong: guesses, and settings that contradict the file."""
        return (*filter(None, [self.ambiguity, assumption(self.config)]), *self.replaced)

    @property
    def lasting_doubts(self) -> tuple[str, ...]:
        """The doubts, for a file that is written from this one: guesses are not written down."""
        if not (self.doubts and self.config.guesses):
            return self.doubts
        return (*self.doubts, "the file that is written leaves out what is unknown, so its readers get the same note")

    @property
    def remarks(self) -> tuple[str, ...]:
        """All sentences for people, doubts first."""
        return (*self.doubts, *self.notes)

    def with_facts(self, **settings: Any) -> Located:
        """The same VAE with a user's settings (`guesses.SETTINGS`).

        Errors: ConfigError for an unknown setting, and for a value that contradicts the shapes.
        """
        if not settings:
            return self
        config, replaced = with_settings(self.config, settings, str(self.path))
        given = settings.keys() & {"scale_of", "scaling_factor", "shift_factor"}
        source = "given" if given else self.normalization_source
        return dataclasses.replace(
            self, config=config, normalization_source=source, bare=False, replaced=(*self.replaced, *replaced)
        )

    @property
    def baked(self) -> bool:
        """Whether the VAE is part of a full checkpoint."""
        return self.prefix != "" and kinds.checkpoint_family(self.archive.entries) is not None


def detect(names: Iterable[str]) -> Layout | None:
    """The layout that these tensor names, without a prefix, belong to; None for an unknown one."""
    present = set(names)
    return next((layout for layout in get_args(Layout) if present.intersection(SIGNATURES[layout])), None)


def locate(path: str | Path, **settings: Any) -> Located:
    """Locate the VAE in a file or folder; `load` describes the paths.

    settings: facts that the file leaves out (`guesses.SETTINGS`): norm_groups=4, scale_of="sdxl".
    Errors: FormatError for a file that is missing, torn, inconsistent, of an unknown kind, or without a VAE;
    ConfigError for settings that the VAE cannot have.
    """
    with understood(path):
        return _locate(path).with_facts(**settings)


def _locate(path: str | Path) -> Located:
    source = find_source(path)
    archive, where = source.archive, str(path)
    layout, prefix = _layout_and_prefix(archive.entries, where)
    ignored = tuple(n for n in archive.entries if n.startswith(prefix) and n.removeprefix(prefix).startswith(LEFTOVERS))
    left = set(ignored)
    own = [n for n in archive.entries if n.startswith(prefix) and n not in left]
    if layout == "ldm" and not prefix:
        own = [n for n in own if not kinds.is_denoiser_name(n)]
    ours = _our_names(own, prefix, layout)
    carried = native.config_from_metadata(archive.metadata, where, lambda: _from_shapes(ours, archive.entries, where))
    if carried is None and source.config is None and (unsupported := kinds.unsupported_vae(archive.entries)):
        raise FormatError(f"{where} is {unsupported}, which vaeworks does not support")
    notes: list[str] = []
    told: Literal["metadata", "config"] = "metadata" if source.config is None else "config"
    if source.config is not None:
        config = with_carried(config_from_diffusers(read_json(source.config, MAX_CONFIG), str(source.config)), carried)
    else:
        config = carried or _from_shapes(ours, archive.entries, where)
    bare = source.config is None and carried is None
    origin = scale_source(config) if bare or not config.normalization_known else told
    if layout == "diffusers" and source.config is None and isinstance(carried, TinyConfig):
        layout = "native"  # a TAESD has the same names there
    names = _complete(config, ours, archive.entries, layout, where)
    archive.check_claims(names.values())
    old = layout == "diffusers" and any(part in OLD_ATTENTION for name in own for part in name.split(".")[-2:-1])
    if bare and layout == "diffusers":
        notes.append(
            "it has no config.json: settings that shapes do not show are taken from this architecture's published VAE"
        )
    has_config = source.config is not None
    return Located(
        Path(path), archive, layout, old, prefix, names, config, origin, has_config, bare, ignored, tuple(notes)
    )


def _layout_and_prefix(entries: Mapping[str, Entry], where: str) -> tuple[Layout, str]:
    found: dict[str, Layout] = {}
    for layout, signatures in SIGNATURES.items():
        for signature in signatures:
            found.update((name.removesuffix(signature), layout) for name in entries if name.endswith(signature))
    found = {prefix: layout for prefix, layout in found.items() if not prefix or prefix.endswith(".")}
    if not found:
        what = kinds.foreign_kind(entries)
        first = ", ".join(shown(name) for name in sorted(entries)[:3])
        raise FormatError(
            f"{where} holds no VAE that vaeworks knows: "
            + (f"it is {what}" if what else f"its first tensors are {first}" if entries else "it has no tensors")
        )
    rank = {prefix: i for i, prefix in enumerate(PREFIXES)}
    prefix = min(found, key=lambda p: (rank.get(p, len(rank)), len(p), p))
    return found[prefix], prefix


def _our_names(names: Iterable[str], prefix: str, layout: Layout) -> dict[str, str]:
    """Our name -> name in the file. Unknown tensors keep their own names."""
    stripped = {name.removeprefix(prefix): name for name in names}
    levels = num_ldm_levels(stripped)
    translate = {
        "native": lambda name: name,
        "diffusers": name_from_diffusers,
        "ldm": lambda name: name_from_ldm(name, levels),
        "taesd": name_from_taesd,
    }[layout]
    ours: dict[str, str] = {}
    for name, original in stripped.items():
        if (other := ours.setdefault(translate(name), original)) != original:
            raise FormatError(
                f"tensors '{shown(other)}' and '{shown(original)}' are the same part of a VAE, and it is "
                "unclear which one counts; make the file anew"
            )
    return ours


def _shape(name: str, entry: Entry) -> tuple[int, ...]:
    """The shape of a tensor under our name; attention matrices may be stored as 1x1 convolutions of one to three
    dimensions."""
    if is_attention_matrix(name) and len(entry.shape) > 2 and set(entry.shape[2:]) == {1}:
        return entry.shape[:2]
    return entry.shape


def _complete(
    config: AutoencoderConfig | TinyConfig,
    ours: Mapping[str, str],
    entries: Mapping[str, Entry],
    layout: Layout,
    where: str,
) -> dict[str, str]:
    """Names of all tensors of this configuration. None may be missing, left over, of another shape or not of floats."""
    own = {theirs: entries[theirs] for theirs in ours.values()}
    names: dict[str, str] = {}
    for name, shape in each_shape(config):
        if name not in ours:
            if name == OPTIONAL:
                continue
            if what := kinds.foreign_kind(own):
                raise FormatError(f"{where} is {what}")
            raise FormatError(
                f"{where} has no tensor {layout_name(name, layout, config)!r}, which its configuration needs; it is "
                "not a whole VAE"
            )
        if len(names) == MAX_VAE_TENSORS:
            raise FormatError(f"{where} holds a VAE of more than {MAX_VAE_TENSORS} tensors; no VAE has as many")
        entry = entries[ours[name]]
        if _shape(name, entry) != shape:
            raise FormatError(
                f"{where}: tensor {ours[name]!r} has shape {entry.shape}, its configuration needs {shape}"
            )
        if not entry.is_float and name != OPTIONAL:
            raise FormatError(
                f"{where}: tensor {ours[name]!r} is of dtype {entry.dtype}; VAEs are loaded from F64, F32, F16 or "
                "BF16, so take a file that was not quantized"
            )
        names[name] = ours[name]
    if surplus := sorted(theirs for name, theirs in ours.items() if name not in names):
        what = kinds.foreign_kind(own)
        other = f"{where} has {len(surplus)} tensors that its configuration does not have; the first is {surplus[0]!r}"
        raise FormatError(f"{where} is {what}" if what else other)
    return names


def _from_shapes(ours: Mapping[str, str], entries: Mapping[str, Entry], where: str) -> AutoencoderConfig | TinyConfig:
    """The configuration that shapes show, with guesses for the rest."""
    return with_guesses(
        config_from_shapes({name: _shape(name, entries[theirs]) for name, theirs in ours.items()}, where), entries
    )
