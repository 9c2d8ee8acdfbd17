"""The panel `fidelity`: faults that are planted into a sound decoder are found, and called by their names."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vaeworks as vw
from vaeworks.data import ImageFile, scan
from vaeworks.doctor.finding import Finding
from vaeworks.doctor.measures.response import displacement, pattern, transfer

SIZE = 96

Fault = Callable[[Tensor], Tensor]


class Exact(vw.Autoencoder):
    """Latents are the pixels themselves, in squares of 4: reconstructions are exact."""

    def encode(self, images: Tensor, **more: object) -> vw.Posterior:
        z = F.pixel_unshuffle(images, 4)
        return vw.Posterior.of(z, torch.full_like(z, -10.0))

    def decode(self, z: Tensor) -> Tensor:
        return F.pixel_shuffle(z, 4)


@pytest.fixture(scope="module")
def sound() -> vw.Autoencoder:
    return exact()


def exact(channels: int = 3) -> vw.Autoencoder:
    vae = vw.build("small-f4c4", in_channels=channels, out_channels=channels, latent_channels=16 * channels).eval()
    vae.__class__ = Exact
    return vae


@pytest.fixture(scope="module")
def files() -> tuple[ImageFile, ...]:
    return scan("photos").files[:10]


def planted(vae: vw.Autoencoder, fault: Fault | None = None, latents: Fault | None = None) -> vw.Autoencoder:
    """A copy whose decoder has a fault, or whose encoder gives other latents."""
    other, kind = copy.deepcopy(vae), type(vae)

    class Ill(kind):  # type: ignore[misc, valid-type]
        def decode(self, z: Tensor) -> Tensor:
            image = super().decode(z)
            return image if fault is None else fault(image)

        def encode(self, images: Tensor, **more: object) -> vw.Posterior:
            found = super().encode(images, **more)
            return found if latents is None else vw.Posterior.of(latents(found.mean), found.logvar)

    other.__class__ = Ill
    return other


def examined(vae: vw.Autoencoder, files: tuple[ImageFile, ...]) -> Finding:
    return vw.examine(vae, files, size=SIZE, panels=["fidelity"], keep=False).findings["fidelity"]


def test_a_sound_decoder_is_healthy(sound: vw.Autoencoder, files: tuple[ImageFile, ...]) -> None:
    found = examined(sound, files)
    assert found.verdict == "healthy", found.sentence
    assert found.figures["psnr"].value > found.figures["shrunk"].value > found.figures["mean_colour"].value
    assert found.curves and found.pictures


def grid_of(side: int, period: int) -> Tensor:
    line = torch.arange(side) % period == 0
    return (line[:, None] | line[None]).float()


def checks(side: int) -> Tensor:
    return (torch.arange(side)[:, None] + torch.arange(side)) % 2 * 2.0 - 1


def averaged(x: Tensor) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return mean + 0.01 * (x - mean)


def saturated(gain: float) -> Fault:
    return lambda x: x.mean(1, keepdim=True) + (x - x.mean(1, keepdim=True)) * gain


def with_rows(x: Tensor, every: int, change: Fault, dim: int = 2) -> Tensor:
    x = x.movedim(dim, 0).clone()
    x[5::every] = change(x[5::every])
    return x.movedim(0, dim)


def box(x: Tensor, width: int = 3) -> Tensor:
    return F.avg_pool2d(F.pad(x, (width // 2,) * 4, mode="replicate"), width, 1)


def corners(x: Tensor) -> Tensor:
    line = torch.linspace(-1, 1, x.shape[-1]) ** 2
    return (line[:, None] + line[None]) / 2


def gamma(power: float) -> Fault:
    return lambda x: ((x.clamp(-1, 1) + 1) / 2) ** power * 2 - 1


def hue(degrees: float) -> Fault:
    """A turn about the gray axis (Rodrigues)."""
    angle = torch.deg2rad(torch.tensor(degrees))
    k = torch.ones(3, 3) / 3
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5
    matrix = angle.cos() * torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) * k
    return lambda x: torch.einsum("ij,njhw->nihw", matrix, x)


FAULTS: dict[str, tuple[Fault, str, str]] = {
    "checkerboard": (lambda x: x + 0.03 * checks(x.shape[-1]), "ill", "a pattern repeats every 2 px"),
    "grid of 8": (lambda x: x + 0.05 * grid_of(x.shape[-1], 8), "ill", "a pattern repeats every 8 px"),
    "faint grid of 8": (lambda x: x - 0.02 * grid_of(x.shape[-1], 8), "watch", "a pattern repeats every 8 px"),
    "grid of 5": (lambda x: x + 0.05 * grid_of(x.shape[-1], 5), "ill", "a pattern repeats every 5 px"),
    "grid of 16": (lambda x: x + 0.08 * grid_of(x.shape[-1], 16), "ill", "a pattern repeats every 16 px"),
    "red": (lambda x: x + torch.tensor([0.03, 0, 0])[:, None, None], "watch", "tinted: red +"),
    "less blue": (lambda x: x - torch.tensor([0, 0, 0.03])[:, None, None], "watch", "blue -"),
    "much green": (lambda x: x + torch.tensor([0, 0.1, 0])[:, None, None], "ill", "tinted: "),
    "vignette": (lambda x: x * (1 - 0.15 * corners(x)), "ill", "corners have 8"),
    "bright corners": (lambda x: x * (1 + 0.15 * corners(x)), "watch", "corners have 1"),
    "one pixel": (lambda x: torch.roll(x, (1, 1), (2, 3)), "ill", "displaced by +1.0"),
    "two to the left": (lambda x: torch.roll(x, -2, 3), "ill", "displaced by -2.0"),
    "a third of a pixel": (lambda x: 0.7 * x + 0.3 * torch.roll(x, 1, 2), "watch", "px to the right and +0.29"),
    "blur": (box, "watch", "pictures are blurred"),
    "strong blur": (lambda x: box(x, 5), "ill", "pictures are blurred"),
    "sharpened": (lambda x: x + 0.8 * (x - box(x, 5)), "watch", "pictures are sharpened"),
    "rows": (lambda x: with_rows(x, 16, lambda r: r.roll(2, -1)), "ill", "single rows (5, 21, 37"),
    "columns": (lambda x: with_rows(x, 30, lambda r: r * 0, 3), "ill", "single columns (5, 35"),
    "one dead row": (lambda x: with_rows(x, 999, lambda r: r * 0 - 1), "ill", "single rows (5)"),
    "clipped blacks": (lambda x: x.clamp(min=-0.85), "ill", "blacks are lifted or clipped by 19"),
    "clipped whites": (lambda x: x.clamp(max=0.9), "watch", "whites are lowered or clipped by 13"),
    "pale": (saturated(0.8), "watch", "saturation is 8"),
    "vivid": (saturated(1.4), "ill", "saturation is 14"),
    "gray": (saturated(0.0), "ill", "saturation is 0%"),
    "contrast": (lambda x: x * 0.85, "watch", "contrast is 8"),
    "red and blue": (lambda x: x[:, [2, 1, 0]], "ill", "exchanged: red shows blue, blue shows red"),
    "green and blue": (lambda x: x[:, [0, 2, 1]], "ill", "exchanged: green shows blue, blue shows green"),
    "all three": (lambda x: x[:, [1, 2, 0]], "ill", "red shows green, green shows blue, blue shows red"),
    "hue": (hue(20.0), "ill", "hues are turned by +1"),
    "hue back": (hue(-8.0), "watch", "hues are turned by -"),
    "negative": (lambda x: -x, "ill", "negatives"),
    "mirrored": (lambda x: x.flip(3), "ill", "mirrored left to right"),
    "upside down": (lambda x: x.flip(2), "ill", "mirrored top to bottom"),
    "transposed": (lambda x: x.mT, "ill", "transposed"),
    "darker": (gamma(1.3), "ill", "darker by"),
    "no red": (lambda x: x * torch.tensor([0.0, 1, 1])[:, None, None], "ill", "red is the same in every picture"),
    "posterized": (lambda x: torch.round(x * 8) / 8, "ill", "posterized: 17 tones"),
    "noise": (lambda x: x + 0.03 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)), "watch", "uneven"),
    "other noise each time": (lambda x: x + 0.1 * torch.randn_like(x), "ill", "two decodes of the same latents differ"),
    "hardly anything": (averaged, "ill", "hardly more than the mean colour"),
    "NaN everywhere": (lambda x: x * float("nan"), "ill", "10 of 10 images are not finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_found(sound: vw.Autoencoder, files: tuple[ImageFile, ...], name: str) -> None:
    fault, verdict, words = FAULTS[name]
    found = examined(planted(sound, fault), files)
    assert found.verdict == verdict, found.sentence
    assert words in found.sentence


def test_one_image_in_many_that_is_not_finite(sound: vw.Autoencoder) -> None:
    """Every image is decoded, not a sample of them."""
    files = scan("procedural:30:32").files

    def fault(x: Tensor) -> Tensor:
        x = x.clone()
        x[x.mean((1, 2, 3)) == darkest] = float("nan")
        return x

    means: list[Tensor] = []
    vw.examine(
        planted(sound, lambda x: means.append(x.mean((1, 2, 3))) or x), files, size=32, panels=["fidelity"], keep=False
    )
    darkest = torch.cat(means[:8]).min()  # of the images, which come before the flat fields
    found = vw.examine(planted(sound, fault), files, size=32, panels=["fidelity"], keep=False).findings["fidelity"]
    assert found.verdict == "ill" and found.figures["not_finite"].value >= 1
    assert "of 30 images are not finite" in found.sentence


@pytest.mark.parametrize("step", [0.5, 1.0])
def test_quantized_latents(sound: vw.Autoencoder, files: tuple[ImageFile, ...], step: float) -> None:
    found = examined(planted(sound, latents=lambda z: torch.round(z / step) * step), files)
    assert found.verdict != "healthy" and found.figures["values"].value < 64


def test_an_untrained_network_is_not_healthy(files: tuple[ImageFile, ...]) -> None:
    found = examined(vw.build("small-f8c4").eval(), files)
    assert found.verdict == "ill" and "hardly more than the mean colour" in found.sentence


def test_gray_models_are_examined(files: tuple[ImageFile, ...]) -> None:
    vae = exact(1)
    assert examined(vae, files).verdict == "healthy"
    assert "displaced" in examined(planted(vae, lambda x: torch.roll(x, 1, 3)), files).sentence


def test_a_real_vae_is_healthy(test_data: Path, files: tuple[ImageFile, ...]) -> None:
    """TAEF2: nothing is found where nothing is."""
    taef2 = vw.load(test_data / "weights" / "taef2").float()
    found = vw.examine(taef2, files, size=128, panels=["fidelity"], keep=False).findings["fidelity"]
    assert found.verdict == "healthy", found.sentence
    for name in ("red", "faint grid of 8", "one pixel", "blur", "clipped blacks", "posterized", "vignette"):
        fault, _, words = FAULTS[name]
        ill = vw.examine(planted(taef2, fault), files, size=128, panels=["fidelity"], keep=False).findings["fidelity"]
        assert ill.verdict != "healthy" and words.split(" by ")[0] in ill.sentence, (name, ill.sentence)


@pytest.mark.parametrize("by", [(0.0, 0.0), (0.25, -0.4), (1.5, 0.0), (-2.0, 2.0)])
def test_displacement_to_a_hundredth_of_a_pixel(by: tuple[float, float]) -> None:
    """Against pictures that are moved by the phase of their transform."""
    x = np.random.default_rng(0).normal(size=(4, 1, 64, 64)).cumsum(-1).cumsum(-2)
    x -= x.mean()
    phase = [np.exp(-2j * np.pi * np.fft.fftfreq(64) * d) for d in by]
    moved = np.fft.ifft2(np.fft.fft2(x) * phase[0][:, None] * phase[1][None]).real
    assert displacement(x, moved) == pytest.approx(by, abs=0.05, rel=0.03)


def test_transfer_of_a_box_is_its_response() -> None:
    """A mean of three columns keeps (1 + 2 cos 2 pi f) / 3 of each frequency along rows; noise beside it counts not."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(64, 1, 64, 64))
    rows = (np.roll(x, 1, -1) + x + np.roll(x, -1, -1)) / 3
    both = (np.roll(rows, 1, -2) + rows + np.roll(rows, -1, -2)) / 3
    frequency = 0.125
    angles = np.linspace(0, np.pi / 2, 50)
    parts = [(1 + 2 * np.cos(2 * np.pi * frequency * t)) / 3 for t in (np.cos(angles), np.sin(angles))]
    (found,) = transfer(x, both + 0.1 * rng.normal(size=x.shape), (frequency,))
    assert found == pytest.approx(float((parts[0] * parts[1]).mean()), abs=0.02)


@pytest.mark.parametrize("period", [2, 3, 8, 12, 32])
def test_patterns_are_measured(period: int) -> None:
    """The amplitude is the pattern's standard deviation; noise is none."""
    rng = np.random.default_rng(period)
    cell = rng.normal(size=(period, period))
    cell *= 2.0 / cell.std()
    noise = rng.normal(size=(4, 3, 96, 96))
    assert pattern(noise)[0] < 0.15
    amplitude, found = pattern(noise + np.tile(cell, (96 // period, 96 // period)))
    assert found == period and amplitude == pytest.approx(2.0, rel=0.15)
