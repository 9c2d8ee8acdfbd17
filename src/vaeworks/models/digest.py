"""Which model it is, whatever file it came from."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import torch

from ..config import to_dict
from .autoencoder import Autoencoder

SAME_PRECISION = "with weights in the same precision"
"""What errors say of models that must be the same: rounded weights are others."""


def model_digest(autoencoder: Autoencoder) -> str:
    """SHA-256 over configuration and weights, in hex: equal models have equal digests, whatever file they are from.

    Weights in another precision make another model: what it encodes and decodes differs.
    """
    config = dataclasses.replace(
        autoencoder.config, guessed=()
    )  # how sure its values are changes nothing that it makes
    digest = hashlib.sha256(json.dumps(to_dict(config), sort_keys=True, default=str).encode())
    for name, tensor in sorted(autoencoder.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
