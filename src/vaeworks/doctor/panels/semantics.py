"""Semantics and structure: similarity of near latents and of images of one class, and the ambiguity within a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...images import labelled, to_model_range
from ...intervals import bootstrap
from ...pages.heatmap import enlarged, heat
from ..finding import Curves, Figure, Finding, NotExamined, Picture, Verdict
from ..measures.capacity import measure_channels, standardization
from ..measures.neighbours import chance_same, majority, nearest, object_mean, pooled, probe, same_label
from ..measures.tokens import decay, directions, local_distant, object_contrast, similarity_by_distance, spread
from ..measures.velocity import Ambiguity, ambiguity
from ..subject import Subject
from .nonfinite import broken

Array = NDArray[np.float64]
T = TypeVar("T")
Latents = Callable[[Sequence[int]], Tensor]
"""Takes numbers of images, and returns their standardized latents."""

CLASS, CLASSES = 16, 2
"""Smallest number of images in a class, and of classes: with 16 images, VIV by the DCT is off by up to 5 % (simulated
fields)."""

IMAGES, IMAGES_QUICK = 1024, 256
"""Number of images that are compared with each other."""

EACH, EACH_QUICK, ALL, MOST_CLASSES = 128, 48, 1024, 40
"""Most images of a class for estimating VIV (fewer where there are many classes, ALL in total), and most classes."""

NEIGHBOURS = 5, 10

REMEDY = (
    "Recipe align (agreement with a frozen network's features); for smooth structure alone, equivariance and spectrum."
)

UNLIKE = 0.05
"""LDS below which near latents are not more alike than far ones: planted white noise has 0.00 +- 0.01."""

BASELINE, GOOD = 1.14, 0.37
"""VIV of the convolutional baseline and of a good tokenizer in arXiv 2606.03578."""

EVEN = 0.95
"""Smallest phi of latents that are as ambiguous as white noise of their variance. White noise has 0.98 when estimated
from 16 images a class; the most even of our recipes' VAEs, kl-strong, has 0.90 on portraits of cats and dogs, TAEF2
0.78."""


def examine(subject: Subject) -> Finding:
    """Measure the structure of the tokens, and with labels neighbours, a linear probe, and velocity ambiguity."""
    if (found := broken(subject)) is not None:
        return found
    if min(subject.mean.shape[-2:]) < 4:
        raise NotExamined("needs latents of at least 4 x 4; examine at a larger size")
    numbers = subject.some(IMAGES_QUICK if subject.quick else IMAGES)
    alive, mean, std = standardization(measure_channels(subject))

    def latents(some: Sequence[int]) -> Tensor:
        return (subject.mean[list(some)][:, alive] - mean) / std

    tokens, vectors, features, pixels = _measure(subject, numbers, latents)
    figures = tokens.figures()
    labels = None if subject.labels is None else [subject.labels[i] for i in numbers]
    usable = _usable(labels)
    if labels is not None and usable:
        classes = _classes(subject, usable, EACH_QUICK if subject.quick else EACH)
        figures |= _labelled(vectors, features, pixels, labels, usable, subject.protocol.seed) | _ambiguous(
            ambiguity(_Classes(classes, latents))
        )
    verdict, sentence = _verdict(figures, labels, usable)
    return Finding(
        verdict,
        sentence,
        figures,
        meaning="A diffusion model learns latents faster when those of one object, and of one kind of picture, are "
        "alike, because less is uncertain on the way from noise to a picture. VAEs trained for reconstruction alone, "
        "such as Stable Diffusion's, have little of that. Velocity ambiguity measures the uncertainty within a class: "
        "rho is the variance that class and place do not predict, phi the evenness of its spectrum.",
        remedy=REMEDY if verdict == "watch" else "",
        dispute="Disputed: of 86 tokenizers with like reconstruction, velocity ambiguity, neighbours and object "
        "contrast predict generation best (arXiv 2606.03578), but what semantic latents gain for diffusion they lose "
        "in fidelity and with autoregressive generators (l-DeTok).",
        uncertainty=_uncertainty(subject, len(numbers), usable),
        pictures=tuple(_pictures(subject, numbers, latents, vectors, labels)),
        curves=(tokens.curve(subject),),
        images=len(numbers),
    )


@dataclass(frozen=True)
class Tokens:
    """Structure of n images' tokens."""

    local: Array
    """n: LDS"""
    decay: Array
    """n: CDS per 16 pixels"""
    spread: Array
    """n: RMSC"""
    contrast: Array
    """n: SRSS; nan of images without object or background; empty without masks"""
    similarity: Array
    """d: mean cosine by Manhattan distance 0, 1 ..."""

    def figures(self) -> dict[str, Figure]:
        """Figures with intervals over images."""
        known = self.contrast[np.isfinite(self.contrast)]
        figures = {
            "rmsc": Figure.of(
                "difference of an image's tokens from their mean (RMSC)",
                bootstrap(self.spread),
                limit="0 all alike, 1 all different",
            )
        }
        if np.isfinite(self.local).all():
            figures["lds"] = Figure.of(
                "cosine of near tokens minus that of far ones (LDS)",
                bootstrap(self.local),
                limit=f"0 of white noise; watch below {UNLIKE}",
            )
        figures["cds"] = Figure.of(
            "fall of the cosine per 16 px (CDS)", bootstrap(self.decay), limit="0 of white noise"
        )
        if len(known):
            figures["srss"] = Figure.of(
                "cosine within the object minus to far background (SRSS)",
                bootstrap(known),
                limit="0: the object does not stand out",
            )
        return figures

    def curve(self, subject: Subject) -> Curves:
        """Similarity by distance, as long as there are enough pairs."""
        last = min(subject.mean.shape[-2:])
        line = [(float(d * subject.factor), float(y)) for d, y in enumerate(self.similarity[:last])]
        return Curves(
            "cosine of two latents of an image by their distance",
            {"latents": line},
            "pixels",
            "cosine",
            levels={"unrelated": 0.0},
        )


def _measure(subject: Subject, numbers: Sequence[int], latents: Latents) -> tuple[Tokens, Array, Array, Array]:
    """Structure of the tokens; and for each image the mean of its latents (of its object), and features of latents and
    pixels for the probe."""
    rows: list[list[Tensor]] = []
    contrasts: list[float] = []
    side, f = min(subject.mean.shape[-2:]), subject.factor
    for i in subject.track(numbers):
        z = latents([i])
        u = directions(z)
        mask = None if subject.masks is None else subject.masks[[i]]
        rows.append(
            [
                local_distant(u, f),
                decay(u, f),
                spread(z),
                similarity_by_distance(u)[0],
                object_mean(z, mask),
                pooled(z, 4 if z.shape[1] <= 16 else 2),
                pooled(F.adaptive_avg_pool2d(to_model_range(subject.pixels[[i]]), side), 4),
            ]
        )
        if mask is not None and mask.any():
            small = F.adaptive_avg_pool2d(mask[:, None].float(), (z.shape[-2], z.shape[-1]))[0, 0] > 0.5
            contrasts.append(object_contrast(u[0], small, f))
    local, falls, spreads, similarity, vectors, features, pixels = (
        torch.cat(column).double().numpy() for column in zip(*rows, strict=True)
    )
    return (
        Tokens(local, falls, spreads, np.array(contrasts, dtype=np.float64), similarity.mean(0)),
        vectors,
        features,
        pixels,
    )


def _usable(labels: Sequence[str] | None) -> list[str]:
    """Labels with at least CLASS images, in order; [] where fewer than CLASSES have so many."""
    names = sorted(name for name, count in Counter(labels or ()).items() if count >= CLASS)
    return names if len(names) >= CLASSES else []


def _classes(subject: Subject, usable: Sequence[str], most: int) -> list[list[int]]:
    """Numbers of at most `most` images of each class, evenly spaced, for at most MOST_CLASSES classes, evenly
    spaced."""
    assert subject.labels is not None
    members = {
        name: [i for i, label in enumerate(subject.labels) if label == name] for name in _even(usable, MOST_CLASSES)
    }
    return [_even(numbers, max(CLASS, min(most, ALL // len(members)))) for numbers in members.values()]


def _even(items: Sequence[T], most: int) -> list[T]:
    count = min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]


class _Classes(Sequence[Tensor]):
    """Latents of one class after the other, read when needed, because all may be larger than memory."""

    def __init__(self, numbers: Sequence[Sequence[int]], latents: Latents):
        self._numbers, self._latents = numbers, latents

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: Any) -> Any:
        return self._latents(self._numbers[place])


def _labelled(
    vectors: Array, features: Array, pixels: Array, labels: Sequence[str], usable: Sequence[str], seed: int
) -> dict[str, Figure]:
    """Neighbours and probes of the images whose class is large enough."""
    kept = [i for i, label in enumerate(labels) if label in usable]
    names = [labels[i] for i in kept]
    chance, most = chance_same(names), majority(names)
    figures = {}
    for k in NEIGHBOURS:
        limit = f"chance {chance:.2f}"
        figures[f"lnc_{k}"] = Figure.of(
            f"of {k} nearest neighbours, share of the same label (LNC)",
            bootstrap(same_label(vectors[kept], names, k)),
            limit=limit,
        )
    right = {"probe": probe(features[kept], names, seed), "probe_pixels": probe(pixels[kept], names, seed)}
    for name, what in (("probe", "latents"), ("probe_pixels", "pixels, as small as the latents,")):
        figures[name] = Figure.of(
            f"labels that a linear probe of {what} finds",
            bootstrap(right[name]),
            limit=f"most frequent label {most:.2f}",
        )
    gain = bootstrap(right["probe"] - right["probe_pixels"])
    figures["probe_gain"] = Figure.of(
        "labels found from latents minus those found from pixels", gain, limit="watch where it may be 0"
    )
    return figures


def _ambiguous(found: Ambiguity) -> dict[str, Figure]:
    figures = {
        "viv": Figure.of(
            "velocity ambiguity (VIV-DCT)",
            found.viv,
            limit=f"white noise 1.57; published baseline {BASELINE}, good {GOOD}",
        ),
        "rho": Figure("variance within classes, of all (rho)", found.rho, limit="1: class and place predict nothing"),
        "phi": Figure("evenness of its spectrum (phi)", found.phi, limit=f"1 of white noise; watch from {EVEN}"),
    }
    if found.flip_flop is not None:
        figures["viv_flip_flop"] = Figure("velocity ambiguity by the flip-flop estimator", found.flip_flop)
    return figures


def _verdict(figures: dict[str, Figure], labels: Sequence[str] | None, usable: Sequence[str]) -> tuple[Verdict, str]:
    bad: list[str] = []
    good: list[str] = []
    if "lds" in figures:
        near = f"the cosine of near latents is {figures['lds'].value:.2f} above that of far ones"
        (bad if figures["lds"].value < UNLIKE else good).append(near)
    if not usable:
        have = (
            f"semantics were not examined: needs at least {CLASS} images in each of {CLASSES} classes (--labels), not "
            f"{_have(labels)}"
        )
        return ("watch" if bad else "not examined"), "; ".join([*bad, *good, have])
    gain, same = figures["probe_gain"], figures["lnc_5"]
    finds = (
        f"a linear probe finds {figures['probe'].value:.0%} of the labels, from pixels "
        f"{figures['probe_pixels'].value:.0%}"
    )
    (good if gain.low is not None and gain.low > 0 else bad).append(finds)
    good.append(f"{same.value:.0%} of 5 nearest neighbours have the same label ({same.limit})")
    phi = f"velocity ambiguity is {figures['viv'].value:.2f}, {figures['phi'].value:.0%} of the most that is possible"
    (bad if figures["phi"].value >= EVEN else good).append(phi)
    return ("watch" if bad else "healthy"), "; ".join([*bad, *good])


def _have(labels: Sequence[str] | None) -> str:
    if labels is None:
        return "images without labels"
    counts = Counter(labels)
    if len(counts) == 1:
        return f"one class of {len(labels)}"
    return f"{len(counts)} classes, the largest two of " + " and ".join(
        str(count) for _, count in counts.most_common(2)
    )


def _uncertainty(subject: Subject, count: int, usable: Sequence[str]) -> str:
    text = (
        f"{count} images; intervals resample them, that of VIV by the jackknife. Channels are standardized, dead ones "
        "left out. "
    )
    if usable:
        some = f", {MOST_CLASSES} of them for VIV" if len(usable) > MOST_CLASSES else ""
        text += (
            f"{len(usable)} classes with {CLASS} images or more{some}. VIV-DCT is within 5 % with {CLASS} images a "
            "class where fields are stationary, and an upper bound where they are not; the published one is by another "
            "estimator, which needs ten times as many images as here. With few or similar classes a probe's figure "
            "depends more on them than on the VAE: compare it with the pixels' figure and with other VAEs on the same "
            "images. "
        )
    if subject.masks is None:
        text += (
            "Without masks neighbours are by the mean over the whole image, and the object's contrast (SRSS) is not "
            "measured."
        )
    return text


def _pictures(
    subject: Subject, numbers: Sequence[int], latents: Latents, vectors: Array, labels: Sequence[str] | None
) -> Iterator[Picture]:
    shown = [numbers[i * len(numbers) // min(3, len(numbers))] for i in range(min(3, len(numbers)))]
    yield Picture(
        "similarity (cosine) of every latent to the marked one",
        labelled(
            [[x for i in shown for x in _likeness(subject, i, latents([i]))]],
            columns=["image, one latent marked", "similarity"] * len(shown),
        ),
    )
    if len(numbers) > max(NEIGHBOURS):
        order = nearest(vectors - vectors.mean(0), NEIGHBOURS[0])
        places = [numbers.index(i) for i in shown]
        rows = [
            [
                _framed(subject, numbers, j, None if labels is None or j == i else labels[j] == labels[i])
                for j in (i, *order[i])
            ]
            for i in places
        ]
        caption = "an image, and its five nearest neighbours by mean latent" + (
            "; framed green: same label, red: another" if labels is not None else ""
        )
        names = ["image", *(f"neighbour {number + 1}" for number in range(len(rows[0]) - 1))]
        yield Picture(caption, labelled(rows, columns=names))


def _likeness(subject: Subject, number: int, z: Tensor) -> list[Tensor]:
    """The image with one latent marked, and the cosines of all latents to it, as pixels: uint8."""
    u, f = directions(z)[0], subject.factor
    h, w = u.shape[-2:]
    y, x = _anchor(
        None
        if subject.masks is None
        else F.adaptive_avg_pool2d(subject.masks[number][None, None].float(), (h, w))[0, 0],
        h,
        w,
    )
    image = subject.pixels[number].clone().expand(3, -1, -1).clone()
    for inset, level in ((0, 255), (1, 0)):
        image[:, y * f + inset : (y + 1) * f - inset, x * f + inset : (x + 1) * f - inset] = level
    cosine = torch.einsum("c,chw->hw", u[:, y, x], u)
    side = min(160, image.shape[-1])  # six pictures side by side
    return [
        F.adaptive_avg_pool2d(x.float(), side).round().to(torch.uint8)
        for x in (image, enlarged(heat(cosine, 0.0, 1.0), f))
    ]


def _anchor(mask: Tensor | None, h: int, w: int) -> tuple[int, int]:
    """The middle of the object, or of the image: row and column."""
    if mask is None or not mask.max() > 0:
        return h // 2, w // 2
    y, x = (mask > 0.5 * mask.max()).nonzero().double().median(0).values.long().tolist()
    return y, x


def _framed(subject: Subject, numbers: Sequence[int], place: int, same: bool | None) -> Tensor:
    """A small image with a frame: green, red or white."""
    image = F.adaptive_avg_pool2d(subject.pixels[numbers[place]].float(), 128).round().to(torch.uint8).expand(3, -1, -1)
    colour = torch.tensor({None: (255, 255, 255), True: (40, 160, 70), False: (200, 50, 50)}[same], dtype=torch.uint8)
    framed = colour[:, None, None].expand(3, 136, 136).clone()
    framed[:, 4:-4, 4:-4] = image
    return framed
