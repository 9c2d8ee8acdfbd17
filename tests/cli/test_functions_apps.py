"""Commands of applications against their functions: equal arguments give equal JSON and equal files."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from configs import TINY
from PIL import Image
from scipy.io import wavfile

import vaeworks as vw
from vaeworks.apps.anomaly.detect import detect_anomalies
from vaeworks.apps.audio import Heard, listen
from vaeworks.apps.augmentation.augment import augment, judge_augmentation
from vaeworks.apps.features.compare import compare_features
from vaeworks.apps.restoration import restore
from vaeworks.cli import COMMANDS, main
from vaeworks.config import dumps
from vaeworks.errors import ConfigError

MODEL = "vae.safetensors"

FUNCTIONS: dict[str, tuple[Callable[..., Any], ...]] = {
    "restore": (restore,),
    "anomaly": (detect_anomalies,),
    "listen": (listen,),
    "augment": (augment, judge_augmentation),
    "features": (compare_features,),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, images of two classes in folders, normal images and others, two sounds, a broken file among each."""
    root = tmp_path_factory.mktemp("apps")
    torch.manual_seed(0)
    vw.save(vw.build(TINY), root / MODEL)
    generator = np.random.default_rng(0)
    folders = {"data/a": 4, "data/b": 4, "normal": 40, "test/good": 3, "test/blotch": 3}
    for folder, count in folders.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(90, 160, (4, 5, 3), dtype=np.uint8)
            if folder == "test/blotch":
                pixels[1:3, 1:3] = 250
            Image.fromarray(pixels).resize((18, 16), 3).save(root / folder / f"{folder[-1]}{number}.png")
    (root / "masks/blotch").mkdir(parents=True)
    for number in range(2):
        Image.fromarray(np.pad(np.full((8, 7), 255, np.uint8), ((4, 4), (4, 7)))).save(
            root / f"masks/blotch/h{number}_mask.png"
        )
    Image.fromarray(np.pad(np.full((5, 6), 255, np.uint8), ((4, 7), (4, 8)))).save(root / "mask.png")
    for broken in ("data/a/broken.png", "normal/broken.png"):
        (root / broken).write_bytes(b"broken")
    (root / "sounds").mkdir()
    for number, length in enumerate((2000, 3000)):
        samples = generator.normal(0, 3000, length).astype(np.int16)
        wavfile.write(root / f"sounds/{number}.wav", 16_000, samples)
    (root / "sounds/broken.wav").write_bytes(b"broken")
    return root


SMALL = "--prior data --prior-size 16 --steps 2"
PRIOR = {"prior": "data", "prior_size": 16, "steps": 2}

CASES: list[tuple[str, str, Callable[..., Any], dict[str, Any]]] = [
    ("restore", f"data/b --plant block+noise:9 --seed 2 {SMALL}", restore,
     {"inputs": "data/b", "plant": "block+noise:9", "seed": 2} | PRIOR),
    ("restore", f"data/a --mask mask.png --compare {SMALL}", restore,
     {"inputs": ["data/a"], "mask": "mask.png", "compare": True} | PRIOR),
    ("restore", f"data/b/b1.png --noise 12 --keep True {SMALL}", restore,
     {"inputs": "data/b/b1.png", "noise": 12, "keep": True} | PRIOR),
    ("anomaly", "--normal normal --false-alarms 0.2 --evidence density --density shared", detect_anomalies,
     {"normal": "normal", "false_alarms": 0.2, "evidence": ["density"], "density": "shared"}),
    ("anomaly", "--normal normal --test test --masks masks --false-alarms 0.2 --size 16", detect_anomalies,
     {"normal": "normal", "test": "test", "masks": "masks", "false_alarms": 0.2, "size": 16}),
    ("listen", "sounds made:1 --iterations 2 --seed 4", listen,
     {"inputs": ["sounds", "made:1"], "iterations": 2, "seed": 4}),
    ("augment", "--data data --per-image 2 --noise 0.3", augment, {"data": "data", "per_image": 2, "noise": 0.3}),
    ("augment", "--data data --how mixup --per-image 1 --seed 3", augment,
     {"data": "data", "how": "mixup", "per_image": 1, "seed": 3}),
    ("augment", "--data data --judge --counts 1 2 --choices 2 --per-image 1 --size 8 --flip", judge_augmentation,
     {"data": "data", "counts": (1, 2), "choices": 2, "per_image": 1, "size": 8, "flip": True}),
    ("features", "--data data --counts 1 2 --choices 2 --pool mean --write npy", compare_features,
     {"data": "data", "counts": (1, 2), "choices": 2, "pool": "mean", "write": "npy"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "words", "function", "arguments"), CASES, ids=[f"{n}, {w}" for n, w, *_ in CASES])
def test_command_and_function(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    printed: Callable[[], tuple[int, int]],
    name: str,
    words: str,
    function: Callable[..., Any],
    arguments: dict[str, Any],
) -> None:
    """The same JSON but for folders, and the same files. The function prints nothing."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("vaeworks.apps.augmentation.judgement.SEEN", 64)
    by_command, by_function = tmp_path / "command", tmp_path / "function"
    assert main([name, MODEL, *words.split(), "--out", str(by_command), "--json"]) == 0
    assert printed()[0], "no result is printed for people"
    printed = capsys.readouterr().out.replace(str(by_command), "OUT")
    result = function(MODEL, out=by_function, **arguments)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    returned = dumps(result.to_dict()).replace(str(by_function), "OUT")
    assert json.loads(printed) == json.loads(returned)
    assert _files(by_command) == _files(by_function) != {}


def _files(folder: Path) -> dict[str, bytes]:
    """The content of every file; the folder's own name does not count."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes().replace(str(folder).encode(), b"OUT") for p in paths}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_defaults(name: str) -> None:
    """Options of a command and arguments of its functions that have one name have one default."""
    options = inspect.signature(COMMANDS[name]).parameters
    known = [inspect.signature(function).parameters for function in FUNCTIONS[name]]
    names = {option for option in options if any(option in arguments for arguments in known)}
    assert set(options) - names <= {"told", "judge"}
    for arguments in known:
        for option in set(options) & set(arguments) - {"out"}:
            assert arguments[option].default == options[option].default, option


def test_an_autoencoder_is_not_changed(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An autoencoder in place of a file: weights keep their gradients, and the result names it."""
    monkeypatch.chdir(place)
    vae = vw.load(MODEL).train().requires_grad_(True)
    result = restore(vae, "data/b/b0.png", tmp_path, noise=9, **PRIOR)
    assert vae.training and all(p.requires_grad and p.grad is None for p in vae.parameters())
    assert result.model == vae.config.name and result.summary is None


def test_without_a_folder(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written; images, detectors and sounds come back in memory."""
    monkeypatch.chdir(place)
    vae = vw.load(MODEL)
    before = sorted(place.rglob("*"))
    restored = restore(vae, "data/b/b0.png", noise=9, **PRIOR).pictures["data/b/b0.png"]
    assert restored.image is not None and restored.image.shape == (3, 16, 18)
    found = detect_anomalies(vae, normal="normal", test="test", false_alarms=0.2, baselines=False)
    assert found.test is not None and found.test.scores is None and found.test.alarms >= 0
    assert found.detector.predict(np.zeros((1, 16, 18, 3), np.uint8)).tolist() == [-1]
    assert "detector" not in found.to_dict()
    compared = compare_features(vae, "data", counts=(1,), choices=1)
    assert compared.features is None and len(compared.rows) == 6
    heard = listen(vae, np.zeros(3000), iterations=1)
    assert isinstance(heard, Heard) and heard.recon.shape == (3000,)
    several = listen(vw.Codec(vae), "sounds", iterations=1)
    assert list(several.sounds) == ["0", "1"] and len(several.skipped) == 1
    with pytest.raises(ConfigError, match="needs a folder"):
        compare_features(vae, "data", write="npy")
    with pytest.raises(ConfigError, match="give files"):
        listen(vae, np.zeros(3000), out=tmp_path)  # type: ignore[call-overload]
    assert sorted(place.rglob("*")) == before
