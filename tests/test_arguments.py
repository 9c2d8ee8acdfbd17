"""Arguments of public functions: one where several are taken, wrong choices, and models of the caller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vaeworks as vw
from vaeworks.apps.audio import Heard
from vaeworks.arguments import check_choice, several
from vaeworks.config import AutoencoderConfig
from vaeworks.models.modes import evaluating

CONFIG = AutoencoderConfig(
    channels=8, channel_mult=(1, 2), num_res_blocks=1, norm_groups=4, latent_channels=4, mid_attention=False
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and a folder of images."""
    root = tmp_path_factory.mktemp("arguments")
    torch.manual_seed(0)
    vw.save(vw.build(CONFIG), root / "vae.safetensors")
    (root / "images").mkdir()
    generator = np.random.default_rng(0)
    for number in range(40):
        pixels = generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
    return root


def test_several() -> None:
    """A word, a path and a number are one; what holds several is taken in its order."""
    assert several("ab") == ("ab",)
    assert several(Path("a")) == (Path("a"),)
    assert several(5) == (5,)
    assert several(["a", "b"]) == several(("a", "b")) == several(word for word in "ab") == ("a", "b")
    assert several(np.array([1, 2])) == (1, 2)


def test_choice() -> None:
    """A value that is not among the choices is named beside them."""
    check_choice("kind", "a", "ab")
    with pytest.raises(vw.ConfigError, match=r"kind \(='c'\) must be one of a, b"):
        check_choice("kind", "c", "ab")


def test_one_for_several(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One model, panel or rule needs no list."""
    monkeypatch.chdir(place)
    options: dict[str, Any] = {"size": 16, "keep": False, "limit": 4}
    found = vw.examine_models("vae.safetensors", "images", panels="scale", fail_on="watch", **options)
    assert [list(e.findings) for e in found.models] == [["scale"]]
    figures = vw.evaluate_models(Path("vae.safetensors"), "images", lpips="off", legibility=False)
    assert len(figures.models) == 1
    edited = vw.edit("vae.safetensors", "images/1.png", channel="0:1:0.5")
    assert len(edited.images) == 1


WRONG: list[tuple[str, Callable[..., Any], tuple[Any, ...], dict[str, Any], str]] = [
    ("video", vw.interpolate, (["images/1.png", "images/2.png"],), {"video": "avi"}, "gif, mp4"),
    ("kind", vw.edit, ("images/1.png",), {"direction": ("images", "images"), "kind": "x"}, "mean, map, logistic"),
    ("a direction of one", vw.edit, ("images/1.png",), {"direction": ("images",)}, "two sources"),
    ("posterior", vw.encode, ("images/1.png", "out"), {"posterior": "x"}, "mode, sample, moments"),
    ("precision", vw.reconstruct, ("images/1.png",), {"precision": "fp17"}, "fp32, bf16, fp16"),
    (
        "pixels as inputs",
        vw.reconstruct,
        (torch.zeros(1, 3, 8, 8),),
        {},
        r"files or folders, not float32 \(Tensor\); for an image in memory",
    ),
    ("one image to interpolate", vw.interpolate, ([np.zeros((8, 8, 3))],), {}, "two images at least, and 1 is given"),
    ("pixels as data", vw.evaluate, (np.zeros((2, 8, 8, 3)),), {}, "8x8 pixels, too small for SSIM"),
    ("a sound of integers", vw.listen, (np.zeros(2000, np.int16),), {}, "floats in"),
]


@pytest.mark.parametrize(("function", "words", "options", "message"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_wrong_arguments(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: Callable[..., Any],
    words: tuple[Any, ...],
    options: dict[str, Any],
    message: str,
) -> None:
    """One line that names the value, and no file."""
    monkeypatch.chdir(place)
    with pytest.raises((vw.ConfigError, vw.DataError), match=message) as error:
        function("vae.safetensors", *words, **options)
    assert "\n" not in str(error.value)
    assert not (place / "out").exists()


def test_evaluating() -> None:
    """Every part gets its own mode back, also after an error."""
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    module[1].eval()

    def failing() -> None:
        with evaluating(module):
            assert not any(part.training for part in module.modules())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert [part.training for part in module.modules()] == [True, True, False, False]


def test_anomalies_leave_the_model_in_its_mode(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model in training mode stays in it, and gives the results of its file."""
    monkeypatch.chdir(place)
    vae = vw.load("vae.safetensors").train()
    options: dict[str, Any] = {"normal": "images", "false_alarms": 0.2, "test": "images", "baselines": False}
    own = vw.detect_anomalies(vae, **options).to_dict()
    assert vae.training
    of_file = vw.detect_anomalies("vae.safetensors", **options).to_dict()
    assert {**own, "model": ""} == {**of_file, "model": ""}


def test_sound_of_float32(place: Path) -> None:
    """The same result as of equal samples in float64."""
    samples = np.sin(np.arange(3000) / 9).astype(np.float32)
    first, second = (
        vw.listen(place / "vae.safetensors", each, iterations=1) for each in (samples, samples.astype(np.float64))
    )
    assert isinstance(first, Heard) and isinstance(second, Heard)
    assert first.figures == second.figures and np.array_equal(first.recon, second.recon)
