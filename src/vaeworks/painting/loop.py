"""The training of a pipeline for the latents of a VAE, from the first image to the finished folder."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import PaintConfig, dumps, to_dict
from ..data.inputs import check_source
from ..devices import resolve_device, resolve_precision
from ..distributed import joined, on_all_ranks, on_rank0, rank, world_size
from ..errors import ConfigError, TrainingError
from ..files.atomic import write_picture, write_text
from ..files.locks import alone_in
from ..files.scratch import remove
from ..formats import load
from ..formats.shared_weights import in_memory
from ..images.channels import PICTURES, check_pictures
from ..launcher import shared
from ..models import Autoencoder
from ..models.digest import model_digest
from ..models.ema import ema_decay
from ..pipelines.blank import blank_pipeline, check_blank, trained_tokenizer
from ..pipelines.stable_diffusion import TRAINED, open_pipeline, own_vae, picture_size, save_pipeline
from ..random_streams import PAINT_LOOK, PAINT_NOISE, PAINT_POSTERIORS, Order, latent_noise
from ..recipes.painting import paint_recipe
from ..reporting import under_bar
from ..terminal import Terminal, bar
from ..training.interrupt import Interrupt
from ..training.loop import Interrupted
from ..training.monitor.log import RunKind, RunLog
from ..training.monitor.log_lines import read_log
from ..training.oom import memory_in_one_line
from ..training.parallel import agree_on_time
from ..training.run.checkpoint import (
    Position,
    checkpoint_tensors,
    newest_checkpoint,
    remove_newer,
    write_checkpoint,
)
from ..training.schedule import learning_rate
from .alarms import HELD_OUT, PaintAlarms
from .captioned_latents import CaptionedImages, CaptionedLatents, prepare_latents, read_captioned, standardized
from .conditions import denoiser_of, expand_, wording_of
from .folder import (
    CHECKPOINTS,
    CUSTOM,
    LATENTS,
    RESULT,
    SAMPLES,
    START,
    TRAINING,
    PaintRecord,
    check_folder,
    check_same,
    resume_command,
    write_record,
)
from .lora import Lora, add_lora, check_peft
from .moving import Pipeline, check_move, move_pipeline, target_of
from .objective import is_dropped, objective_of, uniform_times
from .page import PaintPage, paint_view, write_card
from .result import PaintLook, PaintResult
from .sheet import paint_prompts, sheet
from .state import PaintState

SHEET = 16
"""Prompts of a sheet that are taken from captions."""

FAILURES = 20
"""Steps in a row whose loss or gradient is not finite, after which a run stops."""


def train_pipeline(
    recipe: PaintConfig | str,
    vae: str | Path | Autoencoder,
    data: str | Path,
    out: str | Path,
    *,
    start: str | Path | None = None,
    caption: str | None = None,
    column: str | None = None,
    resume: bool = False,
    show: bool = True,
    name: str = CUSTOM,
) -> PaintResult:
    """Train a denoiser for the latents of a VAE, on images with captions, and save a pipeline that paints.

    >>> vw.train_pipeline("paint-tiny", "runs/dogs", "shapes:6000:64", "pipelines/shapes")
    >>> vw.generate("pipelines/shapes", "a red circle on a blue ground", out="circle.png")

    recipe: a configuration, or the name of one (`vaeworks recipes`). vae: anything that `load` takes; a path, where the
    run should be resumed later. data: a source of images with captions (docs/data.md). out: folder for the pipeline,
    new, or with `resume` that of the run to continue; painting/folder.py lists its files. start: a pipeline to move to
    the VAE's latents, instead of new networks. caption: template of captions for classes, such as "a photo of a {}".
    column: of text, in data sets and tables that have several. show: print progress on stderr. name: the recipe's name
    for the record of a configuration.
    The folder holds stock classes: `DiffusionPipeline.from_pretrained(out)` needs no vaeworks.
    Started by torchrun in several processes, they train together, and process 0 writes.
    Errors: DataError or ConfigError before any file is written; TrainingError for a loss that is not finite;
    Interrupted after Ctrl-C or SIGTERM, with a checkpoint saved. Files that were saved stay in all cases.
    """
    if isinstance(recipe, str):
        name, recipe = recipe, paint_recipe(recipe)
    if not isinstance(recipe, PaintConfig):
        raise ConfigError(f"recipe must be a name or a PaintConfig, not {type(recipe).__name__}")
    check_source(data)
    device = resolve_device(recipe.device)
    request = PaintRequest(
        recipe,
        vae,
        str(data),
        Path(out),
        device,
        None if start is None else str(start),
        (caption, column),
        name,
        resume,
        show,
    )
    with joined(device), ExitStack() as held:
        on_rank0(lambda: held.enter_context(alone_in(Path(out))))  # only process 0 writes
        return _train(dataclasses.replace(request, show=show and rank() == 0))


@dataclass(frozen=True)
class PaintRequest:
    """The arguments of `train_pipeline`."""

    config: PaintConfig
    vae: str | Path | Autoencoder
    data: str
    out: Path
    device: torch.device
    start: str | None
    wording: tuple[str | None, str | None]
    """template of captions, and column of text"""
    recipe: str
    resume: bool
    show: bool

    @property
    def run(self) -> Path:
        """The folder of the run, below that of the pipeline."""
        return self.out / TRAINING


def _train(request: PaintRequest) -> PaintResult:
    run = PaintRun(request)
    with run.open_log(), Interrupt() as interrupt:
        run.begin()
        while run.goes_on:
            run.step()
            stop = run.agree(interrupt.wanted)
            run.report()
            run.keep(stop)
        run.end()
        return run.finish()


class PaintRun:
    """A run: what it trains, its latents, its log, and how far it has come. One in each process."""

    def __init__(self, request: PaintRequest):
        """Errors: ConfigError, DataError or FormatError before anything in a used folder changes."""
        self.request = request
        self.messages: list[str] = []
        on_all_ranks(lambda: _check_processes(request.config))
        before = on_rank0(lambda: check_folder(request.out, request.recipe, _settled(request), request.resume))
        self.config = config = _settled(request)
        autoencoder = on_all_ranks(lambda: _loaded(request.vae))
        track = partial(under_bar, bar(Terminal(quiet=not request.show), "looking at images"))
        captioned: CaptionedImages = on_rank0(lambda: read_captioned(request.data, config, request.wording, track))
        given = "an Autoencoder" if isinstance(request.vae, Autoencoder) else str(request.vae)
        digest = model_digest(autoencoder)
        self.record = record = PaintRecord(
            request.recipe, request.data, *request.wording, given, digest, request.start, captioned.digest, config
        )
        if before is not None:
            on_rank0(lambda: check_same(before, record, request.out))
        self._given: Pipeline | None = None
        trained = sum(file.digest not in captioned.held_out for file in captioned.images.files)
        on_rank0(lambda: None if self._has_start else self._check_fit(autoencoder, trained))
        self.messages += captioned.sentences
        self.autoencoder = autoencoder.to(request.device).requires_grad_(False).eval()

        prepared = partial(self._latents, captioned)
        on_rank0(prepared)
        self.latents: CaptionedLatents = on_all_ranks(prepared)
        self.vae = standardized(self.autoencoder, self.latents, config)
        self.lora: Lora | None = None
        pipe = self._started(captioned)
        objective = objective_of(config, pipe.scheduler, target_of(pipe.scheduler).kind)
        self.objective = objective
        self.state = PaintState.of(pipe, objective, config)
        on_rank0(lambda: write_record(request.out, record))

        position = Position()
        newest = on_rank0(lambda: newest_checkpoint(request.run / CHECKPOINTS)) if request.resume else None
        if newest is not None:
            tensors, position = checkpoint_tensors(newest)
            _restored(self.state, tensors, newest)
            on_rank0(lambda: remove_newer(newest))
            self.messages.append(f"continuing from {newest.name} at {position.images_seen:,} images")
        self.state.wrap_ddp_(request.device)
        self.images_seen = position.images_seen
        self.started = time.perf_counter() - position.seconds
        self.done = self._progress(position.seconds)
        self.order = Order(len(self.latents.trained), config.seed)
        self.failures = 0
        looked = on_rank0(lambda: _last_look(request.run, self.images_seen)) if request.resume else None
        self.looked_at: int | None = None if looked is None else self.images_seen
        self.last = PaintLook(None, looked or {})
        self.figures: dict[str, float] = {}
        self.prompts = config.prompts or self._caption_prompts()
        self.log: RunLog

    # ------------------------------------------------------------------ the start

    def _latents(self, captioned: CaptionedImages) -> CaptionedLatents:
        terminal = Terminal(quiet=not self.request.show)
        counting = lambda what: bar(terminal, what)  # noqa: E731
        return prepare_latents(captioned, self.autoencoder, self.config, self.request.run / LATENTS, counting)

    @property
    def _has_start(self) -> bool:
        """Whether the pipeline at the start of the run is in its folder, whole."""
        return (self.request.run / START / "model_index.json").exists()

    def _check_fit(self, autoencoder: Autoencoder, trained: int) -> None:
        """Check that the VAE, the size and the networks go together, before images are encoded for minutes. trained:
        number of training images."""
        request, config = self.request, self.config
        f = autoencoder.downsample_factor
        if config.size % f:
            raise ConfigError(f"size (={config.size}) must be divisible by the VAE's downsample_factor (={f})")
        if request.start is None:
            return check_blank(autoencoder, config.denoiser, config.size)
        if config.move.train == "lora":
            check_peft()
        self._given = pipe = open_pipeline(request.start, "cpu")
        wording_of(pipe)
        objective_of(config, pipe.scheduler, target_of(pipe.scheduler).kind)
        picture_size(pipe, config.size)
        check_move(pipe, own_vae(pipe), autoencoder, min(trained, config.move.images), config.size)

    def _started(self, captioned: CaptionedImages) -> Pipeline:
        """The pipeline at the start of the run, from the run's folder; of a new run, made and put there first."""
        place = self.request.run / START
        on_rank0(lambda: None if self._has_start else self._make_start(captioned, place))
        pipe: Pipeline = on_all_ranks(lambda: open_pipeline(str(place), self.request.device))
        denoiser = denoiser_of(pipe)
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False).eval()
        if self.request.start is None:
            denoiser.requires_grad_(True)
            if self.config.denoiser.text_encoder is None:
                for name in ("text_encoder", "text_encoder_2"):
                    if (part := getattr(pipe, name, None)) is not None:
                        part.requires_grad_(True)
        elif self.config.move.train == "all":
            denoiser.requires_grad_(True)
        else:
            self.lora = add_lora(denoiser, rank=self.config.move.rank, seed=self.config.seed)
        if self.config.gradient_checkpointing:
            denoiser.enable_gradient_checkpointing()
        _without_unused(pipe)
        return pipe

    def _make_start(self, captioned: CaptionedImages, place: Path) -> None:
        request, config = self.request, self.config
        if request.start is None:
            captions = [self.latents.captions[row] for row in self.latents.trained]
            tokenizer = trained_tokenizer(captions, config.denoiser)
            pipe = blank_pipeline(self.vae, config.denoiser, tokenizer, config.size, config.objective, config.seed)
        else:
            pipe = self._moved(captioned)
        save_pipeline(pipe, place)

    def _moved(self, captioned: CaptionedImages) -> Pipeline:
        """The pipeline of --from in the new latent space."""
        request, config = self.request, self.config
        pipe, self._given = self._given, None
        assert pipe is not None
        with bar(Terminal(quiet=not request.show), "comparing old and new latents") as progress:
            moved = move_pipeline(
                pipe, own_vae(pipe), self.vae.to("cpu"), _squares(captioned, config, progress), seed=config.seed
            )
        self.autoencoder.to(request.device)
        write_text(request.run / "move.json", dumps(moved.report.to_dict()) + "\n")
        self.messages += moved.report.sentences()
        found: Pipeline = moved.pipe
        return found

    def _caption_prompts(self) -> tuple[str, ...]:
        """Captions of held-out images, each once; of training images where none is held out."""
        rows = self.latents.held_out if len(self.latents.held_out) else self.latents.trained
        texts = (self.latents.captions[row] for row in rows)
        found = list(dict.fromkeys(text for text in texts if text))
        return tuple(found[:SHEET]) or ("",)

    def open_log(self) -> RunLog:
        """The log, as a context. It writes in process 0 only."""
        if rank() != 0:
            self.log = RunLog.silent()
            return self.log
        kind = RunKind(
            self.config,
            paint_view(self.config),
            PaintAlarms,
            lambda run: PaintPage(run, self.config, self.prompts),
            lambda run: write_card(run, self.prompts),
            "painted prompts",
        )
        self.log = RunLog(self.request.run, kind, self.images_seen, self.request.show)
        return self.log

    def begin(self) -> None:
        """Tell what is trained, and look at the starting point."""
        count = sum(p.numel() for p in self.state.trained.values())
        self.log.config(self.config)
        where = f"{self.config.precision} on {self.request.device}"
        self.log.say(f"{type(self.state.pipe).__name__}, {count:,} trained parameters, {where}")
        for message in self.messages:
            self.log.say(message)
        if self.images_seen == 0 and self.looked_at is None:
            self.look()

    # ------------------------------------------------------------------ one step

    @property
    def goes_on(self) -> bool:
        """Whether another whole batch belongs to the run."""
        return self.done < 1 and self.images_seen + self.config.batch <= self.config.images

    def step(self) -> None:
        """One optimizer step, and one of the average."""
        config = self.config
        share = config.batch // world_size()
        first = self.images_seen + rank() * share
        z, noise, times, captions = self.batch(list(range(first, first + share)))
        lr = learning_rate(config.optimizer, self.images_seen + config.batch, self.done)
        with memory_in_one_line(self.request.run / CHECKPOINTS):
            loss, norm, finite = self.state.step(z, noise, times, captions, lr)
        self.images_seen += config.batch
        self.failures = 0 if finite else self.failures + 1
        if self.failures >= FAILURES:
            kept = on_rank0(lambda: newest_checkpoint(self.request.run / CHECKPOINTS))
            after = f"checkpoint {kept} is kept" if kept else "no checkpoint had been written yet"
            raise shared(
                TrainingError(
                    f"the loss or its gradient was not finite in {FAILURES} steps in a row; {after}; lower "
                    f"optimizer.lr (={config.optimizer.lr:g})"
                )
            )
        if finite:
            self.state.update_average_(ema_decay(config.ema_halflife or 1, config.batch, self.images_seen))
        self.figures = {"loss": loss, "grad_norm": norm, "lr": lr}

    def batch(self, counters: list[int]) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        """Latents and noise n c h w, times n and captions of the images with these counters. All are functions of the
        seed and the counters."""
        config, latents = self.config, self.latents
        rows = latents.trained[[self.order[counter] for counter in counters]]
        z = latents.sample(rows, latent_noise(config.seed, counters, latents.shape, PAINT_POSTERIORS))
        noise = latent_noise(config.seed, counters, latents.shape, PAINT_NOISE)
        times = self.objective.times(uniform_times(config.seed, counters))
        captions = [
            "" if is_dropped(config.seed, counter, config.caption_dropout) else latents.captions[row]
            for counter, row in zip(counters, rows, strict=True)
        ]
        device = self.request.device
        return z.to(device), noise.to(device), times.to(device), captions

    def agree(self, wanted: bool) -> bool:
        """Agree with all processes on the progress of the run; and on whether to stop, which any of them may want."""
        stop, seconds = agree_on_time(wanted, self.seconds)
        self.done = self._progress(seconds)
        return stop

    def report(self) -> None:
        """Log the step, and look when it is time."""
        if self._due(self.config.log_every):
            self.log.step(self.images_seen, self.figures)
        self.log.live(self.images_seen, self.done)
        if self._due(self.config.val_every):
            self.look()

    def keep(self, stop: bool) -> None:
        """Save a checkpoint when it is time, and before a stop.

        Errors: Interrupted where the run was asked to stop.
        """
        planned = self._due(self.config.save_every)
        if not (planned or stop):
            return
        saved = self.checkpoint(planned)
        if stop:
            raise shared(
                Interrupted(
                    f"stopped at {self.images_seen:,} images; saved {saved}; continue with: "
                    + resume_command(self.record, self.request.out)
                )
            )

    def checkpoint(self, planned: bool) -> Path:
        """Save the state. All processes must call it."""
        position = Position(self.images_seen, self.seconds, {}, planned)
        folder = self.request.run / CHECKPOINTS
        return write_checkpoint(folder, self.state.tensors(), position, self.config.keep_checkpoints)

    # ------------------------------------------------------------------ looks

    def look(self) -> None:
        """Measure the loss on held-out images, and paint the prompts, in process 0."""
        self.looked_at = self.images_seen
        on_rank0(self._look)

    @torch.no_grad()
    def _look(self) -> None:
        figures = {HELD_OUT: self.held_out_loss() if len(self.latents.held_out) else None}
        config = self.config
        with _evaluated(self.state):
            pictures = paint_prompts(
                self.state.average_pipe,
                self.prompts,
                size=config.size,
                guidance=config.guidance,
                steps=config.steps,
                seed=config.seed,
            )
        drawn = sheet(pictures, self.prompts)
        write_picture(self.request.run / SAMPLES / f"{self.images_seen:010d}.png", drawn)
        self.last = PaintLook(drawn, figures)
        self.log.look(self.images_seen, self.last)

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Mean loss of held-out images, with the same times and noise at every look."""
        config, latents, device = self.config, self.latents, self.request.device
        rows = latents.held_out[: config.val_images]
        counters = list(range(len(rows)))
        noise = latent_noise(config.seed, counters, latents.shape, PAINT_LOOK)
        z = latents.sample(rows, latent_noise(config.seed + 1, counters, latents.shape, PAINT_LOOK))
        times = self.objective.times(torch.from_numpy((np.arange(len(rows)) + 0.5) / len(rows)))
        total = 0.0
        with _evaluated(self.state):
            module = self.state.eval_module
            for start in range(0, len(rows), config.batch):
                part = slice(start, start + config.batch)
                captions = [latents.captions[row] for row in rows[part]]
                losses = module(z[part].to(device), noise[part].to(device), times[part].to(device), captions)
                total += losses.sum().item()
        return total / len(rows)

    # ------------------------------------------------------------------ the end

    def end(self) -> None:
        """Look at the last weights, and save a checkpoint from which the run can be extended."""
        if self.looked_at != self.images_seen:
            self.look()
        self.checkpoint(planned=False)

    def finish(self) -> PaintResult:
        """Save the pipeline, and write the result. All processes must call it."""
        seconds = self.seconds
        return on_rank0(lambda: self._finish(seconds))

    def _finish(self, seconds: float) -> PaintResult:
        request, config = self.request, self.config
        pipe = self.state.average_pipe
        count = sum(p.numel() for p in self.state.trained.values())
        expand_(pipe)
        if self.lora is not None:
            merged = Lora(denoiser_of(pipe), self.lora.adapted, self.lora.whole)
            denoiser_of(pipe).requires_grad_(True)
            merged.merge()
        save_pipeline(pipe, request.out)
        how = {
            "vae": model_digest(self.autoencoder),
            "mean": self.latents.centre.flatten().tolist(),
            "std": self.latents.spread.flatten().tolist(),
            "guidance": config.guidance,
        }
        write_text(request.out / TRAINED, dumps(how) + "\n")
        result = PaintResult(
            pipeline=str(request.out),
            kind=type(pipe).__name__,
            images_seen=self.images_seen,
            seconds=seconds,
            images_per_second=self.images_seen / max(seconds, 1e-9),
            loss=self.figures.get("loss"),
            held_out_loss=self.last.figures.get(HELD_OUT),
            num_parameters=count,
            precision=config.precision,
            device=str(request.device),
            prompts=self.prompts,
        )
        write_text(request.run / RESULT, dumps({**result.to_dict(), "config": to_dict(config)}) + "\n")
        remove(request.run / START)
        remove(request.run / LATENTS)
        self.log.finish()
        return result

    # ------------------------------------------------------------------ clocks

    @property
    def seconds(self) -> float:
        """Time of training and looks, over all parts of the run."""
        return time.perf_counter() - self.started

    def _progress(self, seconds: float) -> float:
        config = self.config
        done = self.images_seen / (config.images - config.images % config.batch)
        if config.max_minutes is not None:
            done = max(done, seconds / (60 * config.max_minutes))
        return min(done, 1.0)

    def _due(self, every: int) -> bool:
        """Whether the newest batch has completed another `every` images."""
        return self.images_seen // every > (self.images_seen - self.config.batch) // every


def _settled(request: PaintRequest) -> PaintConfig:
    """The configuration with its precision decided, bf16 where a GPU computes with it, and with AdamW for all weights
    of a pipeline that is moved: Muon is for new networks."""
    config = request.config
    if request.start is not None:
        config = dataclasses.replace(config, matrices="adamw")
    if config.precision != "auto":
        return config
    precision = resolve_precision(request.device) if request.device.type == "cuda" else "fp32"
    return dataclasses.replace(config, precision=precision)


def _loaded(vae: str | Path | Autoencoder) -> Autoencoder:
    given = in_memory(vae)
    autoencoder = load(str(vae)) if given is None else copy.deepcopy(given)  # the caller's stays as it is
    check_pictures(autoencoder.config, channels=PICTURES)
    return autoencoder.float()


def _check_processes(config: PaintConfig) -> None:
    if config.batch % world_size():
        raise ConfigError(f"batch (={config.batch}) must be a multiple of the number of processes (={world_size()})")


def _restored(state: PaintState, tensors: dict[str, Tensor], path: Path) -> None:
    from ..errors import FormatError

    try:
        state.restore(tensors)
    except (RuntimeError, KeyError) as error:
        raise FormatError(f"{path} belongs to another network: {' '.join(str(error).split())[:200]}") from None


def _last_look(run: Path, images_seen: int) -> dict[str, float | None] | None:
    """The figures of the look at this point of a run; None if there was none before it was interrupted."""
    looks = [line for line in read_log(run) if HELD_OUT in line and line["images_seen"] == images_seen]
    return {HELD_OUT: looks[-1][HELD_OUT]} if looks else None


def _without_unused(pipe: Any) -> None:
    """Freeze what cannot have a gradient, for which data-parallel training would wait: the last layers of text encoders
    of which SD3 reads the layer before the last and a pooled vector, and SD 1 the last."""
    transformer = getattr(pipe, "transformer", None)
    for block in getattr(transformer, "transformer_blocks", ()):
        attention = block.attn
        if getattr(attention, "context_pre_only", False):
            attention.add_q_proj.requires_grad_(False)
            if attention.norm_added_q is not None:
                attention.norm_added_q.requires_grad_(False)


@contextmanager
def _evaluated(state: PaintState) -> Iterator[None]:
    """The judged module without dropout, and afterwards as it was."""
    module = state.eval_module
    before = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(before)


def _squares(captioned: CaptionedImages, config: PaintConfig, progress: Any) -> Iterator[Tensor]:
    """Batches of training images as squares of the run's size, for the map between latents."""
    from ..data.square_images import read_squares

    files = [file for file in captioned.images.files if file.digest not in captioned.held_out][: config.move.images]
    waiting: list[Tensor] = []
    for number, picture in read_squares(files, config.size, 3, lambda file, error: None):
        waiting.append(picture)
        progress(number + 1, len(files))
        if len(waiting) == 16 or number + 1 == len(files):
            yield torch.stack(waiting)
            waiting = []


__all__: Sequence[str] = ["PaintRun", "train_pipeline"]
