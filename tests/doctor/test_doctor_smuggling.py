"""Smuggling: sensitivities with a known Jacobian, cells with a known influence, and spikes that are planted in a real
network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from patients import linear, patient, photos_patient
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.doctor.finding import NotExamined
from vaeworks.doctor.measures.occlusion import (
    concentration,
    decoder_gradient,
    encoder_gradient,
    energy_radius,
    influence,
    occluded,
    of_gaussian,
    outlier,
    window,
)
from vaeworks.doctor.measures.sensitivity import covariances, explained, sensitivity, slope
from vaeworks.doctor.panels.smuggling import examine

SPIKE = 50.0


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_sensitivity_is_the_squared_jacobian() -> None:
    """Of a small decoder with a nonlinearity, against all of its derivatives."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.SiLU(), nn.ConvTranspose2d(6, 3, 4, 4)).requires_grad_(False)
    z = normal(1, 3, 4, 4)
    exact = torch.autograd.functional.jacobian(net, z).square().sum((0, 1, 2, 3))[0]
    halves = sensitivity(net, z, 600)
    assert torch.allclose(halves.mean(0), exact, rtol=0.25)
    assert not torch.equal(halves[0], halves[1])


def test_sensitivity_of_a_linear_decoder_in_closed_form() -> None:
    """Each latent paints a square of its own with weights w: ||J||^2 is the sum of w^2, whatever the latents."""
    w = torch.tensor([0.5, 2.0])[:, None, None, None] * torch.ones(2, 3, 4, 4)
    halves = sensitivity(lambda z: torch.nn.functional.conv_transpose2d(z, w, stride=4), normal(1, 2, 24, 24), 16)
    assert halves.mean((0, 2, 3)).tolist() == pytest.approx([48 * 0.25, 48 * 4.0], rel=0.05)


def test_the_slope_is_free_of_the_probes_noise() -> None:
    """Where log-variance is -ln ||J||^2 exactly, three probes a half give -1 and R^2 1; regression on their mean would
    be too flat."""
    truth = normal(16, 32, 32)
    halves = truth.exp() * torch.stack([normal(3, 16, 32, 32, seed=i).square().mean(0) for i in (1, 2)])
    rows = np.array([covariances(-truth, halves)])
    assert slope(rows) == pytest.approx(-1, abs=0.03) and explained(rows) == pytest.approx(1, abs=0.03)
    noisy = halves.mean(0).log()
    naive = float(((noisy - noisy.mean()) * -truth).mean() / noisy.var())
    assert naive > -0.9
    unrelated = np.array([covariances(normal(16, 32, 32, seed=9), halves)])
    assert abs(slope(unrelated)) < 0.03 and explained(unrelated) < 0.01


def test_slopes_that_cannot_be_measured_are_nan() -> None:
    assert math.isnan(covariances(torch.zeros(1, 4, 4), torch.zeros(2, 1, 4, 4))[0])
    assert math.isnan(slope(np.array([[0.0, 0.0, 1.0]]))) and explained(np.array([[0.0, 1.0, 0.0]])) == 0


def test_an_occluded_cell_is_the_mean_of_its_neighbours() -> None:
    z = torch.arange(25.0).reshape(1, 1, 5, 5) ** 2
    inside, corner = occluded(z, (2, 3)), occluded(z, (0, 0))
    neighbours = [float(z[0, 0, r, c]) for r in (1, 2, 3) for c in (2, 3, 4) if (r, c) != (2, 3)]
    assert float(inside[0, 0, 2, 3]) == pytest.approx(np.mean(neighbours))
    assert float(corner[0, 0, 0, 0]) == pytest.approx(float(z[0, 0, 0, 1] + z[0, 0, 1, 0] + z[0, 0, 1, 1]) / 3)
    assert int((inside != z).sum()) == 1


def test_influence_of_known_changes() -> None:
    """One gray level everywhere, and a square in the cell alone."""
    everywhere = influence(torch.full((3, 64, 64), 1 / 127.5), (3, 4), 8)
    assert everywhere.far == pytest.approx(1) and everywhere.total == pytest.approx(3 * 64 * 64)
    assert everywhere.nonlocal_share == pytest.approx(1 - 24 * 24 / 64**2)
    change = torch.zeros(3, 64, 64)
    change[:, 24:32, 32:40] = 1
    local = influence(change, (3, 4), 8)
    assert local.nonlocal_share == 0 and local.far == 0
    assert local.radius_95 <= 4 * math.sqrt(2) and local.radius_50 < local.radius_95
    assert int(window((64, 64), (0, 0), 8).sum()) == 16 * 16


def test_radius_of_a_disc() -> None:
    """Half the energy of a uniform disc of radius 20 is within 20/sqrt 2."""
    rows, columns = (torch.arange(64.0) - 31.5 for _ in range(2))
    disc = (torch.hypot(rows[:, None], columns) <= 20).double()
    assert energy_radius(disc, (31.5, 31.5), 0.5) == pytest.approx(20 / math.sqrt(2), abs=0.4)
    assert math.isnan(energy_radius(torch.zeros(4, 4), (0, 0), 0.5))


def test_outliers_and_concentration_of_known_maps() -> None:
    maps = torch.ones(2, 10, 10)
    maps[1, 4, 4] = 101.0
    assert outlier(maps).tolist() == [1, 101]
    assert concentration(maps).tolist() == pytest.approx([0.01, 101 / 200])
    assert math.isnan(float(outlier(torch.zeros(1, 4, 4)))) and math.isnan(float(concentration(torch.zeros(1, 4, 4))))
    found = normal(1, 64, 32, 32, seed=5).square().sum(1)
    assert of_gaussian(64, 32, 32) == pytest.approx(
        (float(outlier(found.sqrt())), float(concentration(found))), rel=0.1
    )


def test_gradients_reach_as_far_as_the_convolutions() -> None:
    """A cell of a linear transform's latents depends on the pixels that its matrix has: none beyond."""
    vae = linear()
    x = photos_patient(vae, count=1).images([0])
    assert energy_radius(encoder_gradient(vae, x, (4, 4))[0], (35.5, 35.5), 0.95) < 12
    z = vae.encode(x).mean
    energy = decoder_gradient(vae, z, (4, 4), 8).sum(0)
    assert divmod(int(energy.argmax()), 8) == (4, 4)


def smuggler(spike: float = SPIKE, reads: bool = True) -> vw.Autoencoder:
    """A VAE whose encoder writes a spike into one cell, from whose height the decoder takes the picture's colour."""
    vae = linear()

    def write(_: nn.Module, __: object, moments: Tensor) -> Tensor:
        moments = moments.clone()
        moments[:, 0, 3, 5] = spike
        return moments

    def read(_: nn.Module, inputs: tuple[Tensor], picture: Tensor) -> Tensor:
        return picture + 0.01 * (inputs[0][:, :1].amax((2, 3), keepdim=True) - spike)

    vae.encoder.register_forward_hook(write)
    if reads:
        vae.decoder.register_forward_hook(read)
    return vae


def test_a_planted_spike_is_found_and_a_sound_network_cleared() -> None:
    """The plant alone flips the verdict, and the cell that acts far away is the planted one."""
    sound, ill = (
        examine(photos_patient(linear(), count=2, size=96)),
        examine(photos_patient(smuggler(), count=2, size=96)),
    )
    assert sound.verdict == "healthy", sound.sentence
    assert ill.verdict == "ill" and ill.remedy, ill.sentence
    assert ill.figures["far_worst"].value > 20 > 1 > sound.figures["far_worst"].value
    assert ill.figures["norm_fixed"].value > 5 > 2 > sound.figures["norm_fixed"].value
    assert ill.pictures and "worst cell" in ill.sentence


def test_a_spike_that_the_decoder_does_not_read_is_watched() -> None:
    """It is an outlier of norm; the picture far away does not depend on it."""
    found = examine(photos_patient(smuggler(reads=False), count=2, size=96))
    assert found.verdict == "watch" and found.figures["norm_outlier"].value > 8, found.sentence


def test_log_variances_at_the_clamp_are_counted() -> None:
    logvar = torch.full((2, 4, 8, 8), -5.0)
    logvar[:, 0, :2] = -30.0
    found = examine(patient(normal(2, 4, 8, 8), logvar))
    assert found.figures["logvar_floor"].value == pytest.approx(16 / 256) and found.figures["logvar"].value == -5
    assert examine(patient(normal(2, 4, 8, 8), torch.full((2, 4, 8, 8), -30.0))).figures["logvar_floor"].value == 1


@pytest.mark.parametrize("c", [1, 64])
def test_points_have_no_log_variance(c: int) -> None:
    found = examine(patient(normal(1, c, 8, 8)))
    assert "logvar" not in found.figures and found.figures["radius_95"].value > 0
    assert math.isnan(found.figures["norm_outlier"].low)


def test_what_cannot_be_examined() -> None:
    with pytest.raises(NotExamined, match="40 px"):
        examine(patient(normal(2, 4, 4, 4)))
    vae = linear()
    vae.decoder.conv_out.bias.fill_(math.nan)
    assert examine(photos_patient(vae, count=1)).verdict == "ill"
    broken = normal(2, 4, 8, 8)
    broken[0] = math.inf
    assert examine(patient(broken)).verdict == "ill"


def test_the_same_twice() -> None:
    seen = photos_patient(linear(), count=2, size=48)
    assert examine(seen) == examine(seen)
