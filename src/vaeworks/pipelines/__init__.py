"""Stable Diffusion pipelines with a VAE of ours inside, and their VAE computed by our `Codec`."""
