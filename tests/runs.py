"""Small runs that several tests train: images, and what two runs must have in common to be the same run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from vaeworks.config import TrainConfig
from vaeworks.training.monitor.log import read_log
from vaeworks.training.run.checkpoint import newest_checkpoint
from vaeworks.training.run.init import initial_discriminator, initial_model
from vaeworks.training.state import TrainState


def make_images(root: Path, count: int = 12, size: int = 40) -> Path:
    """A folder of smooth random images."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).resize((size, size), 3).save(
            root / f"{i:02d}.png"
        )
    return root


def random_batch(count: int = 8, size: int = 32, seed: int = 0) -> torch.Tensor:
    """Smooth random images, uint8 n 3 size size."""
    rng = np.random.default_rng(seed)
    pictures = [
        Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).resize((size, size), 3) for _ in range(count)
    ]
    return torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) for p in pictures])


def started(config: TrainConfig, **frozen: object) -> TrainState:
    """What a run of this configuration trains, before its first step."""
    return TrainState.of(initial_model(config), config, discriminator=initial_discriminator(config, None), **frozen)


def outcome(run: Path) -> tuple[dict[str, torch.Tensor], list[dict]]:
    """All tensors of a run's last checkpoint and of its model, and its log."""
    newest = newest_checkpoint(run / "checkpoints")
    assert newest is not None
    model = load_file(run / "model.safetensors")
    return load_file(newest) | {f"file.{name}": t for name, t in model.items()}, read_log(run)


def assert_same_run(a: Path, b: Path) -> None:
    """Both ended with the same bytes: weights, average, discriminator, both optimizers, model, and log."""
    (tensors, log), (others, other_log) = outcome(a), outcome(b)
    assert tensors.keys() == others.keys()
    different = [name for name, t in tensors.items() if not torch.equal(_bytes(t), _bytes(others[name]))]
    assert not different, f"{len(different)} of {len(tensors)} tensors differ, the first {different[:3]}"
    assert log == other_log
    for name in ("model.safetensors", "best.safetensors"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    ends = [json.loads((run / "result.json").read_text()) for run in (a, b)]
    assert all(end["best_psnr"] == ends[0]["best_psnr"] and end["val_psnr"] == ends[0]["val_psnr"] for end in ends)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor's bytes, in which 0 and -0 differ."""
    return tensor.reshape(-1).view(torch.uint8)
