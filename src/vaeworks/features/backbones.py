"""Frozen networks for alignment and for discriminators: by name, from a folder, or the user's own.

They stay in evaluation mode, are never trained, and let the gradient through to the image.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config.recorded import Recorded
from ..errors import ConfigError, FormatError, MissingExtraError, VaeworksError
from ..files.hub_network import one_try
from ..formats.foreign_code import check_config, check_folder
from .nets import FEATURE_NETS
from .weights import load_feature_net

LAYERS = 4
"""Maps that are taken of a transformer, evenly spaced, the last one included."""

HUB = "hf:"

UNKNOWN = 32
"""Side in pixels of the smallest image that a network is given which does not say how small they may be."""


class Backbone(nn.Module):
    """A frozen network as a list of feature maps: images n c h w in [-1,1] to maps n d_i h_i w_i, shallowest first.

    `smallest` is the side of the smallest images that it takes, in pixels; a user's own network may have an attribute
    of this name.
    """

    def __init__(self, network: Callable[[Tensor], Any], name: str):
        super().__init__()
        if isinstance(network, nn.Module):
            network.requires_grad_(False).eval()
        self.network, self.name = network, name
        self.smallest = int(getattr(network, "smallest", UNKNOWN))

    def train(self, mode: bool = True) -> Backbone:
        """It stays in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> Sequence[Tensor]:
        """Errors: ConfigError for a network that returns no maps n d h w."""
        found = self.network(images if images.shape[1] == 3 else images.expand(-1, 3, -1, -1))
        maps = [found] if isinstance(found, Tensor) else list(found) if isinstance(found, (list, tuple)) else []
        if not maps or any(not isinstance(m, Tensor) or m.ndim != 4 or len(m) != len(images) for m in maps):
            raise ConfigError(
                f"{self.name} must return feature maps n d h w, a tensor or a list of them, not {_described(found)}"
            )
        return maps

    @torch.no_grad()
    def channels(self, size: int, in_channels: int, device: torch.device) -> list[int]:
        """Channels of its maps, tried out on one image of `size` pixels.

        Errors: ConfigError where that fails.
        """
        try:
            return [m.shape[1] for m in self(torch.zeros(1, in_channels, size, size, device=device))]
        except ConfigError:
            raise
        except Exception as error:  # it may be anybody's
            raise ConfigError(f"{self.name} fails on an image of {size}x{size} pixels: {_line(error)}") from error


def load_backbone(
    network: str | Callable[[Tensor], Any] | None,
    path: str | Path | None,
    downsample_factor: int,
    say: Callable[[str], None] | None = None,
) -> Backbone:
    """A frozen network: a name of features/nets.py with weights at `path`, a transformers folder, hf:OWNER/NAME,
    MODULE:FUNCTION, or anything that can be called.

    downsample_factor: of the latents; a vision transformer gets images so large that it has a token for each latent.
    Errors: ConfigError for what names no network; FormatError for weights that are not there.
    """
    if network is None:
        raise ConfigError("no frozen network is named")
    if not isinstance(network, str):
        if not callable(network):
            raise ConfigError(f"features must be something that can be called with images, not {_described(network)}")
        return Backbone(network, getattr(network, "__name__", type(network).__name__))
    if network in FEATURE_NETS:
        return Backbone(load_feature_net(network, path, say=say), network)
    if isinstance(network, Recorded):
        raise ConfigError(
            f"{network!r} was named by a file alone; a network that is not this package's own must be named by its user"
        )
    if network.startswith(HUB) or (Path(network).expanduser() / "config.json").is_file():
        return Backbone(_transformer(network, downsample_factor), network)
    module, _, function = network.partition(":")
    if function and all(part.isidentifier() for part in [*module.split("."), function]):
        return Backbone(_own(module, function), network)
    known = ", ".join(FEATURE_NETS)
    raise ConfigError(
        f"{network!r} names no network: take one of {known}, a transformers folder, hf:OWNER/NAME or MODULE:FUNCTION"
    )


def _own(module: str, function: str) -> Callable[[Tensor], Any]:
    """What the user's function returns. Modules are looked for in the current folder as well."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        made = getattr(importlib.import_module(module), function)()
    except Exception as error:  # it is anybody's code
        raise ConfigError(f"{module}:{function} cannot be had: {_line(error)}") from error
    if not callable(made):
        raise ConfigError(
            f"{module}:{function} must return something that can be called with images, not {_described(made)}"
        )
    return made


def _transformer(name: str, downsample_factor: int) -> nn.Module:
    """Errors: FormatError for what cannot be loaded whole, ConfigError for what is no vision transformer."""
    try:
        from transformers import AutoModel, PretrainedConfig
    except ImportError:
        raise MissingExtraError("transformers", "diffusers", f"the network {name}") from None
    source = name.removeprefix(HUB) if name.startswith(HUB) else str(Path(name).expanduser())
    unreachable = ""
    try:
        if Path(source).is_dir():
            check_folder(Path(source))
        with nullcontext("") if Path(source).is_dir() else one_try() as unreachable:
            if not Path(source).is_dir():
                check_config(PretrainedConfig.get_config_dict(source)[0], f"config.json of {name}")
            model, report = AutoModel.from_pretrained(
                source, output_loading_info=True, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
            )
    except VaeworksError:
        raise
    except Exception as error:  # OSError, ValueError, and whatever is raised by files that are torn
        if unreachable:
            raise FormatError(f"{name} is not in the hub's cache, and {unreachable}; pass a folder instead") from None
        raise FormatError(f"{name} cannot be loaded: {_line(error)}") from error
    if missing := sorted(key for key in report["missing_keys"] if "pooler" not in key):
        raise FormatError(
            f"{name} lacks {len(missing)} of its network's tensors, the first {missing[0]!r}; take a whole copy"
        )
    model = getattr(model, "vision_model", model)  # of a pair of towers, the one that sees
    if not isinstance(getattr(model.config, "patch_size", None), int):  # convolutional networks have none
        raise ConfigError(
            f"{name} is a {type(model).__name__}; only vision transformers with a patch_size are supported"
        )
    return _Tokens(model, downsample_factor, *_colours(source))


def _colours(source: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of red, green and blue in [0,1] that a network was trained with, ImageNet's where it
    does not say."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        values, _ = ImageProcessingMixin.get_image_processor_dict(source)
    except OSError:
        values = {}
    found = [values.get(key) or default for key, default in (("image_mean", _Tokens.MEAN), ("image_std", _Tokens.STD))]
    for colour in found:
        if (
            not isinstance(colour, (list, tuple))
            or len(colour) != 3
            or not all(isinstance(v, (int, float)) for v in colour)
        ):
            raise FormatError(
                f"{source} has {str(colour)[:60]} as a mean or deviation of red, green and blue; three numbers belong "
                "there"
            )
    return found[0], found[1]


class _Tokens(nn.Module):
    """A vision transformer's tokens as maps; what comes before the patches' tokens (class, registers) is left out."""

    MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    """of ImageNet, which DINO, DINOv2 and MAE were trained with"""

    smallest = 1

    def __init__(self, model: nn.Module, downsample_factor: int, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.model, self.f = model, downsample_factor
        config: Any = model.config
        self.patch = int(config.patch_size)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        asked = inspect.signature(
            model.forward
        ).parameters  # some need to be told that images have another size than in their pretraining
        self.any_size = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in asked else {}

    mean: Tensor
    std: Tensor

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images n 3 h w in [-1,1] to LAYERS maps n d h/f w/f; the last one is the model's output, normalized as it
        leaves it."""
        height, width = (max(1, side // self.f) for side in images.shape[-2:])
        x = ((images.float() + 1) / 2 - self.mean) / self.std
        x = F.interpolate(
            x, size=(height * self.patch, width * self.patch), mode="bicubic", antialias=True, align_corners=False
        )
        output = self.model(pixel_values=x, output_hidden_states=True, **self.any_size)
        states = [*output.hidden_states[1:-1], output.last_hidden_state]
        taken = sorted({round((i + 1) * len(states) / LAYERS) - 1 for i in range(LAYERS)})
        return [states[i][:, -height * width :].transpose(1, 2).unflatten(2, (height, width)) for i in taken if i >= 0]


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, (list, tuple)) else type(value).__name__


def _line(error: Exception) -> str:
    """An exception's message, in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
