"""Judge whether a classifier with few labels gains by variants of latents, beside augmentation of pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...data.subsets import some
from ...features.classifier import Classifier, classes_seen, fit
from ...intervals import Interval, student
from ...models import Autoencoder
from ...random_streams import PIXEL_VARIANTS, random_seed
from ..codes import Code, Codes, Track, decode_pixels, pixel_digests
from ..features.label_splits import Draws
from .plan import ALPHA, METHODS, Blend, Method, Noise, blends
from .render import variant_latents

COPIES, TRANSFORMED, MIXED = "copies", "pixels: shifts and noise", "pixels: mixup"
"""Baselines: training sets without an autoencoder."""

LATENT: Mapping[Method, str] = {
    "noise": "latents: noise",
    "interpolate": "latents: interpolation",
    "mixup": "latents: mixup",
}

SEEN, BATCH = 6_400, 32
"""Images that every classifier sees in training, with variants, and its batch size."""

TESTED = 2_000
"""Most images of the test half that are classified."""

STRENGTH = 0.1
"""Largest standard deviation of noise in pixels, for a range of 2. Shifts are at most an eighth of the side."""

Targets = Tensor
"""Class probabilities: n classes."""


@dataclass(frozen=True)
class TrainingArm:
    """Results of one way to make training images."""

    name: str
    images: Mapping[int, int]
    """size of the training set, by labels per class"""
    each: Mapping[int, tuple[float, ...]]
    """accuracy on the test half, by labels per class, for every choice of labels"""
    accuracy: Mapping[int, Interval]
    """mean over choices"""
    gain: Mapping[int, Interval]
    """mean difference to copies of the labelled images, paired over choices"""
    over_pixels: Mapping[int, Interval]
    """mean difference to the better one of the pixels' two arms, paired"""


def judge(
    autoencoder: Autoencoder,
    codes: Codes,
    draws: Draws,
    noise: Noise,
    *,
    per_image: int,
    methods: Sequence[Method] = METHODS,
    alpha: float = ALPHA,
    flip: bool = False,
    seed: int = 0,
    track: Track = iter,
) -> list[TrainingArm]:
    """Train a small CNN for every arm, on the same labelled images with `per_image` variants of each and for the same
    number of steps.

    codes: all images of `draws`. noise: noise of the latents. flip: images may be mirrored, which makes other digits of
    digits. With one label per class there is no partner to interpolate to, so that arm is missing.
    Errors: those of `blends`.
    """
    tested = draws.test[some(len(draws.test), TESTED)]
    tasks = [(count, choice) for count in draws.labelled[0] for choice in range(len(draws.labelled))]
    right: dict[tuple[str, int], list[float]] = {}
    sizes: dict[tuple[str, int], int] = {}
    for count, choice in track(tasks):
        known = codes.of(draws.labelled[choice][count].tolist())
        targets = torch.from_numpy(draws.targets[draws.labelled[choice][count]])
        key = random_seed(seed, PIXEL_VARIANTS, choice)
        possible = [method for method in methods if count > 1 or method != "interpolate"]
        for name, (pixels, soft) in training_sets(
            autoencoder,
            known,
            F.one_hot(targets, len(draws.classes)).double(),
            noise,
            per_image,
            possible,
            alpha,
            flip,
            key,
        ).items():
            share = _accuracy(
                autoencoder.device, pixels, soft, codes.pixels[tested], torch.from_numpy(draws.targets[tested]), key
            )
            right.setdefault((name, count), []).append(share)
            sizes[name, count] = len(pixels)
    return _arms(right, sizes)


def training_sets(
    autoencoder: Autoencoder,
    known: Codes,
    targets: Targets,
    noise: Noise,
    per_image: int,
    methods: Sequence[Method],
    alpha: float,
    flip: bool,
    seed: int,
) -> dict[str, tuple[Tensor, Targets]]:
    """Images uint8 and targets of every arm: labelled images and, except for copies, `per_image` variants of each."""
    assert known.labels is not None
    keys = [int(digest[:8], 16) for digest in pixel_digests(known.pixels)]
    plans = {
        method: blends(method, known.labels, keys, per_image, seed, alpha) for method in {*methods, "noise", "mixup"}
    }
    images = known.pixels.float()
    made = {
        TRANSFORMED: (
            transformed(known.pixels, [b.draw for b in plans["noise"]], per_image, flip, seed),
            plans["noise"],
        ),
        MIXED: (torch.stack([_mixed(images, b) for b in plans["mixup"]]).round().to(torch.uint8), plans["mixup"]),
    }
    found = [Code(mean, std, *known.pixels.shape[-2:]) for mean, std in zip(known.mean, known.std, strict=True)]
    for method in methods:
        used = noise if method == "noise" else None
        latents = [variant_latents([found[i] for i in b.rows], b.weights, used, seed, b.draw) for b in plans[method]]
        made[LATENT[method]] = decode_pixels(autoencoder, torch.stack(latents)), plans[method]
    sets = {COPIES: (known.pixels, targets)}
    for name, (pixels, plan) in made.items():
        soft = torch.stack([_mixed(targets, b) for b in plan])
        sets[name] = torch.cat([known.pixels, pixels]), torch.cat([targets, soft])
    return sets


def transformed(pixels: Tensor, draws: Sequence[int], per_image: int, flip: bool, seed: int) -> Tensor:
    """Images uint8 n c h w, `per_image` times each, with random shifts and noise; `flip` mirrors half of them."""
    generator = torch.Generator()
    reach = max(1, pixels.shape[-1] // 8)
    found = []
    for image, draw in zip(pixels.repeat_interleave(per_image, 0), draws, strict=True):
        generator.manual_seed(random_seed(seed, PIXEL_VARIANTS, draw))
        down, right = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()
        level, mirror = torch.rand(2, generator=generator).tolist()
        x = F.pad(image[None].float(), (reach,) * 4, mode="replicate")[0]
        x = x[:, reach + down : reach + down + image.shape[-2], reach + right : reach + right + image.shape[-1]]
        x = x.flip(-1) if flip and mirror < 0.5 else x
        x = x + 127.5 * STRENGTH * level * torch.randn(x.shape, generator=generator)
        found.append(x.round().clamp(0, 255).to(torch.uint8))
    return torch.stack(found)


def _mixed(values: Tensor, blend: Blend) -> Tensor:
    """The weighted sum of rows of `values` that a blend names."""
    return sum(
        (weight * values[row] for row, weight in zip(blend.rows, blend.weights, strict=True)),
        torch.zeros_like(values[0]),
    )


def _accuracy(device: torch.device, pixels: Tensor, targets: Targets, test: Tensor, truth: Tensor, seed: int) -> float:
    network = Classifier(pixels.shape[1], pixels.shape[-1], targets.shape[1]).to(device)
    with torch.enable_grad():
        fit(network, lambda rows: pixels[rows], targets.float(), count=SEEN, batch=BATCH, seed=seed, disturb=False)
    seen = torch.cat([classes_seen(network, part) for part in test.split(256)])
    return (seen == truth).double().mean().item()


def _arms(right: Mapping[tuple[str, int], Sequence[float]], sizes: Mapping[tuple[str, int], int]) -> list[TrainingArm]:
    names = dict.fromkeys([COPIES, TRANSFORMED, MIXED, *LATENT.values(), *(name for name, _ in right)])
    arms = []
    for name in names:
        if not (counts := [count for other, count in right if other == name]):
            continue
        each = {count: tuple(right[name, count]) for count in counts}
        better = {count: max((right[b, count] for b in (TRANSFORMED, MIXED)), key=np.mean) for count in counts}
        arms.append(
            TrainingArm(
                name,
                {count: sizes[name, count] for count in counts},
                each,
                {count: student(values) for count, values in each.items()},
                {count: student(np.subtract(each[count], right[COPIES, count])) for count in counts},
                {count: student(np.subtract(each[count], better[count])) for count in counts},
            )
        )
    return arms
