"""The moving average of the weights, which is what a run saves as its model."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def ema_update_(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average = decay * average + (1 - decay) * model, for all parameters, in place."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
