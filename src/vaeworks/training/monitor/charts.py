"""The curves on a run's page, from the lines of its log."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from ...config import TrainConfig
from ...metrics.dead_channels import DEAD_NATS
from ...pages import chart, thinned
from .log_schema import EVENT, LOOK, STEP, carried, logit_gap, number, regularizers

Lines = Sequence[Mapping[str, Any]]
Marks = Sequence[tuple[float, str]]

PARTS = 150
"""Points of a curve; each is the mean of a part of a long run, because figures of single batches scatter."""

MARKS = 30
"""Events that are marked on every curve, the newest."""

RECONSTRUCTION = (
    "Over images seen, like all curves here. Training crops are harder where they show more scene per pixel."
)
LOSSES = "As they are logged, before they are weighted; means over equal parts of the run where it is long."
LATENTS = "Of the posteriors of held-out images, by channel."
DISCRIMINATOR = "The supervisor lets it in slowly and takes it back where it wins; broken lines are what happened."
OPTIMIZER = "The gradient norm is that before clipping."


def sections(lines: Lines, config: TrainConfig) -> list[dict[str, Any]]:
    """Groups of curves with a title and a sentence each; those that have something to show."""
    steps, looks = [line for line in lines if STEP in line], [line for line in lines if LOOK in line]
    events = [line for line in lines if EVENT in line][-MARKS:]
    marks = [
        (event["images_seen"], f"{event['images_seen']:,}: {textwrap.shorten(event[EVENT], 80)}") for event in events
    ]
    found = [
        ("Reconstruction", RECONSTRUCTION, _reconstruction(steps, looks, marks)),
        ("Losses", LOSSES, _losses(steps, config, marks)),
        ("Latents", LATENTS, _latents(steps, looks, config, marks)),
        ("Discriminator", DISCRIMINATOR, _discriminator(steps, marks)),
        ("Optimizer", OPTIMIZER, _optimizer(steps, marks)),
    ]
    drawn = [{"title": title, "text": text, "charts": [c for c in charts if c]} for title, text, charts in found]
    return [section for section in drawn if section["charts"]]


def _reconstruction(steps: Lines, looks: Lines, marks: Marks) -> list[str]:
    psnr = {"held out": _curve(looks, LOOK), "training crops": _curve(steps, "psnr")}
    return [
        chart("PSNR, dB", psnr, form=".2f", marks=marks),
        chart("SSIM", {"held out": _curve(looks, "val_ssim")}, form=".4f", marks=marks),
    ]


def _losses(steps: Lines, config: TrainConfig, marks: Marks) -> list[str]:
    names = ["reconstruction", *(() if config.loss.perceptual == "none" else ("perceptual",)), "loss"]
    on = {name: name.replace("_", " ") for line in steps for name in regularizers(line)}
    return [
        chart("objective and its terms", {name: _curve(steps, name) for name in names}, log=True, marks=marks),
        *[chart(words, {words: _curve(steps, name)}, log=True, marks=marks) for name, words in on.items()],
    ]


def _latents(steps: Lines, looks: Lines, config: TrainConfig, marks: Marks) -> list[str]:
    charts = [chart("standard deviation", _channels(looks, "latent_std"), marks=marks)]
    if config.model.bottleneck.kind == "kl":
        told = _channels([{**look, "carried": carried(look)} for look in looks], "carried")
        low = min((value for line in told.values() for _, value in line if value is not None), default=math.inf)
        near = low < 30 * DEAD_NATS  # else the curves would be squeezed together above the level
        levels = {"carries nothing": DEAD_NATS} if near else None
        charts.append(chart("what a channel carries, nats per element", told, log=near, levels=levels, marks=marks))
        charts.append(chart("KL, nats per element", _channels(looks, "kl_per_channel"), marks=marks))
        charts.append(
            chart(
                "KL of training crops, bits per element",
                {"all channels": _curve(steps, "bits_per_dimension")},
                marks=marks,
            )
        )
    charts.append(chart("mean", _channels(looks, "latent_mean"), marks=marks))
    charts.append(chart("largest absolute value", {"held out": _curve(looks, "latent_absmax")}, marks=marks))
    return charts


def _discriminator(steps: Lines, marks: Marks) -> list[str]:
    if not any("accuracy_real" in line for line in steps):
        return []
    sides = {"images": "accuracy_real", "reconstructions": "accuracy_fake"}
    gap = thinned([(line["images_seen"], logit_gap(line)) for line in steps], PARTS)
    weights = {"whole": "adversarial_weight", "adaptive": "adaptive_weight"}
    losses = {"discriminator": "discriminator_loss", "autoencoder": "adversarial"}
    return [
        chart(
            "share it is right about",
            {k: _curve(steps, v) for k, v in sides.items()},
            levels={"chance": 0.5},
            form=".2f",
            marks=marks,
        ),
        chart("distance of the logits", {"images - reconstructions": gap}, marks=marks),
        chart(
            "weight of the adversarial term", {k: _curve(steps, v) for k, v in weights.items()}, log=True, marks=marks
        ),
        chart("adversarial losses", {k: _curve(steps, v) for k, v in losses.items()}, marks=marks),
        chart("its gradient norm", {"discriminator": _curve(steps, "discriminator_grad_norm")}, log=True, marks=marks),
        *[chart(name, {name: _curve(steps, name)}, marks=marks) for name in ("r1", "r2", "lecam")],
    ]


def _curve(lines: Lines, name: str) -> list[tuple[float, float]]:
    return thinned([(line["images_seen"], number(line.get(name))) for line in lines], PARTS)


def _channels(looks: Lines, name: str) -> dict[str, list[tuple[float, float | None]]]:
    """A curve for each channel of a figure that is a list."""
    lists = [(look["images_seen"], look[name]) for look in looks if isinstance(look.get(name), list)]
    count = max((len(values) for _, values in lists), default=0)
    return {
        f"channel {i}": [(images, number(values[i])) for images, values in lists if i < len(values)]
        for i in range(count)
    }


def _optimizer(steps: Lines, marks: Marks) -> list[str]:
    return [
        chart("gradient norm", {"gradient norm": _curve(steps, "grad_norm")}, log=True, marks=marks),
        chart("learning rate", {"learning rate": _curve(steps, "lr")}, marks=marks),
    ]
