"""One half of an autoencoder as a chain of stages with its own backward pass."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ...errors import ConfigError
from ..lazy_maps import Map, Statistics, Stored, sweep
from .parameters import Gradients, names_in
from .rows import Borrowed, held, kept
from .stages import Enlarge, Residual, Stage


class Chain:
    """Segments of stages; each segment begins with a small map.

    The forward pass stores these first maps, and the backward pass recomputes the others.
    """

    def __init__(self, segments: list[list[Stage]], rows: int, groups: int):
        """rows: most rows of a strip. groups: of every group normalization."""
        self.segments, self.rows, self.groups = segments, rows, groups
        layers = [layer for segment in segments for stage in segment for layer in stage.layers()]
        self.parameters = [(layer, name) for layer in layers for name in names_in(layer)]

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the stages: n c h w to n c' h' w'. For one picture, because stages store its statistics."""
        return _InStrips.apply(x, self, *(getattr(module, name) for module, name in self.parameters))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The result, and the first map of every segment."""
        firsts: list[Tensor] = []
        numbers: dict[Stage, int] = {}
        stages = [stage for segment in self.segments for stage in segment]
        ends = {segment[-1] for segment in self.segments[:-1]}
        source: Map = held(x)
        firsts.append(x)
        statistics: Statistics | None = None
        for stage, following in zip(stages, [*stages[1:], None], strict=True):
            map_ = stage.measured(source, statistics, self.rows, self.groups)
            stored = Stored(map_.shape)
            statistics = sweep(
                map_, self.rows, self.groups if following and following.normalizes else None, into=stored, release=True
            )
            source, numbers[stage] = stored, math.prod(stored.shape)
            if stage in ends:
                firsts.append(stored.rows(0, stored.shape[2]))
                source = Borrowed(held(firsts[-1]))
        self._spend(numbers)
        return stored.rows(0, stored.shape[2]), firsts

    def _spend(self, numbers: dict[Stage, int]) -> None:
        """Let blocks store more in segments whose maps are small beside the largest segment's, which sets the peak.

        numbers: of each stage's result.
        """
        sizes = [sum(numbers[stage] for stage in segment) for segment in self.segments]
        for segment, size in zip(self.segments, sizes, strict=True):
            blocks = [stage for stage in segment if isinstance(stage, Residual)]
            for block in blocks:
                block.keeps_inner = size + sum(numbers[b] for b in blocks) <= max(sizes)

    def backward(self, firsts: list[Tensor], grad: Tensor, gradients: Gradients, wants_input: bool) -> Tensor | None:
        """The gradient at the first map, if it is wanted, from the gradient at the result."""
        needed = [wants_input]  # at the input of each stage
        for segment in self.segments:
            for stage in segment:
                needed.append(needed[-1] or gradients.wants(*stage.layers()))
        g: Stored | None = held(grad)
        at = len(needed) - 1
        for segment in reversed(self.segments):
            at -= len(segment)
            if g is None or not needed[at + len(segment)]:
                return None
            g = self._segment_backward(segment, firsts.pop(), g, gradients, needed[at : at + len(segment)])
        return None if g is None else g.rows(0, g.shape[2])

    def _segment_backward(
        self, segment: list[Stage], first: Tensor, g: Stored | None, gradients: Gradients, needed: list[bool]
    ) -> Stored | None:
        maps: list[Map | None] = [Borrowed(held(first))]
        for i, stage in enumerate(segment[:-1]):
            source = maps[-1]
            assert source is not None
            if passing := i == 1 and isinstance(segment[0], Enlarge):  # wide, and quick to recompute
                maps[1] = None
            maps.append(kept(stage.result(source) if passing else stage.again(source, self.rows), self.rows))
        for i in reversed(range(len(segment))):
            x = maps.pop()
            x = kept(segment[0].result(Borrowed(held(first))), self.rows) if x is None else x
            assert g is not None
            g = segment[i].backward(x, g, self.rows, gradients, needed[i])
            if g is None:
                return None
        return g


class _InStrips(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, chain: Chain, *parameters: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            y, firsts = chain.forward(x)
        ctx.save_for_backward(*firsts, *parameters)  # parameters, so that autograd sees changes in between
        ctx.chain = chain
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise ConfigError(
                "a gradient through strips cannot be differentiated again (create_graph=True); use the autoencoder "
                "itself"
            )
        chain = ctx.chain
        firsts = list(ctx.saved_tensors[: len(chain.segments)])
        wants_input, _, *wants = ctx.needs_input_grad
        gradients = Gradients(p for p, wanted in zip(chain.parameters, wants, strict=True) if wanted)
        with torch.autocast(grad.device.type, enabled=False):
            dx = chain.backward(firsts, grad, gradients, wants_input)
        return dx, None, *(gradients.of(*p) for p in chain.parameters)
