"""Which latent space does a diffusion model learn best? Small generators, trained alike on each, and judged with
intervals.

entrants -> contest (encoded, trial, judge) -> outcome (verdict) -> page. `study` trains the autoencoders as well.
"""
