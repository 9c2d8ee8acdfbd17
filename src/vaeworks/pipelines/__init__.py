"""Stable Diffusion pipelines: put a VAE inside, generate images, and compute the VAE with our `Codec`."""
