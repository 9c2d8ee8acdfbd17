"""Interpolation, variants and samples: planted latents, closed forms, and the commands around them."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from configs import TINY
from idx_files import idx
from PIL import Image
from runs import make_images, random_batch
from sheets import panels, words_above, words_beside
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture
from torch import nn
from torch.distributions import Normal, kl_divergence

import vaeworks as vw
from vaeworks.apps.codes import Code, decode_picture, encode_picture
from vaeworks.apps.generation.animation import there_and_back, write_gif, write_mp4
from vaeworks.apps.generation.density import Flow, Mixture, Prior, density
from vaeworks.apps.generation.interpolate import PATHS, interpolate, linear, posterior, spherical
from vaeworks.apps.generation.latent_map import COLORS, MARGIN, SIDE, latent_map, plane_points
from vaeworks.apps.generation.sample_metrics import PixelFeatures
from vaeworks.apps.generation.sampling import read_halves, sample_like
from vaeworks.apps.generation.vary import closed_walk, disturbed, latent_scale, variants, walk_figures
from vaeworks.cli import main
from vaeworks.config import AutoencoderConfig, BottleneckConfig
from vaeworks.data import scan
from vaeworks.data.labels import find_labels
from vaeworks.errors import VaeworksError
from vaeworks.images import open_image, to_pillow, to_uint8

POINT = AutoencoderConfig(
    channels=8,
    channel_mult=(1, 2),
    num_res_blocks=1,
    norm_groups=4,
    latent_channels=4,
    mid_attention=False,
    bottleneck=BottleneckConfig(kind="point"),
)
PLANE = AutoencoderConfig(
    in_channels=1,
    out_channels=1,
    channels=8,
    channel_mult=(1, 1, 2, 2),
    num_res_blocks=1,
    norm_groups=4,
    latent_channels=2,
    mid_attention=False,
)


def built(config: AutoencoderConfig, seed: int = 0) -> vw.Autoencoder:
    torch.manual_seed(seed)
    return vw.build(config).eval()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, 400 digits, and files of a KL model, of one whose latents are points, and of one with two latent
    numbers."""
    root = tmp_path_factory.mktemp("variety")
    make_images(root / "images", 4, 21)
    (root / "digits").mkdir()
    truth = load_digits()
    for ending, values in (("images-idx3-ubyte", truth.images[:400] * 15), ("labels-idx1-ubyte", truth.target[:400])):
        (root / f"digits/t-{ending}").write_bytes(idx(values.astype(np.uint8)))
    for name, config in (("kl", TINY), ("point", POINT), ("plane", PLANE)):
        vw.save(built(config), root / f"{name}.safetensors", layout="native")
    return root


def code(mean: list[float], std: list[float] | float = 0.5) -> Code:
    m = torch.tensor(mean)[:, None, None]
    return Code(m, torch.tensor(std)[:, None, None] if isinstance(std, list) else torch.full_like(m, std), 8, 8)


# paths


@pytest.mark.parametrize("name", PATHS)
def test_paths_begin_and_end_at_their_images(name: str) -> None:
    """At 0 and 1 every path has the means themselves."""
    g = torch.Generator().manual_seed(0)
    a, b = (Code(torch.randn(4, 3, 2, generator=g), torch.rand(4, 3, 2, generator=g) + 0.1, 6, 4) for _ in range(2))
    torch.testing.assert_close(PATHS[name](a, b, 0.0), a.mean)
    torch.testing.assert_close(PATHS[name](a, b, 1.0), b.mean)


def test_spherical_goes_evenly_around() -> None:
    """Equal angles for equal times, and norms evenly from one end's to the other's."""
    a, b = code([3.0, 0.0, 0.0]), code([0.0, 5.0, 0.0])
    for t in (0.25, 0.5, 0.75):
        z = spherical(a, b, t).flatten()
        assert z.norm().item() == pytest.approx(3 + 2 * t)
        assert math.atan2(z[1], z[0]) == pytest.approx(t * math.pi / 2)


def test_spherical_where_it_has_no_plane() -> None:
    """Parallel codes and those of length 0 go straight; opposite ones go around at full length, also where all elements
    are equal."""
    a = code([1.0, 2.0, -1.0])
    torch.testing.assert_close(spherical(code([1.0]), code([-1.0]), 0.3), linear(code([1.0]), code([-1.0]), 0.3))
    for b in (code([2.0, 4.0, -2.0]), code([0.0, 0.0, 0.0]), code([1.0, 2.0, -1.00001])):
        torch.testing.assert_close(spherical(a, b, 0.3), linear(a, b, 0.3), atol=1e-4, rtol=0)
    for ends in ([1.0, 2.0, -1.0], [1.0, 1.0, 1.0]):
        a, b = code(ends), code([-x for x in ends])
        middle = spherical(a, b, 0.5)
        assert middle.norm().item() == pytest.approx(a.mean.norm().item())
        assert (middle * a.mean).sum().abs() < 1e-5
        torch.testing.assert_close(spherical(a, b, 1.0), b.mean)


def test_posterior_path_minimizes_both_divergences() -> None:
    """The mean is where (1-t) KL(q|a) + t KL(q|b) has no gradient, q's std being free; with equal stds it is the
    straight line."""
    a, b = code([0.0, 1.0], [0.1, 2.0]), code([1.0, -1.0], [0.4, 0.5])
    t = 0.3
    mean = posterior(a, b, t).requires_grad_()
    precision = (1 - t) / a.std.square() + t / b.std.square()
    std = precision.rsqrt().requires_grad_()
    q = Normal(mean, std)
    loss = (1 - t) * kl_divergence(q, Normal(a.mean, a.std)).sum() + t * kl_divergence(q, Normal(b.mean, b.std)).sum()
    loss.backward()
    assert mean.grad.abs().max() < 1e-4
    assert std.grad.abs().max() < 1e-4
    torch.testing.assert_close(posterior(code([0.0]), code([1.0]), t), linear(code([0.0]), code([1.0]), t))


class CrossFade(nn.Module):
    """An autoencoder that copies pixels: what it interpolates is a cross-fade."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.config = vw.AutoencoderConfig(latent_channels=3)

    def encode(self, images: torch.Tensor, pad: bool = False) -> vw.Posterior:
        return vw.Posterior.point(images)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents


class Direct(vw.Codec):
    """A codec of it."""

    def __init__(self) -> None:
        self.autoencoder = CrossFade()
        self.encode, self.decode = self.autoencoder.encode, self.autoencoder.decode


def test_a_model_that_copies_pixels_only_fades() -> None:
    """There, every figure of the path is the cross-fade's: ghost 1, length 1, nothing lost on encoding again."""
    images = random_batch(3, 16)
    found = interpolate(Direct(), images, steps=4)
    assert len(found.frames) == 9
    assert [frame.segment for frame in found.frames] == [0] * 5 + [1] * 4
    for frame in found.frames:
        assert (frame.pixels.int() - frame.fade.int()).abs().max() <= 1
        assert frame.ghost == pytest.approx(1, abs=1e-4)
        assert frame.recon < 1e-6
        assert frame.contrast == pytest.approx(frame.contrast_fade, abs=1e-2)
    assert found.length == pytest.approx((1, 1), abs=1e-2)
    assert found.largest == pytest.approx((0.25, 0.25), abs=1e-2)
    assert found.frames[2].contrast < 0.9  # independent pictures, half each


def test_a_path_that_leaves_the_fade_is_seen() -> None:
    """On the great circle the same model's norm stays 1, where the straight line falls to what independent codes
    have."""
    images = random_batch(2, 16)
    around = interpolate(Direct(), images, 2, "spherical").frames[1]
    straight = interpolate(Direct(), images, 2).frames[1]
    assert around.norm == pytest.approx(1, abs=1e-5)
    assert straight.norm < 0.95
    x, y = (vw.Posterior.point(image / 127.5 - 1).mean for image in images.float())
    cosine = ((x * y).sum() / (x.norm() * y.norm())).item()
    p, q = x.norm().item(), y.norm().item()
    assert straight.norm == pytest.approx(math.sqrt(p * p + q * q + 2 * p * q * cosine) / (p + q), abs=1e-4)
    assert straight.norm_independent == pytest.approx(math.hypot(p, q) / (p + q), abs=1e-4)


def test_interpolation_refuses() -> None:
    images = random_batch(2, 16)
    with pytest.raises(vw.ConfigError, match="two images"):
        interpolate(Direct(), images[:1])
    with pytest.raises(vw.ConfigError, match="latents are points"):
        interpolate(Direct(), images, path="posterior")
    with pytest.raises(vw.ConfigError, match="not known"):
        interpolate(Direct(), images, path="curved")
    with pytest.raises(vw.ConfigError, match="one size"):
        interpolate(Direct(), [images[0], images[1, :, :8]])


# variants


def test_variants_have_the_posteriors_spread() -> None:
    """Of a model that copies pixels, pixels vary by exactly the noise that was added; and sample k is the same whatever
    the count."""
    image = torch.full((3, 24, 24), 128, dtype=torch.uint8)
    known = Code(image / 127.5 - 1, torch.full((3, 24, 24), 0.1), 24, 24)
    pictures, variety = variants(Direct(), known, 30, temperature=0.5)
    assert variety.pixel_std == pytest.approx(0.05 * 127.5 * math.sqrt(29 / 30), rel=0.02)
    assert variety.psnr == pytest.approx(20 * math.log10(255 / (0.05 * 127.5)), abs=0.1)
    assert variety.latent_std == pytest.approx(0.05)
    assert not variety.alike
    few, _ = variants(Direct(), known, 3, temperature=0.5)
    assert all(torch.equal(a, b) for a, b in zip(few, pictures, strict=False))
    other, _ = variants(Direct(), known, 3, temperature=0.5, seed=1)
    assert not torch.equal(few[0], other[0])


def test_a_narrow_posterior_is_called_alike() -> None:
    """Below a gray level, and with the remedy."""
    known = Code(torch.zeros(3, 8, 8), torch.full((3, 8, 8), 1e-3), 8, 8)
    _, variety = variants(Direct(), known, 4)
    assert variety.alike
    assert "all alike" in variety.sentence
    assert "--noise" in variety.sentence


def test_noise_is_in_stds_of_the_channels() -> None:
    """Measured over the given latents, or the configuration's."""
    model = CrossFade()
    means = [torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    scale = latent_scale(model, means)  # type: ignore[arg-type]
    torch.testing.assert_close(scale, torch.stack(means).std((0, 2, 3), correction=0))
    assert torch.equal(disturbed(code([1.0, 2.0, 3.0]), scale, 0.5).std[:, 0, 0], scale / 2)
    model.config = vw.AutoencoderConfig(latent_channels=3, latents_std=(1.0, 2.0, 3.0))
    assert latent_scale(model, means).tolist() == [1, 2, 3]  # type: ignore[arg-type]
    model.config = vw.AutoencoderConfig(latent_channels=2)
    assert latent_scale(model, [torch.ones(2, 1, 1)]).tolist() == [1, 1]  # type: ignore[arg-type]


def test_a_walk_is_smooth_and_closed() -> None:
    """Even steps all around, as far from the middle as noise is, and farthest at about half the way."""
    known = Code(torch.zeros(3, 32, 32), torch.full((3, 32, 32), 0.2), 32, 32)
    pictures = closed_walk(Direct(), known, 16)
    figures = walk_figures(pictures)
    assert figures["largest_step"] == pytest.approx(figures["mean_step"], rel=0.05)
    assert figures["mean_step"] == pytest.approx(2 * 0.2 * 127.5 * math.sin(math.pi / 16), rel=0.05)
    assert figures["farthest"] == pytest.approx(2 * 0.2 * 127.5, rel=0.05)
    for picture in pictures:
        assert (picture.float() / 127.5 - 1).std().item() == pytest.approx(0.2, rel=0.05)


# densities


def planted(count: int = 600) -> torch.Tensor:
    """Latents n 2 2 2 of two clusters on a plane of three dimensions."""
    rng = np.random.default_rng(0)
    inner = rng.normal(size=(count, 3)) * [0.5, 0.3, 0.2] + np.where(rng.random((count, 1)) < 0.5, 4.0, -4.0) * [
        1,
        0,
        0,
    ]
    basis = np.linalg.qr(rng.normal(size=(8, 3)))[0]
    return torch.from_numpy(inner @ basis.T + 5).float().reshape(count, 2, 2, 2)


def test_a_gaussian_has_the_latents_moments_and_a_mixture_their_clusters() -> None:
    """Samples of a Gaussian have mean and covariance; its middle, where nobody is, is as likely as any; a mixture's is
    not."""
    latents = planted()
    one, two = Mixture(1).fit(latents), Mixture(2).fit(latents)
    x, y = latents.flatten(1), one.sample(4000).flatten(1)
    assert y.shape == (4000, 8)
    assert (x.mean(0) - y.mean(0)).abs().max() < 0.2
    assert (x.T.cov() - y.T.cov()).abs().max() < 0.5
    middle = x.mean(0, keepdim=True).reshape(1, 2, 2, 2)
    assert one.score_samples(middle) > np.median(one.score_samples(latents))
    assert two.score_samples(middle) < two.score_samples(latents).min()
    apart = (two.sample(500).flatten(1) - x.mean(0)).norm(dim=1)
    assert (apart > 2).double().mean() > 0.98
    assert torch.equal(two.sample(20, seed=3), two.sample(20, seed=3))
    assert not torch.equal(two.sample(20, seed=3), two.sample(20, seed=4))
    assert "2 Gaussians with full covariance" in two.stated


def test_log_densities_are_the_libraries() -> None:
    """The prior's is torch's; the mixture's is scikit-learn's of whitened components."""
    latents = planted(200)
    expected = Normal(0.0, 1.0).log_prob(latents.double()).flatten(1).sum(1)
    np.testing.assert_allclose(Prior().score_samples(latents), expected, rtol=1e-6)
    found = Mixture(1).fit(latents)
    x = found.pca.transform(latents.flatten(1).double().numpy())
    reference = GaussianMixture(1, covariance_type="full", reg_covar=1e-4, random_state=0).fit(x)
    np.testing.assert_allclose(found.score_samples(latents), reference.score_samples(x), rtol=1e-6)


def test_a_flow_finds_the_clusters() -> None:
    """After a short training most samples lie at either cluster, about as many at each; the k-th does not depend on the
    count."""
    latents = planted()
    flow = Flow(images=128 * 120).fit(latents)
    drawn, x = flow.sample(200), latents.flatten(1)
    right = (x - x.mean(0)) @ torch.pca_lowrank(x, 1)[2] > 0
    centres = torch.stack([x[right[:, 0]].mean(0), x[~right[:, 0]].mean(0)])
    distances = torch.cdist(drawn.flatten(1), centres)
    assert (distances.min(1).values < 2.5).double().mean() > 0.85
    assert 0.3 < (distances.argmin(1) == 0).double().mean() < 0.7
    torch.testing.assert_close(flow.sample(3), drawn[:3], atol=1e-4, rtol=1e-4)
    assert not hasattr(flow, "score_samples")


def test_densities_refuse() -> None:
    with pytest.raises(vw.DataError, match="too few to fit"):
        Mixture(1).fit(torch.randn(5, 2, 1, 1))
    with pytest.raises(vw.DataError, match="all latents are equal"):
        Mixture(1).fit(torch.ones(40, 2, 1, 1))
    with pytest.raises(vw.DataError, match="cannot have 50 components"):
        Mixture(50).fit(torch.randn(40, 2, 1, 1))
    with pytest.raises(vw.ConfigError, match="square latents"):
        Flow().fit(torch.randn(40, 2, 2, 3))
    with pytest.raises(vw.ConfigError, match="choose from prior"):
        density("normal")


# likeness


def test_equal_sets_have_the_expected_figures() -> None:
    """Density and coverage of two samples of one distribution: Naeem et al.'s expectations, 1 and 1 - Π (n - i) / (2n -
    i)."""
    rng = np.random.default_rng(0)
    real, same = (torch.from_numpy(rng.integers(0, 256, (400, 1, 2, 2), dtype=np.uint8)) for _ in range(2))
    found = PixelFeatures(real).judge(same)
    expected = 1 - math.prod((400 - i) / (800 - i) for i in range(1, 6))
    assert found.density == pytest.approx(1, abs=0.1)
    assert found.coverage == pytest.approx(expected, abs=0.03)
    assert found.copies < 0.15
    assert found.recognized is None


def test_faults_are_seen() -> None:
    """Copies are near-copies; one picture again and again covers nothing; gray ones are no digits; classes that are
    missing count."""
    digits = scan("digits")
    pixels, labels = [], find_labels(digits.files)
    for file in digits.files[:600]:
        pixels.append(to_uint8(open_image(file.path.read_bytes(), 1)))
    real, held = torch.stack(pixels[:500]), torch.stack(pixels[500:])
    space = PixelFeatures(real, labels[:500])
    honest, copies = space.judge(held), space.judge(real[:100])
    assert honest.copies < 0.05
    assert copies.copies == 1
    assert space.judge(held[:1].expand(100, -1, -1, -1)).coverage < 0.1 < honest.coverage
    noise = space.judge(torch.from_numpy(np.random.default_rng(0).integers(0, 256, (100, 1, 8, 8), dtype=np.uint8)))
    assert noise.density < 0.1 < honest.density
    assert noise.recognized < 0.5 < honest.recognized
    assert noise.frechet > 3 * honest.frechet
    ones = real[[label == "1" for label in labels[:500]]]
    assert space.judge(ones).classes < 2 < 8 < honest.classes < 10.01


# the map


def test_the_map_has_points_where_they_are(place: Path) -> None:
    """A class at (1.5, -1.5) of a plane of ±3 lies three quarters to the right and down, in its colour."""
    vae = built(PLANE)
    mean = torch.tensor([[1.5, -1.5], [-1.5, 1.5]]).repeat(30, 1)[:, :, None, None]
    picture = latent_map(vae, mean, torch.full_like(mean, 0.3), [str(i % 2) for i in range(60)], extent=3.0)
    assert picture.size == (2 * SIDE + MARGIN, SIDE + MARGIN)
    colour = np.array([int(COLORS[0][i : i + 2], 16) for i in (1, 3, 5)])
    beside = np.asarray(picture)[
        SIDE * 3 // 4, SIDE * 3 // 4 + SIDE // 30
    ]  # next to the class's name, within the ellipse
    assert np.abs(beside.astype(int) - colour).max() < 40
    assert np.asarray(picture)[SIDE // 4, SIDE * 3 // 4].min() > 240
    points = plane_points(3.0)
    assert points[0].flatten().tolist() == pytest.approx([-2.8125, 2.8125])
    assert points[1].flatten().tolist() == pytest.approx([-2.4375, 2.8125])
    with pytest.raises(vw.ConfigError, match="two numbers"):
        latent_map(vae, torch.zeros(3, 2, 2, 2), torch.zeros(3, 2, 2, 2))


def test_held_out_images_are_not_fitted(place: Path) -> None:
    """Both halves are the content's split, with their labels."""
    images = scan(place / "digits")
    labels = find_labels(images.files)
    known, held = read_halves(built(PLANE), images, 8, labels)
    assert len(known) + len(held) == len(images.files)
    assert not set(known.names) & set(held.names)
    assert all(f"/{label}/" in name for name, label in zip(held.names, held.labels, strict=True))
    found = sample_like(built(PLANE), Prior(), known, held, 30)
    assert found.figures["held-out images"].recognized > 0.8
    assert (
        found.figures["held-out images"].classes > 4
    )  # files are in order of classes; those that are judged are not the first
    assert set(found.figures) == {"samples", "held-out images", "their reconstructions"}


# files and commands


def test_a_gif_loops(tmp_path: Path) -> None:
    """All frames, endless, there and back without a pause at either end."""
    frames = [torch.full((3, 10, 12), value, dtype=torch.uint8) for value in (0, 80, 160, 240)]
    loop = there_and_back(frames)
    assert [int(f[0, 0, 0]) for f in loop] == [0, 80, 160, 240, 160, 80]
    write_gif(tmp_path / "a.gif", loop, fps=10)
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.info["loop"], gif.info["duration"], gif.size) == (6, 0, 100, (12, 10))
        gif.seek(3)
        assert gif.convert("RGB").getpixel((5, 5))[0] == pytest.approx(240, abs=2)


def test_mp4_is_ffmpegs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ffmpeg gets the frames with even sides, its failure is told in its words, and without it there is one line."""
    tool = tmp_path / "bin" / "ffmpeg"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\nfor last; do :; done\ncat > "$last"\n')
    tool.chmod(tool.stat().st_mode | stat.S_IEXEC)
    frames = [torch.full((3, 11, 12), value, dtype=torch.uint8) for value in (0, 80)]
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    write_mp4(tmp_path / "a.mp4", frames)
    assert (tmp_path / "a.mp4").read_bytes() == bytes(10 * 12 * 3) + bytes([80]) * (10 * 12 * 3)
    tool.write_text("#!/bin/sh\necho no encoder >&2\nexit 1\n")
    with pytest.raises(VaeworksError, match="ffmpeg: no encoder"):
        write_mp4(tmp_path / "b.mp4", frames)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "bin"]
    monkeypatch.setenv("PATH", "")
    with pytest.raises(vw.ConfigError, match="--video gif"):
        write_mp4(tmp_path / "b.mp4", frames)


def run(*words: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict, str]:
    status = main([*map(str, words), "--json"])
    said = capsys.readouterr()
    return status, json.loads(said.out) if status == 0 else {}, said.err


def test_interpolate_command(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Odd sizes are padded and cropped back, others brought to the first one's, and the same frames come out as in
    Python."""
    Image.new("RGB", (30, 17), "red").save(tmp_path / "other.png")
    words = [
        "interpolate",
        place / "kl.safetensors",
        place / "images/00.png",
        place / "images/01.png",
        tmp_path / "other.png",
    ]
    words += ["--out", tmp_path / "out", "--steps", 2, "--path", "posterior"]
    status, result, said = run(*words, capsys=capsys)
    assert status == 0
    assert "30 x 17, cropped and resized to 21 x 21" in said
    assert json.loads((tmp_path / "out/path.json").read_text()) == result
    assert "of a cross-fade" in (tmp_path / "out/path.svg").read_text()
    frames = sorted((tmp_path / "out/frames").iterdir())
    assert len(frames) == len(result["frames"]) == 5
    strip = open_image(tmp_path / "out/strip.png")
    boxes = panels(strip, [open_image(frame) for frame in frames])
    assert words_beside(strip, boxes[0]) and all(words_above(strip, box) for box in boxes)
    assert {open_image(frame).size for frame in frames} == {(21, 21)}
    codec = vw.Codec(built(TINY))
    ends = encode_picture(codec, to_uint8(open_image(place / "images/01.png")))
    assert open_image(frames[2]).tobytes() == to_pillow(decode_picture(codec, ends.mean, 21, 21)).tobytes()
    status, _, said = run(*words, capsys=capsys)
    assert status == 2 and "exists" in said
    assert run(*words[:-2], "--overwrite", capsys=capsys)[0] == 0
    assert run(*words[:3], "--out", tmp_path / "one", capsys=capsys)[0] == 2
    assert not (tmp_path / "one").exists()


def test_vary_command(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder at once; equal seeds give equal files; points get noise, and that is said; a walk is a GIF."""
    words = ["vary", place / "kl.safetensors", place / "images", "--count", 3, "--out"]
    status, result, _ = run(*words, tmp_path / "a", capsys=capsys)
    assert status == 0 and len(result) == 4
    run(*words, tmp_path / "b", capsys=capsys)
    for name in ("00.png", "00/0002.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert open_image(tmp_path / "a/00/0000.png").size == (21, 21)
    shown = [place / "images/00.png", *sorted((tmp_path / "a/00").iterdir())]
    sheet = open_image(tmp_path / "a/00.png")
    assert all(words_above(sheet, box) for box in panels(sheet, [open_image(path) for path in shown]))
    status, result, said = run(*words[:1], place / "point.safetensors", *words[2:], tmp_path / "c", capsys=capsys)
    assert "latents are points" in said
    assert all(row["noise"] == 0.2 and row["pixel_std"] > 0 for row in result.values())
    for name in ("a.png", "a/b.png"):  # a/ is what variants of a.png are written to
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes((place / "images/00.png").read_bytes())
    assert main([*map(str, ["vary", place / "kl.safetensors", tmp_path / "in", "--out", tmp_path / "x"])]) == 2
    assert "which another input's results fill" in capsys.readouterr().err and not list((tmp_path / "x").rglob("*.png"))
    run(
        "vary",
        place / "kl.safetensors",
        place / "images/00.png",
        "--walk",
        "--steps",
        5,
        "--out",
        tmp_path / "d",
        capsys=capsys,
    )
    with Image.open(tmp_path / "d/00.gif") as gif:
        assert gif.n_frames == 5
    for wrong in (["--count", 1], ["--temperature", 0], ["--noise", -1], ["--seed", -1]):
        assert run(*words[:3], *wrong, "--out", tmp_path / "e", capsys=capsys)[0] == 2
    assert not (tmp_path / "e").exists()


def test_sample_command(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures, pictures and the map of a plane; the prior alone needs no data; what does not fit is refused before
    anything is written."""
    model = place / "plane.safetensors"
    words = [
        "sample",
        model,
        "--data",
        place / "digits",
        "--count",
        12,
        "--map",
        "--from",
        "mixture",
        "--components",
        3,
        "--out",
    ]
    status, result, said = run(*words, tmp_path / "a", capsys=capsys)
    assert status == 0 and result["size"] == 8
    assert "coverage" in said and "recognized" in said
    assert len(list((tmp_path / "a/samples").iterdir())) == 12
    sheet = open_image(tmp_path / "a/samples.png")
    boxes = panels(sheet, [open_image(tmp_path / f"a/samples/{n:04}.png") for n in range(8)])
    assert all(words_above(sheet, box) for box in boxes)
    assert {"map.png", "samples.png", "sample.json"} <= {p.name for p in (tmp_path / "a").iterdir()}
    run(*words, tmp_path / "b", capsys=capsys)
    assert (tmp_path / "a/samples.png").read_bytes() == (tmp_path / "b/samples.png").read_bytes()
    status, result, _ = run(
        "sample", place / "kl.safetensors", "--count", 2, "--size", 16, "--out", tmp_path / "c", capsys=capsys
    )
    assert status == 0 and result["figures"] is None
    assert open_image(tmp_path / "c/samples/0001.png").size == (16, 16)
    for wrong, says in (
        ((model, "--from", "flow"), "needs --data"),
        ((model, "--count", 0), "count (=0)"),
        ((model, "--data", place / "digits", "--from", "flow", "--count", 1), "at least 2 with --data"),
        ((place / "kl.safetensors", "--data", place / "digits", "--map"), "two numbers"),
        ((model, "--data", place / "images"), "too few"),
    ):
        status, _, said = run("sample", *wrong, "--out", tmp_path / "d", capsys=capsys)
        assert status == 2 and says in said
    assert not (tmp_path / "d").exists()


def test_digits_of_a_folder(test_data: Path) -> None:
    """MNIST's files are labelled digits, as the recipes' page has it."""
    images = scan(test_data / "data/mnist", decode=False)
    assert set(find_labels(images.files)) == set("0123456789")
