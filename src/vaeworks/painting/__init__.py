"""Train a denoiser for the latents of a VAE: from images with captions to a pipeline that diffusers loads."""

from .loop import train_pipeline

__all__ = ["train_pipeline"]
