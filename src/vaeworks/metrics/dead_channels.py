"""Thresholds below which a latent channel counts as dead; the training alarm and the doctor share them."""

from __future__ import annotations

DEAD_NATS = 0.01
"""Nats per element below which a posterior's channel carries no information. Burda et al. 2015 (arXiv 1509.00519) call
units active by the variance of their means; under a posterior as wide as the prior their threshold is twice this value.
Channels in use carry 1 and more."""


DEAD_SHARE = 1e-3
"""Variance of a channel, relative to the mean over channels, below which it is dead. The noise of a diffusion model's
first step already covers a channel with 3 % of the others' standard deviation."""
