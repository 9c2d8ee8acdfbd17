"""Autoencoders that differ in one thing, and what a diffusion model makes of each."""
