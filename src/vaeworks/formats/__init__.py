"""Model files: read and write every layout.

The names below are resolved when first used, so that looking at files needs no PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .diffusers import to_diffusers
    from .io import load, save
    from .locate import Located
    from .shared_weights import from_diffusers
    from .vaes_in_file import Layout, detect

_HOME = {
    "Layout": "vaes_in_file",
    "Located": "locate",
    "detect": "vaes_in_file",
    "from_diffusers": "shared_weights",
    "load": "io",
    "save": "io",
    "to_diffusers": "diffusers",
}

__all__ = ["Layout", "Located", "detect", "from_diffusers", "load", "save", "to_diffusers"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vaeworks.formats' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
