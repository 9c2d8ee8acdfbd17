"""Feature spaces for distances between sets of images, with their names and hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..features.backbones import load_backbone
from ..features.weights import SET_NETS, load_set_net
from ..images import to_model_range
from . import wavelet_statistics as wavelets

STATISTICS = "statistics"

TOKEN = 16
"""Pixels of an image for each token of a vision transformer: one of 256 pixels becomes 16 x 16 tokens, and is first
resized to 224 pixels where patches have 14."""

INCOMPARABLE = "not comparable with any published figure"


class Features:
    """Images to vectors, one at a time. Vectors of originals are kept, so several models need them computed once."""

    def __init__(self, name: str, description: str, digest: str, of: Callable[[Tensor], np.ndarray], smallest: int = 1):
        """of: a uint8 image c h w to d numbers; smallest: side of the smallest image that it takes, in pixels."""
        self.name, self.description, self.digest, self.smallest = name, description, digest, smallest
        self._of = of
        self._originals: dict[bytes, np.ndarray] = {}

    def __call__(self, image: Tensor) -> np.ndarray:
        """d numbers, float32."""
        return self._of(image)

    def of_original(self, image: Tensor) -> np.ndarray:
        """As a call, computed once for equal pixels."""
        key = hashlib.sha256(image.numpy().tobytes() + bytes(str(tuple(image.shape)), "ascii")).digest()
        if key not in self._originals:
            self._originals[key] = self._of(image)
        return self._originals[key]

    @property
    def frechet(self) -> str:
        """Name of the Fréchet distance: "FID" only for FID's own network."""
        return "FID" if self.name == "inception" else f"FD ({self.name})"

    @property
    def kernel(self) -> str:
        """Name of the kernel distance."""
        return "KID" if self.name == "inception" else f"KD ({self.name})"

    @property
    def stated(self) -> str:
        """The protocol's statement of it."""
        return f"{self.name}, {self.description} {self.digest}"


def load_features(
    name: str = STATISTICS,
    path: str | Path | None = None,
    device: torch.device | str = "cpu",
    say: Callable[[str], None] | None = None,
) -> Features:
    """A feature space: "statistics", which needs no network; "inception" or "mobilenetv2"; or any network that
    features/backbones.py takes.

    Such a network, for example DINOv2 as a folder or hf:OWNER/NAME, gives the mean of its last map over positions. For
    transformers this is the mean of the patch tokens; most published figures take the class token instead.
    path: weights. Errors: ConfigError for what names no network; FormatError for weights that are not there.
    """
    if name == STATISTICS:
        if path is not None:
            raise ConfigError(f"features 'statistics' have no weights, so features-weights (={path}) must not be given")
        digest = hashlib.sha256(
            repr((wavelets.SCALES, wavelets.FLOOR, wavelets.COLOUR, wavelets.OPPONENT)).encode()
        ).hexdigest()
        what = f"{wavelets.DIMENSIONS} statistics of Haar bands, no network, {INCOMPARABLE},"
        return Features(name, what, digest, wavelets.wavelet_statistics)
    if name in SET_NETS:
        net = load_set_net(name, path, say).to(device)
        what = (
            "FID's InceptionV3, resized to 299 as TensorFlow 1 does,"
            if name == "inception"
            else "mean over places, not resized,"
        )
        return Features(
            name, what, weights_digest(net), lambda image: _vector(net, image), 1 if name == "inception" else 32
        )
    backbone = load_backbone(name, path, TOKEN, say).to(device)
    what = f"last map's mean over places, a token of transformers for {TOKEN} px,"
    return Features(name, what, weights_digest(backbone), lambda image: _pooled(backbone, image), backbone.smallest)


def weights_digest(network: nn.Module) -> str:
    """SHA-256 over a network's tensors with their names, in hex; its class's name for one that has none."""
    state = network.state_dict()
    if not state:
        return type(network).__name__
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        if not name.endswith("num_batches_tracked"):
            digest.update(
                name.encode() + tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            )
    return digest.hexdigest()


def _model_input(network: nn.Module, image: Tensor) -> Tensor:
    weight: Any = next(network.parameters(), torch.empty(0))
    return to_model_range(image.expand(3, -1, -1)[None]).to(weight.device)


@torch.inference_mode()
def _vector(network: nn.Module, image: Tensor) -> np.ndarray:
    return network(_model_input(network, image))[0].float().cpu().numpy()


@torch.inference_mode()
def _pooled(network: nn.Module, image: Tensor) -> np.ndarray:
    return network(_model_input(network, image))[-1][0].float().mean((1, 2)).cpu().numpy()
