"""What public functions take beside paths: models and images in memory; and what they say to anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from configs import TINY
from PIL import Image

import vaeworks as vw
from vaeworks.apps.anomaly.detector import AnomalyDetector
from vaeworks.images import each_image

KINDS = ("Pillow", "uint8 tensor", "uint8 array", "[0,1]", "[-1,1]", "list of tensors", "list of files", "generator")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vae.safetensors, and a folder of twelve images of 16 px, and one of four of 32 px."""
    root = tmp_path_factory.mktemp("given")
    torch.manual_seed(0)
    vw.save(vw.build(TINY), root / "vae.safetensors")
    (root / "images").mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{number:02}.png")
    (root / "large").mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "large" / f"{number:02}.png")
    return root


def images(place: Path, kind: str) -> Any:
    """The folder's images in memory."""
    files = sorted((place / "images").iterdir())
    pictures = [Image.open(file) for file in files]
    array = np.stack([np.asarray(picture) for picture in pictures])
    tensor = torch.from_numpy(array).permute(0, 3, 1, 2)
    return {
        "Pillow": pictures,
        "uint8 tensor": tensor,
        "uint8 array": array,
        "[0,1]": tensor / 255,
        "[-1,1]": tensor / 127.5 - 1,
        "list of tensors": list(tensor),
        "list of files": files,
        "generator": (file for file in files),
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_images_in_memory_are_those_of_the_folder(place: Path, kind: str) -> None:
    """`evaluate` and `examine` judge the same pixels, and leave what they are given as it is."""
    vae, given = vw.load(place / "vae.safetensors"), images(place, kind)
    before = given.clone() if isinstance(given, torch.Tensor) else None
    expected = [score.psnr for score in vw.evaluate(vae, place / "images").scores]
    assert [score.psnr for score in vw.evaluate(vae, given).scores] == expected
    assert before is None or torch.equal(before, given)
    if kind in ("Pillow", "[-1,1]"):
        found = vw.examine(vae, images(place, kind), panels=["scale"], size=16)
        wanted = vw.examine(vae, str(place / "images"), panels=["scale"], size=16)
        assert found.findings["scale"].figures == wanted.findings["scale"].figures


def test_a_range_is_that_of_all_images() -> None:
    """A bright image among others in [-1,1] is read as they are, not as [0,1]."""
    dark, bright = torch.full((3, 4, 4), -0.6), torch.full((3, 4, 4), 0.6)
    values = [np.asarray(image).flat[0] for image in each_image([dark, bright])]
    assert values == [51, 204] and np.asarray(next(each_image([bright]))).flat[0] == 153


@pytest.mark.parametrize("kind", ["Pillow", "uint8 tensor", "[0,1]", "[-1,1]", "list of files"])
def test_interpolation(place: Path, kind: str) -> None:
    """The path between images in memory is that between their files, and the images stay as they are."""
    vae, files = vw.load(place / "vae.safetensors"), sorted((place / "images").iterdir())[:2]
    given = images(place, kind)[:2]
    before = given.clone() if isinstance(given, torch.Tensor) else None
    expected = vw.interpolate(vae, files, steps=2)
    found = vw.interpolate(vae, list(given), steps=2)
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(found.frames, expected.frames, strict=True))
    assert before is None or torch.equal(before, given)


@pytest.mark.parametrize("kind", ["codec", "diffusers"])
def test_models_in_memory(place: Path, kind: str) -> None:
    """A codec's autoencoder and a VAE of diffusers are judged and written as ours."""
    vae = vw.load(place / "vae.safetensors")
    given: Any = vw.Codec(vae) if kind == "codec" else vw.to_diffusers(vae)
    expected = vw.evaluate(vae, place / "images").psnr
    assert vw.evaluate(given, place / "images").psnr == pytest.approx(expected, abs=1e-3)
    result = vw.reconstruct(given, place / "images" / "00.png")
    assert result.images[0].psnr == pytest.approx(
        vw.reconstruct(vae, place / "images" / "00.png").images[0].psnr, abs=1e-3
    )
    vw.save(given, place / f"{kind}.safetensors", overwrite=True)
    written = vw.load(place / f"{kind}.safetensors").state_dict()
    assert all(torch.equal(value, written[name]) for name, value in vae.state_dict().items())


def test_a_recipe_by_its_name(tmp_path: Path, place: Path) -> None:
    """`train` takes the name, and the run's record has it; an unknown name and images in memory get a sentence."""
    result = vw.train("small-f4c4-tiny", place / "large", tmp_path / "run", show=False)
    assert result.images_seen == vw.recipe("small-f4c4-tiny").images
    with pytest.raises(vw.ConfigError, match="did you mean 'small-f4c4'"):
        vw.train("small-f4c4-tny", place / "images", tmp_path / "other", show=False)
    with pytest.raises(vw.ConfigError, match=r"name of a source.*save images that are in memory to a folder"):
        vw.train("small-f4c4-tiny", images(place, "uint8 tensor"), tmp_path / "other", show=False)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("kind", ["Pillow", "uint8 tensor", "list of tensors"])
def test_a_detector_with_a_path(place: Path, kind: str) -> None:
    """`AnomalyDetector(path)` is `AnomalyDetector(vaeworks.load(path))`, and takes images as they come."""
    array = images(place, "uint8 array")
    expected = AnomalyDetector(vw.load(place / "vae.safetensors")).fit(array).score_samples(array)
    detector = AnomalyDetector(str(place / "vae.safetensors")).fit(images(place, kind))
    assert np.array_equal(detector.score_samples(images(place, kind)), expected)
    assert detector.get_params()["autoencoder"] == str(place / "vae.safetensors")
    with pytest.raises(vw.ConfigError, match="takes folders"):
        detector.fit(str(place / "images"))
    with pytest.raises(vw.DataError, match="multiply them by 255"):
        detector.fit(array / 255)


OF_IMAGES: dict[str, Callable[[Any, Any, Path], object]] = {
    "evaluate": lambda vae, data, out: vw.evaluate(vae, data),
    "evaluate_models": lambda vae, data, out: vw.evaluate_models(vae, data),
    "examine": lambda vae, data, out: vw.examine(vae, data),
    "examine_models": lambda vae, data, out: vw.examine_models(vae, data, out),
    "encode": lambda vae, data, out: vw.encode(vae, data, out),
    "encode_dataset": lambda vae, data, out: vw.encode_dataset(vae, data, out),
    "decode": lambda vae, data, out: vw.decode(vae, data),
    "reconstruct": lambda vae, data, out: vw.reconstruct(vae, data),
    "vary": lambda vae, data, out: vw.vary(vae, data),
    "edit": lambda vae, data, out: vw.edit(vae, data, saturation=0.5),
    "restore": lambda vae, data, out: vw.restore(vae, data, noise=9),
    "interpolate": lambda vae, data, out: vw.interpolate(vae, data),
    "sample": lambda vae, data, out: vw.sample(vae, data=data, size=16),
    "detect_anomalies": lambda vae, data, out: vw.detect_anomalies(vae, normal=data),
    "augment": lambda vae, data, out: vw.augment(vae, data, out),
    "judge_augmentation": lambda vae, data, out: vw.judge_augmentation(vae, data),
    "compare_features": lambda vae, data, out: vw.compare_features(vae, data),
    "listen": lambda vae, data, out: vw.listen(vae, data),
    "train": lambda vae, data, out: vw.train("small-f4c4-tiny", data, out, show=False),
    "run_arena": lambda vae, data, out: vw.run_arena([vae], data, out),
    "run_study": lambda vae, data, out: vw.run_study("kl", data, out),
    "open_image": lambda vae, data, out: vw.open_image(data),
    "to_images": lambda vae, data, out: vw.to_images(data),
    "Autoencoder.encode": lambda vae, data, out: vae.encode(data),
    "Autoencoder.reconstruct": lambda vae, data, out: vae.reconstruct(data),
    "Codec.encode": lambda vae, data, out: vw.Codec(vae).encode(data),
}


@pytest.mark.parametrize("name", OF_IMAGES)
def test_what_is_no_image_is_said_so(place: Path, tmp_path: Path, name: str) -> None:
    """A number, an object, an empty list and an array of another rank get a sentence, and nothing is written."""
    vae = vw.load(place / "vae.safetensors")
    for wrong in (3, object(), [], np.zeros((1, 1, 3, 3, 3, 3), np.uint8)):
        with pytest.raises(vw.VaeworksError) as error:
            OF_IMAGES[name](vae, wrong, tmp_path / "out")
        assert "object at" not in str(error.value) and "Error:" not in str(error.value)
        assert not (tmp_path / "out").exists()


OF_MODELS: dict[str, Callable[[Any, Path, Path], object]] = {
    "load": lambda model, data, out: vw.load(model),
    "inspect": lambda model, data, out: vw.inspect(model),
    "convert": lambda model, data, out: vw.convert(model, out, layout="native"),
    "save": lambda model, data, out: vw.save(model, out),
    "to_diffusers": lambda model, data, out: vw.to_diffusers(model),
    "from_diffusers": lambda model, data, out: vw.from_diffusers(model),
    "build": lambda model, data, out: vw.build(model),
    "Codec": lambda model, data, out: vw.Codec(model),
    "evaluate": lambda model, data, out: vw.evaluate(model, data),
    "evaluate_models": lambda model, data, out: vw.evaluate_models([model], data),
    "examine": lambda model, data, out: vw.examine(model, data),
    "examine_models": lambda model, data, out: vw.examine_models([model], data, out),
    "encode": lambda model, data, out: vw.encode(model, data, out),
    "encode_dataset": lambda model, data, out: vw.encode_dataset(model, data, out),
    "reconstruct": lambda model, data, out: vw.reconstruct(model, data),
    "vary": lambda model, data, out: vw.vary(model, data),
    "interpolate": lambda model, data, out: vw.interpolate(model, data),
    "edit": lambda model, data, out: vw.edit(model, data, saturation=0.5),
    "restore": lambda model, data, out: vw.restore(model, data, noise=9),
    "sample": lambda model, data, out: vw.sample(model),
    "detect_anomalies": lambda model, data, out: vw.detect_anomalies(model, normal=data),
    "augment": lambda model, data, out: vw.augment(model, data, out, labels="names"),
    "compare_features": lambda model, data, out: vw.compare_features(model, "digits", counts=1),
    "repair": lambda model, data, out: vw.repair(model, out, layout="diffusers"),
    "fold": lambda model, data, out: vw.fold(model, out, like="sd1"),
    "generate": lambda model, data, out: vw.generate("tiny", "a dog", model),
}


@pytest.mark.parametrize("name", OF_MODELS)
def test_what_is_no_model_is_said_so(place: Path, tmp_path: Path, name: str) -> None:
    """None, a number, a state dict and a module of another kind get a sentence of one rule."""
    tensors = vw.load(place / "vae.safetensors").state_dict()
    nothing = () if name == "generate" else (None,)  # a pipeline has a VAE of its own
    for wrong in (*nothing, 3, tensors, torch.nn.Conv2d(1, 1, 1)):
        with pytest.raises(vw.VaeworksError) as error:
            OF_MODELS[name](wrong, place / "images", tmp_path / "out")
        assert len(str(error.value)) < 300 and type(wrong).__name__.removesuffix("Type") in str(error.value)
        assert not (tmp_path / "out").exists()
