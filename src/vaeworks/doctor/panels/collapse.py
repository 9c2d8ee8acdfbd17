"""Collapse: dead channels, a decoder that ignores its latents, and samples that are all alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...images import labelled
from ...intervals import Interval, jackknife
from ..finding import VERDICTS, Curves, Figure, Finding, Picture, Verdict
from ..measures.capacity import Channels, bits, measure_channels
from ..measures.channel_moments import effective_rank, jackknifed
from ..subject import Subject
from .nonfinite import broken

Array = NDArray[np.float64]

ACTIVE = 0.01
"""Smallest variance over images of an active unit's posterior mean, where the prior has variance 1. Source: Burda et
al. 2015 (arXiv 1509.00519)."""

IGNORED = 0.1
"""Mean distance between reconstructions over that between the images, below which the decoder ignores its latents:
planted decoders that do have 0. VAEs of our recipes and TAEF2 have 0.92 to 1.08, random weights 0.34 to 0.62."""

WORTHLESS = 1.0
"""Gain in PSNR of latents over their mean, in dB, below which the decoder does not use them. On portraits of dogs,
random weights in encoder, decoder or both gain -0.9 to 0.6, the linear start at f32c4 5.9, VAEs of our recipes 11 to
19, TAEF2 6 (on crops, which it decodes in other colours) and 20."""

ALIKE = 0.1
"""Mean distance between pictures of random latents, over that between reconstructions, below which they count as one
picture. Planted decoders that make one picture of everything have 0; no sound VAE has less than 0.47."""

CROPPED = (
    " --quick decodes the middle of the latents alone: a decoder with a large receptive field does worse there (TAEF2 "
    "loses 14 dB of worth)."
)

SAMPLES, SAMPLES_QUICK = 8, 6
"""Number of images, and of pictures decoded from each kind of random latents."""

ABLATED, ABLATED_QUICK = (4, 8), (2, 4)
"""Number of images and of channels whose loss by ablation is measured."""


def examine(subject: Subject) -> Finding:
    """Measure active units, rate and rank of the channels, the worth of each to the decoder, and the differences
    between pictures of random latents."""
    if (found := broken(subject)) is not None:
        return found
    channels = measure_channels(subject)
    ablation = ablate(subject, channels, *(ABLATED_QUICK if subject.quick else ABLATED))
    sampled = sample(subject, channels, SAMPLES_QUICK if subject.quick else SAMPLES)
    figures = _figures(subject, channels, ablation, sampled)
    verdict, sentence = _verdict(channels, figures, sampled.finite)
    return Finding(
        verdict,
        sentence,
        figures,
        meaning="A dead channel is unused capacity that a diffusion model still has to learn. In latent diffusion, "
        "random latents do not decode to pictures, and that is not a collapse: the KL term is so weak that latents are "
        "far from normally distributed, and the diffusion model learns their distribution. A collapse is a decoder "
        "that makes the same picture of all latents.",
        remedy=_remedy(verdict, subject, figures),
        dispute="Whether unused channels matter is disputed: with scalar normalization a diffusion model sees them as "
        "a constant, and more channels help reconstruction while generation gets worse past a number that depends on "
        "its size (FreqWarm).",
        uncertainty=f"Channels: {subject.count} images, exact but for the effective rank's interval (jackknife over "
        f"images). Worth of channels: {ablation.images} images and {len(ablation.numbers)} of "
        f"{subject.autoencoder.latent_channels} channels, at {sampled.side} px. Distances: all pairs of "
        f"{sampled.count} pictures of each kind, in pixels; the intervals are by the jackknife over pictures, and wide "
        "with so few." + (CROPPED if sampled.side < subject.protocol.size else ""),
        pictures=(_picture(sampled),),
        curves=tuple(_curves(channels)),
        tables={"channels": _table(channels, ablation)},
        images=subject.count,
    )


@dataclass(frozen=True)
class Ablation:
    """The loss when a channel is replaced by its mean."""

    numbers: list[int]
    """numbers of the tried channels, largest variance first"""
    loss: Array
    """loss in PSNR by channel, in dB, mean over images"""
    whole: float
    """loss when all channels are replaced by their means at once, in dB"""
    images: int


def ablate(subject: Subject, channels: Channels, images: int, most: int) -> Ablation:
    """Decode with single channels replaced by their mean over all images, and compare PSNR with that of all channels.

    At most `most` channels are tried, evenly spaced in the order of their variance.
    """
    order = np.argsort(-channels.total.std, kind="stable")
    count = min(most, len(order))
    numbers = [int(order[i * (len(order) - 1) // max(count - 1, 1)]) for i in range(count)]
    some = subject.some(images)
    latents, target = _cropped(subject, some)
    whole = _psnr(subject.decode(latents), target)
    means = torch.from_numpy(channels.total.mean[0]).float()[:, None, None]
    nothing = _psnr(subject.decode(means.expand_as(latents[:1])), target)
    losses = []
    for number in subject.track(numbers):
        without = latents.clone()
        without[:, number] = means[number]
        losses.append(float((whole - _psnr(subject.decode(without), target)).mean()))
    return Ablation(numbers, np.array(losses), float((whole - nothing).mean()), len(some))


def _psnr(decoded: Tensor, target: Tensor) -> Tensor:
    """PSNR of n images in [-1,1], clamped, in dB: n. An error below rounding to 8 bits counts as that rounding."""
    error = (decoded.clamp(-1, 1).cpu() - target).square().mean((1, 2, 3)) / 4
    return -10 * error.clamp_min(1 / (12 * 255**2)).log10()


@dataclass(frozen=True)
class PriorSamples:
    """Pictures n c h w in [-1,1], clamped."""

    images: Tensor
    recon: Tensor
    """decoded latents of the images"""
    prior: Tensor
    """decoded normal noise, as large as normalized latents should be"""
    fitted: Tensor
    """decoded normal noise with the latents' own means and covariance of channels"""

    finite: bool
    """whether all values were finite"""

    @property
    def count(self) -> int:
        """Number of pictures of each kind."""
        return len(self.images)

    @property
    def side(self) -> int:
        """Their side in pixels."""
        return self.images.shape[-1]


def sample(subject: Subject, channels: Channels, count: int) -> PriorSamples:
    """Images, their reconstructions, and pictures decoded from random latents."""
    latents, images = _cropped(subject, subject.some(count))
    generator = torch.Generator().manual_seed(subject.protocol.seed)
    vae = subject.autoencoder
    number = max(len(latents), 2)
    like = vae.normalize(latents[:1].to(vae.device))
    noise = torch.randn(number, *like.shape[1:], generator=generator)
    fitted = colored(
        torch.randn(number, *latents.shape[1:], generator=generator), channels.total.mean[0], channels.total.covariance
    )
    kinds = latents, vae.denormalize(noise.to(vae.device)).cpu(), fitted
    recon, prior, decoded = (subject.decode(x).cpu() for x in kinds)
    finite = all(bool(torch.isfinite(x).all()) for x in (recon, prior, decoded))
    return PriorSamples(images, recon.clamp(-1, 1), prior.clamp(-1, 1), decoded.clamp(-1, 1), finite)


def colored(noise: Tensor, mean: Array, covariance: Array) -> Tensor:
    """Normal noise n c h w with this mean c and covariance c c of channels, by the symmetric root of the covariance."""
    values, vectors = np.linalg.eigh(covariance)
    root = torch.from_numpy(vectors * np.sqrt(values.clip(0)) @ vectors.T).float()
    return torch.einsum("cd,ndhw->nchw", root, noise) + torch.from_numpy(mean).float()[:, None, None]


def diversity(pictures: Tensor) -> Array:
    """Root mean square difference of every pair of n pictures: n n, 0 on the diagonal, in units of the pictures."""
    flat = pictures.flatten(1).double()
    return np.asarray(torch.cdist(flat, flat).numpy() / math.sqrt(flat.shape[1]))


def relative_diversity(pictures: Tensor, reference: Tensor) -> Interval:
    """Mean distance between pictures over that between reference pictures, with the jackknife's interval; nan where the
    reference pictures are equal."""
    own, other = diversity(pictures), diversity(reference)
    numbers = range(min(len(own), len(other))) if min(len(own), len(other)) > 3 else ()
    return jackknife(_ratio(own, other), [_ratio(_left_out(own, i), _left_out(other, i)) for i in numbers])


def _ratio(own: Array, other: Array) -> float:
    return (
        _mean_pair(own) / _mean_pair(other) if len(own) > 1 and len(other) > 1 and _mean_pair(other) > 0 else math.nan
    )


def _mean_pair(distances: Array) -> float:
    return float(distances.sum()) / (len(distances) * (len(distances) - 1))


def _left_out(distances: Array, i: int) -> Array:
    return np.delete(np.delete(distances, i, 0), i, 1)


def _cropped(subject: Subject, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Latents and images in [-1,1]; with --quick the middle half of each side, which decodes in a quarter of the
    time."""
    latents, images = subject.mean[list(numbers)], subject.images(numbers).cpu()
    patch, f = subject.autoencoder.config.latents_patch, subject.factor
    h, w = latents.shape[-2:]
    if not subject.quick or min(h, w) < 16:
        return latents.clone(), images
    top, left, height, width = (x // patch * patch for x in (h // 4, w // 4, h // 2, w // 2))
    return (
        latents[..., top : top + height, left : left + width].clone(),
        images[..., f * top : f * (top + height), f * left : f * (left + width)],
    )


def _figures(subject: Subject, channels: Channels, ablation: Ablation, sampled: PriorSamples) -> dict[str, Figure]:
    c = len(channels.dead)
    figures = {
        "dead": Figure(
            "channels that carry nothing", int(channels.dead.sum()), limit=f"of {c}; ill if all, watch from 1"
        )
    }
    if channels.rate is not None:
        active = int((channels.total.std**2 > ACTIVE).sum())
        figures["active"] = Figure(
            "active channels by Burda: variance of the means above 0.01", active, limit=f"of {c}"
        )
        figures["bits"] = Figure("capacity of all latents of an image", _image_bits(subject, channels), unit="bits")
    figures["effective_rank"] = Figure.of(
        "used channels, by effective rank",
        jackknifed(channels.sets, lambda m: effective_rank(m.covariance)),
        limit=f"of {c}",
    )
    figures["worth"] = Figure(
        "worth of all channels together", ablation.whole, unit="dB", limit=f"ill below {WORTHLESS:g}"
    )
    if len(ablation.loss):
        figures["most_worth"] = Figure(
            f"largest worth of one channel, channel {ablation.numbers[int(ablation.loss.argmax())]}",
            float(ablation.loss.max()),
            unit="dB",
        )
        figures["least_worth"] = Figure(
            f"smallest worth of one channel, channel {ablation.numbers[int(ablation.loss.argmin())]}",
            float(ablation.loss.min()),
            unit="dB",
        )
    if sampled.count > 1:
        kinds: dict[str, tuple[str, Callable[[], Interval], str]] = {
            "reconstructions": (
                "difference between reconstructions, over that between images",
                lambda: relative_diversity(sampled.recon, sampled.images),
                f"ill below {IGNORED}",
            ),
            "prior": (
                "difference between decoded normal noise, over that between reconstructions",
                lambda: relative_diversity(sampled.prior, sampled.recon),
                f"watch below {ALIKE}",
            ),
            "fitted": (
                "likewise, noise with the latents' own means and covariance",
                lambda: relative_diversity(sampled.fitted, sampled.recon),
                f"watch below {ALIKE}",
            ),
        }
        for name, (label, measure, limit) in kinds.items():
            figures[name] = Figure.of(label, measure(), limit=limit)
    return figures


def _image_bits(subject: Subject, channels: Channels) -> float:
    assert channels.rate is not None
    h, w = subject.mean.shape[-2:]
    return bits(float(channels.rate.sum())) * h * w


def _complaints(channels: Channels, figures: dict[str, Figure], finite: bool) -> Iterator[tuple[Verdict, str]]:
    c, dead = len(channels.dead), int(channels.dead.sum())
    if dead == c:
        yield "ill", f"all {c} channels carry nothing: the posterior has collapsed, latents do not depend on the image"
    elif dead:
        yield "watch", f"{dead} of {c} channels {'carries' if dead == 1 else 'carry'} nothing"
    if not finite:
        yield "ill", "its decoder makes NaN or infinite values"
        return
    worth, differ = (
        figures["worth"].value,
        figures["reconstructions"].value if "reconstructions" in figures else math.nan,
    )
    if dead < c and differ < IGNORED:
        yield "ill", f"its decoder ignores the latents: reconstructions differ {differ:.0%} as much as the images do"
    elif dead < c and worth < WORTHLESS:
        yield (
            "ill",
            f"its decoder makes nothing of the latents: they bring its pictures {worth:.1f} dB nearer to the images "
            "than no information does",
        )
    for name, kind in (("prior", "normal noise"), ("fitted", "noise like its latents")):
        if name in figures and figures[name].value < ALIKE:
            yield (
                "watch",
                f"whatever {kind} it decodes becomes the same picture: they differ {figures[name].value:.0%} as much "
                "as reconstructions",
            )


def _verdict(channels: Channels, figures: dict[str, Figure], finite: bool) -> tuple[Verdict, str]:
    complaints = sorted(_complaints(channels, figures, finite), key=lambda complaint: VERDICTS.index(complaint[0]))
    if complaints:
        return complaints[0][0], "; ".join(text for _, text in complaints)
    c, rank = len(channels.dead), figures["effective_rank"].value
    text = f"all {c} channels carry something, and vary like {rank:.1f} independent ones"
    differ = figures["reconstructions"].value if "reconstructions" in figures else math.nan
    return "healthy", text + (
        "" if math.isnan(differ) else f"; reconstructions differ {differ:.0%} as much as the images"
    )


def _remedy(verdict: Verdict, subject: Subject, figures: dict[str, Figure]) -> str:
    if verdict == "healthy":
        return ""
    if verdict == "ill":
        return (
            "Take another file, or train it anew with less KL (`vaeworks train small-f8c16 --loss.beta ...`), or none: "
            "recipe plain-ae."
        )
    if figures["dead"].value:
        weaker = "" if subject.is_point else "a weaker KL term (loss.beta), "
        return (
            f"Fewer channels, {weaker}or a recipe that keeps channels' variance: clamped-ae, batchnorm, "
            "variance-expansion."
        )
    return "Train the decoder under noise: recipes noise and denoise. Latent diffusion alone needs no remedy."


def _picture(sampled: PriorSamples) -> Picture:
    def uint8(x: Tensor) -> Tensor:
        return x.nan_to_num(-1.0).add(1).mul(127.5).round().to(torch.uint8)

    size = min(sampled.side, 160)
    rows = [
        [torch.nn.functional.adaptive_avg_pool2d(x[None], size)[0] for x in kind[:6]]
        for kind in (sampled.images, sampled.recon, sampled.prior, sampled.fitted)
    ]
    caption = "images; reconstructions; decoded normal noise; decoded noise with the latents' own means and covariance"
    return Picture(caption, labelled([[uint8(x) for x in row] for row in rows], sides=caption.split("; ")))


def _curves(channels: Channels) -> Iterator[Curves]:
    c = len(channels.dead)
    if c < 2:
        return
    lines = {"share of variance": np.sort(channels.share / c)[::-1]}
    if channels.rate is not None:
        lines["nats an element can carry"] = np.sort(channels.rate)[::-1]
    yield Curves(
        "channels in order",
        {name: [(float(i), float(y) if y > 0 else None) for i, y in enumerate(line)] for name, line in lines.items()},
        "rank of the channel",
        log=True,
    )


def _table(channels: Channels, ablation: Ablation) -> dict[str, list[float | str]]:
    worth = dict(zip(ablation.numbers, ablation.loss.tolist(), strict=True))
    columns: dict[str, list[float | str]] = {
        "channel": [str(i) for i in range(len(channels.dead))],
        "variance of the means": (channels.total.std**2).tolist(),
        "share of variance": (channels.share / len(channels.dead)).tolist(),
    }
    if channels.kl is not None and channels.rate is not None:
        columns |= {"KL, nats": channels.kl.mean(0).tolist(), "can carry, nats": channels.rate.tolist()}
    columns |= {
        "worth, dB": [worth.get(i, "") for i in range(len(channels.dead))],
        "state": ["dead" if dead else "in use" for dead in channels.dead],
    }
    return columns
