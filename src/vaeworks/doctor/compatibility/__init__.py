"""Whether a VAE fits the checkpoint it is used with."""
