"""Noise and smoothness: codecs whose noise, casts, gains and drift are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from patients import linear, patient, photos_patient
from torch import Tensor

import vaeworks as vw
from vaeworks.doctor.finding import NotExamined
from vaeworks.doctor.measures.smoothness import (
    LEVELS,
    area,
    contrast_gain,
    cycle,
    gradient_energy,
    lerp,
    level_of_loss,
    noise_errors,
    psnr,
    slerp,
)
from vaeworks.doctor.panels.noise import examine
from vaeworks.models.posterior import Posterior


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Shuffled(vw.Autoencoder):
    """An identity: latents are the pixels of 8 x 8 squares, whose decoder may have a gain and a cast in gray levels."""

    def __init__(
        self, gain: float = 1.0, cast: tuple[float, float, float] = (0.0, 0.0, 0.0), power: float = 1.0
    ) -> None:
        super().__init__(vw.build("small-f8c4", latent_channels=192).config)
        self.gain, self.cast, self.power = gain, cast, power

    def encode(self, images: Tensor, *, pad: bool = False) -> Posterior:
        return Posterior.point(F.pixel_unshuffle(images, 8))

    def decode(self, latents: Tensor) -> Tensor:
        cast = torch.tensor(self.cast)[:, None, None] / 127.5
        return self.gain * F.pixel_shuffle(latents, 8) + cast


def gray(size: int = 64) -> Tensor:
    """An image of low contrast: nothing is clamped."""
    return (0.1 * normal(1, 3, size, size)).clamp(-0.5, 0.5)


def test_errors_under_noise_in_closed_form() -> None:
    """Of a linear decoder with gain g: (s g)^2 times the variance of the latents' noise, on top of what decoding loses
    anyway."""
    codec, x = Shuffled(gain=0.8), gray()
    z, std = codec.encode(x).mean, torch.full((192, 1, 1), 0.2)
    against, own, pictures = noise_errors(codec.decode, z, x, std, 0)
    assert torch.equal(pictures[0], codec.decode(z))
    expected = np.array([(0.8 * s * 0.2) ** 2 for s in LEVELS])
    np.testing.assert_allclose(own, expected, rtol=0.05, atol=1e-12)
    np.testing.assert_allclose(against, expected + 0.2**2 * float(x.square().mean()), rtol=0.05)
    assert level_of_loss(against) == pytest.approx(math.sqrt(0.995 * against[0]) / 0.16, rel=0.05)


def test_levels_areas_and_decibels() -> None:
    """MSE 1 + 100 s^2 doubles at s = 0.1; a curve that does not fall ends at the last level."""
    errors = np.array([1 + 100 * s**2 for s in LEVELS])
    assert level_of_loss(errors, 10 * math.log10(2)) == pytest.approx(0.1)
    assert level_of_loss(errors, 10 * math.log10(3)) == pytest.approx(math.sqrt(0.02))
    assert level_of_loss(np.ones(len(LEVELS))) == LEVELS[-1]
    assert psnr(np.array([4.0, 0.04, 0.0])).tolist() == pytest.approx([0, 20, 100])
    assert area(np.array([10 - 10 * s for s in LEVELS])) == pytest.approx(6)


def test_middles() -> None:
    """On the sphere the middle is as long as the ends; on the line it is shorter by sqrt 2; scales of channels make no
    difference."""
    a, b = normal(1, 4, 16, 16), normal(1, 4, 16, 16, seed=1)
    zero, one = torch.zeros(4, 1, 1), torch.ones(4, 1, 1)
    assert float(slerp(a, b, zero, one).norm()) == pytest.approx(float((a.norm() + b.norm()) / 2), rel=1e-5)
    assert float(lerp(a, b).norm()) == pytest.approx(float(a.norm()) / math.sqrt(2), rel=0.05)
    scale = torch.tensor([1.0, 2, 3, 40])[:, None, None]
    assert torch.allclose(
        slerp(a * scale + 5, b * scale + 5, zero + 5, scale), slerp(a, b, zero, one) * scale + 5, atol=1e-4
    )
    assert torch.allclose(slerp(a, a, zero, one), a, atol=1e-6)


def test_detail_of_mixed_noise_is_half() -> None:
    x, y = 0.1 * normal(1, 3, 64, 64), 0.1 * normal(1, 3, 64, 64, seed=1)
    assert gradient_energy(x) == pytest.approx(0.02, rel=0.05)
    assert gradient_energy((x + y) / 2) == pytest.approx(0.01, rel=0.05)


def test_rounds_of_an_identity_change_nothing() -> None:
    codec = Shuffled()
    x = (gray() * 127.5).round() / 127.5 + 0.5 / 127.5  # on the grid of 8 bits
    seen = cycle(lambda x: codec.encode(x).mean, codec.decode, x, torch.ones(192, 1, 1), 3)
    assert seen.errors.max() < 1e-10 and seen.drift.max() < 1e-5 and np.abs(seen.colour).max() < 1e-6
    assert seen.gain == pytest.approx([1, 1, 1])


def test_rounds_add_casts_and_multiply_gains() -> None:
    """A cast of 4, 0 and -3 gray levels adds up; contrast is g^k."""
    cast, faded = Shuffled(cast=(4, 0, -3)), Shuffled(gain=0.9)
    std = torch.ones(192, 1, 1)
    seen = cycle(lambda x: cast.encode(x).mean, cast.decode, gray(), std, 3)
    np.testing.assert_allclose(seen.colour[:, :3], np.outer([1, 2, 3], [4, 0, -3]), atol=0.1)
    assert seen.drift == pytest.approx([k * math.sqrt(25 / 3) / 127.5 for k in (1, 2, 3)], rel=0.02)
    seen = cycle(lambda x: faded.encode(x).mean, faded.decode, gray(), std, 3)
    assert seen.gain == pytest.approx([0.9] * 3, abs=0.02)
    assert contrast_gain(gray(), 0.5 * gray() + 0.2) == pytest.approx(0.5)
    assert contrast_gain(torch.zeros(1, 3, 8, 8), gray(8)) == 1


@pytest.mark.parametrize(
    ("codec", "verdict", "word"),
    [
        (Shuffled(), "healthy", "colour"),
        (Shuffled(cast=(9, 9, 9)), "ill", "colour"),
        (Shuffled(cast=(4, 4, 4)), "watch", "colour"),
        (Shuffled(gain=0.75), "ill", "contrast"),
        (Shuffled(gain=-1), "ill", "mean colour"),
    ],
)
def test_casts_and_gains_flip_the_verdict(codec: vw.Autoencoder, verdict: str, word: str) -> None:
    found = examine(photos_patient(codec, count=3))
    assert found.verdict == verdict and word in found.sentence, found.sentence
    assert bool(found.remedy) == (verdict != "healthy")
    if verdict == "healthy":
        assert found.figures["amplification"].value == pytest.approx(1, abs=0.15)
        assert found.figures["again_slerp"].value < 0.3 and found.figures["colour"].value < 0.1


def test_a_network() -> None:
    seen = photos_patient(linear(), count=3)
    found = examine(seen)
    assert found == examine(seen) and found.verdict != "ill", found.sentence
    assert len(found.pictures) == 3 and found.figures["three_db"].value < found.figures["area"].value


def test_untrained_weights_are_not_called_healthy() -> None:
    torch.manual_seed(0)
    found = examine(photos_patient(vw.build("small-f8c4").eval().requires_grad_(False), count=2))
    assert found.verdict == "ill" and "mean colour" in found.sentence


@pytest.mark.parametrize("c", [1, 64])
def test_one_image_has_no_midpoint(c: int) -> None:
    found = examine(patient(normal(1, c, 8, 8)))
    assert "again_slerp" not in found.figures and math.isnan(found.figures["psnr"].low)


def test_gray_images_have_lightness_alone() -> None:
    found = examine(photos_patient(linear(in_channels=1, out_channels=1), count=1))
    assert "colour_L" in found.figures and "colour_a" not in found.figures


def test_images_of_one_colour_each_are_not_examined_and_one_among_others_changes_nothing() -> None:
    """The mean colour of a plain image is exact: compared in dB it would condemn the sound codec of the other ones."""
    plain = (
        torch.full((3, 3, 64, 64), 90, dtype=torch.uint8)
        * torch.tensor([1, 2, 0], dtype=torch.uint8)[:, None, None, None]
    )
    with pytest.raises(NotExamined, match="one single colour"):
        examine(patient(normal(3, 192, 8, 8), vae=Shuffled(), pixels=plain))
    mixed = torch.cat([plain[:1], ((gray() + 1) * 127.5).to(torch.uint8)])
    found = examine(patient(normal(2, 192, 8, 8), vae=Shuffled(gain=0.97), pixels=mixed))
    assert found.figures["floor"].value > found.figures["psnr"].value and found.verdict != "ill", found.sentence


def test_broken_decoders_are_ill() -> None:
    vae = linear()
    vae.decoder.conv_out.bias.fill_(math.nan)
    assert examine(photos_patient(vae, count=1)).verdict == "ill"
