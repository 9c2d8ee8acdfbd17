"""Training."""

from .latent_stats import LatentStats, measure_latents
from .loop import Interrupted, RunResult, train
from .run import read_run

__all__ = ["Interrupted", "LatentStats", "RunResult", "measure_latents", "read_run", "train"]
