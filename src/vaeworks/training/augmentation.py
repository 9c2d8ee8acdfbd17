"""Random augmentation of a whole step: a function of (seed, counter of its first image), the same in all processes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..config import RegularizerConfig
from ..losses.equivariance import Transform, Where, draw
from ..losses.spectrum import lowpass
from ..random_streams import STEP, random_uniforms

CUTS = (8, 10, 12)
"""Diagonals of an 8x8 block's frequencies that a low-pass step removes. Source: Ning et al. 2026 (arXiv 2603.14645)."""

SHRINKS = (2, 4)
"""Factors of scale equivariance. Source: Skorokhodov et al. 2025 (arXiv 2502.14831)."""


UNCHANGED = Transform()


@dataclass(frozen=True)
class StepAugmentation:
    """The transform of latents and images in one step, and the factor by which scale equivariance shrinks both."""

    where: Where = "nowhere"
    transform: Transform = UNCHANGED
    cut: int = 0
    """diagonals of frequencies that both lose"""
    shrink: int = 0
    """0: no second decoding"""

    def prepared(self, images: Tensor, multiple: int) -> Tensor:
        """Images n c h w as they are encoded; their sides stay multiples of `multiple`."""
        return self.transform(images, multiple) if self.where == "images" else images

    def on_latents(self, latents: Tensor) -> Tensor:
        """Latents n c h w as they are decoded."""
        latents = self.transform(latents) if self.where == "latents" else latents
        return lowpass(latents, self.cut) if self.cut else latents

    def on_target(self, images: Tensor, multiple: int) -> Tensor:
        """The target of the reconstruction, from the images as they were encoded."""
        images = self.transform(images, multiple) if self.where == "latents" else images
        return lowpass(images, self.cut) if self.cut else images


NOTHING = StepAugmentation()


def draw_augmentation(
    config: RegularizerConfig, seed: int, first_counter: int, size: int, least: int, factor: int
) -> StepAugmentation:
    """The augmentation of the step that begins with this image, of `size` pixels.

    A transformed reconstruction has at least `least` pixels a side; the second one, of scale equivariance, has at least
    one latent of `factor` pixels.
    """
    if not (config.equivariance or config.lowpass or config.scale_equivariance):
        return NOTHING
    *uniforms, which, second = (float(u) for u in random_uniforms(seed, STEP, first_counter, 5))
    if uniforms[0] >= 1 - config.lowpass:
        return StepAugmentation(cut=CUTS[int(which * len(CUTS))])
    ordinary = 1 - config.equivariance - config.lowpass
    prior = (
        config.equivariance_prior * ordinary / (1 - config.equivariance)
        if config.equivariance and ordinary > 0
        else 0.0
    )
    where, transform = draw((uniforms[0], uniforms[1], uniforms[2]), config.equivariance, prior)
    if where != "nowhere":
        return StepAugmentation(where, Transform(max(transform.scale, min(1.0, least / size)), transform.quarter_turns))
    shrinks = [s for s in SHRINKS if size // s >= factor] if config.scale_equivariance > 0 else []
    return StepAugmentation(shrink=shrinks[int(second * len(shrinks))]) if shrinks else NOTHING
