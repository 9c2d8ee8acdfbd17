"""Install a VAE in an application: a file that it loads, in the folder and under the name where it looks."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config import MODELS, AutoencoderConfig, TinyConfig
from ...errors import ConfigError
from .. import native
from ..bake import vae_items, vae_metadata
from ..fold import fold_to
from ..io import read, stored_tensors
from ..keymap import TAESD_HALVES
from ..locate import Located, locate
from ..provenance import trained_on_metadata
from ..stream import Item, tensor_item
from ..vae_slot import Constants, VaeSlot, assumed, check_fits, find_slot, in_words, is_certain, is_scaled_by, misfit_of
from .folders import (
    CHECKPOINTS,
    TINY_VAES,
    VAES,
    Application,
    comfyui_before,
    models_folder,
    webui_also_takes,
    webui_preference,
    webui_rivals,
    webui_stem,
)
from .rules import is_taesd, slightly
from .support import COMFYUI, WEBUI, support
from .writing import write_once

NAMES: dict[Application, str] = {"webui": WEBUI, "comfyui": COMFYUI}
"""The applications' names in `support`."""

TINY_NAMES: dict[str, Constants | None] = {
    "taesd": (0.18215, 0.0),
    "taesdxl": (0.13025, 0.0),
    "taesd3": (1.5305, 0.0609),
    "taef1": (0.3611, 0.1159),
    "taef2": None,
}
"""Names of TAESDs, and the constants of their diffusion models; ComfyUI chooses the scale by the name."""

_TINY_CHANNELS = {"taesd": 4, "taesdxl": 4, "taesd3": 16, "taef1": 16, "taef2": 32}
_NEW_TINY = ("taef1", "taef2")  # not known to A1111 1.10 and the original Forge


@dataclass(frozen=True)
class Installed:
    """What `install` did."""

    path: str
    how: str
    """what makes the application use it; says so if the file was there already"""
    notes: tuple[str, ...]
    """plain sentences"""
    others: tuple[str, ...] = ()
    """further files: of a TAESD, the decoder"""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def install(
    vae: str | Path,
    application: Application,
    root: str | Path,
    *,
    checkpoint: str | Path | None = None,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Installed:
    """Write a VAE as a file that an application loads, in the folder and under the name where it looks.

    >>> vw.install("vae.ckpt", "webui", "stable-diffusion-webui", checkpoint="models/sd.safetensors").path
    'models/sd.vae.safetensors'

    vae: a VAE file or folder of any layout. application: "webui" (AUTOMATIC1111, Forge) or "comfyui". root: the
    application's folder, or the models folder in it. checkpoint: the checkpoint to use the VAE with; webui then selects
    the file automatically. name: the file's name without ending; for a TAESD one of `TINY_NAMES`. settings: facts that
    the VAE's file leaves out, as keywords of `load`.
    A normalization that differs from the application's is folded into the weights. The dtype of the weights is kept.
    Errors: FormatError for files without a VAE or a diffusion model; ConfigError for a VAE that the application cannot
    load or that does not fit the checkpoint, for a folder of something else, for a name that another file has, and for
    a file that the application would select instead.
    """
    if application not in NAMES:
        raise ConfigError(f"unknown application {application!r}; known: {', '.join(NAMES)}")
    models = models_folder(root, application)
    located = locate(vae, **(settings or {}))
    slot = None if checkpoint is None else find_slot(checkpoint)
    remarks = [
        remark for remark in located.remarks if remark != located.ambiguity
    ]  # a later note says what is done about it
    job = _Job(located, application, models, slot, name, overwrite, str(vae), remarks)
    return (
        _install_tiny(job, located.config)
        if isinstance(located.config, TinyConfig)
        else _install_kl(job, located.config)
    )


@dataclass(frozen=True)
class _Job:
    located: Located
    application: Application
    models: Path
    slot: VaeSlot | None
    name: str | None
    overwrite: bool
    source: str
    notes: list[str]

    @property
    def constants(self) -> Constants | None:
        return None if self.slot is None else self.slot.constants


# VAEs of the KL family


def _install_kl(job: _Job, config: AutoencoderConfig) -> Installed:
    if job.slot is not None:
        check_fits(job.located, job.slot)
    _check_network(job, config)
    dst, how = _place(job)
    target = _fold_target(job, config)
    if target is None:
        # A1111's file serves this checkpoint only. ComfyUI's serves others too: an unknown scale stays unknown there.
        constants = job.constants if job.application == "webui" else None
        items, metadata = vae_items(job.located, finite=True), vae_metadata(job.located, constants)
    else:
        folded = fold_to(read(job.located), *target)
        config = folded.kl_config
        items = [tensor_item(name, tensor) for name, tensor in stored_tensors(folded, "ldm").items()]
        metadata = native.config_metadata(config) | trained_on_metadata(job.located)
    _check_loads(job, config, folded=target is not None)
    if job.application == "webui":
        _check_rivals(job, dst)
    else:
        _note_more_folders(job)
    if write_once([(dst, items)], metadata | {"format": "pt"}, job.overwrite):
        how = f"already installed, nothing was written; {how}"
    return Installed(str(dst), how, tuple(job.notes))


def _place(job: _Job) -> tuple[Path, str]:
    """The file to write, and what makes the application use it."""
    if job.application == "comfyui":
        dst = job.models / VAES["comfyui"] / f"{_file_name(job)}.safetensors"
        return dst, f"in ComfyUI, choose {dst.name} in the node Load VAE (r updates its list)"
    if job.slot is None:
        dst = job.models / VAES["webui"] / f"{_file_name(job)}.safetensors"
        return dst, f"choose {dst.name} as SD VAE in A1111's settings, in the box VAE / Text Encoder in Forge"
    if job.name is not None:
        raise ConfigError(
            f"name (={job.name!r}) cannot be given with a checkpoint, which names the file; leave one of the two out"
        )
    checkpoint = job.slot.path
    if (job.models / CHECKPOINTS["webui"]).resolve() not in checkpoint.resolve().parents:
        job.notes.append(
            f"{checkpoint.parent} is outside models/{CHECKPOINTS['webui']}: A1111 looks there only with --ckpt-dir"
        )
    job.notes.append(
        "a Forge with a box VAE / Text Encoder selects no VAE by name: install it there without --for, and choose it"
    )
    dst = checkpoint.with_name(f"{webui_stem(checkpoint)}.vae.safetensors")
    return dst, f"A1111 selects it for {checkpoint.name} if SD VAE in its settings is Automatic"


def _file_name(job: _Job) -> str:
    """The name that was given, or one made from the VAE's path."""
    if job.name is None:
        hub = job.source.startswith("hf:")
        path = Path(
            job.source.removeprefix("hf:").rstrip("/\\") if hub else os.path.abspath(job.source)
        )  # which names `.`, too
        known = re.sub(r"(\.vae)?\.(safetensors|sft|ckpt|pt|pth|bin|index\.json)$", "", path.name)
        generic = known in ("vae", "model", "diffusion_pytorch_model") and path.parent.name
        return _usable(f"{path.parent.name}-{known}" if generic else known, "pass --name")
    return _usable(job.name.removesuffix(".safetensors"), "choose another")


def _usable(name: str, remedy: str) -> str:
    """A file name that is valid on every system and in every application's list.

    Errors: ConfigError for any other.
    """
    bad = next((c for c in name if c in _NOT_IN_NAMES or not c.isprintable()), None)
    if bad is not None:
        raise ConfigError(f"name (={name!r}) must be a file name on every system, without {bad!r}; {remedy}")
    if not name or name.startswith(".") or name.endswith((".", " ")) or name.split(".")[0].rstrip().upper() in _DEVICES:
        raise ConfigError(
            f"name (={name!r}) must be a file name on every system: not empty, not hidden, not a device's, and not "
            f"ending in a dot or space; {remedy}"
        )
    return name


_NOT_IN_NAMES = '/\\:*?"<>|'
"""On Windows a colon writes into a part of another file. A1111 reads the names in its list as patterns."""

_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in "123456789")}
"""Names that Windows takes for a device, whatever the ending."""


def _fold_target(job: _Job, config: AutoencoderConfig) -> Constants | None:
    """The constants to fold the VAE to; None if it has them already, or if they are unknown."""
    if config.normalization == "batchnorm" or (job.slot is not None and job.constants is None):
        return None
    if job.constants is not None:
        scaled = is_scaled_by(job.located, job.constants)
        if scaled is None:
            job.notes.append(
                f"its file does not say how its latents are scaled; the application uses {in_words(job.constants)} "
                "with this checkpoint"
            )
        elif scaled and not is_certain(job.located):
            job.notes.append(assumed(job.constants))
        return None if scaled is not False else _folded(job, config, job.constants)
    published: dict[Constants, str] = {}
    for name, p in MODELS.items():
        if _has_constants(p, config):
            published.setdefault((p.scaling_factor, p.shift_factor), name)
    if not is_certain(job.located):
        job.notes.append(
            "its file does not say how its latents are scaled; it is right with checkpoints of its own family"
        )
        return None
    if not published or any(is_scaled_by(job.located, constants) for constants in published):
        return None
    if len(published) > 1:
        choices = " or ".join(f"{name}'s {in_words(constants)}" for constants, name in published.items())
        raise ConfigError(
            f"the application normalizes latents with {choices}, this VAE has {_own_numbers(config)}: give the "
            "checkpoint to fold it for (--for)"
        )
    return _folded(job, config, next(iter(published)))


def _has_constants(published: AutoencoderConfig, config: AutoencoderConfig) -> bool:
    """Whether a published VAE has latents of this shape and constants that applications know."""
    return published.name == config.name and published.normalization == "scalar" and published.scaling_factor != 1.0


def _folded(job: _Job, config: AutoencoderConfig, constants: Constants) -> Constants:
    job.notes.append(
        f"its {_own_numbers(config)} was folded into the weights, because the application uses {in_words(constants)}"
    )
    return constants


def _own_numbers(config: AutoencoderConfig) -> str:
    return (
        "normalization by channel"
        if config.normalization == "channel"
        else in_words((config.scaling_factor, config.shift_factor))
    )


def _check_network(job: _Job, config: AutoencoderConfig) -> None:
    """Check that the application has a network for the VAE as it is, or for what folding makes of it; otherwise no
    further answer of the user helps. Errors: ConfigError if not."""
    name, plain = NAMES[job.application], _plain(config)
    shapes = [plain]
    if plain.normalization != "batchnorm":
        shapes.append(dataclasses.replace(plain, quant_conv=True, post_quant_conv=True))
    found = [support(dataclasses.replace(job.located, config=shape), "ldm")[name] for shape in shapes]
    if all(verdict.loads != "yes" for verdict in found):
        raise ConfigError(f"{name} cannot use this VAE: {found[0].why}")


def _check_loads(job: _Job, config: AutoencoderConfig, *, folded: bool) -> None:
    """Check that the application has a network for the VAE, and note what it ignores. Errors: ConfigError if not."""
    name = NAMES[job.application]
    found = support(dataclasses.replace(job.located, config=_plain(config)), "ldm")[name]
    if found.loads != "yes":
        after = (
            " after folding its normalization, which needs quant convolutions"
            if folded and "quant_conv" in found.why
            else ""
        )
        raise ConfigError(f"{name} cannot use this VAE{after}: {found.why}")
    real = support(dataclasses.replace(job.located, config=config, normalization_source="metadata"), "ldm")[name]
    if real.loads == "wrong":
        job.notes.append(real.why)
    elif slight := slightly(config):
        job.notes.append(slight)


def _plain(config: AutoencoderConfig) -> AutoencoderConfig:
    """The architecture alone, with an application's defaults for all settings that are not in the tensors."""
    known = next((published for published in MODELS.values() if _has_constants(published, config)), None)
    plain = dataclasses.replace(
        config, padding_mode="zeros", norm_eps=1e-6, encoder_scale=1.0, decoder_scale=1.0, latents_norm_eps=1e-4
    )
    if known is None or config.normalization == "batchnorm":
        return plain
    return dataclasses.replace(
        plain, normalization="scalar", scaling_factor=known.scaling_factor, shift_factor=known.shift_factor
    )


def _check_rivals(job: _Job, dst: Path) -> None:
    """Check that A1111 will select this file. Errors: ConfigError if it would select another one."""
    checkpoint = None if job.slot is None else job.slot.path
    rivals = webui_rivals(job.models, dst, checkpoint)
    if rivals.namesakes:
        raise ConfigError(
            f"{rivals.namesakes[0]} has this name too, and A1111 keeps one of the two; rename or remove it, or pass "
            "another --name"
        )
    if checkpoint is not None and rivals.before:
        raise ConfigError(
            f"A1111 would select {rivals.before[0]} for {checkpoint.name}, before {dst.name}; rename or remove it first"
        )
    if checkpoint is not None and rivals.beside:
        job.notes.append(
            f"the name of {rivals.beside[0].name} begins with {webui_stem(checkpoint)} too, and A1111 selects the "
            "one that the folder lists first; if that is the wrong one, choose this one in the settings"
        )
    if others := webui_also_takes(job.models, dst, checkpoint):
        job.notes.append(
            f"A1111 selects it for {', '.join(p.name for p in others[:3])} as well, because its name begins with theirs"
        )
    if checkpoint is not None and (chosen := webui_preference(checkpoint)) not in (None, dst.name):
        job.notes.append(
            f"{checkpoint.name} has {chosen} chosen in its card in A1111, which has priority; set that to Automatic"
        )


def _note_more_folders(job: _Job) -> None:
    if (job.models.parent / "extra_model_paths.yaml").is_file():
        job.notes.append("extra_model_paths.yaml names more folders, which were not searched")


# TAESDs


def _install_tiny(job: _Job, config: TinyConfig) -> Installed:
    if job.slot is not None and (misfit := misfit_of(config, job.slot)):
        raise ConfigError(f"{job.slot.path} is made for {misfit}")
    kind = _tiny_name(job, config)
    ending = ".pth" if job.application == "webui" else ".safetensors"
    folder = job.models / TINY_VAES[job.application]
    items = {
        prefix: [i for i in vae_items(job.located, finite=True) if i.name.startswith(prefix)]
        for prefix in TAESD_HALVES.values()
    }
    files = [
        (folder / f"{kind}{prefix.removeprefix('taesd').rstrip('.')}{ending}", [_bare(item, prefix) for item in half])
        for prefix, half in items.items()
    ]
    if job.application == "comfyui":
        _note_more_folders(job)
        for dst, _ in files:
            if before := comfyui_before(folder, dst):
                raise ConfigError(f"ComfyUI would load {before[0]} before {dst.name}; rename or remove it first")
        how = f"in ComfyUI, choose {kind} in the node Load VAE; previews use it with --preview-method taesd"
    else:
        if kind in _NEW_TINY:
            job.notes.append(f"A1111 and the original Forge do not look for {kind}; Forge Neo does")
        how = "A1111 uses it if Live preview method, or VAE type for encode and decode, is set to TAESD"
    metadata = {"format": "pt", **native.config_metadata(config), **trained_on_metadata(job.located)}
    if write_once(files, metadata, job.overwrite):
        how = f"already installed, nothing was written; {how}"
    return Installed(str(files[0][0]), how, tuple(job.notes), tuple(str(dst) for dst, _ in files[1:]))


def _bare(item: Item, prefix: str) -> Item:
    return dataclasses.replace(item, name=item.name.removeprefix(prefix))


def _tiny_name(job: _Job, config: TinyConfig) -> str:
    """The published TAESD that the file replaces, by the name given, the checkpoint, the shapes or the source's name.

    Errors: ConfigError if several are possible, or none.
    """
    fitting = [
        name
        for name, c in _TINY_CHANNELS.items()
        if c == config.latent_channels and config.mid_pool == (name == "taef2")
    ]
    if not fitting or not is_taesd(config):
        raise ConfigError(
            "applications have networks for TAESD, TAESDXL, TAESD3, TAEF1 and TAEF2 only, and this one fits none of "
            "them"
        )
    if job.name is not None:
        if job.name not in fitting:
            raise ConfigError(
                f"name (={job.name!r}) must be one of {', '.join(fitting)}, the names of TAESDs with this shape"
            )
        return job.name
    match = re.match(rf"({'|'.join(sorted(fitting, reverse=True))})(?:_|\.|$)", Path(job.source).name)
    said = match[1] if match else None
    if job.slot is not None and len(fitting) > 1:
        fitting = [name for name in fitting if TINY_NAMES[name] == job.constants]
        if len(fitting) == 1:
            but = f", although its name says {said}" if said not in (None, *fitting) else ""
            job.notes.append(
                "its file does not say for which diffusion model it was made: it is taken for this checkpoint's, "
                f"{fitting[0]}{but}"
            )
    elif said is not None and len(fitting) > 1:
        fitting = [said]
        job.notes.append(f"its file does not say for which diffusion model it was made: by its name it is {said}")
    if len(fitting) != 1:
        choices = ", ".join(name for name, c in _TINY_CHANNELS.items() if c == config.latent_channels)
        raise ConfigError(
            f"its shapes do not say for which diffusion model it is; pass --name, one of {choices}, or a checkpoint "
            "(--for)"
        )
    return fitting[0]
