"""Noise and smoothness: pictures of disturbed and mixed latents, and pictures that are encoded and decoded again and
again."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...intervals import bootstrap
from ...pages.heatmap import sheet
from ..finding import Curves, Figure, Finding, NotExamined, Picture, Verdict, number
from ..measures.capacity import measure_channels
from ..measures.smoothness import (
    LEVELS,
    Rounds,
    area,
    cycle,
    error,
    gradient_energy,
    lab_axes,
    lerp,
    level_of_loss,
    noise_errors,
    psnr,
    slerp,
)
from ..subject import Subject
from .crops import crop_cells, crop_of, not_finite, undecodable
from .nonfinite import broken

Array = NDArray[np.floating[Any]]

IMAGES, IMAGES_QUICK = 24, 4
"""Images that are decoded under noise."""

CYCLED, CYCLED_QUICK = 10, 3
"""Images that are encoded and decoded again and again."""

ROUNDS, ROUNDS_QUICK = 8, 4

PAIRS, PAIRS_QUICK = 10, 2

COLOUR, COLOUR_WATCH = 2.3, 1.0
"""Lab units by which a single round may shift the mean colour: 2.3 is the just noticeable difference (Mahy et al.
1994), 1 can hardly be seen. Of TAEF2 and 7 VAEs of our recipes on 3 portraits of dogs, all but one have 0.35 to 0.95;
tanh has 2.2."""

GAIN, GAIN_WATCH = 0.2, 0.1
"""Share by which a round may change contrast. The same VAEs have 0.97 to 1.05, random weights 0.32. With 10 % four
rounds change it by half or a third, with 20 % they double or halve it (arithmetic)."""

AMPLIFIED = 2.0
"""Noise in pictures over noise in latents. An orthonormal transform that loses nothing has 1; the same VAEs have 0.58
(noise) to 1.07."""

FALL = 3.0
"""dB that each further round may cost. The same VAEs have 1.4 to 2.4."""

SPAN = 4
"""Rounds over which drift is taken, however many there are: it becomes slower with each."""

SMALL = 0.1
"""Noise level at which amplification is taken."""

ONCE = "Encode each picture once and keep its latents; compose in pixels, not by decoding and encoding again."
CAST = f"{ONCE} A cast or gain that is the same everywhere can be taken off the decoded picture, or be trained away."
NOISE = f"Recipes noise, sigma-noise and denoise train the decoder under noise, at some cost in PSNR. {ONCE}"

FLAT = 1e-5
"""Mean squared deviation from an image's mean colour, range [-1,1], up to which images count as plain: less than one
gray level."""

TOUCH = 2 / 255
"""Standard deviation of the noise that pixels get to see what the encoder makes of it: one gray level."""


def examine(subject: Subject) -> Finding:
    """Decoding under noise, midpoints, and encode-decode rounds."""
    if (found := broken(subject)) is not None:
        return found
    survey = _surveyed(subject)
    if isinstance(survey, float):
        return undecodable(survey)
    if not survey.floor.mean() > FLAT:
        raise NotExamined("needs images with content: each of these has one colour; give photographs")
    figures = _figures(survey)
    verdict, sentence, remedy = _verdict(figures)
    side = crop_cells(subject) * subject.factor
    return Finding(
        verdict,
        sentence,
        figures,
        meaning="A diffusion model never hits latents exactly: what its small errors do to pictures is what noise does "
        "here. Who edits pictures in latents, or saves and encodes them again (inpainting, video, repeated image to "
        "image), goes through the rounds, and sees their drift of colour and contrast.",
        remedy=remedy,
        dispute="Decoding under noise ranked tokenizers like their generators did (11 discrete ones, correlation above "
        "0.95), which has not been shown for continuous latents; a very faithful VAE loses 3 dB early just because it "
        "has more to lose.",
        uncertainty=f"{len(survey.against)} images under noise, {len(survey.middles)} midpoints, {len(survey.cycles)} "
        f"images in rounds, each the middle {side} px; intervals resample images (pairs of them). One draw of noise "
        "per image, the same at all levels. Pictures are clamped, and in rounds rounded to 8 bits. Between levels the "
        f"3 dB point is interpolated as for a linear decoder; {LEVELS[-1]:g} means that it was not reached. Of few "
        "images, drift of colour is the length of a noisy mean, and too large.",
        pictures=survey.pictures,
        curves=tuple(_curves(survey)),
        images=subject.count,
    )


@dataclass(frozen=True)
class Midpoints:
    """Of the latents between two images."""

    lerp: float
    """mean squared distance of E(D(m)) from m, in variances"""
    slerp: float
    sharpness: float
    """gradient energy of D(m) over the mean of the ends', slerp"""
    crossfade: float
    """the same of the mean of both pictures"""


@dataclass(frozen=True)
class NoiseSurvey:
    """All that was measured."""

    against: Array
    """n l: mean squared error against the image, by noise level"""
    own: Array
    """n l: against the picture of undisturbed latents"""
    floor: Array
    """n: mean squared error of the image's own mean colour"""
    again: Array
    """n: mean squared distance of E(D(z)) from z, in variances"""
    touch: Array
    """n: rms change of latents when pixels get noise of one gray level, in standard deviations"""
    middles: tuple[Midpoints, ...]
    cycles: tuple[Rounds, ...]
    lab: tuple[int, ...]
    """which numbers of a round's colour are L, a, b"""
    pictures: tuple[Picture, ...]


def _surveyed(subject: Subject) -> NoiseSurvey | float:
    """All measurements; or the share of decoded values that are no numbers."""
    quick, cells = subject.quick, crop_cells(subject)
    total = measure_channels(subject).total
    mean, std = (torch.from_numpy(v).float()[:, None, None] for v in (total.mean[0], total.std.clip(1e-6)))
    numbers = subject.some(IMAGES_QUICK if quick else IMAGES)
    against, own, floor, again, touch = [], [], [], [], []
    strips: list[list[Tensor]] = []
    latents: dict[int, Tensor] = {}
    decoded: dict[int, Tensor] = {}
    for i in subject.track(numbers):
        x = crop_of(subject, [i], cells)
        z = latents[i] = subject.encode(x)
        seed = subject.protocol.seed + i
        first, second, noisy = noise_errors(subject.decode, z, x, std, seed)
        if share := max(not_finite(picture) for picture in noisy):
            return share
        plain = decoded[i] = noisy[0].clamp(-1, 1)
        against.append(first)
        own.append(second)
        floor.append(float(error(x.mean((2, 3), keepdim=True).expand_as(x), x)))
        again.append(_distance(subject.encode(plain), z, std))
        disturbed = x + TOUCH * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)
        touch.append(_distance(subject.encode(disturbed), z, std) ** 0.5)
        if len(strips) < 2:
            strips.append([subject.uint8(x)[0], *(subject.uint8(picture)[0] for picture in noisy)])
    middles, sheets = _middles(subject, latents, decoded, mean, std)
    rounds = ROUNDS_QUICK if quick else ROUNDS
    cycled = numbers[: CYCLED_QUICK if quick else CYCLED]
    cycles = tuple(
        cycle(subject.encode, subject.decode, crop_of(subject, [i], cells), std, rounds) for i in subject.track(cycled)
    )
    pictures = [
        Picture(
            "decoded from latents under noise, in standard deviations",
            sheet(strips, ["image", *(f"noise {s:g}" for s in LEVELS)]),
        )
    ]
    if sheets:
        middle = sheet(sheets, ["one", "middle (lerp)", "middle (slerp)", "other"])
        pictures.append(Picture("decoded from the middle between the latents of two images", middle))
    shown = sorted({0, 1, rounds // 2 - 1, rounds - 1})
    rows = [
        [subject.uint8(crop_of(subject, [i], cells))[0], *(one.pictures[k][0] for k in shown)]
        for i, one in zip(cycled[:3], cycles[:3], strict=True)
    ]
    pictures.append(
        Picture("encoded and decoded again and again", sheet(rows, ["image", *(f"round {k + 1}" for k in shown)]))
    )
    return NoiseSurvey(
        np.stack(against),
        np.stack(own),
        np.array(floor),
        np.array(again),
        np.array(touch),
        middles,
        cycles,
        tuple(lab_axes(subject.autoencoder.config.in_channels)),
        tuple(pictures),
    )


def _distance(a: Tensor, b: Tensor, std: Tensor) -> float:
    """Mean squared, in variances."""
    return float(((a - b) / std.to(a)).double().square().mean())


def _middles(
    subject: Subject, latents: dict[int, Tensor], decoded: dict[int, Tensor], mean: Tensor, std: Tensor
) -> tuple[tuple[Midpoints, ...], list[list[Tensor]]]:
    """Of neighbouring images in the list; none of one image."""
    numbers = list(latents)
    pairs = list(pairwise(numbers))[: PAIRS_QUICK if subject.quick else PAIRS]
    mean, std = mean.to(subject.autoencoder.device), std.to(subject.autoencoder.device)
    middles: list[Midpoints] = []
    sheets: list[list[Tensor]] = []
    for i, j in subject.track(pairs):
        straight, arc = lerp(latents[i], latents[j]), slerp(latents[i], latents[j], mean, std)
        ends = [decoded[i], decoded[j]]
        pictures = [subject.decode(m).clamp(-1, 1) for m in (straight, arc)]
        energy = max((gradient_energy(ends[0]) + gradient_energy(ends[1])) / 2, 1e-12)
        middles.append(
            Midpoints(
                _distance(subject.encode(pictures[0]), straight, std),
                _distance(subject.encode(pictures[1]), arc, std),
                gradient_energy(pictures[1]) / energy,
                gradient_energy((ends[0] + ends[1]) / 2) / energy,
            )
        )
        if len(sheets) < 2:
            sheets.append([subject.uint8(p)[0] for p in (ends[0], *pictures, ends[1])])
    return tuple(middles), sheets


def _figures(survey: NoiseSurvey) -> dict[str, Figure]:
    n = LEVELS.index(SMALL)
    figures = {
        "psnr": Figure.of("PSNR without noise", bootstrap(psnr(survey.against[:, 0])), "dB"),
        "floor": Figure.of(
            "PSNR of each image's mean colour",
            bootstrap(psnr(survey.floor)),
            "dB",
            "what a decoder that draws nothing has",
        ),
        "lost": Figure.of(
            "squared error without noise over that of the mean colour",
            bootstrap(np.stack([survey.against[:, 0], survey.floor], axis=1), _quotient),
            limit="0 ideal; ill above 1",
        ),
        "amplification": Figure.of(
            "noise in pictures over noise in latents, by standard deviations",
            bootstrap(np.stack([survey.own[:, n], survey.floor], axis=1), _amplification),
            limit=f"1 of an orthonormal transform; watch above {AMPLIFIED:g}",
        ),
        "three_db": Figure.of(
            "noise at which 3 dB are lost", bootstrap([level_of_loss(row) for row in survey.against]), "sigma"
        ),
        "area": Figure.of(f"mean PSNR for noise from 0 to {LEVELS[-1]:g}", bootstrap(psnr(survey.against), area), "dB"),
    }
    for s in (0.1, 0.4):
        row = psnr(survey.own[:, LEVELS.index(s)])
        figures[f"own_{s:g}"] = Figure.of(f"PSNR against the undisturbed picture at noise {s:g}", bootstrap(row), "dB")
    figures["touch"] = Figure.of(
        "change of latents when pixels get noise of one gray level", bootstrap(survey.touch), "sigma"
    )
    figures["again"] = Figure.of("distance of re-encoded latents, real ones", bootstrap(survey.again, _root), "sigma")
    if survey.middles:
        for name in ("slerp", "lerp"):
            rows = [getattr(m, name) for m in survey.middles]
            figures[f"again_{name}"] = Figure.of(f"the same, midpoints ({name})", bootstrap(rows, _root), "sigma")
        fade = float(np.mean([m.crossfade for m in survey.middles]))
        sharpness = bootstrap([m.sharpness for m in survey.middles])
        figures["sharpness"] = Figure.of(
            "detail of midpoints (slerp) over that of real ones", sharpness, limit=f"{fade:.2f} of mixed pixels"
        )
    return figures | _round_figures(survey)


def _round_figures(survey: NoiseSurvey) -> dict[str, Figure]:
    """Drift over the first SPAN rounds."""
    fall = [float(psnr(one.errors[:1])[0] - psnr(one.errors[SPAN - 1 : SPAN])[0]) / (SPAN - 1) for one in survey.cycles]
    colours = np.stack([one.colour[SPAN - 1, list(survey.lab)] for one in survey.cycles]) / SPAN
    gains = [float(np.exp(np.log(one.gain[:SPAN].clip(1e-3)).mean())) for one in survey.cycles]
    figures = {
        "fall": Figure.of("PSNR lost in each of rounds 2 to 4", bootstrap(fall), "dB", f"watch above {FALL:g}"),
        "drift": Figure.of(
            f"drift of latents after {SPAN} rounds", bootstrap([one.drift[SPAN - 1] for one in survey.cycles]), "sigma"
        ),
    }
    for k, name in enumerate(("L", "a", "b")[: len(survey.lab)]):
        figures[f"colour_{name}"] = Figure.of(f"drift of {name} in each round", bootstrap(colours[:, k]), "Lab")
    limit = f"watch above {COLOUR_WATCH:g}, ill above {COLOUR:g}"
    figures["colour"] = Figure.of("drift of mean colour in each round", bootstrap(colours, _length), "Lab", limit)
    figures["gain"] = Figure.of(
        "contrast gain of each round",
        bootstrap(gains),
        limit=f"watch outside 1 ± {GAIN_WATCH:g}, ill outside 1 ± {GAIN:g}",
    )
    return figures


def _quotient(rows: Array) -> float:
    error, power = rows.mean(0)
    return float(error / power) if power > 0 else float("nan")


def _amplification(rows: Array) -> float:
    return float(np.sqrt(_quotient(rows))) / SMALL


def _length(rows: Array) -> float:
    return float(np.linalg.norm(rows.mean(0)))


def _root(rows: Array) -> float:
    return float(np.sqrt(rows.mean()))


def _verdict(figures: dict[str, Figure]) -> tuple[Verdict, str, str]:
    """Verdict, sentence and remedy."""
    value = {name: figure.value for name, figure in figures.items()}
    if value["lost"] > 1:
        own, flat = number(value["psnr"]), number(value["floor"])
        sentence = (
            f"its pictures are further from the images than each image's mean colour: {number(value['lost'])} times "
            f"the squared error, {own} dB against {flat} dB"
        )
        return "ill", sentence, "Check that the file is the right one and has trained weights."
    drift = (
        f"each round of encoding and decoding shifts mean colour by {number(value['colour'])} Lab units and multiplies "
        f"contrast by {number(value['gain'])}"
    )
    off = abs(value["gain"] - 1)
    if value["colour"] > COLOUR or off > GAIN:
        return "ill", drift, CAST
    noise = (
        f"noise of {SMALL:g} sigma in latents becomes {number(SMALL * value['amplification'])} sigma in pictures, and "
        f"3 dB are lost at {number(value['three_db'])} sigma"
    )
    if value["amplification"] > AMPLIFIED:
        return "watch", f"{noise}; {drift}", NOISE
    if value["colour"] > COLOUR_WATCH or off > GAIN_WATCH:
        return "watch", f"{drift}; {noise}", CAST
    if value["fall"] > FALL:
        return "watch", f"{number(value['fall'])} dB are lost in each further round; {drift}", ONCE
    return "healthy", f"{noise}; {drift}", ""


def _curves(survey: NoiseSurvey) -> list[Curves]:
    curves = [
        Curves(
            "PSNR under noise",
            {
                "against the image": [(s, float(y)) for s, y in zip(LEVELS, psnr(survey.against).mean(0), strict=True)],
                "against the undisturbed picture": [
                    (s, float(y)) for s, y in zip(LEVELS[1:], psnr(survey.own).mean(0)[1:], strict=True)
                ],
            },
            "noise, standard deviations",
            "dB",
            levels={"mean colour": float(psnr(survey.floor).mean())},
        )
    ]
    errors = psnr(np.stack([one.errors for one in survey.cycles])).mean(0)
    drift = np.stack([one.drift for one in survey.cycles]).mean(0)
    colours = np.stack([one.colour[:, list(survey.lab)] for one in survey.cycles]).mean(0)
    gain = np.cumprod(np.stack([one.gain for one in survey.cycles]), axis=1).mean(0)
    lab = {name: _by_round(colours[:, n]) for n, name in enumerate(("L", "a", "b")[: len(survey.lab)])}
    return [
        *curves,
        Curves("PSNR by round", {"PSNR": _by_round(errors)}, "round", "dB"),
        Curves("drift of latents", {"latents": _by_round(drift)}, "round", "sigma"),
        Curves("drift of mean colour", lab, "round", "Lab", levels={"none": 0.0}),
        Curves("contrast", {"contrast": _by_round(gain)}, "round", levels={"unchanged": 1.0}),
    ]


def _by_round(values: Array) -> list[tuple[float, float]]:
    return [(k + 1.0, float(value)) for k, value in enumerate(values)]
