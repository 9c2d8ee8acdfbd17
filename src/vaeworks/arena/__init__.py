"""The arena: which latent space does a diffusion model learn best?

Small generators are trained on every latent space with all else equal, and compared with intervals. entrants ->
tournament (latent_dataset, probe_run, scorer) -> results (verdict) -> page. `study` trains the autoencoders as well.
"""
