"""The moving average of the weights, which is what a run saves as its model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def ema_update_(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average = decay * average + (1 - decay) * model, for all parameters, in place."""
    ema_lerp_(list(average.parameters()), list(model.parameters()), decay)


@torch.no_grad()
def ema_lerp_(average: Sequence[Tensor], model: Sequence[Tensor], decay: float) -> None:
    """As `ema_update_`, of some parameters."""
    torch._foreach_lerp_(list(average), list(model), 1 - decay)


def ema_decay(halflife: int, batch: int, images_seen: int) -> float:
    """Decay per step of a weight average with this half-life in images; at the start a twentieth of the images seen.

    Source: the ramp-up of Karras et al. 2022 (arXiv 2206.00364), table 7.
    """
    halflife = min(halflife, max(1, images_seen // 20))
    return 0.5 ** (batch / halflife)
