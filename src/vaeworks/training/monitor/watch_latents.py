"""Watches over the latents of held-out images: channels that carry nothing, and latents that grow without bound."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ...config import TrainConfig
from ...metrics.dead_channels import DEAD_NATS, DEAD_SHARE
from .alarm import Alarm, Kind
from .log_schema import LOOK, carried, finite_list, number

ALIVE_AGAIN = 2.0
"""Factor of either threshold above which a channel counts as alive again."""

GROWN = 10.0
"""Growth of the latents' standard deviation since the first validation after the warm-up. Healthy runs stay within a
factor of 3; a tenfold growth has no limit."""

FAR = 200.0
"""Absolute value that no latent should have: twice that of Stable Diffusion 1.5, the widest of the published ones (17.4
at scale 0.18215); SDXL's latents stay below 35, Flux.2's below 7."""

CALM = 0.5
"""Share of either threshold below which the trouble is over."""


class Collapse:
    """Watches for channels that carry nothing: by their information for a posterior, by their variance for points.

    A channel counts after two validations in a row after the learning rate's warm-up: in an untrained encoder all
    channels carry nothing.
    """

    def __init__(self, config: TrainConfig):
        self._config = config
        self._silent: tuple[bool, ...] = ()
        self._told = 0

    def observe(self, line: Mapping[str, Any]) -> Iterator[Alarm]:
        """Take in a line; alarms when channels fall silent, when they are twice as many, when they are all, and when
        none is any more."""
        levels, threshold, kind = self._levels(line)
        if not levels or not 0 < line["images_seen"] >= self._config.optimizer.warmup_images:
            return
        before = self._silent if len(self._silent) == len(levels) else (False,) * len(levels)
        self._silent = tuple(
            level < threshold * (ALIVE_AGAIN if was else 1.0) for level, was in zip(levels, before, strict=True)
        )
        count, total = sum(a and b for a, b in zip(self._silent, before, strict=True)), len(levels)
        if self._told and not any(self._silent):
            self._told = 0
            yield Alarm(kind, f"all {total} latent channels carry something again", over=True)
        elif count > self._told and (count >= 2 * self._told or count == total):
            self._told = count
            yield Alarm(
                kind, self._posterior(count, total) if kind == "posterior collapse" else self._points(count, total)
            )

    @staticmethod
    def _levels(line: Mapping[str, Any]) -> tuple[list[float], float, Kind]:
        if "kl_per_channel" in line:
            return carried(line), DEAD_NATS, "posterior collapse"
        variances = [std**2 for std in finite_list(line.get("latent_std"))]
        mean = math.fsum(variances) / len(variances) if variances else 0.0
        return [variance / mean if mean else 0.0 for variance in variances], DEAD_SHARE, "dead channels"

    def _posterior(self, count: int, total: int) -> str:
        beta = self._config.loss.beta
        lower = f"lower loss.beta (={beta:g}) tenfold" if beta else "look at the regularizers, because loss.beta is 0"
        if count == total:
            return (
                f"posterior collapse: no latent channel carries {DEAD_NATS:g} nats, the decoder ignores the latents; "
                f"{lower}"
            )
        return (
            f"posterior collapse: {count} of {total} latent channels {_carry(count)} less than {DEAD_NATS:g} nats and "
            f"{_are(count)} lost to the decoder and to any diffusion model; {lower}, or take fewer channels"
        )

    def _points(self, count: int, total: int) -> str:
        if count == total:
            return (
                "dead channels: the latents of all images are the same; look at the learning rate and at the "
                "regularizers"
            )
        return (
            f"dead channels: {count} of {total} latent channels {_carry(count)} less than {DEAD_SHARE:.1%} of the mean "
            "variance, which a diffusion model cannot tell from noise; set regularizers.variance-floor to 1, or take "
            "fewer channels"
        )


class BlowUp:
    """Watches for latents that grow without bound: by their standard deviation over all channels and largest value."""

    def __init__(self, config: TrainConfig):
        self._config = config
        self._first: float | None = None
        self._on = False

    def observe(self, line: Mapping[str, Any]) -> Iterator[Alarm]:
        """Take in a line; an alarm when it begins, and when it is over."""
        stds, largest = finite_list(line.get("latent_std")), number(line.get("latent_absmax"))
        if (
            LOOK not in line
            or not stds
            or largest is None
            or not 0 < line["images_seen"] >= self._config.optimizer.warmup_images
        ):
            return
        std = math.sqrt(math.fsum(s**2 for s in stds) / len(stds))
        if self._first is None:
            self._first = std
        growth = std / self._first if self._first else 1.0
        if not self._on and (growth > GROWN or largest > FAR):
            self._on = True
            yield Alarm("latent blow-up", self._message(std, growth, largest))
        elif self._on and growth < GROWN * CALM and largest < FAR * CALM:
            self._on = False
            calm = f"the latents are calm again: standard deviation {std:.3g}, largest value {largest:.3g}"
            yield Alarm("latent blow-up", calm, over=True)

    def _message(self, std: float, growth: float, largest: float) -> str:
        if growth > GROWN:
            seen = f"their standard deviation is {std:.3g}, {growth:.0f} times that of the first look"
        else:
            seen = f"their largest value is {largest:.3g}, with a standard deviation of {std:.3g}"
        if self._config.model.bottleneck.kind == "point":
            hold = "bound them (model.bottleneck.bound tanh or rmsnorm)"
        else:
            hold = f"raise loss.beta (={self._config.loss.beta:g})"
        return f"the latents blow up: {seen}; {hold}, or lower optimizer.lr (={self._config.optimizer.lr:g})"


def _carry(count: int) -> str:
    return "carries" if count == 1 else "carry"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
