"""Watches over the course of a run: a learning rate that is too high, overfitting, and a run that learns nothing.

All thresholds are in dB, because losses have different units, and some are negative. While there is an adversarial
gradient, nothing is watched here: PSNR falls then, as it should, and the discriminator's supervisor watches the run.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from ...config import TrainConfig
from .alarm import Alarm, Kind
from .log_schema import LOOK, STEP, number

WINDOW = 32
"""Step lines in a window. The PSNR of a batch scatters by 1 to 2 dB, the median of a window by 0.3."""

FALLEN = 1.5
"""Fall of a window's median from the best window's, in dB; besides, their middle halves must not overlap."""

STEEP = 10.0
"""Growth of the gradient norm's lower quartile since its lowest window; the quartile ignores single spikes."""

OVERFITTED = 0.5
"""Fall of held-out images from their best, in dB, while training crops still improve."""

LOST = 3.0
"""Fall of held-out images from their best, in dB, in any case."""

IMPROVED = 0.25
"""Improvement of training crops that counts, in dB: about the scatter of a window's median."""

GRAY = 15.0
"""PSNR of held-out images, in dB, that a run should exceed: plain gray has about 13 on photographs."""

PATIENCE = 4
"""Validations after the warm-up until then."""

CALM = 0.5
"""Share of a threshold below which trouble is over."""

ELSEWHERE = (
    "the adversarial gradient starts here and changes the course of the figures: they are not compared with earlier "
    "ones"
)


class LearningRate:
    """Watches for training crops that are reconstructed worse than before, and for gradients that grow."""

    def __init__(self, config: TrainConfig):
        self._config = config
        self._forget()
        self._on = False

    def _forget(self) -> None:
        self._psnrs: deque[float] = deque(maxlen=WINDOW)
        self._norms: deque[float] = deque(maxlen=WINDOW)
        self._best: tuple[float, float] | None = None
        self._lowest: float | None = None

    def observe(self, line: Mapping[str, Any]) -> Iterator[Alarm]:
        """Take in a line; an alarm when it begins, and when it is over."""
        if STEP not in line:
            return
        if has_adversarial_gradient(line):
            if self._on:
                yield Alarm("learning rate", ELSEWHERE, over=True)
            self._forget()
            self._on = False
            return
        psnr, norm = number(line.get("psnr")), number(line.get("grad_norm"))
        if psnr is None or norm is None:
            return
        self._psnrs.append(psnr)
        self._norms.append(norm)
        if len(self._psnrs) < WINDOW:
            return
        low, median, high = statistics.quantiles(self._psnrs, n=4)
        quiet, norm, _ = statistics.quantiles(self._norms, n=4)
        if self._best is None or median > self._best[0]:
            self._best = (median, low)
        self._lowest = norm if self._lowest is None else min(norm, self._lowest)
        fallen, steep = self._best[0] - median, quiet / self._lowest if self._lowest > 0 else 1.0
        if not self._on and ((fallen > FALLEN and high < self._best[1]) or steep > STEEP):
            self._on = True
            yield Alarm("learning rate", self._message(median, fallen, norm, steep, number(line.get("lr"))))
        elif self._on and fallen < FALLEN * CALM and steep < STEEP * CALM:
            self._on = False
            yield Alarm(
                "learning rate",
                "training crops are reconstructed as well as before, and gradients have calmed down",
                over=True,
            )

    def _message(self, psnr: float, fallen: float, norm: float, steep: float, lr: float | None) -> str:
        if fallen > FALLEN:
            seen = f"training crops are reconstructed {fallen:.1f} dB worse than before ({psnr:.1f} dB)"
        else:
            seen = f"the gradient norm is {norm:.3g}, more than {STEEP:.0f} times what it was"
        now = "" if lr is None else f", which is {lr:.2g} now,"
        clip = "" if self._config.optimizer.clip_norm else ", and set optimizer.clip-norm to 1"
        return (
            f"{seen}: most often the learning rate{now} is too high; lower optimizer.lr "
            f"(={self._config.optimizer.lr:g}) 3 to 10 times, or lengthen optimizer.warmup-images "
            f"(={self._config.optimizer.warmup_images:,}){clip}"
        )


class HeldOut:
    """Compares held-out images with training crops, and with a plain gray picture."""

    def __init__(self, config: TrainConfig):
        self._config = config
        self._psnrs: deque[float] = deque(maxlen=WINDOW)
        self._best: tuple[float, float | None] | None = None
        self._worse = 0
        self._looks = 0
        self._on: Kind | None = None
        self._gray = False

    def observe(self, line: Mapping[str, Any]) -> Iterator[Alarm]:
        """Take in a line; alarms when a trouble begins, and when it is over."""
        if STEP in line:
            if has_adversarial_gradient(line):
                if self._on is not None:
                    yield Alarm(self._on, ELSEWHERE, over=True)
                self._psnrs.clear()
                self._best, self._on = None, None
            elif (psnr := number(line.get("psnr"))) is not None:
                self._psnrs.append(psnr)
            return
        held_out = number(line.get(LOOK))
        if held_out is None:
            return
        yield from self._judge_gray(held_out, line["images_seen"])
        crops = statistics.median(self._psnrs) if len(self._psnrs) >= WINDOW // 4 else None
        if self._best is None or held_out > self._best[0]:
            self._best = (held_out, crops)
        yield from self._judge_course(held_out, crops)

    def _judge_course(self, held_out: float, crops: float | None) -> Iterator[Alarm]:
        assert self._best is not None
        best, crops_then = self._best
        better = crops is not None and crops_then is not None and crops > crops_then + IMPROVED
        behind = best - held_out
        self._worse = self._worse + 1 if behind > (OVERFITTED if better else LOST) else 0
        if self._on is None and self._worse >= 2:
            alarm = self._overfitting(held_out, best) if better else self._lost(held_out, best)
            self._on = alarm.kind
            yield alarm
        elif self._on is not None and behind < OVERFITTED * CALM:
            yield Alarm(self._on, f"held-out images are reconstructed as well as before: {held_out:.2f} dB", over=True)
            self._on = None

    def _judge_gray(self, held_out: float, images_seen: int) -> Iterator[Alarm]:
        self._looks += 0 < images_seen >= self._config.optimizer.warmup_images
        if self._gray and held_out > GRAY + 1:
            self._gray = False
            yield Alarm("no learning", f"the run learns: {held_out:.1f} dB on held-out images", over=True)
        elif self._looks == PATIENCE and held_out < GRAY and not self._gray:
            self._gray = True
            message = (
                f"after {images_seen:,} images held-out ones are reconstructed with {held_out:.1f} dB, hardly better "
                "than plain gray: the run learns nothing; look at the losses' weights, at optimizer.lr "
                f"(={self._config.optimizer.lr:g}) and at the images"
            )
            yield Alarm("no learning", message)

    @staticmethod
    def _overfitting(held_out: float, best: float) -> Alarm:
        return Alarm(
            "overfitting",
            f"overfitting: held-out images are at {held_out:.2f} dB, {best - held_out:.2f} below their best, while "
            "training crops still improve; more images or a smaller data.min-scale help, and best.safetensors keeps "
            "the best state",
        )

    def _lost(self, held_out: float, best: float) -> Alarm:
        return Alarm(
            "learning rate",
            f"held-out images are at {held_out:.2f} dB, {best - held_out:.2f} below their best, and training crops do "
            "not improve: the learning rate is too high, or another term outweighs the reconstruction; lower "
            f"optimizer.lr (={self._config.optimizer.lr:g}) 3 to 10 times, or that term's weight (loss.beta is "
            f"{self._config.loss.beta:g})",
        )


def has_adversarial_gradient(line: Mapping[str, Any]) -> bool:
    """Whether the autoencoder got a gradient of the discriminator in this step."""
    return (number(line.get("adversarial_weight")) or 0.0) > 0
