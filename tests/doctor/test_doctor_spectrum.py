"""Spectrum of the latents: white noise, power laws, constants and checkerboards, whose spectra are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft
import torch
from patients import linear, patient, photos_patient
from torch import Tensor

from vaeworks.doctor.finding import NotExamined
from vaeworks.doctor.panels.spectrum import examine, measure_spectra, slope
from vaeworks.losses.spectrum import radial_spectrum
from vaeworks.metrics.dct import block_amplitudes, dct2, flatness, high_share, white_ceiling, zigzag


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def field(exponent: float, n: int = 24, c: int = 2, side: int = 32) -> Tensor:
    """Gaussian fields with power ~ frequency^exponent, n c h w."""
    frequency = torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side))
    frequency[0, 0] = 1 / side
    return torch.fft.irfft2(torch.fft.rfft2(normal(n, c, side, side)) * frequency ** (exponent / 2), (side, side))


def test_the_dct_is_scipys() -> None:
    x = normal(2, 3, 8, 12).double()
    np.testing.assert_allclose(dct2(x).numpy(), scipy.fft.dctn(x.numpy(), axes=(2, 3), norm="ortho"), atol=1e-12)
    blocks = normal(1, 1, 16, 24)
    amplitudes = [
        np.abs(scipy.fft.dctn(blocks[0, 0, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8].numpy(), norm="ortho"))
        for i in range(2)
        for j in range(3)
    ]
    order = [np.mean(amplitudes, 0)[u, v] for u, v in zigzag()]
    np.testing.assert_allclose(block_amplitudes(blocks)[0].numpy(), order, rtol=1e-5)


def test_the_zigzag_is_jpegs() -> None:
    """The first places and the last of ITU-T T.81, figure A.6."""
    order = [8 * u + v for u, v in zigzag()]
    assert order[:15] == [0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4] and order[-3:] == [55, 62, 63]
    assert sorted(order) == list(range(64))


@pytest.mark.parametrize(("side", "quarter", "half"), [(8, 0.844, 0.438), (16, 0.859, 0.469), (32, 0.867, 0.484)])
def test_the_ceiling_is_that_of_white_noise(side: int, quarter: float, half: float) -> None:
    """The published figures, and the measured share of white noise."""
    assert white_ceiling(side, side, 0.25) == pytest.approx(quarter, abs=6e-4)
    assert white_ceiling(side, side, 0.5) == pytest.approx(half, abs=6e-4)
    energy = dct2(normal(4096, side, side).double()[: 400000 // side**2]).square().mean(0).numpy()
    assert high_share(energy, 0.25) == pytest.approx(quarter, abs=0.01)


def test_shares_of_constants_and_checkerboards() -> None:
    """A constant has all its energy in the mean, a checkerboard nearly all at the highest frequency; nothing has
    none."""
    board = torch.ones(16, 16)
    board[::2, ::2], board[1::2, 1::2] = -1, -1
    energies = [dct2(x.double()).square().numpy() for x in (torch.ones(16, 16), board, torch.zeros(16, 16))]
    assert high_share(energies[0], 0.25) == pytest.approx(0)
    assert high_share(energies[1], 0.5) > 0.97
    assert math.isnan(high_share(energies[2], 0.5)) and math.isnan(flatness(energies[2], 5))


@pytest.mark.parametrize("samples", [1, 3, 20])
def test_flatness_of_white_noise_is_1_however_few_the_samples(samples: int) -> None:
    """Uncorrected it would be 0.28, 0.73 and 0.95."""
    energy = dct2(normal(samples, 128, 128).double()).square().mean(0).numpy()
    assert flatness(energy, samples) == pytest.approx(1, abs=0.03)
    known = np.array([[1.0, 4.0]])
    assert flatness(known, 10**9) == pytest.approx(2 / 2.5)


@pytest.mark.parametrize("exponent", [0.0, -1.0, -2.0, -3.0])
def test_the_slope_of_a_power_law_is_its_exponent(exponent: float) -> None:
    power, frequencies = radial_spectrum(field(exponent))
    assert slope(power.double().numpy(), frequencies.double().numpy(), 32) == pytest.approx(exponent, abs=0.12)


def test_slopes_that_cannot_be_measured_are_nan() -> None:
    power, frequencies = radial_spectrum(torch.zeros(1, 1, 16, 16))
    assert math.isnan(slope(power.numpy(), frequencies.numpy(), 16))


def test_white_latents_are_ill_and_smooth_ones_healthy() -> None:
    """The field alone decides."""
    pixels = torch.randint(0, 256, (24, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    white, smooth = (examine(patient(field(exponent), pixels=pixels)) for exponent in (0.0, -2.5))
    assert white.verdict == "ill" and smooth.verdict == "healthy", (white.sentence, smooth.sentence)
    for name in ("sec_0.25", "sec_0.5"):
        assert white.figures[name].value == pytest.approx(white_ceiling(32, 32, float(name[4:])), abs=0.02)
    assert white.figures["flatness"].value == pytest.approx(1, abs=0.02) and smooth.figures["flatness"].value < 0.5
    assert white.figures["slope"].low - 0.05 < 0 < white.figures["slope"].high + 0.05
    assert smooth.figures["slope"].value == pytest.approx(-2.5, abs=0.2)
    profile = dict(white.curves[1].lines)
    assert min(y for _, y in profile["latents"]) > 0.9 and max(y for _, y in profile["latents"]) < 1.1
    assert white.remedy and not smooth.remedy and white.dispute


@pytest.mark.parametrize("offset", [1.0, 3.0, 10.0])
def test_white_latents_with_means_of_their_own_are_ill(offset: float) -> None:
    """The mean of an image is no neighbour: it takes energy from all frequencies alike, and hides nothing."""
    z = normal(24, 4, 16, 16) + offset * normal(24, 4, 1, 1)
    found = examine(patient(z))
    assert found.verdict == "ill", found.sentence
    assert found.figures["sec_varied"].value == pytest.approx(white_ceiling(16, 16, 0.25) * 256 / 255, abs=0.02)


def test_scale_and_dead_channels_change_nothing() -> None:
    """Channels are standardized; one that carries nothing, and is noise at that, is left out."""
    smooth = field(-2.5, c=2)
    mixed = torch.cat([smooth * torch.tensor([1.0, 30.0])[:, None, None] + 5, 1e-3 * normal(24, 1, 32, 32)], 1)
    pixels = torch.zeros(24, 3, 256, 256, dtype=torch.uint8)
    pixels[:, :, :99] = 255
    first, second = (measure_spectra(patient(x, pixels=pixels), list(range(24))) for x in (smooth, mixed))
    assert second.alive == [0, 1]
    np.testing.assert_allclose(second.energy, first.energy, rtol=1e-3, atol=1e-6)


def test_constant_latents_few_images_and_small_ones() -> None:
    with pytest.raises(NotExamined, match="one number"):
        examine(patient(torch.ones(2, 1, 8, 8)))
    assert math.isnan(examine(patient(normal(1, 64, 8, 8))).figures["sec_0.25"].low)
    with pytest.raises(NotExamined, match="64 px"):
        examine(patient(normal(2, 4, 4, 4)))
    broken = normal(2, 4, 8, 8)
    broken[0, 0, 0, 0] = math.nan
    assert examine(patient(broken)).verdict == "ill"


def test_photographs_through_a_vae() -> None:
    seen = photos_patient(linear(), size=128)
    found = examine(seen)
    assert found == examine(seen) and found.verdict in ("healthy", "watch"), found.sentence
    assert found.figures["image_slope"].value < found.figures["slope"].value < 0 and found.pictures
