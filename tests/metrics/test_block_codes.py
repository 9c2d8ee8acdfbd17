"""The linear baselines: codes of blocks that keep as many numbers as the latents do."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import torch
from configs import ATTENTIVE_F4
from sklearn.decomposition import PCA as SklearnPCA

import vaeworks as vw
from vaeworks.data import scan
from vaeworks.metrics import evaluate, psnr
from vaeworks.metrics.block_codes import STRIPE, _blocks, fit_pca, zonal_dct
from vaeworks.metrics.crop import Crop
from vaeworks.metrics.evaluation import DCT, PCA


@pytest.fixture(scope="module")
def photos() -> list[torch.Tensor]:
    """Six bundled photographs, uint8, sides multiples of 8."""
    return [Crop(8, 160).read(file.path, 3)[0] for file in scan("photos").files[:6]]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", [4, 8])
def test_codes_that_keep_every_number_lose_nothing(photos: list[torch.Tensor], channels: int, factor: int) -> None:
    images = [photo[:channels] for photo in photos]
    every = channels * factor**2
    for code in (zonal_dct(factor, channels, every), fit_pca(images[1:], factor, every)):
        assert code is not None
        assert torch.equal(code(images[0]), images[0])


@pytest.mark.parametrize("numbers", [1, 4, 16, 40])
def test_codes_keep_as_many_numbers_as_they_say(photos: list[torch.Tensor], numbers: int) -> None:
    """A block and its code have the same numbers: analysis undoes synthesis."""
    for code in (zonal_dct(8, 3, numbers), fit_pca(photos, 8, numbers)):
        assert code is not None
        assert np.allclose(code.analysis @ code.synthesis, np.eye(numbers), atol=1e-5)


def test_the_zonal_dct_is_scipys_of_jpegs_planes(photos: list[torch.Tensor]) -> None:
    """Of a gray block it keeps the lowest frequencies: one coefficient is the block's mean; three are a plane."""
    gray = photos[0][:1]
    kept = zonal_dct(8, 1, 3)
    block = gray[0, :8, :8].numpy().astype(np.float64)
    coefficients = scipy.fft.dctn(block, norm="ortho")
    coefficients[np.add.outer(range(8), range(8)) > 1] = 0
    expected = np.clip(np.rint(scipy.fft.idctn(coefficients, norm="ortho")), 0, 255)
    assert np.array_equal(kept(gray)[0, :8, :8].numpy(), expected.astype(np.uint8))
    colour = zonal_dct(8, 3, 3)(torch.tensor([200, 40, 90], dtype=torch.uint8)[:, None, None].expand(3, 8, 8))
    assert colour[0].float().std() == 0, "a flat block stays flat"


def test_the_pca_is_scikit_learns(photos: list[torch.Tensor]) -> None:
    blocks = np.concatenate([_blocks(photo, 8) for photo in photos[1:]])
    theirs = SklearnPCA(16, svd_solver="full").fit(blocks)
    expected = theirs.inverse_transform(theirs.transform(_blocks(photos[0], 8)))
    ours = fit_pca(photos[1:], 8, 16)
    assert ours is not None
    assert ours.images == len(photos) - 1
    assert np.abs(_blocks(ours(photos[0]), 8) - np.clip(expected, 0, 255)).max() <= 0.5 + 1e-6
    assert fit_pca([], 8, 16) is None
    assert fit_pca([torch.zeros(3, 64, 64, dtype=torch.uint8)], 64, 4) is None, "blocks of 12,288 values are too large"


def test_large_images_are_coded_in_stripes_alike() -> None:
    tall = torch.randint(0, 256, (1, 2 * STRIPE // 64 + 8, 64), dtype=torch.uint8)
    code = zonal_dct(8, 1, 5)
    assert torch.equal(code(tall)[:, -64:], code(tall[:, -64:]))


def test_pca_beats_every_fixed_code_on_what_it_was_fitted_on(photos: list[torch.Tensor]) -> None:
    """The best linear code has the least squared error; the mean PSNR follows it on these photographs."""
    fitted = fit_pca(photos, 8, 16)
    assert fitted is not None
    fixed = zonal_dct(8, 3, 16)
    errors = [sum(float((c(x).double() - x.double()).square().sum()) for x in photos) for c in (fitted, fixed)]
    assert errors[0] < errors[1]


def test_no_image_is_coded_by_components_of_itself() -> None:
    """Each half of the images is coded by the other half's components; one image alone has no PCA."""
    model = vw.build(ATTENTIVE_F4)
    files = scan("photos").files[:3]
    found = evaluate(model, files, limit=64)
    pixels = [Crop(4, 64).read(file.path, 3)[0] for file in files]
    numbers = model.latent_channels
    for i, others in ((0, [1]), (1, [0, 2]), (2, [1])):
        code = fit_pca([pixels[j] for j in others], 4, numbers)
        assert code is not None
        assert found.scores[i].baselines[PCA][0] == pytest.approx(psnr(pixels[i], code(pixels[i])))
        assert found.scores[i].baselines[DCT][0] == pytest.approx(psnr(pixels[i], zonal_dct(4, 3, numbers)(pixels[i])))
    assert "fitted on 3 images" in found.codes
    assert PCA not in evaluate(model, files[:1], limit=64).baselines


def test_the_pca_is_fitted_on_given_images_but_never_on_judged_ones() -> None:
    model = vw.build(ATTENTIVE_F4)
    files = scan("photos").files
    found = evaluate(model, files[:2], limit=64, pca_data=files[1:5])
    assert found.codes.endswith("fitted on 3 images")
    pixels = [Crop(4, 64).read(file.path, 3)[0] for file in files[:5]]
    code = fit_pca(pixels[2:], 4, model.latent_channels)
    assert code is not None
    assert found.scores[1].baselines[PCA][0] == pytest.approx(psnr(pixels[1], code(pixels[1])))
