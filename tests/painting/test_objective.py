"""What a denoiser learns: noisy latents, targets and weights are those of the papers and of diffusers."""

from __future__ import annotations

import dataclasses

import diffusers
import numpy as np
import pytest
import torch
from diffusers.training_utils import compute_snr
from scipy.stats import kstest, norm
from torch import Tensor

import vaeworks as vw
from vaeworks.config import DenoiserConfig, PaintConfig
from vaeworks.painting.objective import DiffusionObjective, FlowObjective, is_dropped, objective_of, uniform_times

SD1 = PaintConfig(denoiser=DenoiserConfig(kind="sd1", width=32), matrices="adamw", objective="epsilon")


def scheduler(kind: str = "epsilon", **options: object) -> diffusers.DDPMScheduler:
    return diffusers.DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=kind, **options
    )


def pair(n: int, c: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, c, 3, 3, generator=generator), torch.randn(n, c, 3, 3, generator=generator)


# Flow


def test_a_flow_goes_from_latents_to_noise() -> None:
    """x is on the line, the target is its direction, and one Euler step of the stock scheduler along it ends at the
    latents."""
    z, noise = pair(3)
    t = torch.tensor([0.1, 0.5, 0.9])
    x, steps, target, weight = FlowObjective(PaintConfig()).noisy(z, noise, t)
    torch.testing.assert_close(x, (1 - t)[:, None, None, None] * z + t[:, None, None, None] * noise)
    assert torch.equal(target, noise - z) and torch.equal(weight, torch.ones(3))
    torch.testing.assert_close(steps, torch.tensor([100.0, 500, 900]))
    stock = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    stock.set_timesteps(sigmas=[0.5])
    torch.testing.assert_close(stock.timesteps[0], steps[1])
    found = stock.step(target[1:2], stock.timesteps[0], x[1:2]).prev_sample
    torch.testing.assert_close(found, z[1:2])


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 0.5)])
def test_times_of_a_flow_are_logit_normal(mean: float, std: float) -> None:
    config = PaintConfig(logit_mean=mean, logit_std=std)
    times = FlowObjective(config).times(uniform_times(0, list(range(4096))))
    assert times.dtype == torch.float32 and times.min() > 0 and times.max() < 1
    assert kstest(torch.logit(times.double()).numpy(), norm(mean, std).cdf).statistic < 0.01


# Stable Diffusion's schedule


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_noise_and_targets_are_those_of_the_stock_scheduler(kind: str) -> None:
    stock = scheduler(kind)
    objective = objective_of(SD1, stock, kind)
    z, noise = pair(5)
    t = torch.tensor([0.0, 1, 500, 998, 999])
    x, steps, target, _ = objective.noisy(z, noise, t)
    assert torch.equal(steps, t.long())
    torch.testing.assert_close(x, stock.add_noise(z, noise, steps))
    torch.testing.assert_close(target, noise if kind == "epsilon" else stock.get_velocity(z, noise, steps))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_weights_are_min_snrs(kind: str) -> None:
    """By diffusers' `compute_snr` as its training scripts weigh; and by the paper: both losses are then min(SNR, 5)
    times the squared error of the latents that a prediction stands for."""
    stock = scheduler(kind)
    steps = torch.arange(1000)
    z, noise = pair(1000, 1)
    x, _, target, weight = objective_of(SD1, stock, kind).noisy(z, noise, steps.float())
    snr = compute_snr(stock, steps)
    scripts = torch.minimum(snr, torch.tensor(5.0)) / (snr if kind == "epsilon" else snr + 1)
    torch.testing.assert_close(weight, scripts)
    assert weight.min() < 0.1 * weight.max()

    a = stock.alphas_cumprod.double()[:, None, None, None]
    x, target = x.double(), target.double()
    off = target + 0.01

    def latents(said: Tensor) -> Tensor:
        return (x - (1 - a).sqrt() * said) / a.sqrt() if kind == "epsilon" else a.sqrt() * x - (1 - a).sqrt() * said

    torch.testing.assert_close(latents(target), z.double(), rtol=1e-4, atol=1e-4)
    loss = weight.double() * (off - target).square().mean((1, 2, 3))
    paper = snr.double().clamp(max=5.0) * (latents(off) - latents(target)).square().mean((1, 2, 3))
    torch.testing.assert_close(loss, paper, rtol=1e-4, atol=1e-12)


def test_without_min_snr_all_times_weigh_the_same() -> None:
    objective = objective_of(dataclasses.replace(SD1, min_snr=0.0), scheduler(), "epsilon")
    assert torch.equal(objective.noisy(*pair(3), torch.tensor([0.0, 500, 999]))[3], torch.ones(3))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_last_step_without_signal_is_finite(kind: str) -> None:
    """Schedules with zero terminal SNR (arXiv 2305.08891)."""
    objective = objective_of(SD1, scheduler(kind, rescale_betas_zero_snr=True), kind)
    weight = objective.noisy(*pair(1), torch.tensor([999.0]))[3]
    assert weight.isfinite().all()


def test_steps_of_a_schedule_are_even_and_all_of_it() -> None:
    objective = objective_of(SD1, scheduler(), "epsilon")
    steps = objective.times(uniform_times(3, list(range(64_000))))
    counts = torch.bincount(steps.long(), minlength=1000)
    assert len(counts) == 1000 and counts.min() > 50 and counts.max() < 78
    assert objective.times(torch.tensor([0.0, 1 - 1e-6], dtype=torch.float64)).tolist() == [0, 999]


def test_the_class_follows_from_what_the_denoiser_predicts() -> None:
    assert isinstance(objective_of(SD1, scheduler(), "flow"), FlowObjective)
    assert isinstance(objective_of(PaintConfig(), scheduler(), "epsilon"), DiffusionObjective)
    with pytest.raises(vw.ConfigError, match="predicts 'sample' cannot be trained here; take one for") as caught:
        objective_of(SD1, scheduler(), "sample")
    assert "\n" not in str(caught.value)


# Random choices


def test_times_are_even_in_every_batch() -> None:
    """Of 16 images in a row none are close: the sequence's discrepancy is far below that of random numbers."""
    for start in (0, 16, 1_000_000, 2**31 - 8):
        times = np.sort(uniform_times(0, list(range(start, start + 16))).numpy())
        gaps = np.diff(np.concatenate([times, times[:1] + 1]))
        if start != 2**31 - 8:
            assert gaps.max() < 2.7 / 16 and gaps.min() > 0.3 / 16
        assert ((times > 0) & (times < 1)).all()
    chance = np.sort(np.random.default_rng(0).random(16))
    assert np.diff(chance).min() < 0.3 / 16


def test_times_and_dropout_are_functions_of_seed_and_counter() -> None:
    whole = uniform_times(1, list(range(40)))
    assert torch.equal(torch.cat([uniform_times(1, [i]) for i in range(40)]), whole)
    assert not torch.equal(uniform_times(2, list(range(40))), whole)
    dropped = [is_dropped(1, i, 0.5) for i in range(64)]
    assert dropped == [is_dropped(1, i, 0.5) for i in range(64)]
    assert dropped != [is_dropped(2, i, 0.5) for i in range(64)]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_the_share_of_images_without_words(share: float) -> None:
    """Within four standard errors, and whatever their times."""
    n = 4000
    dropped = np.array([is_dropped(0, i, share) for i in range(n)])
    assert abs(dropped.mean() - share) <= 4 * (share * (1 - share) / n) ** 0.5
    if share:
        times = uniform_times(0, list(range(n))).numpy()
        assert abs(np.corrcoef(times, dropped)[0, 1]) < 4 / n**0.5
