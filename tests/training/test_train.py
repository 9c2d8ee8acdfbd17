"""A run: what it learns, what it leaves, how it stops and how it goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from configs import SHORT_16, TINY
from loss_oracles import objective
from PIL import Image

import vaeworks as vw
from vaeworks.config import BottleneckConfig, LossConfig, OptimizerConfig, TrainConfig
from vaeworks.data import Crops, scan
from vaeworks.devices import resolve_device, resolve_precision
from vaeworks.images import to_model_range
from vaeworks.models import Posterior
from vaeworks.models.ema import ema_decay, ema_update_
from vaeworks.random_streams import latent_noise
from vaeworks.training import Interrupted, measure_latents, train
from vaeworks.training.monitor.log import read_log
from vaeworks.training.run.checkpoint import newest_checkpoint
from vaeworks.training.run.init import initial_model
from vaeworks.training.schedule import learning_rate, progress
from vaeworks.training.state import TrainState
from vaeworks.training.step import training_step


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of colour gradients with different noise."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, 24)
    for i in range(12):
        image = (
            ramp[:, None, None] * rng.random(3)
            + ramp[None, :, None] * rng.random(3) * 0.3
            + rng.normal(0, 3, (24, 24, 3))
        )
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / f"{i:02d}.png")
    return root


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended undisturbed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(SHORT_16, folder, out, show=False)
    return out


def started(config: TrainConfig) -> TrainState:
    """What a run of this configuration trains, before its first step."""
    return TrainState.of(initial_model(config), config)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return vw.load(path).state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def figures(run: Path) -> list[dict[str, float]]:
    return read_log(run)


def test_a_run_leaves_everything_its_page_promises(finished: Path) -> None:
    """Model, best, log, samples, record, data list and result are there, and the model loads with its statistics."""
    for name in ("model.safetensors", "best.safetensors", "log.jsonl", "run.json", "data.json", "result.json"):
        assert (finished / name).is_file()
    vae = vw.load(finished)
    result = json.loads((finished / "result.json").read_text())
    assert vae.config.scaling_factor == result["latents"]["scaling_factor"] != 1.0
    assert [p.name for p in sorted((finished / "samples").iterdir())] == [f"{n:010d}.png" for n in (0, 32, 64, 96)]
    assert len(list((finished / "checkpoints").iterdir())) == SHORT_16.keep_checkpoints
    data = json.loads((finished / "data.json").read_text())
    assert len(data["train"]) + len(data["val"]) == 12
    assert data["val"]


def test_train_is_the_function_and_the_package(tmp_path: Path) -> None:
    """Whichever came first: importing the package makes it the attribute of its name, where the function was."""
    script = """
import vaeworks as vw
for _ in range(2):
    try:
        vw.train(vw.recipe("demo"), "missing", "run")
    except vw.DataError as error:
        print(str(error).count("does not exist"))
import vaeworks.training
vaeworks.training.measure_latents
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


def test_training_learns(folder: Path, tmp_path: Path) -> None:
    """On images of two gradients, a few hundred steps lift held-out PSNR by several dB over the start."""
    config = dataclasses.replace(SHORT_16, images=960, val_every=960, save_every=960, ema_halflife=100)
    result = train(config, folder, tmp_path / "run", show=False)
    looks = [line["val_psnr"] for line in figures(tmp_path / "run") if "val_psnr" in line]
    assert result.val_psnr == looks[-1] > looks[0] + 5


def test_equal_seeds_equal_runs(folder: Path, finished: Path, tmp_path: Path) -> None:
    """Loader workers do not change a run; another seed does."""
    data = dataclasses.replace(SHORT_16.data, workers=2)
    train(dataclasses.replace(SHORT_16, data=data), folder, tmp_path / "b", show=False)
    train(dataclasses.replace(SHORT_16, seed=1), folder, tmp_path / "c", show=False)
    assert same(weights(finished), weights(tmp_path / "b"))
    assert figures(finished) == figures(tmp_path / "b")
    assert not same(weights(finished), weights(tmp_path / "c"))


@pytest.mark.parametrize(("stop_after", "precision"), [(5, "fp32"), (8, "fp32"), (11, "fp32"), (6, "bf16")])
def test_an_interrupted_run_goes_on_as_if_undisturbed(
    folder: Path, finished: Path, tmp_path: Path, stop_after: int, precision: str, monkeypatch
) -> None:
    """SIGINT in the middle saves; --resume ends with the same weights, optimizer, average and log as without it."""
    from vaeworks.training import loop

    config = dataclasses.replace(SHORT_16, precision=precision)
    if precision != SHORT_16.precision:
        finished = tmp_path / "whole"
        train(config, folder, finished, show=False)

    steps = 0
    original = loop.training_step

    def counted(*args, **kwargs):
        nonlocal steps
        steps += 1
        if steps == stop_after:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*args, **kwargs)

    monkeypatch.setattr(loop, "training_step", counted)
    with pytest.raises(Interrupted, match=f"stopped at {8 * stop_after} images.*continue with: train"):
        train(config, folder, tmp_path / "run", show=False)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train(config, folder, tmp_path / "run", resume=True, show=False)
    assert same(weights(finished), weights(tmp_path / "run"))
    assert figures(finished) == figures(tmp_path / "run")
    from safetensors.torch import load_file

    assert same(
        load_file(newest_checkpoint(finished / "checkpoints")),
        load_file(newest_checkpoint(tmp_path / "run" / "checkpoints")),
    )


def test_a_killed_run_goes_on_from_its_last_checkpoint(folder: Path, finished: Path, tmp_path: Path) -> None:
    """SIGKILL loses what came after the last checkpoint and nothing else; a torn newest checkpoint is passed over."""
    script = (
        "import dataclasses, sys, time; sys.path.insert(0, sys.argv[3])\n"
        "from configs import SHORT_16; from vaeworks.training import loop, train\n"
        "step = loop.training_step\n"
        "loop.training_step = lambda *a, **k: (time.sleep(0.05), step(*a, **k))[1]\n"
        "train(SHORT_16, sys.argv[1], sys.argv[2], show=False)\n"
    )
    run = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", script, str(folder), str(run), str(Path(__file__).parents[1])])
    try:
        deadline = time.monotonic() + 120
        while (
            not list(run.glob("checkpoints/0*.safetensors")) and time.monotonic() < deadline and process.poll() is None
        ):
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert list(run.glob("checkpoints/0*.safetensors"))
    (run / "checkpoints" / "0000000095.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0torn")
    train(SHORT_16, folder, run, resume=True, show=False)
    assert same(weights(finished), weights(run))
    assert figures(finished) == figures(run)


def test_micro_batches_give_the_same_gradient() -> None:
    """A step of one batch and of four micro-batches agree, noise included."""
    batch = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    after = []
    for micro in (None, 2):
        config = dataclasses.replace(SHORT_16, micro_batch=micro, optimizer=OptimizerConfig(clip_norm=0))
        trained = TrainState.of(initial_model(config).double(), config)
        trained.optimizer = torch.optim.SGD(trained.learner.parameters(), lr=1.0)
        # fp64 weights on fp32 images would not run: let the forward cast them
        trained.learner.register_forward_pre_hook(
            lambda module, args: tuple(a.double() if torch.is_tensor(a) else a for a in args)
        )
        result = training_step(trained, batch, list(range(8)))
        after.append((result, trained.autoencoder.state_dict()))
    for name, value in after[0][1].items():
        torch.testing.assert_close(value, after[1][1][name], atol=1e-7, rtol=1e-6)
    assert after[0][0].loss == pytest.approx(after[1][0].loss, rel=1e-6)


def test_objective_is_reconstruction_plus_beta_kl() -> None:
    """Value and gradient against the definition, with torch.distributions for the KL term."""
    torch.manual_seed(0)
    moments = torch.randn(2, 8, 4, 4, requires_grad=True)
    images, recon = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8, requires_grad=True)
    posterior = Posterior(moments)
    loss, terms = objective(recon, images, posterior, LossConfig(reconstruction="mse", beta=0.3))
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(posterior.mean, posterior.std), normal(0.0, 1.0)).mean()
    expected = torch.nn.functional.mse_loss(recon, images) + 0.3 * kl
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(
        torch.autograd.grad(loss, (moments, recon), retain_graph=True),
        torch.autograd.grad(expected, (moments, recon)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
    assert terms.keys() == {"reconstruction", "kl"}


def test_step_leaves_weights_alone_when_the_loss_is_not_finite() -> None:
    """A NaN in the forward pass: no weight moves and the result says so."""
    trained = started(SHORT_16)
    before = {k: v.clone() for k, v in trained.autoencoder.state_dict().items()}
    trained.learner.register_forward_hook(lambda module, args, out: out._replace(recon=out.recon * float("nan")))
    batch = torch.zeros(8, 3, 16, 16, dtype=torch.uint8)
    result = training_step(trained, batch, list(range(8)))
    assert not result.finite
    assert same(before, trained.autoencoder.state_dict())


def test_a_run_that_diverges_stops_with_one_line_and_keeps_its_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch
) -> None:
    """The message names the checkpoint that is kept and what to try; that checkpoint is whole."""
    from vaeworks.training import loop

    original, calls = loop.training_step, 0

    def failing(*args, **kwargs):
        nonlocal calls
        calls += 1
        result = original(*args, **kwargs)
        return dataclasses.replace(result, loss=float("nan")) if calls >= 6 else result

    monkeypatch.setattr(loop, "training_step", failing)
    with pytest.raises(
        vw.TrainingError, match=r"3 steps in a row.*lower learning rate.*0032\.safetensors is kept"
    ) as caught:
        train(SHORT_16, folder, tmp_path / "run", show=False)
    assert "\n" not in str(caught.value)
    assert newest_checkpoint(tmp_path / "run" / "checkpoints").name == "0000000032.safetensors"


def test_a_step_that_is_not_finite_is_passed_over(folder: Path, tmp_path: Path) -> None:
    """A NaN injected into one step's images: no weight moves in it, the run goes on and ends with finite weights."""
    from vaeworks.training import loop

    original = loop.training_step
    moved: list[bool] = []

    def injected(trained, *args, **kwargs):
        before = trained.autoencoder.decoder.conv_out.weight.detach().clone()
        hook = trained.learner.register_forward_hook(
            lambda m, a, out: out._replace(recon=out.recon * (float("nan") if len(moved) == 3 else 1))
        )
        result = original(trained, *args, **kwargs)
        hook.remove()
        moved.append(not torch.equal(before, trained.autoencoder.decoder.conv_out.weight))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "training_step", injected)
        train(SHORT_16, folder, tmp_path / "run", show=False)
    assert moved == [True] * 3 + [False] + [True] * 8
    assert all(t.isfinite().all() for t in weights(tmp_path / "run").values())


def test_a_full_disk_keeps_the_previous_checkpoint(folder: Path, tmp_path: Path) -> None:
    """A limit on file size stands in for a full disk: one line, the older checkpoint whole, nothing half-written."""
    script = (
        "import dataclasses, resource, signal, sys; sys.path.insert(0, sys.argv[3])\n"
        "from configs import SHORT_16; from vaeworks.training import loop, train\n"
        "from vaeworks.errors import VaeworksError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "save, calls = loop.save_checkpoint, []\n"
        "def second_fails(*a):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 2: resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))\n"
        "    return save(*a)\n"
        "loop.save_checkpoint = second_fails\n"
        "try: train(SHORT_16, sys.argv[1], sys.argv[2], show=False)\n"
        "except VaeworksError as error: print(error)\n"
    )
    run = tmp_path / "run"
    command = [sys.executable, "-c", script, str(folder), str(run), str(Path(__file__).parents[1])]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert "0000000064.safetensors could not be written: " in said
    assert said.count("\n") == 1
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["0000000032.safetensors"]
    assert newest_checkpoint(run / "checkpoints") is not None
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: dataclasses.replace(c, optimizer=OptimizerConfig(lr=1.0)),
            "another configuration.*optimizer.lr was 0.001, now 1.0",
        ),
        (
            lambda c: dataclasses.replace(c, model=dataclasses.replace(TINY, latent_channels=8)),
            "model.latent_channels was 4, now 8",
        ),
    ],
)
def test_resume_refuses_another_configuration(folder: Path, finished: Path, change, message: str) -> None:
    """The field and both values are named, and the run is as it was."""
    before = (finished / "run.json").read_text()
    with pytest.raises(vw.ConfigError, match=message):
        train(change(SHORT_16), folder, finished, resume=True, show=False)
    assert (finished / "run.json").read_text() == before


def test_resume_refuses_other_images(folder: Path, finished: Path, tmp_path: Path) -> None:
    """Order is a function of the file list: a changed list is another run."""
    Image.new("RGB", (32, 32), "red").save(tmp_path / "new.png")
    (tmp_path / "old.png").write_bytes((folder / "00.png").read_bytes())
    with pytest.raises(vw.DataError, match="not those that the run started with"):
        train(SHORT_16, tmp_path, finished, resume=True, show=False)


def test_output_folder_is_never_taken_from_another_run(folder: Path, finished: Path, tmp_path: Path) -> None:
    """A folder with a run, one with other files, a file, and nothing to resume: four refusals."""
    with pytest.raises(vw.ConfigError, match="holds another run; pass --resume"):
        train(SHORT_16, folder, finished, show=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    with pytest.raises(vw.ConfigError, match="is not empty"):
        train(SHORT_16, folder, tmp_path / "full", show=False)
    with pytest.raises(vw.ConfigError, match="is a file"):
        train(SHORT_16, folder, tmp_path / "full" / "thesis.txt", show=False)
    with pytest.raises(vw.ConfigError, match="no run to resume"):
        train(SHORT_16, folder, tmp_path / "none", resume=True, show=False)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "precious"


def test_a_finished_run_can_be_made_longer(folder: Path, finished: Path, tmp_path: Path) -> None:
    """More images, same start: the first part of the log stays, the rest follows."""
    import shutil

    shutil.copytree(finished, tmp_path / "run")
    result = train(dataclasses.replace(SHORT_16, images=128), folder, tmp_path / "run", resume=True, show=False)
    assert result.images_seen == 128
    longer = figures(tmp_path / "run")
    assert longer[: len(figures(finished))] == figures(finished)
    assert longer[-1]["images_seen"] == 128


def test_latent_statistics_match_samples(folder: Path) -> None:
    """Mean, std, scale and shift against brute-force sampling of the same posteriors."""
    model = initial_model(SHORT_16).eval()
    with torch.no_grad():
        model.quant_conv.bias.copy_(torch.tensor([1.0, -2, 0, 3, -1, 0, -2, -3]))
    crops = Crops(scan(folder).files, SHORT_16.data, seed=0)
    stats = measure_latents(model, crops, 32, 8)
    images = to_model_range(torch.stack([crops[i][0] for i in range(32)]))
    with torch.no_grad():
        posterior = model.encode(images)
        samples = torch.cat([posterior.sample(torch.Generator().manual_seed(i)) for i in range(200)])
    torch.testing.assert_close(torch.tensor(stats.mean), samples.mean((0, 2, 3)), atol=0.01, rtol=0)
    torch.testing.assert_close(torch.tensor(stats.std), samples.std((0, 2, 3)), atol=0.01, rtol=0)
    normalized = (samples - stats.shift_factor) * stats.scaling_factor
    assert normalized.mean().item() == pytest.approx(0, abs=0.01)
    assert normalized.std().item() == pytest.approx(1, abs=0.01)
    assert stats.num_images == 32


def test_latents_that_are_the_same_everywhere(folder: Path) -> None:
    """Are said to be; their scale stays 1, and not the inverse of next to nothing."""
    points = dataclasses.replace(TINY, bottleneck=BottleneckConfig(kind="point"))
    model = initial_model(dataclasses.replace(SHORT_16, model=points))
    with torch.no_grad():
        model.quant_conv.weight.zero_()
        model.quant_conv.bias.fill_(0.3)
    with pytest.warns(UserWarning, match="the same everywhere"):
        stats = measure_latents(model.eval(), Crops(scan(folder).files, SHORT_16.data, seed=0), 8, 8)
    assert stats.scaling_factor == 1 and stats.shift_factor == pytest.approx(0.3) and min(stats.std) > 1e-7


def test_schedules() -> None:
    """Warm-up, cosine and its end; progress by images or minutes; the average's half-life."""
    config = OptimizerConfig(lr=2.0, warmup_images=100, final_lr=0.1)
    assert learning_rate(config, 50, 0.0) == pytest.approx(1.0)
    assert learning_rate(config, 100, 0.0) == pytest.approx(2.0)
    assert learning_rate(config, 1000, 0.5) == pytest.approx(2.0 * 0.55)
    assert learning_rate(config, 1000, 1.0) == pytest.approx(0.2)
    run = dataclasses.replace(SHORT_16, images=100, max_minutes=1.0)  # of which a batch of 8 leaves out 4
    assert progress(run, 48, 6.0) == 0.5
    assert progress(run, 48, 45.0) == 0.75
    assert progress(run, 96, 6.0) == 1.0
    assert ema_decay(1000, 10, 10**6) ** 100 == pytest.approx(0.5)
    assert ema_decay(1000, 10, 0) < 0.01


def test_average_of_weights() -> None:
    """Exactly decay * average + (1 - decay) * model."""
    a, b = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    expected = 0.75 * a.weight.detach() + 0.25 * b.weight.detach()
    ema_update_(a, b, 0.75)
    torch.testing.assert_close(a.weight.detach(), expected)


def test_time_limit_ends_a_run_with_a_finished_schedule(folder: Path, tmp_path: Path) -> None:
    """max_minutes stops early, the learning rate has come down, and everything is saved."""
    config = dataclasses.replace(SHORT_16, images=10**7, max_minutes=2 / 60)
    result = train(config, folder, tmp_path / "run", show=False)
    assert result.images_seen < 10**7
    rates = [line["lr"] for line in figures(tmp_path / "run") if "lr" in line]
    assert rates[-1] < 0.5 * max(rates)  # how far depends on how long the last steps took
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_noise_belongs_to_the_image_not_to_the_batch() -> None:
    """Counter-keyed noise: any batching of the same images gives the same noise; seeds differ."""
    whole = latent_noise(3, [0, 1, 2, 3], (4, 8, 8))
    torch.testing.assert_close(
        torch.cat([latent_noise(3, [0], (4, 8, 8)), latent_noise(3, [1, 2, 3], (4, 8, 8))]), whole, rtol=0, atol=0
    )
    assert not torch.equal(whole, latent_noise(4, [0, 1, 2, 3], (4, 8, 8)))


@pytest.mark.parametrize(("capability", "expected"), [("avx512_bf16", "bf16"), ("amx_bf16", "bf16"), ("avx2", "fp32")])
def test_precision_follows_the_processor(capability: str, expected: str, monkeypatch) -> None:
    """auto is bf16 where the processor computes with it, and fp32 elsewhere."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True}, raising=False)
    assert resolve_precision(torch.device("cpu")) == expected


def test_precision_is_decided_once(folder: Path, tmp_path: Path, monkeypatch) -> None:
    """A run that began in one precision goes on in it on a processor where auto would mean the other."""
    from vaeworks.training.run import prepare
    from vaeworks.training.run.folder import read_run

    config = dataclasses.replace(SHORT_16, precision="auto", images=16, val_every=16)
    monkeypatch.setattr(prepare, "resolve_precision", lambda device: "bf16")
    train(config, folder, tmp_path / "run", show=False)
    monkeypatch.setattr(prepare, "resolve_precision", lambda device: "fp32")
    result = train(dataclasses.replace(config, images=32), folder, tmp_path / "run", resume=True, show=False)
    assert result.precision == read_run(tmp_path / "run").config.precision == "bf16"


def test_devices_that_are_not_there() -> None:
    """An unknown device and a missing one are a ConfigError in one line."""
    assert resolve_device("auto").type in ("cpu", "cuda")
    for name in ("nonsense", *(() if torch.cuda.is_available() else ("cuda",))):
        with pytest.raises(vw.ConfigError, match=f"device '{name}' cannot be used"):
            resolve_device(name)


def test_kl_is_computed_in_full_precision() -> None:
    """Under bf16 autocast the moments come back as fp32: in bf16 the KL near the prior is wrong by percents."""
    model = initial_model(SHORT_16)
    with torch.autocast("cpu", torch.bfloat16):
        posterior = model.encode(torch.zeros(1, 3, 16, 16))
    assert posterior.mean.dtype == posterior.kl().dtype == torch.float32


def test_the_average_is_what_is_saved(finished: Path) -> None:
    """model.safetensors holds the checkpoint's average, not its weights."""
    from safetensors.torch import load_file

    checkpoint = load_file(newest_checkpoint(finished / "checkpoints"))
    saved = weights(finished)
    assert all(torch.equal(saved[k], checkpoint[f"average.{k}"]) for k in saved)
    assert any(not torch.equal(saved[k], checkpoint[f"model.{k}"]) for k in saved)


def test_gradients_are_clipped() -> None:
    """With plain SGD of rate 1, a step's length is the norm of the gradient, cut at clip_norm."""
    batch = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for clip in (1e-3, 0.0):
        config = dataclasses.replace(SHORT_16, optimizer=OptimizerConfig(clip_norm=clip))
        trained = started(config)
        before = [p.detach().clone() for p in trained.learner.parameters()]
        trained.optimizer = torch.optim.SGD(trained.learner.parameters(), lr=1.0)
        result = training_step(trained, batch, list(range(8)))
        moved = zip(trained.learner.parameters(), before, strict=True)
        length = torch.stack([(p - b).square().sum() for p, b in moved]).sum().sqrt().item()
        assert length == pytest.approx(clip or result.grad_norm, rel=1e-3)
        assert result.grad_norm > 1e-2


def test_best_is_the_best(folder: Path, tmp_path: Path, monkeypatch) -> None:
    """best.safetensors is of the highest validation, not of the last, and has measured statistics at the end."""
    from vaeworks.training import loop

    figures_to_come = iter([10.0, 30.0, 20.0, 15.0])
    at_best: list[dict[str, torch.Tensor]] = []
    original = loop.validate

    def falling(autoencoder, images):
        figure = next(figures_to_come)
        if figure == 30.0:
            at_best.append({k: v.clone() for k, v in autoencoder.state_dict().items()})
        return dataclasses.replace(original(autoencoder, images), psnr=figure)

    monkeypatch.setattr(loop, "validate", falling)
    result = train(SHORT_16, folder, tmp_path / "run", show=False)
    assert (result.best_psnr, result.val_psnr) == (30.0, 15.0)
    best = vw.load(tmp_path / "run" / "best.safetensors")
    assert same(best.state_dict(), at_best[0])
    assert best.config.scaling_factor != 1.0


def test_torn_checkpoints_do_not_push_out_good_ones(folder: Path, finished: Path, tmp_path: Path) -> None:
    """After going on from the one before, the torn one is gone; if all are torn, nothing starts anew unasked."""
    import shutil

    shutil.copytree(finished, tmp_path / "run")
    folder_of = tmp_path / "run" / "checkpoints"
    (folder_of / "0000009999.safetensors").write_bytes(b"torn")
    train(dataclasses.replace(SHORT_16, images=128), folder, tmp_path / "run", resume=True, show=False)
    assert sorted(p.name for p in folder_of.iterdir()) == ["0000000096.safetensors", "0000000128.safetensors"]
    for path in folder_of.iterdir():
        path.write_bytes(b"torn")
    log = (tmp_path / "run" / "log.jsonl").read_text()
    with pytest.raises(vw.FormatError, match="none of the 2 checkpoints"):
        train(SHORT_16, folder, tmp_path / "run", resume=True, show=False)
    assert (tmp_path / "run" / "log.jsonl").read_text() == log


def test_resuming_a_finished_run_changes_nothing(folder: Path, finished: Path, tmp_path: Path) -> None:
    """Log, weights and figures stay."""
    import shutil

    shutil.copytree(finished, tmp_path / "run")
    before = json.loads((finished / "result.json").read_text())
    result = train(SHORT_16, folder, tmp_path / "run", resume=True, show=False)
    assert result.val_psnr == before["val_psnr"]
    assert result.images_per_second > 0
    assert figures(tmp_path / "run") == figures(finished)
    assert same(weights(tmp_path / "run"), weights(finished))


def test_validation_images_are_never_trained_on(folder: Path, tmp_path: Path) -> None:
    """A validation folder inside the training folder: its files leave the training side, and that is said."""
    import shutil

    shutil.copytree(folder, tmp_path / "all")
    (tmp_path / "all" / "val").mkdir()
    for name in ("00.png", "01.png"):
        shutil.copy(folder / name, tmp_path / "all" / "val" / name)
    config = dataclasses.replace(
        SHORT_16, images=8, data=dataclasses.replace(SHORT_16.data, val=str(tmp_path / "all" / "val"))
    )
    train(config, tmp_path / "all", tmp_path / "run", show=False)
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert len(data["train"]) == 10
    assert not {f["digest"] for f in data["train"]} & {f["digest"] for f in data["val"]}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1},
        {"ema_halflife": -5},
        {"batch": 0},
        {"max_minutes": 0.0},
        {"micro_batch": 3},
        {"model": dataclasses.replace(TINY, out_channels=1)},
        {"model": dataclasses.replace(TINY, in_channels=4, out_channels=4)},
    ],
    ids=str,
)
def test_impossible_runs_are_refused(change: dict) -> None:
    """Settings that would crash later, or compute something else than asked, are a ConfigError at once."""
    with pytest.raises(vw.ConfigError):
        dataclasses.replace(SHORT_16, **change)


@pytest.mark.parametrize("recipe", ["sd1"])
def test_full_size_recipe_runs_a_step(recipe: str) -> None:
    """Stable Diffusion's own network takes a training step on a CPU, with finite figures and moved weights."""
    config = dataclasses.replace(vw.recipe(recipe), batch=1, micro_batch=None, precision="fp32")
    trained = started(config)
    assert trained.autoencoder.num_parameters == 83_653_863
    before = trained.autoencoder.decoder.conv_out.weight.detach().clone()
    batch = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    result = training_step(trained, batch, [0])
    assert result.finite
    assert not torch.equal(before, trained.autoencoder.decoder.conv_out.weight)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_precisions_and_checkpointing_agree(precision: str, checkpointing: bool) -> None:
    """bf16 and recomputation change a step's loss by no more than rounding; weights stay fp32."""
    config = dataclasses.replace(SHORT_16, gradient_checkpointing=checkpointing, precision=precision)
    batch = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    trained = started(config)
    result = training_step(trained, batch, list(range(8)))
    reference = training_step(started(SHORT_16), batch, list(range(8)))
    assert result.loss == pytest.approx(reference.loss, rel=1e-6 if precision == "fp32" else 2e-2)
    assert {p.dtype for p in trained.learner.parameters()} == {torch.float32}
