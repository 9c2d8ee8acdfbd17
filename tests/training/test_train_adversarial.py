"""The trainer with a discriminator: who learns from whom, when it starts, what is equal to what, and how a run goes on
after anything."""

from __future__ import annotations

import dataclasses
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from configs import MODERN, SHORT, WITH_DISCRIMINATOR
from runs import assert_same_run, make_images, outcome, random_batch, started
from safetensors.torch import load_file

import vaeworks as vw
from vaeworks.config import (
    AdversarialConfig,
    BottleneckConfig,
    FinetuneConfig,
    LossConfig,
    OptimizerConfig,
    TrainConfig,
)
from vaeworks.training import loop, train
from vaeworks.training.gan.balance_state import StepPlan
from vaeworks.training.monitor.log import read_log
from vaeworks.training.step import training_step

FELT = StepPlan("adversarial", train_discriminator=True, weight=1.0)
UNFELT = StepPlan("warmup", train_discriminator=True, weight=0.0)
PAUSED = StepPlan("adversarial", train_discriminator=False, weight=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(WITH_DISCRIMINATOR, folder, out, show=False)
    return out


def copied(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in module.state_dict().items()}


def moved(module: torch.nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, t in module.state_dict().items() if not torch.equal(t, before[name])}


# ---------------------------------------------------------------- who learns from whom


def test_the_discriminators_step_moves_no_weight_of_the_autoencoder() -> None:
    """Unfelt, the autoencoder's step is that of a run without discriminator, to the last bit; the discriminator has
    learned."""
    alone, watched = started(SHORT), started(WITH_DISCRIMINATOR)
    before = copied(watched.adversary.network)
    a = training_step(alone, random_batch(), list(range(8)))
    b = training_step(watched, random_batch(), list(range(8)), UNFELT)
    assert not moved(alone.autoencoder, copied(watched.autoencoder))
    assert a.loss == b.loss
    assert {n for n in moved(watched.adversary.network, before) if "weight" in n}


def test_the_generators_step_moves_no_weight_of_the_discriminator() -> None:
    """Felt but paused, the discriminator stays as it is, without gradients, and the autoencoder learns something else
    than alone."""
    alone, watched = started(SHORT), started(WITH_DISCRIMINATOR)
    before = copied(watched.adversary.network)
    training_step(alone, random_batch(), list(range(8)))
    result = training_step(watched, random_batch(), list(range(8)), PAUSED)
    assert not moved(watched.adversary.network, before)
    assert all(p.grad is None for p in watched.adversary.network.parameters())
    assert moved(alone.autoencoder, copied(watched.autoencoder))
    assert result.others["adversarial_weight"] == pytest.approx(0.5 * result.others["adaptive_weight"])


def test_the_step_is_that_of_the_textbook() -> None:
    """Gradients against L1 + KL + adaptive weight * hinge, written down naively with autograd over the whole graph."""
    config = dataclasses.replace(
        WITH_DISCRIMINATOR, optimizer=OptimizerConfig(clip_norm=0.0), loss=LossConfig(beta=1e-2)
    )
    ours, naive = started(config), started(config)
    ours.optimizer = torch.optim.SGD(ours.learner.parameters(), lr=0.0)
    result = training_step(ours, random_batch(), list(range(8)), FELT)
    from vaeworks.images import to_model_range
    from vaeworks.random_streams import latent_noise

    images = to_model_range(random_batch())
    recon, posterior = naive.autoencoder(images, latent_noise(config.seed, list(range(8)), (4, 16, 16)))
    reconstruction = (recon - images).abs().mean()
    adversarial = -naive.adversary.network(recon).mean()
    last = naive.autoencoder.decoder.conv_out.weight
    norms = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (reconstruction, adversarial)]
    weight = 0.5 * (norms[0] / (norms[1] + 1e-4)).detach()
    (reconstruction + 1e-2 * posterior.kl().mean() + weight * adversarial).backward()
    assert result.others["adversarial_weight"] == pytest.approx(weight.item(), rel=1e-4)
    for (name, p), q in zip(ours.autoencoder.named_parameters(), naive.autoencoder.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-6, msg=name)


KINDS = {
    "patch": AdversarialConfig(discriminator="patch", channels=8, num_layers=2),
    "modern": MODERN,
    "residual, R1 and R2": AdversarialConfig(
        discriminator="residual",
        loss="relativistic",
        channels=16,
        num_layers=2,
        r1=0.1,
        r2=0.1,
        penalty_final=0.1,
        adaptive=False,
    ),
    "unet, vanilla": AdversarialConfig(discriminator="unet", loss="vanilla", channels=8, num_layers=2),
    "modern, least squares": dataclasses.replace(MODERN, loss="least-squares", lecam=0.0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_discriminator_learns_and_is_felt(kind: str) -> None:
    """A step each: finite, all weights of both sides move, and the figures are in the log's names."""
    config = dataclasses.replace(
        WITH_DISCRIMINATOR, adversarial=dataclasses.replace(KINDS[kind], optimizer=MODERN.optimizer)
    )
    t = started(config)
    before, judge = copied(t.autoencoder), copied(t.adversary.network)
    first = training_step(t, random_batch(), list(range(8)), FELT)
    result = training_step(t, random_batch(seed=1), list(range(8, 16)), FELT)
    assert first.finite and result.finite
    assert moved(t.autoencoder, before) == before.keys()
    assert {n for n, p in t.adversary.network.named_parameters()} <= moved(t.adversary.network, judge) | {
        n for n in judge if "BatchNorm" in n
    }
    names = {
        "discriminator_loss",
        "accuracy_real",
        "accuracy_fake",
        "logit_real",
        "logit_fake",
        "adversarial",
        "adversarial_weight",
    }
    assert names <= result.others.keys()
    assert ("r1" in result.others) == (config.adversarial.r1 > 0)
    assert ("lecam" in result.others) == (config.adversarial.lecam > 0)


@pytest.mark.parametrize(
    ("micro", "kind"), [(2, "modern"), (4, "modern"), (2, "unet, vanilla"), (2, "residual, R1 and R2")]
)
def test_micro_batches_are_one_batch(micro: int, kind: str) -> None:
    """Both steps of a batch of 8 in parts: gradients, adaptive weight and every figure are those of the batch; with
    spectral norms, too."""
    found = []
    for size in (None, micro):
        plain = OptimizerConfig(clip_norm=0.0)
        config = dataclasses.replace(WITH_DISCRIMINATOR, adversarial=KINDS[kind], micro_batch=size, optimizer=plain)
        t = started(config)
        t.optimizer = torch.optim.SGD(t.learner.parameters(), lr=0.0)
        t.adversary.optimizer = torch.optim.SGD(t.adversary.network.parameters(), lr=0.0)
        result = training_step(t, random_batch(), list(range(8)), FELT)
        grads = {n: p.grad for n, p in [*t.learner.named_parameters(), *t.adversary.network.named_parameters()]}
        found.append((result, grads))
    (a, grads), (b, others) = found
    assert a.figures(0.0).keys() == b.figures(0.0).keys()
    for name, value in a.figures(0.0).items():
        assert b.figures(0.0)[name] == pytest.approx(value, rel=1e-3, abs=1e-6), name
    for name, grad in grads.items():
        torch.testing.assert_close(others[name], grad, rtol=1e-3, atol=1e-6, msg=name)


def test_penalties_decay_over_the_run() -> None:
    """gamma at the end is penalty_final of what it was: the same weights have a lower loss by just the penalties'
    share."""
    config = dataclasses.replace(WITH_DISCRIMINATOR, adversarial=KINDS["residual, R1 and R2"])
    losses = []
    for done in (0.0, 1.0):
        t = started(config)
        losses.append(training_step(t, random_batch(), list(range(8)), FELT, done=done).others)
    a, b = losses
    assert a["r1"] == b["r1"]
    assert a["discriminator_loss"] - b["discriminator_loss"] == pytest.approx(
        0.9 * 0.05 * (a["r1"] + a["r2"]), rel=1e-3
    )


def test_what_disturbs_is_independent_of_the_posteriors_noise() -> None:
    """Variances add: a decoder that sees (1 - t) z + t s noise of a posterior of width σ sees a variance of ((1 - t)
    σ)² + (t s)²."""
    bottleneck = BottleneckConfig(noise="interpolative", noise_scale=3.0)
    t = started(dataclasses.replace(SHORT, model=dataclasses.replace(SHORT.model, bottleneck=bottleneck)))
    seen: list[torch.Tensor] = []
    t.learner.register_forward_pre_hook(lambda module, args: seen.extend([args[1], args[2][0]]))
    training_step(t, random_batch(), list(range(8)))
    noise, other = seen
    assert abs(torch.corrcoef(torch.stack([noise.flatten(), other.flatten()]))[0, 1]) < 0.05


def test_the_discriminators_warmup_begins_with_it(folder: Path, tmp_path: Path) -> None:
    """Its learning rate rises from its own first step, however late it starts."""
    adversarial = dataclasses.replace(MODERN, optimizer=dataclasses.replace(MODERN.optimizer, warmup_images=80))
    original, rates = loop.training_step, []

    def watched(trained, batch, counters, plan, **kwargs):
        if plan.train_discriminator:
            rates.append(kwargs["discriminator_lr"])
        return original(trained, batch, counters, plan, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "training_step", watched)
        train(dataclasses.replace(WITH_DISCRIMINATOR, adversarial=adversarial), folder, tmp_path / "run", show=False)
    full = adversarial.optimizer.lr
    assert rates[:3] == pytest.approx([0.1 * full, 0.2 * full, 0.3 * full])
    assert max(rates) == pytest.approx(full)


def test_memory_that_runs_out_is_one_line(folder: Path, tmp_path: Path) -> None:
    """With the checkpoint that is kept and what to try; other errors stay what they are."""

    def large(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "training_step", large)
        with pytest.raises(vw.TrainingError, match=r"^memory ran out in a step; no checkpoint.*--micro-batch[^\n]*$"):
            train(SHORT, folder, tmp_path / "run", show=False)


def test_the_best_is_remembered_where_no_checkpoint_was_planned(folder: Path, tmp_path: Path) -> None:
    """A run that ends between its looks, and is made longer: best.safetensors is replaced by something better only."""
    config = dataclasses.replace(
        SHORT, save_every=96, val_every=1000, optimizer=OptimizerConfig(lr=1e-3, warmup_images=16)
    )
    first = train(config, folder, tmp_path / "run", show=False)
    best = (tmp_path / "run" / "best.safetensors").read_bytes()
    again = train(config, folder, tmp_path / "run", show=False, resume=True)
    assert again.best_psnr == first.best_psnr
    wrecked = dataclasses.replace(config, images=104)
    original = loop.validate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "validate", lambda *a: dataclasses.replace(original(*a), psnr=1.0))
        longer = train(wrecked, folder, tmp_path / "run", show=False, resume=True)
    assert longer.best_psnr == first.best_psnr
    assert vw.load(tmp_path / "run" / "best.safetensors").state_dict().keys()
    assert len((tmp_path / "run" / "best.safetensors").read_bytes()) == len(best)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": 4}, "at least one batch"),
        ({"seed": 2**64}, "less than"),
        ({"max_minutes": float("nan")}, "max_minutes"),
        ({"adversarial": dataclasses.replace(MODERN, start_images=1000)}, "before the end of the run"),
    ],
)
def test_runs_that_would_do_nothing_are_refused(change: dict, words: str) -> None:
    """At once, and not at the end of a run that has learned nothing."""
    with pytest.raises(vw.ConfigError, match=words):
        dataclasses.replace(WITH_DISCRIMINATOR, **change)


def test_starts_cannot_appear_in_a_run(folder: Path, tmp_path: Path) -> None:
    """A run that began with random weights cannot be continued as a fine-tuning of something else; nor can fine-tuning
    go without a VAE."""
    train(SHORT, folder, tmp_path / "run", show=False)
    late = dataclasses.replace(SHORT, finetune=FinetuneConfig(path=str(tmp_path / "run")))
    with pytest.raises(vw.ConfigError, match=r"finetune\.path was None"):
        train(late, folder, tmp_path / "run", show=False, resume=True)
    with pytest.raises(vw.ConfigError, match="--from"):
        train(
            dataclasses.replace(SHORT, finetune=FinetuneConfig(required=True)), folder, tmp_path / "other", show=False
        )
    assert not (tmp_path / "other" / "run.json").exists()


def test_crops_too_small_for_a_loss_leave_nothing(folder: Path, tmp_path: Path) -> None:
    """Told before the folder is claimed."""
    config = dataclasses.replace(
        SHORT, data=dataclasses.replace(SHORT.data, size=8), loss=LossConfig(perceptual="without-weights")
    )
    with pytest.raises(vw.ConfigError, match=r"data\.size \(=8\) is too small"):
        train(config, folder, tmp_path / "run", show=False)
    assert not (tmp_path / "run" / "run.json").exists()


# ---------------------------------------------------------------- the run


def test_phases_of_a_run(undisturbed: Path) -> None:
    """Nothing before the start, unfelt in the warm-up, rising in the ramp, full after it; the log says so, in plain
    words."""
    lines = read_log(undisturbed)
    steps = {line["images_seen"]: line for line in lines if "loss" in line}
    assert not any("discriminator_loss" in line for n, line in steps.items() if n <= 24)
    assert all("discriminator_loss" in line for n, line in steps.items() if n > 24)
    felt = {
        n: line["adversarial_weight"] / line["adaptive_weight"] for n, line in steps.items() if "adversarial" in line
    }
    assert min(felt) > 24 + 8
    assert felt[128] == pytest.approx(0.5)
    assert felt[min(felt)] < felt[128]
    events = [line["event"] for line in lines if "event" in line]
    assert any("discriminator warm-up" in e for e in events) and any("full weight" in e for e in events)
    assert not any(
        line["alarm"] for line in lines if "event" in line and "kind" not in line
    )  # those with a kind are of the run


def test_decoder_stage_freezes_the_encoder(folder: Path, tmp_path: Path) -> None:
    """From when the adversarial term is felt, no byte of the encoder moves; before, it does; the decoder always
    does."""
    adversarial = dataclasses.replace(MODERN, stage="decoder")
    config = dataclasses.replace(WITH_DISCRIMINATOR, adversarial=adversarial, save_every=8, keep_checkpoints=99)
    train(config, folder, tmp_path / "run", show=False)
    states = {int(p.stem): load_file(p) for p in sorted((tmp_path / "run" / "checkpoints").iterdir())}
    felt = min(line["images_seen"] for line in read_log(tmp_path / "run") if "adversarial" in line)

    def differ(a: int, b: int, part: str) -> bool:
        names = [n for n in states[a] if n.startswith(part)]
        return any(not torch.equal(states[a][n], states[b][n]) for n in names)

    assert differ(8, 16, "model.encoder") and differ(felt - 24, felt - 16, "model.encoder")
    assert not differ(felt, 128, "model.encoder") and not differ(felt, 128, "model.quant_conv")
    assert differ(felt, 128, "model.decoder") and differ(felt, 128, "discriminator.")


def test_a_collapse_is_restored(folder: Path, tmp_path: Path) -> None:
    """Weights are wrecked in the middle: the last good state comes back, half as strong, said in plain words; the run
    ends well."""
    config = dataclasses.replace(WITH_DISCRIMINATOR, images=640, save_every=64)
    original, steps = loop.training_step, 0

    def wrecking(trained, *args, **kwargs):
        nonlocal steps
        steps += 1
        if steps == 50:
            with torch.no_grad():
                for p in trained.autoencoder.decoder.parameters():
                    p.mul_(3.0)
        return original(trained, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "training_step", wrecking)
        result = train(config, folder, tmp_path / "run", show=False)
    events = [line for line in read_log(tmp_path / "run") if line.get("action") == "restore"]
    assert len(events) >= 1
    assert "the last good state is restored" in events[0]["event"] and events[0]["alarm"]
    assert result.images_seen == 640
    losses = [line["reconstruction"] for line in read_log(tmp_path / "run") if "loss" in line]
    assert losses[-1] < losses[0]


# ---------------------------------------------------------------- resumed


class Killed(BaseException):
    """Stands in for SIGKILL: nothing is saved, nothing is told."""


def killed_and_resumed(config: TrainConfig, folder: Path, out: Path, kills: list[int]) -> None:
    """Kill the run after so many steps, again and again, and let it end."""
    original = loop.training_step
    for kill in [*kills, 10**9]:
        steps = 0

        def dying(*args, limit=kill, **kwargs):
            nonlocal steps
            steps += 1
            if steps > limit:
                raise Killed
            return original(*args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "training_step", dying)
            try:
                train(config, folder, out, show=False, resume=(out / "run.json").exists())
                return
            except Killed:
                continue


@pytest.mark.parametrize("seed", range(4))
def test_killed_again_and_again(seed: int, folder: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Killed at random steps, before, in and after the discriminator's start: the same bytes in the end, and the same
    log."""
    rng = random.Random(seed)
    killed_and_resumed(WITH_DISCRIMINATOR, folder, tmp_path / "run", [rng.randrange(1, 9) for _ in range(5)])
    assert_same_run(undisturbed, tmp_path / "run")


def test_interrupted_at_any_step_around_the_start(folder: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Ctrl-C at other places than the plan's: the checkpoints that it writes change nothing."""
    import os

    original = loop.training_step

    def stopping(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        return original(*args, **kwargs)

    run = tmp_path / "run"
    for _ in range(7):  # one step each
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "training_step", stopping)
            with pytest.raises(loop.Interrupted):
                train(WITH_DISCRIMINATOR, folder, run, show=False, resume=(run / "run.json").exists())
    train(WITH_DISCRIMINATOR, folder, tmp_path / "run", show=False, resume=True)
    assert_same_run(undisturbed, tmp_path / "run")


@pytest.mark.parametrize(
    "change",
    [
        {"adversarial": KINDS["residual, R1 and R2"]},
        {"adversarial": KINDS["patch"]},
        {"adversarial": dataclasses.replace(MODERN, stage="decoder")},
        {"adversarial": KINDS["unet, vanilla"], "precision": "bf16"},
        {"loss": LossConfig(reconstruction="gaussian", beta=0.1, perceptual="without-weights")},
        {
            "model": dataclasses.replace(
                SHORT.model, bottleneck=BottleneckConfig(kind="point", bound="rmsnorm", noise="sigma")
            )
        },
    ],
    ids=["residual", "patch", "decoder stage", "unet in bf16", "learned variance", "point"],
)
def test_every_kind_resumes_exactly(change: dict, folder: Path, tmp_path: Path) -> None:
    """Batch statistics, spectral norms, penalties, learned variances and frozen halves survive a kill as well."""
    if "adversarial" in change:
        timing = {name: getattr(MODERN, name) for name in ("start_images", "warmup", "ramp", "optimizer")}
        change = {**change, "adversarial": dataclasses.replace(change["adversarial"], **timing)}
    config = dataclasses.replace(WITH_DISCRIMINATOR, images=96, **change)
    train(config, folder, tmp_path / "whole", show=False)
    killed_and_resumed(config, folder, tmp_path / "parts", [6, 3])
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_killed_while_a_collapse_is_mended(folder: Path, tmp_path: Path) -> None:
    """A run that restores an earlier state, killed just before and just after, restores the same state and ends with
    the same bytes."""
    config = dataclasses.replace(WITH_DISCRIMINATOR, images=480, save_every=40, log_every=16)

    def wrecking(kills: list[int], out: Path) -> None:
        original = loop.training_step

        def wrecked(trained, batch, counters, *args, **kwargs):
            if kwargs["first_counter"] == 200:
                with torch.no_grad():
                    for p in trained.autoencoder.decoder.parameters():
                        p.mul_(3.0)
            return original(trained, batch, counters, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "training_step", wrecked)
            killed_and_resumed(config, folder, out, kills)

    wrecking([], tmp_path / "whole")
    assert any(line.get("action") == "restore" for line in read_log(tmp_path / "whole"))
    wrecking([24, 3, 2, 1, 1, 3], tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


SCRIPT = (
    "import sys, time; sys.path.insert(0, sys.argv[3])\n"
    "import configs, dataclasses; from pathlib import Path; from vaeworks.training import loop, train\n"
    "step = loop.training_step\n"
    "loop.training_step = lambda *a, **k: (time.sleep(0.2), step(*a, **k))[1]\n"
    "data = dataclasses.replace(configs.SHORT.data, workers=2)\n"
    "config = dataclasses.replace(configs.WITH_DISCRIMINATOR, data=data)\n"
    "out = Path(sys.argv[2])\n"
    "train(config, sys.argv[1], out, show=False, resume=(out / 'run.json').exists())\n"
)


def test_sigkill_at_random_moments(folder: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Whole processes with loader workers, killed by SIGKILL at random moments: the same bytes in the end."""
    rng, out, kills = random.Random(0), tmp_path / "run", 0
    command = [sys.executable, "-c", SCRIPT, str(folder), str(out), str(Path(__file__).parents[1])]
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        process = subprocess.Popen(command)
        try:
            if kills < 4:
                seen = len(list(out.glob("checkpoints/*.safetensors"))) if out.exists() else 0
                started_at = time.monotonic()
                while process.poll() is None and time.monotonic() - started_at < 60 and not _has_begun(out, seen):
                    time.sleep(0.02)
                time.sleep(rng.uniform(0.0, 0.3))
                process.send_signal(signal.SIGKILL)
                kills += 1
            process.wait(timeout=120)
        finally:
            process.kill()
            process.wait()
        if process.returncode == 0:
            break
    assert kills >= 2  # on a slow machine a run may end before the last one comes
    assert process.returncode == 0
    assert_same_run(undisturbed, out)


def _has_begun(out: Path, before: int) -> bool:
    """Whether this process has come past where it started."""
    return len(list(out.glob("checkpoints/*.safetensors"))) > before or len(list(out.glob("checkpoints/.*"))) > 0


def test_a_longer_run_keeps_its_discriminators_start(folder: Path, tmp_path: Path) -> None:
    """Shares of the run are fixed when it begins: made longer later, it does not forget where it was."""
    config = dataclasses.replace(
        WITH_DISCRIMINATOR, adversarial=dataclasses.replace(MODERN, start_images=None, earliest=0.25, latest=0.25)
    )
    train(config, folder, tmp_path / "run", show=False)
    train(dataclasses.replace(config, images=192), folder, tmp_path / "run", show=False, resume=True)
    lines = read_log(tmp_path / "run")
    assert [line["images_seen"] for line in lines if "discriminator warm-up" in str(line.get("event", ""))] == [32]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["images_seen"] == 192


# ---------------------------------------------------------------- compiled


@pytest.mark.parametrize("micro", [None, 4])
def test_compiled_across_the_start(micro: int | None, folder: Path, tmp_path: Path) -> None:
    """torch.compile, with buffers that it gives away after one backward pass: the run crosses the start and agrees with
    the plain one."""
    config = dataclasses.replace(WITH_DISCRIMINATOR, images=64, micro_batch=micro)
    train(config, folder, tmp_path / "plain", show=False)
    with pytest.MonkeyPatch.context() as patch:
        compile_ = torch.nn.Module.compile
        patch.setattr(torch.nn.Module, "compile", lambda self, **options: compile_(self, backend="aot_eager"))
        train(dataclasses.replace(config, compile=True), folder, tmp_path / "compiled", show=False)
    plain, compiled = (outcome(tmp_path / run)[1] for run in ("plain", "compiled"))
    losses = [[line["loss"] for line in log if "loss" in line] for log in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)  # other kernels round otherwise, and a GAN amplifies it


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"discriminator": "projected"}, "adversarial.network"),
        ({"discriminator": "residual", "loss": "relativistic", "lecam": 0.1}, "lecam"),
        ({"discriminator": "modern", "weight": -1.0}, "weight"),
        ({"discriminator": "modern", "earliest": 1.5}, "share of the run"),
        ({"discriminator": "modern", "earliest": 0.7}, "earliest"),
    ],
)
def test_impossible_discriminators_are_refused(change: dict, words: str) -> None:
    """At once, in one line."""
    with pytest.raises(vw.ConfigError, match=words):
        AdversarialConfig(**change)


def test_crops_too_small_for_the_discriminator(folder: Path, tmp_path: Path) -> None:
    """Told before anything is written."""
    config = dataclasses.replace(
        WITH_DISCRIMINATOR, adversarial=AdversarialConfig(discriminator="residual", num_layers=4)
    )
    with pytest.raises(vw.ConfigError, match=r"data\.size \(=32\) is too small"):
        train(config, folder, tmp_path / "run", show=False)
    assert not (tmp_path / "run" / "run.json").exists()
