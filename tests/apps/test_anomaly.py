"""Anomalies: planted ones are found where they are, figures are the libraries', and stated rates hold."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from html_pages import checked
from PIL import Image
from scipy.ndimage import binary_dilation
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from sklearn.utils.estimator_checks import check_estimator

import vaeworks as vw
from vaeworks.apps.anomaly import AnomalyDetector, auroc, load_detector, localization, save_detector
from vaeworks.apps.anomaly.density import Gaussian
from vaeworks.apps.anomaly.detect import warn_of_trained
from vaeworks.apps.anomaly.evidence import EvidenceScale, pooled, smoothed
from vaeworks.apps.anomaly.extractors import PcaExtractor
from vaeworks.apps.anomaly.folders import class_labels, read_images, read_truth
from vaeworks.apps.anomaly.heat import overlay
from vaeworks.apps.anomaly.methods import Truth, baseline_rows, own_rows
from vaeworks.apps.anomaly.threshold import alarm_range, conformal_threshold, p_values, split
from vaeworks.cli import main
from vaeworks.cli.console import TERMINAL
from vaeworks.data import scan
from vaeworks.data.trained_on import trained_on
from vaeworks.errors import ConfigError, DataError, FormatError
from vaeworks.images import to_model_range

MODEL = vw.AutoencoderConfig(
    in_channels=1,
    out_channels=1,
    channels=8,
    channel_mult=(1, 2, 2),
    num_res_blocks=1,
    norm_groups=4,
    mid_attention=False,
)
SIZE = 32


def textures(count: int, seed: int = 0) -> np.ndarray:
    """Woven stripes with noise, uint8 n h w."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    clean = 128 + 40 * np.sin(x * 0.8) + 40 * np.sin(y * 0.8)
    level = rng.normal(0, 6, (count, 1, 1))
    return np.clip(clean + level + rng.normal(0, 6, (count, SIZE, SIZE)), 0, 255).astype(np.uint8)


def blotched(images: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The images with a flat square of 6 pixels each, and where those are."""
    rng = np.random.default_rng(seed)
    found, masks = images.copy(), np.zeros(images.shape, dtype=bool)
    for image, mask in zip(found, masks, strict=True):
        top, left = rng.integers(2, SIZE - 8, 2)
        mask[top : top + 6, left : left + 6] = True
        image[mask] = 235
    return found, masks


@pytest.fixture(scope="module")
def vae() -> vw.Autoencoder:
    """Trained for a moment on sound textures."""
    torch.manual_seed(0)
    autoencoder = vw.build(MODEL)
    images = to_model_range(torch.from_numpy(textures(160, seed=100))[:, None])
    optimizer = torch.optim.Adam(autoencoder.parameters(), 3e-3)
    for step in range(50):
        batch = images[step * 8 % 160 :][:8]
        optimizer.zero_grad()
        (autoencoder(batch)[0] - batch).square().mean().backward()
        optimizer.step()
    return autoencoder.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def fitted(vae: vw.Autoencoder) -> AnomalyDetector:
    return AnomalyDetector(vae, false_alarms=0.05).fit(textures(120))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_estimator() -> None:
    """scikit-learn's own checks of estimators, on flattened input."""
    results = check_estimator(AnomalyDetector(), on_fail=None, on_skip=None)
    assert not [(r["check_name"], r["exception"]) for r in results if r["status"] not in ("passed", "skipped")]
    assert len([r for r in results if r["status"] == "passed"]) > 40


@pytest.mark.parametrize("with_vae", [True, False], ids=["vae", "pca"])
def test_planted(vae: vw.Autoencoder, fitted: AnomalyDetector, with_vae: bool) -> None:
    """A planted blotch is told from sound texture, and the heat is on it; the same from flattened images."""
    detector = fitted if with_vae else AnomalyDetector().fit(textures(120))
    good = textures(40, seed=1)
    bad, masks = blotched(textures(40, seed=2))
    assert auroc(-detector.score_samples(good), -detector.score_samples(bad)).value > 0.98
    assert (detector.predict(bad) == -1).mean() > 0.9
    heat = detector.heat_maps(bad)
    assert heat.shape == bad.shape
    assert localization(heat, masks).pixel_auroc > 0.9
    hottest = heat.reshape(len(heat), -1).argmax(1)
    near = binary_dilation(masks, np.ones((1, 7, 7))).reshape(len(masks), -1)  # a latent's position is 4 px
    assert near[np.arange(len(heat)), hottest].mean() > 0.9
    flat = AnomalyDetector(detector.autoencoder, false_alarms=detector.false_alarms, image_shape=(SIZE, SIZE))
    flat.fit(textures(120).reshape(120, -1))
    assert np.allclose(flat.score_samples(bad.reshape(40, -1)), detector.score_samples(bad), rtol=1e-5)


@pytest.mark.parametrize("name", ["reconstruction", "features", "density"])
def test_each_evidence(vae: vw.Autoencoder, name: str) -> None:
    """Every kind of evidence alone sees the blotches, and where they are."""
    detector = AnomalyDetector(vae, evidence=(name,)).fit(textures(80))
    bad, masks = blotched(textures(20, seed=2))
    assert auroc(-detector.score_samples(textures(20, seed=1)), -detector.score_samples(bad)).value > 0.9
    assert localization(detector.heat_maps(bad), masks).pixel_auroc > 0.85


def test_layouts(vae: vw.Autoencoder, fitted: AnomalyDetector) -> None:
    """n h w, n h w c and n c h w are the same images; batches and order play no part; sizes need not be multiples of
    f."""
    images = textures(9, seed=3)
    expected = fitted.score_samples(images)
    for x in (images[..., None], images[:, None], torch.from_numpy(images), images.astype(float)):
        assert np.allclose(fitted.score_samples(x), expected, rtol=1e-5)
    assert np.allclose(
        np.concatenate([fitted.score_samples(images[i : i + 1]) for i in range(9)]), expected, rtol=1e-4, atol=1e-4
    )
    again = AnomalyDetector(vae, false_alarms=0.05).fit(textures(120)[::-1])
    assert np.allclose(again.score_samples(images), expected, rtol=1e-4, atol=1e-4)
    odd = AnomalyDetector(vae).fit(textures(30)[:, :29, :31])
    assert odd.heat_maps(images[:, :29, :31]).shape == (9, 29, 31)
    with pytest.raises(ConfigError, match="was fitted on"):
        fitted.score_samples(images[:, :28])


def test_false_alarms() -> None:
    """Of fresh normals, as many are called anomalous as the threshold's distribution allows, and on average no more
    than stated."""
    rng = np.random.default_rng(0)
    shares = []
    for seed in range(40):
        detector = AnomalyDetector(false_alarms=0.1, held_out=0.5, random_state=seed).fit(rng.normal(size=(150, 30)))
        shares.append((detector.predict(rng.normal(size=(400, 30))) == -1).mean())
    low, high = alarm_range(len(detector.split_.threshold), 0.1)
    assert np.mean([low - 0.02 <= share <= high + 0.02 for share in shares]) > 0.85
    assert (
        abs(np.mean(shares) - 0.1) < 0.02
    )  # 0.1 is the exact expectation where (n + 1) 0.1 is whole; its error here is 0.006


def test_threshold() -> None:
    """The conformal rank by hand, its exact rate, and the fewest normals for it."""
    assert conformal_threshold(np.arange(19), 0.05) == pytest.approx(18, rel=1e-4)
    assert conformal_threshold(np.arange(39), 0.05) == pytest.approx(37, rel=1e-4)
    assert conformal_threshold(np.arange(20), 0.05) == pytest.approx(19, rel=1e-4)  # not the 95 % quantile, which is 18
    assert conformal_threshold(np.arange(99), 0.1) == pytest.approx(89, rel=1e-4)
    assert p_values([10.0, 2.0, -1.0], np.arange(4)).tolist() == [1 / 5, 3 / 5, 1.0]
    low, high = alarm_range(19, 0.05)  # Beta(1, 19): the largest of 19
    assert (low, high) == pytest.approx((1 - 0.975 ** (1 / 19), 1 - 0.025 ** (1 / 19)))


def test_too_few(vae: vw.Autoencoder) -> None:
    """Too few normals for a rate are counted; as many more as are said suffice."""
    with pytest.raises(
        DataError, match=r"needs at least 1/0.05 - 1 = 19 normals for the threshold, 8 of 36.*give (\d+) more"
    ) as caught:
        AnomalyDetector(vae, false_alarms=0.05).fit(textures(36))
    more = int(str(caught.value).partition("give ")[2].split()[0])
    AnomalyDetector(false_alarms=0.05).fit(textures(36 + more))
    with pytest.raises(DataError, match="19 normals"):
        AnomalyDetector(false_alarms=0.05).fit(textures(35 + more))
    assert AnomalyDetector().fit(textures(36)).false_alarms_ == 1 / 9
    with pytest.raises(DataError, match="n_samples = 3: at least 5"):
        AnomalyDetector(vae).fit(textures(3))
    with pytest.raises(DataError, match="only 1 differ"):
        AnomalyDetector(vae).fit(np.repeat(textures(1), 50, axis=0))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"evidence": ("features",)}, "features need an autoencoder"),
        ({"evidence": ("beauty",)}, "must be one of reconstruction, density"),
        ({"evidence": ()}, "no evidence"),
        ({"density": "none"}, "position, shared"),
        ({"combine": "sum"}, "mean, max"),
        ({"held_out": 1.0}, "held_out"),
        ({"false_alarms": 2.0}, "between 0 and 1"),
        ({"image_shape": (3, 5)}, "image_shape .* has 15 values, a row of X has 16"),
    ],
)
def test_settings(options: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        AnomalyDetector(**options).fit(np.random.default_rng(0).normal(size=(40, 16)))


def test_pixels(vae: vw.Autoencoder) -> None:
    """A network is given pixels of 0..255 and its own channels only."""
    with pytest.raises(DataError, match=r"values in 0\.\.255"):
        AnomalyDetector(vae).fit(textures(30) / 255)
    with pytest.raises(ConfigError, match="3 channels, the autoencoder takes 1"):
        AnomalyDetector(vae).fit(np.repeat(textures(30)[..., None], 3, axis=-1))
    with pytest.raises(ConfigError, match="needs image_shape"):
        AnomalyDetector(vae).fit(textures(30).reshape(30, -1))


def test_black_images(vae: vw.Autoencoder) -> None:
    """Black is black on any scale: floats that are all 0 are taken, those of a scale that ends at 1 are not."""
    detector = AnomalyDetector(vae).fit(textures(30).astype(float))
    black = np.zeros((2, SIZE, SIZE))
    assert np.allclose(detector.score_samples(black), detector.score_samples(black.astype(np.uint8)))
    with pytest.raises(DataError, match=r"0\.\.255"):
        detector.score_samples(black + 0.5)


def test_scores_need_no_heat(fitted: AnomalyDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores alone make no map of every pixel; they are those that come with the maps."""
    images = textures(12, seed=5)
    expected = fitted.readings(images).anomaly
    monkeypatch.setattr("vaeworks.apps.anomaly.detector.enlarged", None)
    assert np.array_equal(-fitted.score_samples(images), expected)
    assert np.array_equal(fitted.predict(images) == -1, expected > -fitted.offset_)


def test_split() -> None:
    """Parts are disjoint and whole; equal images are on one side; another seed is another split."""
    images = np.repeat(textures(30), 2, axis=0)
    parts = split(images, 0.4, 0)
    assert sorted(np.concatenate([parts.fit, parts.scale, parts.threshold]).tolist()) == list(range(60))
    for rows in (parts.fit, parts.scale, parts.threshold):
        assert {row // 2 * 2 for row in rows.tolist()} == {row for row in rows.tolist() if row % 2 == 0}
    assert set(split(images, 0.4, 1).fit) != set(parts.fit)


def test_gaussian() -> None:
    """Distances are scikit-learn's, of every place alone and of all together; an unusual vector is far."""
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(200, 3, 2, 2)) @ rng.normal(size=(2, 2)) + np.arange(3)[:, None, None]
    for kind, rows in (("position", latents[:, :, 1, 0]), ("shared", latents.transpose(0, 2, 3, 1).reshape(-1, 3))):
        expected = LedoitWolf().fit(rows).mahalanobis(latents[:, :, 1, 0])
        found = Gaussian.fitted(latents, kind).distance(latents)[:, 1, 0]  # type: ignore[arg-type]
        assert np.allclose(found**2, expected, rtol=1e-4)
    still = latents.copy()
    still[:, 0] = 1.0  # a channel that never changes
    assert np.isfinite(Gaussian.fitted(still).distance(still)).all()
    assert np.isfinite(Gaussian.fitted(np.ones((9, 3, 2, 2))).distance(still)).all()


def test_evidence() -> None:
    """A map's number is the mean of its largest hundredth; RMS is kept by smoothing; scales are robust."""
    maps = np.zeros((2, 10, 20))
    maps[1, 3, 3], maps[1, 7, 7] = 4.0, 2.0
    assert pooled(maps).tolist() == [0.0, 3.0]
    assert smoothed(np.full((1, 16, 16), 9.0)) == pytest.approx(3.0)
    assert smoothed(np.array([[[4.0, 0.0]]])).tolist() == [[[2.0, 0.0]]]
    values = np.append(np.random.default_rng(0).normal(3, 2, 10_001), [1e9])
    assert EvidenceScale.of(values) == EvidenceScale(pytest.approx(3, abs=0.1), pytest.approx(2, abs=0.1))
    assert EvidenceScale.of(np.full(5, 7.0)).spread == pytest.approx(0.007)
    extractor = PcaExtractor.fitted(textures(30)[:, None].astype(float), 0.5)
    assert extractor.views(textures(30)[:, None].astype(float)).error.mean() == pytest.approx(
        36, rel=0.2
    )  # what the noise's variance is


def test_auroc() -> None:
    """scikit-learn's value, ties included; an interval that covers the truth; one class alone has none."""
    rng = np.random.default_rng(0)
    normal, bad = np.round(rng.normal(size=60), 1), np.round(rng.normal(1, 1, 40), 1)
    labels = np.append(np.zeros(60), np.ones(40))
    found = auroc(normal, bad)
    assert found.value == pytest.approx(roc_auc_score(labels, np.append(normal, bad)))
    truth = 0.7602  # Phi(1 / sqrt 2)
    covered = [truth in auroc(rng.normal(size=60), rng.normal(1, 1, 40), draws=400) for _ in range(100)]
    assert 0.87 <= np.mean(covered) <= 1
    with pytest.raises(DataError, match="60 normal and 0 anomalous"):
        auroc(normal, [])


def test_localization() -> None:
    """Pixel AUROC is scikit-learn's; PRO is what counting by hand gives, and a small region weighs as much as a large
    one."""
    rng = np.random.default_rng(0)
    masks = rng.random((4, 12, 12)) > 0.8
    maps = np.round(rng.random((4, 12, 12)) + 0.5 * masks, 1)
    assert localization(maps, masks).pixel_auroc == pytest.approx(roc_auc_score(masks.reshape(-1), maps.reshape(-1)))

    masks, maps = np.zeros((2, 10, 10), dtype=bool), np.zeros((2, 10, 10))
    masks[0, :4, :4] = True
    masks[0, 9, 9] = masks[1, 5, 5] = masks[1, 6, 6] = True  # the last two hang together
    maps[0, :4, :4] = 1.0
    assert localization(masks.astype(float), masks).pro == pytest.approx(1)
    # at no false positive 1 of 3 regions; the rest comes with all other pixels, at a rate of 1: 1/3 + 2/3 x, mean up to
    # 0.3
    assert localization(maps, masks).pro == pytest.approx(1 / 3 + 2 / 3 * 0.15)
    thirds = maps.copy()
    thirds[1, 6, 6] = 2.0  # half of the third region
    assert localization(thirds, masks).pro == pytest.approx(0.5 + 0.5 * 0.15)
    with pytest.raises(DataError, match="undefined"):
        localization(maps, np.zeros_like(masks))


@pytest.mark.parametrize("with_vae", [True, False], ids=["vae", "pca"])
def test_saved(vae: vw.Autoencoder, fitted: AnomalyDetector, tmp_path: Path, with_vae: bool) -> None:
    """A detector from its file scores identically, and only with its own networks."""
    x = textures(8, seed=4) if with_vae else np.random.default_rng(1).normal(size=(8, 6))
    detector = fitted if with_vae else AnomalyDetector(combine="max").fit(np.random.default_rng(0).normal(size=(60, 6)))
    path = tmp_path / "d.safetensors"
    save_detector(detector, path)
    again = load_detector(path, vae if with_vae else None)
    assert (again.score_samples(x) == detector.score_samples(x)).all()
    assert (again.heat_maps(x) == detector.heat_maps(x)).all()
    assert again.offset_ == detector.offset_ and again.false_alarms_ == detector.false_alarms_
    with pytest.raises(ConfigError, match="exists"):
        save_detector(detector, path)
    if with_vae:
        with pytest.raises(ConfigError, match="another model network"):
            load_detector(path, vw.build(MODEL))
        with pytest.raises(ConfigError, match="another features network"):
            load_detector(path, vae, lambda x: [x])
        with pytest.raises(ConfigError, match="give the same one"):
            load_detector(path)
        vw.save(vae, tmp_path / "vae.safetensors")
        with pytest.raises(FormatError, match="no detector"):
            load_detector(tmp_path / "vae.safetensors", vae)


def test_foreign_features(vae: vw.Autoencoder) -> None:
    """Any network can compare images with reconstructions: the identity's features are the direction of pixels."""
    detector = AnomalyDetector(
        vae, features=lambda x: [torch.cat([x, torch.ones_like(x)], 1)], evidence=("features",)
    ).fit(textures(40))
    bad, masks = blotched(textures(20, seed=5))
    assert localization(detector.heat_maps(bad), masks).pixel_auroc > 0.6
    tiny = vw.build("taesd")
    colours = np.repeat(textures(12)[..., None], 3, axis=-1)
    assert np.isfinite(AnomalyDetector(tiny.eval()).fit(colours).score_samples(colours)).all()


def test_comparison(fitted: AnomalyDetector) -> None:
    """All methods see the planted blotches; those with maps see where; without masks there are no such figures."""
    normals = textures(120)[:, None]
    bad, masks = blotched(textures(20, seed=6))
    test = np.concatenate([textures(20, seed=7), bad])[:, None]
    truth = Truth(np.arange(40) >= 20, np.concatenate([np.zeros_like(masks), masks]), np.ones(40, dtype=bool))
    rows = [*own_rows(fitted, fitted.readings(test), truth), *baseline_rows(fitted, normals, test, truth)]
    assert len(rows) == 9
    for row in rows:
        assert row.auroc is not None and row.auroc.value > 0.9, row
        assert row.false_alarms is not None and row.false_alarms.value <= 0.25
        if row.places is not None:
            assert row.places.pixel_auroc > 0.85, row
    assert [row.method for row in rows if row.places is None] == [
        "reconstruction alone",
        "features alone",
        "density alone",
        "nearest images, 32 px",
    ]
    cropped = Truth(
        np.ones(20, dtype=bool), np.zeros_like(masks), np.ones(20, dtype=bool)
    )  # no defect is left in what is seen
    assert [row.places for row in own_rows(fitted, fitted.readings(bad), cropped)] == [None] * 4
    alone = list(own_rows(fitted, fitted.readings(bad), Truth(np.ones(20, dtype=bool))))
    assert alone[0].auroc is None and alone[0].false_alarms is None and alone[0].found is not None


def test_overlay() -> None:
    """Bare where nothing is odd, yellow where it is."""
    values = np.zeros((8, 8))
    values[2, 2] = 9
    found = overlay(np.full((1, 8, 8), 100, np.uint8), values, 1.0, 3.0)
    assert (found[:, 5, 5] == 100).all()
    assert found[0, 2, 2] > 180 and found[2, 2, 2] < 100


@pytest.fixture(scope="module")
def place(vae: vw.Autoencoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders as MVTec AD has them, and a model."""
    root = tmp_path_factory.mktemp("place")
    vw.save(vae, root / "vae.safetensors")
    bad, masks = blotched(textures(8, seed=8))
    for folder, images in (
        ("normal", textures(100)),
        ("test/good", textures(8, seed=9)),
        ("test/blotch", bad),
        ("masks/blotch", masks),
    ):
        (root / folder).mkdir(parents=True)
        for i, image in enumerate(images):
            name = f"{i:03d}_mask.png" if "masks" in folder else f"{i:03d}.png"
            Image.fromarray((image * 255).astype(np.uint8) if image.dtype == bool else image).save(root / folder / name)
    return root


def test_masks(tmp_path: Path) -> None:
    """Masks of equal names are told apart by their class; 1 is as good as 255; who has none is known; sizes follow the
    images."""
    for folder in ("test/good", "test/a", "test/b", "test/c", "masks/a", "masks/b"):
        (tmp_path / folder).mkdir(parents=True)
    for label in ("good", "a", "b", "c"):
        Image.new("L", (20, 10), 50).save(tmp_path / "test" / label / "000.png")
    for label, value, column in (("a", 255, 2), ("b", 1, 15)):
        mask = np.zeros((10, 20), np.uint8)
        mask[4:8, column : column + 4] = value
        Image.fromarray(mask).save(tmp_path / "masks" / label / "000_mask.png")
    files = scan(tmp_path / "test").files
    labels = class_labels(files, None)
    assert labels == ("a", "b", "c", "good")
    truth = read_truth(files, labels, tmp_path / "masks", None)
    assert truth.masks is not None and truth.masked is not None
    assert truth.anomalous.tolist() == [True, True, True, False] and truth.masked.tolist() == [True, True, False, True]
    assert truth.masks.sum((1, 2)).tolist() == [16, 16, 0, 0] and truth.masks[0, 5, 3] and truth.masks[1, 5, 16]
    small = read_truth(files, labels, tmp_path / "masks", 5)  # the middle square, halved
    assert small.masks is not None and small.masks[1].sum() == 0 and read_images(files, 5, 1).shape == (4, 1, 5, 5)
    assert class_labels(files[:3], None) is None


def run(capsys: pytest.CaptureFixture, *words: object) -> dict:
    assert main(["anomaly", *map(str, words), "--json"]) == 0
    told = capsys.readouterr()
    assert "are among the normal ones" not in told.err
    return json.loads(told.out)


def test_command(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Fit, score, compare; then the saved detector scores the same without fitting."""
    model, normal, out = place / "vae.safetensors", place / "normal", tmp_path / "out"
    result = run(capsys, model, "--normal", normal, "--test", place / "test", "--masks", place / "masks", "--out", out)
    assert [row["method"] for row in result["table"]][:2] == ["detector", "reconstruction alone"] and len(
        result["table"]
    ) == 9
    assert result["table"][0]["auroc"]["value"] > 0.95 and result["table"][0]["places"]["pixel_auroc"] > 0.9
    assert result["normals"] == {"fit": 70, "scale": 10, "threshold": 20}
    assert result["classes"]["blotch"]["auroc"]["value"] == result["table"][0]["auroc"]["value"]
    assert json.loads((out / "anomaly.json").read_text()) == result
    rows = list(csv.DictReader((out / "scores.csv").read_text().splitlines()))
    assert len(rows) == 16 and float(rows[0]["anomaly"]) >= float(rows[-1]["anomaly"])
    assert sum(int(row["alarm"]) for row in rows) == result["alarms"]
    assert (
        all(Path(name).stat().st_size for name in result["pictures"]) and str(out / "worst.jpg") in result["pictures"]
    )

    page = checked(out / "report.html")
    assert len(page.pictures()) == len(result["pictures"]) and result["page"] == str(out / "report.html")
    assert f"{result['alarms']} of 16" in page.said and "AUROC against good" in page.said and "blotch" in page.said

    again = tmp_path / "again"
    other = run(capsys, model, "--detector", out / "detector.safetensors", "--test", place / "test", "--out", again)
    assert (again / "scores.csv").read_text() == (out / "scores.csv").read_text()
    assert [row["places"] for row in other["table"]] == [None] * 4
    one = run(
        capsys,
        model,
        "--detector",
        out / "detector.safetensors",
        "--test",
        place / "test" / "good",
        "--out",
        tmp_path / "one",
    )
    assert one["table"][0]["auroc"] is None and one["table"][0]["false_alarms"]["value"] <= 0.5
    assert (
        main(
            [
                "anomaly",
                str(model),
                "--normal",
                str(normal),
                "--test",
                str(normal),
                "--out",
                str(tmp_path / "unknown"),
                "--json",
            ]
        )
        == 0
    )
    told = capsys.readouterr()
    assert "100 test images are among the normal ones" in told.err and "AUROC is undefined" in told.err
    assert "table" not in json.loads(told.out)


def test_masks_tell_what_is_anomalous(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """In one folder of images, those whose mask marks something are anomalous; masks of 0 and 1 are as good, black ones
    mark nothing."""
    for kind in ("good", "blotch"):
        for path in (place / "test" / kind).iterdir():
            (tmp_path / "test").mkdir(exist_ok=True)
            (tmp_path / "test" / f"{kind}-{path.name}").write_bytes(path.read_bytes())
    (tmp_path / "masks").mkdir()
    for path in (place / "masks/blotch").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) // 255).save(tmp_path / "masks" / f"blotch-{path.name}")
    Image.new("L", (SIZE, SIZE)).save(tmp_path / "masks" / "good-000.png")
    words = (place / "vae.safetensors", "--normal", place / "normal", "--no-baselines")
    result = run(capsys, *words, "--test", tmp_path / "test", "--masks", tmp_path / "masks", "--out", tmp_path / "out")
    known = run(capsys, *words, "--test", place / "test", "--masks", place / "masks", "--out", tmp_path / "known")
    assert [row["places"] for row in result["table"]] == [row["places"] for row in known["table"]]
    assert {name: row["images"] for name, row in result["classes"].items()} == {"anomalous": 8, "good": 8}
    assert result["table"][0]["auroc"]["value"] == known["table"][0]["auroc"]["value"]


def test_normals_that_the_model_has_learned_from(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The threshold is for images that nobody has learned from; where the model has, that is said."""
    files = scan("procedural:10:32").files
    (tmp_path / "data.json").write_text(json.dumps({"train": [{"digest": file.digest} for file in files[:4]]}))
    seen = trained_on(tmp_path)
    warn_of_trained(seen, files, TERMINAL)
    assert "trained on 4 of these 10 images, which look more normal to it" in capsys.readouterr().err
    warn_of_trained(seen, files[4:], TERMINAL)
    warn_of_trained(trained_on(tmp_path / "vae.safetensors"), files, TERMINAL)
    assert not capsys.readouterr().err


def test_command_refuses(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """One line each, and nothing is written."""
    model, normal, out = place / "vae.safetensors", place / "normal", tmp_path / "out"
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    Image.new("L", (SIZE, SIZE - 1), 255).save(wrong / "000.png")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for i, size in enumerate(((32, 32), (32, 36))):
        Image.new("L", size).save(mixed / f"{i}.png")
    test = ("--test", place / "test")
    black = tmp_path / "black"
    black.mkdir()
    for i in range(8):
        Image.new("L", (SIZE, SIZE)).save(black / f"{i:03d}.png")
    for words, says in (
        ((), "either --normal SRC"),
        (("--normal", normal, "--detector", "d.safetensors", *test), "either --normal SRC"),
        (("--normal", normal, "--masks", wrong), "give --test"),
        (
            ("--detector", "d.safetensors", *test, "--held-out", "0.5", "--density", "shared"),
            "which --density, --held-out cannot",
        ),
        (("--detector", "d.safetensors", *test), "d.safetensors does not exist"),
        (("--normal", mixed), "images must have one size"),
        (("--normal", normal, "--seed", "-1"), "seed (=-1) must not be negative"),
        (("--normal", place / "test" / "good"), "give 84 more"),
        (("--normal", normal, "--false-alarms", "0.01"), "needs at least 1/0.01 - 1 = 99 normals"),
        (("--normal", normal, *test, "--masks", wrong), "is 32x31, its image"),
        (("--normal", normal, *test, "--masks", normal / "nowhere"), "is no folder"),
        (("--normal", normal, *test, "--masks", black), "marks anything"),
        (("--normal", normal, "--features-weights", "w.pth"), "name it with --features"),
    ):
        assert main(["anomaly", str(model), "--out", str(out), *map(str, words)]) == 2, words
        assert says in capsys.readouterr().err, words
        assert not out.exists() or not list(out.iterdir()), words
