"""Equivariance: encoders that commute with every transformation, and encoders that depend on place and direction."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from patients import linear, patient, photos_patient
from torch import Tensor

import vaeworks as vw
from vaeworks.doctor.finding import NotExamined
from vaeworks.doctor.measures.transforms import SCALES, SHIFTS, TURNS, inner, shifted_image, shifted_latents, smaller
from vaeworks.doctor.panels.equivariance import decoder_pairs, encoder_errors, examine, psnr
from vaeworks.models.posterior import Posterior


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Pooled(vw.Autoencoder):
    """The mean of each 8 x 8 square, which commutes with turns, mirrors, sizes and shifts by 8; places: noise that
    stays in its place."""

    def __init__(self, places: float = 0.0) -> None:
        super().__init__(vw.build("small-f8c4", latent_channels=3).config)
        self.places = places

    def encode(self, images: Tensor, *, pad: bool = False) -> Posterior:
        z = F.avg_pool2d(images, 8)
        return Posterior.point(z + self.places * normal(1, *z.shape[1:]))

    def decode(self, latents: Tensor) -> Tensor:
        return F.interpolate(latents, scale_factor=8, mode="nearest")


def test_means_of_squares_commute_with_everything_but_fractional_shifts() -> None:
    errors = encoder_errors(lambda x: F.avg_pool2d(x, 8), normal(1, 3, 128, 128), 8)
    assert set(errors) == {*SCALES, *TURNS, *SHIFTS}
    for name in {*SCALES, *TURNS, "crop", "shift_1"}:
        assert errors[name] < 1e-10, name
    assert errors["shift_1/2"] > 1e-4


def test_fractional_shifts_of_a_smooth_image_are_nearly_exact() -> None:
    """On a ramp bilinear latents are right."""
    ramp = torch.linspace(-1, 1, 128).expand(1, 3, 128, 128) + torch.linspace(-1, 1, 128)[:, None]
    errors = encoder_errors(lambda x: F.avg_pool2d(x, 8), ramp, 8)
    assert max(errors[name] for name in SHIFTS) < 1e-9


def test_unrelated_latents_have_error_2() -> None:
    """And such as change their sign have 4."""
    calls = iter(range(100))
    errors = encoder_errors(
        lambda x: normal(1, 64, x.shape[-2] // 8, x.shape[-1] // 8, seed=next(calls)), torch.zeros(1, 3, 256, 256), 8
    )
    assert [errors[name] for name in (*TURNS, "crop", "shift_1")] == pytest.approx([2] * 7, rel=0.03)
    assert errors["scale_1/2"] == pytest.approx(1 + 1 / 4, rel=0.05)
    left_less_right = torch.ones(1, 1, 8, 8) / 8
    left_less_right[..., 4:] *= -1
    difference = encoder_errors(lambda x: F.conv2d(x, left_less_right, stride=8), normal(1, 1, 256, 256), 8)
    assert difference["vflip"] < 1e-10 and difference["hflip"] == pytest.approx(4, rel=0.15)


def test_place_dependence_in_closed_form() -> None:
    """Noise of standard deviation p that stays where it is adds 2 p^2 to every turn and shift."""
    errors = encoder_errors(lambda x: Pooled(0.5).encode(x).mean, normal(1, 3, 256, 256), 8)
    assert [errors[n] for n in ("rot_90", "hflip", "shift_1")] == pytest.approx([0.5] * 3, rel=0.15)


def test_transforms() -> None:
    x = torch.arange(64.0).reshape(1, 1, 8, 8)
    assert torch.equal(TURNS["rot_90"](TURNS["rot_270"](x)), x) and torch.equal(TURNS["rot_180"](x), x.flip(-1, -2))
    assert torch.equal(shifted_latents(x, 1.0), x[..., 1:, 1:]) and torch.equal(
        shifted_latents(x, 0.0), x[..., :-1, :-1]
    )
    assert torch.equal(shifted_latents(x, 0.5), x[..., :-1, :-1] + 4.5)
    assert torch.equal(shifted_image(x, 0.5, 4), x[..., 2:6, 2:6])
    assert float(smaller(x, 8)) == 31.5 and inner(x, 3).shape == (1, 1, 2, 2) and inner(x, 0) is x


def test_decoding_transformed_latents() -> None:
    """A decoder of squares commutes with all; one with a fixed pattern does not."""
    codec = Pooled()
    x = F.interpolate(0.2 * normal(1, 3, 16, 16), scale_factor=8, mode="nearest")
    pairs = decoder_pairs(codec.decode, x, codec.encode(x).mean, 8)
    for name in ("rot_90", "hflip", "shift_1"):
        assert psnr(*pairs[name]) > 80, name
    pattern = 0.1 * normal(1, 3, 128, 128, seed=1)

    def patterned(z: Tensor) -> Tensor:
        return codec.decode(z) + pattern[..., : 8 * z.shape[-2], : 8 * z.shape[-1]]

    there, wanted = decoder_pairs(patterned, x, codec.encode(x).mean, 8)["hflip"]
    assert psnr(there, wanted) == pytest.approx(10 * math.log10(4 / 0.01), abs=0.3)


def test_dependence_on_place_flips_the_verdict() -> None:
    sound, planted = (examine(photos_patient(Pooled(p), size=128)) for p in (0.0, 0.4))
    assert sound.verdict == "healthy" and not sound.remedy, sound.sentence
    assert planted.verdict == "ill" and planted.remedy and "one latent" in planted.sentence, planted.sentence
    assert sound.figures["decoder_own_rot_90"].value == pytest.approx(100) and sound.figures[
        "decoder_rot_90"
    ].value == pytest.approx(0, abs=1e-3)


def test_a_network() -> None:
    """Haar differences change their sign when they are turned: watched; a shift by one latent is nearly exact."""
    seen = photos_patient(linear(), count=2)
    found = examine(seen)
    assert found == examine(seen) and found.verdict == "watch", found.sentence
    assert found.figures["shift_1"].value < 0.01 and found.figures["rot_180"].value > 1
    assert found.pictures and found.dispute


@pytest.mark.parametrize("c", [1, 64])
def test_one_image(c: int) -> None:
    found = examine(patient(normal(1, c, 8, 8)))
    assert math.isnan(found.figures["hflip"].low)


def test_what_cannot_be_examined() -> None:
    with pytest.raises(NotExamined, match="48 px"):
        examine(patient(normal(2, 4, 4, 4)))
    vae = linear()
    vae.decoder.conv_out.bias.fill_(math.nan)
    assert examine(photos_patient(vae, count=1)).verdict == "ill"
