"""Stable Diffusion pipelines with a VAE of ours inside, and their VAE computed by our `Codec`."""

from .stable_diffusion import inject, load_pipeline, paint

__all__ = ["inject", "load_pipeline", "paint"]
