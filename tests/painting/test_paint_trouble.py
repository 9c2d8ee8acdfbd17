"""Painting runs in trouble: killed, terminated, on full disks, with rates that are too high, in two processes."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import configs
import pytest
import torch
from html_pages import Page
from safetensors.torch import load_file

import vaeworks as vw
from vaeworks.config import DenoiserConfig, MoveConfig, OptimizerConfig, PaintConfig
from vaeworks.errors import VaeworksError
from vaeworks.painting import captioned_latents, loop
from vaeworks.painting.alarms import PATIENCE, WINDOW, PaintAlarms
from vaeworks.painting.loop import PaintRun
from vaeworks.pipelines import stable_diffusion
from vaeworks.training.loop import Interrupted
from vaeworks.training.monitor.log import read_log

pytestmark = pytest.mark.filterwarnings(  # Euler schedulers call np.array on tensors
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

CONFIG = PaintConfig(
    denoiser=DenoiserConfig(width=32, depth=2, head_dim=16, patch=4, text_width=32),
    optimizer=OptimizerConfig(lr=2e-3, warmup_images=0, final_lr=1.0),
    matrices="adamw",
    size=16,
    images=32,
    batch=8,
    ema_halflife=16,
    precision="fp32",
    val_fraction=0.1,
    val_images=4,
    val_every=32,
    save_every=16,
    log_every=8,
    prompts=("a red circle",),
    steps=1,
    trackers=(),
)
SHAPES = "shapes:40:16"
OPTIONS = """
    --denoiser.width 32 --denoiser.depth 2 --denoiser.head-dim 16 --denoiser.patch 4 --denoiser.text-width 32
    --optimizer.lr 2e-3 --optimizer.warmup-images 0 --optimizer.final-lr 1 --matrices adamw --size 16 --images 32
    --batch 8 --ema-halflife 16 --precision fp32 --val-fraction 0.1 --val-images 4 --val-every 32 --save-every 16
    --log-every 8 --steps 1 --optimizer.betas 0.9 0.999 --optimizer.weight-decay 0 --max-minutes 1000
""".split()


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vae") / "vae.safetensors"
    vw.save(vw.build(configs.TINY), path)
    return path


def train(vae: Any, out: Path, data: str | Path = SHAPES, **settings: Any) -> Any:
    resume = settings.pop("resume", False)
    return vw.train_pipeline(dataclasses.replace(CONFIG, **settings), vae, data, out, resume=resume, show=False)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.parent.name}.{name}": tensor
        for path in sorted(out.glob("t*/*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def same(a: Path, b: Path) -> bool:
    x, y = weights(a), weights(b)
    return len(x) > 50 and x.keys() == y.keys() and all(torch.equal(t, y[name]) for name, t in x.items())


@pytest.fixture(scope="module")
def finished(vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "pipe"
    train(vae, out)
    return out


# Interrupted


@pytest.mark.parametrize("stop_after", [1, 4])
def test_sigterm_and_resume(
    stop_after: int, finished: Path, vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first planned checkpoint, and at the very end: the run that was not disturbed, to the bit."""
    step = PaintRun.step

    def terminated(run: PaintRun) -> None:
        step(run)
        if run.images_seen == 8 * stop_after:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(PaintRun, "step", terminated)
    with pytest.raises(Interrupted, match=f"stopped at {8 * stop_after} images; saved .*resume=True"):
        train(vae, tmp_path / "pipe")
    monkeypatch.setattr(PaintRun, "step", step)
    train(vae, tmp_path / "pipe", resume=True)
    assert same(finished, tmp_path / "pipe")
    expected, found = (read_log(out / "training") for out in (finished, tmp_path / "pipe"))
    assert len(expected) > 5 and found == expected


def test_sigkill_and_resume(finished: Path, vae: Path, tmp_path: Path) -> None:
    """A process of its own, killed after its first checkpoint; a torn newest checkpoint is passed over."""
    script = (
        "import sys, time; sys.path[:0] = [sys.argv[3], sys.argv[3] + '/painting']\n"
        "import torch; torch.set_num_threads(1)\n"
        "from test_paint_trouble import PaintRun, Path, train\n"
        "step = PaintRun.step\n"
        "PaintRun.step = lambda run: (time.sleep(0.2 if run.images_seen >= 16 else 0), step(run))[1]\n"
        "train(sys.argv[1], Path(sys.argv[2]))\n"
    )
    out = tmp_path / "pipe"
    command = [sys.executable, "-c", script, str(vae), str(out), str(Path(__file__).parents[1])]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    checkpoints = out / "training" / "checkpoints"
    try:
        deadline = time.monotonic() + 120
        while not list(checkpoints.glob("0*.safetensors")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        process.kill()
        _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, err.decode()
    assert not (out / "model_index.json").exists()
    (checkpoints / "0000000031.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0torn")
    train(vae, out, resume=True)
    assert same(finished, out)


def test_ctrl_c_while_images_are_encoded(
    finished: Path, vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing half-written is left, and the same command starts the run."""
    encode = captioned_latents.encode_batches

    def interrupted(*args: Any) -> Iterator[Any]:
        yield from encode(*args)
        raise KeyboardInterrupt

    out = tmp_path / "pipe"
    monkeypatch.setattr(captioned_latents, "encode_batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(vae, out)
    assert not [path for path in out.rglob("*") if path.is_file()]
    monkeypatch.setattr(captioned_latents, "encode_batches", encode)
    train(vae, out)
    assert same(finished, out)


def test_a_start_that_was_not_finished_is_made_again(
    finished: Path, vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the untrained pipeline was written: whatever of it is there is written anew."""
    out = tmp_path / "pipe"

    def half(pipe: Any, folder: Path) -> None:
        (folder / "transformer").mkdir(parents=True)
        (folder / "transformer" / "config.json").write_text("{")
        raise SystemExit(9)

    monkeypatch.setattr(loop, "save_pipeline", half)
    with pytest.raises(SystemExit):
        train(vae, out)
    monkeypatch.undo()
    train(vae, out)
    assert same(finished, out)
    monkeypatch.setattr(loop, "save_pipeline", half)
    with pytest.raises(SystemExit):  # made longer, which needs the start again
        train(vae, out, images=48, resume=True)
    monkeypatch.undo()
    assert train(vae, out, images=48, resume=True).images_seen == 48


def test_killed_while_the_result_is_written(
    finished: Path, vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some parts are in the folder, some are not: resumed, the run writes them all, and trains nothing more."""
    out, save = tmp_path / "pipe", loop.save_pipeline

    def half(pipe: Any, folder: Path) -> None:
        if folder == out:
            (out / ".pipeline" / "vae").mkdir(parents=True)
            (out / "transformer").mkdir()
            raise SystemExit(9)
        save(pipe, folder)

    monkeypatch.setattr(loop, "save_pipeline", half)
    with pytest.raises(SystemExit):
        train(vae, out)
    monkeypatch.undo()
    monkeypatch.setattr(PaintRun, "step", lambda run: pytest.fail("a step was taken"))
    train(vae, out, resume=True)
    assert same(finished, out)
    assert not (out / ".pipeline").exists()
    assert not (out / "training" / "start").exists()


def test_a_finished_run_is_made_longer(finished: Path, vae: Path, tmp_path: Path) -> None:
    """From its last checkpoint; the latents and the start are made again."""
    out = tmp_path / "pipe"
    train(vae, out)
    result = train(vae, out, images=48, resume=True)
    assert result.images_seen == 48
    seen = [line["images_seen"] for line in read_log(out / "training") if "loss" in line]
    assert seen == [8, 16, 24, 32, 40, 48]
    assert not same(finished, out)


# Full disks


@pytest.mark.parametrize("where", ["checkpoint", "pipeline"])
def test_a_full_disk(where: str, finished: Path, vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, nothing under a final name; with space again, the run goes on from where it was."""
    out, save = tmp_path / "pipe", stable_diffusion.save_pipeline

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if where == "checkpoint":
        from vaeworks.training.run import checkpoint

        monkeypatch.setattr(checkpoint, "write_tensors", full)
    else:

        def late(pipe: Any, folder: Path) -> None:
            if folder == out:
                monkeypatch.setattr(type(pipe), "save_pretrained", full)
            save(pipe, folder)

        monkeypatch.setattr(loop, "save_pipeline", late)
    with pytest.raises(VaeworksError, match="could not be written: No space left on device") as caught:
        train(vae, out)
    assert "\n" not in str(caught.value)
    assert not (out / "model_index.json").exists()
    assert bool(list(out.glob("training/checkpoints/*.safetensors"))) == (where == "pipeline")
    monkeypatch.undo()
    train(vae, out, resume=True)
    assert same(finished, out)


# Learning


def test_the_loss_falls_on_what_is_trivial_to_learn(vae: Path, tmp_path: Path) -> None:
    """Two pictures, each with its word, in latents of little noise."""
    from PIL import Image

    model = vw.load(vae)
    with torch.no_grad():
        model.quant_conv.bias[4:] -= 10.0  # logarithms of variances

    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(32):
        Image.new("RGB", (16, 16), (250 - i % 2 * 240, 20 + i // 2, 90)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(["a red wall", "a blue wall"][i % 2])
    result = train(
        model,
        tmp_path / "pipe",
        folder,
        images=1600,
        val_every=1600,
        save_every=1600,
        matrices="muon",
        val_fraction=0.2,
    )
    losses = [line["loss"] for line in read_log(tmp_path / "pipe" / "training") if "loss" in line]
    looks = [line["held_out_loss"] for line in read_log(tmp_path / "pipe" / "training") if "held_out_loss" in line]
    assert sum(losses[-20:]) < 0.6 * sum(losses[:20])
    assert looks[-1] < 0.6 * looks[0] and result.held_out_loss == looks[-1]


def test_a_rate_that_is_far_too_high(vae: Path, tmp_path: Path) -> None:
    """The run ends in one line that names the kept checkpoint and the rate, or says so in its log."""
    out = tmp_path / "pipe"
    optimizer = dataclasses.replace(CONFIG.optimizer, lr=1e9)
    with pytest.raises(
        vw.TrainingError, match=r"not finite in 20 steps in a row; .*lower optimizer.lr \(=1e\+09\)"
    ) as e:
        train(vae, out, optimizer=optimizer, images=800)
    assert "\n" not in str(e.value)
    assert not (out / "model_index.json").exists()


def stepped(losses: list[float], start: int = 0) -> list[dict[str, Any]]:
    return [{"images_seen": start + i, "loss": loss} for i, loss in enumerate(losses)]


def test_alarms() -> None:
    """A loss that rises, held-out images that get worse, and a run that learns nothing; each over when it is over."""
    watch = PaintAlarms()

    def raised(lines: list[dict[str, Any]]) -> list[tuple[str, bool]]:
        return [(alarm.kind, alarm.over) for line in lines for alarm in watch.observe(line)]

    assert raised(stepped([1.0] * WINDOW)) == []
    assert raised(stepped([2.0] * WINDOW)) == [("learning rate", False)]
    assert raised(stepped([1.0] * WINDOW)) == [("learning rate", True)]
    assert raised(stepped([math.nan, 1.0])) == []

    watch = PaintAlarms()
    looks = [(1.0, 1.0), (0.5, 0.9), (0.6, 0.8), (0.65, 0.7)]
    said = [raised([*stepped([loss] * WINDOW), {"images_seen": 0, "held_out_loss": held}]) for held, loss in looks]
    assert said == [[], [], [], [("overfitting", False)]]
    assert raised([{"images_seen": 9, "held_out_loss": 0.5}]) == [("overfitting", True)]

    watch = PaintAlarms()
    held = [{"images_seen": i, "held_out_loss": 1.0} for i in range(PATIENCE + 1)]
    assert raised(held) == [("no learning", False)]
    assert raised([{"images_seen": 9, "held_out_loss": 0.8}]) == [("no learning", True)]
    assert raised([{"images_seen": 9, "held_out_loss": None}, {"images_seen": 9, "event": "x"}]) == []

    again = PaintAlarms(held)
    assert list(again.observe({"images_seen": 9, "held_out_loss": 1.0})) == []  # raised before the run was resumed


# What people see


def test_page_card_and_log(finished: Path) -> None:
    """The page has the sheet, the curves and the commands; the card what was trained; no line of the log a clock."""
    page = Page(finished / "training" / "report.html").text
    for word in ("finished", "a red circle", "Loss", "vaeworks generate", "from_pretrained", SHAPES):
        assert word in page, word
    assert page.count("data:image") >= 2
    card = (finished / "README.md").read_text()
    assert "on 32 images of `shapes:40:16`" in card and "objective flow" in card
    code = card.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    for line in read_log(finished / "training"):
        assert not {"time", "seconds", "date", "images_per_second"} & line.keys()
    result = json.loads((finished / "training" / "result.json").read_text())
    assert result["prompts"] == ["a red circle"] and result["images_seen"] == 32


def test_a_card_counts_images_without_a_line_of_the_log(vae: Path, tmp_path: Path) -> None:
    train(vae, tmp_path / "pipe", images=16, log_every=1000, val_fraction=0.0, prompts=())
    assert "on 16 images of" in (tmp_path / "pipe" / "README.md").read_text()
    result = json.loads((tmp_path / "pipe" / "training" / "result.json").read_text())
    assert result["held_out_loss"] is None and len(result["prompts"]) == 16  # captions of training images


def test_the_given_vae_stays_as_it_is(tmp_path: Path) -> None:
    model = vw.build(configs.TINY).double().train()
    train(model, tmp_path / "pipe", images=8, save_every=8)
    assert model.training and model.dtype == torch.float64
    assert all(p.requires_grad and p.dtype == torch.float64 for p in model.parameters())


# Stock


def test_diffusers_alone_paints_the_same(finished: Path, tmp_path: Path) -> None:
    """In a process that cannot import vaeworks."""
    script = (
        "import sys; sys.modules['vaeworks'] = None\n"
        "import torch; torch.set_num_threads(1)\n"
        "from diffusers import DiffusionPipeline\n"
        "pipe = DiffusionPipeline.from_pretrained(sys.argv[1], local_files_only=True)\n"
        "made = pipe('a red circle', guidance_scale=2.0, num_inference_steps=2, height=16, width=16,\n"
        "            generator=torch.Generator().manual_seed(3)).images[0]\n"
        "made.save(sys.argv[2])\n"
    )
    path = tmp_path / "theirs.png"
    done = subprocess.run(
        [sys.executable, "-c", script, str(finished), str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ours = vw.generate(str(finished), "a red circle", steps=2, guidance=2.0, seed=3).picture
    from PIL import Image, ImageChops

    with Image.open(path) as theirs:
        assert max(high for _, high in ImageChops.difference(theirs.convert("RGB"), ours).getextrema()) <= 1
    assert max(high - low for low, high in ours.getextrema()) > 8


# Processes


@pytest.fixture(scope="module")
def alone_and_together(vae: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The run of the same command in one process, and of torchrun's two."""
    from vaeworks.cli import main

    folder = tmp_path_factory.mktemp("processes")
    words = ["train-pipeline", "--vae", str(vae), "--data", SHAPES, *OPTIONS, "--out"]
    assert main([*words, str(folder / "alone")]) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "vaeworks", *words, str(folder / "together")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "alone", folder / "together"


def test_two_processes_are_one(alone_and_together: tuple[Path, Path]) -> None:
    """Weights, average and log, to what Adam makes of rounding."""
    alone, together = alone_and_together
    a, b = weights(alone), weights(together)
    assert a.keys() == b.keys() and len(a) > 50
    for name, tensor in a.items():
        torch.testing.assert_close(b[name], tensor, rtol=1e-3, atol=1e-3, msg=name)
    lines, others = read_log(alone / "training"), read_log(together / "training")
    assert [line.keys() for line in lines if "loss" in line] == [line.keys() for line in others if "loss" in line]
    for name in ("loss", "held_out_loss"):
        expected = [line[name] for line in lines if name in line]
        assert [line[name] for line in others if name in line] == pytest.approx(expected, rel=1e-3)
        assert len(expected) >= 2


# Refused


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 20}, r"size \(=20\) must be divisible by 8: the VAE's downsample_factor \(=2\) times 4"),
        ({"size": 15}, r"size \(=15\) must be divisible"),
        (
            {
                "size": 20,
                "objective": "epsilon",
                "denoiser": DenoiserConfig(kind="sd1", width=32, depth=1, head_dim=4, text_width=32),
            },
            r"size \(=20\) must be divisible by 8: pipelines with a U-Net need 8.* the nearest is 16",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_encoded(
    settings: dict[str, Any], words: str, vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "prepare_latents", lambda *_: pytest.fail("images were encoded"))
    with pytest.raises(vw.ConfigError, match=words) as caught:
        train(vae, tmp_path / "pipe", **settings)
    assert "\n" not in str(caught.value) and not (tmp_path / "pipe").exists()


def test_vaes_that_no_stock_pipeline_takes_are_refused(tmp_path: Path) -> None:
    patched = dataclasses.replace(configs.TINY, normalization="batchnorm", latents_patch=2, latent_channels=4)
    with pytest.raises(vw.ConfigError, match=r"normalized in patches of 2x2, which only Flux\.2's pipelines do; take"):
        train(vw.build(patched), tmp_path / "pipe")
    assert not (tmp_path / "pipe").exists()


def test_another_recipe_is_named(finished: Path, vae: Path) -> None:
    with pytest.raises(vw.ConfigError, match="run of recipe 'custom', not 'paint-tiny'; pass --recipe custom, or"):
        vw.train_pipeline("paint-tiny", vae, SHAPES, finished, resume=True, show=False)


def test_text_encoder_of_a_pipeline(vae: Path, tmp_path: Path) -> None:
    """Taken from a stored one, with its tokenizer, and left as it is; a folder without one is refused first."""
    from vaeworks.painting.folder import read_record

    small = DenoiserConfig(kind="sd1", width=32, depth=1, head_dim=4, text_width=32)
    own = {"objective": "epsilon", "images": 16}
    train(vae, tmp_path / "first", denoiser=small, **own)
    taken = dataclasses.replace(small, text_encoder=str(tmp_path / "first"))
    train(vae, tmp_path / "second", denoiser=taken, **own)
    name = "text_encoder/model.safetensors"
    assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert read_record(tmp_path / "second").config.denoiser.text_encoder == str(tmp_path / "first")
    missing = dataclasses.replace(small, text_encoder=str(vae.parent))
    with pytest.raises(vw.FormatError, match="no pipeline could be loaded") as caught:
        train(vae, tmp_path / "third", denoiser=missing, **own)
    assert "\n" not in str(caught.value) and not (tmp_path / "third").exists()


def test_the_recipe_sd1_takes_a_step(tmp_path: Path) -> None:
    """Its settings with a network that fits a test: checkpointed gradients, micro-batches, the file's scale, flips."""
    whole = vw.paint_recipe("sd1")
    denoiser = dataclasses.replace(
        whole.denoiser, width=32, depth=1, text_width=32, text_layers=2, vocabulary=100, tokens=None, head_dim=4
    )
    config = dataclasses.replace(
        whole, denoiser=denoiser, size=16, images=16, batch=8, save_every=16, steps=1, trackers=(), log_every=8
    )
    torch.manual_seed(0)
    model = vw.build(configs.TINY)
    model.config = model.config.with_facts(scaling_factor=0.18215)
    result = vw.train_pipeline(config, model, SHAPES, tmp_path / "pipe", show=False)
    assert (result.kind, result.images_seen) == ("StableDiffusionPipeline", 16)
    assert math.isfinite(result.loss or math.nan)
    stated = json.loads((tmp_path / "pipe" / "vae" / "config.json").read_text())
    assert stated["scaling_factor"] == pytest.approx(0.18215)
    assert whole.denoiser.width == 320 and whole.move == MoveConfig()
