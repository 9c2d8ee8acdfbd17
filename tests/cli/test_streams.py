"""Results on stdout, all else on stderr; pipes whose readers go; streams that lack characters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from configs import TINY
from PIL import Image

import vaeworks as vw
from vaeworks.cli import main

COMMAND = [sys.executable, "-m", "vaeworks"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, two images, and a broken one."""
    root = tmp_path_factory.mktemp("streams")
    torch.manual_seed(0)
    vw.save(vw.build(TINY), root / "vae.safetensors")
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    (root / "broken.png").write_bytes(b"broken")
    return root


@pytest.mark.parametrize(
    ("words", "result", "note"),
    [
        ("inspect vae.safetensors", "f2c4", ""),
        ("recipes", "small-f8c16", ""),
        ("reconstruct vae.safetensors . --out OUT", " dB", "broken.png"),
        ("encode vae.safetensors . --into files --out OUT", "0.safetensors", "broken.png"),
        ("vary vae.safetensors . --out OUT --count 2", "gray levels", "broken.png"),
        ("eval vae.safetensors --data . --no-legibility --lpips off", "PSNR dB", "broken.png"),
        ("convert vae.safetensors OUT.safetensors --layout native", "OUT.safetensors  native", ""),
        ("doctor vae.safetensors --data . --out OUT --panels scale --size 16", "verdict", "broken.png"),
    ],
)  # fmt: skip
def test_results_and_warnings(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    result: str,
    note: str,
) -> None:
    """A result stands on stdout and only there, a warning on stderr and only there; with --json stdout is JSON, and
    stderr has both."""
    monkeypatch.chdir(place)
    assert main([word.replace("OUT", str(tmp_path / "out")) for word in words.split()]) == 0
    result = result.replace("OUT", str(tmp_path / "out"))
    out, err = capsys.readouterr()
    assert result in out and result not in err
    assert note in err and (not note or note not in out)
    assert main([*[word.replace("OUT", str(tmp_path / "json")) for word in words.split()], "--json"]) == 0
    out, err = capsys.readouterr()
    json.loads(out)
    assert result.replace(str(tmp_path / "out"), str(tmp_path / "json")) in err and note in err


def test_what_libraries_print_does_not_stand_in_the_document(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A library that prints on stdout does so on stderr under --json."""
    from vaeworks.formats import identify

    original = identify.inspect

    def talkative(*files: str, **options: object) -> object:
        print("a library says hello")
        return original(*files, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(identify, "inspect", talkative)
    assert main(["inspect", str(place / "vae.safetensors"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["latent_channels"] == 4 and "a library says hello" in err


@pytest.mark.parametrize("words", [["recipes"], ["recipes", "--json"], ["--help"], ["train", "--help"]])
def test_a_reader_that_goes(words: list[str]) -> None:
    """`vaeworks ... | true`: no traceback, and no word of a pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*COMMAND, *words], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert done.returncode == 1 and not {"Traceback", "Broken", "Errno"} & set(done.stderr.split())


def test_a_reader_of_warnings_that_goes(place: Path) -> None:
    """The same of stderr."""
    reading, writing = os.pipe()
    os.close(reading)
    words = ["reconstruct", "vae.safetensors", ".", "--out", "unused", "--set", "scaling_factor=0.3"]
    done = subprocess.run([*COMMAND, *words], stderr=writing, stdout=subprocess.PIPE, text=True, cwd=place, timeout=60)
    os.close(writing)
    assert done.returncode == 1 and "Traceback" not in done.stdout


def test_stdout_that_lacks_characters() -> None:
    """A name beyond ASCII is escaped where stdout cannot show it, as it is on stderr."""
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"}
    done = subprocess.run([*COMMAND, "recipes"], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0 and done.stderr == "" and "small-f8c16" in done.stdout


def test_a_file_gets_whole_lines(place: Path, tmp_path: Path) -> None:
    """Without a terminal no cell is broken or cut: a recipe's purpose stands on one line."""
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR")}
    done = subprocess.run(
        [*COMMAND, "recipes"], capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, timeout=60
    )
    longest = max((row for row in vw.list_recipes()), key=lambda row: len(row.purpose))
    assert longest.purpose in done.stdout and "\x1b" not in done.stdout
