"""Latents that other programs keep, and what to do with them."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from safetensors import SafetensorError

from ..files.tensor_file import open_tensors

REMEDY = "`vaeworks decode` takes what `vaeworks encode` writes, so encode the images again"

_BUCKET = re.compile(r"latents_\d+x\d+(x\d+)?(_.*)?")


def foreign_latents(path: Path) -> str:
    """What a file of another program's latents is, with a remedy, behind its name; empty for other files.

    Their latents may be scaled already, and do not say of which VAE they are; so they are not decoded.
    """
    if path.suffix == ".npz":
        return _of_arrays(path)
    try:
        with open_tensors(path, framework="np") as file:
            names = set(file.keys())
    except (SafetensorError, OSError, ValueError):
        return ""
    if "latent_tensor" in names:
        version = "" if "latent_format_version_0" in names else ", of its first format (scaled by 0.18215)"
        return f"is a latent that ComfyUI's node SaveLatent wrote{version}; decode it there, or {REMEDY}"
    if any(map(_BUCKET.fullmatch, names)):
        return f"is a cache of latents that musubi-tuner or sd-scripts made for training; {REMEDY}"
    return ""


def _of_arrays(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as file:
            names = {name.removesuffix(".npy") for name in file.namelist()}
    except (zipfile.BadZipFile, OSError):
        return "is no archive of arrays, although its name ends in .npz; " + REMEDY
    if names & {"moments", "moments_flip"}:
        return f"is a cache of moments that MAR made for training; {REMEDY}"
    if any(name == "latents" or _BUCKET.fullmatch(name) for name in names):
        return f"is a cache of latents that kohya's sd-scripts made for training; {REMEDY}"
    return f"is an archive of arrays, not a file of latents; {REMEDY}"
