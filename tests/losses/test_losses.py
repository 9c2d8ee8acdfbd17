"""Losses without a network: against other people's implementations, against what must hold, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import loss_oracles as oracles
import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from skimage.data import astronaut
from skimage.metrics import structural_similarity
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pixel_shuffle, pixel_unshuffle

from vaeworks.errors import ConfigError
from vaeworks.images import to_model_range
from vaeworks.losses import equivariance as eq
from vaeworks.losses import pyramids, regularize, spectrum
from vaeworks.losses import reconstruction as rec
from vaeworks.losses.ms_ssim import WEIGHTS, _similarities, ms_ssim, scales
from vaeworks.losses.perceptual import distance_without_weights, unit

LATENT_TERMS: dict[str, Callable[[Tensor], Tensor]] = {
    "variance_expansion": lambda z: regularize.variance_expansion(z.square()),
    "envelope": regularize.envelope,
    "variance_floor": lambda z: regularize.variance_floor(z, floor=3.0),
    "cosine_alignment": lambda z: regularize.cosine_alignment(z, ramp(z.shape), margin=-0.1),
    "distance_alignment": lambda z: regularize.distance_alignment(z, ramp(z.shape), margin=0.0),
    "spectral_divergence": lambda z: spectrum.spectral_divergence(z, ramp((2, 3, 32, 24)).sin()),
    "decoding_spectrum_matching": lambda z: oracles.decoding_spectrum_matching(
        lambda z: z, z, ramp(z.shape), 10, rec.mse
    ),
    "scale_equivariance": lambda z: oracles.scale_equivariance(lambda z: z**2, z, ramp(z.shape), distance=rec.mse),
}
"""Terms of latents n c h w that are a scalar."""


def ramp(shape: tuple[int, ...] | torch.Size) -> Tensor:
    """Fixed numbers of all sizes and signs."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def pair(size: tuple[int, int] = (37, 50), channels: int = 3, n: int = 2) -> tuple[Tensor, Tensor]:
    """Images of a photograph, in [-1,1], fp64, and noisy ones."""
    height, width = size
    photo = to_model_range(torch.from_numpy(astronaut().transpose(2, 0, 1).copy())).double()[:channels]
    images = torch.stack([photo[:, 50 * i : 50 * i + height, 100 : 100 + width] for i in range(n)])
    return images + 0.1 * ramp(images.shape), images


@pytest.mark.parametrize("name", rec.DISTANCES)
@pytest.mark.parametrize(("size", "channels"), [((64, 64), 3), ((37, 50), 1)])
def test_distances_are_zero_at_equal_images_only(name: str, size: tuple[int, int], channels: int) -> None:
    """And their gradients are finite there, at a constant and at its opposite too."""
    distance = rec.DISTANCES[name]
    recon, images = (x.float() for x in pair(size, channels))
    for target in (images, torch.full_like(images, -1.0)):
        for start in (target.clone(), torch.zeros_like(target)):
            loss = distance(start.requires_grad_(), target)
            loss.backward()
            assert loss.shape == () and start.grad is not None and start.grad.isfinite().all()
            assert loss.item() == pytest.approx(0, abs=1e-6) if start.equal(target) else loss > 1e-3
    assert distance(recon, images) > 1e-3


@pytest.mark.parametrize("name", [*rec.DISTANCES, "fallback", "nll", "optimal_nll"])
def test_distances_have_the_gradient_that_differences_show(name: str) -> None:
    others = {
        "fallback": distance_without_weights,
        "nll": lambda r, i: rec.gaussian_nll(r, i, torch.tensor(-3.0)),
        "optimal_nll": rec.optimal_gaussian_nll,
    }
    distance = rec.DISTANCES.get(name) or others[name]
    if name == "focal_frequency":  # its weights are constants for the gradient
        distance = lambda r, i: rec.focal_frequency(r, i, alpha=0.0)  # noqa: E731
    recon, images = pair((13, 14), n=1)
    assert torch.autograd.gradcheck(lambda r: distance(r, images), recon.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("name", rec.DISTANCES)
def test_distances_are_fp32_under_autocast(name: str) -> None:
    """Whatever the network's precision; half-precision reconstructions are taken as they are."""
    recon, images = (x.float() for x in pair((64, 64)))
    expected = rec.DISTANCES[name](recon, images)
    with torch.autocast("cpu", torch.bfloat16):
        assert rec.DISTANCES[name](recon, images).equal(expected)
    half = recon.bfloat16()
    assert rec.DISTANCES[name](half, images).equal(rec.DISTANCES[name](half.float(), images))


@pytest.mark.parametrize("name", sorted(set(rec.DISTANCES) - {"ms_ssim"}))
def test_distances_are_means(name: str) -> None:
    """The same at every number of images, and one image's share does not depend on the others: micro-batches add up."""
    recon, images = pair((32, 32))
    distance = rec.DISTANCES[name]
    parts = [distance(recon[i : i + 1], images[i : i + 1]) for i in range(2)]
    assert distance(recon, images).item() == pytest.approx(sum(parts).item() / 2)


def reference_ms_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Of scikit-image's SSIM alone: a huge K1 turns its luminance term into 1."""
    count = scales(*x.shape[-2:])
    value = 1.0
    for scale in range(count):
        if scale:
            height, width = x.shape[-2] // 2, x.shape[-1] // 2
            x, y = (a[:, : 2 * height, : 2 * width].reshape(len(a), height, 2, width, 2).mean((2, 4)) for a in (x, y))
        k1 = 0.01 if scale + 1 == count else 1e8
        settings = {
            "channel_axis": 0,
            "data_range": 2,
            "gaussian_weights": True,
            "sigma": 1.5,
            "use_sample_covariance": False,
        }
        value *= structural_similarity(x, y, K1=k1, **settings) ** (WEIGHTS[scale] / sum(WEIGHTS[:count]))
    return value


@pytest.mark.parametrize(("size", "count"), [((180, 200), 5), ((64, 64), 3), ((65, 101), 3), ((16, 21), 1)])
def test_ms_ssim_is_scikit_images_at_every_scale(size: tuple[int, int], count: int) -> None:
    recon, images = pair(size)
    assert scales(*size) == count and WEIGHTS == (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    expected = [reference_ms_ssim(r, i) for r, i in zip(recon.numpy(), images.numpy(), strict=True)]
    np.testing.assert_allclose(ms_ssim(recon, images).numpy(), expected, rtol=1e-10)
    assert rec.ms_ssim_loss(recon, images).item() == pytest.approx(1 - sum(expected) / 2)


def test_ms_ssim_teaches_where_details_are_opposite() -> None:
    """A negative similarity has no power; the formula would be 0 or nan there, the loss keeps the other scales and
    their gradient."""
    images = blocks((1, 3, 64, 64), 16).float().clamp(-1, 1)
    details = ramp(images.shape).float() * 0.3
    recon, images = images - details, images + details
    assert _similarities(recon, images)[1].mean() < 0
    loss = rec.ms_ssim_loss(recon.requires_grad_(), images)
    loss.backward()
    assert 0 < loss < 1 and recon.grad is not None and recon.grad.isfinite().all()
    towards = -torch.nn.functional.cosine_similarity(recon.grad.flatten(), (images - recon).flatten(), dim=0)
    assert recon.grad.abs().sum() > 0 and towards > 0  # the step goes towards the image


def test_ms_ssim_refuses_images_smaller_than_its_window() -> None:
    recon, images = pair((10, 64))
    with pytest.raises(ConfigError, match="at least 11x11 pixels, not 10x64"):
        ms_ssim(recon, images)


def test_huber_is_l1_beyond_delta() -> None:
    images = torch.zeros(1, 1, 1, 2)
    assert rec.huber(images + torch.tensor([0.5, -0.5]), images, delta=0.1).item() == pytest.approx(0.45)
    assert rec.huber(images + 0.05, images, delta=0.1).item() == pytest.approx(0.0125)
    assert rec.charbonnier(images + 0.3, images).item() == pytest.approx(math.hypot(0.3, 1e-3) - 1e-3)


def test_haar_is_an_orthonormal_basis() -> None:
    """Energy is kept; a checkerboard lies in one band, a constant in what is left."""
    x = ramp((2, 3, 16, 24))
    smooth, details = pyramids.haar(x)
    assert smooth.square().sum() + details.square().sum() == pytest.approx(x.square().sum().item())
    board = (torch.arange(16)[:, None] + torch.arange(16)).remainder(2).mul(2).sub(1).expand(1, 1, 16, 16).double()
    assert pyramids.haar(board)[1].abs().mean((0, 1, 3, 4)).tolist() == [0, 0, 2]
    zero = torch.zeros_like(board)
    assert pyramids.haar_l1(board, zero).item() == pytest.approx(
        2 / 3 / 4
    )  # one band of three, one level of three and the rest
    assert pyramids.haar_l1(zero + 0.1, zero).item() == pytest.approx(0.1 * 8 / 4)


def test_laplacian_pyramid_is_the_papers() -> None:
    """A constant is nothing but the rest; blurring and filling in are each other's transpose inside; (1 4 6 4 1)/16 is
    the filter."""
    zero = torch.zeros(1, 1, 16, 24, dtype=torch.float64)
    assert pyramids.laplacian_l1(zero + 0.3, zero).item() == pytest.approx(0.3 / 4)
    point = zero.clone()
    point[0, 0, 8, 8] = 1
    assert pyramids.shrink(point)[0, 0, 3:6, 4].mul(256).tolist() == [6, 36, 6]
    x, y = ramp((1, 2, 16, 16)), ramp((1, 2, 8, 8))
    x[..., :4, :] = x[..., -4:, :] = x[..., :4] = x[..., -4:] = 0
    assert (pyramids.shrink(x) * y).sum().item() * 4 == pytest.approx((x * pyramids.expand(y)).sum().item())


def test_focal_frequency_is_the_papers() -> None:
    """alpha 0 is MSE by Parseval; alpha 1 against NumPy's transform; and the weights carry no gradient."""
    recon, images = pair()
    assert rec.focal_frequency(recon, images, alpha=0.0).item() == pytest.approx(rec.mse(recon, images).item())
    distance = np.abs(np.fft.fft2((recon - images).numpy(), norm="ortho"))
    expected = (distance**3 / distance.max((-2, -1), keepdims=True)).mean()
    assert rec.focal_frequency(recon, images).item() == pytest.approx(expected)
    error = (recon - images).requires_grad_()
    rec.focal_frequency(error, torch.zeros_like(error)).backward()
    weighted = np.fft.ifft2(np.fft.fft2(error.detach().numpy()) * distance / distance.max((-2, -1), keepdims=True)).real
    np.testing.assert_allclose(error.grad, 2 * weighted / error.numel(), atol=1e-12)  # type: ignore[arg-type]


def test_gaussian_nll_is_the_normal_distributions() -> None:
    """And it is smallest, over the log-variance, where the closed form says."""
    recon, images = pair()
    normal = torch.distributions.Normal(recon, math.exp(-1.5))
    assert rec.gaussian_nll(recon, images, torch.tensor(-3.0)).item() == pytest.approx(
        -normal.log_prob(images).mean().item()
    )
    log_variance = (recon - images).square().mean().log().requires_grad_()
    smallest = rec.gaussian_nll(recon, images, log_variance)
    assert smallest.item() == pytest.approx(rec.optimal_gaussian_nll(recon, images, "batch").item())
    assert torch.autograd.grad(smallest, log_variance)[0].item() == pytest.approx(0, abs=1e-12)
    of_each = [rec.optimal_gaussian_nll(recon[i : i + 1], images[i : i + 1], "batch") for i in range(2)]
    assert rec.optimal_gaussian_nll(recon, images).item() == pytest.approx(sum(of_each).item() / 2)


def test_optimal_nll_ends_at_the_rounding_of_pixels() -> None:
    """A perfect reconstruction is finitely good, and has no gradient rather than an infinite one."""
    images = pair()[1].float()
    recon = images.clone().requires_grad_()
    loss = rec.optimal_gaussian_nll(recon, images)
    loss.backward()
    assert loss.item() == pytest.approx(0.5 * (math.log((2 / 255) ** 2 / 12) + 1 + math.log(2 * math.pi)))
    assert recon.grad is not None and not recon.grad.any()


# --- regularizers of latents


@pytest.mark.parametrize("name", LATENT_TERMS)
def test_latent_terms_have_gradients(name: str) -> None:
    """Those that differences show; finite for latents that are 0 everywhere; in fp32 under autocast."""
    term = LATENT_TERMS[name]
    latents = ramp((2, 4, 8, 6)).mul(0.7).requires_grad_()
    assert torch.autograd.gradcheck(term, latents, fast_mode=True)
    loss = term(latents)
    (gradient,) = torch.autograd.grad(loss, latents)
    assert loss.shape == () and gradient.abs().sum() > 0
    dead = torch.zeros(2, 4, 8, 6, requires_grad=True)
    assert torch.autograd.grad(term(dead), dead)[0].isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert term(latents.detach().float()).dtype in (torch.float32, torch.float64)


def blocks(shape: tuple[int, ...], side: int) -> Tensor:
    """Random squares of one value each."""
    return interpolate(ramp((*shape[:2], shape[2] // side, shape[3] // side)), size=shape[2:])


def nearest(latents: Tensor) -> Tensor:
    """The decoder of the codec that averages 4x4 pixels: 3 channels."""
    return interpolate(latents, scale_factor=4)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_equivariance_of_averages(turns: int) -> None:
    """The codec of 4x4 averages is equivariant to turns, and to halving where nothing is lost by it; one that stores
    positions is not."""
    latents = ramp((2, 3, 4, 6))
    images = nearest(latents)
    assert avg_pool2d(images, 4).allclose(latents)
    turn = eq.Transform(quarter_turns=turns)
    assert oracles.equivariance(nearest, latents, images, turn).item() == pytest.approx(0, abs=1e-12)
    coarse = blocks((2, 3, 4, 6), 2)
    assert oracles.equivariance(nearest, coarse, nearest(coarse), eq.Transform(0.5, turns)).item() == pytest.approx(
        0, abs=1e-12
    )
    assert oracles.scale_equivariance(nearest, coarse, nearest(coarse)).item() == pytest.approx(0, abs=1e-12)
    assert oracles.scale_equivariance(nearest, latents, images).item() > 0.01
    shuffled = ramp((2, 3, 16, 24))
    assert (
        oracles.equivariance(lambda z: pixel_shuffle(z, 4), pixel_unshuffle(shuffled, 4), shuffled, turn).item() > 0.1
    )


@pytest.mark.parametrize("scale", [8 / 32, 13 / 32, 31 / 32])
@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 1)])
def test_transformed_latents_and_images_fit(scale: float, size: tuple[int, int]) -> None:
    """At every scale and size; images and latents of one resolution are exactly equivariant at f=1."""
    latents = ramp((2, 3, *size))
    transform = eq.Transform(scale, 1)
    recon, images = oracles.transformed(nearest, latents, nearest(latents), transform)
    assert recon.shape == images.shape and recon.shape[-1] == 4 * max(1, round(size[0] * scale))
    assert oracles.equivariance(lambda z: z, latents, latents, transform).item() == 0
    assert eq.Transform()(latents) is latents
    assert transform(latents.bfloat16()).dtype == torch.bfloat16


def test_eq_vae_draws() -> None:
    """Half of the steps transform latents, an eighth are of small pictures; scales 8/32 to 31/32, one to three
    turns."""
    draws = [eq.draw(tuple(u)) for u in torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)).tolist()]
    share = {where: sum(w == where for w, _ in draws) / len(draws) for where in ("latents", "images", "nowhere")}
    assert share["latents"] == pytest.approx(0.5, abs=0.03) and share["images"] == pytest.approx(0.125, abs=0.02)
    latent = [t for where, t in draws if where == "latents"]
    assert {t.scale for t in latent} == {s / 32 for s in range(8, 32)} and {t.quarter_turns for t in latent} == {
        1,
        2,
        3,
    }
    assert all(t.quarter_turns == 0 for where, t in draws if where != "latents")
    assert all(t == eq.Transform() for where, t in draws if where == "nowhere")


def test_spectrum_of_white_noise_is_flat() -> None:
    """Of variance 4 it is 4 everywhere; a wave is in one bin; a constant is nowhere."""
    power, frequencies = spectrum.radial_spectrum(
        2 * torch.randn(64, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    )
    assert power.shape == (64, 16) and power.mean(0).sub(4).abs().max() < 0.15
    assert frequencies.min() > 0 and frequencies.max() <= 0.5 and (frequencies.diff() > 0).all()
    wave = torch.cos(2 * math.pi * 8 / 32 * torch.arange(32.0)).expand(1, 1, 32, 32)
    power, frequencies = spectrum.radial_spectrum(wave + 5)
    assert (
        power.argmax().item() == 7
        and frequencies[7] <= 0.25
        and power.sum() == pytest.approx(power[0, 7].item(), rel=1e-4)
    )
    assert spectrum.radial_spectrum(torch.full((1, 1, 8, 8), 3.0))[0].abs().max() < 1e-9


@pytest.mark.parametrize("size", [(8, 8), (5, 9), (2, 2), (1, 1)])
def test_small_latents_have_a_spectrum(size: tuple[int, int]) -> None:
    """Bins without a frequency are left out instead of being nan."""
    latents = ramp((2, 4, *size)).requires_grad_()
    loss = spectrum.spectral_divergence(latents, ramp((2, 3, 8 * size[0], 8 * size[1])))
    (gradient,) = torch.autograd.grad(loss, latents)
    assert loss.isfinite() and gradient.isfinite().all()


def test_spectral_divergence_is_a_divergence() -> None:
    """0 for the small images themselves at delta 0, whatever their scale; larger the further from the target; images
    get no gradient."""
    images = pair((64, 64))[1].requires_grad_()
    small = interpolate(spectrum._blurred(images.detach()), size=(16, 16), mode="bicubic", align_corners=False)
    assert spectrum.spectral_divergence(5 * small + 1, images, delta=0.0).item() == pytest.approx(0, abs=1e-9)
    white = ramp((2, 4, 16, 16)).requires_grad_()
    by_delta = [spectrum.spectral_divergence(white, images, delta=d) for d in (0.0, 1.0, 2.0)]
    assert by_delta[0] > by_delta[1] > by_delta[2] > 0  # frequency^2 flattens a photograph's spectrum
    by_delta[1].backward()
    assert images.grad is None and white.grad is not None


@pytest.mark.parametrize("cut", [0, 8, 10, 12])
def test_lowpass_is_the_block_dcts(cut: int) -> None:
    """Against SciPy's, on blocks; cut 0 is everything; borders of any size."""
    x = ramp((1, 2, 16, 8))
    u = np.arange(8)
    blocks = x.numpy().reshape(1, 2, 2, 8, 1, 8)
    kept = dctn(blocks, axes=(3, 5), norm="ortho") * ((u[:, None] + u < 15 - cut)[:, None, :])
    np.testing.assert_allclose(
        spectrum.lowpass(x, cut), idctn(kept, axes=(3, 5), norm="ortho").reshape(x.shape), atol=1e-12
    )
    assert spectrum.lowpass(x[..., :13, :3], cut).shape == (1, 2, 13, 3)
    constant = torch.full((1, 1, 5, 9), 0.7)
    assert spectrum.lowpass(constant, cut).allclose(constant)


def test_decoding_spectrum_matching_knows_a_linear_codec() -> None:
    """Decoding by repetition turns latents without high frequencies into pictures that have them; the identity does
    not."""
    images = pair((32, 32))[1]
    assert oracles.decoding_spectrum_matching(lambda z: z, images, images, 10).item() == 0
    latents = avg_pool2d(images, 4)
    assert oracles.decoding_spectrum_matching(nearest, latents, images, 0).allclose(rec.l1(nearest(latents), images))
    assert oracles.decoding_spectrum_matching(nearest, latents, nearest(latents), 0).item() == pytest.approx(
        0, abs=1e-12
    )
    assert oracles.decoding_spectrum_matching(nearest, latents, nearest(latents), 12).item() > 0.01


def test_variance_terms() -> None:
    """By hand; and an outlier of 10^6 costs much, but not infinity."""
    assert regularize.variance_expansion(torch.full((1, 1, 2, 2), 0.25), delta=0.0).item() == pytest.approx(4)
    assert regularize.envelope(torch.tensor([[[[-3.0, 1.0]]]])).item() == pytest.approx((math.exp(2) + 1) / 2)
    outlier = torch.full((1, 1, 1, 1), 1e6, requires_grad=True)
    cost = regularize.envelope(outlier)
    cost.backward()
    assert cost.isfinite() and cost.item() == pytest.approx(math.exp(20) * (1e6 - 20), rel=1e-3)
    assert outlier.grad is not None and outlier.grad.item() == pytest.approx(math.exp(20), rel=1e-3)
    wide, dead = ramp((8, 2, 16, 16)) * 1.5, torch.zeros(8, 2, 16, 16, dtype=torch.float64)
    assert regularize.variance_floor(wide).item() == 0
    assert regularize.variance_floor(torch.cat([wide, dead], 1)).item() == pytest.approx(0.5, rel=1e-3)
    halves = torch.cat([wide / wide.std() / 2, wide / wide.std() / 2], 1)
    assert regularize.variance_floor(halves).item() == pytest.approx(0.5, rel=1e-2)  # VICReg's hinge, not its square


def test_alignment_of_equal_directions() -> None:
    """Features that point the same way cost nothing at any length; places compare whatever the channels; margins
    forgive."""
    features = ramp((2, 8, 4, 4))
    assert regularize.cosine_alignment(3 * features, features, margin=0.0).item() == pytest.approx(0, abs=1e-6)
    assert regularize.cosine_alignment(-features, features, margin=0.5).item() == pytest.approx(1.5)
    rotation = torch.linalg.qr(ramp((1, 1, 12, 8)))[0][0, 0]
    rotated = torch.einsum("dc,nchw->ndhw", rotation, features)  # 12 channels, the same angles
    assert regularize.distance_alignment(5 * rotated, features, margin=0.0).item() == pytest.approx(0, abs=1e-6)
    apart = torch.zeros(1, 2, 1, 2)
    apart[0, 0, 0, 0] = apart[0, 1, 0, 1] = 1.0  # two places at a right angle, cos 0; the features' cos is 1
    assert regularize.distance_alignment(apart, torch.ones(1, 3, 1, 2), margin=0.25).item() == pytest.approx(0.75 / 2)


def test_alignment_leaves_the_features_alone() -> None:
    """They may be of another resolution, and get no gradient."""
    features, latents = ramp((2, 8, 3, 5)).requires_grad_(), ramp((2, 8, 6, 4)).requires_grad_()
    (regularize.cosine_alignment(latents, features) + regularize.distance_alignment(latents, features)).backward()
    assert features.grad is None and latents.grad is not None and latents.grad.isfinite().all()


def test_unit_vectors() -> None:
    features = ramp((2, 8, 3, 3))
    assert unit(features).norm(dim=1).allclose(torch.ones(2, 3, 3, dtype=torch.float64))
    zero = torch.zeros(1, 4, 2, 2, requires_grad=True)
    unit(zero).sum().backward()
    assert zero.grad is not None and zero.grad.isfinite().all()


def test_real_photographs_are_further_apart_the_more_is_lost(test_data: Path) -> None:
    """Every distance, and the fallback, by how much smaller a picture was."""
    from vaeworks.images import open_image, to_uint8

    files = sorted((test_data / "data" / "dogs").glob("*.jpg"))[:4]
    images = torch.stack([to_model_range(to_uint8(open_image(file))) for file in files])[..., :128, :128]
    smaller = [interpolate(avg_pool2d(images, s), size=images.shape[-2:], mode="bilinear") for s in (2, 4, 8)]
    for name, distance in {**rec.DISTANCES, "fallback": distance_without_weights}.items():
        near, middle, far = (distance(recon, images).item() for recon in smaller)
        assert near < middle < far, name
