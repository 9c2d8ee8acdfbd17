"""Alarms: planted troubles are told once, with what to do; healthy runs are left in peace; nothing but the log
counts."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator
from typing import Any

import pytest

from vaeworks.config import AutoencoderConfig, BottleneckConfig, LossConfig, OptimizerConfig, TrainConfig
from vaeworks.training.monitor.alarm import Alarm
from vaeworks.training.monitor.alarms import Alarms

CONFIG = TrainConfig(
    model=AutoencoderConfig(channels=8, channel_mult=(1, 2), norm_groups=4),
    loss=LossConfig(beta=0.5),
    optimizer=OptimizerConfig(lr=0.01, warmup_images=1000),
)
POINTS = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, bottleneck=BottleneckConfig(kind="point")))
C = 4


def look(images: int, psnr: float = 25.0, **more: Any) -> dict[str, Any]:
    return {
        "images_seen": images,
        "val_psnr": psnr,
        "val_ssim": 0.8,
        "latent_mean": [0.0] * C,
        "latent_std": [1.0] * C,
        "latent_absmax": 5.0,
        "kl_per_channel": [3.0] * C,
        **more,
    }


def points(images: int, std: list[float]) -> dict[str, Any]:
    line = look(images, latent_std=std)
    del line["kl_per_channel"]
    return line


def step(images: int, psnr: float = 25.0, norm: float = 0.3, **more: Any) -> dict[str, Any]:
    return {"images_seen": images, "loss": 0.1, "psnr": psnr, "grad_norm": norm, "lr": 0.01, **more}


def raised(lines: list[dict[str, Any]], config: TrainConfig = CONFIG) -> list[tuple[int, Alarm]]:
    """(images, alarm) of everything that these lines raise."""
    alarms = Alarms(config)
    return [(line["images_seen"], alarm) for line in lines for alarm in alarms.observe(line)]


def course(
    psnrs: list[float], norms: list[float] | None = None, noise: float = 1.2, every: int = 100, seed: int = 0
) -> list[dict[str, Any]]:
    """Step lines with these means, scattered as batches are."""
    rng = random.Random(seed)
    norms = norms or [0.3] * len(psnrs)
    return [
        step((i + 1) * 100, psnr + rng.gauss(0, 1.2), norm * math.exp(rng.gauss(0, 0.5)))
        for i, (psnr, norm) in enumerate(zip(psnrs, norms, strict=True))
    ]


# ------------------------------------------------------------------ healthy


def healthy(seed: int, lines: int = 3000) -> Iterator[dict[str, Any]]:
    """A run as they go: a fast start, a slow rise, scattered batches, spikes of the gradient, latents that find their
    scale."""
    rng = random.Random(seed)
    for i in range(lines):
        t, images = i / lines, i * 200
        if i % 50 == 0:
            scale = 0.3 + 2 * t
            yield look(
                images,
                12 + 16 * min(1, 20 * t) + 3 * t + rng.gauss(0, 0.1),
                latent_std=[scale * (1 + 0.2 * c) for c in range(C)],
                latent_absmax=scale * 12,
                kl_per_channel=[3 * min(1, 30 * t) + 0.02 * c for c in range(C)],
            )
        spike = 40 if rng.random() < 0.02 else 1
        yield step(images, 12 + 14 * min(1, 20 * t) + 3 * t + rng.gauss(0, 1.5), spike * math.exp(rng.gauss(0, 0.6)))


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_run_raises_nothing(seed: int) -> None:
    """3,000 lines with the scatter of small batches, an untrained and silent start, and single gradients 40 times as
    large."""
    assert raised(list(healthy(seed))) == []


def test_a_discriminator_may_cost_decibels() -> None:
    """PSNR falls by 3 dB once the adversarial term is felt: that is its price, and the supervisor's business."""
    lines = course([27.0] * 200)
    felt = [
        {**line, "images_seen": 20_000 + line["images_seen"], "adversarial_weight": 0.5}
        for line in course([24.0] * 200, [9.0] * 200)
    ]
    looks = [look(20_000, 28.0), look(30_000, 24.5), look(40_000, 24.4)]
    assert raised(sorted([*lines, *felt, *looks], key=lambda line: line["images_seen"])) == []


# ------------------------------------------------------------------ latents


def test_posterior_collapse_counts_channels_and_names_the_weight() -> None:
    """Channels below 0.01 nats in two looks in a row: once, again when they are twice as many or all, and when all are
    back."""
    kls = [[3.0] * 4, [3, 3, 3, 0.001], [3, 3, 3, 0.001], [3, 3, 3, 0.001], [3, 3, 0.002, 0.001], [3, 3, 0.002, 0.001]]
    kls += [[0.001] * 4] * 3 + [[3.0] * 4] * 2
    found = raised([look(10_000 * (i + 1), kl_per_channel=kl) for i, kl in enumerate(kls)])
    assert [(images, alarm.over) for images, alarm in found] == [
        (30_000, False),
        (60_000, False),
        (80_000, False),
        (100_000, True),
    ]
    assert {alarm.kind for _, alarm in found} == {"posterior collapse"}
    assert "1 of 4 latent channels carries" in found[0][1].message
    assert "2 of 4 latent channels carry" in found[1][1].message
    assert "the decoder ignores the latents" in found[2][1].message
    assert all("loss.beta (=0.5)" in alarm.message for _, alarm in found[:3])


def test_an_idle_posterior_has_collapsed_whatever_its_kl() -> None:
    """Means that do not vary under a posterior of a width of its own: 0.7 nats of KL, nothing about the image (seen at
    beta 0.3)."""
    idle = {
        "latent_std": [1.2, 0.5, 0.04, 0.04],
        "posterior_std": [0.42] * C,
        "kl_per_channel": [1.07, 0.6, 0.67, 0.67],
    }
    ((_, alarm),) = raised([look(1000 * i, **idle) for i in range(5)])
    assert "2 of 4 latent channels" in alarm.message
    narrow = {
        "latent_std": [0.05] * C,
        "posterior_std": [1e-4] * C,
        "kl_per_channel": [8.7] * C,
    }  # small, and full of information
    assert raised([look(1000 * i, **narrow) for i in range(5)]) == []


def test_an_untrained_encoder_is_no_collapse() -> None:
    """Before the learning rate has warmed up, silence is no news; nor is a single silent look."""
    silent = [0.0] * C
    assert raised([look(0, kl_per_channel=silent), look(500, kl_per_channel=silent), look(1000), look(2000)]) == []
    assert (
        raised(
            [look(1000), look(2000, kl_per_channel=silent), look(3000), look(4000, kl_per_channel=silent), look(5000)]
        )
        == []
    )
    assert (
        len(
            raised(
                [look(900, kl_per_channel=silent), look(1000, kl_per_channel=silent), look(1100, kl_per_channel=silent)]
            )
        )
        == 1
    )


def test_a_level_at_the_threshold_does_not_flicker() -> None:
    """A channel that wavers around 0.01 nats is told of once: it counts as alive from 0.02 on."""
    lines = [look(1000 * (i + 1), kl_per_channel=[3, 3, 3, 0.009 if i % 2 else 0.011]) for i in range(20)]
    assert [alarm.over for _, alarm in raised(lines)] == [False]


def test_dead_channels_of_points() -> None:
    """Without a posterior, a variance below a thousandth of the mean one counts; above it, a spectrum that falls is
    fine."""
    assert raised([points(1000 * i, [2.0, 1.0, 0.5, 0.1]) for i in range(6)], POINTS) == []
    found = raised([points(1000 * i, [1.0, 1.0, 1.0, 0.01]) for i in range(6)], POINTS)
    assert [(images, alarm.kind) for images, alarm in found] == [(2000, "dead channels")]
    assert "1 of 4 latent channels carries less than 0.1%" in found[0][1].message
    assert "variance-floor" in found[0][1].message
    ((_, alarm),) = raised([points(1000 * i, [0.0] * C) for i in range(4)], POINTS)
    assert "the latents of all images are the same" in alarm.message


def test_latents_that_blow_up() -> None:
    """Tenfold growth over the first look after the warm-up, or a value beyond 200; the remedy is the bottleneck's; calm
    is told."""
    grown = [look(1000 * (i + 1), latent_std=[0.5 * 2**i] * C) for i in range(6)]
    ((images, alarm),) = raised(grown)
    assert (images, alarm.kind) == (5000, "latent blow-up")
    assert "16 times that of the first look" in alarm.message
    assert "raise loss.beta (=0.5)" in alarm.message
    ((_, alarm),) = raised([{k: v for k, v in line.items() if k != "kl_per_channel"} for line in grown], POINTS)
    assert "model.bottleneck.bound" in alarm.message
    far = raised(
        [look(1000), look(2000, latent_absmax=250.0), look(3000, latent_absmax=150.0), look(4000, latent_absmax=50.0)]
    )
    assert [(images, alarm.over) for images, alarm in far] == [(2000, False), (4000, True)]
    assert raised([look(0, latent_std=[1e-3] * C), look(1000), look(2000)]) == []  # an untrained encoder is no measure


# ------------------------------------------------------------------ the course


def test_a_learning_rate_that_is_too_high() -> None:
    """Training crops fall by 4 dB: told once, with the setting and its value, and again when they have recovered."""
    found = raised(course([20.0] * 50 + [26.0] * 100 + [22.0] * 100 + [26.5] * 100))
    assert [(alarm.kind, alarm.over) for _, alarm in found] == [("learning rate", False), ("learning rate", True)]
    assert 15_000 < found[0][0] < 19_000
    assert "optimizer.lr (=0.01)" in found[0][1].message
    assert "warmup-images (=1,000)" in found[0][1].message


def test_gradients_that_grow() -> None:
    """A gradient norm of 20 times what it was, in most steps; single spikes of a thousand times are none."""
    ((_, alarm),) = raised(course([26.0] * 200, [0.3] * 100 + [6.0] * 100))
    assert alarm.kind == "learning rate"
    assert "gradient norm" in alarm.message
    assert raised(course([26.0] * 200, [0.3 if i % 6 else 300.0 for i in range(200)])) == []


def test_a_run_that_is_lost_at_once() -> None:
    """Worse than the start from the first looks on, which training crops alone cannot tell."""
    found = raised([look(0, 23.5), *course([13.0] * 40), look(4000, 15.0), look(5000, 15.8), look(6000, 17.0)])
    assert [(alarm.kind, images) for images, alarm in found] == [("learning rate", 5000)]


def test_overfitting() -> None:
    """Held-out images get worse while training crops improve: best.safetensors is pointed to. Both getting worse is
    none."""
    rising = course([24.0 + 0.05 * i for i in range(120)])
    falling = [look(2000 * i, 26.0 - 0.4 * abs(i - 2)) for i in range(1, 7)]
    ((images, alarm),) = raised(sorted([*rising, *falling], key=lambda line: line["images_seen"]))
    assert alarm.kind == "overfitting"
    assert images == 10_000
    assert "best.safetensors" in alarm.message
    flat = course([24.0] * 120)
    assert raised(sorted([*flat, *falling], key=lambda line: line["images_seen"])) == []


def test_a_run_that_learns_nothing() -> None:
    """Four looks after the warm-up hardly better than gray, told once; a run that gets there late has no such alarm."""
    found = raised([look(1000 * i, 12.0 + (9.0 if i > 7 else 0.0)) for i in range(10)])
    assert [(alarm.kind, alarm.over, images) for images, alarm in found] == [
        ("no learning", False, 4000),
        ("no learning", True, 8000),
    ]
    assert raised([look(1000 * i, 12.0 + 2 * i) for i in range(10)]) == []


# ------------------------------------------------------------------ nothing but the log


@pytest.mark.parametrize("seed", range(3))
def test_alarms_are_a_function_of_the_log(seed: int) -> None:
    """Wherever a run is cut and goes on from the lines that were kept, it raises what the undisturbed run raises."""
    rng = random.Random(seed)
    lines: list[dict[str, Any]] = course([20.0] * 50 + [26.0] * 60 + [21.0] * 60 + [27.0] * 60, seed=seed)
    lines += [
        look(1500 * i, rng.uniform(14, 28), kl_per_channel=[rng.choice([3.0, 0.001]) for _ in range(C)])
        for i in range(16)
    ]
    lines += [look(1500 * i + 700, 20.0, latent_absmax=rng.choice([5.0, 300.0])) for i in range(10)]
    lines.sort(key=lambda line: line["images_seen"])
    whole = raised(lines)
    assert len(whole) > 5
    for cut in range(0, len(lines), 7):
        again = Alarms(CONFIG, lines[:cut])
        rest = [(line["images_seen"], alarm) for line in lines[cut:] for alarm in again.observe(line)]
        before = raised(lines[:cut])
        assert before + rest == whole


def test_odd_lines_are_passed_over() -> None:
    """Events, missing figures, nulls and lists that hold some: no alarm and no error."""
    lines = [
        {"images_seen": 5000, "event": "something", "alarm": True, "action": None},
        {"images_seen": 5000, "val_psnr": None},
        look(6000, kl_per_channel=[None] * C, latent_std=[None] * C, latent_absmax=None),
        {"images_seen": 7000, "loss": None, "psnr": None},
        look(8000, math.nan),
        {"images_seen": 9000},
    ]
    assert raised(lines) == []
