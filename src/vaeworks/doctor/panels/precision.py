"""Half precision: the largest values of every layer, and the cost of float16 and bfloat16."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ...images import difference, labelled
from ...runtime.fp16.deviation import Deviation, Outputs, deviation, outputs
from ...runtime.fp16.emulation import in_precision
from ...runtime.fp16.ranges import FLOAT16_MAX, LayerRange, activation_ranges, first_overflow
from ..finding import Curves, Figure, Finding, Picture, Verdict
from ..subject import Subject

HEADROOM = 4.0
"""Margin to float16's largest number that `vaeworks repair` leaves, because unmeasured images have larger
activations."""

SAFE, POOR = 45.0, 35.0
"""PSNR in dB of pictures decoded in half precision against float32. Rounding to 8 bits gives 59 dB; at 45 the error is
about 1.4 gray levels and invisible; at 35 it is 4.5 and visible in skies."""

IMAGES, IMAGES_QUICK = 16, 2
COMPARED, COMPARED_QUICK = 4, 1
"""Number of images for the ranges, and of those with the largest activations that are computed in other precisions."""

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def examine(subject: Subject) -> Finding:
    """Measure ranges on the images, the first layer to overflow, and the distance of each half precision from
    float32."""
    numbers = subject.some(IMAGES_QUICK if subject.quick else IMAGES)
    images = subject.images(numbers).cpu()
    ranges = [
        layer for layer in _measured(subject, numbers) if not layer.name.endswith(".logits")
    ]  # attention keeps those in float32
    top = max(ranges, key=lambda layer: -1.0 if math.isnan(layer.max_abs) else layer.max_abs)
    broken = next((layer for layer in ranges if not math.isfinite(layer.max_abs)), None)
    worst = sorted(range(len(numbers)), key=lambda i: i != top.image)[: COMPARED_QUICK if subject.quick else COMPARED]
    model = subject.autoencoder
    reference = outputs(model, images[worst])
    results = {name: outputs(in_precision(model, dtype), images[worst], reference) for name, dtype in DTYPES.items()}
    deviations = {name: deviation(reference, actual, "original", name) for name, actual in results.items()}
    room = FLOAT16_MAX / top.max_abs if top.max_abs else math.inf
    figures = {
        "max_abs": Figure(
            "largest value of any layer", top.max_abs, limit=f"in {top.name}; float16 holds {FLOAT16_MAX:.0f}"
        ),
        "headroom": Figure("float16's largest over that", room, limit=f"ill below 1, watch below {HEADROOM:.0f}"),
    }
    for name, found in deviations.items():
        figures |= _figures(name, found)
    verdict, sentence, safe = _verdict(ranges, top, broken, deviations)
    return Finding(
        verdict,
        sentence,
        figures,
        meaning="Half precision takes half the memory, and less time on hardware made for it. float16 holds numbers up "
        "to 65504 and turns larger ones into infinity, which becomes a black picture or NaN. bfloat16 has float32's "
        "range with three digits: it never overflows, and is coarser.",
        remedy=_remedy(verdict, safe, broken),
        uncertainty=f"Ranges are maxima over {len(numbers)} images at {subject.protocol.size} px: other images may "
        f"exceed them, hence the headroom. Deviations are measured on {len(worst)} of them, with the largest values. "
        "On CPUs the rounding of a GPU's kernels is emulated.",
        curves=(_curve(ranges),),
        pictures=tuple(_pictures(subject, reference, results)),
        tables={"ten largest": _table(sorted(ranges, key=_size, reverse=True)[:10])},
        images=len(numbers),
    )


def _measured(subject: Subject, numbers: Sequence[int]) -> Sequence[LayerRange]:
    """Ranges over images, one at a time."""
    merged: dict[str, LayerRange] = {}
    for place, number in enumerate(subject.track(numbers)):
        for layer in activation_ranges(subject.autoencoder, subject.images([number])):
            before = merged.get(layer.name)
            if before is None or not (layer.max_abs <= before.max_abs or math.isnan(before.max_abs)):
                merged[layer.name] = LayerRange(
                    layer.name, layer.half, layer.scalable, layer.max_abs, layer.p9999, place
                )
    return list(merged.values())


def _figures(name: str, found: Deviation) -> dict[str, Figure]:
    limit = f"ill below {POOR:.0f}, watch below {SAFE:.0f}"
    return {
        f"{name}_psnr": Figure(f"decoded in {name}, against float32", found.images_psnr, unit="dB", limit=limit),
        f"{name}_snr": Figure(f"latents encoded in {name}, against float32", found.latents_snr, unit="dB"),
        f"{name}_broken": Figure(f"pixels in {name} that are no numbers", found.images_broken, limit="0"),
    }


def _verdict(
    ranges: Sequence[LayerRange], top: LayerRange, broken: LayerRange | None, found: dict[str, Deviation]
) -> tuple[Verdict, str, str]:
    """Verdict, sentence, and the safe half precision ("" without one)."""
    if broken is not None:
        return (
            "ill",
            f"it overflows in float32 already: {broken.name} gives NaN or infinity on at least 1 of the images",
            "",
        )
    half, coarse = found["float16"], found["bfloat16"]
    overflow = first_overflow(ranges)
    enough = half.finite and overflow is None and top.max_abs * HEADROOM <= FLOAT16_MAX
    safe = "float16" if enough and half.images_psnr >= SAFE else "bfloat16" if coarse.images_psnr >= POOR else ""
    if overflow is not None or not half.finite:
        where = (
            f"{overflow.name}, the first layer to overflow, reaches {overflow.max_abs:,.0f}, above 65,504"
            if overflow
            else f"{half.images_broken:.0%} of the pixels are lost"
        )
        return (
            "ill",
            f"float16 gives black pictures: {where}; bfloat16 decodes at {coarse.images_psnr:.1f} dB of float32",
            safe,
        )
    figures = f"float16 decodes at {half.images_psnr:.1f} dB of float32 and bfloat16 at {coarse.images_psnr:.1f}"
    room = (
        f"the largest value is {top.max_abs:,.0f}, {FLOAT16_MAX / max(top.max_abs, 1e-9):,.0f} times below float16's "
        "limit"
    )
    if half.images_psnr < POOR:
        return "ill", f"float16 is too coarse for it: {figures}", safe
    if not enough or half.images_psnr < SAFE:
        return "watch", f"float16 just works: {figures}; {room}", safe
    return "healthy", f"float16 is safe: {figures}; {room}", safe


def _remedy(verdict: Verdict, safe: str, broken: LayerRange | None) -> str:
    if broken is not None:
        return "Get the file again: its weights, or the images, hold values that no precision can compute with."
    if verdict == "healthy":
        return ""
    repair = "`vaeworks repair MODEL DST --for fp16` scales its activations down by a power of two, with equal results"
    return (
        f"Run it in {safe or 'float32'} (`--no-half-vae`, `upcast_vae`, `--fp32-vae` in applications), or repair it: "
        f"{repair}."
    )


def _size(layer: LayerRange) -> float:
    return math.inf if math.isnan(layer.max_abs) else layer.max_abs


def _curve(ranges: Sequence[LayerRange]) -> Curves:
    halves: dict[str, list[tuple[float, float | None]]] = {}
    for place, layer in enumerate(ranges):
        value = layer.max_abs if math.isfinite(layer.max_abs) and layer.max_abs > 0 else None
        halves.setdefault(layer.half, []).append((float(place), value))
    return Curves(
        "largest absolute value, layer by layer",
        halves,
        "layers in order of execution",
        log=True,
        levels={"float16 ends": FLOAT16_MAX},
    )


def _table(ranges: Sequence[LayerRange]) -> dict[str, list[float | str]]:
    return {
        "layer": [layer.name for layer in ranges],
        "largest value": [layer.max_abs for layer in ranges],
        "99.99th percentile": [layer.p9999 for layer in ranges],
        "of float16's range": [layer.share for layer in ranges],
    }


def _pictures(subject: Subject, reference: Sequence[Outputs], results: dict[str, list[Outputs]]) -> list[Picture]:
    """The first compared picture in every precision, and its difference to float32."""
    exact = subject.uint8(reference[0][1])[0]
    row, names = [exact], ["float32"]
    for name, actual in results.items():
        picture = subject.uint8(actual[0][1])[0]
        row += [picture, difference(exact, picture, 16)]
        names += [name, f"difference of {name} x 16"]
    caption = "decoded in float32; in float16 and its difference x 16; in bfloat16 and its difference x 16"
    return [Picture(caption, labelled([[x.expand(3, -1, -1) for x in row]], columns=names))]
