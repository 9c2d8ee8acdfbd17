"""A look at held-out images: its figures are the metrics', its latents those of all images at once."""

from __future__ import annotations

import math

import pytest
import torch
from configs import TINY
from sheets import panels, words_beside

from vaeworks.config import BottleneckConfig
from vaeworks.images import difference, grid, to_model_range, to_pillow
from vaeworks.metrics import psnr, ssim
from vaeworks.metrics.roundtrip import reconstruct_uint8
from vaeworks.models import Autoencoder, build
from vaeworks.training.validation import ROW_GAP, first_panel, validate


def images(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]


def model(**changes) -> Autoencoder:
    torch.manual_seed(0)
    return build(TINY, **changes)


def test_figures_are_those_of_the_metrics() -> None:
    """PSNR and SSIM equal those of `reconstruct`, image by image; images too small for SSIM have none; modes stay."""
    vae, shown = model().train(), images((16, 24), (32, 16), (8, 8))
    seen = validate(vae, shown)
    assert vae.training
    recons = [reconstruct_uint8(vae.eval(), image) for image in shown]
    assert seen.psnr == pytest.approx(sum(psnr(a, b) for a, b in zip(shown, recons, strict=True)) / 3)
    assert seen.ssim == pytest.approx(sum(ssim(a, b) for a, b in zip(shown[:2], recons[:2], strict=True)) / 2)
    assert validate(vae, shown[2:]).ssim is None
    assert not vae.training


def test_latents_are_pooled_over_images_of_all_sizes() -> None:
    """Moments, noise and KL by channel equal those of all places of all images in one row."""
    vae, shown = model().eval(), images((16, 24), (32, 16))
    seen = validate(vae, shown)
    with torch.inference_mode():
        posteriors = [vae.encode(to_model_range(image[None])) for image in shown]
    mean, var, kl = (
        torch.cat([x.flatten(2)[0] for x in row], dim=1).double()
        for row in zip(*[(p.mean, p.var, p.kl()) for p in posteriors], strict=True)
    )
    torch.testing.assert_close(torch.tensor(seen.latent_mean).double(), mean.mean(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.tensor(seen.latent_std).double(), mean.std(1, correction=0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.tensor(seen.posterior_std).double(), var.mean(1).sqrt(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.tensor(seen.kl_per_channel).double(), kl.mean(1), rtol=1e-5, atol=1e-6)
    assert seen.latent_absmax == pytest.approx(mean.abs().max().item())
    assert seen.figures.keys() == {
        "val_psnr",
        "val_ssim",
        "latent_mean",
        "latent_std",
        "latent_absmax",
        "posterior_std",
        "kl_per_channel",
    }


def test_points_have_no_posterior() -> None:
    """A bottleneck of kind point: moments, and no figure of a posterior."""
    seen = validate(model(bottleneck=BottleneckConfig(kind="point")), images((16, 16)))
    assert seen.kl_per_channel is None
    assert seen.posterior_std is None
    assert seen.figures.keys() == {"val_psnr", "val_ssim", "latent_mean", "latent_std", "latent_absmax"}


def test_an_exact_image_counts_as_100_and_no_number_is_no_figure(monkeypatch) -> None:
    """An image that is hit exactly does not make the mean infinite; a decoder that gives nan has no PSNR, though 8 bits
    would hide it."""
    vae = model()
    gray = [torch.full((3, 16, 16), 255, dtype=torch.uint8)]
    monkeypatch.setattr(Autoencoder, "decode", lambda self, latents: torch.full((1, 3, 16, 16), 1.5))
    assert validate(vae, gray).psnr == 100
    monkeypatch.setattr(Autoencoder, "decode", lambda self, latents: torch.full((1, 3, 16, 16), math.nan))
    assert math.isnan(validate(vae, [*gray, *gray]).psnr)


def test_the_grid_says_what_its_rows_are() -> None:
    """Original, reconstruction and difference of images of different sizes, pixel by pixel beside their labels; the
    page cuts the first image out of it, and out of grids of early runs, which have no labels."""
    vae, given = model(), images((32, 48), (40, 20))
    picture = validate(vae, given).picture
    assert picture is not None
    recons = [reconstruct_uint8(vae.eval(), image) for image in given]
    rows = [given, recons, [difference(a, b) for a, b in zip(given, recons, strict=True)]]
    for row in rows:
        assert words_beside(picture, panels(picture, [to_pillow(x) for x in row])[0])
    for sheet in (picture, grid(rows, ROW_GAP)):
        for number, row in enumerate(rows):
            assert first_panel(sheet, number, [(48, 32), (20, 40)]).tobytes() == to_pillow(row[0]).tobytes()
