"""Commands that train and judge, and their functions: equal results and equal files from equal arguments."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vaeworks as vw
from vaeworks.arena.api import report_claims, run_arena, run_study
from vaeworks.cli import main
from vaeworks.config import AutoencoderConfig
from vaeworks.data import scan
from vaeworks.demo import run_demo
from vaeworks.doctor import examine, examine_models
from vaeworks.metrics import evaluate, evaluate_models
from vaeworks.models.init import linear_init_
from vaeworks.recipes import list_recipes
from vaeworks.training import train

SMALL = AutoencoderConfig(channels=8, channel_mult=(1, 2, 2), num_res_blocks=1, norm_groups=4, mid_attention=False)

CLOCKS = ("seconds", "images_per_second", "peak_bytes")


def plain(values: Any, *folders: Path) -> Any:
    """Values as JSON has them, without times; folders in paths are OUT."""
    text = json.dumps(_timeless(values), sort_keys=True, default=str)
    for folder in folders:
        text = text.replace(str(folder), "OUT")
    return json.loads(text)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in CLOCKS}
    if isinstance(value, (list, tuple)):
        return [_timeless(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def names(folder: Path) -> list[str]:
    """Every file below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two small VAEs, f4 and f8."""
    place = tmp_path_factory.mktemp("models")
    for name, levels in (("one", (1, 2, 2)), ("two", (1, 1, 2, 2))):
        model = vw.build(dataclasses.replace(SMALL, channel_mult=levels)).eval()
        linear_init_(model, torch.Generator().manual_seed(0))
        vw.save(model, place / f"{name}.safetensors")
    return [str(place / "one.safetensors"), str(place / "two.safetensors")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of noise and a gradient."""
    place = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(4):
        ramp = np.linspace(0, 200, 64)[None, :, None] + np.zeros((64, 1, 3))
        pixels = (ramp + random.uniform(0, 55, (64, 64, 3))).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    return place


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], printed: Callable[[], tuple[int, int]]) -> Callable[..., Any]:
    """Runs a command, which prints results for people as well, and returns its JSON."""

    def run(*words: str, code: int = 0) -> Any:
        assert main([*words, "--json"]) == code
        assert printed()[0], "no result is printed for people"
        return json.loads(capsys.readouterr().out)

    return run


def test_eval(models: list[str], folder: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    """One model and two: equal figures, comparisons and files. Image sets and autoencoders are taken as well."""
    options = {"features": "statistics", "lpips": "off", "legibility": False}
    words = ["--data", str(folder), "--lpips", "off", "--no-legibility"]
    for asked in (models[:1], models):
        out = {way: tmp_path / f"{way}{len(asked)}" for way in ("command", "function")}
        said = command("eval", *asked, *words, "--out", str(out["command"]))
        result = evaluate_models(asked, str(folder), out=out["function"], **options)
        assert plain(said) == plain(result.to_dict())
        assert names(out["command"]) == names(out["function"]) == ["eval.json", "gallery.png", "report.html"]
        assert [path.name for path in result.written] == ["eval.json", "gallery.png", "report.html"]
        for name in ("eval.json", "gallery.png"):
            assert (out["command"] / name).read_bytes() == (out["function"] / name).read_bytes()
    earlier = evaluate_models(models[:1], folder, multiple=8, against=[out["function"]], **options)
    assert len(earlier.measured) == 1 and len(earlier.models) == 3 and len(earlier.paired) == 6
    assert not earlier.failures

    one = evaluate(models[0], folder, features="statistics")
    same = evaluate(vw.load(models[0]), scan(folder).files, features="statistics")
    assert one == same
    assert one.psnr == evaluate_models(models[:1], folder, **options).models[0].psnr
    with pytest.raises(vw.ConfigError, match="no MODEL"):
        evaluate_models([], folder)


def test_doctor(models: list[str], folder: Path, tmp_path: Path, command: Callable[..., Any], monkeypatch) -> None:
    """One model and two, with a rule that triggers; the same pages."""
    monkeypatch.setenv("VAEWORKS_CACHE", str(tmp_path / "cache" / "weights"))
    words = ["--data", str(folder), "--panels", "scale", "--size", "64", "--no-cache"]
    options: dict[str, Any] = {"panels": ["scale"], "size": 64, "keep": False}
    for asked in (models[:1], models):
        out = {way: tmp_path / f"{way}{len(asked)}" for way in ("command", "function")}
        said = command("doctor", *asked, *words, "--out", str(out["command"]))
        result = examine_models(asked, folder, out["function"], **options)
        assert plain(said) == plain(result.to_dict())
        assert names(out["command"]) == names(out["function"])
        assert all((place / "report.html").is_file() for place in result.folders)
        assert (result.comparison is None) == (len(asked) == 1)

    worst = {name for e in result.models for name, f in e.findings.items() if f.verdict in ("ill", "watch")}
    judged = examine_models(models, folder, fail_on=["watch"], **options)
    assert bool(judged.failures) == bool(worst) and not judged.folders
    code = 1 if worst else 0
    command("doctor", *models, *words, "--out", str(tmp_path / "failed"), "--fail-on", "watch", code=code)

    one = examine(models[0], folder, **options)
    assert plain(one.to_dict()) == plain(examine_models(models[:1], folder, **options).to_dict())
    with pytest.raises(vw.ConfigError, match="is no rule"):
        examine_models(models, folder, fail_on=["sick"])
    with pytest.raises(vw.ConfigError, match="no MODEL"):
        examine_models([], folder)


ARENA = shlex.split(
    "--data procedural:256:32 --budget 128 --samples 16 --features statistics --jobs 1 --shifts none --probes xs "
    "--seeds 1"
)
ARENA_OPTIONS: dict[str, Any] = {
    "budget": 128,
    "samples": 16,
    "features": "statistics",
    "jobs": 1,
    "shifts": ("none",),
    "probes": ("xs",),
    "seeds": 1,
}


def test_arena(models: list[str], tmp_path: Path, command: Callable[..., Any]) -> None:
    """The same outcome, page and record, without checks."""
    said = command("arena", models[0], *ARENA, "--no-checks", "--out", str(tmp_path / "command"))
    outcome = run_arena(models[:1], "procedural:256:32", tmp_path / "function", checks=False, **ARENA_OPTIONS)
    assert plain(said) == plain(outcome.to_dict())
    assert names(tmp_path / "command") == names(tmp_path / "function")
    with pytest.raises(vw.ConfigError, match="not among the models"):
        run_arena(models[:1], "procedural", tmp_path / "function", baseline="other")


def test_study_and_claims(tmp_path: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A study of two autoencoders, which the function finds where the command left it; and the claims' page."""
    monkeypatch.setattr("vaeworks.arena.study.autoencoders._examined", lambda *_: {"scale.largest": 4.0})
    words = [*ARENA, "--arms", "kl-0.1", "--channels", "8", "--images", "64", "--vae-seeds", "1"]
    said = command("arena", "study", "kl", *words, "--out", str(tmp_path))
    files = names(tmp_path)
    scale: dict[str, Any] = {"arms": ("kl-0.1",), "channels": 8, "images": 64, "vae_seeds": 1}
    result = run_study("kl", "procedural:256:32", tmp_path, **scale, **ARENA_OPTIONS)
    assert plain(said) == plain(result.to_dict()) and names(tmp_path) == files

    claims = command("arena", "report", str(tmp_path), "--out", str(tmp_path / "one"))
    report = report_claims(tmp_path, tmp_path / "two")
    assert claims == report.to_dict() and report.page == tmp_path / "two" / "six-claims.md"
    assert names(tmp_path / "one") == names(tmp_path / "two")
    assert report.page.read_text() == (tmp_path / "one" / "six-claims.md").read_text()


def test_recipes(command: Callable[..., Any]) -> None:
    """Typed rows."""
    rows = list_recipes()
    assert command("recipes") == [row.to_dict() for row in rows]
    assert next(row for row in rows if row.recipe == "tanh").group == "bottlenecks"


def test_train(folder: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    """The same run: figures and weights."""
    said = command("train", "small-f4c4-tiny", "--data", str(folder), "--out", str(tmp_path / "command"))
    result = train(vw.recipe("small-f4c4-tiny"), folder, tmp_path / "function", recipe="small-f4c4-tiny", show=False)
    assert plain(said, tmp_path / "command") == plain(dataclasses.asdict(result), tmp_path / "function")
    first, second = (vw.load(tmp_path / way).state_dict() for way in ("command", "function"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_demo(tmp_path: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The parameters of one are the other's: training, which takes as long as it may, is replaced by a failure."""
    given: list[tuple[Any, ...]] = []

    def begun(config: Any, data: str, out: Path, recipe: str) -> None:
        given.append((config, data, recipe))
        raise vw.ConfigError("far enough")

    monkeypatch.setattr("vaeworks.demo.train", begun)
    assert main(["demo", "--out", str(tmp_path / "command"), "--minutes", "0.5"]) == 2
    with pytest.raises(vw.ConfigError, match="far enough"):
        run_demo(tmp_path / "function", minutes=0.5)
    assert given[0] == given[1]
