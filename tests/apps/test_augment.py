"""Augmentation: labels follow what images are made of, provenance is the image, and a judgement can come out either
way."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from configs import TINY
from html_pages import checked
from idx_files import idx
from PIL import Image
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.apps.augmentation import Noise, Renderer, Variant, blends, reproduce, write_folder
from vaeworks.apps.augmentation import judgement as judging
from vaeworks.apps.augmentation.folder import check_folder, read_rows
from vaeworks.apps.augmentation.judgement import COPIES, LATENT, MIXED, TRANSFORMED, judge, training_sets, transformed
from vaeworks.apps.augmentation.plan import plan, soft_label
from vaeworks.apps.codes import Codes, decode_picture, encode_picture
from vaeworks.apps.features.label_splits import draw_labels
from vaeworks.cli import main
from vaeworks.config import BottleneckConfig
from vaeworks.data import scan
from vaeworks.data.labels import find_labels
from vaeworks.errors import ConfigError, DataError, FormatError
from vaeworks.features.classifier import Classifier, classes_seen, fit
from vaeworks.images import open_image, to_uint8

POINT = vw.AutoencoderConfig(
    channels=8,
    channel_mult=(1, 2),
    num_res_blocks=1,
    norm_groups=4,
    mid_attention=False,
    bottleneck=BottleneckConfig(kind="point"),
)
METHODS = ("noise", "interpolate", "mixup")


def built(config: vw.AutoencoderConfig, seed: int = 0) -> vw.Autoencoder:
    torch.manual_seed(seed)
    return vw.build(config).eval()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine images of three classes, of odd and different sizes, and two models' files."""
    root = tmp_path_factory.mktemp("augment")
    rng = np.random.default_rng(0)
    for number, name in enumerate(["ant", "bee", "cat", "ant", "bee", "cat", "ant", "bee", "cat"]):
        (root / "data" / name).mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)).resize((13 + number, 10), 3)
        picture.save(root / "data" / name / f"{number}.png")
    for name, config in (("kl", TINY), ("point", POINT)):
        vw.save(built(config), root / f"{name}.safetensors", layout="native")
    return root


def planned(place: Path, method: str, per_image: int = 2, seed: int = 0) -> list[Variant]:
    images = scan(place / "data")
    noise = Noise(temperature=1.5) if method == "noise" else None
    labels = find_labels(images.files, "folders")
    assert labels is not None
    return plan(images.files, labels, method, per_image, seed, noise, Renderer(vw.Codec(built(TINY))).model)


# what variants are made of


@pytest.mark.parametrize("method", METHODS)
def test_soft_labels(place: Path, method: str) -> None:
    """Labels sum to 1, follow the sources' weights, and the folder is the class that has most."""
    for v in planned(place, method, 6):
        assert sum(v.label.values()) == pytest.approx(1) == sum(v.weights)
        classes = [Path(source).parent.name for source in v.sources]
        expected: dict[str, float] = {}
        for name, weight in zip(classes, v.weights, strict=True):
            expected[name] = expected.get(name, 0) + weight
        assert v.label == expected
        assert Path(v.file).parent.name == classes[0] == max(v.label, key=lambda name: v.label[name])
        assert len(v.sources) == (1 if method == "noise" else 2) and len(set(v.sources)) == len(v.sources)
        assert len(v.label) == (2 if method == "mixup" else 1)
    assert len({v.file for v in planned(place, method, 6)}) == 54


def test_partners_and_weights_vary() -> None:
    """Partners are drawn evenly, weights from their distributions: interpolation evenly up to a half, mixup near the
    ends."""
    labels = ["a"] * 5 + ["b"] * 5
    for method, mean in (("interpolate", 0.25), ("mixup", 0.158)):  # E min(x, 1-x) of Beta(0.4, 0.4), by integration
        found = blends(method, labels, list(range(10)), 400, 0)  # type: ignore[arg-type]
        shares = np.array([b.weights[1] for b in found])
        assert shares.min() >= 0 and shares.max() <= 0.5
        assert shares.mean() == pytest.approx(mean, abs=0.01)
        of_first = np.bincount([b.rows[1] for b in found[:400]], minlength=10)
        possible = [1, 2, 3, 4] if method == "interpolate" else [5, 6, 7, 8, 9]
        assert of_first[possible].sum() == 400 and of_first[possible].min() > 0.7 * 400 / len(possible)


def test_noise_does_not_depend_on_other_images(place: Path) -> None:
    """More variants, or other images beside it, leave a variant what it is."""
    few, many = planned(place, "noise", 2), planned(place, "noise", 3)
    assert {json.dumps(v.to_dict()) for v in few} < {json.dumps(v.to_dict()) for v in many}
    assert blends("noise", ["a"], [7], 2, 0) == [b for b in blends("noise", ["a", "a"], [7, 8], 2, 0) if b.rows == (0,)]
    assert len({b.draw for b in blends("noise", ["a", "a"], [7, 8], 2, 0)}) == 4


def test_no_partner() -> None:
    """One line where there is nothing to mix with, or a setting is none."""
    with pytest.raises(DataError, match="one class"):
        blends("mixup", ["a", "a"], [0, 1], 1, 0)
    with pytest.raises(DataError, match="'b' has one image"):
        blends("interpolate", ["a", "a", "b"], [0, 1, 2], 1, 0)
    for broken in ({"per_image": 0}, {"alpha": 0.0}, {"method": "blur"}):
        with pytest.raises(ConfigError):
            blends(**{"method": "mixup", "labels": ["a", "b"], "keys": [0, 1], "per_image": 1, "seed": 0, **broken})


# from provenance to pixels


def opened(path: Path) -> Tensor:
    return to_uint8(open_image(path, 3))


@pytest.mark.parametrize("method", METHODS)
def test_provenance_is_the_image(place: Path, tmp_path: Path, method: str) -> None:
    """Every image is made again from its row of JSON, bit for bit, at its source's size, whatever the order."""
    codec = vw.Codec(built(TINY))
    write_folder(tmp_path / "out", planned(place, method), Renderer(codec), {})
    rows = read_rows(tmp_path / "out")
    assert len(rows) == 18
    for row in reversed(rows):
        image = opened(tmp_path / "out" / row["file"])
        assert torch.equal(image, reproduce(codec, row))
        assert image.shape == opened(Path(row["sources"][0])).shape
        assert Variant.from_dict(row).to_dict() == {
            **row,
            **{k: tuple(v) for k, v in row.items() if isinstance(v, list)},
        }
    images = {opened(tmp_path / "out" / row["file"]).numpy().tobytes() for row in rows}
    assert len(images) == 18  # no two alike
    with (tmp_path / "out/provenance.csv").open() as file:
        table = list(csv.DictReader(file))
    for line, row in zip(table, rows, strict=True):
        assert {
            k.removeprefix("label:"): float(v) for k, v in line.items() if k.startswith("label:") and float(v)
        } == row["label"]


def test_the_latents_are_what_is_told(place: Path) -> None:
    """Without noise a variant is the reconstruction; halfway between two images of one size, the mean of their latents,
    decoded."""
    codec = vw.Codec(built(TINY))
    render = Renderer(codec)
    base = planned(place, "noise")[0]
    code = encode_picture(codec, opened(Path(base.sources[0])))
    still = Variant.from_dict({**base.to_dict(), "noise": {"temperature": 0.0, "std": None}})
    assert torch.equal(render(still), decode_picture(codec, code.mean, code.height, code.width))
    zero = Variant.from_dict({**base.to_dict(), "noise": {"temperature": None, "std": [0.0] * 4}})
    assert torch.equal(render(zero), render(still))
    twice = {"sources": [*base.sources] * 2, "digests": [*base.digests] * 2, "weights": [0.5, 0.5], "noise": None}
    assert torch.equal(render(Variant.from_dict({**base.to_dict(), **twice})), render(still))


def test_other_sources(place: Path, tmp_path: Path) -> None:
    """A changed image, another model and a row that is none are refused."""
    path = tmp_path / "x.png"
    path.write_bytes((place / "data/ant/0.png").read_bytes())
    row = planned(place, "noise")[0].to_dict() | {"sources": [str(path)]}
    codec = vw.Codec(built(TINY))
    assert reproduce(codec, row).shape == (3, 10, 13)
    with pytest.raises(ConfigError, match="another model"):
        reproduce(vw.Codec(built(TINY, seed=1)), row)
    Image.new("RGB", (13, 10)).save(path)
    with pytest.raises(DataError, match="changed"):
        reproduce(codec, row)
    with pytest.raises(FormatError, match="no provenance"):
        reproduce(codec, {"file": "x"})


def test_places_by_name(place: Path, tmp_path: Path) -> None:
    """Digits, images of IDX files and members of tars are found by what a row calls them; of others the error says what
    to pass."""
    (tmp_path / "idx").mkdir()
    values = np.random.default_rng(0).integers(0, 255, (9, 8, 8)).astype(np.uint8)
    (tmp_path / "idx/t-images-idx3-ubyte").write_bytes(idx(values))
    (tmp_path / "idx/t-labels-idx1-ubyte").write_bytes(idx((np.arange(9) % 3).astype(np.uint8)))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(place / "data", "data")
    codec = vw.Codec(built(TINY))
    base = planned(place, "noise")[0].to_dict()
    for source in ("digits", str(tmp_path / "idx"), str(tmp_path / "a.tar"), "procedural:10:16"):
        file = scan(source).files[7]
        row = base | {"sources": [str(file.path)], "digests": [file.digest]}
        expected = reproduce(codec, row, {str(file.path): file.path})
        if source.startswith("procedural"):
            with pytest.raises(DataError, match=r"pass places=\{.*scan\(SRC\)"):
                reproduce(codec, row)
        else:
            assert torch.equal(reproduce(codec, row), expected)
    with pytest.raises(ConfigError, match="same precision"):
        reproduce(vw.Codec(built(TINY).bfloat16()), base)


# the folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_interrupted(place: Path, tmp_path: Path) -> None:
    """What was made before an interruption is whole and stays; the same call makes the rest, and the folder is an
    undisturbed one's."""
    variants, codec = planned(place, "mixup"), vw.Codec(built(TINY))
    render = Renderer(codec)
    made: list[str] = []

    def stopping(variant: Variant) -> Tensor:
        if len(made) == 7:
            raise KeyboardInterrupt
        made.append(variant.file)
        return render(variant)

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write_folder(out, variants, stopping, {"a": 1})
    assert sum(name.endswith(".png") for name in contents(out)) == 7 and not (out / "augment.json").exists()
    stamps = {name: (out / name).stat().st_mtime_ns for name in made}
    with pytest.raises(ConfigError, match="unfinished set of other"):
        check_folder(out, planned(place, "mixup", seed=1), False)
    assert write_folder(out, variants, render, {"a": 1}) == 7
    assert {name: (out / name).stat().st_mtime_ns for name in made} == stamps
    assert write_folder(tmp_path / "whole", variants, render, {"a": 1}) == 0
    assert contents(out) == contents(tmp_path / "whole")
    with pytest.raises(ConfigError, match="finished"):
        write_folder(out, variants, render, {"a": 1})


def test_overwritten(place: Path, tmp_path: Path) -> None:
    """Another set takes the place of the old one whole: no image stays without provenance, and what is not ours
    stays."""
    render, out = Renderer(vw.Codec(built(TINY))), tmp_path / "out"
    write_folder(out, planned(place, "mixup", 3), render, {})
    (out / "ant/mine.png").write_bytes(b"mine")
    write_folder(out, planned(place, "noise", 1), render, {}, overwrite=True)
    left = {name for name in contents(out) if name.endswith(".png")}
    assert left == {row["file"] for row in read_rows(out)} | {"ant/mine.png"}


def test_foreign_image_is_kept(place: Path, tmp_path: Path) -> None:
    """An image of a name that would be written is no half of a set."""
    variants = planned(place, "noise", 1)
    (tmp_path / variants[3].file).parent.mkdir(parents=True)
    (tmp_path / variants[3].file).write_bytes(b"mine")
    with pytest.raises(ConfigError, match="exists"):
        write_folder(tmp_path, variants, Renderer(vw.Codec(built(TINY))), {})
    assert contents(tmp_path) == {variants[3].file: b"mine"}


# the judge


class Brightness(nn.Module):
    """Latents: the image, and a number of which the mean is brightness. What an autoencoder could know of a nuisance,
    or get wrong."""

    device, dtype, downsample_factor = torch.device("cpu"), torch.float32, 1

    def __init__(self, sign: float = 1.0):
        super().__init__()
        self.sign = sign

    def decode(self, z: Tensor) -> Tensor:
        return self.sign * z[:, :1] + z[:, 1:].mean((2, 3), keepdim=True)


def slopes(count: int, seed: int = 0) -> Codes:
    """Two classes, brighter to the left or to the right, each image of a brightness of its own, and codes of
    `Brightness`."""
    rng = np.random.default_rng(seed)
    side = np.where(np.arange(count) % 2, 1, -1)[:, None, None] * np.linspace(-0.12, 0.12, 8)
    x = side + rng.normal(0, 0.05, (count, 8, 8)) + rng.uniform(-0.8, 0.8, (count, 1, 1))
    pixels = torch.from_numpy(((np.clip(x, -1, 1) + 1) * 127.5).round().astype(np.uint8))[:, None]
    image = pixels.float() / 127.5 - 1
    mean = torch.cat([image, torch.zeros_like(image)], 1)
    std = torch.cat([torch.zeros_like(image), torch.full_like(image, 4.0)], 1)  # a std of 0.5 in brightness
    return Codes(pixels, mean, std, tuple(map(str, range(count))), tuple("lr"[i % 2] for i in range(count)))


@pytest.mark.parametrize(("sign", "helps"), [(1.0, True), (-1.0, False)], ids=["helps", "harms"])
def test_planted(monkeypatch: pytest.MonkeyPatch, sign: float, helps: bool) -> None:
    """Variants that show what is beside the point help beyond chance; those that show the other class harm, and it is
    said so."""
    monkeypatch.setattr(judging, "SEEN", 960)
    codes = slopes(120)
    draws = draw_labels(codes.pixels, codes.labels, (3,), 5)
    arms = {
        arm.name: arm
        for arm in judge(Brightness(sign), codes, draws, Noise(temperature=1.0), per_image=8, methods=("noise",))
    }
    assert list(arms) == [COPIES, TRANSFORMED, MIXED, LATENT["noise"]]
    gain = arms[LATENT["noise"]].gain[3]
    assert gain.low > 0 if helps else gain.high < 0
    assert arms[COPIES].gain[3].value == arms[COPIES].gain[3].high == 0
    assert arms[COPIES].images[3] == 6 and arms[LATENT["noise"]].images[3] == 54
    each = arms[LATENT["noise"]].each[3]
    assert gain.value == pytest.approx(np.mean(np.subtract(each, arms[COPIES].each[3])))
    better = max((arms[TRANSFORMED], arms[MIXED]), key=lambda arm: arm.accuracy[3].value)
    assert arms[LATENT["noise"]].over_pixels[3].value == pytest.approx(np.mean(np.subtract(each, better.each[3])))


def test_training_sets() -> None:
    """Every arm begins with the same labelled images; mixtures have the mixture's target, in pixels and in latents
    alike."""
    known = slopes(6)
    targets = torch.eye(2, dtype=torch.float64)[[i % 2 for i in range(6)]]
    noise = Noise(temperature=1.0)
    sets = training_sets(Brightness(), known, targets, noise, 3, ("noise", "interpolate", "mixup"), 0.4, False, 5)
    for name, (pixels, soft) in sets.items():
        assert torch.equal(pixels[:6], known.pixels) and torch.equal(soft[:6], targets)
        assert len(pixels) == len(soft) == (6 if name == COPIES else 24)
        assert torch.allclose(soft.sum(1), torch.ones(len(soft), dtype=torch.float64))
        mixed = ((soft > 0) & (soft < 1)).any()
        assert mixed == (name in (MIXED, LATENT["mixup"]))
    pixels, soft = sets[MIXED]
    latents, same = sets[LATENT["mixup"]]
    assert torch.equal(soft, same)
    assert (pixels.int() - latents.int()).abs().max() <= 1  # these latents are linear in the pixels


def test_transformed() -> None:
    """Shifted images, with the border repeated; mirrored only where asked."""
    image = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8) * 4
    found = transformed(image, list(range(40)), 40, False, 0)
    assert found.shape == (40, 1, 8, 8) and len({f.numpy().tobytes() for f in found}) == 40
    rising = (found[:, 0, :, 7].double().mean(1) - found[:, 0, :, 0].double().mean(1)) > 0
    assert rising.double().mean() > 0.9
    mirrored = transformed(image, list(range(40)), 40, True, 0)
    rising = (mirrored[:, 0, :, 7].double().mean(1) - mirrored[:, 0, :, 0].double().mean(1)) > 0
    assert 0.2 < rising.double().mean() < 0.8


def test_soft_targets() -> None:
    """Certain probabilities train as classes do; even ones teach nothing."""
    codes = slopes(64)
    hard = torch.arange(64) % 2

    def taught(targets: Tensor) -> Classifier:
        network = Classifier(1, 8, 2)
        fit(network, lambda rows: codes.pixels[rows], targets, count=320, batch=32, seed=1, disturb=False)
        return network

    a, b, even = taught(hard), taught(torch.eye(2)[hard]), taught(torch.full((64, 2), 0.5))
    assert all(
        torch.allclose(x, y, atol=1e-4) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )
    with torch.no_grad():
        logits = even(codes.pixels.float() / 127.5 - 1)[1]
    assert (logits.softmax(1) - 0.5).abs().max() < 0.1
    assert len(classes_seen(a, codes.pixels)) == 64


# the command


def test_command(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images in folders by class, with a record; a second call is refused; what has no std of its own is disturbed, and
    told."""
    for model, says in (("kl", "gray levels"), ("point", "latents are points")):
        out = tmp_path / model
        words = [
            "augment",
            str(place / f"{model}.safetensors"),
            "--data",
            str(place / "data"),
            "--out",
            str(out),
            "--per-image",
            "2",
        ]
        assert main([*words, "--json"]) == 0
        said = capsys.readouterr()
        assert says in said.err
        result = json.loads(said.out)
        assert result["variants"] == 18 == len(list(out.rglob("*.png")))
        rows = read_rows(out)
        assert (rows[0]["noise"]["std"] is None) == (model == "kl") == (result["noise"] is None)
        assert torch.equal(
            opened(out / rows[5]["file"]), reproduce(vw.Codec(built(TINY if model == "kl" else POINT)), rows[5])
        )
        assert main(words) == 2
        assert "--overwrite" in capsys.readouterr().err


def test_a_narrow_posterior_is_told(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Variants that are all alike are called so, in gray levels."""
    words = ["augment", str(place / "kl.safetensors"), "--data", str(place / "data"), "--per-image", "1", "--json"]
    assert main([*words, "--out", str(tmp_path / "narrow"), "--temperature", "1e-4"]) == 0
    said = capsys.readouterr()
    assert "all alike" in said.err and json.loads(said.out)["pixel_std"] < 1
    assert main([*words, "--out", str(tmp_path / "wide"), "--noise", "3"]) == 0
    said = capsys.readouterr()
    assert "all alike" not in said.err and json.loads(said.out)["pixel_std"] > 1


def test_command_judges(
    tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row per arm with paired differences, and no images."""
    monkeypatch.setattr(judging, "SEEN", 64)
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for ending, values in (
        ("images-idx3-ubyte", rng.integers(0, 255, (24, 8, 8))),
        ("labels-idx1-ubyte", np.arange(24) % 2),
    ):
        (tmp_path / f"data/t-{ending}").write_bytes(idx(values.astype(np.uint8)))
    words = [
        "augment",
        str(place / "point.safetensors"),
        "--data",
        str(tmp_path / "data"),
        "--judge",
        "--counts",
        "2",
        "--choices",
        "2",
    ]
    assert main([*words, "--out", str(tmp_path / "out"), "--json"]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert [row["name"] for row in result["rows"]] == [COPIES, TRANSFORMED, MIXED, *LATENT.values()]
    assert "against copies" in said.err and "latents are points" in said.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["judge.json", "report.html"]
    assert "against copies" in checked(tmp_path / "out" / "report.html").said
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == result["rows"]


@pytest.mark.parametrize("counts", [("1",), ("1", "2")])
def test_command_judges_one_label(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, counts: tuple
) -> None:
    """One image of a class has no other to go to: that arm is missing where it would be, and said so; all others are
    there."""
    monkeypatch.setattr(judging, "SEEN", 64)
    words = [
        "augment",
        str(place / "kl.safetensors"),
        "--data",
        str(place / "data"),
        "--judge",
        "--choices",
        "1",
        "--counts",
        *counts,
    ]
    assert main([*words, "--size", "8", "--per-image", "1", "--json"]) == 0
    said = capsys.readouterr()
    assert "no other to interpolate to" in said.err
    rows = {row["name"]: row for row in json.loads(said.out)["rows"]}
    assert [name for name in (COPIES, TRANSFORMED, MIXED, *LATENT.values()) if name in rows] == list(rows)
    for name in (COPIES, TRANSFORMED, MIXED, LATENT["noise"], LATENT["mixup"]):
        assert list(rows[name]["accuracy"]) == list(rows[name]["gain"]) == list(counts)
    assert list(rows.get(LATENT["interpolate"], {"each": ()})["each"]) == [count for count in counts if count != "1"]


def test_temperature_and_noise(place: Path, tmp_path: Path) -> None:
    """Both count: twice the temperature is twice the noise."""
    stds = []
    for temperature in ("1", "2"):
        words = [
            "augment",
            str(place / "kl.safetensors"),
            "--data",
            str(place / "data"),
            "--per-image",
            "1",
            "--noise",
            "0.5",
        ]
        assert main([*words, "--temperature", temperature, "--out", str(tmp_path / temperature)]) == 0
        stds.append(np.array(read_rows(tmp_path / temperature)[0]["noise"]["std"]))
        assert json.loads((tmp_path / temperature / "augment.json").read_text())["temperature"] == float(temperature)
    assert np.allclose(stds[1], 2 * stds[0]) and stds[0].min() > 0


def test_command_refuses(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, before anything is encoded, and nothing is written."""
    for name in ("encode_pixels", "encode_picture"):
        monkeypatch.setattr(f"vaeworks.apps.codes.{name}", None)
    (tmp_path / "labels.csv").write_text("".join(f"{n}.png,a/b\n" for n in range(9)))
    one = tmp_path / "one"
    (one / "ant").mkdir(parents=True)
    (one / "ant/0.png").write_bytes((place / "data/ant/0.png").read_bytes())
    out = ("--out", str(tmp_path / "out"))
    for data, more, says in (
        (place / "data", (), "--out DIR is missing"),
        (place / "data", (*out, "--temperature", "0"), "temperature"),
        (place / "data", (*out, "--noise", "nan"), "noise (=nan)"),
        (place / "data", (*out, "--per-image", "0"), "per_image (=0)"),
        (place / "data", (*out, "--how", "mixup", "--alpha", "nan"), "alpha (=nan)"),
        (place / "data", ("--judge", "--counts", "1", "--per-image", "0"), "per_image (=0)"),
        (place / "data", (*out, "--labels", str(tmp_path / "labels.csv")), "'a/b' cannot be the name of a folder"),
        (place / "data", (*out, "--labels", "none"), "have no classes"),
        (place / "data", ("--judge", "--counts", "3"), "beside its test half"),
        (one, (*out, "--labels", "folders", "--how", "mixup"), "one class"),
        (one, (*out, "--labels", "folders", "--how", "interpolate"), "has one image"),
        (one, ("--labels", "folders", "--judge", "--counts", "1"), "one class"),
    ):
        assert main(["augment", str(place / "kl.safetensors"), "--data", str(data), *more]) == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_label_sums() -> None:
    """Two images of one class have that class's whole label."""
    (blend, _) = blends("interpolate", ["a", "a"], [0, 1], 1, 0)
    assert soft_label(blend, ["a", "a"]) == {"a": pytest.approx(1)}
