"""Scale and shape of the latents: moments, tails, ranks and scaling factors that are known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from patients import linear, patient, photos_patient

import vaeworks as vw
from vaeworks.doctor.finding import NotExamined
from vaeworks.doctor.measures.capacity import measure_channels
from vaeworks.doctor.measures.channel_moments import (
    ChannelMoments,
    Gathering,
    condition_number,
    correlation,
    effective_rank,
    interval,
    jackknifed,
)
from vaeworks.doctor.measures.gaussianity import floor, sliced_wasserstein
from vaeworks.doctor.panels.scale import examine
from vaeworks.intervals import bootstrap, jackknife, quantile
from vaeworks.metrics.dead_channels import DEAD_NATS


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scaled(scale: float, shift: float = 0.0, c: int = 4, **more: object) -> vw.Autoencoder:
    vae = vw.build("small-f8c4", latent_channels=c).eval().requires_grad_(False)
    vae.config = dataclasses.replace(vae.config, scaling_factor=scale, shift_factor=shift, **more)
    return vae


@given(st.integers(1, 7), st.integers(1, 4), st.floats(-1e3, 1e3))
def test_moments_of_parts_are_those_of_the_whole(images: int, groups: int, far: float) -> None:
    """Merged in any grouping, against numpy and scipy, far from 0 as well."""
    x = normal(images, 3, 4, 5).exp() + far
    gathering = Gathering(groups)
    gathering.add(x)
    found, flat = gathering.sets.pooled(), x.double().movedim(1, -1).reshape(-1, 3).numpy()
    assert found.count[0] == len(flat) and len(gathering.sets.count) == min(groups, images)
    np.testing.assert_allclose(found.mean[0], flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(flat.T, bias=True), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.kurtosis, scipy.stats.kurtosis(flat), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.overall, (flat.mean(), flat.std()), rtol=1e-12)


def test_rank_condition_and_correlation_of_known_covariances() -> None:
    assert effective_rank(np.eye(6)) == pytest.approx(6)
    assert effective_rank(np.ones((4, 4))) == pytest.approx(1)
    assert effective_rank(np.diag([3.0, 1.0])) == pytest.approx(16 / 10)
    assert condition_number(np.diag([8.0, 2.0])) == pytest.approx(4)
    assert condition_number(np.diag([1.0, 0.0])) == math.inf and math.isnan(condition_number(np.zeros((2, 2))))
    np.testing.assert_allclose(
        correlation(np.array([[4.0, 1.0, 0], [1.0, 1.0, 0], [0, 0, 0]])), [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 0]]
    )


def test_the_jackknife_of_a_mean_is_the_textbook_standard_error() -> None:
    x = np.random.default_rng(0).normal(size=40)
    found = jackknife(x.mean(), [np.delete(x, i).mean() for i in range(40)])
    assert found.high - found.low == pytest.approx(2 * quantile(40) * x.std(ddof=1) / math.sqrt(40))


def test_intervals_over_sets_of_images_are_those_over_images() -> None:
    gathering, images = Gathering(), [normal(1, 2, 3, 3, seed=i) * (1 + i / 5) + i for i in range(20)]
    for image in images:
        gathering.add(image)
    means = [float(image.mean()) for image in images]
    direct = bootstrap(means)
    found = interval(gathering.sets, lambda m: m.overall[0])
    assert (found.value, found.low, found.high) == pytest.approx((direct.value, direct.low, direct.high), abs=1e-5)


def test_the_rank_of_white_channels_is_inside_its_interval() -> None:
    """Resampled images would be alike, and their rank too low: 64 channels of few images."""
    gathering = Gathering()
    gathering.add(normal(12, 16, 8, 8))
    found = jackknifed(gathering.sets, lambda m: effective_rank(m.covariance))
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(16, rel=0.05)


def test_sliced_wasserstein_of_shifted_and_scaled_normals() -> None:
    """A shift m costs m / sqrt(d), a scale s |s - 1|, nothing costs the floor."""
    x = normal(4000, 3)
    assert sliced_wasserstein(x) < 2 * floor(4000, 3)
    assert sliced_wasserstein(x + torch.tensor([0.9, 0.0, 0.0])) == pytest.approx(0.9 / math.sqrt(3), rel=0.05)
    assert sliced_wasserstein(1.5 * x) == pytest.approx(0.5, rel=0.05)
    assert floor(100, 3) > 3 * floor(4000, 3)


def test_the_scaling_factor_is_one_over_the_standard_deviation_of_samples() -> None:
    """Stable Diffusion's: a standard deviation of 5.49, part of it the posterior's own, gives 0.182; the interval has
    the truth."""
    mean = 0.5 + 4.49 * normal(48, 4, 8, 8)
    logvar = torch.full_like(mean, 2 * math.log(math.sqrt(5.49**2 - 4.49**2)))
    found = examine(patient(mean, logvar, scaled(0.18215, 0.5)))
    factor, rms = found.figures["scaling_factor"], found.figures["rms"]
    assert factor.low < 1 / 5.49 < factor.high and factor.value == pytest.approx(0.18215, rel=0.02)
    assert found.figures["shift_factor"].low < 0.5 < found.figures["shift_factor"].high
    assert rms.value == pytest.approx(1, rel=0.02)
    assert "0.18215" in found.meaning and f"{factor.value:.4g}" in found.meaning


@pytest.mark.parametrize(
    ("scale", "verdict"),
    [(0.2, "healthy"), (0.2 * 1.5, "watch"), (0.13, "watch"), (0.4, "ill"), (0.1, "ill"), (1.0, "ill")],
)
def test_the_configuration_alone_decides_about_the_scale(scale: float, verdict: str) -> None:
    found = examine(patient(5 * normal(8, 4, 8, 8), torch.full((8, 4, 8, 8), -4.0), scaled(scale)))
    assert found.verdict == verdict, found.sentence
    right = f"{found.figures['scaling_factor'].value:.4g}"
    assert float(right) == pytest.approx(0.2, rel=0.05)
    assert (f"should be {right}" in found.sentence and f"scaling_factor {right}" in found.remedy) == (
        verdict != "healthy"
    )


def test_a_mirrored_latent_space_is_as_good() -> None:
    """A negative scaling factor of the right size is healthy; of another one, the advice keeps its sign."""
    latents = 5 * normal(8, 4, 8, 8)
    assert examine(patient(latents, vae=scaled(-0.2))).verdict == "healthy"
    found = examine(patient(latents, vae=scaled(-1.0)))
    factor = found.figures["scaling_factor"]
    right = f"{factor.value:.4g}"
    assert (
        found.verdict == "ill" and f"should be {right}" in found.sentence and f"scaling_factor {right}" in found.remedy
    )
    assert factor.value == pytest.approx(-0.2, rel=0.05)
    assert factor.low < factor.value < factor.high < 0


def test_an_unknown_scale_is_not_called_wrong() -> None:
    unknown = patient(5 * normal(8, 4, 8, 8), vae=scaled(1.0))
    unknown.known = False
    found = examine(unknown)
    assert (
        found.verdict == "watch"
        and "does not state" in found.sentence
        and "a guess" in found.figures["scaling_factor"].limit
    )


def test_a_shift_left_out_counts() -> None:
    """Latents of standard deviation 1 about 2 are too large for a diffusion model without their shift."""
    latents = 2 + normal(8, 4, 8, 8)
    assert examine(patient(latents, vae=scaled(1.0, 2.0))).verdict == "healthy"
    assert examine(patient(latents, vae=scaled(1.0, 0.0))).verdict == "ill"


@pytest.mark.parametrize("kind", ["channel", "batchnorm"])
def test_normalization_by_channel_is_judged_by_channel(kind: str) -> None:
    stds = torch.tensor([1.0, 2.0, 4.0, 8.0])
    latents = normal(8, 4, 8, 8) * stds[:, None, None]

    def vae(stds: list[float]) -> vw.Autoencoder:
        if kind == "channel":
            return scaled(1.0, normalization="channel", latents_mean=(0.0,) * 4, latents_std=tuple(stds))
        model = vw.build("small-f8c4", normalization="batchnorm", latents_patch=2).eval().requires_grad_(False)
        model.bn.running_var.copy_(torch.tensor(stds).square().repeat_interleave(4))
        return model

    right = examine(patient(latents, vae=vae(stds.tolist())))
    assert right.verdict == "healthy" and right.figures["channel_std_high"].value == pytest.approx(1, rel=0.1)
    wrong = examine(patient(latents, vae=vae([1.0, 2.0, 4.0, 2.0])))
    assert wrong.verdict != "healthy" and wrong.figures["channel_std_high"].value == pytest.approx(4, rel=0.1)


def test_tails_and_kurtosis_that_are_planted() -> None:
    """Laplace's kurtosis is 3, uniform's -1.2; one latent of 40 sigma is found where it is."""
    mean = normal(32, 3, 16, 16)
    u = torch.rand(32, 16, 16, generator=torch.Generator().manual_seed(1)) - 0.5
    mean[:, 1], mean[:, 2] = -u.sign() * (1 - 2 * u.abs()).log() / math.sqrt(2), u * math.sqrt(12)
    calm = examine(patient(mean))
    assert (
        calm.figures["kurtosis"].value == pytest.approx(3, rel=0.25) and "channel 1" in calm.figures["kurtosis"].label
    )
    assert calm.tables["channels"]["kurtosis"][2] == pytest.approx(-1.2, abs=0.05)
    assert calm.verdict == "healthy", calm.sentence
    mean[3, 0, 5, 5] = 40.0
    wild = examine(patient(mean))
    assert (
        wild.verdict == "watch"
        and "tails" in wild.sentence
        and wild.figures["largest"].value == pytest.approx(40, rel=0.1)
    )
    column = "beyond 5 sigma, in a million"
    assert (
        wild.tables["channels"][column][0] == pytest.approx(1e6 / (32 * 256))
        and calm.tables["channels"][column][0] == 0
    )


def test_channels_that_repeat_others_are_counted_once() -> None:
    x = normal(16, 1, 8, 8)
    found = examine(patient(x.expand(-1, 8, -1, -1) + 0.001 * normal(16, 8, 8, 8, seed=1)))
    assert found.figures["effective_rank"].value == pytest.approx(1, abs=0.01) and found.verdict == "watch"
    assert examine(patient(normal(16, 8, 8, 8))).figures["effective_rank"].value == pytest.approx(8, rel=0.03)


def test_what_channels_carry_is_shannons_capacity_and_kl() -> None:
    """Variance 15 under noise of variance 1 is 2 bits; a posterior that is the prior carries nothing, and neither does
    a constant."""
    mean = normal(64, 3, 8, 8) * torch.tensor([math.sqrt(15), 0.0, 1.0])[:, None, None]
    logvar = torch.tensor([0.0, 0.0, -6.0])[:, None, None].expand(64, 3, 8, 8)
    found = measure_channels(patient(mean, logvar))
    assert found.rate[0] / math.log(2) == pytest.approx(2, rel=0.02)
    assert found.kl.mean(0)[1] == 0 and found.dead.tolist() == [False, True, False]
    noisy = measure_channels(
        patient(
            normal(64, 2, 8, 8) * torch.tensor([1.0, math.sqrt(2 * DEAD_NATS) / 2])[:, None, None],
            torch.zeros(64, 2, 8, 8),
        )
    )
    assert noisy.share[1] > 1e-3 and noisy.dead.tolist() == [False, True]  # by information: of variance it has enough
    points = measure_channels(patient(normal(8, 2, 8, 8) * torch.tensor([1.0, 0.01])[:, None, None]))
    assert points.rate is None and points.dead.tolist() == [False, True]


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("c", [1, 64])
def test_few_images_are_no_error(count: int, c: int) -> None:
    found = examine(patient(normal(count, c, 8, 8), torch.full((count, c, 8, 8), -5.0)))
    assert found.verdict == "healthy", found.sentence
    assert math.isnan(found.figures["rms"].low) == (count == 1)


def test_latents_that_are_no_numbers_and_images_without_content() -> None:
    mean = normal(4, 4, 8, 8)
    mean[1, 2, 3, 4] = math.inf
    found = examine(patient(mean))
    assert found.verdict == "ill" and math.isnan(found.figures["std"].value)
    assert examine(patient(torch.zeros(4, 4, 8, 8))).verdict == "ill"
    with pytest.raises(NotExamined, match="one single colour"):
        examine(patient(torch.zeros(4, 4, 8, 8), pixels=torch.full((4, 3, 64, 64), 7, dtype=torch.uint8)))


def test_two_examinations_are_equal_and_a_sound_vae_is_healthy() -> None:
    seen = photos_patient(linear())
    first, second = examine(seen), examine(seen)
    assert first == second and first.verdict == "healthy", first.sentence
    assert first.pictures and first.curves and len(first.tables["channels"]["std"]) == 4


def test_moments_are_of_sets() -> None:
    sets = ChannelMoments.side_by_side([ChannelMoments.of(normal(1, 2, 3, 3, seed=i)) for i in range(3)])
    assert sets.pooled([0, 0]).count[0] == 18 and sets.widened(np.ones((3, 2))).pooled().std[0] ** 2 == pytest.approx(
        sets.pooled().std[0] ** 2 + 1
    )
