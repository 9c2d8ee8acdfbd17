"""Models whose images have other channels than pictures, in every command that reads or shows pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from configs import TINY
from PIL import Image

import vaeworks as vw
from vaeworks.cli import main
from vaeworks.doctor.compatibility.match import fog
from vaeworks.errors import ConfigError

COMMANDS = {
    "reconstruct": "M a/0.png --out OUT",
    "decode": "M latents --out OUT",
    "interpolate": "M a/0.png a/1.png --out OUT",
    "vary": "M a/0.png --out OUT",
    "sample": "M --out OUT",
    "edit": "M a/0.png --saturation 1.4 --out OUT",
    "restore": "M a/0.png --mask mask.png --out OUT",
    "anomaly": "M --normal a --out OUT",
    "augment": "M --data classes --out OUT",
    "eval": "M --data a --out OUT",
    "doctor": "M --data a --out OUT",
    "arena": "M --data a --out OUT",
    "generate": "tiny dog --vae M --out OUT.png",
    "listen": "M made:1 --out OUT",
}
READERS = {
    "encode": "M a/0.png --out OUT",
    "encode into shards": "M a --out OUT",
    "features": "M --data classes --counts 1 --out OUT",
}
"""Commands that never decode."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models by their channels, pictures, a mask, and latents."""
    root = tmp_path_factory.mktemp("channels")
    torch.manual_seed(0)
    for takes, gives in ((3, 3), (3, 4), (3, 12), (4, 4), (4, 3)):
        vae = vw.build(replace(TINY, in_channels=takes, out_channels=gives)).eval()
        vw.save(vae, root / f"{takes}-{gives}.safetensors")
    generator = np.random.default_rng(0)
    (root / "a").mkdir()
    for number in range(6):
        image = Image.fromarray(generator.integers(0, 255, (16, 16, 3), dtype=np.uint8))
        image.save(root / "a" / f"{number}.png")
        (root / "classes" / str(number % 2)).mkdir(parents=True, exist_ok=True)
        image.save(root / "classes" / str(number % 2) / f"{number}.png")
    Image.new("L", (16, 16), 255).save(root / "mask.png")
    vw.encode(root / "3-3.safetensors", root / "a" / "0.png", root / "latents")
    return root


def said(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    place: Path,
    tmp_path: Path,
    command: str,
    words: str,
    channels: tuple[int, int],
) -> str:
    """What a command says that ends with exit code 2 and writes nothing."""
    monkeypatch.chdir(place)
    takes, gives = map(str, channels)
    given = {"M": f"{takes}-{gives}.safetensors", "OUT": str(tmp_path / "out")}
    given["OUT.png"] = str(tmp_path / "out.png")
    assert main([command.split()[0], *(given.get(word, word) for word in words.split())]) == 2
    assert not list(tmp_path.iterdir())
    return capsys.readouterr().err


@pytest.mark.parametrize("channels", [(3, 4), (3, 12), (4, 4)], ids=["3-4", "3-12", "4-4"])
@pytest.mark.parametrize("command", COMMANDS)
def test_one_sentence_before_the_work(
    command: str,
    channels: tuple[int, int],
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RGBA decoders, pixel-shuffle decoders and RGBA models: the last line says what the model takes and gives."""
    words = COMMANDS[command]
    line = said(capsys, monkeypatch, place, tmp_path, command, words, channels).splitlines()[-1]
    assert f"takes images of {channels[0]} channels and gives images of {channels[1]} channels" in line


@pytest.mark.parametrize("command", READERS)
def test_what_is_only_encoded_may_be_decoded_to_anything(
    command: str,
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An encoder of four channels is refused, and one of three is used whatever its decoder gives."""
    words = READERS[command]
    assert "takes images of 4 channels" in said(capsys, monkeypatch, place, tmp_path, command, words, (4, 3))
    if command == "encode":
        vw.encode("3-12.safetensors", "a/0.png", tmp_path / "latents")
        assert (tmp_path / "latents" / "0.safetensors").is_file()


def test_two_vaes_that_decode_pictures(place: Path) -> None:
    """`match` decodes photographs with both VAEs, and says which of the two cannot."""
    with pytest.raises(ConfigError, match="the candidate takes images of 3 channels and gives images of 12"):
        fog(place / "3-3.safetensors", place / "3-12.safetensors", None)
    with pytest.raises(ConfigError, match="the reference takes images of 4 channels"):
        fog(place / "4-4.safetensors", place / "3-3.safetensors", None)


def test_decoded_tensors_may_have_any_channels(place: Path) -> None:
    """Only files have channels that they can hold: `decode` returns tensors as the decoder makes them."""
    found = vw.decode(place / "3-12.safetensors", place / "latents").images[0]
    assert found.image is not None and found.image.shape == (12, 16, 16)


def test_inspect_says_the_channels(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    expected = {"3-3": "3 channels (RGB) in and out", "3-12": "3 (RGB) channels in, 12 out", "4-4": "4 channels in and"}
    for name, words in expected.items():
        assert main(["inspect", f"{name}.safetensors"]) == 0
        assert words in capsys.readouterr().out
