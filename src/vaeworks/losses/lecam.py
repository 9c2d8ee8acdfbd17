"""LeCam regularization: it holds logits near the other side's average."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..distributed import process_mean


class LeCam(nn.Module):
    """Mean of relu(real - usual fake)^2 + relu(usual real - fake)^2 over all logits; its state is two anchors and a
    count.

    The anchors are averages over steps of the mean logit, which begin at the first batch's. Weight as published: 1e-3.
    It has no meaning with the relativistic loss, which only sees differences of logits.
    Source: Tseng et al. 2021 (arXiv 2104.03310).
    """

    real_anchor: Tensor
    fake_anchor: Tensor
    updates: Tensor

    def __init__(self, decay: float = 0.999):
        super().__init__()
        self.decay = decay
        self.register_buffer("real_anchor", torch.zeros(()))
        self.register_buffer("fake_anchor", torch.zeros(()))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, real: Tensor | Sequence[Tensor], fake: Tensor | Sequence[Tensor]) -> Tensor:
        """The penalty of a discriminator step, a scalar; the anchors are those of the steps before."""
        penalties = [
            (r.float() - self.fake_anchor).relu().square().mean()
            + (self.real_anchor - f.float()).relu().square().mean()
            for r, f in zip(_maps(real), _maps(fake), strict=True)
        ]
        return torch.stack(penalties).mean()

    @torch.no_grad()
    def update_(self, logit_real: Tensor, logit_fake: Tensor) -> None:
        """Move the anchors towards the mean logits of a whole step (scalars), averaged over processes. Once for each
        optimizer step."""
        for anchor, logit in ((self.real_anchor, logit_real), (self.fake_anchor, logit_fake)):
            mean = process_mean(logit.float())
            anchor.copy_(torch.where(self.updates > 0, anchor.lerp(mean, 1 - self.decay), mean))
        self.updates += 1


def _maps(logits: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [logits] if isinstance(logits, Tensor) else logits
