"""A training run from the first image to the finished model."""

from __future__ import annotations

import dataclasses
import math
import shlex
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..config import TrainConfig, asked_options, check_asked, dumps, to_dict
from ..data import batches, training_crops
from ..devices import resolve_device, resolve_precision
from ..distributed import joined, on_all_ranks, on_rank0, rank, world_size
from ..errors import DataError, TrainingError
from ..features.nets import FEATURE_NETS
from ..files.atomic import write_picture, write_text
from ..files.locks import alone_in
from ..formats import save
from ..formats.io import read
from ..formats.locate import locate
from ..launcher import shared
from ..models import Autoencoder
from ..models.ema import ema_decay
from ..words import speak
from .finetune import FinetuneComparison, compare_with_start
from .gan.balance_state import Event
from .gan.supervisor import Supervisor
from .interrupt import Interrupt
from .latent_stats import LatentStats, measure_latents
from .monitor.log import RunLog, last_look
from .monitor.trackers import check_trackers
from .oom import memory_in_one_line
from .parallel import agree_on_time, check_processes, unshard, wrap_ddp_
from .run.checkpoint import Position, good_checkpoint, load_checkpoint, newest_checkpoint, remove_newer, save_checkpoint
from .run.folder import BEST, RESULT, STREAM, RunRecord, check_folder, claim_folder, read_run, split_data
from .run.init import initial_discriminator, initial_model, load_frozen, with_start
from .schedule import learning_rate, progress
from .state import TrainState
from .step import check_size, training_step
from .validation import validate, validation_images

CUSTOM = "custom"
"""Name of a recipe that is a configuration of the caller's own."""


@dataclass(frozen=True)
class RunResult:
    """What a finished run came to."""

    run: str
    images_seen: int
    seconds: float
    """of training and validation, over all parts of the run"""
    images_per_second: float
    val_psnr: float | None
    """dB, of the saved model on the validation crops; None without held-out images"""
    best_psnr: float | None
    """the highest on the way"""
    num_parameters: int
    precision: str
    device: str
    latents: LatentStats
    finetuned: FinetuneComparison | None = None
    """what fine-tuning has changed; None for a run from random weights"""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop; it has saved a checkpoint. The message says how to go on."""


def train(
    config: TrainConfig,
    data: str | Path,
    out: str | Path,
    *,
    recipe: str = CUSTOM,
    resume: bool = False,
    show: bool = True,
    features: Callable[[torch.Tensor], Any] | None = None,
) -> RunResult:
    """Train an autoencoder on the images of `data` and leave it in the run folder `out` (run.py says what is there).

    Started by torchrun or accelerate in several processes, they train together, and process 0 writes. features: a
    frozen network of the caller's own for regularizers.alignment: images n 3 h w in [-1,1] to features n d h' w'.
    Errors: DataError, ConfigError before anything is written over; TrainingError for a loss that is not finite;
    Interrupted after Ctrl-C or SIGTERM, with a checkpoint saved. In all cases what was saved stays.
    """
    device = resolve_device(config.device)
    with joined(device), ExitStack() as held:
        on_rank0(lambda: held.enter_context(alone_in(Path(out))))  # of the processes of one run, the one that writes
        return _train(config, str(data), Path(out), device, recipe, resume, show and rank() == 0, features)


def _train(
    config: TrainConfig,
    data: str,
    out: Path,
    device: torch.device,
    recipe: str,
    resume: bool,
    show: bool,
    features: Any,
) -> RunResult:
    # settle what is not said: precision and architecture, once, so that a run continued elsewhere stays the same run
    on_all_ranks(lambda: check_processes(config))
    on_all_ranks(lambda: check_asked(config, FEATURE_NETS))
    on_all_ranks(lambda: check_trackers(config.trackers))
    say = speak if show else None
    config, told = on_rank0(lambda: _settled(config, out, device, resume))

    # claim the folder, look at the data
    record = RunRecord(recipe, data, config)
    on_rank0(lambda: check_folder(out, record, resume))
    train_set, val_set, messages = on_rank0(lambda: split_data(config, data, out))
    messages = [*told, *messages, *_remarks(config)]
    frozen = on_all_ranks(lambda: load_frozen(config, device, say, features))
    discriminator = on_all_ranks(lambda: initial_discriminator(config, frozen.judge))
    checkpoints, samples = out / "checkpoints", out / "samples"
    newest = on_rank0(lambda: newest_checkpoint(checkpoints)) if resume else None
    model = on_all_ranks(lambda: initial_model(config, frozen.teacher, blank=newest is not None).to(device))
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    # build what is trained
    trained = TrainState.of(
        model,
        config,
        discriminator=discriminator,
        perceptual=frozen.perceptual,
        features=frozen.features,
        feature_channels=frozen.feature_channels,
        teacher=frozen.teacher,
    )
    on_all_ranks(lambda: check_size(trained))
    on_rank0(lambda: claim_folder(out, record, train_set, val_set))
    num_parameters = sum(p.numel() for p in model.parameters())
    position = Position()
    if newest is not None:
        position = load_checkpoint(newest, trained)
        on_rank0(lambda: remove_newer(newest))
        messages.append(f"continuing from {newest.name} at {position.images_seen:,} images")
    supervisor = Supervisor(trained, position.balance)
    if config.compile:
        trained.learner.compile()
    supervisor.switch_parts()
    wrap_ddp_(trained)
    val_images = on_all_ranks(
        lambda: validation_images(model, val_set.files, config.data.val_images) if rank() == 0 else []
    )
    crops = training_crops(train_set, config.data, config.seed, config.model.in_channels, bookmarks=out / STREAM)
    started = time.perf_counter() - position.seconds
    again = _again(config, recipe, data, out)
    images_seen = position.images_seen
    looked_at, val_psnr, best = on_rank0(lambda: last_look(out, images_seen))

    def checkpoint(planned: bool = True) -> Path:
        here = Position(images_seen, time.perf_counter() - started, supervisor.to_dict(), planned)
        return save_checkpoint(checkpoints, trained, here, config.keep_checkpoints, supervisor.restore_to)

    with RunLog(out, config, images_seen, show) if rank() == 0 else RunLog.silent() as log, Interrupt() as interrupt:

        def look() -> None:
            nonlocal val_psnr, best, looked_at
            looked_at = images_seen
            judged = unshard(trained.judged)
            val_psnr, best = on_rank0(lambda: judge(judged))

        def judge(judged: Autoencoder) -> tuple[float | None, float | None]:
            if not val_images:
                return val_psnr, best
            seen = validate(judged, val_images)
            if seen.picture is not None:
                write_picture(samples / f"{images_seen:010d}.png", seen.picture)
            log.look(images_seen, seen)
            if math.isfinite(seen.psnr) and (best is None or seen.psnr > best):
                save(judged, out / BEST, overwrite=True)
                return seen.psnr, seen.psnr
            return seen.psnr, best

        def restore(event: Event) -> None:
            assert event.restore_to is not None
            target = event.restore_to
            path = on_rank0(lambda: good_checkpoint(checkpoints, target))
            if path is None:
                raise shared(TrainingError(f"{event.message}; but no checkpoint of before is left in {checkpoints}"))
            load_checkpoint(path, trained)

        log.config(config)
        for message in (
            f"{config.model.name}, {num_parameters:,} parameters, {config.precision} on {_where(device)}",
            *messages,
        ):
            log.say(message)
        if looked_at is None:
            look()
        stream = batches(
            crops,
            images_seen,
            config.images,
            config.batch,
            config.data.workers,
            rank=rank(),
            world=world_size(),
            say=log.say,
        )
        done = progress(config, images_seen, position.seconds)
        while done < 1 and images_seen + config.batch <= config.images:
            # the batch; an error of one process is an error of all
            try:
                batch, counters = on_all_ranks(lambda: next(stream))
            except DataError as problem:
                saved = checkpoint(planned=False)
                raise shared(DataError(f"{problem}; saved {saved}; mend it and continue with: {again}")) from None

            # one step
            if supervisor.switch_parts():
                wrap_ddp_(trained)
            learned = (trained.adversary.steps if trained.adversary is not None else 0) * config.batch
            lr = learning_rate(config.optimizer, images_seen + config.batch, done)
            discriminator_lr = learning_rate(config.adversarial.optimizer, learned + config.batch, done)
            with memory_in_one_line(lambda: newest_checkpoint(checkpoints)):
                result = training_step(
                    trained,
                    batch,
                    counters,
                    supervisor.plan,
                    done=done,
                    lr=lr,
                    discriminator_lr=discriminator_lr,
                    first_counter=images_seen,
                )
            images_seen += config.batch
            if trained.average is not None and result.finite:
                trained.update_average_(ema_decay(config.ema_halflife, config.batch, images_seen))

            # report
            wanted, seconds = agree_on_time(interrupt.wanted, time.perf_counter() - started)
            done = progress(config, images_seen, seconds)
            events = supervisor.observe(images_seen, result)
            if _due(images_seen, config.batch, config.log_every):
                log.step(images_seen, result.figures(lr))
            log.live(images_seen, done, supervisor.plan)
            if _due(images_seen, config.batch, config.val_every):
                look()
                events += supervisor.validated(val_psnr)

            # what the supervisor has decided
            for event in events:
                log.event(images_seen, event.message, event.alarm, event.action)
                if event.action == "stop":
                    kept = on_rank0(lambda: newest_checkpoint(checkpoints))
                    raise shared(TrainingError(_stopped(event.message, kept)))
                if event.action == "restore":
                    restore(event)

            # keep
            planned = _due(images_seen, config.batch, config.save_every) or any(
                e.action in ("save", "restore") for e in events
            )
            if planned or wanted:
                saved = checkpoint(planned=planned)
            if wanted:
                raise shared(Interrupted(f"stopped at {images_seen:,} images; saved {saved}; continue with: {again}"))
        if looked_at != images_seen:
            look()
        checkpoint(planned=False)  # to extend the run from

        # finish: the latents' statistics, the model
        seconds = time.perf_counter() - started
        judged = unshard(trained.judged)

        def finish() -> RunResult:
            def measured(vae: Autoencoder) -> LatentStats:
                return measure_latents(vae, crops, config.stats_images, config.batch)

            def finished(vae: Autoencoder, path: Path) -> LatentStats:
                stats = measured(vae)
                if (
                    config.finetune.path is None and config.finetune.teacher is None
                ):  # else the scale stays what diffusion models know
                    stats.apply_(vae)
                save(vae, path, overwrite=True)
                return stats

            if (out / BEST).exists():
                finished(read(locate(out / BEST)).to(device), out / BEST)
            stats = finished(judged, out / "model.safetensors")
            finetuned = compare_with_start(config, judged, val_images, stats, measured)
            if finetuned is not None and finetuned.warning is not None:
                log.say(finetuned.warning)
            outcome = RunResult(
                str(out),
                images_seen,
                seconds,
                images_seen / max(seconds, 1e-9),
                val_psnr,
                best,
                num_parameters,
                config.precision,
                str(device),
                stats,
                finetuned,
            )
            write_text(out / RESULT, dumps({**dataclasses.asdict(outcome), "config": to_dict(config)}) + "\n")
            log.finish()
            return outcome

        return on_rank0(finish)


def _settled(config: TrainConfig, out: Path, device: torch.device, resume: bool) -> tuple[TrainConfig, list[str]]:
    """The configuration with nothing left open, and what people should know of it."""
    if resume:
        before = read_run(out).config
        precision = before.precision if config.precision == "auto" else config.precision
        found = (
            config.finetune.path is not None or config.finetune.teacher is not None
        )  # the model was made to fit a file
        return dataclasses.replace(config, precision=precision, model=before.model if found else config.model), []
    if config.precision == "auto":
        config = dataclasses.replace(config, precision=resolve_precision(device))
    return with_start(config)


def _remarks(config: TrainConfig) -> list[str]:
    """What is allowed and not what people may take it for."""
    size = config.micro_batch or config.batch
    if config.adversarial.discriminator == "patch" and size < config.batch:
        return [
            f"discriminator 'patch' normalizes each micro-batch of {size} images by itself, so that this is not the "
            "run of a whole batch; 'modern' has no such statistics"
        ]
    return []


def _due(images_seen: int, batch: int, every: int) -> bool:
    """Whether the step that led to `images_seen` reached or crossed a multiple of `every`."""
    return images_seen // every > (images_seen - batch) // every


def _again(config: TrainConfig, recipe: str, data: str, out: Path) -> str:
    if recipe == CUSTOM:
        return f"train(config, {data!r}, {str(out)!r}, resume=True)"
    words = [
        "vaeworks",
        "train",
        recipe,
        "--data",
        data,
        "--out",
        str(out),
        "--resume",
        *asked_options(config, FEATURE_NETS),
    ]
    return shlex.join(words)


def _where(device: torch.device) -> str:
    return str(device) if world_size() == 1 else f"{device.type}, {world_size()} processes"


def _stopped(why: str, checkpoint: Path | None) -> str:
    kept = f"checkpoint {checkpoint} is kept" if checkpoint else "no checkpoint had been written yet"
    return f"{why}; {kept}; or try optimizer.clip-norm 1, precision fp32, or look at the images in data.json"
