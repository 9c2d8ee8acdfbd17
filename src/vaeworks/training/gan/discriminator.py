"""The discriminator of a run: the network, its optimizer, and its step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import is_parametrized

from ...config import AdversarialConfig
from ...devices import autocast
from ...distributed import average_gradients_
from ...errors import ConfigError
from ...losses.adversarial import discriminator_objective, generator_objective
from ...losses.lecam import LeCam
from ...models.discriminators import DISCRIMINATORS, FeatureNet
from ..optim import build_optimizer, set_learning_rate


class Adversary:
    """A discriminator with its optimizer. It averages its gradients over processes itself."""

    def __init__(self, network: nn.Module, config: AdversarialConfig):
        self.network = network.train()
        self._spectral = [module for module in network.modules() if isinstance(module, _SpectralNorm)]
        for norm in self._spectral:
            norm.eval()
        self.config = config
        self.optimizer = build_optimizer(network.parameters(), config.optimizer)
        self.lecam = LeCam().to(next(network.parameters()).device) if config.lecam > 0 else None

    def generator_loss(self, images: Tensor, recon: Tensor) -> Tensor:
        """The adversarial loss of a reconstruction, before weighting; no gradient for the discriminator."""
        return generator_objective(self.network, images, recon, self.config.loss)

    def step(
        self, pairs: Sequence[tuple[Tensor, Tensor]], precision: str, done: float, lr: float | None
    ) -> dict[str, Tensor]:
        """One step on (images, reconstructions), n 3 h w each, in parts of a batch; figures by their names in the log,
        on this process.

        done: share of the run, for the penalties' decay. lr: None: the optimizer's own. If loss or gradient are not
        finite in any process, weights stay as they were.
        """
        self._settle_norms()
        share = self.config.penalty_final**done if self.config.penalty_final > 0 else 1 - done
        self.optimizer.zero_grad(set_to_none=True)
        total = sum(len(images) for images, _ in pairs)
        sums: dict[str, Tensor] = {}
        for images, recon in pairs:
            part = len(images) / total
            with autocast(images.device, precision):
                loss, terms = discriminator_objective(
                    self.network,
                    images,
                    recon,
                    self.config.loss,
                    r1=self.config.r1 * share,
                    r2=self.config.r2 * share,
                    lecam=self.lecam,
                    lecam_weight=self.config.lecam,
                )
            (loss * part).backward()
            terms["discriminator_loss"] = loss.detach()
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + part * value.float()
        average_gradients_(self.network.parameters())
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimizer.clip_norm or math.inf)
        sums["discriminator_grad_norm"] = norm
        if norm.isfinite():  # the gradient of a loss that is not finite is not finite
            if lr is not None:
                set_learning_rate(self.optimizer, lr)
            self.optimizer.step()
            if self.lecam is not None:
                self.lecam.update_(sums["logit_real"], sums["logit_fake"])
        return {name: value for name, value in sums.items() if name not in self._silent}

    @property
    def steps(self) -> int:
        """Number of steps taken."""
        return next((int(state["step"]) for state in self.optimizer.state.values()), 0)  # the same for all parameters

    def _settle_norms(self) -> None:
        """One power iteration of every spectral norm, before the step: within it, all micro-batches get the same
        network."""
        for norm in self._spectral:
            norm.train()
        with torch.no_grad():
            for module in self.network.modules():
                if is_parametrized(module):
                    _ = module.weight
        for norm in self._spectral:
            norm.eval()

    @property
    def _silent(self) -> set[str]:
        """Figures that are not logged: terms that are off, and the adversarial loss, which is part of the total."""
        c = self.config
        return {"adversarial"} | {name for name, weight in (("r1", c.r1), ("r2", c.r2)) if not weight}


def build_discriminator(
    config: AdversarialConfig, in_channels: int, network: FeatureNet | None, channels: Sequence[int] = ()
) -> nn.Module:
    """The discriminator that a configuration names, with random weights.

    network: the frozen one of kind "projected", whose maps have these channels.
    """
    if config.discriminator == "projected":
        if network is None:
            raise ConfigError("discriminator 'projected' needs a frozen network")
        return DISCRIMINATORS["projected"](
            network, channels, width=config.channels, least_size=getattr(network, "smallest", 1)
        )
    return DISCRIMINATORS[config.discriminator](in_channels, config.channels, config.num_layers)
