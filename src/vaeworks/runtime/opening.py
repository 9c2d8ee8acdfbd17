"""Open models and codecs: the first step of every function that takes a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch

from ..arguments import check_choice
from ..devices import DTYPES, resolve_device
from ..formats import load
from ..formats.shared_weights import in_memory
from ..models import Autoencoder
from .codec import Codec

if TYPE_CHECKING:
    from ..formats.shared_weights import TheirVAE

Model: TypeAlias = "str | Path | Autoencoder | Codec | TheirVAE"
"""An autoencoder, ours, a codec's or diffusers', or where one is: a run folder, a VAE file or folder, a full
checkpoint, hf:OWNER/NAME."""

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]


def open_model(model: Model, settings: Mapping[str, Any] | None = None, device: str = "auto") -> Autoencoder:
    """The model on a device. On a CPU float16 becomes float32, because convolutions in float16 are up to hundreds of
    times slower there.

    settings: facts that the file does not contain, as keywords of `load`. device: "auto" is a GPU if there is one. An
    autoencoder is returned as it is, on its own device; one of diffusers is wrapped, and shares its weights.
    Errors: those of `load`.
    """
    if (known := in_memory(model)) is not None:
        return known
    autoencoder, on = load(str(model), **(settings or {})), resolve_device(device)
    if on.type == "cpu" and autoencoder.dtype == torch.float16:
        autoencoder = autoencoder.float()
    return autoencoder.to(on)


def open_in_own_dtype(model: Model, settings: Mapping[str, Any] | None = None) -> Autoencoder:
    """The model in the dtype of its file, on a GPU if there is one. An autoencoder is returned as it is.

    settings: as in `open_model`. Errors: those of `load`.
    """
    if (known := in_memory(model)) is not None:
        return known
    return load(str(model), **(settings or {})).to(resolve_device("auto"))


def name_of(model: Model) -> str:
    """The model's name in results: the path or hub id that was given, or an autoencoder's own name."""
    known = in_memory(model)
    return str(model) if known is None else known.config.name


def open_codec(
    model: Model,
    memory: str | int | None = None,
    precision: Precision | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Codec:
    """A codec of the model within a memory budget, on a GPU if there is one.

    A codec without another budget or precision is returned as it is.

    memory: bytes, or "4GiB"; None: most of the free memory. precision: None is the weights' own, but fp32 for fp16
    weights on a CPU. settings: as in `open_model`.
    """
    if precision is not None:
        check_choice("precision", precision, DTYPES)
    if isinstance(model, Codec) and memory is None and precision is None:
        return model
    autoencoder = open_in_own_dtype(model, settings)
    if precision is None and autoencoder.device.type == "cpu" and autoencoder.dtype == torch.float16:
        precision = "fp32"
    return Codec(autoencoder, memory=memory, dtype=None if precision is None else DTYPES[precision])
