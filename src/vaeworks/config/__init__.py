"""Every setting of the product, as frozen dataclasses. Imports no torch, so that `--help` is instant.

A recipe (recipes/) returns a `TrainConfig`; its JSON is the record kept in run folders and model files.
"""

from .arena import ARENA_VERSION, PROBES, ArenaConfig, DiTConfig
from .balance import BalanceConfig
from .losses import AdversarialConfig, LossConfig, RegularizerConfig
from .model import (
    FACTS,
    MAX_LEVELS,
    OPEN,
    AutoencoderConfig,
    BottleneckConfig,
    LatentConfig,
    TinyConfig,
    built_in,
    setting,
)
from .named import MODELS, TINY_MODELS
from .optimizer import OptimizerConfig
from .painting import DenoiserConfig, MoveConfig, PaintConfig
from .plain import abridged, differences, dumps, from_dict, to_dict
from .recorded import asked_options, check_asked, recorded
from .training import DataConfig, FinetuneConfig, TrainConfig

__all__ = [
    "ARENA_VERSION",
    "FACTS",
    "MAX_LEVELS",
    "MODELS",
    "OPEN",
    "PROBES",
    "TINY_MODELS",
    "AdversarialConfig",
    "ArenaConfig",
    "AutoencoderConfig",
    "BalanceConfig",
    "BottleneckConfig",
    "DataConfig",
    "DenoiserConfig",
    "DiTConfig",
    "FinetuneConfig",
    "LatentConfig",
    "LossConfig",
    "MoveConfig",
    "OptimizerConfig",
    "PaintConfig",
    "RegularizerConfig",
    "TinyConfig",
    "TrainConfig",
    "abridged",
    "asked_options",
    "built_in",
    "check_asked",
    "differences",
    "dumps",
    "from_dict",
    "recorded",
    "setting",
    "to_dict",
]
