"""The file commands and their functions: the same arguments give the same result and the same files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import F8C4, checkpoint, ldm_tensors, random_vae, saved
from configs import LEAST
from PIL import Image

import vaeworks as vw
from vaeworks.cli import main
from vaeworks.doctor.compatibility.match import match
from vaeworks.errors import ConfigError
from vaeworks.exports.onnx import OnnxExport, export_onnx
from vaeworks.formats.apps.install import install
from vaeworks.formats.bake import bake, extract
from vaeworks.formats.convert import convert
from vaeworks.formats.fold import fold
from vaeworks.formats.identify import inspect
from vaeworks.pipelines.generate import generate
from vaeworks.runtime import repair


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE, another one, and a checkpoint."""
    root = tmp_path_factory.mktemp("place")
    saved(root / "vae.safetensors", layout="native")
    saved(root / "other.safetensors", layout="native", seed=1)
    checkpoint(root / "model.safetensors", ldm_tensors(dtype=torch.float32))
    (root / "images").mkdir()
    Image.effect_mandelbrot((64, 64), (-2.0, -1.2, 1.0, 1.2), 60).convert("RGB").save(root / "images" / "one.png")
    return root


@pytest.fixture(autouse=True)
def results_are_printed(request: pytest.FixtureRequest, printed: Callable[[], tuple[int, int]]) -> Iterator[None]:
    """Beside its JSON, each command prints results for people."""
    yield
    assert printed()[0] or "capsys" not in request.fixturenames  # a test that runs no command


def command(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def written(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def same(capsys: pytest.CaptureFixture[str], tmp_path: Path, words: Callable[[Path], list[object]], call: Any) -> Any:
    """Run the command in one folder and the function in another, and compare; the function's result."""
    by_command, by_function = tmp_path / "command", tmp_path / "function"
    for folder in (by_command, by_function):
        for inside in ("comfy/models/vae", "comfy/models/checkpoints"):
            (folder / inside).mkdir(parents=True)
    printed = command(capsys, *words(by_command))
    with warnings.catch_warnings(action="error"):
        result = call(by_function)
    plain = json.loads(json.dumps(result.to_dict()).replace(str(by_function), str(by_command)))
    assert plain == printed
    assert written(by_function) == written(by_command)
    return result


def test_inspect(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [place / "vae.safetensors", place / "model.safetensors", place / "other.safetensors"]
    one = same(capsys, tmp_path / "one", lambda _: ["inspect", files[1]], lambda _: inspect(files[1]))
    assert one.baked
    three = same(capsys, tmp_path / "three", lambda _: ["inspect", *files], lambda _: inspect(*files))
    assert [pair.relation for pair in three.relations] == ["the same weights", "different", "different"]
    with pytest.raises(ConfigError, match="at least one file"):
        inspect()  # type: ignore[call-overload]


def test_convert(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = place / "vae.safetensors"
    result = same(
        capsys,
        tmp_path,
        lambda out: ["convert", source, out / "x.safetensors", "--layout", "ldm", "--dtype", "fp16"],
        lambda out: convert(source, out / "x.safetensors", "ldm", dtype="fp16"),
    )
    assert not result.same_content


def test_extract(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = place / "model.safetensors"
    words = lambda out: ["extract", model, out / "x.safetensors", "--set", "norm_groups=4"]  # noqa: E731
    call = lambda out: extract(model, out / "x.safetensors", settings={"norm_groups": 4})  # noqa: E731
    assert same(capsys, tmp_path, words, call).tensors


def test_bake(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vae, model = place / "other.safetensors", place / "model.safetensors"
    result = same(
        capsys,
        tmp_path,
        lambda out: ["bake", vae, model, out / "x.safetensors", "--dtype", "bf16"],
        lambda out: bake(vae, model, out / "x.safetensors", dtype="bf16"),
    )
    assert result.dtype == "BF16"


def test_install(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vw.save(vw.build("taesd"), tmp_path / "tiny.safetensors", "taesd")
    result = same(
        capsys,
        tmp_path,
        lambda out: ["install", tmp_path / "tiny.safetensors", "--into", "comfyui", out / "comfy", "--name", "taesdxl"],
        lambda out: install(tmp_path / "tiny.safetensors", "comfyui", out / "comfy", name="taesdxl"),
    )
    assert Path(result.path).name == "taesdxl_encoder.safetensors"


def test_match(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, vae, data = place / "model.safetensors", place / "vae.safetensors", place / "images"
    words = lambda out: ["match", model, vae, "--data", data, "--out", out / "x.png"]  # noqa: E731
    result = same(capsys, tmp_path, words, lambda out: match(model, [vae], data, out=out / "x.png"))
    assert result.picture is not None
    given = match(model, [vae], (), settings={"scaling_factor": 0.5, "shift_factor": 0.0}).candidates[0]
    assert (given.scaling_factor, given.normalization_source, given.verdict) == (0.5, "given", "fits after fold")


def test_fold(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = place / "vae.safetensors"
    words = lambda out: ["fold", source, out / "x.safetensors", "--for", "sdxl"]  # noqa: E731
    same(capsys, tmp_path, words, lambda out: fold(source, out / "x.safetensors", like="sdxl"))
    in_memory = fold(vw.load(source), scaling_factor=0.5)
    assert in_memory.out is None and in_memory.autoencoder.config.scaling_factor == 0.5
    with pytest.raises(ConfigError, match="unknown model 'sd9'; known: "):
        fold(source, like="sd9")


def test_repair(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, data = tmp_path / "calm.safetensors", place / "images"
    vw.save(vw.build(F8C4).eval(), source)
    result = same(
        capsys,
        tmp_path,
        lambda out: ["repair", source, out / "x.safetensors", "--data", data, "--dtype", "fp16"],
        lambda out: repair(source, out / "x.safetensors", data=data, dtype="fp16"),
    )
    assert not result.result.needed


def test_export(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An export takes half a minute, so the command's own call of the function is looked at."""
    source = saved(tmp_path / "vae.safetensors", LEAST, layout="native")
    results: list[OnnxExport] = []

    def recorded(*arguments: Any, **options: Any) -> OnnxExport:
        results.append(export_onnx(*arguments, **options))
        return results[-1]

    monkeypatch.setattr("vaeworks.exports.onnx.export_onnx", recorded)
    printed = command(capsys, "export", source, tmp_path / "onnx")
    assert json.loads(json.dumps(results[0].to_dict())) == printed
    assert {file.path for file in results[0].files} == written(tmp_path / "onnx").keys()


def test_generate(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = place / "vae.safetensors"
    command = ["generate", "tiny", "a dog", "--vae", source, "--steps", "1", "--out"]
    words = lambda out: [*command, out / "x.png"]  # noqa: E731
    result = same(capsys, tmp_path, words, lambda out: generate("tiny", "a dog", source, out / "x.png", steps=1))
    assert result.picture.size == (result.width, result.height)
    again = generate("tiny", "a dog", random_vae(), steps=1)
    assert again.out is None and again.picture.tobytes() == result.picture.tobytes()


def test_dtypes_have_names(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown dtype 'int8'; known: fp32, bf16, fp16"):
        convert(place / "vae.safetensors", tmp_path / "x.safetensors", "native", dtype="int8")
    assert not list(tmp_path.iterdir())
