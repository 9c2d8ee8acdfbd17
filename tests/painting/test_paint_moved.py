"""Pipelines moved to another VAE's latents by `train_pipeline`: trained in part or in whole, resumed, stock at the
end."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import configs
import diffusers
import pytest
import torch
from latent_spaces import random_vae
from safetensors.torch import load_file
from test_moving import KINDS

import vaeworks as vw
from vaeworks.config import MoveConfig, OptimizerConfig, PaintConfig
from vaeworks.painting import loop
from vaeworks.painting.loop import PaintRun
from vaeworks.pipelines.stable_diffusion import load_pipeline, save_pipeline
from vaeworks.training.loop import Interrupted

pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings(  # Euler schedulers call np.array on tensors
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

CONFIG = PaintConfig(
    move=MoveConfig(rank=2, images=64),
    optimizer=OptimizerConfig(lr=2e-3, warmup_images=0, final_lr=1.0),
    size=32,
    images=32,
    batch=8,
    ema_halflife=16,
    precision="fp32",
    val_fraction=0.1,
    val_images=8,
    val_every=32,
    save_every=16,
    log_every=8,
    prompts=("a red circle",),
    steps=1,
    trackers=(),
)
SHAPES = "shapes:80:32"


def stored(kind: str, folder: Path) -> Path:
    """A tiny pipeline of random weights for f8c4 latents."""
    save_pipeline(load_pipeline(kind, random_vae(4), "cpu", torch.float32), folder)
    return folder


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """f8c16."""
    path = tmp_path_factory.mktemp("vae") / "wide.safetensors"
    vw.save(random_vae(16), path)
    return path


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored("tiny", tmp_path_factory.mktemp("start") / "sd1")


def move(start: Path, vae: Path, out: Path, *, train: str = "lora", resume: bool = False, **settings: Any) -> Any:
    settings = {"move": dataclasses.replace(CONFIG.move, train=train), **settings}
    config = dataclasses.replace(CONFIG, **settings)
    return vw.train_pipeline(config, vae, SHAPES, out, start=start, resume=resume, show=False)


def denoiser_file(pipeline: Path) -> dict[str, torch.Tensor]:
    (path,) = [*pipeline.glob("unet/*.safetensors"), *pipeline.glob("transformer/*.safetensors")]
    return load_file(path)


def log_of(pipeline: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (pipeline / "training" / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("train", ["lora", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_moved_and_trained(kind: str, train: str, vae: Path, tmp_path: Path) -> None:
    """Stock parts that diffusers loads and that take the new latents; the report; sheets of the start and the end."""
    start = stored(kind, tmp_path / "start")
    before = {path: path.read_bytes() for path in start.rglob("*") if path.is_file()}
    result = move(start, vae, tmp_path / "out", train=train)
    out = tmp_path / "out"
    assert {path: path.read_bytes() for path in start.rglob("*") if path.is_file()} == before
    pipe = diffusers.DiffusionPipeline.from_pretrained(out, local_files_only=True)
    assert type(pipe).__name__ == result.kind == json.loads((start / "model_index.json").read_text())["_class_name"]
    assert pipe.vae.config.latent_channels == 16
    assert not [name for name in denoiser_file(out) if "lora" in name]
    assert denoiser_file(out).keys() == denoiser_file(start).keys()
    report = json.loads((out / "training" / "move.json").read_text())
    assert (report["old"], report["new"], len(report["new_layers"])) == ("f8c4", "f8c16", 2)
    assert 0 < report["explained_of_old"] <= 1
    sheets = sorted(path.stem for path in (out / "training" / "samples").iterdir())
    assert sheets == ["0000000000", "0000000032"]
    looks = [line["held_out_loss"] for line in log_of(out) if "held_out_loss" in line]
    assert len(looks) == 2 and all(0 < loss < 100 for loss in looks)
    record = json.loads((out / "training" / "run.json").read_text())
    assert record["start"] == str(start) and record["config"]["matrices"] == "adamw"  # Muon is for new networks
    # what is trained: attention and two new layers, or everything; text encoders never
    theirs, ours = denoiser_file(start), denoiser_file(out)
    same = [name for name, tensor in theirs.items() if torch.equal(tensor, ours[name])]
    if train == "lora":
        assert same and not [name for name in same if ".to_q.weight" in name]
        untouched = [name for name in ours if "norm" in name or ".ff." in name]
        assert set(untouched) <= set(same)
    else:
        assert len(same) < len(ours) / 4
    texts = [path for path in before if path.parent.name.startswith("text_encoder") and path.suffix == ".safetensors"]
    assert texts
    assert all((out / path.relative_to(start)).read_bytes() == before[path] for path in texts)
    card, page = (out / "README.md").read_text(), (out / "training" / "report.html").read_text()
    assert "denoiser of start in new latents" in card and "transformer of SD3's kind" not in card + page
    assert "32 images" in card
    painted = vw.generate(str(out), "a red circle", steps=1, size=32)
    assert painted.picture.size == (32, 32)


@pytest.mark.parametrize("train", ["lora", "all"])
def test_a_resumed_move_is_the_undisturbed_one(
    train: str, started: Path, vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, after Ctrl-C between two checkpoints."""
    move(started, vae, tmp_path / "whole", train=train)
    step = PaintRun.step

    def interrupted(run: PaintRun) -> None:
        step(run)
        if run.images_seen == 24:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(PaintRun, "step", interrupted)
    with pytest.raises(Interrupted, match=r"stopped at 24 images; .*start=.*sd1', resume=True\)"):
        move(started, vae, tmp_path / "part", train=train)
    monkeypatch.setattr(PaintRun, "step", step)
    move(started, vae, tmp_path / "part", train=train, resume=True)
    a, b = denoiser_file(tmp_path / "whole"), denoiser_file(tmp_path / "part")
    assert all(torch.equal(tensor, b[name]) for name, tensor in a.items())
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "part")


@pytest.mark.parametrize("train", ["lora", "all"])
def test_the_loss_of_held_out_images_falls(train: str, started: Path, vae: Path, tmp_path: Path) -> None:
    move(started, vae, tmp_path / "out", train=train, images=320, val_every=320, save_every=320, ema_halflife=0)
    looks = [line["held_out_loss"] for line in log_of(tmp_path / "out") if "held_out_loss" in line]
    assert looks[-1] < 0.9 * looks[0]


def test_a_vae_of_the_same_space_keeps_the_layers(started: Path, tmp_path: Path) -> None:
    """The pipeline's own VAE from a file: a linear map would fit no better; only what is trained changes."""
    vw.save(random_vae(4), tmp_path / "same.safetensors")
    move(started, tmp_path / "same.safetensors", tmp_path / "out", standardize="file")
    report = json.loads((tmp_path / "out" / "training" / "move.json").read_text())
    assert report["new_layers"] == [] and report["explained_as_they_are"] > 0.99


# Refused, before a picture is encoded


def refused(words: str, start: Path, vae: Path, out: Path, kind: type[Exception] = vw.ConfigError, **rest: Any) -> None:
    with pytest.raises(kind, match=words) as caught:
        move(start, vae, out, **rest)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_refused(started: Path, vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "prepare_latents", lambda *_: pytest.fail("images were encoded"))
    out = tmp_path / "out"
    refused("not a diffusers pipeline", tmp_path, vae, out, vw.FormatError)
    coarse = tmp_path / "coarse.safetensors"
    vw.save(random_vae(4, f=16), coarse)
    refused("StableDiffusionPipeline works on one latent for 8 pixels", started, coarse, out)
    flux = stored("tiny-flux", tmp_path / "flux")
    refused(r"40x40\) must be divisible by 16 for FluxPipeline", flux, vae, out, size=40)
    refused("divisible by the VAE's downsample_factor", started, vae, out, size=36)
    few = MoveConfig(train="all", images=16)
    refused("16 images give 48 positions to fit a map to .* give more", flux, vae, out, vw.DataError, move=few)
    tiny = tmp_path / "tiny.safetensors"
    vw.save(vw.build(configs.TINY), tiny)
    refused("another grid|f2c4", started, tiny, out)
    monkeypatch.setitem(sys.modules, "peft", None)
    refused(r"vaeworks\[lora\]", started, vae, out, vw.MissingExtraError)


def test_generate_says_what_does_not_fit(started: Path, vae: Path) -> None:
    """Without --from: the pipeline's denoiser takes other latents."""
    with pytest.raises(vw.ConfigError, match=r"takes latents of 4 channels \(f8c4\), this VAE makes 16") as caught:
        vw.generate(str(started), "a red circle", str(vae))
    assert "\n" not in str(caught.value)
