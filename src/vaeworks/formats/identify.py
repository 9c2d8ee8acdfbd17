"""Identify a VAE file from its headers and a few elements: what `vaeworks inspect` reports."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, overload

from ..config import MODELS, TINY_MODELS, AutoencoderConfig, LatentConfig, TinyConfig
from ..errors import ConfigError, FormatError
from ..words import many
from .apps import Support, support
from .diffusers_config import only_in_metadata
from .fingerprint import content_hash, fingerprint, relation
from .holes import likely_holes
from .kinds.families import CheckpointFamily, checkpoint_family
from .known_vaes import known_vaes, remember
from .locate import OPTIONAL, Located, locate
from .shapes import in_shapes
from .understood import understood
from .vaes_in_file import Layout

FAMILIES = {
    "sd1": "SD 1 / SD 2 / SDXL (same shapes)",
    "sd3": "SD 3 / Flux.1 (same shapes)",
    "flux2": "Flux.2",
    "sd-x4-upscaler": "SD x4 upscaler (f4)",
    "ldm-f4": "LDM f4",
    "ldm-f16": "LDM f16",
    "ldm-f32": "LDM f32",
    "small-f8c16": "vaeworks small-f8c16",
    "small-f8c4": "vaeworks small-f8c4",
    "small-f4c4": "vaeworks small-f4c4",
    "taesd": "TAESD / TAESDXL (same shapes)",
    "taesd3": "TAESD3 / TAEF1 (same shapes)",
    "taef2": "TAEF2",
    "taesana": "TAESana",
}
"""Architectures in words, by their names in `config`; of several with the same shapes, the first."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The identity of a VAE file. All values are plain, except `support`."""

    path: str
    container: str
    """"safetensors", "pickle", "shards" or "pair\""""
    layout: Layout
    old_names: bool
    """whether it has the attention names of diffusers before 0.18"""
    known_as: str | None
    """the name that the user has given to a VAE with this content (`inspect --remember`)"""
    family: str
    """in words; several families may share their shapes"""
    checkpoint: str | None
    """the diffusion model around the VAE, in words; None for a VAE alone"""
    baked: bool
    """whether it is part of a full checkpoint"""
    prefix: str
    """prefix of the VAE's tensor names"""
    downsample_factor: int
    in_channels: int
    out_channels: int
    latent_channels: int
    encoder_widths: tuple[int, ...]
    """channels of the levels, largest image first"""
    decoder_widths: tuple[int, ...]
    encoder_blocks: tuple[int, ...]
    """residual blocks of the levels, largest image first"""
    decoder_blocks: tuple[int, ...]
    mid_attention: bool
    attention_factors: tuple[int, ...]
    """downsampling factors of further levels with attention"""
    quant_conv: bool
    post_quant_conv: bool
    settings: tuple[str, ...]
    """settings that are in our metadata only, such as padding and epsilon; in brackets, the value that others use"""
    dtypes: tuple[str, ...]
    """dtypes of the weights, in safetensors' names, most frequent first"""
    parameters: int
    tensors: int
    """number of tensors of the VAE"""
    bytes: int
    """size of the VAE's weights in the file"""
    normalization: str
    """"scalar", "channel" or "batchnorm\""""
    scaling_factor: float
    shift_factor: float
    latents_mean: tuple[float, ...] | None
    latents_std: tuple[float, ...] | None
    normalization_source: str
    """source of these: "metadata", "config", "family", "given" or "unknown\""""
    content_hash: str
    """equal for equal weights, whatever the layout"""
    fingerprint: tuple[float, ...]
    """near for rounded and fine-tuned weights; `fingerprint.relation` compares two"""
    support: dict[str, Support]
    """by application"""
    ignored: tuple[str, ...]
    """names of tensors that training has left"""
    beside: tuple[str, ...]
    """names of other tensors behind the same prefix"""
    others: tuple[str, ...]
    """titles of the other VAEs in the file"""
    """further tensors in the file, which training left there"""
    dropped: tuple[str, ...]
    """other contents of a pickle, in words"""
    notes: tuple[str, ...]
    """plain sentences on what is uncertain"""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """(label, value) pairs for people; without path, support and notes."""
        f, c = self.downsample_factor, self.latent_channels
        rows = {
            "known as": self.known_as or "",
            "family": self.family,
            "images": _images(self.in_channels, self.out_channels),
            "latents": f"f{f}c{c}: 1/{f} of height and width, {c} channels",
            "normalization": _normalization(self),
            "layout": f"{self.layout}{' with old attention names' if self.old_names else ''}, {self.container}",
            "baked": f"in a checkpoint of {self.checkpoint}, under {self.prefix}" if self.baked else "",
            "prefix": "" if self.baked else self.prefix,
            "encoder": _half(self.encoder_widths, self.encoder_blocks),
            "decoder": _half(self.decoder_widths, self.decoder_blocks),
            "attention": ", ".join(
                ["middle"] * self.mid_attention + [f"at 1/{factor}" for factor in self.attention_factors]
            )
            or "none",
            "quant convs": " and ".join(["quant_conv"] * self.quant_conv + ["post_quant_conv"] * self.post_quant_conv)
            or "none",
            "settings": "; ".join(self.settings),
            "weights": f"{self.parameters:,} parameters, {self.tensors} tensors, {', '.join(self.dtypes)}, "
            f"{self.bytes / 1e6:,.1f} MB",
            "content": self.content_hash,
            "beside it": "; ".join(_beside(self)),
            "left out": ", ".join(self.dropped[:5])
            + (f" and {len(self.dropped) - 5} more" if len(self.dropped) > 5 else ""),
        }
        return [(name, value) for name, value in rows.items() if value]


_SOURCES = {
    "metadata": "from its metadata",
    "config": "from its config.json",
    "tensors": "from tensors beside it",
    "family": "as published for this architecture",
    "unknown": "because nothing is known about it",
    "given": "as given",
}


def _normalization(identity: Identity) -> str:
    source = _SOURCES[identity.normalization_source]
    if identity.normalization == "batchnorm":
        return "batch normalization of 2x2 squares of latents, with statistics among the weights"
    if identity.normalization == "channel":
        return f"(latents - mean) / std * {identity.scaling_factor:g} by channel, {source}"
    if identity.scaling_factor == 1 and not identity.shift_factor:
        return f"none, {source}"
    shift = f"(latents - {identity.shift_factor:g})" if identity.shift_factor else "latents"
    return f"{shift} * {identity.scaling_factor:g}, {source}"


_KINDS = {1: " (gray)", 3: " (RGB)"}
"""Kinds of images by their channels, where the number tells it."""


def _images(takes: int, gives: int) -> str:
    """Channels of the images that are encoded and decoded."""
    if takes == gives:
        return f"{many(takes, 'channel')}{_KINDS.get(takes, '')} in and out"
    return f"{takes}{_KINDS.get(takes, '')} channels in, {gives}{_KINDS.get(gives, '')} out"


def _beside(identity: Identity) -> Iterator[str]:
    """What else lies behind the same prefix, in words."""
    if identity.others:
        yield f"other VAEs: {', '.join(identity.others)}"
    if identity.ignored:
        yield f"{len(identity.ignored)} tensors of its training, such as {identity.ignored[0]}"
    if identity.beside:
        heads = Counter(name.removeprefix(identity.prefix).split(".")[0] for name in identity.beside)
        yield "no part of the VAE: " + ", ".join(f"{head}.* ({count})" for head, count in heads.most_common(5))


def _half(widths: tuple[int, ...], blocks: tuple[int, ...]) -> str:
    return f"widths {', '.join(map(str, widths))}; blocks {', '.join(map(str, blocks))}"


@dataclass(frozen=True)
class FileRelation:
    """How the weights of two VAE files are related."""

    a: str
    """path of the first file"""
    b: str
    """path of the second file"""
    relation: str
    """in words: "the same weights", "the same weights, rounded to fp16/bf16", "related ...", "different\""""


@dataclass(frozen=True)
class UnidentifiedFile:
    """A file among several in which no VAE could be identified."""

    path: str
    error: str
    """why, and the remedy; in one sentence"""


@dataclass(frozen=True)
class ComparedFiles:
    """Several VAE files, and how each pair of them is related."""

    files: tuple[Identity, ...]
    relations: tuple[FileRelation, ...]
    """one entry for each pair of files"""
    failed: tuple[UnidentifiedFile, ...] = ()
    """files without an identity"""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


@overload
def inspect(file: str | Path, /, *, settings: Mapping[str, Any] | None = None, name: str | None = None) -> Identity: ...


@overload
def inspect(
    file: str | Path, other: str | Path, /, *more: str | Path, settings: Mapping[str, Any] | None = None
) -> ComparedFiles: ...


def inspect(
    *files: str | Path, settings: Mapping[str, Any] | None = None, name: str | None = None
) -> Identity | ComparedFiles:
    """Identify VAE files: family, f, c, layout, dtype, scale, and which applications load them.

    Only headers and a few hundred elements of each tensor are read, and PyTorch is not imported.

    >>> vw.inspect("model.safetensors").family
    'SD 1 / SD 2 / SDXL (same shapes)'

    files: VAE files or folders, full checkpoints, hf:OWNER/NAME. settings: facts that the files leave out, as keywords
    of `load`, such as {"scale_of": "sdxl"}; they hold for every file. name: remember the one file's VAE by this name
    (formats/known_vaes.py), which `inspect` and `match` tell from now on.
    Returns an Identity for one file. For several files it returns their identities, the relation of each pair, and the
    reason for each file that has none.
    Errors: ConfigError without a file; for a single file, FormatError if it holds no VAE, and ConfigError for settings
    that the VAE cannot have.
    """
    if not files:
        raise ConfigError("inspect needs at least one file")
    if name is not None and len(files) != 1:
        raise ConfigError(f"a name is for one VAE, and {len(files)} files were given; name them one by one")
    if len(files) == 1:
        identity = identify(files[0], **(settings or {}))
        if name is None:
            return identity
        remember(identity.content_hash, name)
        return dataclasses.replace(identity, known_as=name)
    identities, failed = list[Identity](), list[UnidentifiedFile]()
    for file in files:
        try:
            identities.append(identify(file, **(settings or {})))
        except (FormatError, ConfigError) as error:
            failed.append(UnidentifiedFile(str(file), str(error)))
    relations = tuple(
        FileRelation(a.path, b.path, relation(a.fingerprint, b.fingerprint)) for a, b in combinations(identities, 2)
    )
    return ComparedFiles(tuple(identities), relations, tuple(failed))


def identify(path: str | Path, **settings: Any) -> Identity:
    """Identify one VAE file. Only headers and a few hundred elements of each tensor are read.

    settings: facts that the file leaves out, as keywords of `load`.
    Errors: FormatError for a file without a VAE, which says what the file is if that is known; ConfigError for settings
    that the VAE cannot have.
    """
    return identify_located(locate(path, **settings))


def identify_located(located: Located) -> Identity:
    """Identify a VAE that is located already.

    Errors: FormatError for a file that changed since it was located.
    """
    with understood(located.path):
        return _identify(located)


def _identify(located: Located) -> Identity:
    config, archive = located.config, located.archive
    entries = {name: archive.entries[theirs] for name, theirs in located.names.items()}
    dtypes = [entry.dtype for name, entry in entries.items() if name != OPTIONAL]
    checkpoint = checkpoint_family(archive.entries)
    content = content_hash(located)
    return Identity(
        path=str(located.path),
        known_as=known_vaes().get(content),
        container=archive.container,
        layout=located.layout,
        old_names=located.old_names,
        family=family_in_words(config),
        checkpoint=_title(checkpoint),
        baked=located.baked,
        prefix=located.prefix,
        downsample_factor=config.downsample_factor,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        latent_channels=config.latent_channels,
        **_network(config),
        settings=tuple(only_in_metadata(config, "ldm")),
        dtypes=tuple(sorted(set(dtypes), key=lambda dtype: (-dtypes.count(dtype), dtype))),
        parameters=sum(entry.numel for name, entry in entries.items() if not name.startswith("bn.")),
        tensors=len(entries),
        bytes=sum(entry.nbytes for entry in entries.values()),
        normalization=config.normalization,
        scaling_factor=config.scaling_factor,
        shift_factor=config.shift_factor,
        latents_mean=config.latents_mean,
        latents_std=config.latents_std,
        normalization_source=located.normalization_source,
        content_hash=content,
        fingerprint=fingerprint(located),
        support=support(located),
        ignored=located.ignored,
        beside=located.beside,
        others=located.others,
        dropped=archive.dropped,
        notes=((f"it {broken}", *located.remarks) if (broken := likely_holes(located)) else located.remarks),
    )


def _network(config: AutoencoderConfig | TinyConfig) -> dict[str, Any]:
    """The fields of an Identity that describe the network."""
    if isinstance(config, TinyConfig):
        stem = (0,) * len(config.stem)
        return {
            "encoder_widths": (*config.stem, *config.encoder_widths),
            "decoder_widths": config.decoder_widths,
            "encoder_blocks": (*stem, *config.encoder_blocks),
            "decoder_blocks": config.decoder_blocks,
            "mid_attention": False,
            "attention_factors": (),
            "quant_conv": False,
            "post_quant_conv": False,
        }
    levels = len(config.channel_mult)
    return {
        "encoder_widths": config.widths,
        "decoder_widths": config.decoder_widths,
        "encoder_blocks": (config.num_res_blocks,) * levels,
        "decoder_blocks": (config.num_res_blocks + 1,) * levels,
        "mid_attention": config.mid_attention,
        "attention_factors": config.attention_factors,
        "quant_conv": config.quant_conv,
        "post_quant_conv": config.post_quant_conv,
    }


def family_in_words(config: AutoencoderConfig | TinyConfig) -> str:
    """The published VAEs with this architecture, as far as shapes say; for others f, c and the difference.

    A VAE that has another scale than all of them is said to have its own: it fits none of their diffusion models.
    """
    known: dict[str, LatentConfig] = {**MODELS, **TINY_MODELS}
    shape = in_shapes(config)
    alike = [name for name in known if type(known[name]) is type(config) and in_shapes(known[name]) == shape]
    if name := next((name for name in FAMILIES if name in alike), None):
        own = config.normalization_known and all(_scale(known[n]) != _scale(config) for n in alike)
        return FAMILIES[name] + (", but with a scale of its own" if own else "")
    if isinstance(config, TinyConfig):
        return f"TAESD family {config.name}, own widths"
    if {**shape, "decoder_widths": config.widths} == in_shapes(MODELS["flux2"]):
        return "Flux.2 with a decoder of other widths"
    return f"KL {config.name}, own widths"


def _scale(config: LatentConfig) -> tuple[object, ...]:
    """What a diffusion model normalizes latents by."""
    return (
        config.normalization,
        config.scaling_factor,
        config.shift_factor,
        config.latents_mean,
        config.latents_std,
    )


def _title(checkpoint: CheckpointFamily | None) -> str | None:
    if checkpoint is None:
        return None
    return f"{checkpoint.title} for inpainting" if checkpoint.inpainting else checkpoint.title
