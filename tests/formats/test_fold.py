"""Normalization moved into the weights: exact in fp64, with and without 1x1 convolutions to move it into."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from configs import WIDE

import vaeworks as vw
from vaeworks.config import AutoencoderConfig
from vaeworks.formats.fold import fold_normalization, fold_to

NORMALIZATIONS = {
    "scalar": {"scaling_factor": 0.4, "shift_factor": 0.3},
    "negative": {"scaling_factor": -0.4, "shift_factor": -2.0},
    "channel": {
        "normalization": "channel",
        "latents_mean": (0.5, -1.0, 2.0, 0.1),
        "latents_std": (0.5, 2.0, 1.0, 1.5),
        "scaling_factor": 0.8,
    },
    "measured": {"scaling_factor": 0.4, "latents_mean": (0.5, -1.0, 2.0, 0.1), "latents_std": (0.5, 2.0, 1.0, 1.5)},
}
CONVOLUTIONS = {"both": (True, True), "neither": (False, False), "quant": (True, False), "post": (False, True)}


def random_vae(config: AutoencoderConfig, dtype: torch.dtype) -> vw.Autoencoder:
    vae = vw.build(config).eval().to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in vae.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / 4)
    return vae


@pytest.mark.parametrize("target", [(0.18215, 0.0), (0.3611, 0.1159), (-2.0, 5.0)])
@pytest.mark.parametrize("convolutions", CONVOLUTIONS)
@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_a_diffusion_model_sees_the_same(name: str, convolutions: str, target: tuple[float, float]) -> None:
    """Mean, spread and pictures, borders included, to 1e-12 of their size; the statistics in the configuration move
    along."""
    quant, post = CONVOLUTIONS[convolutions]
    config = dataclasses.replace(WIDE, quant_conv=quant, post_quant_conv=post, **NORMALIZATIONS[name])
    vae = random_vae(config, torch.float64)
    before = {n: t.clone() for n, t in vae.state_dict().items()}
    folded = fold_to(vae, *target)
    assert (folded.config.scaling_factor, folded.config.shift_factor, folded.config.normalization) == (
        *target,
        "scalar",
    )
    assert folded.kl_config.post_quant_conv
    images = torch.rand(2, 3, 16, 24, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        posterior, new = vae.encode(images), folded.encode(images)
        z = vae.normalize(posterior.mean)
        spread = vae.normalize(posterior.mean + posterior.std) - z
        new_spread = folded.normalize(new.mean + new.std) - folded.normalize(new.mean)
        picture = vae.decode(vae.denormalize(z))
        assert (folded.normalize(new.mean) - z).abs().max() < 1e-12 * z.abs().max()
        assert (new_spread.abs() - spread.abs()).abs().max() < 1e-11 * z.abs().max()  # a difference of large numbers
        assert (folded.decode(folded.denormalize(z)) - picture).abs().max() < 1e-12 * picture.abs().max()
    if name == "measured":
        numbers = (config.latents_mean, config.latents_std, folded.config.latents_mean, folded.config.latents_std)
        mean, std, new_mean, new_std = (torch.tensor(v, dtype=torch.float64) for v in numbers)
        torch.testing.assert_close(folded.normalize(new_mean), vae.normalize(mean))
        torch.testing.assert_close(new_std * abs(target[0]), std * abs(config.scaling_factor))
    assert all(torch.equal(t, before[n]) for n, t in vae.state_dict().items())


def test_twice_is_once() -> None:
    """A VAE that is folded to its own numbers stays as it is, to rounding."""
    vae = random_vae(dataclasses.replace(WIDE, scaling_factor=0.4, shift_factor=0.3), torch.float64)
    once = fold_to(vae, 0.2)
    for name, t in fold_to(once, 0.2).state_dict().items():
        torch.testing.assert_close(t, once.state_dict()[name], rtol=1e-14, atol=1e-14)
    assert fold_normalization(vae).config.scaling_factor == 0.4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_precision_is_kept(dtype: torch.dtype) -> None:
    """Weights are folded in fp64 and stored as they were."""
    vae = random_vae(dataclasses.replace(WIDE, scaling_factor=0.4, shift_factor=0.3, post_quant_conv=False), dtype)
    assert {p.dtype for p in fold_to(vae, 0.18215).parameters()} == {dtype}


@pytest.mark.parametrize("numbers", [(0.0, 0.0), (float("nan"), 0.0), (1.0, float("inf"))])
def test_numbers_that_cannot_be(numbers: tuple[float, float]) -> None:
    with pytest.raises(vw.ConfigError, match="_factor"):
        fold_to(random_vae(WIDE, torch.float32), *numbers)


def test_a_taesd_has_nothing_to_fold_into() -> None:
    with pytest.raises(vw.ConfigError, match="TAESD"):
        fold_to(vw.build("taesd"), 1.0)
