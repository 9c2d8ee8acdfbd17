"""The report of a repair for float16, in figures and in sentences."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, get_args

from ...models import Autoencoder
from ...nn import SpatialAttention
from .deviation import Deviation
from .ranges import FLOAT16_MAX, Half, LayerRange, first_overflow

APPLICATION_EPS = 1e-6
"""Epsilon of every group normalization in diffusers, A1111 and ComfyUI, whatever a file says."""


@dataclass(frozen=True)
class Repair:
    """A VAE for float16, and the report of its repair."""

    autoencoder: Autoencoder = field(repr=False)
    """a copy; its configuration carries the scales, so that readers of the configuration need nothing else"""
    scales: dict[Half, float]
    """factors of the activations of each half: powers of two, 1 where nothing was needed"""
    headroom: float
    """least factor asked for between the activations and float16's largest number"""
    limit: float
    """least quality asked for in float16, in dB"""
    before: tuple[LayerRange, ...]
    """range of every layer before the repair"""
    after: tuple[LayerRange, ...]
    """range of every layer after it"""
    deviations: tuple[Deviation, ...]
    """from the original in float32"""
    images: int
    """number of images that the ranges were measured on"""
    compared: tuple[int, ...]
    """numbers of the images that the deviations were measured on: those with the largest activations"""
    rough_weights: float
    """share of the scaled weights that lose digits in float16"""
    lost_weights: float
    """share of the scaled weights that become 0 in float16"""

    @property
    def needed(self) -> bool:
        """Whether anything was changed."""
        return any(scale != 1 for scale in self.scales.values())

    def deviation(self, weights: str, precision: str) -> Deviation | None:
        """The deviation with these weights in this precision; None where it was not measured."""
        return next((d for d in self.deviations if (d.weights, d.precision) == (weights, precision)), None)

    @property
    def fixed_eps_harmless(self) -> bool:
        """Whether the repaired VAE keeps the least quality asked for in programs with an epsilon of their own."""
        half_precision = self.deviation("repaired, fixed eps", "float16")
        single = self.deviation("repaired, fixed eps", "float32")
        if half_precision is None or single is None:
            return False
        scaled = [half for half in get_args(Half) if self.scales[half] != 1]
        return all(half_precision.decibels(half) >= self.limit for half in scaled) and all(
            single.decibels(half) >= self.limit for half in get_args(Half)
        )

    def sentences(self) -> tuple[str, ...]:
        """Findings, changes and measurements, a line each."""
        return (*(_about(self, half) for half in get_args(Half)), *map(_figures, self.deviations), *_remarks(self))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the autoencoder as JSON values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "autoencoder"}
        for name in ("before", "after", "deviations"):
            values[name] = [dataclasses.asdict(value) for value in values[name]]
        return {"needed": self.needed, **values, "compared": list(self.compared), "sentences": list(self.sentences())}


def largest(ranges: Iterable[LayerRange], half: Half) -> LayerRange:
    """The layer of a half with the largest activations, among the layers that can be scaled if there are any."""
    return max((layer for layer in ranges if layer.half == half), key=lambda layer: (layer.scalable, layer.max_abs))


def _about(repair: Repair, half: Half) -> str:
    top = largest(repair.before, half)
    reached = f"reaches {top.max_abs:.4g}, {top.share:.2g} of float16's 65504, at {top.name}"
    if repair.scales[half] == 1:
        return f"{half}: nothing to repair, it {reached}"
    first = first_overflow(repair.before, half)
    why = f"overflows first at {first.name}" if first else f"leaves less than the {repair.headroom:g} times asked for"
    return f"{half}: {reached}, and {why}; its activations are now 1/{1 / repair.scales[half]:.0f} as large"


def _figures(d: Deviation) -> str:
    way = f"{d.weights}, {d.precision}: "
    if not d.finite:
        return way + f"{d.images_broken:.1%} of pixels and {d.latents_broken:.1%} of latents are not finite"
    if d.images_max == d.latents_max == 0:
        return way + "equal, bit for bit"
    parts = (("images", d.images_psnr, d.images_max), ("latents", d.latents_snr, d.latents_max))
    return way + ", ".join(
        f"{name} {decibels:.1f} dB (at most {most:.2g} off)" if most else f"{name} equal"
        for name, decibels, most in parts
    )


def _remarks(repair: Repair) -> Iterator[str]:
    foreign = repair.deviation("repaired, fixed eps", "float16")
    if foreign is not None:
        harm = "that does no harm here"
        if not repair.fixed_eps_harmless:
            harm = "do not use the result in those, but bfloat16"
        yield (
            "epsilon is part of the repair, and programs that read only the weights (diffusers, A1111, ComfyUI) keep "
            f"it at {APPLICATION_EPS:g}: {harm}"
        )
    if max(repair.rough_weights, repair.lost_weights) >= 0.001:
        yield (
            f"in float16, {repair.rough_weights:.1%} of the weights scaled down lose digits, {repair.lost_weights:.1%} "
            "become 0"
        )
    for layer in repair.after:
        if layer.name.endswith(".logits"):
            attention = repair.autoencoder.get_submodule(layer.name.removesuffix(".logits"))
            assert isinstance(attention, SpatialAttention)
            products = layer.max_abs * math.sqrt(attention.query.out_features / attention.num_heads)
            if products > FLOAT16_MAX:
                yield (
                    f"{layer.name} are products of up to {products:.0f} before they are scaled: programs that keep "
                    "those overflow"
                )
        elif not layer.scalable and layer.share * repair.headroom > 1:
            yield f"{layer.name} reaches {layer.share:.2g} of 65504 and cannot be scaled"
