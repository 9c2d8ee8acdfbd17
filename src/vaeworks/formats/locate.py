"""Locate a VAE: its file, its tensor names and its configuration. Only headers are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
    with_our_attention,
)
from .shapes import config_from_shapes, in_shapes
from .sources import Source, find_source
from .stated_scale import stated_scale
from .tensor_shapes import each_shape
from .understood import understood
from .vaes_in_file import LEFTOVERS, Layout, VaeInFile, chosen, vaes_in

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
    normalization_source: Literal["metadata", "config", "tensors", "family", "unknown", "given"]
    """source of scaling and shift: our metadata, a config.json, tensors beside the VAE, the published VAE of this
    architecture, none, the user"""
    has_config: bool = False
    """whether a config.json describes it"""
    bare: bool = False
    """whether only names and shapes of tensors describe it"""
    ignored: tuple[str, ...] = ()
    """names of tensors that training has left: loss.*, model_ema.*"""
    beside: tuple[str, ...] = ()
    """names of further tensors behind the same prefix that are no part of the VAE: foundation_model.*"""
    foreign: str = ""
    """a name that no program expects in this layout, because a trainer has mixed two layouts or wrapped the network"""
    others: tuple[str, ...] = ()
    """titles of the other VAEs in the file, such as an average of the weights"""
    title: str = "raw"
    """of this one"""
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
        return (*filter(None, [self.choice, self.ambiguity, assumption(self.config)]), *self.replaced)

    @property
    def choice(self) -> str:
        """A sentence on which of the VAEs in the file this one is; empty if there is only one, or one was asked for."""
        if not self.others:
            return ""
        word = shown(self.others[0])
        return (
            f"it holds {1 + len(self.others)} VAEs: {shown(self.title)} is taken; --weights {word} takes "
            f"{', '.join(map(shown, self.others))} (in Python, weights={word!r})"
        )

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


def locate(path: str | Path, *, weights: str | None = None, **settings: Any) -> Located:
    """Locate the VAE in a file or folder; `load` describes the paths.

    weights: which VAE of a file that holds several, such as "ema"; None: the raw weights.
    settings: facts that the file leaves out (`guesses.SETTINGS`): norm_groups=4, scale_of="sdxl".
    Errors: FormatError for a file that is missing, torn, inconsistent, of an unknown kind, or without a VAE;
    ConfigError for settings that the VAE cannot have.
    """
    with understood(path):
        return _locate(path, weights).with_facts(**settings)


def _locate(path: str | Path, weights: str | None) -> Located:
    source = find_source(path)
    archive, where = source.archive, str(path)
    vaes = vaes_in(archive.entries, where)
    vae = chosen(vaes, weights, where)
    ours = _our_names(vae)
    carried = native.config_from_metadata(archive.metadata, where, lambda: _from_shapes(ours, archive.entries, where))
    source, notes = _with_fitting_config(source, ours, where)
    if carried is None and source.config is None and (unsupported := kinds.unsupported_vae(archive.entries)):
        raise FormatError(f"{where} is {unsupported}, which vaeworks does not support")
    told: Literal["metadata", "config", "tensors"] = "metadata" if source.config is None else "config"
    if source.config is not None:
        config = with_carried(config_from_diffusers(read_json(source.config, MAX_CONFIG), str(source.config)), carried)
    else:
        config = carried or _from_shapes(ours, archive.entries, where)
    bare = source.config is None and carried is None
    if (bare or not config.normalization_known) and (stated := stated_scale(config, archive, vae, where)) is not None:
        config, told = stated, "tensors"
    origin = scale_source(config) if told != "tensors" and (bare or not config.normalization_known) else told
    layout = vae.layout
    if layout == "diffusers" and source.config is None and isinstance(carried, TinyConfig):
        layout = "native"  # a TAESD has the same names there
    names = _complete(config, ours, archive.entries, layout, where)
    archive.check_claims(names.values())
    old = layout == "diffusers" and any(part in OLD_ATTENTION for name in vae.names for part in name.split(".")[-2:-1])
    if bare and layout == "diffusers":
        notes.append(
            "it has no config.json: settings that shapes do not show are taken from this architecture's published VAE"
        )
    ignored, beside = _not_the_vae(archive, vae, vaes)
    return Located(
        Path(path),
        archive,
        layout,
        old,
        _prefix_in_file(vae),
        names,
        config,
        origin,
        source.config is not None,
        bare,
        ignored,
        beside=beside,
        notes=tuple(notes),
        foreign=_foreign(names, vae, layout, config),
        others=() if weights is not None else tuple(other.title for other in vaes if other is not vae),
        title=vae.title,
    )


def _with_fitting_config(source: Source, ours: Mapping[str, str], where: str) -> tuple[Source, list[str]]:
    """The source, without a config.json that lies beside a file of another name and describes another VAE; and notes
    about it."""
    if source.config is None or source.sure:
        return source, []
    try:
        config = config_from_diffusers(read_json(source.config, MAX_CONFIG), str(source.config))
        shapes = {name: _shape(name, source.archive.entries[theirs]) for name, theirs in ours.items()}
        if in_shapes(config) == in_shapes(config_from_shapes(shapes, where)):
            return source, []
    except FormatError:
        pass
    return Source(source.archive), [f"{source.config} describes another VAE than this file holds, and is not used"]


def _not_the_vae(
    archive: Archive, vae: VaeInFile, vaes: Sequence[VaeInFile]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names behind the VAE's prefix that are none of its parts: what training has left, and all else."""
    taken = {name for one in vaes for name in one.names.values()}
    prefix = _prefix_in_file(vae)
    elsewhere = tuple(_prefix_in_file(one) for one in vaes if len(one.prefix) > len(vae.prefix))
    rest = [
        (name, name.removeprefix(prefix))
        for name in archive.entries
        if name.startswith(prefix) and name not in taken and not (elsewhere and name.startswith(elsewhere))
    ]
    ignored = tuple(name for name, short in rest if short.startswith(LEFTOVERS))
    left = set(ignored)
    beside = tuple(name for name, short in rest if name not in left and (prefix or not kinds.is_denoiser_name(short)))
    return ignored, beside


def _prefix_in_file(vae: VaeInFile) -> str:
    """The prefix as the file has it, with the wrappers before the first part of the VAE."""
    name, theirs = next(iter(vae.names.items()))
    return theirs[: theirs.rfind(name.split(".")[0] + ".")] if theirs.endswith(name) else vae.prefix


def _foreign(names: Mapping[str, str], vae: VaeInFile, layout: Layout, config: AutoencoderConfig | TinyConfig) -> str:
    """A name that is not the layout's, or has wrappers; empty where there is none. Old attention names of diffusers are
    no foreign ones: its reader translates them."""
    theirs = {in_file: short for short, in_file in vae.names.items()}
    for name, in_file in names.items():
        usual = layout_name(name, layout, config)
        short = theirs[in_file]
        if not in_file.endswith(short) or (short != usual and not _is_old(short, usual, layout)):
            return in_file
    return ""


def _is_old(short: str, usual: str, layout: Layout) -> bool:
    head, _, last = short.rpartition(".")
    before, _, layer = head.rpartition(".")
    return layout == "diffusers" and f"{before}.{OLD_ATTENTION.get(layer)}.{last}" == usual


def _our_names(vae: VaeInFile) -> dict[str, str]:
    """Our name -> name in the file. Unknown tensors keep their own names."""
    levels = num_ldm_levels(vae.names)
    translate = {
        "native": lambda name: name,
        "diffusers": name_from_diffusers,
        "ldm": lambda name: name_from_ldm(name, levels),
        "taesd": name_from_taesd,
    }[vae.layout]
    ours: dict[str, str] = {}
    for name, original in vae.names.items():
        if (other := ours.setdefault(with_our_attention(translate(name)), original)) != original:
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
