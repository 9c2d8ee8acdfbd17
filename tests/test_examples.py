"""Every program in examples/ runs, with small models and few images, and leaves the files that it names."""

from __future__ import annotations

import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch
from configs import TINY
from PIL import Image

import vaeworks as vw
from vaeworks.cli import main
from vaeworks.data import photos

EXAMPLES = Path(__file__).parents[1] / "examples"


CALLS = {
    "anomaly": ("--images 100 --out out", "heat.png detector.safetensors"),
    "audio": ("audio --out out", "0.png 1-reconstruction.wav halfway.wav"),
    "augment": ("--out out", "data noise interpolate mixup"),
    "edit": ("vae.safetensors with without photo.png out/edit.png --size 32", "edit.png"),
    "features": ("--labels 2", ""),
    "interpolate": ("vae.safetensors --out out --steps 2 --size 32", "linear.png spherical.png"),
    "restore": ("vae.safetensors photo.png out/restored.png block --size 32", "restored.png"),
    "sample_digits": ("--images 256 --out out", "digits-ae-map.png digits-vae-prior.png digits-vae-mixture.png"),
}
"""How each is called, and files that it writes below out/."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with vae.safetensors, photo.png, and two folders of images that differ in brightness."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    vw.save(vw.build(TINY).eval(), tmp_path / "vae.safetensors")
    with Image.open(photos()[0]) as image:
        photo = image.convert("RGB").resize((64, 64))
    photo.save(tmp_path / "photo.png")
    for folder, brightness in (("with", 1.0), ("without", 0.5)):
        (tmp_path / folder).mkdir()
        for number in range(8):
            part = photo.crop((4 * number, 0, 4 * number + 32, 32)).point(lambda value, b=brightness: int(value * b))
            part.save(tmp_path / folder / f"{number}.png")
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", CALLS)
def test_example(name: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends without an error or a warning."""
    arguments, files = CALLS[name]
    if name == "audio":
        train = "train audio-mel-tiny --data sound:made:12 --out audio --images 8"
        assert main(shlex.split(f"{train} --data.workers 0 --data.val-fraction 0.3")) == 0
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *shlex.split(arguments)])
    capsys.readouterr()
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out.strip()
    assert [file for file in files.split() if not (place / "out" / file).exists()] == []


def test_every_example_is_run_and_says_how() -> None:
    """A new program takes its place above, and its docstring shows its call."""
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted(CALLS)
    for name in CALLS:
        assert f"python examples/{name}.py" in (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
