"""Checkpoints: one safetensors file each, whole or absent, from which a run continues as if it had never stopped.

Order, crops and noise are functions of (seed, images seen), so that a checkpoint holds no random state. It holds whole
tensors by name, whatever the number of processes, so that any number of them can resume.

model.* average.* beside.* discriminator.* lecam.*      weights and statistics
optimizer.* discriminator_optimizer.*                   <exp_avg|exp_avg_sq|step>.<parameter>
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ...distributed import broadcast_tensors, on_all_ranks, on_rank0, rank
from ...errors import FormatError
from ...files.atomic import atomic, check_header, read_tensors, write_tensors
from ...files.tensor_file import open_tensors
from ..state import TrainState

METADATA_KEY = "vaeworks_checkpoint"

NAME = re.compile(r"[0-9]{10,18}\.safetensors")
"""Name of a checkpoint's file: the images seen."""

LONGEST = 1e10
"""Bound of the seconds of a run: three centuries. Infinities and NaN are not below it."""


@dataclass(frozen=True)
class Position:
    """The progress of a run."""

    images_seen: int = 0
    seconds: float = 0.0
    """time of training and validation, over all parts of the run"""
    balance: dict[str, Any] = field(default_factory=dict)
    """state and settings of the discriminator's supervisor"""
    planned: bool = True
    """whether the run's plan asks for this checkpoint, so that an undisturbed run has it as well"""


def state_tensors(trained: TrainState) -> dict[str, Tensor]:
    """The tensors of a checkpoint by the names above, whole, in every process; tensors from shards are on the CPU."""
    networks = {"model": trained.autoencoder, "average": trained.average}
    tensors = {
        f"{part}.{name}": t
        for part, network in networks.items()
        if network is not None
        for name, t in network.state_dict().items()
    }
    tensors |= {f"beside.{name}": p for name, p in trained.learner.beside().items()}
    tensors |= optimizer_tensors("optimizer", _named(trained), trained.optimizer)
    if (adversary := trained.adversary) is not None:
        tensors |= {f"discriminator.{name}": t for name, t in adversary.network.state_dict().items()}
        tensors |= {
            f"lecam.{name}": t
            for name, t in (adversary.lecam.state_dict() if adversary.lecam is not None else {}).items()
        }
        tensors |= optimizer_tensors(
            "discriminator_optimizer", dict(adversary.network.named_parameters()), adversary.optimizer
        )
    return {name: t.full_tensor().cpu() if _is_shared_out(t) else t for name, t in tensors.items()}


def save_checkpoint(folder: Path, trained: TrainState, position: Position, keep: int, good: int | None = None) -> Path:
    """Write checkpoint folder/<images seen>.safetensors in process 0, then delete old ones.

    It keeps the newest `keep` planned ones, this one, and the newest planned one of at most `good` images, to which the
    supervisor may return. Errors: VaeworksError where the disk is full; the older checkpoints stay then.
    """
    return write_checkpoint(folder, state_tensors(trained), position, keep, good)


def write_checkpoint(
    folder: Path, tensors: dict[str, Tensor], position: Position, keep: int, good: int | None = None
) -> Path:
    """As `save_checkpoint`, of tensors. All processes must call it."""
    path = folder / f"{position.images_seen:010d}.safetensors"

    def write() -> None:
        if position.planned or not path.exists():  # a planned one at the same place has the same weights
            with atomic(path, overwrite=True) as temporary:
                write_tensors(temporary, tensors, {METADATA_KEY: json.dumps(asdict(position))})
        _delete_old(folder, path, keep, good)

    on_rank0(write)
    return path


def _delete_old(folder: Path, newest: Path, keep: int, good: int | None) -> None:
    planned = planned_checkpoints(folder)
    kept = {newest, *planned[-keep:]}
    if good is not None and (before := [p for p in planned if images_of(p) <= good]):
        kept.add(before[-1])
    for old in checkpoint_files(folder):
        if old not in kept:
            old.unlink()


def planned_checkpoints(folder: Path) -> list[Path]:
    """Planned checkpoints, oldest first, without torn files."""
    return [path for path in checkpoint_files(folder) if (position := _position(path)) is not None and position.planned]


def images_of(path: Path) -> int:
    """Images seen, by a checkpoint's name; -1 for another file."""
    return int(path.stem) if NAME.fullmatch(path.name) else -1


def checkpoint_files(folder: Path) -> list[Path]:
    """Files with a checkpoint's name, fewest images first. Other files are never read, and never deleted."""
    return sorted(path for path in folder.glob("*.safetensors") if NAME.fullmatch(path.name))


def load_checkpoint(path: Path, trained: TrainState) -> Position:
    """Load a checkpoint into the state, in place, in all processes; process 0 reads the file.

    Errors: FormatError for a torn file or one of another network.
    """
    tensors, position = checkpoint_tensors(path)
    try:
        _restore(trained, tensors)
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FormatError(f"{path} belongs to another network: {reason}") from None
    return position


def checkpoint_tensors(path: Path) -> tuple[dict[str, Tensor], Position]:
    """A checkpoint's tensors and position, in all processes; process 0 reads the file.

    Errors: FormatError for a torn file.
    """
    found = on_all_ranks(lambda: _read(path) if rank() == 0 else None)
    position = on_rank0(lambda: found[1])  # type: ignore[index]
    return broadcast_tensors(None if found is None else found[0]), position


def _read(path: Path) -> tuple[dict[str, Tensor], Position]:
    """A checkpoint's tensors and position."""
    tensors, metadata = read_tensors(path)
    if METADATA_KEY not in metadata:
        raise FormatError(f"{path} is no training checkpoint")
    try:
        return tensors, _position_in(metadata[METADATA_KEY])
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise FormatError(f"{path} does not say how far its run has come: {str(error)[:100]}") from None


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the most images that is a whole file; None where there are none at all.

    Errors: FormatError where there are checkpoints and none is whole.
    """
    paths = checkpoint_files(folder)[::-1]
    for path in paths:
        try:
            read_tensors(path)
        except FormatError:
            continue
        return path
    if paths:
        raise FormatError(
            f"none of the {len(paths)} checkpoints in {folder} is a whole file; start anew with another --out"
        )
    return None


def good_checkpoint(folder: Path, images: int) -> Path | None:
    """The newest planned checkpoint of at most so many images, to which an undisturbed run would return."""
    paths = [path for path in planned_checkpoints(folder) if images_of(path) <= images]
    return paths[-1] if paths else None


def remove_newer(path: Path) -> None:
    """Delete the checkpoints after this one, which are torn. They must not count among the newest ones."""
    for other in checkpoint_files(path.parent):
        if other.name > path.name:
            other.unlink()


def _position_in(text: str) -> Position:
    """The position in a checkpoint's metadata; unknown fields are ignored."""
    known = {f.name for f in fields(Position)}
    found = Position(**{name: value for name, value in json.loads(text).items() if name in known})
    counted = (
        type(found.images_seen) is int and 0 <= found.images_seen < 10**18
    )  # as a checkpoint's name has up to 18 digits
    counted = counted and type(found.seconds) in (int, float) and 0 <= found.seconds < LONGEST
    if not counted or not isinstance(found.balance, dict) or not isinstance(found.planned, bool):
        raise ValueError("images_seen, seconds, balance and planned are of other kinds, or impossible")
    return found


def _position(path: Path) -> Position | None:
    """A checkpoint's position, from its header; None for a torn file or one that is no checkpoint."""
    try:
        check_header(path)
        with open_tensors(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return _position_in(metadata[METADATA_KEY])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None


def _named(trained: TrainState) -> dict[str, nn.Parameter]:
    """Trained parameters by name; the autoencoder's as in its files."""
    return dict(trained.autoencoder.named_parameters()) | {
        f"beside.{name}": p for name, p in trained.learner.beside().items()
    }


def optimizer_tensors(
    part: str, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """An optimizer's state by the names above."""
    return {
        f"{part}.{key}.{name}": value if torch.is_tensor(value) else torch.tensor(float(value))
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _restore(trained: TrainState, tensors: dict[str, Tensor]) -> None:
    _load(trained.autoencoder, part_of(tensors, "model."))
    if trained.average is not None:
        _load(trained.average, part_of(tensors, "average."))
    for name, parameter in trained.learner.beside().items():
        _assign_(parameter, tensors[f"beside.{name}"])
    restore_optimizer(_named(trained), trained.optimizer, part_of(tensors, "optimizer."))
    if (adversary := trained.adversary) is not None and any(name.startswith("discriminator.") for name in tensors):
        adversary.network.load_state_dict(part_of(tensors, "discriminator."))
        if adversary.lecam is not None:
            adversary.lecam.load_state_dict(part_of(tensors, "lecam."))
        restore_optimizer(
            dict(adversary.network.named_parameters()),
            adversary.optimizer,
            part_of(tensors, "discriminator_optimizer."),
        )


def _load(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    if not any(_is_shared_out(p) for p in network.parameters()):
        network.load_state_dict(tensors)
        return
    own = network.state_dict()
    if own.keys() != tensors.keys():
        raise KeyError(f"{len(own.keys() ^ tensors.keys())} tensors are not those of this network")
    for name, target in own.items():
        _assign_(target, tensors[name])


def _is_shared_out(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor, without importing that class, which takes most of a second."""
    return hasattr(tensor, "full_tensor")


@torch.no_grad()
def _assign_(target: Any, value: Tensor) -> None:
    """Copy a whole tensor into one that may be split between processes."""
    if _is_shared_out(target):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
    target.copy_(value)


def restore_optimizer(
    parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    """Load what `optimizer_tensors` gave, without the part's name. Errors: KeyError for another network's."""
    optimizer.state.clear()
    for full_name, value in tensors.items():
        key, name = full_name.split(".", 1)
        parameter = parameters[name]
        # fused optimizers keep the step count beside the parameter; moments have its memory layout as well
        if key == "step":
            state = value.to(parameter.device, copy=True)
        else:
            _assign_(state := torch.empty_like(parameter), value)
        optimizer.state[parameter][key] = state


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
