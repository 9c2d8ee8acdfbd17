"""vaeworks: the workbench for the autoencoders of latent diffusion.

>>> import vaeworks as vw
>>> vae = vw.load("runs/dogs")                  # or vw.build("sd1") for random weights
>>> latents = vae.encode(images).sample()       # images n 3 h w in [-1,1]
>>> images = vae.decode(latents)
>>> pipe.vae = vw.to_diffusers(vae)

The names below are resolved when first used, so that importing vaeworks imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .moved import install as _find_moved_modules

if TYPE_CHECKING:
    from .config import AutoencoderConfig, DataConfig, LossConfig, OptimizerConfig, TrainConfig
    from .errors import ConfigError, DataError, FormatError, MissingExtraError, TrainingError, VaeworksError
    from .exports.onnx import export_onnx
    from .formats import from_diffusers, load, save, to_diffusers
    from .metrics import evaluate
    from .models import Autoencoder, Posterior, build
    from .pipelines.acceleration import accelerate, decelerate
    from .recipes import recipe
    from .runtime import Codec
    from .training import train

_HOME = {
    "Autoencoder": "models",
    "AutoencoderConfig": "config",
    "Codec": "runtime",
    "ConfigError": "errors",
    "DataConfig": "config",
    "DataError": "errors",
    "FormatError": "errors",
    "LossConfig": "config",
    "MissingExtraError": "errors",
    "OptimizerConfig": "config",
    "Posterior": "models",
    "TrainConfig": "config",
    "TrainingError": "errors",
    "VaeworksError": "errors",
    "accelerate": "pipelines.acceleration",
    "build": "models",
    "decelerate": "pipelines.acceleration",
    "evaluate": "metrics",
    "export_onnx": "exports.onnx",
    "from_diffusers": "formats",
    "load": "formats",
    "recipe": "recipes",
    "save": "formats",
    "to_diffusers": "formats",
    "train": "training",
}

__version__ = "0.1.0"
__all__ = [
    "Autoencoder",
    "AutoencoderConfig",
    "Codec",
    "ConfigError",
    "DataConfig",
    "DataError",
    "FormatError",
    "LossConfig",
    "MissingExtraError",
    "OptimizerConfig",
    "Posterior",
    "TrainConfig",
    "TrainingError",
    "VaeworksError",
    "accelerate",
    "build",
    "decelerate",
    "evaluate",
    "export_onnx",
    "from_diffusers",
    "load",
    "recipe",
    "save",
    "to_diffusers",
    "train",
]


_find_moved_modules()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vaeworks' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
