"""A VAE file as an application sees it: its tensors, its name, and the differences from a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from ...config import AutoencoderConfig, TinyConfig
from ..keymap import is_attention_matrix, layout_name
from ..kinds.families import CheckpointFamily, checkpoint_family
from ..locate import OPTIONAL, Located
from ..sources import WEIGHTS
from ..tensor_shapes import tensor_shapes
from ..vaes_in_file import Layout

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes by LDM's names, with attention matrices as convolutions; for layout "native" by our names."""


PICKLE_ENDINGS = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pt2")


@dataclass(frozen=True)
class OfferedFile:
    """A file or folder that holds a VAE."""

    config: AutoencoderConfig | TinyConfig
    layout: Layout
    shapes: Shapes
    """shapes of the tensors of a KL autoencoder"""
    normalization_known: bool
    """whether the file states how its latents are normalized"""
    name: str = WEIGHTS
    """name of the file with the weights"""
    ending: str = ".safetensors"
    pickled: bool = False
    """whether its content is a pickle, whatever its ending"""
    folder: bool = False
    """whether it is in a diffusers folder, beside a config.json"""
    whole: bool = True
    """whether it is one file, not shards or a pair"""
    old_names: bool = False
    prefix: str = ""
    family: CheckpointFamily | None = None
    """family of the checkpoint around the VAE"""
    beside: tuple[str, ...] = ()
    """names of further tensors, without prefix"""
    foreign: str = ""
    """a name that no program expects in this layout"""
    wrapper: str = ""
    """keys of the dicts in a pickle that all tensors lie in"""
    unsafe: bool = False
    """whether a pickle names classes, which PyTorch's safe loader refuses"""
    more: bool = False
    """whether a pickle holds more than tensors, which PyTorch's safe loader may refuse"""


def as_it_is(located: Located) -> OfferedFile:
    """The offer of a located file."""
    archive, config = located.archive, located.config
    stored = {name: archive.entries[theirs].shape for name, theirs in located.names.items() if name != OPTIONAL}
    if located.layout != "ldm":  # readers of these layouts convert attention matrices to convolutions
        stored = {name: _convolved(name, shape) for name, shape in stored.items()}
    if located.layout != "native" and isinstance(config, AutoencoderConfig):
        stored = {layout_name(name, "ldm", config): shape for name, shape in stored.items()}
    return OfferedFile(
        config=config,
        layout=located.layout,
        shapes=stored,
        normalization_known=located.normalization_source in ("config", "metadata", "given")
        and located.config.normalization_known,
        name=archive.path.name.removesuffix(".index.json"),
        ending=archive.path.suffix.lower(),
        pickled=archive.container == "pickle"
        or (archive.container == "pair" and archive.path.suffix in PICKLE_ENDINGS),
        folder=located.layout == "diffusers" and located.has_config,
        whole=archive.container not in ("shards", "pair"),
        old_names=located.old_names,
        prefix=located.prefix,
        family=checkpoint_family(archive.entries),
        beside=tuple(name.removeprefix(located.prefix) for name in (*located.ignored, *located.beside)),
        foreign=located.foreign,
        wrapper=archive.wrapper,
        more=bool(archive.dropped),
        unsafe=any(dropped.startswith("class ") for dropped in archive.dropped),
    )


def wrong_ending(offer: OfferedFile) -> str | None:
    """Why a program that chooses the reader by the ending cannot read the file; None if it can."""
    if offer.pickled and offer.ending in (".safetensors", ".sft"):
        return f"it is a pickle, and its ending {offer.ending} says safetensors"
    if not offer.pickled and offer.ending in PICKLE_ENDINGS:
        return f"it is a safetensors file, and its ending {offer.ending} says pickle; rename it to .safetensors"
    return None


def as_saved(config: AutoencoderConfig | TinyConfig, layout: Layout) -> OfferedFile:
    """The offer of a file that vaeworks would save in this layout; a TAESD in its own layout is a pair of files."""
    shapes = shapes_of(config, layout) if isinstance(config, AutoencoderConfig) else {}
    return OfferedFile(
        config,
        layout,
        shapes,
        normalization_known=config.normalization_known,
        folder=layout == "diffusers",
        whole=layout != "taesd",
    )


@lru_cache(maxsize=32)
def shapes_of(config: AutoencoderConfig, layout: Layout = "ldm") -> Shapes:
    """The shapes of a file with this architecture."""
    kept = {name: shape for name, shape in tensor_shapes(config).items() if name != OPTIONAL}
    if layout == "native":
        return kept
    return {layout_name(name, "ldm", config): _convolved(name, shape) for name, shape in kept.items()}


def _convolved(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:2], 1, 1) if is_attention_matrix(name) else shape


@dataclass(frozen=True)
class Differences:
    """Differences of a file from a network, with the name of one tensor of each kind; "" if there is none."""

    lacks: str
    left_over: str
    misfit: str
    """in both, with different shapes"""

    @property
    def first(self) -> str:
        """The difference to name in a message."""
        return self.misfit or self.lacks or self.left_over


def differences(network: Shapes, file: Shapes) -> Differences:
    """Tensors that a file lacks, has in excess, or has with another shape, compared with this network."""
    return Differences(
        lacks=next((name for name in network if name not in file), ""),
        left_over=next((name for name in file if name not in network), ""),
        misfit=next((name for name in network if name in file and file[name] != network[name]), ""),
    )
