"""The trainer with every reconstruction, perceptual distance and bottleneck: it runs, learns, resumes exactly, and
fails early."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from configs import SHORT
from PIL import Image

import vaeworks as vw
from vaeworks.config import BottleneckConfig, LossConfig, OptimizerConfig, TrainConfig
from vaeworks.features.perceptual_distance import perceptual_distance
from vaeworks.losses import Distance
from vaeworks.losses.reconstruction import DISTANCES
from vaeworks.training import train
from vaeworks.training.loop import Interrupted
from vaeworks.training.monitor.log import read_log
from vaeworks.training.run.init import initial_model
from vaeworks.training.state import TrainState
from vaeworks.training.step import StepResult, training_step

SHORTER = dataclasses.replace(SHORT, images=64)
POINT = BottleneckConfig(kind="point", bound="softclamp", noise="interpolative", prefixes=(2, 4))


def with_model(**options: object) -> TrainConfig:
    return dataclasses.replace(SHORTER, model=dataclasses.replace(SHORTER.model, **options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(10):
        Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).resize((40, 40), 3).save(root / f"{i}.png")
    return root


def batch() -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def stepped(config: TrainConfig, perceptual: Distance | None = None) -> tuple[TrainState, StepResult]:
    """A step that moves nothing, so that its gradients can be looked at."""
    trained = TrainState.of(initial_model(config), config, perceptual=perceptual)
    trained.optimizer = torch.optim.SGD(trained.learner.parameters(), lr=0.0)
    return trained, training_step(trained, batch(), list(range(4)))


@pytest.mark.parametrize("kind", DISTANCES)
def test_every_reconstruction_is_an_option(kind: str) -> None:
    """One step each: finite, with a gradient in every weight."""
    config = dataclasses.replace(SHORTER, loss=LossConfig(reconstruction=kind))
    trained, result = stepped(config)
    assert result.finite
    assert result.reconstruction > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.learner.parameters())


def test_the_perceptual_term_has_a_gradient() -> None:
    """The public script that computes it under no_grad trains nothing with it: here it alone moves every weight."""
    loss = LossConfig(perceptual="without-weights", perceptual_weight=2.0, beta=0.0)
    config = dataclasses.replace(SHORTER, loss=loss)
    distance = perceptual_distance(config.loss, torch.device("cpu"))
    gradients = []
    for weight in (0.0, 2.0):
        loss = dataclasses.replace(config.loss, perceptual_weight=weight)
        step = dataclasses.replace(config, loss=loss, optimizer=OptimizerConfig(clip_norm=0))
        trained, result = stepped(step, distance)
        gradients.append([p.grad.clone() for p in trained.learner.parameters()])
        assert result.perceptual > 0
        assert result.loss == pytest.approx(result.reconstruction + weight * result.perceptual, rel=1e-5)
    assert all(not torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("micro", [1, 2])
def test_micro_batches_see_the_same_perceptual_term(micro: int) -> None:
    """Accumulated over parts, value and gradient are the batch's."""
    found = []
    for size in (None, micro):
        loss = LossConfig(reconstruction="ms_ssim", perceptual="without-weights")
        config = dataclasses.replace(SHORTER, loss=loss, micro_batch=size, optimizer=OptimizerConfig(clip_norm=0))
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, bottleneck=POINT))
        trained, result = stepped(config, perceptual_distance(loss, torch.device("cpu")))
        found.append((result, [p.grad.clone() for p in trained.learner.parameters()]))
    assert found[0][0].loss == pytest.approx(found[1][0].loss, rel=1e-5)
    for a, b in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


RUNS = {
    "perceptual": dataclasses.replace(SHORTER, loss=LossConfig(perceptual="without-weights")),
    "point": with_model(bottleneck=POINT),
    "point, sigma": with_model(bottleneck=BottleneckConfig(kind="point", bound="rmsnorm", noise="sigma")),
    "kl, prefixes": with_model(bottleneck=BottleneckConfig(prefixes=(1, 4))),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_resume_exactly(name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the middle and continued, a run ends with the bytes of an undisturbed one; its model loads and knows
    its bottleneck."""
    config = RUNS[name]
    train(config, folder, tmp_path / "whole", show=False)
    from vaeworks.training import loop

    original, calls = loop.training_step, 0

    def stopping(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Interrupted("enough")  # as a kill: nothing is saved at this point
        return original(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "training_step", stopping)
    with pytest.raises(Interrupted):
        train(dataclasses.replace(config, save_every=16), folder, tmp_path / "parts", show=False)
    monkeypatch.setattr(loop, "training_step", original)
    train(dataclasses.replace(config, save_every=16), folder, tmp_path / "parts", show=False, resume=True)
    whole, parts = (vw.load(tmp_path / run) for run in ("whole", "parts"))
    assert whole.config == parts.config
    assert whole.kl_config.bottleneck == config.model.bottleneck
    assert all(torch.equal(t, parts.state_dict()[n]) for n, t in whole.state_dict().items())
    if name == "perceptual":
        assert all(line["perceptual"] > 0 for line in read_log(tmp_path / "whole") if "perceptual" in line)


def test_missing_weights_are_told_before_the_run_begins(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline and without a file, LPIPS is one line with the remedy, and no run folder is left: nothing takes its
    place."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("VAEWORKS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    config = dataclasses.replace(SHORTER, loss=LossConfig(perceptual="lpips-vgg16"))
    with pytest.raises(vw.FormatError, match=r"^[^\n]*vgg[^\n]*pass its path[^\n]*$"):
        train(config, folder, tmp_path / "run", show=False)
    assert not (tmp_path / "run" / "run.json").exists()


def test_real_features(test_data: Path, folder: Path, tmp_path: Path) -> None:
    """VGG16 up to conv3_3 as an uncalibrated distance, from a file: frozen, in the log, and it falls."""
    loss = LossConfig(perceptual="vgg16-conv1to3", perceptual_path=str(test_data / "weights" / "vgg16-oxford-conv1to3"))
    config = dataclasses.replace(SHORTER, loss=loss, images=160, optimizer=OptimizerConfig(lr=3e-3, warmup_images=16))
    train(config, folder, tmp_path / "run", show=False)
    values = [line["perceptual"] for line in read_log(tmp_path / "run") if "perceptual" in line]
    assert np.mean(values[-3:]) < np.mean(values[:3])


def test_weights_are_finite_numbers() -> None:
    with pytest.raises(vw.ConfigError, match="perceptual_weight"):
        LossConfig(perceptual_weight=-1.0)
