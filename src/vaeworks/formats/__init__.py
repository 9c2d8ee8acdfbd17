"""Model files: every layout in, every layout out.

The names below are resolved when first used: what only looks at files does without PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .accelerate import accelerate, decelerate
    from .diffusers import to_diffusers
    from .from_diffusers import from_diffusers
    from .layouts import load, save
    from .locate import Layout, Located, detect
    from .onnx import export_onnx

_HOME = {
    "Layout": "locate", "Located": "locate", "accelerate": "accelerate", "decelerate": "accelerate", "detect": "locate",
    "export_onnx": "onnx", "from_diffusers": "from_diffusers", "load": "layouts", "save": "layouts", "to_diffusers": "diffusers",
}  # fmt: skip

__all__ = ["Layout", "Located", "accelerate", "decelerate", "detect", "export_onnx", "from_diffusers", "load", "save", "to_diffusers"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vaeworks.formats' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
