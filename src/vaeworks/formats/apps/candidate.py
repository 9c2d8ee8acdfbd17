"""A VAE as an application is offered it: what is in the file, under which name, and how that differs from another
network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from ...config import AutoencoderConfig, TinyConfig
from ..keymap import is_attention_matrix, layout_name
from ..kinds.families import CheckpointFamily, checkpoint_family
from ..locate import OPTIONAL, Layout, Located
from ..sources import WEIGHTS
from ..tensor_shapes import tensor_shapes

Shapes = Mapping[str, tuple[int, ...]]
"""By LDM's names, attention's matrices being convolutions; of layout "native" by ours."""


PICKLE_ENDINGS = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pt2")


@dataclass(frozen=True)
class OfferedFile:
    """A file or folder that holds a VAE."""

    config: AutoencoderConfig | TinyConfig
    layout: Layout
    shapes: Shapes
    """of the KL family's tensors"""
    normalization_known: bool
    """whether the file itself says how its latents are normalized"""
    name: str = WEIGHTS
    """of the file with the weights"""
    ending: str = ".safetensors"
    pickled: bool = False
    """whether its content is a pickle, whatever its ending says"""
    folder: bool = False
    """whether it lies in a diffusers folder, beside a config.json"""
    whole: bool = True
    """whether it is one file: no shards, no pair"""
    old_names: bool = False
    prefix: str = ""
    family: CheckpointFamily | None = None
    """of the checkpoint around the VAE"""
    beside: tuple[str, ...] = ()
    """names that are no part of the VAE, without prefix"""
    unsafe: bool = False
    """whether a pickle names classes, which PyTorch's safe loader refuses"""
    more: bool = False
    """whether a pickle holds more than tensors, which PyTorch's safe loader may refuse"""


def as_it_is(located: Located) -> OfferedFile:
    """What was located."""
    archive, config = located.archive, located.config
    stored = {name: archive.entries[theirs].shape for name, theirs in located.names.items() if name != OPTIONAL}
    if located.layout != "ldm":  # who reads these makes convolutions of attention's matrices
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
        beside=tuple(name.removeprefix(located.prefix) for name in located.ignored),
        more=bool(archive.dropped),
        unsafe=any(dropped.startswith("class ") for dropped in archive.dropped),
    )


def wrong_ending(offer: OfferedFile) -> str | None:
    """Why a program that chooses its reader by the ending cannot read the file."""
    if offer.pickled and offer.ending in (".safetensors", ".sft"):
        return f"it is a pickle, and its ending {offer.ending} says safetensors"
    if not offer.pickled and offer.ending in PICKLE_ENDINGS:
        return f"it is a safetensors file, and its ending {offer.ending} says pickle; rename it to .safetensors"
    return None


def as_saved(config: AutoencoderConfig | TinyConfig, layout: Layout) -> OfferedFile:
    """What vaeworks would save in this layout; of a TAESD in its own layout, the pair of files."""
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
    """The tensors of a file of this architecture."""
    kept = {name: shape for name, shape in tensor_shapes(config).items() if name != OPTIONAL}
    if layout == "native":
        return kept
    return {layout_name(name, "ldm", config): _convolved(name, shape) for name, shape in kept.items()}


def _convolved(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:2], 1, 1) if is_attention_matrix(name) else shape


@dataclass(frozen=True)
class Differences:
    """How a file differs from a network that is to take it, by the name of one tensor of each kind; "" where there is
    none."""

    lacks: str
    left_over: str
    misfit: str
    """in both, of different shapes"""

    @property
    def first(self) -> str:
        """The one to be named."""
        return self.misfit or self.lacks or self.left_over


def differences(network: Shapes, file: Shapes) -> Differences:
    """What a file lacks, has too much, and has of other shapes, for this network."""
    return Differences(
        lacks=next((name for name in network if name not in file), ""),
        left_over=next((name for name in file if name not in network), ""),
        misfit=next((name for name in network if name in file and file[name] != network[name]), ""),
    )
