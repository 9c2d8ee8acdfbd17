"""`load` and `save`: model files of every layout, recognized by their content, never by their name."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from ..config import AutoencoderConfig, TinyConfig
from ..errors import ConfigError, FormatError
from ..files.atomic import atomic, check_room, write_tensors
from ..models import Autoencoder
from . import native
from .archive import Archive
from .archive.torch_dtypes import TORCH_DTYPES
from .diffusers_config import diffusers_class, diffusers_config, guesses_written, only_in_metadata
from .finite import finite_cast, is_finite
from .given import model_in_memory
from .holes import check_holes
from .keymap import TAESD_HALVES, is_attention_matrix, layout_name
from .locate import OPTIONAL, Located, locate
from .provenance import trained_on_of
from .sources import WEIGHTS
from .understood import understood
from .vaes_in_file import Layout


def save(
    autoencoder: Autoencoder,
    path: str | Path,
    layout: Layout = "native",
    *,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> None:
    """Write a model in a layout.

    >>> vw.save(vae, "vae.safetensors")
    >>> vw.save(vae, "vae", "diffusers", dtype=torch.float16)

    path: the file or folder to write. layout: "native" and "ldm" are one .safetensors file, "diffusers" is a folder.
    "taesd" is one file with both halves, or a folder with a file for each if `path` has no ending. dtype: of the stored
    weights; None keeps theirs. overwrite: replace what exists.
    The file's metadata hold the whole configuration in every layout, so nothing is lost. A warning names the settings
    that other programs will not see. Guessed settings are left out; config.json must have them, and marks them.
    Errors: ConfigError for an unknown layout, a path that exists, an architecture that the layout cannot express, and
    weights that overflow in `dtype`.
    """
    autoencoder = model_in_memory(autoencoder)
    _description(layout, autoencoder.config)  # raises before anything is said
    _warn_of_losses(layout, autoencoder.config)
    write(autoencoder, path, layout, dtype=dtype, overwrite=overwrite)


def write(
    autoencoder: Autoencoder,
    path: str | Path,
    layout: Layout = "native",
    *,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> None:
    """Do what `save` does, without the warning about settings that other programs will not see."""
    path, config = Path(path), autoencoder.config
    description = _description(layout, config)
    tensors = stored_tensors(autoencoder, layout, dtype)
    metadata = {"format": "pt", **native.config_metadata(config)}
    if autoencoder.trained_on is not None:
        metadata |= autoencoder.trained_on.to_metadata()
    files = {path.name: tensors}
    if layout == "diffusers":
        files = {WEIGHTS: tensors}
    elif layout == "taesd" and not path.suffix:
        files = {
            f"{prefix[:-1]}.safetensors": {
                name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)
            }
            for prefix in TAESD_HALVES.values()
        }
    folder = files.keys() != {path.name}
    if overwrite and path.is_dir() and (not folder or {p.name for p in path.iterdir()} - {*files, "config.json"}):
        raise ConfigError(
            f"{path} is a folder that exists and holds other things than a VAE, so overwrite=True does not apply; "
            "choose another name"
        )
    with atomic(path, overwrite) as temporary:
        check_room(path, sum(t.numel() * t.itemsize for t in tensors.values()))
        if not folder:
            write_tensors(temporary, tensors, metadata)
            return
        temporary.mkdir()
        for name, content in files.items():
            write_tensors(temporary / name, content, metadata)
        if description is not None:
            (temporary / "config.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def _description(layout: str, config: AutoencoderConfig | TinyConfig) -> dict[str, Any] | None:
    """config.json of diffusers' layout. Errors: ConfigError for what a layout cannot express."""
    _check_layout(layout, config)
    if layout != "diffusers":
        return None
    return {"_class_name": diffusers_class(config), **diffusers_config(config), **guesses_written(config)}


def _check_layout(layout: str, config: AutoencoderConfig | TinyConfig) -> None:
    if layout not in get_args(Layout):
        raise ConfigError(f"unknown layout {layout!r}; known: {', '.join(get_args(Layout))}")
    if layout == "taesd" and not isinstance(config, TinyConfig):
        raise ConfigError(
            "layout 'taesd' is for the TAESD family; a KL autoencoder goes into 'native', 'ldm' or 'diffusers'"
        )
    if layout == "ldm" and isinstance(config, TinyConfig):
        raise ConfigError("layout 'ldm' is for KL autoencoders; a TAESD goes into 'native', 'taesd' or 'diffusers'")


def _warn_of_losses(layout: str, config: AutoencoderConfig | TinyConfig) -> None:
    if unseen := only_in_metadata(config, layout):
        warnings.warn(
            f"layout {layout!r} has no place for {'; '.join(unseen)}: vaeworks reads it from the file's metadata, "
            "other programs use the value in brackets",
            stacklevel=3,
        )


def stored_tensors(autoencoder: Autoencoder, layout: Layout, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The tensors of a model under the names of a layout; they are copied only to change the dtype.

    Errors: ConfigError for weights that overflow in `dtype`.
    """
    tensors = {}
    for name, tensor in autoencoder.state_dict().items():
        if dtype is not None and tensor.is_floating_point() and tensor.dtype != dtype:
            tensor = finite_cast(tensor, dtype, name)
        if layout == "ldm" and is_attention_matrix(name):
            tensor = tensor[:, :, None, None]
        tensors[layout_name(name, layout, autoencoder.config)] = tensor
    return tensors


def load(path: str | Path, **settings: Any) -> Autoencoder:
    """Load a VAE from a file or folder of any layout.

    >>> vae = vw.load("runs/dogs")
    >>> vae = vw.load("vae.safetensors", scale_of="sdxl")

    path: a run folder; a native, LDM, diffusers or TAESD file; a diffusers folder of a VAE or a whole pipeline; a full
    checkpoint with a VAE inside; one file or the folder of a TAESD pair; hf:OWNER/NAME on the hub. Files are
    .safetensors or pickles (.ckpt, .pt, .pth, .bin). Of pickles only tensors are read, and nothing is executed.
    settings: facts that the file leaves out (`guesses.SETTINGS`): scale_of="sdxl", norm_groups=4, norm_eps,
    padding_mode, num_heads, bound and limit, scaling_factor and shift_factor. A warning names the settings that are
    guessed, and the facts that a setting replaces. `save` does not write guesses, so such a file warns again.
    Returns the model in eval mode, on the CPU, in the file's precision (the widest, if it has several). Its weights are
    mapped from the file, not copied.
    Errors: FormatError for a file that is missing, torn, inconsistent, not finite or of an unknown kind; ConfigError
    for settings that the model cannot have.
    """
    located = locate(path, **settings)
    autoencoder = read(located)
    for doubt in located.doubts:
        warnings.warn(f"{path}: {doubt}", stacklevel=2)
    return autoencoder


def read(located: Located) -> Autoencoder:
    """The model that was located.

    Errors: FormatError for weights that are not finite, and for a file that changed since it was located.
    """
    with understood(located.path):
        return _read(located)


def _read(located: Located) -> Autoencoder:
    check_holes(located)
    with torch.device("meta"):
        autoencoder = Autoencoder(located.config)
    widest = _widest([located.archive.entries[name].dtype for name in located.names.values()])
    state = {}
    for name, theirs in located.names.items():
        tensor = _finite(located.archive, theirs, located.path)
        if name != OPTIONAL:
            tensor = tensor.to(widest)
        state[name] = tensor.flatten(1) if is_attention_matrix(name) else tensor
    if OPTIONAL in autoencoder.state_dict():
        state.setdefault(OPTIONAL, torch.tensor(0))
    autoencoder.load_state_dict(state, assign=True)
    autoencoder.trained_on = trained_on_of(located)
    return autoencoder.eval()


def _widest(dtypes: list[str]) -> torch.dtype:
    present = {dtype for dtype in dtypes if dtype in ("F64", "F32", "F16", "BF16")}
    if len(present) == 1:
        return TORCH_DTYPES[present.pop()]
    return torch.float64 if "F64" in present else torch.float32


def _finite(archive: Archive, name: str, where: Path) -> Tensor:
    tensor = archive.read(name)
    if not is_finite(tensor):
        raise FormatError(
            f"{where}: tensor {name!r} has {int((~tensor.isfinite()).sum())} values that are infinite or no numbers; "
            "the file is broken or was cast to a precision that cannot hold it; take another copy"
        )
    return tensor
