"""Diffusion models for the latents of a VAE: trained from scratch, and moved from another latent space."""
