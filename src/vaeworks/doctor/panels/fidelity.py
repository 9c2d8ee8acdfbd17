"""Fidelity: the decoder's own faults in colour, place, sharpness, evenness and tone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...images import grid, to_pillow, to_uint8
from ...metrics import psnr
from ...metrics.baselines import down_up
from ..finding import VERDICTS, Curves, Figure, Finding, Picture, Verdict
from ..measures.response import (
    colour_map,
    displacement,
    odd_lines,
    pattern,
    radial_gain,
    transfer,
    turned,
)
from ..subject import Subject

Array = NDArray[np.float64]

PHOTOS = 24
"""Images whose response is measured; all are decoded, and must be finite."""

SIDE = 128
"""Side of the flat fields, in pixels."""

LEVELS = tuple(round(-1 + 0.2 * i, 1) for i in range(11))
"""Gray levels of the flat fields, in [-1,1]; those at the ends may clip."""

FREQUENCIES = (0.03, 0.06, 0.09, 0.125, 0.18, 0.25, 0.35)
"""Cycles per pixel at which the transfer is measured; SHARPNESS is judged at one of them."""

SHARPNESS = 0.125

# (watch, ill) for each fault. TAEF2 has: tint 0.3 gray levels, brightness 0.5, contrast 0.98, saturation 0.96, hue 0.3
# degrees, displacement 0.01 px, transfer 1.05, pattern 0.04 levels, corners 0.98, rows 1.1, noise 0.6 levels.
TINT, BRIGHTNESS, HUE = (1.0, 4.0), (3.0, 10.0), (5.0, 15.0)
CONTRAST, SATURATION, CORNERS, SHARP = (1.1, 1.3), (1.1, 1.3), (1.06, 1.12), (1.15, 1.35)
"""Factors by which a gain may differ from 1, either way."""

DISPLACED, PATTERN, NOISE, LINES = (0.2, 0.5), (0.5, 1.5), (1.5, 4.0), (1.5, 2.5)
TONE, ENDS, RANDOM = (6.0, 12.0), (8.0, 16.0), (0.5, 2.0)

FEW_TONES, FEW_VALUES = 0.5, 64
"""Share of the originals' 8-bit tones that decoded pictures have at least; distinct values of latents, at least."""

COLOURS = "red", "green", "blue"


@dataclass(frozen=True)
class _Fault:
    """Something that is wrong."""

    verdict: Verdict
    words: str


@dataclass
class _Report:
    """What was measured, and what of it is wrong."""

    figures: dict[str, Figure] = field(default_factory=dict)
    faults: list[_Fault] = field(default_factory=list)

    def say(self, verdict: Verdict, words: str) -> None:
        """A fault."""
        self.faults.append(_Fault(verdict, words))

    def size(
        self, key: str, label: str, value: float, limits: tuple[float, float], words: str, unit: str = "levels"
    ) -> None:
        """A figure that should be near 0. limits: (watch, ill) of its size."""
        watch, ill = limits
        self.figures[key] = Figure(label, value, unit=unit, limit=f"watch above {watch:g}, ill above {ill:g}")
        if not abs(value) <= watch:
            self.say("ill" if not abs(value) <= ill else "watch", words)

    def gain(self, key: str, label: str, value: float, limits: tuple[float, float], words: str) -> None:
        """A figure that should be near 1. limits: (watch, ill), the factors by which it may differ."""
        watch, ill = limits
        limit = f"watch outside {1 / watch:.2f} to {watch:.2f}, ill outside {1 / ill:.2f} to {ill:.2f}"
        self.figures[key] = Figure(label, value, limit=limit)
        factor = max(value, 1 / value) if value > 0 else np.inf
        if not factor <= watch:
            self.say("ill" if not factor <= ill else "watch", words)


def examine(subject: Subject) -> Finding:
    """Decode every image, flat fields and a gray scale, and measure how the decoder responds."""
    report = _Report()
    decoded, broken = _decoded(subject)
    numbers = [i for i in subject.some(PHOTOS) if i not in broken]
    report.figures["not_finite"] = Figure("images whose decode is not finite", len(broken), limit="0")
    if broken:
        first = ", ".join(map(str, sorted(broken)[:3]))
        report.say("ill", f"the decodes of {len(broken)} of {subject.count} images are not finite (image {first})")
    if not numbers:
        return _finding(subject, report)
    originals = subject.pixels[numbers].double().numpy()
    pictures = np.stack([decoded[i] for i in numbers])
    fields, response = _flat_fields(subject)
    _quality(report, subject, numbers, pictures)
    _place(report, originals, pictures)
    _colour(report, originals, pictures, fields, response)
    gains = dict(zip(FREQUENCIES, transfer(originals, pictures, FREQUENCIES), strict=True))
    _sharpness(report, gains[SHARPNESS], report.figures.get("contrast"))
    _evenness(report, originals, pictures, fields, response)
    _tones(report, originals, pictures, fields, response)
    _steadiness(report, subject, numbers)
    scale = list(zip(_gray(fields), _gray(response), strict=True))
    curves = (
        Curves("Transfer of detail", {"decoded": list(gains.items())}, "cycles per pixel", levels={"as it is": 1.0}),
        Curves("Gray scale", {"decoded": scale}, "gray level of a flat field", "decoded"),
    )
    return _finding(subject, report, curves, (_picture(fields, response),))


def _finding(
    subject: Subject, report: _Report, curves: tuple[Curves, ...] = (), pictures: tuple[Picture, ...] = ()
) -> Finding:
    faults = sorted(report.faults, key=lambda fault: VERDICTS.index(fault.verdict))
    verdict: Verdict = faults[0].verdict if faults else "healthy"
    if faults:
        sentence = "; ".join(fault.words for fault in faults[:4])
        sentence += f"; and {len(faults) - 4} more" if len(faults) > 4 else ""
    else:
        own, shrunk = (report.figures[name].value for name in ("psnr", "shrunk"))
        sentence = f"colours, places, sharpness and tones are kept: {own:.1f} dB (shrunk by f: {shrunk:.1f})"
    return Finding(
        verdict,
        sentence,
        report.figures,
        meaning="Every picture that is made with this VAE has these faults of its decoder, whatever the diffusion "
        "model does.",
        remedy=""
        if verdict == "healthy"
        else "A fault of colour or tone that is the same everywhere can be trained away in minutes (train "
        "finetune-decoder). A pattern, a displacement or single rows point at the code or at broken weights: compare "
        "with another copy of the file.",
        uncertainty=f"From {min(subject.count, PHOTOS)} images and {len(LEVELS)} flat fields of {SIDE} px; every image "
        "was decoded once. The figures are over all of them, without intervals. Tests plant each fault, in several "
        "strengths, into a sound VAE.",
        pictures=pictures,
        curves=curves,
        images=subject.count,
    )


def _decoded(subject: Subject) -> tuple[dict[int, Array], set[int]]:
    """Decoded pictures of the images that are measured, in gray levels c h w; and numbers of those that are not
    finite, among all."""
    wanted, found, broken = set(subject.some(PHOTOS)), {}, set()
    parts = [range(i, min(i + 4, subject.count)) for i in range(0, subject.count, 4)]
    for part in subject.track(parts):
        images = subject.decode(subject.mean[part.start : part.stop].clone())
        for number, image in zip(part, images, strict=True):
            if not image.isfinite().all():
                broken.add(number)
            elif number in wanted:
                found[number] = _levels(image[None])[0]
    return found, broken


def _flat_fields(subject: Subject) -> tuple[Array, Array]:
    """Flat fields of LEVELS and their decodes, in gray levels: n c side side."""
    side = max(1, SIDE // subject.factor) * subject.factor
    channels = subject.autoencoder.config.in_channels
    fields = torch.tensor(LEVELS).reshape(-1, 1, 1, 1).expand(-1, channels, side, side).contiguous()
    fields = fields.to(subject.autoencoder.device)
    return _levels(fields), _levels(
        subject.decode(subject.encode(fields, batch=len(fields))).nan_to_num(-1.0, 1.0, -1.0)
    )


def _levels(images: Tensor) -> Array:
    return np.asarray((images.clamp(-1, 1).double().cpu().numpy() + 1) * 127.5)


def _inner(fields: Array) -> Array:
    """Flat fields without their borders, where padding shows."""
    edge = fields.shape[-1] // 8
    return fields[..., edge:-edge, edge:-edge]


def _gray(fields: Array) -> list[float]:
    return [float(x) for x in _inner(fields).mean((1, 2, 3))]


def _quality(report: _Report, subject: Subject, numbers: list[int], pictures: Array) -> None:
    """PSNR, beside the images shrunk by f and enlarged, and beside their mean colours."""
    rows = []
    for number, picture in zip(numbers, pictures, strict=True):
        image = subject.pixels[number]
        flat = image.float().mean((1, 2), keepdim=True).round().expand_as(image).to(torch.uint8)
        shrunk = to_uint8(down_up(to_pillow(image), subject.factor))
        shown = torch.from_numpy(np.rint(picture).astype(np.uint8))
        rows.append([psnr(image, other) for other in (shown, shrunk, flat)])
    own, small, mean = (float(x) for x in np.minimum(rows, 100.0).mean(0))
    report.figures["psnr"] = Figure("PSNR", own, unit="dB")
    report.figures["shrunk"] = Figure("the same, of images shrunk by f and enlarged", small, unit="dB")
    report.figures["mean_colour"] = Figure("the same, of each image's mean colour", mean, unit="dB")
    if own < mean + 1:
        report.say("ill", f"it reconstructs hardly more than the mean colour: {own:.1f} dB, which has {mean:.1f}")
    elif own < small:
        report.say("watch", f"it reconstructs worse than the image shrunk by f: {own:.1f} dB, which has {small:.1f}")


def _place(report: _Report, originals: Array, pictures: Array) -> None:
    if how := turned(originals, pictures):
        report.say("ill", f"pictures are {how}")
        return
    down, right = displacement(originals, pictures)
    words = f"pictures are displaced by {right:+.2f} px to the right and {down:+.2f} px down"
    report.size("displacement", "displacement", float(np.hypot(down, right)), DISPLACED, words, "px")
    worst, kind, lines = odd_lines(originals, pictures)
    named = ", ".join(map(str, lines[:3])) + (" ..." if len(lines) > 3 else "")
    words = f"single {kind} ({named}) are wrong: {worst:.1f} times the error beside them"
    report.size("lines", "error of the worst row or column over its neighbours'", worst, LINES, words, "")


def _colour(report: _Report, originals: Array, pictures: Array, fields: Array, response: Array) -> None:
    matrix, bias = colour_map(originals, pictures)
    contrast, bright = float(matrix.sum() / len(matrix)), float(bias.mean())
    if contrast < 0:
        report.say("ill", "pictures are negatives: light and dark are exchanged")
        return
    if len(matrix) == 3:
        if words := _exchanged(matrix):
            report.say("ill", words)
            return
        tint = (_inner(response) - _inner(fields))[2:-2].mean((0, 2, 3))
        _chroma(report, matrix, tint - tint.mean(), contrast)
    words = f"pictures are {'lighter' if bright > 0 else 'darker'} by {abs(bright):.1f} gray levels"
    report.size("brightness", "change of brightness", bright, BRIGHTNESS, words)
    report.gain("contrast", "gain of contrast", contrast, CONTRAST, f"contrast is {contrast:.0%}")


def _exchanged(matrix: Array) -> str:
    """Which colour channels are exchanged, or constant; empty where none is."""
    places = max(itertools.permutations(range(3)), key=lambda p: sum(matrix[i, p[i]] for i in range(3)))
    if places != (0, 1, 2):
        moved = [f"{COLOURS[i]} shows {COLOURS[p]}" for i, p in enumerate(places) if i != p]
        return f"colour channels are exchanged: {', '.join(moved)}"
    dead = [name for name, row in zip(COLOURS, matrix, strict=True) if np.abs(row).sum() < 0.1]
    return f"{' and '.join(dead)} is the same in every picture" if dead else ""


def _chroma(report: _Report, matrix: Array, tint: Array, contrast: float) -> None:
    """Tint of gray, saturation and hue of colours, apart from contrast."""
    shifts = ", ".join(f"{name} {value:+.1f}" for name, value in zip(COLOURS, tint, strict=True))
    words = f"pictures are tinted: {shifts} gray levels"
    report.size("tint", "largest shift of red, green or blue in flat gray", float(np.abs(tint).max()), TINT, words)
    axes = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])  # the plane of chroma
    chroma = axes @ matrix @ axes.T
    cosine, sine = chroma[0, 0] + chroma[1, 1], chroma[1, 0] - chroma[0, 1]
    turn = float(np.degrees(np.arctan2(sine, cosine)))
    report.size("hue", "turn of hues", turn, HUE, f"hues are turned by {turn:+.0f} degrees", "degrees")
    gain = float(np.hypot(sine, cosine) / 2 / contrast)
    report.gain(
        "saturation", "gain of saturation", gain, SATURATION, f"saturation is {gain:.0%} of that of a colour chart"
    )


def _sharpness(report: _Report, gain: float, contrast: Figure | None) -> None:
    gain /= contrast.value if contrast is not None and contrast.value > 0.1 else 1.0
    what = "blurred" if gain < 1 else "sharpened"
    words = f"pictures are {what}: {gain:.0%} of the detail at {1 / SHARPNESS:g} px a cycle is decoded"
    report.gain("transfer", f"transfer of detail at {1 / SHARPNESS:g} px a cycle", gain, SHARP, words)


def _evenness(report: _Report, originals: Array, pictures: Array, fields: Array, response: Array) -> None:
    """Patterns, unevenness and noise on flat fields; and gain by the distance from the middle."""
    residual = (_inner(response) - _inner(fields))[2:-2]
    amplitude, period = pattern(residual)
    words = f"a pattern repeats every {period} px, of {amplitude:.1f} gray levels"
    report.size("pattern", "repeating pattern on flat fields", amplitude, PATTERN, words)
    spread = (residual - residual.mean((2, 3), keepdims=True)).var()
    rest = float(np.sqrt(max(spread - amplitude**2, 0)))
    words = f"flat fields are uneven by {rest:.1f} gray levels"
    report.size("unevenness", "other unevenness of flat fields", rest, NOISE, words)
    corner = radial_gain(originals, pictures)[-1]
    words = f"corners have {corner:.0%} of the middle's contrast"
    report.gain("corners", "gain in the corners over the middle's", corner, CORNERS, words)


def _tones(report: _Report, originals: Array, pictures: Array, fields: Array, response: Array) -> None:
    """The gray scale: its ends, its bend, and how many tones there are."""
    given, found = np.array(_gray(fields)), np.array(_gray(response))
    bend = found - np.polyval(np.polyfit(given[1:-1], found[1:-1], 1), given)
    middle = float(bend[len(bend) // 2])
    words = f"the gray scale bends by {middle:+.1f} levels in its middle, as by a gamma"
    report.size("bend", "bend of the gray scale in its middle", middle, TONE, words)
    black, white = float(bend[0]), float(-bend[-1])
    report.size(
        "black",
        "black is lighter than the scale goes on, by",
        black,
        ENDS,
        f"blacks are lifted or clipped by {black:.0f} levels",
    )
    report.size(
        "white",
        "white is darker than the scale goes on, by",
        white,
        ENDS,
        f"whites are lowered or clipped by {white:.0f} levels",
    )
    tones = [len(np.unique(np.rint(x))) for x in (originals, pictures)]
    share = tones[1] / tones[0]
    report.figures["tones"] = Figure("8-bit tones, of the originals'", share, limit=f"ill below {FEW_TONES:g}")
    if tones[1] < FEW_TONES * tones[0]:
        report.say("ill", f"pictures are posterized: {tones[1]} tones, where the originals have {tones[0]}")


def _steadiness(report: _Report, subject: Subject, numbers: list[int]) -> None:
    """Whether the decoder is a function, and latents are numbers and not steps."""
    latents = subject.mean[numbers[:1]].clone()
    once, again = (_levels(subject.decode(latents)) for _ in range(2))
    noise = float(np.abs(once - again).mean())
    words = f"two decodes of the same latents differ by {noise:.1f} gray levels"
    report.size("random", "difference of two decodes of the same latents", noise, RANDOM, words)
    values = subject.mean[numbers].clone()
    distinct = len(torch.unique(values))
    report.figures["values"] = Figure("distinct values of latents", distinct, limit=f"watch below {FEW_VALUES}")
    if distinct < min(FEW_VALUES, values.numel() // 4):
        report.say("watch", f"latents are quantized: they have {distinct} distinct values")


def _picture(fields: Array, response: Array) -> Picture:
    """What flat fields become, with their faults amplified sixteen times about middle gray."""
    amplified = np.clip((response - fields) * 16 + 127.5, 0, 255)[2:-2:2]
    row = [torch.from_numpy(np.rint(x).astype(np.uint8)).expand(3, -1, -1) for x in amplified]
    return Picture("errors of flat fields, x 16 about gray, from dark to light", grid([row], gap=4))
