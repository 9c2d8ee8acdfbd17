"""Equivariance: whether encoding a smaller, turned, mirrored or shifted image gives the latents transformed alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...intervals import bootstrap
from ...pages.heatmap import sheet
from ..finding import Curves, Figure, Finding, NotExamined, Picture, Verdict, number
from ..measures.capacity import measure_channels, standardization
from ..measures.smoothness import error
from ..measures.smoothness import psnr as decibels
from ..measures.transforms import SCALES, SHIFTS, TURNS, inner, shifted_image, shifted_latents, smaller
from ..subject import Subject
from .crops import crop_cells, crop_of, not_finite, undecodable
from .nonfinite import broken

Rows = dict[str, list[float]]
Coder = Callable[[Tensor], Tensor]

IMAGES, IMAGES_QUICK = 24, 4
DECODED, DECODED_QUICK = 8, 2
"""Number of images that are transformed and encoded, and of those decoded from transformed latents."""

LEAST = 6
"""Smallest side in latents, so that something is left away from the border."""

SHIFT = 0.2
"""Smallest failing error of a shift by exactly one latent. Convolutions commute with the shift, except at borders and
for global normalization and attention: TAEF2 and 8 VAEs of our recipes have 0.0001 to 0.005; with random weights, small
networks have 0.03, SD 1's 0.07 and TAEF2's 0.17; an encoder with planted noise that stays in its place (tests) has
0.8."""

OTHER = 0.5
"""Smallest error of turning, mirroring or halving that the panel reports: a quarter of unrelated latents. EQ-VAE and
scale equivariance train for less; of our recipes' VAEs scale-equivariance has 0.45 for half the size, the others 0.5
to 1.3, and all have 1 and more for turns."""

LABELS = {
    "scale_1/2": "half the size",
    "scale_1/4": "a quarter of the size",
    "rot_90": "turned by 90°",
    "rot_180": "turned by 180°",
    "rot_270": "turned by 270°",
    "hflip": "mirrored left and right",
    "vflip": "upside down",
    "crop": "cut at two sides",
    "shift_1": "shifted by one latent",
    "shift_1/2": "shifted by half a latent",
    "shift_1/4": "shifted by a quarter",
}
DECODER = ("scale_1/2", "rot_90", "hflip", "shift_1")
"""Transformations for the decoder."""


def examine(subject: Subject) -> Finding:
    """Compare encoding a transformed image with transforming its latents, and decode the transformed latents."""
    if (found := broken(subject)) is not None:
        return found
    cells = crop_cells(subject)
    if cells < LEAST:
        raise NotExamined(
            f"needs latents of at least {LEAST} x {LEAST}; examine at a size of {LEAST * subject.factor} px or more"
        )
    alive, _, std = standardization(measure_channels(subject))
    numbers = subject.some(IMAGES_QUICK if subject.quick else IMAGES)
    errors: Rows = {}
    for i in subject.track(numbers):
        images = crop_of(subject, [i], cells)
        for name, found_error in encoder_errors(
            lambda x: subject.encode(x)[:, alive] / std.to(x.device), images, subject.factor
        ).items():
            errors.setdefault(name, []).append(found_error)
    if not all(math.isfinite(e) for row in errors.values() for e in row):
        return undecodable(float(np.mean([not math.isfinite(e) for row in errors.values() for e in row])))
    shown = numbers[: DECODED_QUICK if subject.quick else DECODED]
    seen = _decoded(subject, shown, cells)
    if isinstance(seen, float):
        return undecodable(seen)
    figures = {name: Figure.of(LABELS[name], bootstrap(row), limit=_limit(name)) for name, row in errors.items()}
    figures |= _decoder_figures(seen)
    verdict, sentence = _verdict(figures)
    return Finding(
        verdict,
        sentence,
        figures,
        meaning="0 means that turning a picture turns its latents; 1 that the latents' mean would be as good a guess; "
        "2 that the two are unrelated. If a smaller or turned object has different latents, a diffusion model has to "
        "learn each version separately, and latents cannot be resized, turned or shifted in place of pictures.",
        remedy=""
        if verdict == "healthy"
        else "Recipes equivariance and scale-equivariance train for it; with other VAEs, transform pictures and encode "
        "them again.",
        dispute="Training for it improved diffusion models (EQ-VAE, arXiv 2502.09509), but over 86 tokenizers the "
        "error predicts them only weakly (correlation about 0.53, arXiv 2606.03578).",
        uncertainty=f"{len(numbers)} images, of which the middle {cells * subject.factor} px were encoded; "
        f"{len(shown)} decoded; intervals resample images. Channels are divided by their standard deviation, dead ones "
        "left out. Sizes are reduced by averaging squares, in images and latents; shifts by fractions are bilinear, so "
        "even an ideal encoder is above 0 there; shifts are compared away from the border, and include the effect of "
        "cropping on global normalization.",
        pictures=(seen.picture,),
        curves=(_curve(figures),),
        images=len(numbers),
    )


@torch.inference_mode()
def encoder_errors(encode: Coder, images: Tensor, f: int) -> dict[str, float]:
    """Mean of ||E(t x) - t E(x)||^2 over elements, by transformation t of images n k H W.

    encode: images to latents n c h w whose channels have variance 1, so that unrelated latents have the error 2.
    Transformations that need larger images are left out.
    """
    z = encode(images)
    errors = {}
    for name, factor in SCALES.items():
        if min(z.shape[-2:]) >= 2 * factor:
            h, w = (side // factor * factor for side in z.shape[-2:])
            small = encode(smaller(images[..., : f * h, : f * w], factor))
            errors[name] = _error(small, smaller(z[..., :h, :w], factor))
    for name, turn in TURNS.items():
        errors[name] = _error(encode(turn(images)), turn(z))
    for name, shift in SHIFTS.items():
        if shift * f == round(shift * f):
            margin = min(4, (min(z.shape[-2:]) - 1) // 4)
            there, here = encode(shifted_image(images, shift, f)), shifted_latents(z, shift)
            errors[name] = _error(inner(there, margin), inner(here, margin))
    return errors


def _error(a: Tensor, b: Tensor) -> float:
    return float((a - b).double().square().mean())


@dataclass(frozen=True)
class Decoded:
    """PSNR of decoded transformed latents."""

    before: list[float]
    """PSNR of D(z) against x"""
    falls: Rows
    """loss in dB by transformation: PSNR of D(z) against x, minus PSNR of D(t z) against t x"""
    own: Rows
    """PSNR of D(t z) against t D(z)"""
    picture: Picture


def _decoded(subject: Subject, numbers: list[int], cells: int) -> Decoded | float:
    before: list[float] = []
    falls: Rows = {}
    own: Rows = {}
    rows: list[list[Tensor]] = []
    for i in subject.track(numbers):
        x = crop_of(subject, [i], cells)
        z = subject.encode(x)
        plain = subject.decode(z)
        pairs = decoder_pairs(subject.decode, x, z, subject.factor)
        turned = images_transformed(plain, subject.factor)
        if share := max(not_finite(picture) for picture in (plain, *(a for a, _ in pairs.values()))):
            return share
        before.append(psnr(plain, x))
        for name, (there, wanted) in pairs.items():
            falls.setdefault(name, []).append(before[-1] - psnr(there, wanted))
            own.setdefault(name, []).append(psnr(there, turned[name]))
        if len(rows) < 3:
            pictures = [
                subject.uint8(p)[0] for pair in (pairs[n] for n in DECODER[:3] if n in pairs) for p in reversed(pair)
            ]
            rows.append([subject.uint8(x)[0], *pictures])
    titles = ["image"]
    for name in DECODER[:3]:
        titles += [LABELS[name], "its transformed latents, decoded"]
    return Decoded(
        before, falls, own, Picture("transformed pictures, and decoded transformed latents", sheet(rows, titles))
    )


def decoder_pairs(decode: Coder, x: Tensor, z: Tensor, f: int) -> dict[str, tuple[Tensor, Tensor]]:
    """D(t z) and t x, by the transformations of DECODER, for an image and its latents."""
    latents = {
        "scale_1/2": smaller(_even(z, 1), 2),
        "rot_90": TURNS["rot_90"](z),
        "hflip": TURNS["hflip"](z),
        "shift_1": shifted_latents(z, 1.0),
    }
    wanted = images_transformed(x, f)
    return {name: (decode(latents[name]), wanted[name]) for name in DECODER}


def images_transformed(x: Tensor, f: int) -> dict[str, Tensor]:
    """Images n k H W by the transformations of DECODER."""
    return {
        "scale_1/2": smaller(_even(x, f), 2),
        "rot_90": TURNS["rot_90"](x),
        "hflip": TURNS["hflip"](x),
        "shift_1": shifted_image(x, 1.0, f),
    }


def _even(x: Tensor, f: int) -> Tensor:
    h, w = (side // (2 * f) * 2 * f for side in x.shape[-2:])
    return x[..., :h, :w]


def psnr(a: Tensor, b: Tensor) -> float:
    """PSNR in dB between images in [-1,1], the first clamped; at most 100."""
    return float(decibels(error(a, b).mean().cpu().numpy()))


def _limit(name: str) -> str:
    if name == "shift_1":
        return f"0 ideal, 2 unrelated; ill above {SHIFT:g}"
    return (
        f"0 ideal, 2 unrelated; watch above {OTHER:g}"
        if name not in ("shift_1/2", "shift_1/4", "crop", "scale_1/4")
        else "0 ideal, 2 unrelated"
    )


def _decoder_figures(seen: Decoded) -> dict[str, Figure]:
    figures = {"decoder": Figure.of("PSNR decoded as it is", bootstrap(seen.before), "dB")}
    for name, row in seen.falls.items():
        limit = "0: as good as untransformed"
        figures[f"decoder_{name}"] = Figure.of(
            f"PSNR lost where latents are {LABELS[name]}", bootstrap(row), "dB", limit
        )
        label = f"PSNR against its own picture, {LABELS[name]}"
        figures[f"decoder_own_{name}"] = Figure.of(label, bootstrap(seen.own[name]), "dB", "100: the same")
    return figures


def _verdict(figures: dict[str, Figure]) -> tuple[Verdict, str]:
    shift = figures["shift_1"].value
    others = {name: figures[name].value for name in ("scale_1/2", *TURNS) if name in figures}
    worst = max(others, key=others.__getitem__)
    how = LABELS[worst].replace("half", "made half")
    text = (
        f"the error is {number(shift)} when shifted by one latent, and {number(others[worst])} when {how} (0 is ideal, "
        "2 unrelated)"
    )
    if shift > SHIFT:
        return "ill", f"not even a shift by exactly one latent shifts the latents: {text}"
    return ("watch" if others[worst] > OTHER else "healthy"), text


def _curve(figures: dict[str, Figure]) -> Curves:
    line = [(SHIFTS[name], figures[name].value) for name in sorted(SHIFTS, key=SHIFTS.__getitem__) if name in figures]
    return Curves(
        "error by shift along both sides", {"error": line}, "latents", levels={"no better than the mean": 1.0}
    )
