"""The networks of a painting run, their optimizers, and one step."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..config import PaintConfig
from ..devices import autocast
from ..distributed import process_mean, world_size
from ..models.ema import ema_lerp_
from ..training.optim import build_optimizer, set_learning_rate
from ..training.run.checkpoint import optimizer_tensors, part_of, restore_optimizer
from .conditions import compact_, denoiser_of, encoded, wording_of
from .moving import Pipeline, assembled
from .objective import DiffusionObjective, FlowObjective

TEXT = ("text_encoder", "text_encoder_2", "text_encoder_3")


class PaintModule(nn.Module):
    """A pipeline's denoiser and text encoders as one module: from latents and captions to the loss of each image.

    text_changes: whether the text encoders are trained, or averages of trained ones; if not, every caption is encoded
    once in a run.
    """

    def __init__(self, pipe: Pipeline, objective: FlowObjective | DiffusionObjective, text_changes: bool):
        super().__init__()
        self.denoiser = denoiser_of(pipe)
        self.texts = nn.ModuleDict({name: part for name in TEXT if (part := getattr(pipe, name, None)) is not None})
        self._pipe = [pipe]  # in a list, so that it is no submodule
        self._objective = objective
        self._text_changes = text_changes
        self._known: dict[str, dict[str, Tensor]] = {}

    def forward(self, z: Tensor, noise: Tensor, times: Tensor, captions: Sequence[str]) -> Tensor:
        """Weighted squared error of the prediction for each image: n. z, noise: n c h w; times: n."""
        pipe = self._pipe[0]
        x, steps, target, weight = self._objective.noisy(z, noise, times)
        side = z.shape[-1] * pipe.vae_scale_factor
        conditions = (encoded if self._text_changes else self._frozen)(pipe, captions, z.device, side)
        predicted = wording_of(pipe).predict(self.denoiser, x, steps, conditions)
        return weight * (predicted.float() - target).square().mean((1, 2, 3))

    @torch.no_grad()
    def _frozen(self, pipe: Any, captions: Sequence[str], device: torch.device, side: int) -> dict[str, Tensor]:
        """Conditions from frozen text encoders, kept on the CPU."""
        if new := [caption for caption in dict.fromkeys(captions) if caption not in self._known]:
            found = encoded(pipe, new, device, side)
            for i, caption in enumerate(new):
                self._known[caption] = {name: value[i].cpu() for name, value in found.items()}
        names = self._known[captions[0]]
        return {name: torch.stack([self._known[c][name] for c in captions]).to(device) for name in names}


@dataclass
class PaintState:
    """What is trained, its averages, and its optimizers."""

    pipe: Pipeline
    module: PaintModule
    config: PaintConfig
    optimizers: dict[str, torch.optim.Optimizer]
    average: PaintModule | None
    """a copy with averaged weights, which a run saves"""
    average_pipe: Pipeline
    """the pipeline with the averaged weights; without an average, `pipe`"""
    model: nn.Module = field(init=False)
    """the module that a step calls: `module`, or a wrapper around it"""
    trained: dict[str, nn.Parameter] = field(init=False)
    """trained parameters by name"""

    def __post_init__(self) -> None:
        self.model = self.module
        self.trained = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        own = dict(self.average.named_parameters()) if self.average is not None else {}
        self._averaged = [own[name] for name in self.trained] if own else []

    @classmethod
    def of(cls, pipe: Pipeline, objective: FlowObjective | DiffusionObjective, config: PaintConfig) -> PaintState:
        """The state at the start of a run. Parameters that require a gradient are trained."""
        text_changes = any(_is_trained(getattr(pipe, name, None)) for name in TEXT)
        average, average_pipe = None, pipe
        if config.ema_halflife:
            parts = {name: copy.deepcopy(part) for name, part in pipe.components.items() if _is_trained(part)}
            average_pipe = assembled(pipe, **parts)
            compact_(average_pipe)
            average = PaintModule(average_pipe, objective, text_changes).requires_grad_(False).eval()
        compact_(pipe)
        module = PaintModule(pipe, objective, text_changes)
        return cls(pipe, module.train(), config, _optimizers(module, config), average, average_pipe)

    def wrap_ddp_(self, device: torch.device) -> None:
        """Average gradients over processes, where there are several."""
        if world_size() > 1:
            self.model = DistributedDataParallel(
                self.module, device_ids=[device] if device.type == "cuda" else None, gradient_as_bucket_view=True
            )

    @property
    def eval_module(self) -> PaintModule:
        """The module that is judged and saved."""
        return self.average or self.module

    def step(
        self, z: Tensor, noise: Tensor, times: Tensor, captions: Sequence[str], lr: float
    ) -> tuple[float, float, bool]:
        """One optimizer step on this process's part of a batch. Returns the loss and the gradient norm over all
        processes, and whether both are finite; if not, nothing has changed."""
        size = (self.config.micro_batch or self.config.batch) // world_size() or 1
        parameters = list(self.trained.values())
        for p in parameters:
            p.grad = None
        total = torch.zeros((), device=z.device)
        for start in range(0, len(z), size):
            part = slice(start, start + size)
            with autocast(z.device, self.config.precision):
                losses = self.model(z[part], noise[part], times[part], captions[part])
            loss = losses.sum() / len(z)
            loss.backward()
            total += loss.detach()
        clip = self.config.optimizer.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(parameters, clip).item()
        value = process_mean(total).item()
        finite = math.isfinite(value) and math.isfinite(norm)
        if finite:
            for optimizer in self.optimizers.values():
                set_learning_rate(optimizer, lr)
                optimizer.step()
        return value, norm, finite

    def update_average_(self, decay: float) -> None:
        """One step of the weight average, of trained parameters only."""
        if self.average is not None:
            ema_lerp_(self._averaged, list(self.trained.values()), decay)

    # ------------------------------------------------------------------ checkpoints

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a checkpoint keeps."""
        trained = self.trained
        found = {f"model.{name}": p.detach() for name, p in trained.items()}
        if self.average is not None:
            own = dict(self.average.named_parameters())
            found |= {f"average.{name}": own[name].detach() for name in trained}
        for name, optimizer in self.optimizers.items():
            found |= optimizer_tensors(name, trained, optimizer)
        return {name: t.contiguous() for name, t in found.items()}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Load what `tensors` gave. Errors: KeyError or RuntimeError for another network's."""
        trained = self.trained
        parts = {"model.": trained}
        if self.average is not None:
            own = dict(self.average.named_parameters())
            parts["average."] = {name: own[name] for name in trained}
        for prefix, targets in parts.items():
            values = part_of(tensors, prefix)
            if values.keys() != targets.keys():
                raise KeyError(f"{len(values.keys() ^ targets.keys())} tensors are not those of this network")
            for name, target in targets.items():
                target.copy_(values[name])
        for name, optimizer in self.optimizers.items():
            restore_optimizer(trained, optimizer, part_of(tensors, f"{name}."))


def _is_trained(part: Any) -> bool:
    return isinstance(part, nn.Module) and any(p.requires_grad for p in part.parameters())


def _optimizers(module: PaintModule, config: PaintConfig) -> dict[str, torch.optim.Optimizer]:
    """AdamW for everything, or for everything but the matrices of the denoiser's blocks, which have Muon."""
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    muon = {}
    if config.matrices == "muon":
        muon = {name: p for name, p in trained.items() if "transformer_blocks." in name and p.ndim == 2}
    rest = [p for name, p in trained.items() if name not in muon]
    found: dict[str, torch.optim.Optimizer] = {"optimizer": build_optimizer(rest, config.optimizer)}
    if muon:
        found["muon"] = torch.optim.Muon(
            muon.values(), lr=config.optimizer.lr, momentum=0.95, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
        )
    return found
