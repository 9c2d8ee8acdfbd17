"""Noise and smoothness: pictures of disturbed and mixed latents, and pictures that are encoded and decoded again and again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...metrics.bootstrap import bootstrap
from ..capacity import measure_channels
from ..finding import Curves, Figure, Finding, Picture, Verdict, number
from ..patient import Patient
from ..smoothness import (
    LEVELS, Rounds, area, cycle, error, gradient_energy, lab_axes, lerp, level_of_loss, noise_errors, psnr, slerp,
)  # fmt: skip
from .broken import broken
from .decoded import crop_cells, crop_of, not_finite, undecodable
from .maps import sheet

Array = NDArray[np.float64]

IMAGES, IMAGES_QUICK = 24, 5
"""Images that are decoded under noise."""

CYCLED, CYCLED_QUICK = 10, 3
"""Images that are encoded and decoded again and again."""

ROUNDS, ROUNDS_QUICK = 8, 4

PAIRS, PAIRS_QUICK = 10, 3

COLOUR = 1.0
GAIN = 0.05
THREE_DB = 0.05
FALL = 1.0
TOUCH = 2 / 255
"""Standard deviation of the noise that pixels get to see what the encoder makes of it: one gray level."""


def examine(patient: Patient) -> Finding:
    """Decoding under noise, midpoints, and encode-decode rounds."""
    if (found := broken(patient)) is not None:
        return found
    survey = _surveyed(patient)
    if isinstance(survey, float):
        return undecodable(survey)
    figures = _figures(survey)
    verdict, sentence, remedy = _verdict(figures)
    side = crop_cells(patient) * patient.factor
    return Finding(
        verdict, sentence, figures,
        meaning="A diffusion model never hits latents exactly: what its small errors do to pictures is what noise does here. Who edits pictures in "
        "latents, or saves and encodes them again (inpainting, video, repeated image to image), goes through the rounds, and "
        "sees their drift of colour and contrast.",
        remedy=remedy,
        dispute="Decoding under noise ranked tokenizers like their generators did (11 discrete ones, correlation above 0.95), which has not been shown "
        "for continuous latents; a very faithful VAE loses 3 dB early just because it has more to lose.",
        uncertainty=f"{len(survey.against)} images under noise, {len(survey.middles)} midpoints, {len(survey.cycles)} images in rounds, each the middle {side} px; "
        "intervals resample images (pairs of them). One draw of noise per image, the same at all levels. Pictures are clamped, and in rounds "
        "rounded to 8 bits. Between levels the 3 dB point is interpolated as for a linear decoder; "
        f"{LEVELS[-1]:g} means that it was not reached.",
        pictures=survey.pictures, curves=tuple(_curves(survey)), images=patient.count,
    )  # fmt: skip


@dataclass(frozen=True)
class Middle:
    """Of the latents between two images."""

    lerp: float
    """mean squared distance of E(D(m)) from m, in variances"""
    slerp: float
    sharpness: float
    """gradient energy of D(m) over the mean of the ends', slerp"""
    crossfade: float
    """the same of the mean of both pictures"""


@dataclass(frozen=True)
class Survey:
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
    middles: tuple[Middle, ...]
    cycles: tuple[Rounds, ...]
    lab: tuple[int, ...]
    """which numbers of a round's colour are L, a, b"""
    pictures: tuple[Picture, ...]


def _surveyed(patient: Patient) -> Survey | float:
    """All measurements; or the share of decoded values that are no numbers."""
    quick, cells = patient.quick, crop_cells(patient)
    total = measure_channels(patient).total
    mean, std = (torch.from_numpy(v).float()[:, None, None] for v in (total.mean[0], total.std.clip(1e-6)))
    numbers = patient.some(IMAGES_QUICK if quick else IMAGES)
    against, own, floor, again, touch, strips = [], [], [], [], [], []
    latents: dict[int, Tensor] = {}
    for i in patient.track(numbers):
        x = crop_of(patient, [i], cells)
        z = latents[i] = patient.encode(x)
        plain = patient.decode(z)
        if share := not_finite(plain):
            return share
        seed = patient.protocol.seed + i
        first, second = noise_errors(patient.decode, z, x, std, seed)
        if not (np.isfinite(first).all() and np.isfinite(second).all()):
            return float(1 - np.isfinite(first).mean())
        against.append(first)
        own.append(second)
        floor.append(float(error(x.mean((2, 3), keepdim=True).expand_as(x), x)))
        again.append(_distance(patient.encode(plain.clamp(-1, 1)), z, std))
        disturbed = x + TOUCH * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)
        touch.append(_distance(patient.encode(disturbed), z, std) ** 0.5)
        if len(strips) < 2:
            eps = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed)).to(z) * std.to(z)
            strips.append([patient.uint8(x)[0], *(patient.uint8(patient.decode(z + s * eps))[0] for s in LEVELS)])
    middles, sheets = _middles(patient, latents, mean, std, cells)
    rounds = ROUNDS_QUICK if quick else ROUNDS
    cycled = numbers[: CYCLED_QUICK if quick else CYCLED]
    cycles = tuple(cycle(patient.encode, patient.decode, crop_of(patient, [i], cells), std, rounds) for i in patient.track(cycled))
    shown = sorted({*range(min(3, rounds)), rounds // 2 - 1, rounds - 1})
    pictures = [
        Picture("decoded from latents under noise, in standard deviations", sheet(strips, ["image", *(f"noise {s:g}" for s in LEVELS)])),
        Picture(
            "encoded and decoded again and again",
            sheet(
                [[patient.uint8(crop_of(patient, [i], cells))[0], *(one.pictures[k][0] for k in shown)] for i, one in zip(cycled[:3], cycles, strict=False)],
                ["image", *(f"round {k + 1}" for k in shown)],
            ),
        ),
    ]  # fmt: skip
    if sheets:
        pictures.insert(
            1,
            Picture(
                "decoded from the middle between the latents of two images",
                sheet(sheets, ["one", "middle (lerp)", "middle (slerp)", "other"]),
            ),
        )
    return Survey(
        np.stack(against), np.stack(own), np.array(floor), np.array(again), np.array(touch), middles, cycles,
        tuple(lab_axes(patient.autoencoder.config.in_channels)), tuple(pictures),
    )  # fmt: skip


def _distance(a: Tensor, b: Tensor, std: Tensor) -> float:
    """Mean squared, in variances."""
    return float(((a - b) / std.to(a)).double().square().mean())


def _middles(
    patient: Patient, latents: dict[int, Tensor], mean: Tensor, std: Tensor, cells: int
) -> tuple[tuple[Middle, ...], list[list[Tensor]]]:
    """Of neighbouring images in the list; none of one image."""
    numbers = list(latents)
    pairs = list(zip(numbers, numbers[1:], strict=False))[: PAIRS_QUICK if patient.quick else PAIRS]
    mean, std = mean.to(patient.autoencoder.device), std.to(patient.autoencoder.device)
    middles, sheets = [], []
    for i, j in patient.track(pairs):
        straight, arc = lerp(latents[i], latents[j]), slerp(latents[i], latents[j], mean, std)
        ends = [patient.decode(latents[k]).clamp(-1, 1) for k in (i, j)]
        pictures = [patient.decode(m).clamp(-1, 1) for m in (straight, arc)]
        energy = max((gradient_energy(ends[0]) + gradient_energy(ends[1])) / 2, 1e-12)
        middles.append(
            Middle(
                *(_distance(patient.encode(p), m, std) for p, m in zip(pictures, (straight, arc), strict=True)),
                gradient_energy(pictures[1]) / energy,
                gradient_energy((ends[0] + ends[1]) / 2) / energy,
            )
        )
        if len(sheets) < 2:
            sheets.append([patient.uint8(p)[0] for p in (ends[0], *pictures, ends[1])])
    return tuple(middles), sheets


def _figures(survey: Survey) -> dict[str, Figure]:
    figures = {
        "psnr": Figure.of("PSNR without noise", bootstrap(psnr(survey.against[:, 0])), "dB"),
        "floor": Figure.of(
            "PSNR of each image's mean colour", bootstrap(psnr(survey.floor)), "dB", "what a decoder that draws nothing has"
        ),
        "three_db": Figure.of(
            "noise at which 3 dB are lost", bootstrap([level_of_loss(row) for row in survey.against]), "sigma", f"watch below {THREE_DB:g}"
        ),
        "area": Figure.of(f"mean PSNR for noise from 0 to {LEVELS[-1]:g}", bootstrap(psnr(survey.against), area), "dB"),
    }
    for s in (0.1, 0.4):
        row = psnr(survey.own[:, LEVELS.index(s)])
        figures[f"own_{s:g}"] = Figure.of(f"PSNR against the undisturbed picture at noise {s:g}", bootstrap(row), "dB")
    figures["touch"] = Figure.of("change of latents when pixels get noise of one gray level", bootstrap(survey.touch), "sigma")
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
    rounds = len(survey.cycles[0].errors)
    fall = [(psnr(one.errors[:1])[0] - psnr(one.errors[-1:])[0]) / (rounds - 1) for one in survey.cycles]
    figures["fall"] = Figure.of("PSNR lost in each further round", bootstrap(fall), "dB", f"watch above {FALL:g}")
    figures["drift"] = Figure.of(f"drift of latents after {rounds} rounds", bootstrap([one.drift[-1] for one in survey.cycles]), "sigma")
    names = ("L", "a", "b")
    colours = np.stack([one.colour[:, list(survey.lab)] for one in survey.cycles]) / rounds
    for k in range(len(survey.lab)):
        figures[f"colour_{names[k]}"] = Figure.of(f"drift of {names[k]} in each round", bootstrap(colours[:, -1, k]), "Lab")
    figures["colour"] = Figure.of(
        "drift of colour in each round",
        bootstrap(colours[:, -1], lambda rows: float(np.linalg.norm(rows.mean(0)))),
        "Lab",
        f"ill above {COLOUR:g}",
    )
    gains = [float(np.exp(np.log(one.gain.clip(1e-3)).mean())) for one in survey.cycles]
    figures["gain"] = Figure.of("contrast gain of each round", bootstrap(gains), limit=f"ill outside 1 ± {GAIN:g}")
    return figures


def _root(rows: Array) -> float:
    return float(np.sqrt(rows.mean()))


def _verdict(figures: dict[str, Figure]) -> tuple[Verdict, str, str]:
    psnr_, floor, colour, gain, three, fall = (figures[name].value for name in ("psnr", "floor", "colour", "gain", "three_db", "fall"))
    if psnr_ < floor:
        return (
            "ill",
            (
                f"its decoder does not draw the image at all: PSNR {number(psnr_)} dB, less than the {number(floor)} dB of the image's mean colour"
            ),
            "Check that the file is the right one and has trained weights.",
        )
    if colour > COLOUR:
        return (
            "ill",
            f"each round of encoding and decoding shifts colours by {number(colour)} Lab units",
            (
                "Encode each picture once and keep its latents; `vaeworks train` from this VAE with --perceptual weights lower, or another VAE, "
                "has less of a cast; a constant cast can be taken off the output."
            ),
        )
    if abs(gain - 1) > GAIN:
        return (
            "ill",
            f"each round of encoding and decoding multiplies contrast by {number(gain)}",
            ("Encode each picture once and keep its latents; a gain that is the same everywhere belongs into the last convolution."),
        )
    text = f"3 dB are lost at noise of {number(three)} sigma, and {number(fall)} dB in each further round of encoding and decoding"
    if three < THREE_DB or fall > FALL:
        return (
            "watch",
            text,
            "Recipes noise, sigma-noise and denoise train the decoder under noise, at some cost in PSNR. Encode pictures once and keep their latents.",
        )
    return "healthy", text, ""


def _curves(survey: Survey) -> list[Curves]:
    curves = [
        Curves(
            "PSNR under noise",
            {
                "against the image": [(s, float(y)) for s, y in zip(LEVELS, psnr(survey.against).mean(0), strict=True)],
                "against the undisturbed picture": [
                    (s, float(y)) for s, y in zip(LEVELS[1:], psnr(survey.own).mean(0)[1:], strict=True)
                ],
            },
            "noise, standard deviations", "dB", levels={"mean colour": float(psnr(survey.floor).mean())},
        )
    ]  # fmt: skip
    rounds = range(1, len(survey.cycles[0].errors) + 1)
    errors = psnr(np.stack([one.errors for one in survey.cycles])).mean(0)
    drift = np.stack([one.drift for one in survey.cycles]).mean(0)
    colours = np.stack([one.colour[:, list(survey.lab)] for one in survey.cycles]).mean(0)
    gain = np.cumprod(np.stack([one.gain for one in survey.cycles]), axis=1).mean(0)
    curves.append(Curves("PSNR by round", {"PSNR": [(float(k), float(y)) for k, y in zip(rounds, errors, strict=True)]}, "round", "dB"))
    curves.append(
        Curves("drift of latents", {"latents": [(float(k), float(y)) for k, y in zip(rounds, drift, strict=True)]}, "round", "sigma")
    )
    curves.append(
        Curves(
            "drift of mean colour",
            {name: [(float(k), float(row[n])) for k, row in zip(rounds, colours, strict=True)] for n, name in enumerate(("L", "a", "b")[: len(survey.lab)])},
            "round", "Lab", levels={"none": 0.0},
        )
    )  # fmt: skip
    curves.append(
        Curves("contrast", {"gain": [(float(k), float(y)) for k, y in zip(rounds, gain, strict=True)]}, "round", levels={"unchanged": 1.0})
    )
    return curves
