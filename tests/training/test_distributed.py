"""Several processes are one: the same gradients, weights, figures and files, in any number; and none waits for the
dead."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import processes_cases as cases
import pytest
import torch
from configs import WITH_DISCRIMINATOR
from runs import make_images, outcome, random_batch, started
from safetensors.torch import load_file

from vaeworks.models.discriminators import PatchDiscriminator
from vaeworks.models.discriminators.patch import BatchNorm
from vaeworks.training import loop, train
from vaeworks.training.monitor.log import read_log
from vaeworks.training.run.folder import read_run
from vaeworks.training.step import training_step

HERE = Path(__file__).parents[1]


class Pair(NamedTuple):
    """What two processes left."""

    folder: Path
    codes: tuple[int, int]
    seconds: float

    def tensors(self, task: str, rank: int = 0) -> dict[str, torch.Tensor]:
        """Errors: an assertion with the trace of the task that failed, which may be another one."""
        self.check(f"{task}.{rank}.safetensors")
        return load_file(self.folder / f"{task}.{rank}.safetensors")

    def said(self, task: str, rank: int = 0) -> str:
        self.check(f"{task}.{rank}.said")
        return (self.folder / f"{task}.{rank}.said").read_text()

    def check(self, name: str) -> None:
        failed = [path.name + "\n" + path.read_text() for path in self.folder.glob("*.failed")]
        assert (self.folder / name).exists(), "\n".join(failed) or f"no {name}; exit codes {self.codes}"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def alone(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process, in peace."""
    out = tmp_path_factory.mktemp("alone") / "run"
    train(cases.RUN, images, out, show=False)
    return out


@pytest.fixture(scope="module")
def pair(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Two processes that do all tasks; runs that they go on with were begun by one. Started as Open MPI would."""
    out = tmp_path_factory.mktemp("pair")
    with cases.stopping(3), pytest.raises(loop.Interrupted):
        train(cases.RUN, images, out / "part", show=False)
    shutil.copytree(out / "part", out / "fsdp part")
    started = time.monotonic()
    with running([[sys.executable, str(HERE / "processes_cases.py"), str(images), str(out)]] * 2, mpi(2)) as processes:
        codes = tuple(process.wait(timeout=240) for process in processes)
    return Pair(out, codes, time.monotonic() - started)  # type: ignore[arg-type]


def mpi(count: int) -> list[dict[str, str]]:
    """What Open MPI, started by accelerate, tells each process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free.getsockname()[1]),
            "OMPI_COMM_WORLD_SIZE": str(count),
        }
    return [
        meet | {"OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_LOCAL_RANK": str(rank)} for rank in range(count)
    ]


@contextmanager
def running(
    commands: list[list[str]], environments: list[dict[str, str]], **options: object
) -> Iterator[list[subprocess.Popen]]:
    """Processes that are gone afterwards, with all that they have started."""
    processes = [
        subprocess.Popen(command, env=os.environ | added, start_new_session=True, **options)
        for command, added in zip(commands, environments, strict=True)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            for pid in [process.pid, *children(process.pid)]:
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    continue
            process.wait()


def children(pid: int) -> list[int]:
    """Processes below one."""
    found = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, tasks.read_text().split()):
            found += [child, *children(child)]
    return found


def assert_close(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], rtol: float = 1e-4, atol: float = 1e-6
) -> None:
    """Equal to rounding, each tensor by its length: of numbers that are zero but for rounding nothing is asked."""
    assert found.keys() == expected.keys()
    off = {
        name: (found[name].double() - t.double()).norm() / (rtol * t.double().norm() + atol)
        for name, t in expected.items()
    }
    worst = max(off, key=lambda name: off[name])
    assert off[worst] <= 1, (
        f"{worst} is off by {off[worst]:.3g} times what rounding may do; so are {sum(o > 1 for o in off.values())}"
    )


# ---------------------------------------------------------------- steps


@pytest.mark.parametrize("name", [*cases.STEPS, *(f"{name}, fsdp" for name in cases.SHARED_OUT)])
def test_two_processes_take_the_steps_of_one(name: str, pair: Pair) -> None:
    """Gradients, weights, momenta, average, discriminator, its statistics and every figure, after some steps; the same
    bytes in both."""
    expected = cases.steps(name.removesuffix(", fsdp"))
    found = pair.tensors(name)
    assert_close(found, expected)
    other = pair.tensors(name, 1)
    assert all(torch.equal(t, other[key]) for key, t in found.items())


def test_no_process_takes_a_step_that_another_cannot(pair: Pair) -> None:
    """One process's loss is infinite, with finite gradients: the autoencoder of neither moves, and both say so."""
    start = cases.state_tensors(cases.prepared("modern, LeCam, adaptive", "ddp"))
    for rank in (0, 1):
        found = pair.tensors("lame", rank)
        assert not found["finite"]
        assert all(torch.equal(t, start[name]) for name, t in found.items() if name.startswith("model."))


def test_batch_norm_of_one_process_is_pytorchs() -> None:
    """To the last bit, in value, gradient and running statistics; and the discriminator's tensors have the names that
    they had."""
    ours, theirs = BatchNorm(6), torch.nn.BatchNorm2d(6)
    for norm in (ours, theirs):
        x = random_batch(4, 16)[:, [0, 1, 2, 0, 1, 2]].float().requires_grad_()
        norm(x).square().sum().backward()
    assert all(torch.equal(t, theirs.state_dict()[name]) for name, t in ours.state_dict().items())
    assert torch.equal(ours.weight.grad, theirs.weight.grad)
    assert {
        name.split(".")[-1] for name in PatchDiscriminator(num_layers=1).state_dict() if name.startswith("layers.3.")
    } == {
        "weight",
        "bias",
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }


def test_mixed_precision_keeps_fp32() -> None:
    """After steps in bf16: weights, averages, gradients and moments of both networks are fp32, and weights have more
    digits than bf16."""
    t = started(dataclasses.replace(WITH_DISCRIMINATOR, precision="bf16"))
    for step in range(2):
        training_step(t, *cases.share(step), cases.FELT)
    assert all(x.dtype == torch.float32 for x in cases.state_tensors(t).values() if x.is_floating_point())
    assert t.adversary is not None
    for network in (t.learner, t.adversary.network):
        for p in network.parameters():
            assert p.grad is not None and p.grad.dtype == torch.float32
            assert p.numel() == 1 or not torch.equal(p, p.bfloat16().float())


# ---------------------------------------------------------------- runs


def assert_same_learning(run: Path, other: Path) -> None:
    """Logs agree, and files to what Adam makes of rounding: its steps are as long for the smallest gradient."""
    (tensors, log), (others, other_log) = outcome(run), outcome(other)
    assert [line.keys() for line in log] == [line.keys() for line in other_log]
    for line, expected in zip(log, other_log, strict=True):
        figures = {name: value for name, value in expected.items() if isinstance(value, float)}
        assert {name: line[name] for name in figures} == pytest.approx(figures, rel=2e-3, abs=1e-4), expected[
            "images_seen"
        ]
        assert line.get("event") == expected.get("event")
    assert_close(tensors, others, rtol=5e-3, atol=1e-3)


def test_a_run_of_two_is_the_run_of_one(pair: Pair, alone: Path) -> None:
    """Through the discriminator's start and the freezing of the encoder: log, weights, average, discriminator,
    optimizers, model."""
    pair.check("run.0.said")
    assert_same_learning(pair.folder / "run", alone)


@pytest.mark.parametrize("name", ["part", "fsdp part"])
def test_going_on_in_other_numbers(name: str, pair: Pair, alone: Path, images: Path) -> None:
    """Begun by one, continued by two, with shards or not, ended by one.

    Process 1 alone was terminated: both stopped after the same step, with a checkpoint.
    """
    told = {pair.said(name, rank) for rank in (0, 1)}
    assert len(told) == 1
    assert "stopped at 64 images; saved" in told.pop()
    run = pair.folder / name
    train(cases.RUN, images, run, resume=True, show=False)
    assert_same_learning(run, alone)


# ---------------------------------------------------------------- trouble


def test_an_error_of_one_is_an_error_of_all(pair: Pair) -> None:
    """An image that process 1 cannot read: both are told, and where to go on; a full disk of process 0, too. Then both
    worked on."""
    for rank in (0, 1):
        said = pair.said("unreadable", rank)
        assert "07.png cannot be read; saved" in said and "0000000016.safetensors" in said
        assert "could not be written: No space left on device" in pair.said("full disk", rank)
    assert (pair.folder / "unreadable" / "checkpoints" / "0000000016.safetensors").exists()


def test_a_dead_process_is_noticed(pair: Pair) -> None:
    """Process 1 was killed in the middle of a step: process 0 did not wait for it, and ended with an error in a
    line."""
    pair.said("full disk")
    assert pair.codes == (1, -9)
    assert (pair.folder / "dying.said").read_text().startswith("TrainingError: another process of this run has ended")
    assert pair.seconds < 240


# ---------------------------------------------------------------- commands

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = [
    sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
]  # fmt: skip
TRAIN = ["-m", "vaeworks", "train", "decoder-gan-tiny", "--precision", "fp32", "--images", "192", "--save-every", "64"]


def said(process: subprocess.Popen, seconds: float = 120) -> tuple[str, str]:
    """What a command printed until its end: stdout, stderr."""
    out, err = process.communicate(timeout=seconds)
    return out, err


@pytest.fixture(scope="module")
def interrupted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A run by torchrun that Ctrl-C ended; torchrun's exit code and what was on stderr."""
    run = tmp_path_factory.mktemp("torchrun") / "run"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with running([[*TORCHRUN, *TRAIN, "--data", str(images), "--out", str(run)]], [{}], **pipes) as (process,):
        deadline = time.monotonic() + 120
        while not (run / "log.jsonl").exists() or len(read_log(run)) < 3:
            assert time.monotonic() < deadline and process.poll() is None, said(process)
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, err = said(process)
    return run, process.returncode, err


def test_torchrun_and_ctrl_c(interrupted: tuple[Path, int, str]) -> None:
    """Both processes end, with code 130; a checkpoint is there, and how to go on is said once."""
    run, code, err = interrupted
    told = [line for line in err.splitlines() if line.startswith("vaeworks: ")]
    assert code != 0
    assert len(told) == 1, err
    assert "stopped at" in told[0] and "--resume" in told[0]
    assert "2 processes" in err
    assert Path(told[0].split("saved ")[1].split(";")[0]).exists()
    assert not (run / "model.safetensors").exists()


def test_accelerate_goes_on_where_torchrun_stopped(
    interrupted: tuple[Path, int, str], images: Path, tmp_path: Path
) -> None:
    """`accelerate launch` continues the run; --json gives one document; the run is that of one process in peace."""
    if importlib.util.find_spec("accelerate") is None:
        pytest.skip("accelerate is not installed")
    run = interrupted[0]
    command = [*ACCELERATE, *TRAIN[:4], "--data", str(images), "--out", str(run), "--resume", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with running([command], [{}], **pipes) as (process,):
        out, err = said(process)
    assert process.returncode == 0, err
    assert "2 processes" in err
    assert err.count("latents measured on") == 1
    result = json.loads(out)
    assert result["images_seen"] == 192
    train(read_run(run).config, images, tmp_path / "run", recipe="decoder-gan-tiny", show=False)
    losses, others = (
        [line["reconstruction"] for line in read_log(folder) if "loss" in line] for folder in (run, tmp_path / "run")
    )
    assert losses == pytest.approx(others, rel=2e-3)


def test_an_error_is_told_once(tmp_path: Path) -> None:
    """There are no images: a line, and exit code 2 of both processes."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [*TORCHRUN, *TRAIN, "--data", str(tmp_path / "nothing"), "--out", str(tmp_path / "run"), "--json"]
    with running([command], [{}], **pipes) as (process,):
        out, err = said(process)
    told = [line for line in err.splitlines() if line.startswith("vaeworks: ")]
    assert len(told) == 1 and "nothing" in told[0], err
    assert out == ""
    assert "exitcode  : 2" in err
