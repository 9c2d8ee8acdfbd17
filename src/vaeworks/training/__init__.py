"""Training: from a configuration to a finished model in a run folder."""

from .latent_stats import LatentStats, measure_latents
from .loop import Interrupted, train
from .run.folder import read_run
from .run.result import RunResult

__all__ = ["Interrupted", "LatentStats", "RunResult", "measure_latents", "read_run", "train"]
