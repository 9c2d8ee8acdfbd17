"""What an evaluation records, that unlike ones are not compared, and the command."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from configs import ATTENTIVE_F4
from PIL import Image
from skimage.color import rgb2lab
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

import vaeworks as vw
from vaeworks.cli.main import main
from vaeworks.config import dumps
from vaeworks.data import photos, scan
from vaeworks.features.nets import alexnet
from vaeworks.images import open_image, to_model_range, to_uint8
from vaeworks.losses.ms_ssim import WEIGHTS
from vaeworks.losses.perceptual import LPIPS
from vaeworks.metrics import Evaluation, check_alike, compare, differences, evaluate, load_features
from vaeworks.metrics.colour import colour_bias
from vaeworks.metrics.crop import Crop
from vaeworks.metrics.gallery import chosen
from vaeworks.metrics.measure import _ms_ssim
from vaeworks.metrics.roundtrip import reconstruct_uint8, reconstruction
from vaeworks.metrics.throughput import throughput


class Shifted(vw.Autoencoder):
    """A model that returns what it is given, plus something, in gray levels of 255."""

    by: float | torch.Tensor = 0.0

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        return images + self.by / 127.5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures without extreme levels, one of them transparent."""
    place = tmp_path_factory.mktemp("pictures")
    for i, path in enumerate(photos()[:6]):
        picture = open_image(path).resize((72 + i, 64)).point(lambda level: 40 + level // 2)
        if i == 5:
            picture.putalpha(200)
        picture.save(place / f"{i}.png")
    return place


def test_colour_bias_is_signed_and_in_lab() -> None:
    """Red lost and blue gained: by so many gray levels; Lab as scikit-image has it; gray has one level and L."""
    image = to_uint8(open_image(photos()[0]).resize((40, 30))).clamp(30, 220)
    recon = image + torch.tensor([-10, 0, 5]).view(3, 1, 1).to(torch.int16)
    recon = recon.to(torch.uint8)
    found = colour_bias(image, recon)
    assert found[:3] == pytest.approx((-10, 0, 5), abs=1e-9)
    lab = [rgb2lab(x.numpy().transpose(1, 2, 0)).mean((0, 1)) for x in (image, recon)]
    assert found[3:] == pytest.approx(lab[1] - lab[0], abs=1e-4)
    assert found[4] < 0
    gray = colour_bias(image[:1], image[:1] + 3)
    assert gray[0] == pytest.approx(3) and gray[1] > 0 and len(gray) == 2


def test_ms_ssim_is_torchmetrics_but_for_the_border() -> None:
    """Equal where its weights are made to sum to 1 (the paper's sum to 1.0001), and the coarsest scale's mirrored
    border is left out."""
    image = to_uint8(open_image(next(p for p in photos() if p.stem == "chelsea")))[:, :192, :208]
    noise = torch.randint(-25, 26, image.shape, generator=torch.Generator().manual_seed(0))
    recon = (image.int() + noise).clamp(0, 255).to(torch.uint8)
    a, b = (to_model_range(x[None]).double() for x in (image, recon))
    theirs = multiscale_structural_similarity_index_measure(b, a, data_range=2.0).item()
    small = [torch.nn.functional.avg_pool2d(x, 16) for x in (a, b)]
    _, full = structural_similarity_index_measure(small[1], small[0], data_range=2.0, return_full_image=True)
    inner = (full[..., 5:-5, 5:-5].mean() / full.mean()).item()
    assert _ms_ssim(image, recon) == pytest.approx((theirs * inner ** WEIGHTS[4]) ** (1 / sum(WEIGHTS)), rel=1e-9)
    assert _ms_ssim(image, recon) == pytest.approx(theirs, abs=2e-3)


def test_bias_and_baselines_of_a_known_model(folder: Path) -> None:
    """An offset of 4 gray levels is the bias of every channel, with an interval of no width; the transparent image is
    told of."""
    model = Shifted(ATTENTIVE_F4)
    model.by = 4.0
    result = evaluate(model, scan(folder).files)
    assert [result.figures[f"bias {axis}"].value for axis in ("red", "green", "blue")] == pytest.approx([4, 4, 4])
    assert result.figures["bias red"].high == pytest.approx(4)
    assert any("1 images with transparency" in note for note in result.notes)
    assert any(note.startswith("LPIPS: not measured, because") for note in result.notes)
    assert result.figures["psnr"].value == pytest.approx(result.psnr)
    assert "3 scales" in result.protocol.ms_ssim and "lpips" not in result.figures


def test_a_dead_model_is_told_of_and_breaks_nothing(folder: Path) -> None:
    """NaN output: figures are nan, the images are named, JSON is valid, and the record comes back as it was."""
    model = Shifted(ATTENTIVE_F4)
    model.by = math.nan
    result = evaluate(model, scan(folder).files, features=load_features())
    assert (
        math.isnan(result.psnr)
        and math.isnan(result.figures["ms_ssim"].value)
        and math.isnan(result.sets.frechet.value)
    )
    assert any("not finite" in note and "6 of 6" in note and "0.png" in note for note in result.notes)
    back = Evaluation.from_dict(json.loads(dumps(result.to_dict())))
    assert all(not s.finite and math.isnan(s.psnr) and math.isnan(s.bias[0]) for s in back.scores)
    assert math.isnan(back.sets.kernel.low)


def test_the_record_comes_back(folder: Path) -> None:
    """Through JSON, equal: exact images' infinite PSNR included; other values are refused."""
    result = evaluate(Shifted(ATTENTIVE_F4), scan(folder).files, features=load_features(), name="it")
    assert math.isinf(result.scores[0].psnr) and result.sets.frechet.value == 0
    back = Evaluation.from_dict(json.loads(dumps(result.to_dict())))
    assert back == result
    assert back.to_dict()["figures"]["psnr"]["value"] == 100
    with pytest.raises(vw.ConfigError, match="not an evaluation of schema"):
        Evaluation.from_dict({"psnr": 3})
    with pytest.raises(vw.ConfigError, match="not a whole evaluation"):
        Evaluation.from_dict({"schema": 2})


def test_the_protocol_names_all_that_figures_depend_on(folder: Path) -> None:
    """Each setting changes the digest, and is named alone in the difference."""
    files = scan(folder).files
    model = vw.build(ATTENTIVE_F4)
    first = evaluate(model, files).protocol
    others = {
        "crop": {"limit": 40},
        "resize": {"resize": 48},
        "posterior": {"seed": 1},
        "features": {"features": load_features()},
        "lpips": {"lpips": LPIPS(alexnet(), [torch.ones(c) for c in (64, 192, 384, 256, 256)])},
    }
    assert evaluate(model, files).protocol.digest == first.digest
    for field, options in others.items():
        other = evaluate(model, files, **options).protocol
        assert other.digest != first.digest
        assert field in {d.split(" ")[0] for d in differences(first, other)} <= {field, "ms-ssim"}
    assert differences(first, evaluate(model, files, multiple=8).protocol)[0].startswith("crop (")
    assert differences(
        evaluate(model, files, resize=48).protocol, evaluate(model, files, resize=48, kernel="box").protocol
    )
    assert [d.split(" ")[0] for d in differences(first, evaluate(model, files[:3]).protocol)] == ["images"]
    with pytest.raises(vw.ConfigError) as error:
        check_alike({"a": first, "b": dataclasses.replace(first, crop="other", posterior="sample, seed 3")})
    text = str(error.value)
    assert "\n" not in text and "crop (" in text and "posterior (mode and sample, seed 3)" in text and "a and b" in text


def test_resizing_is_pillows(tmp_path: Path) -> None:
    """The shorter side becomes N, by the named kernel, before the crop; nonsense is refused."""
    picture = open_image(photos()[0]).resize((150, 100))
    picture.save(tmp_path / "p.png")
    read, alpha = Crop(8, None, resize=50, kernel="bicubic").read(tmp_path / "p.png", 3)
    expected = picture.resize((75, 50), Image.Resampling.BICUBIC).crop((1, 1, 73, 49))
    assert torch.equal(read, to_uint8(expected)) and not alpha
    with pytest.raises(vw.ConfigError, match=r"kernel \(=nearest\)"):
        Crop(8, kernel="nearest")
    with pytest.raises(vw.ConfigError, match=r"resize \(=4\) must be at least 11"):
        Crop(8, resize=4)


def test_a_sample_is_a_function_of_the_seed_and_the_images_place(folder: Path) -> None:
    """Equal seeds give equal figures, another seed or place another noise; what is sampled is the posterior."""
    torch.manual_seed(0)
    model = vw.build(ATTENTIVE_F4)
    image = to_uint8(open_image(photos()[0]).resize((32, 32)))
    once, again, other, place = (reconstruction(model, image, s, n)[0] for s, n in ((5, 0), (5, 0), (6, 0), (5, 1)))
    assert torch.equal(once, again) and not torch.equal(once, other) and not torch.equal(once, place)
    assert torch.equal(reconstruction(model, image)[0], reconstruct_uint8(model, image))


def test_paired_differences(folder: Path) -> None:
    """The second model is worse on every image by a known amount; against itself it is a tie; unlike protocols are
    refused in one line."""
    files = scan(folder).files
    model = Shifted(ATTENTIVE_F4)
    found = []
    for by in (2.0, 4.0):
        model.by = by
        found.append(evaluate(model, files, name=f"by {by:g}"))
    compared = {c.figure: c for c in compare(found)}
    assert compared["psnr"].difference.value == pytest.approx(-20 * math.log10(2), abs=1e-6)
    assert (
        compared["psnr"].wins == 0
        and compared["psnr"].verdict == "worse"
        and set(compared) == {"psnr", "ssim", "ms_ssim"}
    )
    back = {c.figure: c.verdict for c in compare([found[1], found[0]])}
    assert back["psnr"] == "better" and set(back.values()) <= {"better", "tie"}, "the SSIM of so few images varies"
    same = compare([found[0], found[0]])[0]
    assert same.verdict == "tie" and same.wins == 0.5 and same.model == "by 2 (2)"
    with pytest.raises(vw.ConfigError, match=r"by 2 and by 2 \(2\) were not measured alike.* crop \("):
        compare([found[0], dataclasses.replace(found[0], protocol=evaluate(model, files, limit=40).protocol)])


def test_lower_lpips_is_better(folder: Path) -> None:
    """A figure of which less is better: the sign of the difference is the figure's, the verdict is not."""
    torch.manual_seed(0)
    lpips = LPIPS(alexnet(), [torch.ones(c) for c in (64, 192, 384, 256, 256)])
    model = Shifted(ATTENTIVE_F4)
    found = []
    for by in (1.0, 30.0):
        model.by = by
        found.append(evaluate(model, scan(folder).files, lpips=lpips))
    compared = {c.figure: c for c in compare(found)}["lpips"]
    assert compared.difference.value > 0 and compared.verdict == "worse" and compared.wins < 0.5
    assert "AlexNet" in found[0].protocol.lpips and not any("LPIPS" in note for note in found[0].notes)


def test_gallery_picks_each_image_once(folder: Path) -> None:
    """Worst, median and best by PSNR; of one image, that one."""
    result = evaluate(vw.build(ATTENTIVE_F4), scan(folder).files)
    ranks, scores = zip(*chosen(result, 2, 1, 1), strict=True)
    ordered = sorted(result.scores, key=lambda s: s.psnr)
    assert ranks == ("worst", "worst", "median", "best") and scores == (ordered[0], ordered[1], ordered[2], ordered[-1])
    assert len(chosen(dataclasses.replace(result, scores=result.scores[:1]))) == 1


def test_throughput_and_memory() -> None:
    """Rates are positive; memory is at least what the largest activation takes, or there is a reason; sizes are
    checked."""
    model = vw.build(ATTENTIVE_F4)
    speed = throughput(model, 128, 2, repeats=2)
    assert (
        speed.encode > 0
        and speed.decode > 0
        and (speed.batch, speed.threads, speed.dtype) == (2, torch.get_num_threads(), "float32")
    )
    if speed.decode_memory is None:
        assert "not measured" in speed.memory
    else:
        assert speed.decode_memory > 2 * 8 * 128 * 128 * 4
    with pytest.raises(vw.ConfigError, match="multiple of downsample_factor"):
        throughput(model, 130)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """An f4, an f8 and a gray VAE, with random weights."""
    place = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name, changes in (
        ("one", {}),
        ("two", {"channel_mult": (1, 1, 1, 2)}),
        ("gray", {"in_channels": 1, "out_channels": 1}),
    ):
        vw.save(vw.build(dataclasses.replace(ATTENTIVE_F4, **changes)), place / f"{name}.safetensors")
    return place / "one.safetensors", place / "two.safetensors", place / "gray.safetensors"


def test_command_compares_models_of_any_factor(models: tuple[Path, ...], folder: Path, tmp_path: Path, capsys) -> None:
    """Side by side on the same pixels, one JSON document, a page; a saved result joins if it was measured alike, and
    else does not."""
    one, two, gray = map(str, models)
    data = ["--data", str(folder), "--no-legibility", "--lpips", "off"]
    assert main(["eval", one, two, *data, "--out", str(tmp_path / "both"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [m["name"] for m in result["models"]] == ["one.safetensors", "two.safetensors"]
    assert {m["protocol_digest"] for m in result["models"]} == {result["models"][0]["protocol_digest"]}
    assert "multiples of 8" in result["models"][0]["protocol"]["crop"]
    assert {p["figure"] for p in result["paired"]} == {"psnr", "ssim", "ms_ssim"}
    assert json.loads((tmp_path / "both" / "eval.json").read_text()) == result
    page = (tmp_path / "both" / "report.html").read_text()
    assert "Paired over images" in page and "not comparable with any published figure" in page and "http" not in page
    assert (tmp_path / "both" / "gallery.png").exists()

    assert main(["eval", one, *data, "--multiple", "8", "--against", str(tmp_path / "both"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["models"]) == 3
    assert main(["eval", one, *data, "--against", str(tmp_path / "both"), "--out", str(tmp_path / "unlike")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "were not measured alike" in said and "crop (" in said and "posterior" not in said
    assert (
        "multiples of 4" in json.loads((tmp_path / "unlike" / "eval.json").read_text())["protocol"]["crop"]
    )  # measured, so not lost
    assert main(["eval", one, *data, "--against", str(tmp_path / "both"), str(tmp_path / "unlike")]) == 2
    assert (
        "evaluating" not in (said := capsys.readouterr().err) and "crop (" in said
    )  # known before anything is measured
    assert main(["eval", one, *data, "--out", one]) == 2
    assert "is a file; --out is a folder" in capsys.readouterr().err
    assert main(["eval", one, gray, *data]) == 2
    assert "takes images of 3 channels" in capsys.readouterr().err.splitlines()[-1]
    assert main(["eval", one, two, *data, "--multiple", "4"]) == 2
    assert main(["eval", one, *data, "--against", str(folder / "0.png")]) == 2
    assert "is no eval.json" in capsys.readouterr().err.splitlines()[-1]
    assert main(["eval", one, *data, "--out", str(tmp_path / "both")]) == 2


def test_command_says_what_it_did_not_measure(
    models: tuple[Path, ...], folder: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    """LPIPS without weights is a line, or an error where it was asked for; text and speed are in the record; gray
    models are judged too."""
    monkeypatch.setenv("VAEWORKS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("vaeworks.metrics.legibility.SIDE", 64)
    gray = str(models[2])
    options = [
        "--data",
        str(folder),
        "--features",
        "off",
        "--speed",
        "--speed-size",
        "64",
        "--json",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["eval", gray, *options]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert (
        "LPIPS: not measured, because AlexNet's weights" in said.err and result["protocol"]["lpips"] == "not measured"
    )
    assert result["legibility"]["readings"][0]["size"] == 6 and result["speed"]["encode"] > 0 and result["sets"] is None
    assert set(result["figures"]) == {"psnr", "ssim", "ms_ssim", "bias gray", "bias L"}
    assert Evaluation.from_dict(result).speed.size == 64
    assert main(["eval", gray, *options, "--overwrite", "--lpips", str(tmp_path / "nowhere")]) == 2
    assert "lpips (=" in capsys.readouterr().err
    assert main(["eval", gray, *options, "--overwrite", "--features", "inception"]) == 2
    assert "pt_inception-2015-12-05-6726825d.pth" in capsys.readouterr().err
    assert np.asarray(Image.open(tmp_path / "out" / "gallery.png")).size


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda scores: scores.clear(), "no image"),
        (lambda scores: scores[0].update(psnr="high"), "no numbers"),
        (lambda scores: scores[1].update(bias=[]), "lacks figures"),
        (lambda scores: scores[1].update(lpips=0.5), "lacks figures"),
        (lambda scores: scores[1]["baselines"].popitem(), "lacks figures"),
        (lambda scores: scores[0].pop("ssim"), "KeyError"),
    ],
)
def test_a_record_that_no_measurement_leaves(folder: Path, change: Callable[[list[dict]], object], why: str) -> None:
    """One line, whatever was done to the file; two records of unlike numbers of images are not paired."""
    found = evaluate(vw.build(ATTENTIVE_F4), scan(folder).files)
    values = json.loads(json.dumps(found.to_dict()))
    change(values["scores"])
    with pytest.raises(vw.ConfigError, match=f"not a whole evaluation.*{why}"):
        Evaluation.from_dict(values)
    with pytest.raises(vw.ConfigError, match="measure both again"):
        compare([found, dataclasses.replace(found, scores=found.scores[1:])])
