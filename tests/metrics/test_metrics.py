"""Figures against other people's implementations and against what must hold."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from configs import ATTENTIVE_F4
from PIL import Image
from sheets import sheet_width
from skimage.metrics import peak_signal_noise_ratio
from torch import nn

import vaeworks as vw
from vaeworks.data import photos, scan
from vaeworks.images import open_image, to_uint8
from vaeworks.metrics import evaluate, psnr, ssim
from vaeworks.metrics.baselines import down_up, jpeg_at
from vaeworks.metrics.crop import Crop
from vaeworks.metrics.evaluation import DOWN_UP, JPEG
from vaeworks.metrics.gallery import gallery, sheet


class Identity(vw.Autoencoder):
    """A model that returns what it is given, plus a constant, in pixels of 255."""

    offset = 0.0

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        return images + self.offset / 127.5


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    return to_uint8(open_image(next(p for p in photos() if p.stem == "chelsea")))


def test_psnr_is_scikit_images(photo: torch.Tensor) -> None:
    """Any two 8-bit images; equal ones are infinitely good; the peak is 255."""
    noisy = (photo.int() + torch.randint(-9, 9, photo.shape)).clamp(0, 255).to(torch.uint8)
    assert psnr(photo, noisy) == pytest.approx(
        peak_signal_noise_ratio(photo.numpy(), noisy.numpy(), data_range=255), abs=1e-9
    )
    assert psnr(photo, photo) == math.inf
    assert psnr(
        torch.zeros(3, 4, 4, dtype=torch.uint8), torch.full((3, 4, 4), 255, dtype=torch.uint8)
    ) == pytest.approx(0.0)


def test_ssim_is_the_papers(photo: torch.Tensor) -> None:
    """Against Wang et al.'s formula by convolution, on the part of the image where the window fits."""
    other = to_uint8(Image.fromarray(photo.numpy().transpose(1, 2, 0)).resize((200, 133)).resize((451, 300)))
    x, y = photo.double()[:, None], other.double()[:, None]
    axis = torch.arange(11).double() - 5
    gauss = torch.exp(-(axis**2) / (2 * 1.5**2))
    window = torch.outer(gauss, gauss) / gauss.sum() ** 2

    def mean(z: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(z, window[None, None])

    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = (((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean().item()
    assert ssim(photo, other) == pytest.approx(expected, abs=1e-6)
    assert ssim(photo, photo) == pytest.approx(1.0)
    assert math.isnan(ssim(photo[:, :10, :10], photo[:, :10, :10]))


def test_evaluation_of_a_known_model() -> None:
    """The identity is infinitely good; an offset of 5 gray levels costs what it must where nothing clips."""
    files = scan("photos").files[:3]
    model = Identity(ATTENTIVE_F4)
    assert evaluate(model, files, limit=128).scores[0].psnr == math.inf
    assert evaluate(model, files, limit=128).psnr == 100  # so that one exact image does not hide all others
    model.offset = 5.0
    flat = Image.new("RGB", (64, 64), (100, 120, 140))
    result = _evaluate_picture(model, flat)
    assert result.psnr == pytest.approx(20 * math.log10(255 / 5), abs=1e-6)


def _evaluate_picture(model: vw.Autoencoder, picture: Image.Image):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        picture.save(Path(folder) / "p.png")
        return evaluate(model, scan(folder).files)


def test_evaluation_covers_every_image_and_says_what_it_skipped(tmp_path: Path) -> None:
    """Rows by file, crop sizes multiples of f, too small files named, digest that changes with the files."""
    for name, size in (("a", (33, 50)), ("b", (64, 64)), ("c", (3, 3)), ("d", (10, 60))):
        Image.effect_noise(size, 50).convert("RGB").save(tmp_path / f"{name}.png")
    model = vw.build(ATTENTIVE_F4)
    result = evaluate(model, scan(tmp_path).files, limit=48)
    assert [(Path(s.path).stem, s.width, s.height) for s in result.scores] == [("a", 32, 48), ("b", 48, 48)]
    assert [Path(p).stem for p, _ in result.skipped] == ["c", "d"]
    assert result.worst(1)[0].psnr == min(s.psnr for s in result.scores)
    assert result.protocol != evaluate(model, scan(tmp_path).files[1:], limit=48).protocol
    assert result.protocol != evaluate(model, scan(tmp_path).files, limit=None).protocol
    shots = gallery(model, result, scan(tmp_path).files, Crop(4, 48))
    sides = [f"{shot.rank}, {Path(shot.score.path).name}, {shot.score.psnr:.2f} dB" for shot in shots]
    names = ("original", "reconstruction", "difference x 4")
    assert sheet(shots).width == sheet_width([48, 48, 48], names, sides)
    (tmp_path / "only").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "only" / "d.png")
    with pytest.raises(vw.DataError, match="no image can be evaluated"):
        evaluate(model, scan(tmp_path / "only").files)


def test_baselines(photo: torch.Tensor) -> None:
    """Down-up loses detail and keeps the mean; the JPEG fits its bytes and no better quality would."""
    picture = Image.fromarray(photo.numpy().transpose(1, 2, 0)).crop((0, 0, 448, 296))
    shrunk = down_up(picture, 8)
    assert shrunk.size == picture.size
    assert np.asarray(shrunk).mean() == pytest.approx(np.asarray(picture).mean(), abs=1)
    assert psnr(to_uint8(picture), to_uint8(down_up(picture, 4))) > psnr(to_uint8(picture), to_uint8(shrunk)) > 20
    sizes = [jpeg_at(picture, n)[1] for n in (5_000, 10_000, 40_000)]
    assert all(size <= n for size, n in zip(sizes, (5_000, 10_000, 40_000), strict=True))
    assert sizes == sorted(sizes)
    decoded, size = jpeg_at(picture, 10_000)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=10, optimize=True)
    assert size >= len(buffer.getvalue())
    assert decoded.size == picture.size


def test_baseline_rows_are_those_of_the_judged_pixels() -> None:
    """Each image's baselines are computed on the very crop that the model is judged on."""
    file = scan("photos").files[3]
    score = evaluate(vw.build(ATTENTIVE_F4), (file,), limit=100).scores[0]
    picture = open_image(file.path)
    left, top = (picture.width - 100) // 2, (picture.height - 100) // 2
    crop = picture.crop((left, top, left + 100, top + 100))
    assert (score.width, score.height) == (100, 100)
    assert score.baselines[DOWN_UP][0] == pytest.approx(psnr(to_uint8(crop), to_uint8(down_up(crop, 4))))
    assert score.latent_bytes == 2 * 4 * 25 * 25
    assert score.jpeg_bytes <= score.latent_bytes
    assert score.baselines[JPEG][0] > score.baselines[DOWN_UP][0]
