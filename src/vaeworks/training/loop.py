"""A training run from the first image to the finished model."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import TrainConfig, dumps, to_dict
from ..data import batches, training_crops
from ..data.inputs import check_source
from ..data.trained_on import trained_on
from ..devices import resolve_device
from ..distributed import joined, on_all_ranks, on_rank0, rank, world_size
from ..errors import ConfigError, DataError, TrainingError
from ..files.atomic import write_picture, write_text
from ..files.locks import alone_in
from ..formats import save
from ..formats.io import read
from ..formats.locate import locate
from ..formats.sources import RUN_BEST, RUN_MODEL
from ..launcher import shared
from ..models import Autoencoder
from ..models.autoencoder import scale_words
from ..models.ema import ema_decay
from ..recipes import recipe as recipe_of
from .finetune import compare_with_start
from .gan.balance_state import Event
from .gan.supervisor import Supervisor
from .interrupt import Interrupt
from .latent_stats import LatentStats, measure_latents
from .monitor.log import RunLog, last_look, train_log
from .oom import memory_in_one_line
from .parallel import agree_on_time, unshard, wrap_ddp_
from .run.checkpoint import Position, good_checkpoint, load_checkpoint, newest_checkpoint, save_checkpoint
from .run.folder import RESULT, STREAM
from .run.prepare import CUSTOM, RunRequest, prepare, resume_command
from .run.result import RunResult
from .schedule import learning_rate, progress
from .step import StepResult, training_step
from .validation import validate, validation_images


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, and has saved a checkpoint. The message says how to continue."""


def train(
    config: TrainConfig | str,
    data: str | Path,
    out: str | Path,
    *,
    recipe: str = CUSTOM,
    resume: bool = False,
    show: bool = True,
    features: Callable[[Tensor], Any] | None = None,
) -> RunResult:
    """Train an autoencoder on the images of `data`, and leave it in the run folder `out`.

    config: a configuration, or the name of a recipe. data: a folder, or any other source of images (docs/data.md); a
    name, because the run's record has it. out: a new folder, or with `resume` the folder of the
    run to continue; training/run/folder.py lists its files. show: print progress on stderr. features: a frozen network
    of the caller's own for regularizers.alignment, from images n 3 h w in [-1,1] to features n d h' w'.
    Started by torchrun or accelerate in several processes, they train together, and process 0 writes.

    >>> result = vw.train("small-f8c16", "photos", "runs/photos")
    >>> vae = vw.load(result.run)

    Errors: DataError or ConfigError before any file is overwritten; TrainingError for a loss that is not finite;
    Interrupted after Ctrl-C or SIGTERM, with a checkpoint saved. Files that were saved stay in all cases.
    """
    if isinstance(config, str):
        recipe, config = config if recipe == CUSTOM else recipe, recipe_of(config)
    if not isinstance(config, TrainConfig):
        raise ConfigError(
            f"config must be the name of a recipe or a TrainConfig, not {type(config).__name__}; "
            "`vaeworks.list_recipes()` has the names"
        )
    check_source(data)
    device = resolve_device(config.device)
    with joined(device), ExitStack() as held:
        on_rank0(lambda: held.enter_context(alone_in(Path(out))))  # only process 0 writes
        shown = show and rank() == 0
        return _train(RunRequest(config, str(data), Path(out), device, recipe, resume, shown, features))


def _train(request: RunRequest) -> RunResult:
    run = TrainingRun(request)
    with run.open_log(), Interrupt() as interrupt:
        run.begin()
        while run.goes_on:
            batch, counters = run.next_batch()
            result = run.step(batch, counters)
            stop = run.agree(interrupt.wanted)
            events = run.report(result)
            run.act_on(events)
            run.keep(events, stop)
        run.end()
        return run.finish()


class TrainingRun:
    """A run: its configuration, what it trains, its log, and how far it has come. One in each process."""

    def __init__(self, request: RunRequest):
        """Errors: those of `prepare`."""
        prepared = prepare(request)
        config, position = prepared.config, prepared.position
        self.request = request
        self.config = config
        self.messages = prepared.messages
        self.trained = trained = prepared.trained
        self.num_parameters = sum(p.numel() for p in trained.autoencoder.parameters())

        self.supervisor = Supervisor(trained, position.balance)
        if config.compile:
            trained.learner.compile()
        self.supervisor.switch_parts()
        wrap_ddp_(trained)

        val_files = prepared.val_set.files if rank() == 0 else ()
        self.val_images = on_all_ranks(
            lambda: validation_images(trained.autoencoder, val_files, config.data.val_images)
        )
        self.crops = training_crops(
            prepared.train_set, config.data, config.seed, config.model.in_channels, bookmarks=request.out / STREAM
        )

        self.images_seen = position.images_seen
        self.started = time.perf_counter() - position.seconds
        self.done = progress(config, position.images_seen, position.seconds)
        self.looked_at, self.val_psnr, self.best_psnr = on_rank0(lambda: last_look(request.out, position.images_seen))
        self.lr = 0.0
        self.log: RunLog
        self.stream: Iterator[tuple[Tensor, list[int]]]

    # ------------------------------------------------------------------ the start

    def open_log(self) -> RunLog:
        """The log, as a context. It writes in process 0 only."""
        request = self.request
        silent = rank() != 0
        self.log = RunLog.silent() if silent else train_log(request.out, self.config, self.images_seen, request.show)
        return self.log

    def begin(self) -> None:
        """Tell what is trained, validate the starting point, and open the stream of batches."""
        config, log = self.config, self.log
        log.config(config)
        log.say(
            f"{config.model.name}, {self.num_parameters:,} parameters, {config.precision} on "
            f"{_device_words(self.request.device)}"
        )
        for message in self.messages:
            log.say(message)
        if self.looked_at is None:
            self.look()
        self.stream = batches(
            self.crops,
            self.images_seen,
            config.images,
            config.batch,
            config.data.workers,
            rank=rank(),
            world=world_size(),
            say=log.say,
        )

    # ------------------------------------------------------------------ one step

    @property
    def goes_on(self) -> bool:
        """Whether another whole batch belongs to the run."""
        return self.done < 1 and self.images_seen + self.config.batch <= self.config.images

    def next_batch(self) -> tuple[Tensor, list[int]]:
        """This process's part of the next batch: uint8 n c h w, and the counters of its images.

        Errors: DataError in all processes where one of them cannot read an image; a checkpoint is saved.
        """
        try:
            return on_all_ranks(lambda: next(self.stream))
        except DataError as problem:
            saved = self.checkpoint(planned=False)
            again = resume_command(self.request, self.config)
            raise shared(DataError(f"{problem}; saved {saved}; mend it and continue with: {again}")) from None

    def step(self, batch: Tensor, counters: list[int]) -> StepResult:
        """One optimizer step of the autoencoder, one of the discriminator, and one of the average."""
        config, trained = self.config, self.trained
        if self.supervisor.switch_parts():
            wrap_ddp_(trained)
        adversary_steps = trained.adversary.steps if trained.adversary is not None else 0
        self.lr = learning_rate(config.optimizer, self.images_seen + config.batch, self.done)
        adversary_images = (adversary_steps + 1) * config.batch
        with memory_in_one_line(self.request.checkpoints):
            result = training_step(
                trained,
                batch,
                counters,
                self.supervisor.plan,
                done=self.done,
                lr=self.lr,
                discriminator_lr=learning_rate(config.adversarial.optimizer, adversary_images, self.done),
                first_counter=self.images_seen,
            )
        self.images_seen += config.batch
        if trained.average is not None and result.finite:
            trained.update_average_(ema_decay(config.ema_halflife, config.batch, self.images_seen))
        return result

    def agree(self, wanted: bool) -> bool:
        """Agree with all processes on the progress of the run; and on whether to stop, which any of them may want."""
        stop, seconds = agree_on_time(wanted, self.seconds)
        self.done = progress(self.config, self.images_seen, seconds)
        return stop

    def report(self, result: StepResult) -> tuple[Event, ...]:
        """Log the step, and validate when it is time. Returns the supervisor's decisions."""
        events = self.supervisor.observe(self.images_seen, result)
        if self._due(self.config.log_every):
            self.log.step(self.images_seen, result.figures(self.lr))
        self.log.live(self.images_seen, self.done, self.supervisor.plan)
        if self._due(self.config.val_every):
            self.look()
            events += self.supervisor.validated(self.val_psnr)
        return events

    def act_on(self, events: Sequence[Event]) -> None:
        """Log the supervisor's decisions, and carry them out.

        Errors: TrainingError where it ends the run, or where no checkpoint is left to restore.
        """
        for event in events:
            self.log.event(self.images_seen, event.message, event.alarm, event.action)
            if event.action == "stop":
                kept = on_rank0(lambda: newest_checkpoint(self.request.checkpoints))
                raise shared(TrainingError(_stopped(event.message, kept)))
            if event.action == "restore":
                self.restore(event)

    def keep(self, events: Sequence[Event], stop: bool) -> None:
        """Save a checkpoint when it is time, when the supervisor wants one, and before a stop.

        Errors: Interrupted where the run was asked to stop.
        """
        planned = self._due(self.config.save_every) or any(e.action in ("save", "restore") for e in events)
        if not (planned or stop):
            return
        saved = self.checkpoint(planned)
        if stop:
            again = resume_command(self.request, self.config)
            raise shared(Interrupted(f"stopped at {self.images_seen:,} images; saved {saved}; continue with: {again}"))

    # ------------------------------------------------------------------ the end

    def end(self) -> None:
        """Validate the last weights, and save a checkpoint from which the run can be extended."""
        if self.looked_at != self.images_seen:
            self.look()
        self.checkpoint(planned=False)

    def finish(self) -> RunResult:
        """Measure the latents, save the models, and write the result. All processes must call it."""
        seconds = self.seconds
        eval_model = unshard(self.trained.eval_model)
        return on_rank0(lambda: self._finish(eval_model, seconds))

    def _finish(self, eval_model: Autoencoder, seconds: float) -> RunResult:
        out = self.request.out
        if (out / RUN_BEST).exists():
            best = read(locate(out / RUN_BEST)).to(self.request.device)
            self._save_final(best, out / RUN_BEST)
        stats = self._save_final(eval_model, out / RUN_MODEL)
        finetuned = compare_with_start(self.config, eval_model, self.val_images, stats, self.measure)
        if finetuned is not None and finetuned.warning is not None:
            self.log.say(finetuned.warning)
        result = RunResult(
            run=str(out),
            images_seen=self.images_seen,
            seconds=seconds,
            images_per_second=self.images_seen / max(seconds, 1e-9),
            val_psnr=self.val_psnr,
            best_psnr=self.best_psnr,
            num_parameters=self.num_parameters,
            precision=self.config.precision,
            device=str(self.request.device),
            latents=stats,
            normalization=scale_words(eval_model.config),
            finetuned=finetuned,
        )
        write_text(out / RESULT, dumps({**dataclasses.asdict(result), "config": to_dict(self.config)}) + "\n")
        self.log.finish()
        return result

    def _save_final(self, vae: Autoencoder, path: Path) -> LatentStats:
        """Save a model with the normalization of its latents; one that began as another VAE keeps that VAE's."""
        stats = self.measure(vae)
        finetune = self.config.finetune
        if finetune.path is None and finetune.teacher is None:
            stats.apply_(vae)
        self._save(vae, path)
        return stats

    def _save(self, vae: Autoencoder, path: Path) -> None:
        """Save a model, with the digests of the images that it was trained on."""
        vae.trained_on = trained_on(self.request.out)
        save(vae, path, overwrite=True)

    def measure(self, vae: Autoencoder) -> LatentStats:
        """Statistics of a model's latents over the first training crops."""
        with self.log.counting("measuring the latents") as progress:
            return measure_latents(vae, self.crops, self.config.stats_images, self.config.batch, progress)

    # ------------------------------------------------------------------ what steps, start and end share

    def look(self) -> None:
        """Validate the model on held-out images. All processes must call it."""
        self.looked_at = self.images_seen
        eval_model = unshard(self.trained.eval_model)
        self.val_psnr, self.best_psnr = on_rank0(lambda: self._validate(eval_model))

    def _validate(self, eval_model: Autoencoder) -> tuple[float | None, float | None]:
        """PSNR now and the best so far, in dB; both as they were without held-out images. Saves the best model."""
        if not self.val_images:
            return self.val_psnr, self.best_psnr
        validation = validate(eval_model, self.val_images)
        if validation.picture is not None:
            write_picture(self.request.out / "samples" / f"{self.images_seen:010d}.png", validation.picture)
        self.log.look(self.images_seen, validation)
        improved = self.best_psnr is None or validation.psnr > self.best_psnr
        if math.isfinite(validation.psnr) and improved:
            self._save(eval_model, self.request.out / RUN_BEST)
            return validation.psnr, validation.psnr
        return validation.psnr, self.best_psnr

    def checkpoint(self, planned: bool) -> Path:
        """Save a checkpoint. All processes must call it. planned: an undisturbed run would save it as well."""
        here = Position(self.images_seen, self.seconds, self.supervisor.to_dict(), planned)
        keep = self.config.keep_checkpoints
        return save_checkpoint(self.request.checkpoints, self.trained, here, keep, self.supervisor.restore_to)

    def restore(self, event: Event) -> None:
        """Put the last good weights back.

        Errors: TrainingError where no checkpoint of them is left.
        """
        target, folder = event.restore_to, self.request.checkpoints
        assert target is not None
        path = on_rank0(lambda: good_checkpoint(folder, target))
        if path is None:
            raise shared(TrainingError(f"{event.message}; but no checkpoint of before is left in {folder}"))
        load_checkpoint(path, self.trained)

    @property
    def seconds(self) -> float:
        """Time of training and validation so far, over all parts of the run."""
        return time.perf_counter() - self.started

    def _due(self, every: int) -> bool:
        """Whether the last step reached or crossed a multiple of `every` images."""
        return self.images_seen // every > (self.images_seen - self.config.batch) // every


def _device_words(device: torch.device) -> str:
    return str(device) if world_size() == 1 else f"{device.type}, {world_size()} processes"


def _stopped(why: str, checkpoint: Path | None) -> str:
    kept = f"checkpoint {checkpoint} is kept" if checkpoint else "no checkpoint had been written yet"
    return f"{why}; {kept}; or try optimizer.clip-norm 1, precision fp32, or look at the images in data.json"
