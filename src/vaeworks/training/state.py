"""Everything that a step needs and a checkpoint keeps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..distributed import world_size
from ..losses import Distance
from ..models import Autoencoder
from ..models.ema import ema_update_
from ..nn import ResBlock, SpatialAttention
from .gan.discriminator import Adversary
from .module import TrainModule
from .optim import build_optimizer

Features = Callable[[Tensor], Tensor | Sequence[Tensor]]
"""Images n 3 h w in [-1,1] to a map of features n d h' w' by a frozen network, or to several, of which the last one
counts."""


@dataclass
class TrainState:
    """The networks of a run, their optimizers, and the frozen ones that they learn from."""

    config: TrainConfig
    learner: TrainModule
    optimizer: torch.optim.Optimizer
    average: Autoencoder | None = None
    """of the autoencoder's weights, which is what a run saves as its model"""
    adversary: Adversary | None = None
    perceptual: Distance | None = None
    features: Features | None = None
    """that latents are aligned with"""
    teacher: Autoencoder | None = None
    """whose latents the encoder shall reach"""
    model: nn.Module = field(init=False)
    """what is called in a step: the learner, or a wrapper around it"""

    def __post_init__(self) -> None:
        self.model = self.learner

    @classmethod
    def of(
        cls,
        autoencoder: Autoencoder,
        config: TrainConfig,
        *,
        discriminator: nn.Module | None = None,
        perceptual: Distance | None = None,
        features: Features | None = None,
        feature_channels: int | None = None,
        teacher: Autoencoder | None = None,
    ) -> TrainState:
        """All of it at the start of a run, where the autoencoder is."""
        learner = TrainModule(autoencoder, config, feature_channels).to(autoencoder.device).train()
        learner.train_parts(encoder=config.finetune.part != "decoder", decoder=config.finetune.part != "encoder")
        average = copy.deepcopy(autoencoder).requires_grad_(False).eval() if config.ema_halflife else None
        if config.parallel == "fsdp" and world_size() > 1:
            _share_out_(learner, average)
        numbers = [p for p in learner.beside().values() if p.numel() == 1]
        weights = [p for p in learner.parameters() if not any(p is n for n in numbers)]
        adversary = (
            None if discriminator is None else Adversary(discriminator.to(autoencoder.device), config.adversarial)
        )
        optimizer = build_optimizer(weights, config.optimizer, numbers)
        return cls(config, learner, optimizer, average, adversary, perceptual, features, teacher)

    @property
    def autoencoder(self) -> Autoencoder:
        """The one that is trained."""
        return self.learner.autoencoder

    @property
    def eval_model(self) -> Autoencoder:
        """The autoencoder that is validated and saved."""
        return self.average if self.average is not None else self.autoencoder

    def update_average_(self, decay: float) -> None:
        """One step of the average. What is never trained is left out: an average with itself may change the sign of a
        zero."""
        if self.average is None:
            return
        part = self.config.finetune.part
        halves = [
            ("encoder", "encoder"),
            ("encoder", "quant_conv"),
            ("decoder", "decoder"),
            ("decoder", "post_quant_conv"),
        ]
        for half, name in halves:
            average, network = getattr(self.average, name), getattr(self.autoencoder, name)
            if part in ("all", half) and any(True for _ in network.parameters()):  # a 1x1 convolution may be absent
                ema_update_(average, network, decay)


def _share_out_(learner: TrainModule, average: Autoencoder | None) -> None:
    """Weights become shards, one in each process; gradients and moments, which are made of them, follow.

    Residual blocks and attentions are whole only while they compute, and the rest during a step. The average never
    computes as it is.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(learner.autoencoder.device.type, (world_size(),))
    networks: list[nn.Module] = [network for network in (learner, average) if network is not None]
    for network in networks:
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # FSDP knows no other layout
    for block in learner.modules():
        if isinstance(block, (ResBlock, SpatialAttention)):
            fully_shard(block, mesh=mesh)
    for network in networks:
        fully_shard(network, mesh=mesh)
