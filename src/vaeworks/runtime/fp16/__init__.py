"""Half precision: the range of activations, and repair of a VAE that overflows."""
