"""How well a pipeline paints what words say: captions of the source `shapes`, judged by reading the pixels."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..config import PaintConfig
from ..data.synthetic.captioned_shapes import Combination, caption_of, prompts
from ..metrics.shape_check import Shares, chance, shares
from ..pipelines.blank import blank_pipeline
from ..pipelines.stable_diffusion import own_vae
from .conditions import compact_, expand_
from .sheet import paint_prompts, sheet


@dataclass(frozen=True)
class PaintedShapes:
    """Shares of painted pictures that show the right colour, shape and ground."""

    seen: Shares
    """for combinations of the training pictures"""
    unseen: Shares
    """for colours and shapes that were never seen together"""
    untrained: Shares
    """of the same networks with random weights, for seen combinations"""
    chance: Shares
    count_seen: int
    count_unseen: int
    combinations: tuple[Combination, ...] = field(repr=False)
    """of `pictures`: seen ones, then all unseen ones"""
    pictures: Tensor = field(repr=False, compare=False)
    """uint8 n 3 size size"""
    right: tuple[bool, ...] = field(repr=False)
    """whether a picture is right in all three"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values: everything but the pictures."""
        found: dict[str, Any] = {name: vars(getattr(self, name)) for name in ("seen", "unseen", "untrained", "chance")}
        return {**found, "count_seen": self.count_seen, "count_unseen": self.count_unseen}


@torch.no_grad()
def judge_shapes(pipe: Any, config: PaintConfig, seed: int = 0, seen: int = 64) -> PaintedShapes:
    """Paint `seen` combinations that `shapes` draws and all that it never does, and read what the pictures show.

    pipe: a pipeline that was trained on that source. config: of its training. Every picture starts from noise of its
    own.
    """
    known = random.Random(seed).sample(sorted(prompts(seen=True)), seen)
    unknown = sorted(prompts(seen=False))
    compact_(pipe)
    try:
        pictures = [_painted(pipe, wanted, config, seed + i) for i, wanted in enumerate((known, unknown))]
    finally:
        expand_(pipe)
    random_weights = blank_pipeline(
        own_vae(pipe), config.denoiser, pipe.tokenizer, config.size, config.objective, config.seed
    )
    compact_(random_weights)
    untrained = shares(_painted(random_weights, known, config, seed), known).right
    judged = [shares(shown, wanted) for shown, wanted in zip(pictures, (known, unknown), strict=True)]
    combinations = (*known, *unknown)
    recognized = [found for part in judged for found in part.recognized]
    return PaintedShapes(
        judged[0].right,
        judged[1].right,
        untrained,
        chance(),
        len(known),
        len(unknown),
        combinations,
        torch.cat(pictures),
        tuple(tuple(found) == tuple(wanted) for found, wanted in zip(recognized, combinations, strict=True)),
    )


def _painted(pipe: Any, wanted: Sequence[Combination], config: PaintConfig, seed: int) -> Tensor:
    words = [caption_of(*combination) for combination in wanted]
    return paint_prompts(pipe, words, size=config.size, guidance=config.guidance, steps=config.steps, seed=seed)


def painted_sheet(judged: PaintedShapes, count: int) -> Image.Image:
    """`count` of the pictures with their prompts, the first half seen combinations, the other unseen ones of several
    figures; a mark says whether all is right."""
    half = count // 2
    unseen = range(judged.count_seen, len(judged.combinations))
    rows = [*range(half), *unseen[:: max(1, len(unseen) // half)][:half]]
    words = [f"{'+' if judged.right[row] else '-'} {caption_of(*judged.combinations[row])}" for row in rows]
    return sheet(judged.pictures[rows], words, title="+ right, - wrong; first row seen, second row never seen together")
