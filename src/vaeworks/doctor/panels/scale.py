"""Scale and shape of the latents: whether a diffusion model sees what it expects, and where the magic number comes
from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...images import to_pillow
from ...intervals import Interval
from ...pages.heatmap import diverging, enlarged
from ..compatibility.decode import SCALES
from ..finding import VERDICTS, Curves, Figure, Finding, Picture, Verdict
from ..measures.capacity import Channels, bits, measure_channels
from ..measures.channel_moments import (
    ChannelMoments,
    condition_number,
    correlation,
    effective_rank,
    interval,
    jackknifed,
)
from ..measures.gaussianity import floor, sliced_wasserstein
from ..subject import Subject
from .nonfinite import broken

Array = NDArray[np.float64]
Complaint = tuple[Verdict, str]

SOUND = 0.75, 1.33
"""Root mean square of normalized latents inside which a scale is right. VAEs with their right scale have 0.86..1.28 on
four photographs (doctor/compatibility/decode.py), and 0.80..1.25 on 64 portraits of dogs which they were not measured
on (eight of our recipes, TAEF2). Beyond SCALES of doctor/compatibility/decode.py it is certainly wrong; between them,
other images may be the reason."""

LEAST = 4
"""Images with which a scale can be called certainly wrong: SCALES was measured on so many."""

LONGEST, HEAVIEST = 17.4, 4.57
"""Largest |z| and excess kurtosis of Stable Diffusion 1.5's scaled latents, the longest tails that are published of a
VAE in wide use; SDXL's have 4.3 and -0.23. Only the first is judged: of kurtosis, sound VAEs of our recipes have 4 to
26. No study shows what tails cost."""

LEAST_RANK = 0.25
"""Effective rank, as a share of the channels, below which three quarters of them are repetition. VAEs of our recipes
have 0.28 (trained under noise, against which repetition helps) to 0.81, TAEF2 0.52."""

LEAST_BITS = 0.5
"""Of a latent element, below which a posterior is more noise than message: 1/2 log2(1 + 1), at equal variances."""

FAR = 5.0
"""Standard deviations from which on a latent counts as far out; of a normal distribution 1 in 1.7 million is."""

VECTORS, VECTORS_QUICK = 16384, 4096
"""Positions, from all images, of which the distance to the normal distribution is taken."""

BINS, REACH = 64, 8.0
"""Of the histogram, and how many standard deviations it reaches."""


def examine(subject: Subject) -> Finding:
    """Moments, tails, correlations, capacity, and the scaling factor that these latents should have."""
    if (found := broken(subject)) is not None:
        return found
    channels = measure_channels(subject)
    if not channels.total.overall[1] > 0 or not channels.sampled.pooled().overall[1] > 0:
        return _constant(subject)
    shape = measure_shape(subject, channels, VECTORS_QUICK if subject.quick else VECTORS)
    scale = measure_scale(subject, channels)
    figures = scale.figures(subject) | _figures(subject, channels, shape)
    verdict, sentence = _verdict(
        [*scale.complaints(subject), *_complaints(channels, shape, figures)], figures, subject.known
    )
    return Finding(
        verdict,
        sentence,
        figures,
        meaning=_magic(subject, channels, scale),
        remedy=_remedy(subject, scale, channels, shape),
        dispute="Whether long tails, correlated channels or a weak KL term harm generation is disputed: KL weights "
        "from 1e-6 to 1e-2 give the same FID (VE-Loss, arXiv 2603.21085), and no published study shows what bounding "
        "latents gains.",
        uncertainty=f"{subject.count} images; intervals resample them, of ranks and kurtosis by the jackknife. The "
        "scale depends on the images: flat ones have smaller latents, so that up to a quarter of difference may be "
        "theirs. Largest values grow with the number of images. Neighbouring latents are alike, so that the floor of "
        "the distance, which is of independent ones, is too low.",
        pictures=tuple(_pictures(channels)),
        curves=(_histogram(shape),),
        tables={"channels": _table(channels, shape)},
        images=subject.count,
    )


@dataclass(frozen=True)
class LatentScale:
    """How large latents are for a diffusion model."""

    rms: Interval
    """root mean square of normalized posterior samples: should be 1"""
    factor: Interval
    """1 / standard deviation of unnormalized samples, with the sign of scaling_factor, which it should be"""
    shift: Interval
    """their mean: what shift_factor should be"""
    stds: Array
    """of the normalized channels, after latents_patch"""

    def figures(self, subject: Subject) -> dict[str, Figure]:
        """Of the scale, beside those that the configuration has."""
        config, known = subject.autoencoder.config, "" if subject.known else ", a guess"
        limit = f"should be 1; ill outside {SCALES[0]:g} to {SCALES[1]:g}"
        figures = {"rms": Figure.of("what a diffusion model sees, root mean square", self.rms, limit=limit)}
        if config.normalization == "scalar":
            own = (
                f"in its configuration {config.scaling_factor:.5g}{known}",
                f"in its configuration {config.shift_factor:.3g}{known}",
            )
        else:
            own = (
                f"normalized by {'channel' if config.normalization == 'channel' else 'running statistics'} instead",
            ) * 2
            figures["channel_std_low"] = Figure(
                "smallest standard deviation of a normalized channel", float(self.stds.min()), limit="should be 1"
            )
            figures["channel_std_high"] = Figure(
                "largest standard deviation of a normalized channel", float(self.stds.max()), limit="should be 1"
            )
        figures["scaling_factor"] = Figure.of("scaling factor that it should have", self.factor, limit=own[0])
        figures["shift_factor"] = Figure.of("shift that it should have", self.shift, limit=own[1])
        return figures

    def complaints(self, subject: Subject) -> Iterator[Complaint]:
        """What is wrong with the scale."""
        config, rms = subject.autoencoder.config, self.rms
        off = f"a diffusion model sees latents {rms.value:.2f} times the right size"
        cure = f": its scaling factor is {config.scaling_factor:.5g} and should be {self.factor.value:.4g}"
        cure = cure if config.normalization == "scalar" else ""
        if not SOUND[0] <= rms.value <= SOUND[1]:
            certain = subject.known and subject.count >= LEAST and not SCALES[0] <= rms.value <= SCALES[1]
            guess = "" if subject.known else "; its file does not say which scale is right"
            yield "ill" if certain else "watch", off + cure + guess
        if config.normalization != "scalar":
            bad = int(((self.stds < SCALES[0]) | (self.stds > SCALES[1])).sum())
            if bad:
                text = (
                    f"{bad} of {len(self.stds)} normalized channels have a standard deviation outside {SCALES[0]:g} to "
                    f"{SCALES[1]:g} ({self.stds.min():.2f} to {self.stds.max():.2f}): it is normalized with statistics "
                    "that are not those of these latents"
                )
                yield "watch", text


def measure_scale(subject: Subject, channels: Channels) -> LatentScale:
    """Statistics of what a diffusion model sees, and of what it is made of."""
    seed = subject.protocol.seed
    seen = measure_channels(subject, seen=True).sampled
    sign = math.copysign(1.0, subject.autoencoder.config.scaling_factor)  # a mirrored latent space is as good
    return LatentScale(
        interval(seen, lambda m: math.hypot(*m.overall), seed=seed),
        interval(channels.sampled, lambda m: sign / max(m.overall[1], 1e-12), seed=seed),
        interval(channels.sampled, lambda m: m.overall[0], seed=seed),
        seen.pooled().std,
    )


@dataclass(frozen=True)
class Shape:
    """Of latents standardized by channel: the means about their mean, over their standard deviation."""

    largest: Array
    """c: largest |z|"""
    far: Array
    """c: share beyond FAR"""
    histogram: Array
    """c BINS: density; what is beyond REACH is left out"""
    distance: float
    """sliced Wasserstein-2 to N(0, I)"""
    floor: float
    """that of as many independent normal vectors"""


def measure_shape(subject: Subject, channels: Channels, vectors: int) -> Shape:
    """A second pass over all latents, since standardizing needs the first one's moments."""
    total = channels.total
    mean, std = (torch.from_numpy(x).float()[:, None, None] for x in (total.mean[0], total.std.clip(1e-12)))
    c, positions = len(total.std), subject.mean.shape[-2] * subject.mean.shape[-1]
    each = min(positions, -(-vectors // subject.count))
    generator = torch.Generator().manual_seed(subject.protocol.seed)
    largest, far, counts, cloud = torch.zeros(c), torch.zeros(c), torch.zeros(c, BINS, dtype=torch.float64), []
    for part in subject.parts(subject.mean):
        z = (part - mean) / std
        largest = torch.maximum(largest, z.abs().amax((0, 2, 3)))
        far += (z.abs() > FAR).sum((0, 2, 3))
        counts += histograms(z)
        for image in z:
            cloud.append(image.flatten(1).T[torch.randperm(positions, generator=generator)[:each]])
    some = torch.cat(cloud)[:vectors]
    number, seed = subject.count * positions, subject.protocol.seed
    return Shape(
        largest.double().numpy(),
        (far.double() / number).numpy(),
        (counts / number * BINS / (2 * REACH)).numpy(),
        sliced_wasserstein(some, seed),
        floor(len(some), c, seed),
    )


def histograms(z: Tensor) -> Tensor:
    """Counts c BINS of n c h w in equal bins from -REACH to REACH."""
    return torch.stack([torch.histc(z[:, i].double(), BINS, -REACH, REACH) for i in range(z.shape[1])])


def _figures(subject: Subject, channels: Channels, shape: Shape) -> dict[str, Figure]:
    total, c = channels.total, len(channels.total.std)
    worst = int(np.nan_to_num(total.kurtosis, nan=-9).argmax())
    figures = {
        "largest": Figure(
            f"largest |z|, channel {int(shape.largest.argmax())}",
            float(shape.largest.max()),
            unit="sigma",
            limit=f"watch above {LONGEST}, as Stable Diffusion 1.5's; SDXL's 4.3",
        ),
        "beyond_5_sigma": Figure(
            "latents beyond 5 sigma", 1e6 * float(shape.far.mean()), unit="in a million", limit="0.57 if normal"
        ),
        "kurtosis": Figure.of(
            f"largest excess kurtosis, channel {worst}",
            jackknifed(channels.sets, lambda m: float(m.kurtosis[worst])),
            limit=f"normal 0, Stable Diffusion 1.5's {HEAVIEST}",
        ),
        "effective_rank": Figure.of(
            "effective rank of the channels",
            jackknifed(channels.sets, lambda m: effective_rank(m.covariance)),
            limit=f"of {c}; watch below {LEAST_RANK * c:g}",
        ),
        "condition": Figure(
            "condition number of the channels", condition_number(total.covariance), limit="1 of white channels"
        ),
        "dead": Figure("dead channels", int(channels.dead.sum()), limit=f"of {c}"),
        "sliced_wasserstein": Figure(
            "sliced Wasserstein distance to a normal distribution",
            shape.distance,
            unit="sigma",
            limit=f"{shape.floor:.3f} of so many normal vectors",
        ),
    }
    if channels.kl is not None and channels.rate is not None:
        sample = channels.kl.mean(1)
        figures["bits"] = Figure("KL divergence from the prior, bits per latent element", bits(float(sample.mean())))
        figures["rate"] = Figure(
            "what a latent element can carry, bits",
            bits(float(channels.rate.mean())),
            limit=f"watch below {LEAST_BITS}; Stable Diffusion 1's 14.7 or more",
        )
    return figures


def _complaints(channels: Channels, shape: Shape, figures: dict[str, Figure]) -> Iterator[Complaint]:
    c = len(channels.dead)
    if shape.largest.max() > LONGEST:
        yield (
            "watch",
            f"long tails: values up to {shape.largest.max():.1f} standard deviations, excess kurtosis up to "
            f"{figures['kurtosis'].value:.0f}",
        )
    if "rate" in figures and figures["rate"].value < LEAST_BITS:
        yield "watch", f"its posterior is more noise than message: {figures['rate'].value:.2g} bits a latent element"
    if channels.dead.any():
        dead = int(channels.dead.sum())
        yield "watch", f"{dead} of {c} channels {'carries' if dead == 1 else 'carry'} nothing"
    rank = figures["effective_rank"].value
    if c > 1 and rank < LEAST_RANK * c:
        yield "watch", f"its {c} channels vary like {rank:.1f}"


def _verdict(complaints: list[Complaint], figures: dict[str, Figure], known: bool) -> Complaint:
    if not complaints:
        rms, far = figures["rms"].value, figures["largest"].value
        guess = "" if known else "; its file does not say its scale, and the one that is assumed fits"
        return (
            "healthy",
            f"a diffusion model sees latents of root mean square {rms:.2f}, none beyond {far:.1f} standard "
            f"deviations{guess}",
        )
    worst = min((verdict for verdict, _ in complaints), key=VERDICTS.index)
    ordered = sorted(complaints, key=lambda complaint: VERDICTS.index(complaint[0]))
    return worst, "; ".join(text for _, text in ordered)


def _constant(subject: Subject) -> Finding:
    return Finding(
        "ill",
        f"all latents of {subject.count} images are one number: standard deviation 0",
        {"std": Figure("standard deviation of the latents", 0.0, limit="ill at 0")},
        meaning="The encoder says nothing about the image. Nothing can be made of that.",
        remedy="Take another file, or train it anew: `vaeworks train small-f8c16`.",
        uncertainty=f"Exact, over {subject.count} images.",
        images=subject.count,
    )


def _magic(subject: Subject, channels: Channels, scale: LatentScale) -> str:
    std = channels.sampled.pooled().overall[1]
    text = (
        "A diffusion model adds noise of standard deviation 1, so its latents have to be about as large. Nothing in a "
        "VAE's training fixes their size, so they are multiplied by one over their standard deviation. That is all "
        "there is to Stable Diffusion's 0.18215: one over 5.49, measured on the first batch of its training. This "
        f"VAE's latents of these images have a standard deviation of {std:.4g}, hence {scale.factor.value:.4g}."
    )
    spread = channels.total.std
    if subject.autoencoder.config.normalization == "scalar" and len(spread) > 1 and spread.min() > 0:
        ratio = spread.max() / spread.min()
        text += (
            f" One number for all channels leaves them unequal: the strongest varies {ratio:.3g} times as much as the "
            "weakest."
        )
    return text


def _remedy(subject: Subject, scale: LatentScale, channels: Channels, shape: Shape) -> str:
    config, found = subject.autoencoder.config, []
    if not SOUND[0] <= scale.rms.value <= SOUND[1]:
        if config.normalization == "scalar":
            found.append(
                f"Give the diffusion model scaling_factor {scale.factor.value:.4g} and shift_factor "
                f"{scale.shift.value:.3g}; where an application has its own numbers fixed, `vaeworks fold MODEL DST "
                "--scaling-factor ...` moves the difference into the weights."
            )
        else:
            found.append(
                "Measure latents_mean and latents_std (or the running statistics) anew on the images that the "
                "diffusion model is trained on."
            )
    if channels.dead.any() or _rank(channels) < LEAST_RANK * len(channels.dead):
        found.append(
            "Take fewer channels (`vaeworks train small-f8c4`), or keep them alive: recipes clamped-ae and "
            "variance-expansion."
        )
    if shape.largest.max() > LONGEST:
        found.append("Recipes that bound latents: rmsnorm, softclamp, tanh; or normalize by channel.")
    return " ".join(found)


def _rank(channels: Channels) -> float:
    return effective_rank(channels.total.covariance)


def _pictures(channels: Channels) -> Iterator[Picture]:
    c = len(channels.dead)
    if c > 1:
        matrix = torch.from_numpy(correlation(channels.total.covariance)).float()
        yield Picture(
            f"correlation between the {c} channels, the first on top: red 1, white 0, blue -1",
            to_pillow(enlarged(diverging(matrix, 1.0), max(1, 384 // c))),
            pixelated=True,
        )


def _histogram(shape: Shape) -> Curves:
    edges = np.linspace(-REACH, REACH, BINS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    worst = int(shape.largest.argmax())
    lines = {"all channels": shape.histogram.mean(0), f"channel {worst}, the farthest": shape.histogram[worst]}
    normal = [(x, math.exp(-x * x / 2) / math.sqrt(2 * math.pi)) for x in middles if abs(x) < 5]
    return Curves(
        "latents, over their standard deviation",
        {
            name: [(x, y if y > 0 else None) for x, y in zip(middles.tolist(), line.tolist(), strict=True)]
            for name, line in lines.items()
        }
        | {"normal": normal},
        "standard deviations",
        "density",
        log=True,
    )


def _table(channels: Channels, shape: Shape) -> dict[str, list[float | str]]:
    total: ChannelMoments = channels.total
    columns: dict[str, Array] = {
        "mean": total.mean[0],
        "std": total.std,
        "min": channels.low,
        "max": channels.high,
        "kurtosis": total.kurtosis,
        "largest, sigma": shape.largest,
        "beyond 5 sigma, in a million": 1e6 * shape.far,
        "share of variance": channels.share / len(total.std),
    }
    if channels.kl is not None and channels.rate is not None:
        columns |= {"KL, bits": channels.kl.mean(0) / math.log(2), "can carry, bits": channels.rate / math.log(2)}
    table: dict[str, list[float | str]] = {"channel": [str(i) for i in range(len(total.std))]}
    return table | {name: column.tolist() for name, column in columns.items()}
