"""Train a denoiser by LoRA: small matrices beside its attention layers, merged into them at the end.

Source: Hu et al. 2021, "LoRA: low-rank adaptation of large language models" (arXiv 2106.09685).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError, MissingExtraError, NotFiniteError
from .moving import EDGES

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""Names of the projections within an attention layer of diffusers, where it has them: of the latents (in U-Nets' second
layers: of the text, too), then of the text's tokens in transformers. Flux's single blocks have no `to_out`."""

NAME = "vaeworks"
"""Of the adapter, while it is there."""


@dataclass(frozen=True)
class Lora:
    """A denoiser with LoRA layers, of which only these and the first and last layers are trained."""

    denoiser: Any
    """a UNet2DConditionModel, SD3Transformer2DModel or FluxTransformer2DModel"""
    adapted: tuple[str, ...]
    """names of the layers with LoRA"""
    whole: tuple[str, ...]
    """names of the layers that are trained in full"""

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name in the denoiser: what an optimizer gets, and what a checkpoint needs to keep."""
        return {name: p for name, p in self.denoiser.named_parameters() if p.requires_grad}

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters.values())

    @torch.no_grad()
    def merge(self) -> Any:
        """Add the LoRA layers to the weights beside them and take them away; return the denoiser, with no trace of
        peft.

        Nothing requires a gradient afterwards. Sums are rounded to the weights' dtype.
        Errors: NotFiniteError for weights that are infinite or NaN; the denoiser is then unchanged.
        """
        broken = [name for name, p in self.parameters.items() if not p.isfinite().all()]
        if broken:
            raise NotFiniteError(f"trained weights are infinite or NaN: {broken[0]} and {len(broken) - 1} more")
        for name in self.adapted:
            layer = self.denoiser.get_submodule(name)
            layer.merge(adapter_names=[NAME])
            parent, _, last = name.rpartition(".")
            setattr(self.denoiser.get_submodule(parent), last, layer.get_base_layer())
        for attribute in ("peft_config", "_hf_peft_config_loaded"):
            vars(self.denoiser).pop(attribute, None)
        return self.denoiser.requires_grad_(False)


def add_lora(denoiser: Any, *, rank: int = 16, alpha: float | None = None, seed: int = 0) -> Lora:
    """Add LoRA to all attention projections of a denoiser, and let it train beside the whole first and last layers.

    >>> lora = add_lora(moved.pipe.unet, rank=16)
    >>> optimizer = torch.optim.AdamW(lora.parameters.values(), lr=1e-4)

    rank: of the matrices. alpha: their product is scaled by alpha / rank; None: alpha is the rank. seed: of the first
    weights. The second matrix is zero at first, so that the denoiser computes what it did. The denoiser itself is
    changed: its projections are replaced until `Lora.merge`, also in pipelines that share its blocks.
    Errors: MissingExtraError without peft; ConfigError for another denoiser, one that has adapters already, and for a
    rank or alpha that is not positive.
    """
    kind = type(denoiser).__name__
    if kind not in EDGES:
        raise ConfigError(f"LoRA is supported for {', '.join(EDGES)}, not for {kind}; train everything instead")
    if rank < 1:
        raise ConfigError(f"rank (={rank}) must be at least 1")
    alpha = float(rank) if alpha is None else alpha
    if not 0 < alpha < float("inf"):
        raise ConfigError(f"alpha (={alpha:g}) must be positive")
    peft = _library()
    if any(hasattr(module, "lora_A") for module in denoiser.modules()):
        raise ConfigError("the denoiser has LoRA layers already; fuse or unload them first")
    denoiser.requires_grad_(False)
    adapted = tuple(_projections(denoiser))
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(adapted), bias="none")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # peft draws on the CPU, from the global generator
        peft.inject_adapter_in_model(config, denoiser, adapter_name=NAME)
    for name in EDGES[kind]:
        denoiser.get_submodule(name).requires_grad_(True)
    return Lora(denoiser, adapted, EDGES[kind])


def _projections(denoiser: Any) -> Iterator[str]:
    """Names of the attention projections that have an effect."""
    for name, module in denoiser.named_modules():
        if not hasattr(module, "to_q"):
            continue
        inside = dict(module.named_modules())
        # SD3's last block drops what it computes for the text; DDP would wait for gradients that never come
        unused = {"add_q_proj"} if getattr(module, "context_pre_only", False) else set()
        yield from (f"{name}.{part}" for part in PROJECTIONS if part in inside and part not in unused)


def check_peft() -> None:
    """Errors: MissingExtraError without peft."""
    _library()


def _library() -> ModuleType:
    try:
        import peft
    except ImportError:
        raise MissingExtraError("peft", "lora", "LoRA") from None
    return peft
