"""Spectrum of the latents: the share of fine detail that neighbours do not predict, compared with images and with white
noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...images import to_model_range, to_pillow
from ...intervals import Interval, bootstrap
from ...losses.spectrum import radial_spectrum, spectral_divergence
from ...metrics.dct import block_amplitudes, dct2, flatness, high_share, is_high, white_ceiling
from ...pages.heatmap import enlarged, heat
from ..finding import Curves, Figure, Finding, NotExamined, Picture, Verdict
from ..measures.capacity import measure_channels, standardization
from ..subject import Subject
from .nonfinite import broken

Array = NDArray[np.float64]

RHOS = 0.25, 0.5
"""Shares of the highest diagonal frequency beyond which frequencies count as high (arXiv 2606.03578)."""

BASELINE, GOOD = 0.40, 0.04
"""SEC_0.25 of the baseline and of good tokenizers in arXiv 2606.03578. Of our recipes' VAEs, on 64 portraits of dogs,
f4c4 has 0.32, f8c4 0.45, f8c16 0.45 to 0.69, f8c64 0.73; TAEF2 0.41."""

WHITE = 0.95
"""Smallest share of white noise's SEC_0.25 of latents that are noise to their neighbours: planted white noise has 1.00
+- 0.01; of 12 VAEs of our recipes, on 64 portraits of dogs, the whitest (f8c64) has 0.84."""

REMEDY = (
    "Recipes that remove needless detail from latents: scale-equivariance, lowpass, spectrum, equivariance; also "
    "weaker KL (which adds white noise) and fewer channels."
)

SIDE = 8
"""Smallest side in latents for a slope."""

IMAGES, IMAGES_QUICK = 512, 96
"""Number of images for the spectra."""

BLOCK = 8


def examine(subject: Subject) -> Finding:
    """Measure high-frequency share, slopes of latents and images, block profile, flatness, and the divergence of the
    spectra."""
    if (found := broken(subject)) is not None:
        return found
    h, w = subject.mean.shape[-2:]
    if min(h, w) < SIDE:
        raise NotExamined(
            f"needs latents of at least {SIDE} x {SIDE}, not {h} x {w}; examine at a size of {SIDE * subject.factor} "
            "px or more"
        )
    seen = measure_spectra(subject, subject.some(IMAGES_QUICK if subject.quick else IMAGES))
    if not seen.energy.sum() > 0:
        raise NotExamined("needs latents that differ; all of these are one number; see the panel scale")
    figures = _figures(seen)
    verdict, sentence = _verdict(seen, figures)
    return Finding(
        verdict,
        sentence,
        figures,
        meaning="A diffusion model makes coarse structure first and fine detail last, which suits pictures, whose "
        "power falls steeply with frequency. Fine detail that neighbouring latents do not predict is noise to it: the "
        "model has to learn it place by place, and small errors show as grain or wrong texture.",
        remedy="" if verdict == "healthy" else REMEDY,
        dispute="High-frequency share predicts generation better for LightningDiT than for SiT, and less well than "
        "semantic measures for both (arXiv 2606.03578); it is not a fault by itself.",
        uncertainty=f"{len(seen.power)} images, resampled for the intervals; channels are standardized first, dead "
        f"ones left out. The ceiling is exact for {h} x {w}; values for latents of other sizes, or for images with "
        "less detail, do not compare. Flatness is corrected for the finite number of images as for white noise; "
        "images that are alike make it a little too low.",
        pictures=(_picture(seen),),
        curves=tuple(_curves(seen)),
        tables={"channels": _table(seen)},
        images=len(seen.power),
    )


@dataclass(frozen=True)
class Spectra:
    """Spectra of n images and of their latents, standardized by channel."""

    alive: list[int]
    """numbers of the live channels, which all fields are about"""
    power: Array
    """n h w: squared DCT coefficients, mean over channels"""
    channels: Array
    """c h w: squared DCT coefficients, mean over images"""
    radial: Array
    """n b: power of the latents by frequency"""
    pictures: Array
    """n b: power of the images by frequency, made as small as the latents and standardized alike"""
    frequencies: Array
    """b: frequencies in cycles per latent, up to 1/2"""
    blocks: Array | None
    """n 64: amplitudes of the latents' 8 x 8 blocks"""
    picture_blocks: Array
    """n 64: amplitudes of the images' 8 x 8 blocks"""
    divergence: Array
    """n: divergence of the spectra in nats (losses/spectrum.py)"""

    @property
    def energy(self) -> Array:
        """Power h w, mean over images."""
        return np.asarray(self.power.mean(0))


def measure_spectra(subject: Subject, numbers: list[int]) -> Spectra:
    """The spectra of these images."""
    alive, mean, std = standardization(measure_channels(subject))
    rows: list[list[Tensor]] = []
    channels = torch.zeros(len(alive), *subject.mean.shape[2:], dtype=torch.float64)
    frequencies = torch.zeros(0)
    for i in subject.track(numbers):
        z = (subject.mean[[i]][:, alive] - mean) / std
        images = to_model_range(subject.pixels[[i]])
        small = F.adaptive_avg_pool2d(images, (z.shape[-2], z.shape[-1]))
        square = dct2(z.double()).square()
        channels += square[0] / len(numbers)
        radial, frequencies = radial_spectrum(z)
        rows.append(
            [
                square.mean(1)[0],
                radial[0],
                radial_spectrum(small - small.mean())[0][0],
                block_amplitudes(z)[0] if min(z.shape[-2:]) >= BLOCK else torch.zeros(0),
                block_amplitudes(images)[0],
                spectral_divergence(z, images),
            ]
        )
    power, radial_, pictures, blocks, picture_blocks, divergence = (
        torch.stack(column).double().numpy() for column in zip(*rows, strict=True)
    )
    return Spectra(
        alive,
        power,
        channels.numpy(),
        radial_,
        pictures,
        frequencies.double().numpy(),
        blocks if blocks.size else None,
        picture_blocks,
        divergence,
    )


def slope(power: Array, frequencies: Array, h: int) -> float:
    """Exponent a of power ~ frequency^a: least squares of ln power against ln frequency, from 2 cycles a side to 1/2 a
    latent.

    power: n b, averaged over n. White noise has 0, photographs about -2. nan where a power is 0, or fewer than 3 bins
    are left.
    """
    mean, used = power.mean(0), frequencies >= 2 / h - 1e-9
    if used.sum() < 3 or not (mean[used] > 0).all():
        return float("nan")
    return float(np.polyfit(np.log(frequencies[used]), np.log(mean[used]), 1)[0])


def _share(seen: Spectra, rho: float) -> Interval:
    high = is_high(seen.power.shape[1], seen.power.shape[2], rho)
    rows = np.stack([seen.power[:, high].sum(1), seen.power.sum((1, 2))], axis=1)
    return bootstrap(rows, lambda sets: sets[:, 0].sum() / max(sets[:, 1].sum(), 1e-30))


def _figures(seen: Spectra) -> dict[str, Figure]:
    n, h, w = seen.power.shape
    figures = {}
    for rho in RHOS:
        limit = f"{white_ceiling(h, w, rho):.3f} of white noise" + (
            f"; watch above {BASELINE:g}, good {GOOD:g}" if rho == RHOS[0] else ""
        )
        figures[f"sec_{rho:g}"] = Figure.of(
            f"share of energy above {rho:g} of the highest frequency", _share(seen, rho), limit=limit
        )
    energy = seen.power.copy()
    energy[:, 0, 0] = 0
    figures["sec_varied"] = Figure.of(
        f"share of energy above {RHOS[0]:g} of the highest frequency, the mean left out",
        _share(dataclasses.replace(seen, power=energy), RHOS[0]),
        limit=f"{white_ceiling(h, w, RHOS[0]) * h * w / (h * w - 1):.3f} of white noise; ill from {WHITE:g} of it",
    )
    fit = partial(slope, frequencies=seen.frequencies, h=min(h, w))
    picture = fit(seen.pictures)
    figures["slope"] = Figure.of(
        "slope of the latents' power, log over log",
        bootstrap(seen.radial, fit),
        limit=f"{picture:.2f} of the images, 0 of white noise",
    )
    figures["image_slope"] = Figure.of(
        "slope of the images' power, at the latents' size", bootstrap(seen.pictures, fit)
    )
    figures["flatness"] = Figure(
        "spectral flatness", flatness(seen.energy, n * len(seen.channels)), limit="1 of white noise"
    )
    figures["divergence"] = Figure.of(
        "divergence from the images' spectrum, flattened",
        bootstrap(seen.divergence),
        unit="nats",
        limit="0 after matching",
    )
    return figures


def _verdict(seen: Spectra, figures: dict[str, Figure]) -> tuple[Verdict, str]:
    h, w = seen.power.shape[1:]
    share, ceiling = figures["sec_0.25"].value, white_ceiling(h, w, RHOS[0])
    varied = figures["sec_varied"].value
    text = f"{share:.0%} of the latents' energy is in high frequencies (white noise: {ceiling:.0%})"
    slopes = (
        f"power falls with frequency to the power {figures['slope'].value:.2f}, that of the images "
        f"{figures['image_slope'].value:.2f}"
    )
    if varied >= WHITE * ceiling * h * w / (h * w - 1):
        return "ill", f"{text}: a latent says nothing about its neighbours, as in white noise"
    return ("watch" if share > BASELINE else "healthy"), f"{text}; {slopes}"


def _picture(seen: Spectra) -> Picture:
    level = torch.from_numpy(np.log10(seen.energy.clip(seen.energy.max() * 1e-6))).float()
    factor = max(1, 384 // level.shape[-1])
    caption = "energy by frequency (logarithm), the mean at the upper left, finest detail at the lower right"
    return Picture(
        caption, to_pillow(enlarged(heat(level, float(level.min()), float(level.max())), factor)), pixelated=True
    )


def _curves(seen: Spectra) -> Iterator[Curves]:
    x = seen.frequencies.tolist()
    lines = {"latents": _relative(seen.radial), "images, as small": _relative(seen.pictures)}
    yield Curves(
        "power by frequency, mean 1",
        {name: list(zip(x, line, strict=True)) for name, line in lines.items()},
        "cycles per latent",
        log=True,
        levels={"white noise": 1.0},
    )
    profiles = {"images": seen.picture_blocks} | ({"latents": seen.blocks} if seen.blocks is not None else {})
    blocks = {name: _profile(rows) for name, rows in profiles.items()}
    yield Curves(
        "8 x 8 blocks: amplitude over that of the mean",
        {name: [(float(i), y) for i, y in enumerate(line)] for name, line in blocks.items()},
        "coefficient, in zigzag order",
        log=True,
        levels={"white noise": 1.0},
    )


def _relative(radial: Array) -> list[float | None]:
    mean = radial.mean(0)
    return [float(v) if v > 0 else None for v in mean / max(float(mean.mean()), 1e-30)]


def _profile(blocks: Array) -> list[float | None]:
    """Mean |D_uv| over mean |D_00|: the mean of their quotients would be infinite, as standardized latents' D_00 may be
    0."""
    mean = blocks.mean(0)
    return [float(v) if v > 0 else None for v in mean / max(float(mean[0]), 1e-30)]


def _table(seen: Spectra) -> dict[str, list[float | str]]:
    shares: dict[str, list[float | str]] = {
        f"energy above {rho:g}": [high_share(channel, rho) for channel in seen.channels] for rho in RHOS
    }
    flat: list[float | str] = [flatness(channel, len(seen.power)) for channel in seen.channels]
    table: dict[str, list[float | str]] = {"channel": [str(i) for i in seen.alive]}
    return table | shares | {"flatness": flat}
