"""Commands of single images against their functions: equal arguments give equal JSON and equal files."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from configs import TINY
from PIL import Image

import vaeworks as vw
from vaeworks.apps.editing.edit import edit
from vaeworks.apps.generation.interpolate import interpolate
from vaeworks.apps.generation.sample import sample
from vaeworks.apps.generation.vary import vary
from vaeworks.cli import COMMANDS, main
from vaeworks.config import dumps
from vaeworks.latents.decode_files import decode
from vaeworks.latents.encode_files import LatentShards, encode
from vaeworks.latents.reconstruct import reconstruct

MODEL = "vae.safetensors"

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "reconstruct": reconstruct,
    "encode": encode,
    "decode": decode,
    "interpolate": interpolate,
    "vary": vary,
    "sample": sample,
    "edit": edit,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, two folders of images, a mask, and latents of an image and of a folder."""
    root = tmp_path_factory.mktemp("images")
    torch.manual_seed(0)
    vw.save(vw.build(TINY), root / MODEL)
    generator = np.random.default_rng(0)
    for folder in ("a", "b"):
        (root / folder).mkdir()
        for number in range(6):
            pixels = generator.integers(0, 255, (6, 7, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((21, 18), 3).save(root / folder / f"{folder}{number}.png")
    (root / "a" / "broken.png").write_bytes(b"broken")
    (root / "many").mkdir()
    for number in range(40):
        Image.fromarray(generator.integers(0, 255, (8, 8), dtype=np.uint8)).save(root / "many" / f"{number:02}.png")
    Image.fromarray(np.pad(np.full((8, 8), 255, np.uint8), ((4, 6), (8, 5)))).save(root / "mask.png")
    encode(root / MODEL, root / "a" / "a0.png", root / "latents")
    encode(root / MODEL, root / "b", root / "shards", size=16, workers=0)
    return root


CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("reconstruct", "a --precision bf16", {"inputs": "a", "precision": "bf16"}),
    ("encode", "b/b1.png --posterior sample --seed 3", {"inputs": ["b/b1.png"], "posterior": "sample", "seed": 3}),
    ("encode", "a --size 16 --flip --workers 0", {"inputs": "a", "size": 16, "flip": True, "workers": 0}),
    ("decode", "latents shards --verify", {"inputs": ["latents", "shards"], "verify": True}),
    ("interpolate", "a/a0.png b/b0.png --steps 2", {"images": ["a/a0.png", "b/b0.png"], "steps": 2}),
    ("vary", "b --count 2 --noise 0.3", {"inputs": "b", "count": 2, "noise": 0.3}),
    ("vary", "a/a1.png --walk --steps 3", {"inputs": ["a/a1.png"], "walk": True, "steps": 3}),
    ("sample", "--count 3 --size 16", {"count": 3, "size": 16}),
    ("sample", "--count 3 --data many", {"count": 3, "data": "many"}),
    (
        "edit",
        "b --direction a:b --size 16 --strength 1 -1 --channel 0:1:0.5 --mask mask.png",
        {
            "inputs": "b",
            "direction": ("a", "b"),
            "size": 16,
            "strength": [1.0, -1.0],
            "channel": ["0:1:0.5"],
            "mask": "mask.png",
        },
    ),
    ("edit", "b --saturation 0.5", {"inputs": "b", "saturation": 0.5}),
    ("edit", "b --arithmetic b0-b1", {"inputs": "b", "arithmetic": "b0 - b1"}),
]


@pytest.mark.parametrize(("name", "words", "arguments"), CASES, ids=[f"{n}, {w}" for n, w, _ in CASES])
def test_command_and_function(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    printed: Callable[[], tuple[int, int]],
    name: str,
    words: str,
    arguments: dict[str, Any],
) -> None:
    """The same JSON but for folders and seconds, and the same files."""
    monkeypatch.chdir(place)
    given = [word.replace("b0-b1", "b0 - b1") for word in words.split()]
    command, function = tmp_path / "command", tmp_path / "function"
    assert main([name, MODEL, *given, "--out", str(command), "--json"]) == 0
    assert printed()[0], "no result is printed for people"
    said = capsys.readouterr().out.replace(str(command), "OUT")
    result = FUNCTIONS[name](MODEL, out=function, **arguments)
    assert capsys.readouterr().err == ""
    returned = dumps(result.to_dict()).replace(str(function), "OUT")
    assert _timeless(json.loads(said)) == _timeless(json.loads(returned))
    assert _files(command) == _files(function) != {}


def _timeless(value: dict[str, Any]) -> dict[str, Any]:
    return {key: each for key, each in value.items() if key != "images_per_second"}


def _files(folder: Path) -> dict[str, bytes]:
    """Content by name; the names of folders within are left out of records."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content.replace(os.fsencode(folder), b"OUT") for name, content in found.items()}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_equal_defaults(name: str) -> None:
    """Every option of the command is an argument of the function, with the same default."""
    function = inspect.signature(FUNCTIONS[name]).parameters
    for option, parameter in inspect.signature(COMMANDS[name]).parameters.items():
        if option == "told":
            continue
        argument = function["images" if (name, option) == ("interpolate", "inputs") else option]
        if option != "out":
            assert parameter.default == argument.default, option


def test_pictures_without_files(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `out` the pictures are in the result, equal to those that are written; an autoencoder is a model, and
    stays as it was."""
    monkeypatch.chdir(place)
    vae = vw.load(MODEL)
    vae.train()
    before = [p.requires_grad for p in vae.parameters()]
    files = sorted(place.rglob("*"))
    image = torch.from_numpy(np.array(Image.open("a/a0.png"))).permute(2, 0, 1)
    (one,) = reconstruct(vae, "a/a0.png").images
    assert one.path is None and one.image is not None and one.image.shape == image.shape
    (decoded,) = decode(vae, "latents").images
    assert torch.equal(decoded.image, one.image)
    assert len(decode(vae, "shards").to_dict()) == 6
    assert torch.equal(interpolate(vae, ["a/a0.png", "b/b0.png"], 2).frames[0].pixels, one.image)
    assert interpolate(vae, [image, image.flip(-1)], 2).images == ("1", "2")
    assert len(vary(vae, "a/a0.png", count=3).images[0].pictures) == 3
    assert sample(vae, count=2, size=16).found.pixels.shape == (2, 3, 16, 16)
    assert edit(vae, "a/a0.png", brightness=10).images[0].image.shape == image.shape
    assert torch.equal(edit(vae, "a", arithmetic="a0").image, one.image)
    assert vae.training and [p.requires_grad for p in vae.parameters()] == before
    assert sorted(place.rglob("*")) == files


def test_second_call_encodes_nothing(place: Path, tmp_path: Path) -> None:
    """Shards are resumed, from Python as from the command line."""
    for kept in (0, 6):
        found = encode(place / MODEL, place / "b", tmp_path / "set", size=16, workers=0)
        assert isinstance(found, LatentShards) and found.encoded.kept == kept
        assert (found.images_per_second is None) == bool(kept)
