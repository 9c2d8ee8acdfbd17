"""Images become squares, and squares latents, in one place each: `read_squares` and `latents/posteriors.py`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from patients import linear
from torch import Tensor

import vaeworks as vw
from vaeworks.apps import codes
from vaeworks.arena.latent_dataset import encode
from vaeworks.arena.space import Latents
from vaeworks.data import scan
from vaeworks.data.square_images import prepare
from vaeworks.doctor.subject import encode_subject
from vaeworks.images import to_uint8
from vaeworks.latents import LatentSet, Settings, encode_dataset, posteriors
from vaeworks.runtime import Codec

SRC = Path(vw.__file__).parent

ENCODERS = {
    "models": "the model itself",
    "runtime": "the codec computes what the one path calls; its checks of float16 measure single images",
    "exports": "a traced graph",
    "formats": "diffusers' interface of a model",
    "pipelines": "diffusers' interface of a model",
    "arena/space.py": "spaces pass on to their model",
    "demo.py": "a comparison of two libraries on one image",
    "metrics": "below the one path: one image of any size through a model and back",
    "training": "training crops and validation images, in the model's own precision and mode",
    "doctor/measures": "gradients of the encoder",
    "doctor/subject.py": "`Subject.encode`: images in [-1,1] that a panel has changed",
    "doctor/panels": "calls of `Subject.encode`",
    "doctor/compatibility": "one image through several models and back",
    "apps/anomaly/extractors.py": "the encoder's inner maps are watched meanwhile",
    "apps/generation/interpolate.py": "an image in [-1,1] that was decoded a moment before",
}
"""Where `.encode(images)` is called besides the one path, and why."""

READERS = {
    "runtime/fp16/ranges.py": "files that a user names, below any scan",
    "apps/anomaly/folders.py": "images as they are, or squares: a broken one is an error",
}
"""Where a decoded image becomes a square besides the one reader."""


def encoding_files() -> set[str]:
    """Files with a call `x.encode(images)`; a text's `encode` has no argument, or a constant."""
    return {
        path.relative_to(SRC).as_posix()
        for path in SRC.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "encode"
        and node.args
        and not isinstance(node.args[0], ast.Constant)
    }


def allowed(path: str, places: dict[str, str]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


def test_latents_are_made_in_one_place() -> None:
    """Nobody else encodes images; and no exception outlives its reason."""
    found = encoding_files()
    assert not [path for path in found if not allowed(path, ENCODERS) and path != "latents/posteriors.py"]
    assert not [place for place in ENCODERS if not any(allowed(path, {place: ""}) for path in found)]


def test_squares_are_made_in_one_place() -> None:
    """Nobody else makes squares of decoded images."""
    found = {path.relative_to(SRC).as_posix() for path in SRC.rglob("*.py") if imports_square(path)}
    assert found - READERS.keys() == {"data/square_images.py"} and READERS.keys() <= found


def imports_square(path: Path) -> bool:
    """Whether a file imports `images.square`."""
    return any(
        isinstance(node, ast.ImportFrom) and node.module == "images" and "square" in [n.name for n in node.names]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )


def test_everybody_takes_the_one_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards, the doctor, the arena and the applications: each image goes through `latents/posteriors.py` once."""
    passed = 0
    convert = posteriors.to_model_range

    def counting(squares: Tensor) -> Tensor:
        nonlocal passed
        passed += len(squares)
        return convert(squares)

    def new() -> int:
        nonlocal passed
        count, passed = passed, 0
        return count

    monkeypatch.setattr(posteriors, "to_model_range", counting)
    vae, images = linear(), scan("procedural:8:32")
    encode_dataset(vae, images, tmp_path / "latents", Settings(size=32), workers=0)
    assert new() == 8
    encode_dataset(vae, images, tmp_path / "mirrored", Settings(size=32, flip=True), workers=0)
    assert new() == 16
    encode_subject(vae, images.files, size=32)
    assert new() == 8
    encode(Latents(vae), prepare(images, tmp_path, 32, 3, None), tmp_path, 16, "a model")
    assert new() == 8
    codes.encode_squares(vae, images, 32)
    assert new() == 8
    codes.encode_picture(Codec(vae), to_uint8(vw.images.open_image(vw.data.photos()[0])))
    assert new() == 1


def test_all_means_are_the_same(tmp_path: Path) -> None:
    """What the four keep of an image differs by the rounding of their batches alone."""
    vae, images = linear(), scan("procedural:8:32")
    encode_dataset(vae, images, tmp_path / "latents", Settings(size=32), workers=0)
    kept = LatentSet(tmp_path / "latents")
    shards = torch.stack([kept[n][0] for n in range(8)])
    seen = encode_subject(vae, images.files, size=32)
    arena = encode(Latents(vae), prepare(images, tmp_path, 32, 3, None), tmp_path, 16, "a model")
    apps = codes.encode_squares(vae, images, 32)
    assert torch.equal(apps.pixels, seen.pixels)
    for other in (seen.mean, torch.from_numpy(arena.mean.copy()), apps.mean):
        torch.testing.assert_close(other, shards, rtol=1e-5, atol=1e-5)
