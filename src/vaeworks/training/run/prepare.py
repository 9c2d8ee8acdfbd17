"""What comes before the first step: checks, the run folder, the data, and the networks."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...config import TrainConfig, asked_options, check_asked
from ...data import ImageSet, ImageStream
from ...data.trained_on import TrainedOn
from ...devices import resolve_precision
from ...distributed import on_all_ranks, on_rank0
from ...features.nets import FEATURE_NETS
from ...formats.locate import locate
from ...formats.provenance import trained_on_of
from ...reporting import under_bar
from ...terminal import Terminal, bar
from ...words import speak
from ..monitor.trackers import check_trackers
from ..parallel import check_processes
from ..state import TrainState
from ..step import check_size
from .checkpoint import Position, load_checkpoint, newest_checkpoint, remove_newer
from .folder import RunRecord, check_folder, claim_folder, read_data, read_run, split_data
from .init import Frozen, initial_discriminator, initial_model, load_frozen, with_start

CUSTOM = "custom"
"""Recipe name of a configuration that is the caller's own."""


@dataclass(frozen=True)
class RunRequest:
    """The arguments of `train`, and the device that they resolve to."""

    config: TrainConfig
    data: str
    out: Path
    device: torch.device
    recipe: str = CUSTOM
    resume: bool = False
    show: bool = True
    features: Callable[[Tensor], Any] | None = None

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.out / "checkpoints"


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready for its next step."""

    config: TrainConfig
    """with precision and architecture settled"""
    trained: TrainState
    train_set: ImageSet | ImageStream
    val_set: ImageSet
    position: Position
    messages: tuple[str, ...]
    """sentences for the user"""


def prepare(request: RunRequest) -> PreparedRun:
    """Check the request, claim the run folder, build the networks, and load the newest checkpoint of a resumed run.

    Errors: ConfigError, DataError or FormatError before anything in the folder changes.
    """
    on_all_ranks(lambda: check_processes(request.config))
    on_all_ranks(lambda: check_asked(request.config, FEATURE_NETS))
    on_all_ranks(lambda: check_trackers(request.config.trackers))
    config, of_start = on_rank0(lambda: settle(request))

    record = RunRecord(request.recipe, request.data, config)
    on_rank0(lambda: check_folder(request.out, record, request.resume))
    track = partial(under_bar, bar(Terminal(quiet=not request.show), "looking at images"))
    train_set, val_set, of_data = on_rank0(lambda: split_data(config, request.data, request.out, track))
    messages = [*of_start, *of_data, *_remarks(config)]

    say = speak if request.show else None
    frozen = on_all_ranks(lambda: load_frozen(config, request.device, say, request.features))
    discriminator = on_all_ranks(lambda: initial_discriminator(config, frozen.judge))
    newest = on_rank0(lambda: newest_checkpoint(request.checkpoints)) if request.resume else None
    trained = _build(config, request.device, frozen, discriminator, blank=newest is not None)
    on_all_ranks(lambda: check_size(trained))
    on_rank0(lambda: claim_folder(request.out, record, train_set, val_set, _start_trained_on(request, config)))

    position = Position()
    if newest is not None:
        position = load_checkpoint(newest, trained)
        on_rank0(lambda: remove_newer(newest))
        messages.append(f"continuing from {newest.name} at {position.images_seen:,} images")
    return PreparedRun(config, trained, train_set, val_set, position, tuple(messages))


def _start_trained_on(request: RunRequest, config: TrainConfig) -> TrainedOn | None:
    """What the model that a run starts from was trained on; a resumed run has it in its folder."""
    if request.resume:
        before = read_data(request.out).get("before")
        return None if before is None else TrainedOn.from_dict(before)
    return None if config.finetune.path is None else trained_on_of(locate(config.finetune.path))


def settle(request: RunRequest) -> tuple[TrainConfig, list[str]]:
    """The configuration with precision and architecture decided, once for the whole run; and sentences about it.

    A run that is resumed elsewhere so stays the same run.
    """
    config = request.config
    if not request.resume:
        if config.precision == "auto":
            config = dataclasses.replace(config, precision=resolve_precision(request.device))
        return with_start(config)
    before = read_run(request.out).config
    precision = before.precision if config.precision == "auto" else config.precision
    # the architecture of such a run was taken from a file
    from_file = config.finetune.path is not None or config.finetune.teacher is not None
    model = before.model if from_file else config.model
    return dataclasses.replace(config, precision=precision, model=model), []


def _build(
    config: TrainConfig, device: torch.device, frozen: Frozen, discriminator: nn.Module | None, blank: bool
) -> TrainState:
    """The networks and optimizers at the start of the run. blank: a checkpoint will fill them."""
    model = on_all_ranks(lambda: initial_model(config, frozen.teacher, blank).to(device))
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainState.of(
        model,
        config,
        discriminator=discriminator,
        perceptual=frozen.perceptual,
        features=frozen.features,
        feature_channels=frozen.feature_channels,
        teacher=frozen.teacher,
    )


def resume_command(request: RunRequest, config: TrainConfig) -> str:
    """The command, or the call, that continues the run."""
    if request.recipe == CUSTOM:
        return f"train(config, {request.data!r}, {str(request.out)!r}, resume=True)"
    words = ["vaeworks", "train", request.recipe, "--data", request.data, "--out", str(request.out), "--resume"]
    return shlex.join([*words, *asked_options(config, FEATURE_NETS)])


def _remarks(config: TrainConfig) -> list[str]:
    """Sentences about settings that are allowed and easily misunderstood."""
    size = config.micro_batch or config.batch
    if config.adversarial.discriminator == "patch" and size < config.batch:
        return [
            f"discriminator 'patch' normalizes each micro-batch of {size} images by itself, so that this is not the "
            "run of a whole batch; 'modern' has no such statistics"
        ]
    return []
