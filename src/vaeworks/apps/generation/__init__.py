"""Images from latents: interpolation, variants, samples, and metrics beside real images."""
