"""Restoration: closed-form optima, planted noise and damage, and a command that measures what it does."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sheets import panels, words_above
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.apps.codes import Codes
from vaeworks.apps.restoration import Damage, SpectralPrior, estimate_noise, fit_prior, plant, restore_picture
from vaeworks.apps.restoration.baselines import baselines
from vaeworks.apps.restoration.damage import MASKS, SALT
from vaeworks.apps.restoration.harmonic import harmonic_fill
from vaeworks.apps.restoration.scores import score, summary
from vaeworks.apps.restoration.search import Search
from vaeworks.cli import main
from vaeworks.config import BottleneckConfig
from vaeworks.errors import ConfigError, DataError
from vaeworks.images import from_model_range, open_image, to_model_range

F, C = 4, 6


def linear() -> vw.Autoencoder:
    """An autoencoder of f4 whose decoder is linear, with orthogonal columns; its encoder is the decoder's inverse on
    what it makes."""
    vae = vw.build(
        vw.AutoencoderConfig(
            channels=8,
            channel_mult=(1, 1, 1),
            norm_groups=4,
            num_res_blocks=1,
            latent_channels=C,
            quant_conv=False,
            post_quant_conv=False,
            bottleneck=BottleneckConfig(kind="point"),
        )
    )
    basis = torch.linalg.qr(torch.randn(3 * F * F, C, generator=torch.Generator().manual_seed(0)))[0].T.reshape(
        C, 3, F, F
    )
    encoder, decoder = nn.Conv2d(3, C, F, F), nn.ConvTranspose2d(C, 3, F, F)
    for conv in (encoder, decoder):
        conv.weight.data, conv.bias.data = basis.clone(), torch.zeros_like(conv.bias.data)  # type: ignore[union-attr]
    vae.encoder, vae.decoder = encoder, decoder  # type: ignore[assignment]
    return vae.eval().requires_grad_(False)


def field(n: int, side: int, seed: int = 0) -> Tensor:
    """Latents n C side side: smooth fields, mixed over channels, with a mean."""
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, C, side, side, generator=rng)
    smooth = nn.functional.avg_pool2d(nn.functional.pad(noise, (2, 2, 2, 2), mode="circular"), 5, 1)
    mix = torch.randn(C, C, generator=torch.Generator().manual_seed(5))
    return torch.einsum("ij,njhw->nihw", mix, smooth) * 0.6 + torch.linspace(-0.2, 0.2, C)[:, None, None]


def codes(vae: vw.Autoencoder, z: Tensor) -> Codes:
    return Codes(from_model_range(vae.decode(z)), z, torch.zeros_like(z), tuple(map(str, range(len(z)))), None)


def photo(height: int = 48, width: int = 56) -> Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([80 + 90 * x, 60 + 120 * y, 128 + 60 * torch.sin(5 * x * y)]).round().to(torch.uint8)


@pytest.fixture(scope="module")
def model() -> tuple[vw.Codec, SpectralPrior]:
    vae = linear()
    return vw.Codec(vae), fit_prior(vae, codes(vae, field(40, 12)))


def test_closed_form(model: tuple[vw.Codec, SpectralPrior], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a linear decoder the optimum is ridge regression on the known pixels, with the weight that noise and error
    give."""
    codec, prior = model
    monkeypatch.setattr("vaeworks.apps.restoration.search.HELD_OUT", 0.0)
    truth = from_model_range(codec.decode(field(1, 5, seed=9)))[0, :, :18, :19]  # not divisible by 4: padded
    damage = plant(truth, "block+noise:20", seed=1)
    found = restore_picture(codec, damage, prior, steps=500)
    space = prior.at(5, 5)
    sigma = math.hypot(20, prior.error) / 127.5
    with torch.no_grad():
        zero = codec.autoencoder.decode(space.latents(torch.zeros(C, 5, 5))[None])[0]
        unit = torch.eye(C * 25).view(-1, C, 5, 5)
        columns = torch.stack([codec.autoencoder.decode(space.latents(u)[None])[0] - zero for u in unit])[
            :, :, :18, :19
        ]
    known = ~damage.missing
    a = columns[:, :, known].flatten(1).double()
    b = (to_model_range(damage.image) - zero[:, :18, :19])[:, known].flatten().double()
    u = torch.linalg.solve(a @ a.T / sigma**2 + torch.eye(len(a)).double(), a @ b / sigma**2)
    expected = zero[:, :18, :19] + torch.einsum("i,ichw->chw", u.float(), columns)
    assert (found.image.int() - from_model_range(expected).int()).abs().max() <= 1


def test_wins_where_its_prior_is_true(model: tuple[vw.Codec, SpectralPrior]) -> None:
    """Pictures that the decoder and the prior have made are restored better than by any baseline; kept pixels stay."""
    codec, prior = model
    for how in ("block", "salt", "noise:25", "scratches+noise:25"):
        truth = from_model_range(codec.decode(field(1, 12, seed=3)))[0]
        damage = plant(truth, how)
        found = restore_picture(codec, damage, prior).image
        scores = {
            name: score(truth, image, damage.region).psnr_region for name, image in baselines(codec, damage).items()
        }
        assert score(truth, found, damage.region).psnr_region > max(scores.values()) + 1
        if not damage.noise:
            assert torch.equal(found[:, ~damage.missing], truth[:, ~damage.missing])


def test_seam(model: tuple[vw.Codec, SpectralPrior]) -> None:
    """What the decoder misses at the border of a hole is missed on neither side: a picture that it cannot make at all
    stays smooth."""
    codec, prior = model
    image = photo()
    damage = Damage(image, torch.zeros(48, 56, dtype=torch.bool))
    damage.missing[20:30, 20:30] = True
    kept, plain = (restore_picture(codec, damage, prior, keep=keep).image.float() for keep in (True, False))
    steps = [
        (x[:, 20, 20:30] - x[:, 19, 20:30]).abs().mean()
        for x in (kept, torch.where(damage.missing, plain, image.float()))
    ]
    assert steps[0] < steps[1]


def test_strips() -> None:
    """Large pictures, whose gradient is computed in strips, come to the same."""
    torch.manual_seed(0)
    vae = vw.build("small-f8c4", channels=8, norm_groups=4, num_res_blocks=1).eval().requires_grad_(False)
    z = 0.5 * torch.randn(6, 4, 6, 7)
    prior = fit_prior(vae, codes(vae, z))
    damage = plant(photo(), "block+noise:10")
    found = []
    for large in (2**20, 0):
        search = Search(vw.Codec(vae, tile=2), prior.at(6, 7), damage, 10.0, 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("vaeworks.apps.restoration.search.LARGE", large)
            found.append(
                search._value(prior.at(6, 7).coordinates(z[0]).double().numpy().ravel(), torch.Size((4, 6, 7)))
            )
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    assert np.allclose(found[0][1], found[1][1], atol=1e-3 * np.abs(found[0][1]).max())


def test_prior_whitens(model: tuple[vw.Codec, SpectralPrior]) -> None:
    """Coordinates of other latents of the same kind are standard normal, also at another size; and lead back to the
    latents."""
    _, prior = model
    for side in (12, 16):
        z = field(30, side, seed=7)
        space = prior.at(side, side)
        u = torch.stack([space.coordinates(one) for one in z])
        assert torch.allclose(space.latents(u[0]), z[0], atol=1e-4)
        rough = u[:, :, 2:, 2:].double()
        correlation = torch.corrcoef(rough.transpose(0, 1).reshape(C, -1))
        assert rough.square().mean((0, 2, 3)).sub(1).abs().max() < 0.5
        assert (correlation - torch.eye(C)).abs().max() < 0.15
    assert prior.error == pytest.approx(0.0, abs=2.0)


def test_prior_of_dead_channels_and_small_squares() -> None:
    """A channel without variance is divided by; squares without a spectrum are refused."""
    vae = linear()
    z = field(5, 8)
    z[:, 2] = 1.0
    prior = fit_prior(vae, codes(vae, z))
    assert prior.at(8, 8).coordinates(z[0]).isfinite().all()
    with pytest.raises(ConfigError, match="at least 16 px"):
        fit_prior(vae, codes(vae, field(2, 3)))


def test_harmonic_fill() -> None:
    """A membrane continues a plane exactly, and is its neighbours' mean everywhere."""
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(15.0), indexing="ij")
    plane = torch.stack([2 * x + y, 5 - x])
    missing = torch.zeros(12, 15, dtype=torch.bool)
    missing[3:8, 4:11] = True
    assert torch.allclose(harmonic_fill(torch.where(missing, 99.0, plane), missing), plane, atol=1e-4)
    found = harmonic_fill(torch.rand(1, 12, 15, generator=torch.Generator().manual_seed(0)).double(), missing)[0]
    mean = (found[:-2, 1:-1] + found[2:, 1:-1] + found[1:-1, :-2] + found[1:-1, 2:]) / 4
    assert torch.allclose(found[1:-1, 1:-1][missing[1:-1, 1:-1]], mean[missing[1:-1, 1:-1]])
    missing[:] = False
    missing[:4, :4] = True  # a corner, which has no neighbours on two sides
    assert torch.allclose(harmonic_fill(torch.full((1, 12, 15), 7.0), missing), torch.tensor(7.0))
    with pytest.raises(DataError, match="all pixels are missing"):
        harmonic_fill(plane, torch.ones_like(missing))


@pytest.mark.parametrize("sigma", [5.0, 25.0])
def test_noise_is_estimated(sigma: float) -> None:
    """Planted noise is found within a few percent, and what lies under a mask does not count."""
    damage = plant(photo(200, 300), f"noise:{sigma}")
    assert estimate_noise(damage.image) == pytest.approx(sigma, rel=0.06)
    image, missing = damage.image.clone(), torch.zeros(200, 300, dtype=torch.bool)
    missing[:, 50:250] = True
    image[:, missing] = torch.randint(
        0, 256, (3, int(missing.sum())), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    assert estimate_noise(image, missing) == pytest.approx(sigma, rel=0.1)
    assert estimate_noise(image) > 1.5 * sigma
    with pytest.raises(DataError, match="cannot be estimated"):
        estimate_noise(image[:, :10, :10])


def test_noise_as_scikit_image_estimates_it() -> None:
    pytest.importorskip("pywt")
    from skimage.restoration import estimate_sigma

    image = plant(photo(200, 300), "noise:12").image
    assert estimate_noise(image) == pytest.approx(
        estimate_sigma(image.numpy().astype(float), channel_axis=0, average_sigmas=True), rel=0.02
    )


def test_planted_damage() -> None:
    """Damage is where it says, is what it says, and follows from picture and seed."""
    image = photo(120, 160)
    for how in MASKS:
        first, again, other = plant(image, how, 1), plant(image, how, 1), plant(image, how, 2)
        assert torch.equal(first.image, again.image) and torch.equal(first.missing, again.missing)
        assert not torch.equal(first.missing, other.missing)
        assert torch.equal(first.image[:, ~first.missing], image[:, ~first.missing])
        assert 0.01 < float(first.missing.float().mean()) < 0.6
        assert torch.equal(first.region, first.missing)
    assert float(plant(image, "salt").missing.float().mean()) == pytest.approx(SALT, abs=0.02)
    assert int(plant(image, "block").missing.sum()) == 30 * 40
    noisy = plant(torch.full((3, 120, 160), 128, dtype=torch.uint8), "block+noise:10")
    assert float((noisy.image.float() - 128)[:, ~noisy.missing].std()) == pytest.approx(10, rel=0.03)
    assert noisy.region.all()
    for how in ("dust", "noise", "noise:0", "block:3", ""):
        with pytest.raises(ConfigError):
            plant(image, how)


def test_figures() -> None:
    """Errors outside the damaged region count in the whole alone; the best method and the paired gain are what they
    are."""
    truth = photo()
    region = torch.zeros(48, 56, dtype=torch.bool)
    region[:12] = True
    image = truth.clone()
    image[:, :12] += 10
    found = score(truth, image, region)
    assert found.psnr_region == pytest.approx(20 * math.log10(25.5))
    assert found.psnr == pytest.approx(20 * math.log10(25.5) + 10 * math.log10(4))
    better = truth.clone()
    better[:, :12] += 5
    rows = [{"VAE": found, "b": score(truth, better, region)}] * 3
    result = summary(rows, "VAE")
    assert result.best == result.against == "b"
    assert result.gain is not None
    assert result.gain.value == pytest.approx(-20 * math.log10(2))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, two pictures of other sizes, a mask of the first one's."""
    root = tmp_path_factory.mktemp("restore")
    torch.manual_seed(0)
    vw.save(vw.build("small-f8c4", channels=8, norm_groups=4, num_res_blocks=1), root / "vae.safetensors")
    for folder in ("in", "prior", "masks"):
        (root / folder).mkdir()
    Image.fromarray(photo(44, 50).permute(1, 2, 0).numpy()).save(root / "in" / "a.png")
    Image.fromarray(photo(40, 41).permute(1, 2, 0).numpy()).save(root / "in" / "b.png")
    for i in range(3):
        Image.fromarray(photo(48, 48 + i).permute(1, 2, 0).numpy()).save(root / "prior" / f"{i}.png")
    mask = np.zeros((44, 50), np.uint8)
    mask[10:20, 10:30] = 255
    Image.fromarray(mask).save(root / "mask.png")
    Image.fromarray(0 * mask).save(root / "black.png")
    Image.fromarray(mask).save(root / "masks" / "a_mask.png")
    return root


def run(place: Path, out: Path, *words: object) -> int:
    options = ["--out", out, "--prior", place / "prior", "--prior-size", "32", "--steps", "3"]
    return main(["restore", *map(str, [place / "vae.safetensors", *words, *options])])


def test_command(place: Path, tmp_path: Path) -> None:
    """A folder with planted damage: pictures, strips, and figures for every method; the same again from the same
    seed."""
    records = []
    for name in ("one", "two"):
        assert run(place, tmp_path / name, place / "in", "--plant", "text+noise:20") == 0
        records.append(json.loads((tmp_path / name / "restore.json").read_text()))
    first = records[0]
    assert [Path(p).name for p in first["pictures"]] == ["a.png", "b.png"]
    assert set(first["summary"]["means"]) == {"non-local means", "total variation", "autoencoder alone", "VAE"}
    assert first["summary"] == records[1]["summary"] and first["summary"]["pictures"] == 2
    assert open_image(tmp_path / "one" / "a.png").size == (50, 44)
    strip = open_image(tmp_path / "one" / "strips" / "b.png")
    boxes = panels(strip, [open_image(place / "in" / "b.png"), open_image(tmp_path / "one" / "b.png")])
    assert all(words_above(strip, box) for box in boxes)


def test_command_with_masks(place: Path, tmp_path: Path) -> None:
    """Known pixels stay; with noise to be estimated they do not."""
    given = np.asarray(open_image(place / "in" / "a.png"))
    hole = np.asarray(open_image(place / "mask.png", 1)) > 0
    assert run(place, tmp_path / "kept", place / "in" / "a.png", "--mask", place / "masks", "--compare") == 0
    kept = np.asarray(open_image(tmp_path / "kept" / "a.png"))
    assert (kept[~hole] == given[~hole]).all() and (kept[hole] != given[hole]).any()
    noisy = plant(photo(64, 64), "noise:15").image
    Image.fromarray(noisy.permute(1, 2, 0).numpy()).save(tmp_path / "noisy.png")
    assert run(place, tmp_path / "auto", tmp_path / "noisy.png", "--noise", "auto") == 0
    (row,) = json.loads((tmp_path / "auto" / "restore.json").read_text())["pictures"].values()
    assert row["noise"] == pytest.approx(15, rel=0.25) and "scores" not in row


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "nothing says what is wrong"),
        (["--plant", "rust"], "damage 'rust' is not known"),
        (["--plant", "block", "--noise", "5"], "--plant makes mask and noise"),
        (["--noise", "loud"], "must be a standard deviation in gray levels"),
        (["--mask", "MASK"], "b.png: the mask has 50 x 44 pixels, the picture 41 x 40"),
        (["--mask", "MASKS"], "b.png has no mask in"),
        (["--mask", "BLACK"], "a.png: the mask marks nothing"),
    ],
)
def test_errors(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    """One line, before anything is written."""
    names = {"MASK": str(place / "mask.png"), "MASKS": str(place / "masks"), "BLACK": str(place / "black.png")}
    assert run(place, tmp_path / "out", place / "in", *(names.get(word, word) for word in words)) == 2
    assert says in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(tmp_path.rglob("*.png")) and not list(tmp_path.rglob("*.json"))


def test_existing_output(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "restore.json").write_text("{}")
    assert run(place, tmp_path, place / "in", "--plant", "block") == 2
    assert "pass --overwrite" in capsys.readouterr().err
