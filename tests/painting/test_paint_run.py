"""Runs of `train_pipeline`: they resume to the bit, leave a stock pipeline, and refuse what does not fit."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path

import configs
import pytest
import torch
from safetensors.torch import load_file

import vaeworks as vw
from vaeworks.config import DenoiserConfig, OptimizerConfig, PaintConfig
from vaeworks.painting import loop
from vaeworks.painting.conditions import compact_, expand_
from vaeworks.painting.loop import PaintRun
from vaeworks.painting.sheet import paint_prompts
from vaeworks.pipelines.stable_diffusion import open_pipeline
from vaeworks.training.loop import Interrupted

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

CONFIG = PaintConfig(
    denoiser=DenoiserConfig(width=32, depth=2, head_dim=16, patch=4, text_width=32),
    optimizer=OptimizerConfig(lr=5e-3, warmup_images=16, final_lr=0.1),
    size=16,
    images=96,
    batch=8,
    ema_halflife=32,
    precision="fp32",
    val_fraction=0.1,
    val_images=8,
    val_every=48,
    save_every=32,
    log_every=16,
    prompts=("a red circle on a blue ground", "a blue circle on a red ground"),
    steps=2,
    trackers=(),
)
SHAPES = "shapes:64:16"


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE of f2 c4 in a file that states a scale of its own."""
    torch.manual_seed(0)
    model = vw.build(configs.TINY)
    model.config = model.config.with_facts(scaling_factor=0.5, shift_factor=0.25)
    path = tmp_path_factory.mktemp("vae") / "vae.safetensors"
    vw.save(model, path)
    return path


@pytest.fixture(scope="module")
def pipeline(vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("finished") / "pipe"
    vw.train_pipeline(CONFIG, vae, SHAPES, out, show=False)
    return out


def weights(pipeline: Path) -> dict[str, torch.Tensor]:
    parts = ("transformer/diffusion_pytorch_model", "text_encoder/model", "text_encoder_2/model")
    return {
        f"{part}.{name}": tensor
        for part in parts
        for name, tensor in load_file(pipeline / f"{part}.safetensors").items()
    }


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_leaves_what_it_promises(pipeline: Path) -> None:
    """Stock parts, the latents' statistics, the page, the sheet at every look, and nothing that only the run needed."""
    names = {path.name for path in pipeline.iterdir()}
    assert {"model_index.json", "vae", "transformer", "text_encoder_3", "vaeworks.json", "README.md"} <= names
    training = {path.name for path in (pipeline / "training").iterdir()}
    assert {"run.json", "log.jsonl", "report.html", "result.json"} <= training
    assert not {"start", "latents"} & training
    samples = sorted(path.stem for path in (pipeline / "training" / "samples").iterdir())
    assert samples == ["0000000000", "0000000048", "0000000096"]
    page = (pipeline / "training" / "report.html").read_text()
    assert "finished" in page and "vaeworks generate" in page
    lines = [json.loads(line) for line in (pipeline / "training" / "log.jsonl").read_text().splitlines()]
    assert [line["images_seen"] for line in lines if "held_out_loss" in line] == [0, 48, 96]
    assert all("seconds" not in line for line in lines)


def test_what_is_trained_moves_and_the_vae_stays(pipeline: Path, vae: Path) -> None:
    """Denoiser and text encoders differ from the start; the VAE's weights are those of its file."""
    index = json.loads((pipeline / "vae" / "config.json").read_text())
    stated = json.loads((pipeline / "vaeworks.json").read_text())
    assert index["scaling_factor"] == pytest.approx(1 / stated["std"][0])
    assert index["shift_factor"] == pytest.approx(stated["mean"][0])
    theirs = load_file(pipeline / "vae" / "diffusion_pytorch_model.safetensors")
    ours = vw.to_diffusers(vw.load(vae)).state_dict()
    assert equal(theirs, ours)
    proj = weights(pipeline)["transformer/diffusion_pytorch_model.proj_out.weight"]
    assert proj.abs().max() > 0  # it began as zeros


def test_a_resumed_run_is_the_undisturbed_one(
    pipeline: Path, vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by Ctrl-C between two checkpoints and continued, a run has the same weights and the same log."""
    out = tmp_path / "pipe"
    step = PaintRun.step

    def interrupted(run: PaintRun) -> None:
        step(run)
        if run.images_seen == 40:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(PaintRun, "step", interrupted)
    with pytest.raises(Interrupted, match=r"stopped at 40 images; saved .*0000000040.safetensors; continue with"):
        vw.train_pipeline(CONFIG, vae, SHAPES, out, show=False)
    assert not (out / "model_index.json").exists()
    monkeypatch.setattr(PaintRun, "step", step)
    vw.train_pipeline(CONFIG, vae, SHAPES, out, resume=True, show=False)
    assert equal(weights(out), weights(pipeline))
    assert (out / "training" / "log.jsonl").read_text() == (pipeline / "training" / "log.jsonl").read_text()


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    pipeline: Path, vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What dies without a word after 56 images goes on at 32, and ends as if nothing had happened."""
    out = tmp_path / "pipe"
    step = PaintRun.step

    def dies(run: PaintRun) -> None:
        if run.images_seen == 56:
            raise SystemExit(9)
        step(run)

    monkeypatch.setattr(PaintRun, "step", dies)
    with pytest.raises(SystemExit):
        vw.train_pipeline(CONFIG, vae, SHAPES, out, show=False)
    monkeypatch.setattr(PaintRun, "step", step)
    vw.train_pipeline(CONFIG, vae, SHAPES, out, resume=True, show=False)
    assert equal(weights(out), weights(pipeline))


def test_micro_batches_are_the_whole_batch(pipeline: Path, vae: Path, tmp_path: Path) -> None:
    """Gradients of parts add up to that of the whole, to rounding."""
    config = dataclasses.replace(CONFIG, micro_batch=2, images=32)
    whole = dataclasses.replace(CONFIG, images=32)
    for name, each in (("parts", config), ("whole", whole)):
        vw.train_pipeline(each, vae, SHAPES, tmp_path / name, show=False)
    a, b = weights(tmp_path / "parts"), weights(tmp_path / "whole")
    difference = max((a[name] - b[name]).abs().max().item() for name in a)
    assert difference < 2e-3  # Muon's steps are as large for small gradients, and round in bf16


def test_one_token_of_zeros_is_as_good_as_256(pipeline: Path) -> None:
    """Pictures of the compacted pipeline are those of the stock one, before and after."""
    pipe = open_pipeline(str(pipeline))
    pipe.set_progress_bar_config(disable=True)

    def painted(**options: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        call = {"num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "pt", "height": 16, "width": 16}
        return pipe(prompt=["a red circle"], generator=generator, **call, **options).images

    before = painted()
    compact_(pipe)
    compacted = painted(max_sequence_length=1)
    other = pipe.transformer.attn_processors
    for processor in other.values():
        processor.bias = 0.0  # as if the zeros were one token
    wrong = painted(max_sequence_length=1)
    expand_(pipe)
    after = painted()
    assert (before - compacted).abs().max() < 1e-5
    assert torch.equal(before, after)
    assert (before - wrong).abs().max() > 1e-4


def test_the_same_vae_paints_the_same_whatever_scale_its_file_states(pipeline: Path, vae: Path) -> None:
    """The pipeline's own VAE, and the file that it came from, whose stated scale is another."""
    prompt = "a red circle on a blue ground"
    own = vw.generate(str(pipeline), prompt, steps=2, seed=3)
    given = vw.generate(str(pipeline), prompt, vae, steps=2, seed=3)
    assert own.picture.tobytes() == given.picture.tobytes()
    assert own.picture.size == (16, 16)


def test_pictures_depend_on_their_own_noise_alone(pipeline: Path) -> None:
    """Picture i of a sheet is the same whatever is painted beside it."""
    pipe = open_pipeline(str(pipeline))
    words = ["a red circle", "a blue square", "a green cross"]
    options = {"size": 16, "guidance": 2.0, "steps": 2}
    together = paint_prompts(pipe, words, **options)  # type: ignore[arg-type]
    alone = paint_prompts(pipe, words[:1], **options)  # type: ignore[arg-type]
    assert (together[:1].int() - alone.int()).abs().max() <= 1
    assert not torch.equal(together[0], together[1])


def test_a_used_folder_is_refused(pipeline: Path, vae: Path, tmp_path: Path) -> None:
    """Another run, other settings, another VAE, other images, and a folder with somebody's files: one line each."""
    before = weights(pipeline)
    with pytest.raises(vw.ConfigError, match="holds another run; pass --resume to continue it"):
        vw.train_pipeline(CONFIG, vae, SHAPES, pipeline, show=False)
    with pytest.raises(vw.ConfigError, match=r"another configuration .batch was 8, now 4"):
        vw.train_pipeline(dataclasses.replace(CONFIG, batch=4), vae, SHAPES, pipeline, resume=True, show=False)
    other = tmp_path / "other.safetensors"
    torch.manual_seed(1)
    vw.save(vw.build(configs.TINY), other)
    with pytest.raises(vw.ConfigError, match="latents of another VAE"):
        vw.train_pipeline(CONFIG, other, SHAPES, pipeline, resume=True, show=False)
    with pytest.raises(vw.ConfigError, match=r"images or captions .* are not those"):
        vw.train_pipeline(CONFIG, vae, "shapes:65:16", pipeline, resume=True, show=False)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(vw.ConfigError, match="is not empty"):
        vw.train_pipeline(CONFIG, vae, SHAPES, mine, show=False)
    with pytest.raises(vw.ConfigError, match="holds no run to resume"):
        vw.train_pipeline(CONFIG, vae, SHAPES, tmp_path / "new", resume=True, show=False)
    assert equal(weights(pipeline), before) and [p.name for p in mine.iterdir()] == ["notes.txt"]


def test_what_cannot_be_learned_from_is_refused(vae: Path, tmp_path: Path) -> None:
    """One caption for all images, none at all, a size that f does not divide: one line, and no folder."""
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(20):
        Image.new("RGB", (16, 16), (i * 12, 0, 0)).save(folder / f"{i}.png")
    out = tmp_path / "pipe"
    with pytest.raises(vw.DataError, match="caption"):
        vw.train_pipeline(CONFIG, vae, folder, out, show=False)
    for i in range(20):
        (folder / f"{i}.txt").write_text("a dog")
    with pytest.raises(vw.DataError, match=r"one caption, 'a dog'"):
        vw.train_pipeline(CONFIG, vae, folder, out, show=False)
    with pytest.raises(vw.ConfigError, match=r"size .=15. must be divisible"):
        vw.train_pipeline(dataclasses.replace(CONFIG, size=15), vae, SHAPES, out, show=False)
    with pytest.raises(vw.ConfigError, match="did you mean 'paint-tiny'"):
        vw.train_pipeline("paint-tin", vae, SHAPES, out, show=False)
    assert not out.exists()


def test_a_loss_that_is_not_finite_ends_the_run(vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some steps in a row; weights stay finite, and the checkpoint is named."""
    monkeypatch.setattr(loop, "FAILURES", 2)
    out = tmp_path / "pipe"
    batch = PaintRun.batch

    def broken(run: PaintRun, counters: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[str]]:
        z, noise, times, captions = batch(run, counters)
        return (z * float("nan") if run.images_seen >= 40 else z), noise, times, captions

    monkeypatch.setattr(PaintRun, "batch", broken)
    with pytest.raises(vw.TrainingError, match=r"not finite in 2 steps in a row; checkpoint .*0000000032"):
        vw.train_pipeline(CONFIG, vae, SHAPES, out, show=False)
    kept = load_file(out / "training" / "checkpoints" / "0000000032.safetensors")
    assert all(tensor.isfinite().all() for tensor in kept.values())


def test_a_small_u_net_is_stable_diffusion_1(vae: Path, tmp_path: Path) -> None:
    """Kind sd1: epsilon with min-SNR; the shift of the latents is folded into the VAE, which the pipeline ignores."""
    denoiser = DenoiserConfig(kind="sd1", width=32, depth=1, head_dim=4, text_width=32)
    config = dataclasses.replace(CONFIG, denoiser=denoiser, objective="epsilon", matrices="adamw", images=16)
    vw.train_pipeline(config, vae, SHAPES, tmp_path / "pipe", show=False)
    index = json.loads((tmp_path / "pipe" / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    stated = json.loads((tmp_path / "pipe" / "vae" / "config.json").read_text())
    assert not stated.get("shift_factor")
    pipe, model = open_pipeline(str(tmp_path / "pipe")), vw.load(vae)
    how = json.loads((tmp_path / "pipe" / "vaeworks.json").read_text())
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    theirs = pipe.vae.decode(z / pipe.vae.config.scaling_factor).sample
    ours = model.decode(z * how["std"][0] + how["mean"][0])
    assert (theirs - ours).abs().max() < 1e-4
