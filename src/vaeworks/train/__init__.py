"""Training. The package can be called, and is then its function `train`: `vaeworks.train` means either, whichever was imported first."""

import sys
from types import ModuleType
from typing import Any

from .latent_stats import LatentStats, measure_latents
from .loop import Interrupted, RunResult, train
from .run import read_run

__all__ = ["Interrupted", "LatentStats", "RunResult", "measure_latents", "read_run", "train"]


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **named: Any) -> RunResult:
        return train(*arguments, **named)


sys.modules[__name__].__class__ = _Callable
