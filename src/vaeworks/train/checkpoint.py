"""Checkpoints: one safetensors file each, whole or absent, from which a run goes on as if it had never stopped.

Order, crops and noise are functions of (seed, images seen), so that a checkpoint holds no random state.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import FormatError
from ..formats.files import atomic, read_tensors, write_tensors

METADATA_KEY = "vaeworks_checkpoint"


@dataclass(frozen=True)
class Position:
    """How far a run has come."""

    images_seen: int = 0
    seconds: float = 0.0
    """of training, over all its parts"""
    best_psnr: float | None = None
    """best validation PSNR so far, in dB"""


def save_checkpoint(
    folder: Path, model: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer, position: Position, keep: int
) -> Path:
    """Write checkpoint folder/<images seen>.safetensors, then delete all but the newest `keep`.

    Errors: VaeworksError where the disk is full; the older checkpoints are kept then.
    """
    tensors: dict[str, Tensor] = {f"model.{name}": t for name, t in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": t for name, t in average.state_dict().items()}
    tensors |= _optimizer_tensors(model, optimizer)
    path = folder / f"{position.images_seen:010d}.safetensors"
    with atomic(path, overwrite=True) as temporary:
        write_tensors(temporary, tensors, {METADATA_KEY: json.dumps(asdict(position))})
    for old in sorted(folder.glob("*.safetensors"))[:-keep]:
        old.unlink()
    return path


def load_checkpoint(path: Path, model: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer) -> Position:
    """Put a checkpoint's state into model, average and optimizer, in place.

    Errors: FormatError for a torn file or one of another network.
    """
    tensors, metadata = read_tensors(path)
    if METADATA_KEY not in metadata:
        raise FormatError(f"{path} is no training checkpoint")
    try:
        model.load_state_dict(_part(tensors, "model."))
        if average is not None:
            average.load_state_dict(_part(tensors, "average."))
        _restore_optimizer(model, optimizer, _part(tensors, "optimizer."))
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FormatError(f"{path} belongs to another network: {reason}") from None
    return Position(**json.loads(metadata[METADATA_KEY]))


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the most images that is a whole file; None where there are none at all.

    Errors: FormatError where there are checkpoints and none is whole.
    """
    paths = sorted(folder.glob("*.safetensors"), reverse=True)
    for path in paths:
        try:
            read_tensors(path)
        except FormatError:
            continue
        return path
    if paths:
        raise FormatError(f"none of the {len(paths)} checkpoints in {folder} is a whole file; start anew with another --out")
    return None


def remove_newer(path: Path) -> None:
    """Delete the checkpoints after this one, which are torn: they must not count among the newest ones that are kept."""
    for other in path.parent.glob("*.safetensors"):
        if other.name > path.name:
            other.unlink()


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by parameter name: optimizer.<exp_avg|exp_avg_sq|step>.<parameter>."""
    return {
        f"optimizer.{key}.{name}": value if torch.is_tensor(value) else torch.tensor(float(value))
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for full_name, value in tensors.items():
        key, name = full_name.split(".", 1)
        parameter = parameters[name]
        # fused optimizers keep the step count beside the parameter; moments have its memory layout as well
        state = value.to(parameter.device, copy=True) if key == "step" else torch.empty_like(parameter).copy_(value)
        optimizer.state[parameter][key] = state
