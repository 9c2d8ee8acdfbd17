"""When a channel of the latents counts as dead: the thresholds that training's alarm and the doctor share."""

from __future__ import annotations

DEAD_NATS = 0.01
"""Nats per element below which a channel of a posterior carries nothing: the threshold of Burda et al. 2015 (arXiv
1509.00519) for active units, there of the means' variance under a posterior as wide as the prior, of which it is twice
the value here. Channels in use carry 1 and more."""


DEAD_SHARE = 1e-3
"""Variance of a channel, as a share of the mean over channels, below which it is dead. A channel with 3 % of the
others' standard deviation is drowned by the noise that a diffusion model adds in its first step."""
