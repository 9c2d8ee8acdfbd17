"""vaeworks: the workbench for the autoencoders of latent diffusion.

>>> import vaeworks as vw
>>> vae = vw.load("runs/dogs")                  # or vw.build("sd1") for random weights
>>> latents = vae.encode(vw.open_image("dog.jpg")).sample()
>>> pictures = vw.to_images(vae.decode(latents))
>>> pipe.vae = vw.to_diffusers(vae)

Every command of the command line is a function here: `vw.convert`, `vw.match`, `vw.train`, ... The names below are
resolved when first used, so that importing vaeworks imports no torch.
"""

from __future__ import annotations

from importlib import import_module

from .moved import install as _find_moved_modules

TYPE_CHECKING = False  # as typing's, which takes longer to import than this package
if TYPE_CHECKING:
    from typing import Any

    from .apps.anomaly.detect import detect_anomalies
    from .apps.audio.listen import listen
    from .apps.augmentation.augment import augment, judge_augmentation
    from .apps.editing.edit import edit
    from .apps.features.compare import compare_features
    from .apps.generation.interpolate import interpolate
    from .apps.generation.sample import sample
    from .apps.generation.vary import vary
    from .apps.restoration.restore import restore
    from .arena.api import report_claims, run_arena, run_study
    from .config import AutoencoderConfig, DataConfig, LossConfig, OptimizerConfig, TrainConfig
    from .demo import run_demo
    from .doctor import examine, examine_models, match
    from .errors import (
        ConfigError,
        DataError,
        FormatError,
        MissingExtraError,
        NotFiniteError,
        TrainingError,
        VaeworksError,
    )
    from .exports.onnx import export_onnx
    from .formats import from_diffusers, load, save, to_diffusers
    from .formats.apps.install import install
    from .formats.bake import bake, extract
    from .formats.convert import convert
    from .formats.fold import fold
    from .formats.identify import inspect
    from .images.tensors import open_image, to_images
    from .latents import LatentSet, encode_dataset
    from .latents.decode_files import decode
    from .latents.encode_files import encode
    from .latents.reconstruct import reconstruct
    from .metrics import evaluate, evaluate_models
    from .models import Autoencoder, Posterior, build
    from .painting import train_pipeline
    from .pipelines.acceleration import accelerate, decelerate
    from .pipelines.generate import generate
    from .recipes import list_recipes, paint_recipe, recipe
    from .reporting import Reporter
    from .runtime import Codec, repair
    from .training import train

_HOME = {
    "Autoencoder": "models",
    "AutoencoderConfig": "config",
    "Codec": "runtime",
    "ConfigError": "errors",
    "DataConfig": "config",
    "DataError": "errors",
    "FormatError": "errors",
    "LatentSet": "latents",
    "LossConfig": "config",
    "MissingExtraError": "errors",
    "NotFiniteError": "errors",
    "OptimizerConfig": "config",
    "Posterior": "models",
    "Reporter": "reporting",
    "TrainConfig": "config",
    "TrainingError": "errors",
    "VaeworksError": "errors",
    "accelerate": "pipelines.acceleration",
    "augment": "apps.augmentation.augment",
    "bake": "formats.bake",
    "build": "models",
    "compare_features": "apps.features.compare",
    "convert": "formats.convert",
    "decelerate": "pipelines.acceleration",
    "decode": "latents.decode_files",
    "detect_anomalies": "apps.anomaly.detect",
    "edit": "apps.editing.edit",
    "encode": "latents.encode_files",
    "encode_dataset": "latents",
    "evaluate": "metrics",
    "evaluate_models": "metrics",
    "examine": "doctor",
    "examine_models": "doctor",
    "export_onnx": "exports.onnx",
    "extract": "formats.bake",
    "fold": "formats.fold",
    "from_diffusers": "formats",
    "generate": "pipelines.generate",
    "inspect": "formats.identify",
    "install": "formats.apps.install",
    "interpolate": "apps.generation.interpolate",
    "judge_augmentation": "apps.augmentation.augment",
    "list_recipes": "recipes",
    "listen": "apps.audio",
    "load": "formats",
    "match": "doctor",
    "open_image": "images.tensors",
    "paint_recipe": "recipes",
    "recipe": "recipes",
    "reconstruct": "latents.reconstruct",
    "repair": "runtime",
    "report_claims": "arena.api",
    "restore": "apps.restoration.restore",
    "run_arena": "arena.api",
    "run_demo": "demo",
    "run_study": "arena.api",
    "sample": "apps.generation.sample",
    "save": "formats",
    "to_diffusers": "formats",
    "to_images": "images.tensors",
    "train": "training",
    "train_pipeline": "painting",
    "vary": "apps.generation.vary",
}

__version__ = "0.2.0"
__all__ = [
    "Autoencoder",
    "AutoencoderConfig",
    "Codec",
    "ConfigError",
    "DataConfig",
    "DataError",
    "FormatError",
    "LatentSet",
    "LossConfig",
    "MissingExtraError",
    "NotFiniteError",
    "OptimizerConfig",
    "Posterior",
    "Reporter",
    "TrainConfig",
    "TrainingError",
    "VaeworksError",
    "accelerate",
    "augment",
    "bake",
    "build",
    "compare_features",
    "convert",
    "decelerate",
    "decode",
    "detect_anomalies",
    "edit",
    "encode",
    "encode_dataset",
    "evaluate",
    "evaluate_models",
    "examine",
    "examine_models",
    "export_onnx",
    "extract",
    "fold",
    "from_diffusers",
    "generate",
    "inspect",
    "install",
    "interpolate",
    "judge_augmentation",
    "list_recipes",
    "listen",
    "load",
    "match",
    "open_image",
    "paint_recipe",
    "recipe",
    "reconstruct",
    "repair",
    "report_claims",
    "restore",
    "run_arena",
    "run_demo",
    "run_study",
    "sample",
    "save",
    "to_diffusers",
    "to_images",
    "train",
    "train_pipeline",
    "vary",
]

_find_moved_modules()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vaeworks' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
