"""Optimizers by configuration."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from ..config import OptimizerConfig

FASTER = 10.0
"""Factor of the learning rate for parameters of one number: a log-variance has to move much farther than a weight."""


def build_optimizer(
    parameters: nn.Module | Iterable[nn.Parameter], config: OptimizerConfig, single: Iterable[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """Adam or AdamW; biases and norms have no weight decay. Frozen parameters have no gradient and stay as they are.

    Groups have a "scale", a factor of the schedule's learning rate. single: parameters of one number.
    """
    trained = list(parameters.parameters() if isinstance(parameters, nn.Module) else parameters)
    fused = all(p.device.type in ("cpu", "cuda") for p in trained)  # one pass over memory instead of a dozen
    numbers = {"params": list(single), "weight_decay": 0.0, "scale": FASTER}
    if config.kind == "adam":
        groups = [{"params": trained, "scale": 1.0}, numbers]
        return torch.optim.Adam([g for g in groups if g["params"]], lr=config.lr, betas=config.betas, fused=fused)
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay, "scale": 1.0},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "scale": 1.0},
        numbers,
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=config.betas, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set every group's learning rate: `lr` times the group's scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("scale", 1.0)
