"""Maps between latent spaces: exact where the spaces are related exactly, nothing where they are not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from latent_spaces import images, mixing, moved, random_vae
from torch import Tensor

import vaeworks as vw
from vaeworks.painting.latent_map import LatentMaps, Moments, Paired, latent_maps

BATCHES = images().split(8)


def z_of(vae: vw.Autoencoder, squares: Tensor) -> Tensor:
    return vae.normalize(vae.encode(squares.float() / 127.5 - 1).mode())


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("offset", [0.0, 0.7])
def test_an_exact_relation_is_found_in_both_directions(patch: int, offset: float) -> None:
    old = random_vae(4)
    matrix, shift = mixing(4), torch.linspace(-offset, offset, 4, dtype=torch.float64)
    new = moved(old, matrix, shift)
    maps = latent_maps(old, new, BATCHES, patch=patch)
    assert maps.per_position
    assert min(maps.to_old.explained, maps.to_new.explained) > 1 - 1e-6
    assert maps.identity is not None
    assert maps.identity < 0.9
    unseen = images(2, seed=5)
    a, b = z_of(old, unseen), z_of(new, unseen)
    torch.testing.assert_close(maps.to_new(a), b, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(maps.to_old(b), a, rtol=1e-4, atol=1e-4)
    if patch == 1:
        torch.testing.assert_close(maps.to_new.weight, matrix, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(maps.to_new.bias, shift, rtol=1e-4, atol=1e-4)


def test_the_same_space_is_explained_as_it_is() -> None:
    vae = random_vae(4)
    maps = latent_maps(vae, vae, BATCHES)
    assert maps.identity == pytest.approx(1)
    torch.testing.assert_close(maps.to_old.weight, torch.eye(4, dtype=torch.float64), rtol=1e-6, atol=1e-6)


class Unrelated(vw.Autoencoder):
    """Its latents are white noise, and no images are looked at."""

    def encode(self, images: Tensor, *, pad: bool = False) -> vw.Posterior:
        f = self.downsample_factor
        mean = torch.randn(len(images), self.latent_channels, images.shape[2] // f, images.shape[3] // f)
        return vw.Posterior.point(mean)


@pytest.mark.parametrize("c", [4, 16])
def test_an_unrelated_space_explains_nothing(c: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        new = Unrelated(random_vae(c).config).eval()
        maps = latent_maps(random_vae(4), new, images(64).split(16))
    assert abs(maps.to_old.explained) < 0.05
    assert abs(maps.to_new.explained) < 0.05


def test_a_larger_space_explains_more_than_a_smaller_one() -> None:
    """Four of sixteen channels are the old ones, the others are new."""
    wide = random_vae(16)
    narrow = random_vae(4)
    narrow.encode = lambda x, **_: vw.Posterior.point(wide.encode(x).mean[:, :4])  # type: ignore[method-assign]
    maps = latent_maps(narrow, wide, BATCHES)
    assert maps.to_old.explained > 1 - 1e-6
    assert maps.to_new.explained < 0.9


def test_a_patch_is_looked_at_as_a_whole_only_if_that_explains_more() -> None:
    """An f16 space from the four latents of f8 in every patch, and a space that mixes latents within a patch."""
    old = random_vae(4)
    turned = random_vae(4)

    def mixed(x: Tensor, **_: object) -> vw.Posterior:
        z = torch.nn.functional.pixel_unshuffle(old.encode(x).mean, 2)
        return vw.Posterior.point(torch.nn.functional.pixel_shuffle(z[:, torch.randperm(16, generator=g(1))], 2))

    turned.encode = mixed  # type: ignore[method-assign]
    maps = latent_maps(old, turned, BATCHES, patch=2)
    assert not maps.per_position
    assert maps.to_old.explained > 1 - 1e-6
    assert latent_maps(old, turned, BATCHES).to_old.explained < 0.9

    coarse = random_vae(16, f=16)
    coarse.encode = lambda x, **_: vw.Posterior.point(  # type: ignore[method-assign]
        torch.nn.functional.pixel_unshuffle(old.encode(x).mean, 2)
    )
    maps = latent_maps(old, coarse, BATCHES, patch=2, new_patch=1)
    assert maps.to_old.explained > 1 - 1e-6
    x = images(2, seed=4)
    torch.testing.assert_close(maps.to_old(z_of(coarse, x)), z_of(old, x), rtol=1e-4, atol=1e-4)


def g(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_moments_are_those_of_numpy_however_they_are_batched() -> None:
    vectors = torch.randn(50, 3, generator=g(0)).double() + 5
    moments = Moments(3)
    for part in vectors.split(7):
        moments.add(part)
    np.testing.assert_allclose(moments.covariance, np.cov(vectors.T, bias=True), rtol=1e-9)
    np.testing.assert_allclose(moments.mean, vectors.mean(0), rtol=1e-12)


def test_explained_variance_is_that_of_the_residuals() -> None:
    """The closed form from moments against residuals, for a map that fits badly."""
    vectors = torch.randn(200, 5, generator=g(0)).double() @ torch.randn(5, 5, generator=g(1)).double() + 2
    moments = Moments(5)
    moments.add(vectors)
    pair = Paired(moments, moments, old_size=2)
    weight, bias = torch.randn(2, 3, generator=g(2)).double(), torch.randn(2, generator=g(3)).double()
    y, x = vectors[:, :2], vectors[:, 2:]
    share = 1 - (y - x @ weight.T - bias).square().sum() / (y - y.mean(0)).square().sum()
    assert pair.explained_by(weight, bias, to_old=True) == pytest.approx(share.item())
    fitted = np.linalg.lstsq(np.c_[x, np.ones(200)], y, rcond=None)[0]
    weight, bias = pair.least_squares(to_old=True)
    np.testing.assert_allclose(weight, fitted[:3].T, rtol=1e-5)
    np.testing.assert_allclose(bias, fitted[3], rtol=1e-5)


def test_duplicated_and_dead_channels_give_a_finite_map() -> None:
    old, new = random_vae(4), random_vae(4)
    double = torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    new.encode = lambda x, **_: vw.Posterior.point(  # type: ignore[method-assign]
        torch.einsum("dc,nchw->ndhw", double, old.encode(x).mean)
    )
    maps = latent_maps(old, new, BATCHES)
    assert maps.to_old.weight.abs().max() < 10
    torch.testing.assert_close(maps.to_old.weight[0, :2].sum().item(), 1.0, rtol=1e-3, atol=1e-3)


def test_sentences_name_the_spaces_and_the_share() -> None:
    maps = latent_maps(random_vae(4), random_vae(16), BATCHES)
    assert isinstance(maps, LatentMaps)
    sentence = maps.to_old.sentence
    assert "f8c16" in sentence
    assert "f8c4" in sentence
    assert f"{maps.to_old.explained:.1%}" in sentence
    assert (maps.to_old.num_images, maps.to_old.num_held_out) == (18, 6)


def refused(kind: type[Exception], words: str, *args: object, **options: object) -> None:
    with pytest.raises(kind, match=words) as caught:
        latent_maps(*args, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_refused() -> None:
    old, new = random_vae(4), random_vae(16)
    refused(vw.ConfigError, "different grids", old, random_vae(4, f=16), BATCHES)
    refused(vw.DataError, "more images", old, new, [])
    refused(vw.DataError, "more images", old, new, [images(3)[:, :, :16, :16]])
    refused(vw.ConfigError, "uint8", old, new, [images(8).float()])
    refused(vw.ConfigError, "divisible", old, new, [images(8)[:, :, :60]])
    broken = random_vae(16)
    broken.quant_conv.bias[0] = float("nan")
    refused(vw.NotFiniteError, "f8c16", old, broken, BATCHES)
    flux2 = random_vae(4)
    flux2.config = dataclasses.replace(flux2.config, latents_patch=2)
    refused(vw.ConfigError, "Flux.2", old, flux2, BATCHES)
