"""Latents as features: the transformer is scikit-learn's kind of one, and a planted class is found where it is, and
only there."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from html_pages import checked
from idx_files import idx
from scipy.stats import ttest_rel
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import vaeworks as vw
from vaeworks.apps.features import few_labels as study
from vaeworks.apps.features.few_labels import (
    LATENTS,
    LINEAR,
    NEAREST,
    PIXELS,
    Representation,
    few_labels,
    linear_probe,
    normalized,
)
from vaeworks.apps.features.label_splits import Draws, draw_labels
from vaeworks.apps.features.latent_features import LatentFeatures, _moments, feature_names, pooled
from vaeworks.cli import main
from vaeworks.errors import ConfigError, DataError
from vaeworks.files.atomic import read_tensors
from vaeworks.images import to_model_range
from vaeworks.intervals import student

GRAY = vw.AutoencoderConfig(
    in_channels=1,
    out_channels=1,
    channels=8,
    channel_mult=(1, 1, 2),
    num_res_blocks=1,
    norm_groups=4,
    latent_channels=2,
    mid_attention=False,
)


def built(seed: int = 0) -> vw.Autoencoder:
    torch.manual_seed(seed)
    return vw.build(GRAY).eval()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 digits of 8 px as IDX files, and a model's file."""
    root = tmp_path_factory.mktemp("features")
    (root / "digits").mkdir()
    truth = load_digits()
    for ending, values in (("images-idx3-ubyte", truth.images[:200] * 15), ("labels-idx1-ubyte", truth.target[:200])):
        (root / f"digits/t-{ending}").write_bytes(idx(values.astype(np.uint8)))
    vw.save(built(), root / "model.safetensors", layout="native")
    return root


def images(count: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 12, 8), dtype=np.uint8)


# the transformer


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_estimator() -> None:
    """scikit-learn's own checks of estimators, on flattened input."""
    results = check_estimator(LatentFeatures(standardize=True), on_fail=None, on_skip=None)
    assert not [(r["check_name"], r["exception"]) for r in results if r["status"] not in ("passed", "skipped")]
    assert len([r for r in results if r["status"] == "passed"]) > 40


def test_means_of_posteriors(place: Path) -> None:
    """Features are the encoder's means, c h w, whatever the layout, and whether the model is an object or a name."""
    vae, x = built(), images()
    with torch.no_grad():
        mean = vae.encode(to_model_range(torch.from_numpy(x)[:, None])).mean.numpy()
    expected = mean.reshape(len(x), -1)
    for layout in (x, x[..., None], x[:, None]):
        assert np.allclose(LatentFeatures(vae).fit_transform(layout), expected, atol=1e-6)
    named = LatentFeatures(place / "model.safetensors", image_shape=(12, 8)).fit(x.reshape(7, -1))
    assert np.allclose(named.transform(x.reshape(7, -1)), expected, atol=1e-6)
    names = list(named.get_feature_names_out())
    assert len(set(names)) == expected.shape[1]
    assert np.allclose(expected[:, names.index("z1_2_1")], mean[:, 1, 2, 1])


def test_copies_and_processes(place: Path, tmp_path: Path) -> None:
    """Clones and pickles give the same features; a pickle holds a name instead of a network, and notices another one
    behind it."""
    x = images()
    path = tmp_path / "model.safetensors"
    path.write_bytes((place / "model.safetensors").read_bytes())
    fitted = LatentFeatures(path, pool="mean").fit(x)
    expected = fitted.transform(x)
    assert np.array_equal(clone(fitted).fit_transform(x), expected)
    assert np.allclose(clone(LatentFeatures(built(), pool="mean")).fit_transform(x), expected)
    packed = pickle.dumps(fitted)
    assert len(packed) < 3_000 < path.stat().st_size
    assert np.array_equal(pickle.loads(packed).transform(x), expected)
    assert np.allclose(pickle.loads(pickle.dumps(LatentFeatures(built(), pool="mean").fit(x))).transform(x), expected)
    vw.save(built(1), path, layout="native", overwrite=True)
    with pytest.raises(ConfigError, match="another model"):
        pickle.loads(packed).transform(x)


def test_pipeline() -> None:
    """Before a classifier, on rows of pixels, upright stripes are told from level ones."""
    y = np.arange(60) % 2
    stripes = np.where(y[:, None, None], *np.mgrid[:8, :8])  # 60 8 8
    x = (
        (40 + 120 * (stripes // 2 % 2) + np.random.default_rng(0).integers(0, 40, stripes.shape))
        .astype(np.uint8)
        .reshape(60, -1)
    )
    pipeline = make_pipeline(LatentFeatures(built(), standardize=True, image_shape=(8, 8)), LogisticRegression())
    assert pipeline.fit(x[:40], y[:40]).score(x[40:], y[40:]) == 1


def test_pools_and_their_names() -> None:
    """Every number is what its name says, of latents whose values are known."""
    z = np.random.default_rng(0).normal(size=(3, 2, 8, 6))
    found = {
        pool: dict(zip(feature_names(z.shape[1:], pool), pooled(z, pool).T, strict=True))
        for pool in ("none", "mean-std", "pyramid")
    }
    assert np.allclose(found["none"]["z1_7_2"], z[:, 1, 7, 2])
    assert list(found["mean-std"]) == ["mean0", "mean1", "std0", "std1"]
    assert np.allclose(found["mean-std"]["std1"], z[:, 1].std((1, 2)))
    assert np.allclose(found["pyramid"]["mean1_1x1_0_0"], z[:, 1].mean((1, 2)))
    assert np.allclose(found["pyramid"]["mean0_2x2_1_0"], z[:, 0, 4:, :3].mean((1, 2)))
    assert np.allclose(found["pyramid"]["mean1_4x4_3_0"], z[:, 1, 6:, :2].mean((1, 2)))
    assert len(found["pyramid"]) == 2 * 21
    assert pooled(z[..., :1, :1], "pyramid").shape == (3, 2)


def test_standardized(place: Path) -> None:
    """Each channel has mean 0 and std 1 over fitted images and places; of other images the same is taken away."""
    x = images(9)
    fitted = LatentFeatures(place / "model.safetensors", standardize=True).fit(x)
    channels = fitted.transform(x).reshape(9, 2, -1)
    assert np.allclose(channels.mean((0, 2)), 0, atol=1e-5)
    assert np.allclose(channels.std((0, 2)), 1, atol=1e-5)
    assert np.allclose(fitted.transform(x[:2]), fitted.transform(x)[:2], atol=1e-5)


def test_refused(place: Path) -> None:
    """What cannot be is said in a line."""
    x, model = images(), place / "model.safetensors"
    with pytest.raises(ConfigError, match="pool"):
        LatentFeatures(model, pool="max").fit(x)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="image_shape"):
        LatentFeatures(model).fit(x.reshape(7, -1))
    with pytest.raises(ConfigError, match="resize"):
        LatentFeatures(model).fit(x).transform(x[:, :8])
    with pytest.raises(DataError, match=r"0\.\.255"):
        LatentFeatures(model).fit(x / 255)


def test_standardized_in_parts() -> None:
    """Moments over parts are those of all of them; a channel that does not vary counts as 1, also where its mean is
    rounded."""
    z = np.random.default_rng(0).normal(5, 3, (11, 3, 4, 5)).astype(np.float32)
    z[:, 1] = np.float32(0.1)
    mean, std = _moments(iter((z[:2], z[2:3], z[3:])))
    assert np.allclose(mean, z.mean((0, 2, 3)), rtol=1e-5) and np.allclose(
        std[[0, 2]], z.std((0, 2, 3))[[0, 2]], rtol=1e-5
    )
    assert std[1] == 1 and mean.dtype == std.dtype == np.float32


# the study


def drawn(labels: Sequence[int], counts: Sequence[int], choices: int) -> Draws:
    """Of random images with these classes."""
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (len(labels), 1, 4, 4), dtype=np.uint8))
    return draw_labels(pixels, [f"class {label}" for label in labels], counts, choices)


def planted(name: str, signal: float, classes: np.ndarray, seed: int) -> Representation:
    """Rows with the class in them, and noise."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(int(classes.max()) + 1, 20))
    return Representation(name, "planted", normalized(signal * centres[classes] + rng.normal(size=(len(classes), 20))))


@pytest.mark.parametrize("there", [LATENTS, PIXELS])
def test_planted(there: str) -> None:
    """The class is found where it was planted, chance where it was not, and the difference has its sign."""
    classes = np.arange(240) % 4
    draws = drawn(classes.tolist(), (1, 4), 4)
    kinds = [planted(name, 4.0 if name == there else 0.0, classes, seed) for seed, name in enumerate((LATENTS, PIXELS))]
    for row in few_labels(kinds, draws):
        accuracy = row.accuracy[4].value
        assert accuracy > 0.95 if row.representation == there else abs(accuracy - draws.chance) < 0.12
        if row.representation == LATENTS:
            assert row.gain[4].low > 0 if there == LATENTS else row.gain[4].high < 0
        else:
            assert row.gain[4].value == row.gain[4].low == 0


def test_identical_labels_for_all() -> None:
    """Equal rows under two names have equal accuracies, label for label: nothing else differs between
    representations."""
    classes = np.arange(160) % 4
    one = planted(PIXELS, 0.7, classes, 0)
    rows = few_labels([one, Representation(LATENTS, "", one.rows)], drawn(classes.tolist(), (1, 5), 2))
    for classifier in (LINEAR, NEAREST):
        first, second = (row for row in rows if row.classifier == classifier)
        assert first.each == second.each and first.c == second.c
        assert len(set(first.each[1])) > 1  # other labels, other accuracies


def test_draws() -> None:
    """Halves do not overlap, larger counts contain smaller ones, counts are per class, and order and copies play no
    part."""
    rng = np.random.default_rng(3)
    pixels = torch.from_numpy(rng.integers(0, 256, (90, 1, 4, 4), dtype=np.uint8))
    pixels[60:] = pixels[30:60]  # every image of the second third twice
    labels = [str(i % 3) for i in range(90)]
    draws = draw_labels(pixels, labels, (2, 6), 5)
    for choice in draws.labelled:
        assert set(choice[2]) < set(choice[6])
        assert (np.bincount(draws.targets[choice[6]]) == 6).all()
        assert not set(choice[6]) & set(draws.test)
    assert not torch.equal(*(torch.from_numpy(draws.labelled[i][2]) for i in (0, 1)))
    tested = set(draws.test.tolist())
    assert all((i in tested) == (i + 30 in tested) for i in range(30, 60))
    assert draws.chance == max(np.bincount(draws.targets[draws.test])) / len(draws.test)
    order = rng.permutation(90)
    other = draw_labels(pixels[order], [labels[i] for i in order], (2, 6), 5)
    assert {int(order[i]) for i in other.test} == tested


@pytest.mark.parametrize(
    ("labels", "counts", "says"),
    [
        (["a"] * 20, (1,), "one class"),
        (None, (1,), "no labels"),
        (["a"] * 20 + ["b"] * 5, (4,), "'b' has 5 images, . beside its test half; 4 labels"),
        (["a", "b"] * 10, (0,), "counts"),
    ],
)
def test_labels_that_do_not_suffice(labels: list[str] | None, counts: tuple[int, ...], says: str) -> None:
    """One line says what is missing."""
    pixels = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (len(labels or "x" * 20), 1, 4, 4), dtype=np.uint8)
    )
    with pytest.raises((ConfigError, DataError), match=says):
        draw_labels(pixels, labels, counts, 2)


@pytest.mark.parametrize("count", [4, 8])
def test_the_probe_is_scikit_learns(count: int) -> None:
    """In the space of the labelled rows logistic regression has the classes that it has in the whole one, at the C that
    is told."""
    rng = np.random.default_rng(0)
    y = np.arange(count * 3) % 3
    x, test = (normalized(rng.normal(size=(n, 120)) + 0.8 * np.eye(3, 120)[np.arange(n) % 3]) for n in (len(y), 60))
    found, c = linear_probe(x, y, test, 0)
    assert c == study.FIXED if count < study.FOLDS else c in study.TRIED
    whole = LogisticRegression(C=c, max_iter=2000, tol=1e-8).fit(x, y)
    values = np.sort(whole.decision_function(test), 1)
    clear = values[:, -1] - values[:, -2] > 1e-3 * values.std()
    assert clear.mean() > 0.9
    assert (found == whole.predict(test))[clear].all()


def test_neighbours_are_as_many_as_labels() -> None:
    """One label a class: the nearest; more: five vote."""
    rng = np.random.default_rng(0)
    x, test = rng.normal(size=(30, 3)), rng.normal(size=(50, 3))
    for size, k in ((3, 1), (30, 5)):
        y = np.arange(size) % 3
        expected = KNeighborsClassifier(k, weights="distance").fit(x[:size], y).predict(test)
        assert (study.nearest_neighbours(x[:size], y, test) == expected).all()


def test_student() -> None:
    """The interval of a paired difference is that of the paired t-test."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=6), rng.normal(1, 1, size=6)
    found, expected = student(a - b), ttest_rel(a, b).confidence_interval(0.95)
    assert np.allclose((found.low, found.high), (expected.low, expected.high))
    assert np.isnan(student([1.0]).low)


def test_normalized() -> None:
    """Every representation is centred and of mean squared length 1, so that one C means the same; nothing else
    changes."""
    x = np.random.default_rng(0).normal(3, 7, (40, 5))
    rows = normalized(x)
    assert np.allclose(rows.mean(0), 0, atol=1e-6) and np.isclose(np.square(rows).sum(1).mean(), 1)
    assert np.allclose(np.corrcoef(rows.T), np.corrcoef(x.T))
    assert (normalized(np.ones((4, 3))) == 0).all()


# the command


@pytest.mark.parametrize("kind", ["safetensors", "npy"])
def test_command(place: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures, charts and features; the same again from the same seed; nothing that exists is replaced unasked."""
    out = tmp_path / "out"
    words = [
        "features",
        str(place / "model.safetensors"),
        "--data",
        str(place / "digits"),
        "--counts",
        "1",
        "3",
        "--choices",
        "2",
    ]
    assert main([*words, "--out", str(out), "--write", kind, "--json"]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert json.loads((out / "features.json").read_text()) == result
    assert result["chance"] == pytest.approx(0.11, abs=0.03) and "always naming the most common" in said.err
    assert [(r["classifier"], r["representation"]) for r in result["rows"]] == [
        (c, r) for c in (LINEAR, NEAREST) for r in (LATENTS, PIXELS, "PCA of pixels")
    ]
    assert all(0 <= share <= 1 for row in result["rows"] for shares in row["each"].values() for share in shares)
    assert checked(out / "report.html").text.count("<svg") == 2 and result["page"] == str(out / "report.html")
    for name in ("linear-probe.svg", "neighbours.svg"):
        assert (out / name).read_text().startswith("<svg")
    with (out / "features.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 200 and rows[17]["label"] == str(load_digits().target[17])
    if kind == "npy":
        stored = np.load(out / "features.npy")
    else:
        tensors, facts = read_tensors(out / "features.safetensors")
        stored = tensors["features"].numpy()
        assert json.loads(facts["features"])[-1] == "z1_1_1" and json.loads(facts["labels"])[17] == rows[17]["label"]
    pixels = (load_digits().images[:200] * 15).astype(np.uint8)
    assert np.allclose(stored, LatentFeatures(built()).fit_transform(pixels), atol=1e-5)
    assert main([*words, "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, "--out", str(tmp_path / "again"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == result["rows"]


def test_command_refuses(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, before anything is encoded, and nothing is written."""
    monkeypatch.setattr("vaeworks.apps.codes.encode_pixels", None)
    words = [
        "features",
        str(place / "model.safetensors"),
        "--data",
        str(place / "digits"),
        "--out",
        str(tmp_path / "out"),
    ]
    for more, says in (
        (("--counts", "50"), "beside its test half"),
        (("--labels", "none"), "have no classes"),
        (("--size", "9", "--counts", "1"), "multiple"),
        (("--counts", "0"), "at least 1"),
        (("--seed", "-1"), "negative"),
    ):
        assert main([*words, *more]) == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_network_that_saw_labels(
    place: Path, tmp_path: Path, test_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MobileNetV2 is a row of the table; it cannot look at 8 px, which is said before anything is encoded."""
    weights = str(test_data / "weights/mobilenetv2-keras-features")
    words = [
        "features",
        str(place / "model.safetensors"),
        "--data",
        str(place / "digits"),
        "--counts",
        "1",
        "--choices",
        "2",
    ]
    words += ["--features", "mobilenetv2", "--features-weights", weights, "--json", "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "at least 32 px" in capsys.readouterr().err
    assert main([*words, "--size", "32"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert (
        rows[3]["representation"] == "mobilenetv2"
        and rows[3]["dimensions"] == 1280
        and rows[3]["accuracy"]["1"]["value"] > 0.2
    )
