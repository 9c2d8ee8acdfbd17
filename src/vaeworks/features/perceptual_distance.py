"""The perceptual distance of a run, on its device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ..config import LossConfig
from ..losses import Distance
from ..losses.perceptual import distance_without_weights
from .weights import load_feature_distance, load_lpips

LPIPS_NETWORKS = {"lpips-vgg16": "vgg16", "lpips-alexnet": "alexnet", "lpips-squeezenet": "squeezenet1_1"}


def perceptual_distance(
    config: LossConfig, device: torch.device, say: Callable[[str], None] | None = None
) -> Distance | None:
    """The distance with frozen weights; None where the configuration wants none. say: takes a line about a download.

    Errors: FormatError for weights that are not there and cannot be fetched; nothing replaces them.
    """
    if config.perceptual == "none":
        return None
    if config.perceptual == "without-weights":
        return distance_without_weights
    distance: nn.Module
    if config.perceptual == "vgg16-conv1to3":
        distance = load_feature_distance("vgg16_conv1to3", config.perceptual_path, say=say)
    else:
        distance = load_lpips(LPIPS_NETWORKS[config.perceptual], path=config.perceptual_path, say=say)
    return distance.to(device).requires_grad_(False).eval()
