"""What two processes compute in tests, and one alone to compare it with: steps of training in many configurations, and
whole runs.

As a program, it is one of the two: it does every task, and leaves what came out in a folder.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from configs import MODERN, SHORT, WITH_DISCRIMINATOR
from runs import random_batch, started
from safetensors.torch import save_file
from torch import Tensor, nn

from vaeworks.config import (
    AdversarialConfig,
    BottleneckConfig,
    LossConfig,
    OptimizerConfig,
    RegularizerConfig,
    TrainConfig,
)
from vaeworks.distributed import joined, rank, world_size
from vaeworks.errors import DataError, VaeworksError
from vaeworks.models.ema import ema_update_
from vaeworks.training import loop, train
from vaeworks.training.gan.balance_state import StepPlan
from vaeworks.training.parallel import wrap_ddp_
from vaeworks.training.run.checkpoint import state_tensors
from vaeworks.training.state import TrainState
from vaeworks.training.step import StepResult, training_step

# ---------------------------------------------------------------- steps

FELT = StepPlan("adversarial", train_discriminator=True, weight=1.0)
BATCH = 8
UNCLIPPED = OptimizerConfig(clip_norm=0.0)
MSE = LossConfig(reconstruction="mse", beta=1e-2)
"""L1 has kinks: where a pixel's sign depends on rounding, a gradient is another one."""


def with_judge(**settings: object) -> TrainConfig:
    """A run whose discriminator is felt."""
    adversarial = dataclasses.replace(MODERN, **settings)  # type: ignore[arg-type]
    return dataclasses.replace(WITH_DISCRIMINATOR, adversarial=adversarial, optimizer=UNCLIPPED, loss=MSE)


R3GAN = AdversarialConfig(
    discriminator="residual",
    loss="relativistic",
    channels=16,
    num_layers=2,
    r1=1.0,
    r2=1.0,
    penalty_final=0.1,
    adaptive=False,
)
PATCH = AdversarialConfig(discriminator="patch", channels=8, num_layers=2)
POINT = dataclasses.replace(SHORT.model, bottleneck=BottleneckConfig(kind="point"))
ATTENTIVE = dataclasses.replace(SHORT.model, mid_attention=True)
FLAT = dataclasses.replace(SHORT.model, channel_mult=(1,), num_res_blocks=1)
PLAIN = dataclasses.replace(SHORT, loss=MSE, optimizer=UNCLIPPED)
ALIGNED = RegularizerConfig(alignment=0.5, alignment_network="given", alignment_margins=(0.1, 0.1))

STEPS: dict[str, TrainConfig] = {
    "modern, LeCam, adaptive": with_judge(),
    "clipped": dataclasses.replace(with_judge(), optimizer=OptimizerConfig(clip_norm=1e-2)),
    "micro-batches": dataclasses.replace(with_judge(), micro_batch=2),
    "residual, R1 and R2": dataclasses.replace(with_judge(), adversarial=R3GAN),
    "patch": dataclasses.replace(with_judge(), adversarial=PATCH),
    "patch, R1 and R2": dataclasses.replace(with_judge(), adversarial=dataclasses.replace(PATCH, r1=1.0, r2=1.0)),
    "unet": with_judge(discriminator="unet", channels=8),
    "variance floor": dataclasses.replace(PLAIN, model=POINT, regularizers=RegularizerConfig(variance_floor=1.0)),
    "learned variance": dataclasses.replace(with_judge(), loss=LossConfig(reconstruction="gaussian", beta=0.1)),
    "equivariance": dataclasses.replace(PLAIN, regularizers=RegularizerConfig(equivariance=0.75, lowpass=0.25)),
    "scale equivariance, spectrum": dataclasses.replace(
        PLAIN, regularizers=RegularizerConfig(scale_equivariance=0.25, spectrum=0.01)
    ),
    "alignment, learned variance": dataclasses.replace(
        PLAIN, loss=LossConfig(reconstruction="gaussian", beta=0.1), regularizers=ALIGNED
    ),
    "recomputed": dataclasses.replace(PLAIN, gradient_checkpointing=True, model=ATTENTIVE),
    "half frozen": with_judge(),
    "compiled": dataclasses.replace(PLAIN, compile=True, model=FLAT),
}
SHARED_OUT = (
    "clipped",
    "micro-batches",
    "learned variance",
    "alignment, learned variance",
    "recomputed",
    "half frozen",
)
"""Those that are also computed with shards of weights."""


def prepared(name: str, parallel: str) -> TrainState:
    """What a case trains, with optimizers whose steps are as large as gradients: Adam's are as large for any."""
    config = dataclasses.replace(STEPS[name], parallel=parallel)
    frozen: dict[str, object] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if config.regularizers.alignment:
            frozen = {"features": nn.Conv2d(3, 6, 2, stride=2).requires_grad_(False), "feature_channels": 6}
        t = started(config, **frozen)
    t.optimizer = torch.optim.SGD(t.learner.parameters(), lr=0.05, momentum=0.9)
    if t.adversary is not None:
        t.adversary.optimizer = torch.optim.SGD(t.adversary.network.parameters(), lr=0.05, momentum=0.9)
    if config.compile and world_size() > 1:
        t.learner.compile(backend="aot_eager")
    return t


def share(step: int) -> tuple[Tensor, list[int]]:
    """This process's share of a step's batch, and its counters."""
    size = BATCH // world_size()
    mine = range(rank() * size, (rank() + 1) * size)
    return random_batch(BATCH, seed=step)[mine.start : mine.stop], [step * BATCH + i for i in mine]


def steps(name: str, parallel: str = "ddp") -> dict[str, Tensor]:
    """Some steps of a case, in as many processes as there are: weights, averages, momenta, gradients of the last step,
    and figures."""
    t = prepared(name, parallel)
    wrap_ddp_(t)
    figures = {}
    count = 3 if name == "half frozen" else 2
    for step in range(count):
        if name == "half frozen":
            t.learner.train_parts(encoder=step != 1)
            wrap_ddp_(t)
        result = training_step(t, *share(step), FELT, done=step / count, first_counter=step * BATCH)
        assert t.average is not None
        ema_update_(t.average, t.autoencoder, 0.5)
        figures |= {f"figure.{step}.{name}": torch.tensor(value) for name, value in result.figures(0.0).items()}
    if world_size() > 1:
        assert _share_held(t) == pytest.approx(0.5 if parallel == "fsdp" else 1.0, abs=0.1)
    return _copies({**state_tensors(t), **_gradients(t), **figures})


def lame() -> dict[str, Tensor]:
    """A step in which the last process alone has a loss that is infinite, with a finite gradient: what it leaves, and
    what it says."""
    t = prepared("modern, LeCam, adaptive", "ddp")
    wrap_ddp_(t)
    extra = float("inf") if rank() == world_size() - 1 else 0.0
    t.perceptual = lambda recon, images: (recon * 0).sum() + extra
    result = training_step(t, *share(0), FELT, first_counter=0)
    return _copies({**state_tensors(t), "finite": torch.tensor(float(result.finite))})


def _share_held(t: TrainState) -> float:
    """Of weights, averages, gradients and momenta, in numbers, by this process."""
    assert t.average is not None
    weights = [*t.learner.parameters(), *t.average.parameters()]
    kept = [
        *weights,
        *(p.grad for p in weights if p.grad is not None),
        *(s["momentum_buffer"] for s in t.optimizer.state.values()),
    ]
    return sum((x.to_local() if hasattr(x, "to_local") else x).numel() for x in kept) / sum(x.numel() for x in kept)


def _gradients(t: TrainState) -> dict[str, Tensor]:
    grads = {f"gradient.{name}": p.grad for name, p in t.learner.named_parameters() if p.grad is not None}
    return {name: g.full_tensor() if hasattr(g, "full_tensor") else g for name, g in grads.items()}


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.detach().clone().contiguous() for name, x in tensors.items()}


# ---------------------------------------------------------------- runs

RUN = dataclasses.replace(
    WITH_DISCRIMINATOR,
    images=96,
    loss=MSE,
    adversarial=dataclasses.replace(MODERN, stage="decoder", optimizer=UNCLIPPED),
)
"""12 steps: 3 without a discriminator, 2 unfelt, and then with the encoder frozen."""
FSDP_RUN = dataclasses.replace(RUN, parallel="fsdp")


@contextmanager
def stopping(at: int, who: int = 0, how: signal.Signals = signal.SIGINT) -> Iterator[None]:
    """One process gets a signal in its step number `at`."""
    original, calls = loop.training_step, 0

    def stopped(*args: object, **kwargs: object) -> StepResult:
        nonlocal calls
        calls += 1
        if calls == at and rank() == who:
            os.kill(os.getpid(), how)
        return original(*args, **kwargs)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "training_step", stopped)
        yield


def whole(config: TrainConfig, images: Path, out: Path) -> None:
    """A run in peace."""
    train(config, images, out, show=False)


def part(config: TrainConfig, images: Path, out: Path) -> str:
    """Continue a run for 5 steps, until process 1 alone is terminated; what all are told."""
    with stopping(5, 1, signal.SIGTERM), pytest.raises(loop.Interrupted) as caught:
        train(config, images, out, show=False, resume=True)
    return str(caught.value)


def unreadable(images: Path, out: Path) -> str:
    """Process 1 alone cannot read an image in the third step; what all are told."""
    original = loop.batches

    def torn(*args: object, **kwargs: object) -> Iterator[object]:
        for number, batch in enumerate(original(*args, **kwargs)):  # type: ignore[arg-type]
            if number == 2 and rank() == 1:
                raise DataError("07.png cannot be read")
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "batches", torn)
        with pytest.raises(DataError) as caught:
            train(RUN, images, out, show=False)
    return str(caught.value)


def full_disk(images: Path, out: Path) -> str:
    """Process 0 alone cannot write its checkpoint; what all are told."""
    from vaeworks.training.run import checkpoint

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "write_tensors", full)
        with pytest.raises(VaeworksError) as caught:
            train(RUN, images, out, show=False)
    return str(caught.value)


def dying(images: Path, out: Path) -> str:
    """Process 1 is killed in the middle of a run; what process 0 is told, and after how many seconds."""
    died = time.monotonic()
    with stopping(3, 1, signal.SIGKILL), pytest.raises(RuntimeError) as caught:
        train(RUN, images, out, show=False)
    assert time.monotonic() - died < 60
    raise caught.value


# ---------------------------------------------------------------- one of two processes


def tasks(images: Path, out: Path) -> dict[str, Callable[[], dict[str, Tensor] | str | None]]:
    """All of them, by name."""
    found: dict[str, Callable[[], dict[str, Tensor] | str | None]] = {}
    found |= {name: (lambda name=name: steps(name)) for name in STEPS}
    found |= {f"{name}, fsdp": (lambda name=name: steps(name, "fsdp")) for name in SHARED_OUT}
    found["lame"] = lame
    found["run"] = lambda: whole(RUN, images, out / "run")
    found["part"] = lambda: part(RUN, images, out / "part")
    found["fsdp part"] = lambda: part(FSDP_RUN, images, out / "fsdp part")
    found["unreadable"] = lambda: unreadable(images, out / "unreadable")
    found["full disk"] = lambda: full_disk(images, out / "full disk")
    found["dying"] = lambda: dying(images, out / "dying")  # the last
    return found


def main(images: Path, out: Path) -> None:
    """Do every task; what fails stops the rest, as the other process would wait for it."""
    torch.set_num_threads(1)
    name = ""
    try:
        with joined(torch.device("cpu")):
            for name, task in tasks(images, out).items():
                found = task()
                if isinstance(found, dict):
                    save_file(found, out / f"{name}.{rank()}.safetensors")
                else:
                    (out / f"{name}.{rank()}.said").write_text(str(found))
    except VaeworksError as error:
        (out / f"{name}.said").write_text(f"{type(error).__name__}: {error}")
        raise
    except BaseException:
        (out / f"{name}.failed").write_text(traceback.format_exc())
        raise


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
