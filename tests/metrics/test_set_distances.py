"""Distances of sets against closed forms, other people's implementations, and what must hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import ImageFilter
from scipy.linalg import sqrtm
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd

from vaeworks.data import photos
from vaeworks.errors import ConfigError
from vaeworks.images import open_image, to_pillow, to_uint8
from vaeworks.metrics.feature_spaces import load_features
from vaeworks.metrics.frechet import compact, frechet_distance, paired_interval
from vaeworks.metrics.kernel import BLOCK, cubic, discrepancies, kernel_distance, published_estimate
from vaeworks.metrics.sets import set_distances
from vaeworks.metrics.wavelet_statistics import DIMENSIONS, wavelet_statistics


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def exactly(random: np.random.Generator, n: int, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """n points whose sample mean and covariance are these to rounding."""
    x = random.normal(size=(n, len(mean)))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return x @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_gaussians_with_commuting_covariances(random: np.random.Generator) -> None:
    """|m_a - m_b|² + Σ (√λ_a - √λ_b)², in a turned frame."""
    turn, _ = np.linalg.qr(random.normal(size=(6, 6)))
    a, b = random.uniform(0.1, 4, 6), random.uniform(0.1, 4, 6)
    means = random.normal(size=(2, 6))
    x = exactly(random, 50, means[0], turn @ np.diag(a) @ turn.T)
    y = exactly(random, 70, means[1], turn @ np.diag(b) @ turn.T)
    expected = np.square(means[0] - means[1]).sum() + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("n", "d"), [(40, 7), (9, 30), (12, 12)])
def test_frechet_distance_knows_equal_sets_and_shifts(random: np.random.Generator, n: int, d: int) -> None:
    """0 for equal sets in any order, |d|² for a shifted one, symmetric, for fewer rows than columns too."""
    x = random.normal(size=(n, d))
    assert frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-10)
    shift = random.normal(size=d)
    assert frechet_distance(x, x + shift) == pytest.approx(np.square(shift).sum(), rel=1e-8)
    y = 2 * random.normal(size=(n + 3, d))
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-10)
    assert frechet_distance(x, 3 * x) == pytest.approx(
        np.square(2 * x.mean(0)).sum() + 4 * x.var(0, ddof=1).sum(), rel=1e-9
    )


def test_frechet_distance_is_scipys(random: np.random.Generator) -> None:
    """With sqrtm of the covariances' product, where that has full rank."""
    x, y = random.normal(size=(60, 8)), random.normal(size=(50, 8)) @ random.normal(size=(8, 8)) + 1
    a, b = np.cov(x.T), np.cov(y.T)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a + b - 2 * np.real(sqrtm(a @ b)))
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


class Flat(torch.nn.Module):
    """Images n c h w that are features already."""

    num_features = 12

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


@pytest.mark.parametrize("n", [40, 8])
def test_frechet_distance_is_torchmetrics(random: np.random.Generator, n: int) -> None:
    """With features given as they are; for fewer rows than columns, too."""
    x, y = (random.normal(size=(n, 3, 2, 2)) * s + s for s in (1, 1.5))
    theirs = FrechetInceptionDistance(feature=Flat(), normalize=True, input_img_size=(3, 2, 2)).set_dtype(torch.float64)
    theirs.update(torch.from_numpy(x), real=True)
    theirs.update(torch.from_numpy(y), real=False)
    expected = theirs.compute().item()
    assert frechet_distance(x.reshape(n, -1), y.reshape(n, -1)) == pytest.approx(expected, rel=1e-3 if n < 12 else 1e-6)


def test_compact_sets_are_as_far_apart(random: np.random.Generator) -> None:
    """Turning to the span of few points changes no distance; the shape shrinks."""
    x, y = random.normal(size=(5, 40)), random.normal(size=(5, 40))
    a, b = compact(x, y)
    assert a.shape == (5, 10)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(x, y), rel=1e-9)


def test_interval_of_the_frechet_distance(random: np.random.Generator) -> None:
    """It holds the figure, is reproducible, shrinks with more images, and is nan where there is nothing to resample."""
    x = random.normal(size=(400, 4))
    y = x + 0.5 + 0.3 * random.normal(size=x.shape)
    wide, draws = paired_interval(x[:40], y[:40])
    narrow, _ = paired_interval(x, y)
    assert wide.value in wide and draws == 200
    assert narrow.high - narrow.low < 0.6 * (wide.high - wide.low)
    assert paired_interval(x[:40], y[:40])[0] == wide
    assert math.isnan(paired_interval(x[:2], y[:2])[0].low)
    y[3] = math.nan
    assert math.isnan(paired_interval(x, y)[0].value)


def test_kernel_distance_is_torchmetrics_but_for_pairs(random: np.random.Generator) -> None:
    """poly_mmd, whose cross term holds each image's own reconstruction, without those; identical sets are exactly 0
    apart."""
    x = random.normal(size=(30, 5))
    y = x + 0.3 + 0.2 * random.normal(size=x.shape)
    n = len(x)
    between = cubic(x, y)
    theirs = poly_mmd(torch.from_numpy(x), torch.from_numpy(y)).item()
    assert published_estimate(x, y) == pytest.approx(theirs, rel=1e-12)
    others = (between.sum() - np.trace(between)) / (n * (n - 1))
    assert kernel_distance(x, y).value == pytest.approx(theirs + 2 * between.mean() - 2 * others, rel=1e-10)
    assert kernel_distance(x, x).value == 0
    assert published_estimate(x, x) < 0


def test_kernel_distance_has_no_bias_for_pairs(random: np.random.Generator) -> None:
    """The mean over many small paired samples is the population's 0, where the published estimate is far below."""
    ours, theirs = [], []
    for _ in range(400):
        x = random.normal(size=(8, 2))
        y = -x  # the same distribution, as dependent as can be
        ours.append(kernel_value(x, y))
        theirs.append(published_estimate(x, y))
    assert abs(np.mean(ours)) < 3 * np.std(ours) / 20
    assert abs(np.mean(theirs)) > 3 * np.std(theirs) / 20


def kernel_value(x: np.ndarray, y: np.ndarray) -> float:
    h = discrepancies(x, y)
    return float((h.sum() - np.trace(h)) / (len(x) * (len(x) - 1)))


def test_kernel_distance_in_blocks(random: np.random.Generator) -> None:
    """More images than a block are the mean over blocks, and the interval holds the population's distance."""
    x = random.normal(size=(BLOCK + 100, 3))
    y = random.normal(size=x.shape) + 0.5
    blocks = [kernel_value(a, b) for a, b in zip(np.array_split(x, 2), np.array_split(y, 2), strict=True)]
    found = kernel_distance(x, y)
    assert found.value == pytest.approx(np.mean(blocks), rel=1e-10)
    assert found.low < found.value < found.high


def test_wavelet_statistics_see_their_band() -> None:
    """A checkerboard's energy is in the finest diagonal band alone; gray means are means; noise is Gaussian, lines are
    not."""
    board = ((torch.arange(64)[:, None] + torch.arange(64)) % 2 * 100 + 50).to(torch.uint8).expand(3, -1, -1)
    seen = wavelet_statistics(board)
    assert seen.shape == (DIMENSIONS,)
    energy = seen[3:].reshape(5, 3, 2, 3)[:, :, 0]  # scale, orientation, (energy, kurtosis), colour
    assert energy[0, 2, 0] == pytest.approx(math.log(100**2 + 1 / 12), rel=1e-5)
    energy[0, 2, 0] = math.log(1 / 12)
    np.testing.assert_allclose(energy, math.log(1 / 12), rtol=1e-5)
    np.testing.assert_allclose(seen[:3] * 16, [100, 0, 0], atol=1e-4)
    noise = (128 + 20 * torch.randn(3, 256, 256, generator=torch.Generator().manual_seed(0))).to(torch.uint8)
    assert wavelet_statistics(noise)[3:].reshape(5, 3, 2, 3)[0, :, 1] == pytest.approx(math.log(3), abs=0.1)
    assert wavelet_statistics(torch.zeros(1, 20, 33, dtype=torch.uint8)).shape == (DIMENSIONS,)


def test_statistics_rank_blurs_and_say_what_they_are() -> None:
    """Identity < mild blur < strong blur; names, warnings and the bias of small sets are in the result."""
    features = load_features("statistics")
    originals = [to_uint8(open_image(path).resize((96, 96))) for path in photos()[:12]]
    x = np.stack([features(image) for image in originals])
    found = [set_distances(features, x, np.stack([features(blurred(i, r)) for i in originals])) for r in (0, 0.4, 1.5)]
    assert 0 == found[0].frechet.value < found[1].frechet.value < found[2].frechet.value
    assert abs(found[0].kernel.value) < 1e-9 < found[1].kernel.value < found[2].kernel.value
    assert found[1].frechet_name == "FD (statistics)" and found[1].count == 12 and found[1].dimensions == DIMENSIONS
    assert "not comparable with any published figure" in found[1].warnings[0]
    assert (
        "12 images are fewer than 2,048" in found[1].warnings[1]
        and "biased" in found[1].warnings[1]
        and found[1].frechet_half > 0
    )
    assert set_distances(features, x[:1], x[:1]) is None
    with pytest.raises(ConfigError, match="have no weights"):
        load_features("statistics", "weights.pth")


def blurred(image: torch.Tensor, radius: float) -> torch.Tensor:
    return to_uint8(to_pillow(image).filter(ImageFilter.GaussianBlur(radius))) if radius else image
