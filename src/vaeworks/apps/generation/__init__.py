"""Pictures from latents: paths, variants, samples, and how they compare with real ones."""
