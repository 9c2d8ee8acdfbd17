"""Half precision: how large activations become, and how a VAE that overflows is made to fit."""
