"""A trial: one generator trained on one latent space and scored on the way. Results are kept by key and continued."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..config import ARENA_VERSION, PROBES, ArenaConfig, dumps, from_dict
from ..devices import autocast
from ..errors import FormatError, TrainingError
from ..features.classifier import BATCH
from ..files.atomic import atomic, read_json, read_tensors, write_picture, write_tensors, write_text
from ..images import grid
from ..metrics.frechet import FeatureMoments
from ..models.dit import DiT
from ..models.ema import ema_decay, ema_update_
from ..models.flow_matching import euler, flow_loss, shift_of
from ..random_streams import (
    ARENA_CLASSES,
    ARENA_NOISE,
    ARENA_SAMPLES,
    ARENA_WEIGHTS,
    Order,
    latent_noise,
    random_seed,
)
from .latent_dataset import Encoded
from .scorer import SampleSetScore, Scorer

RESULT, CHECKPOINT, SAMPLES, FEATURES = "result.json", "checkpoint.safetensors", "samples.png", "features.npy"

SAVE_EVERY = 16_384
"""Images between checkpoints."""

SAMPLE_BATCH = 256

SHOWN = 8
"""Rows and columns of the sample sheet."""

WIDE = 128
"""Width of a generator above which the learning rate is reduced."""


@dataclass(frozen=True)
class Trial:
    """A generator on a latent space."""

    space: str
    """digest of the latent space"""
    probe: str
    shift: str
    seed: int

    @property
    def title(self) -> str:
        """The generator, seed and shift as text."""
        return f"{self.probe}, seed {self.seed}" + ("" if self.shift == "none" else f", shift by {self.shift}")


@dataclass(frozen=True)
class ScoredSnapshot:
    """Scores of samples during training."""

    images: int
    """training images of the generator so far"""
    score: SampleSetScore


@dataclass(frozen=True)
class Result:
    """The result of a trial."""

    trial: Trial
    looks: tuple[ScoredSnapshot, ...]
    loss: float
    """mean over the last tenth of training; comparable only within one space"""
    seconds: float
    parameters: int
    folder: Path = Path()
    """the trial's folder, with samples and their features"""

    @property
    def last(self) -> SampleSetScore:
        """Scores of the finished generator."""
        return self.looks[-1].score

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {k: v for k, v in asdict(self).items() if k != "folder"}


def protocol_key(config: ArenaConfig, judge: Scorer) -> str:
    """Everything that all trials of one protocol share besides the space, as one text; without the lists of probes,
    shifts and seeds."""
    shared = {k: v for k, v in asdict(config).items() if k not in ("probes", "shifts", "seeds")}
    return json.dumps(
        {"version": ARENA_VERSION, **shared, "pictures": judge.pictures.digest, "features": judge.stated},
        sort_keys=True,
    )


def run_trial(
    folder: Path,
    trial: Trial,
    encoded: Encoded,
    recon: FeatureMoments,
    judge: Scorer,
    config: ArenaConfig,
    device: torch.device,
    wanted: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] | None = None,
) -> Result | None:
    """Train and score in the trial's folder. A finished trial is read from there; an unfinished one continues.

    wanted: returns whether to stop after this step; the state is then saved, and None returned. progress: gets the
    images seen.
    Errors: TrainingError for a loss that is not finite.
    """
    if (folder / RESULT).exists():
        return read_result(folder)
    work = _Training(trial, encoded, judge.pictures.labels, len(judge.pictures.classes), config, device)
    looks: list[ScoredSnapshot] = []
    seconds = 0.0
    if (folder / CHECKPOINT).exists():
        looks, seconds = work.restore(folder / CHECKPOINT)
    started = time.perf_counter() - seconds
    steps = config.images // config.batch
    due = [max(1, round(share * steps)) for share in config.looks]

    def keep() -> None:
        with atomic(folder / CHECKPOINT, overwrite=True) as temporary:
            facts = {"looks": [asdict(look) for look in looks], "seconds": time.perf_counter() - started}
            write_tensors(temporary, work.state(), {"arena": json.dumps(facts | work.numbers())})

    while work.step < steps:
        work.train_step()
        if progress:
            progress(work.step * config.batch)
        if work.step in due:
            looks.append(ScoredSnapshot(work.step * config.batch, _look(folder, work, recon, judge)))
        stop = wanted()
        if work.step < steps and (stop or work.step in due or work.step * config.batch % SAVE_EVERY < config.batch):
            keep()
        if stop and work.step < steps:
            return None
    count = sum(p.numel() for p in work.model.parameters())
    result = Result(trial, tuple(looks), work.mean_loss, time.perf_counter() - started, count, folder)
    write_text(folder / RESULT, dumps(result.to_dict()) + "\n")
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return result


def read_result(folder: Path) -> Result:
    """The result that `run_trial` wrote. Errors: FormatError for another file."""
    values = read_json(folder / RESULT)
    try:
        looks = tuple(_looks(values["looks"]))
        loss, seconds = (math.nan if values[name] is None else float(values[name]) for name in ("loss", "seconds"))
        if not looks:
            raise ValueError("no look at samples")
        return Result(from_dict(Trial, values["trial"]), looks, loss, seconds, int(values["parameters"]), folder)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FormatError(
            f"{folder / RESULT} is no trial's result: {error}; delete the folder, and it is made again"
        ) from None


def _looks(values: list[dict[str, Any]]) -> Iterator[ScoredSnapshot]:
    """Errors: ConfigError and others for values that are no list of snapshots."""
    for look in values:
        if type(look["images"]) is not int:
            raise TypeError("images are no number")
        yield ScoredSnapshot(look["images"], from_dict(SampleSetScore, _numbers(look["score"])))


def _numbers(score: dict[str, Any]) -> dict[str, Any]:
    """Scores with nan for null, except those that may be absent."""
    return {k: math.nan if v is None and k != "recognized" else v for k, v in score.items()}


class _Training:
    """The generator, its weight average, and the position in training."""

    def __init__(
        self, trial: Trial, encoded: Encoded, labels: Tensor, classes: int, config: ArenaConfig, device: torch.device
    ):
        probe = PROBES[trial.probe]
        self.trial, self.encoded, self.labels, self.config, self.device = trial, encoded, labels, config, device
        self.alpha = shift_of(trial.shift, encoded.dimension)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_seed(trial.seed, ARENA_WEIGHTS))
            make = (probe, math.isqrt(config.tokens), encoded.token_width, max(1, classes))
            self.model, self.average = DiT(*make).to(device), DiT(*make).to(device)
        self.average.load_state_dict(self.model.state_dict())
        self.lr = config.lr * min(1.0, math.sqrt(WIDE / probe.width))
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        )
        self.order = Order(len(labels), trial.seed)
        self.generator = torch.Generator()
        self.step, self.losses, self.counted = 0, 0.0, 0

    def train_step(self) -> None:
        """One batch."""
        config, batch = self.config, self.config.batch
        rows = np.array([self.order[self.step * batch + i] for i in range(batch)])
        self.generator.manual_seed(random_seed(self.trial.seed, ARENA_NOISE, self.step))
        times = torch.randn(
            batch, generator=self.generator
        )  # first, so that they are the same for latents of every shape
        drawn = torch.randn(batch, *self.encoded.shape, generator=self.generator)
        z = self.encoded.sample(rows, drawn)
        noise = torch.randn(z.shape, generator=self.generator)
        z, noise, times, labels = (t.to(self.device) for t in (z, noise, times, self.labels[rows]))
        with autocast(self.device, "bf16" if self.device.type == "cuda" else "fp32"):
            loss = flow_loss(self.model, z, labels, noise, times, self.alpha)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.step += 1
        seen = self.step * batch
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * min(1.0, seen / max(config.warmup_images, 1))
        self.optimizer.step()
        ema_update_(self.average, self.model, ema_decay(config.ema_halflife, batch, seen))
        if self.step * 10 > 9 * (config.images // batch) or self.step == 1:
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingError(
                    f"the generator's loss is {value} after {seen:,} images ({self.trial.title}); what is done is kept"
                )
            if self.step > 1:
                self.losses, self.counted = self.losses + value, self.counted + 1

    @property
    def mean_loss(self) -> float:
        """Of the last tenth."""
        return self.losses / max(self.counted, 1)

    @torch.inference_mode()
    def samples(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Pictures that the average makes, uint8 n c size size, and the classes that were asked for, in batches."""
        count = self.config.samples
        # classes as often as the data has them, the same for every trial
        order = Order(len(self.labels), 0, ARENA_CLASSES)
        labels = self.labels[[order[i] for i in range(count)]]
        side = math.isqrt(self.config.tokens)
        for part in torch.arange(count).split(SAMPLE_BATCH):
            noise = latent_noise(self.trial.seed, part.tolist(), (self.encoded.token_width, side, side), ARENA_SAMPLES)
            tokens = noise.flatten(2).transpose(1, 2).contiguous().to(self.device)
            with autocast(self.device, "bf16" if self.device.type == "cuda" else "fp32"):
                made = euler(self.average, tokens, labels[part].to(self.device), self.config.sampler_steps, self.alpha)
            yield self.encoded.images(made), labels[part]

    def state(self) -> dict[str, Tensor]:
        """Everything that a checkpoint keeps."""
        names = [name for name, _ in self.model.named_parameters()]
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for name, state in zip(names, self.optimizer.state_dict()["state"].values(), strict=True):
            tensors |= {f"optimizer.{key}.{name}": value for key, value in state.items()}
        return tensors

    def numbers(self) -> dict[str, float]:
        """What a checkpoint keeps besides tensors."""
        return {"step": self.step, "losses": self.losses, "counted": self.counted}

    def restore(self, path: Path) -> tuple[list[ScoredSnapshot], float]:
        """Go on from a checkpoint: its looks, and the seconds that they took."""
        tensors, metadata = read_tensors(path)
        try:
            return self._restore(tensors, json.loads(metadata["arena"]))
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise FormatError(
                f"{path} is no trial's checkpoint: {' '.join(str(error).split())[:150]}; delete it"
            ) from None

    def _restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> tuple[list[ScoredSnapshot], float]:
        """Everything into its place."""
        for prefix, network in (("model.", self.model), ("average.", self.average)):
            network.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        state = {
            number: {key: tensors[f"optimizer.{key}.{name}"].clone() for key in ("step", "exp_avg", "exp_avg_sq")}
            for number, (name, _) in enumerate(self.model.named_parameters())
        }
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.step, self.losses, self.counted = int(facts["step"]), float(facts["losses"]), int(facts["counted"])
        return list(_looks(facts["looks"])), float(facts["seconds"])


def _look(folder: Path, work: _Training, recon: FeatureMoments, judge: Scorer) -> SampleSetScore:
    """Score samples; the newest sheet and features stay in the folder."""
    features: list[np.ndarray] = []
    right: list[np.ndarray] = []
    shown: list[Tensor] = []
    for pictures, labels in work.samples():
        shown.extend(pictures[: max(0, SHOWN**2 - len(shown))])
        for part, asked in zip(pictures.split(BATCH), labels.split(BATCH), strict=True):
            described, classes = judge.described(part)
            features.append(described)
            if classes is not None:
                right.append(classes == asked.numpy())
    found = np.concatenate(features)
    recognized = float(np.concatenate(right).mean()) if right else None
    write_picture(folder / SAMPLES, _sheet(shown))
    with atomic(folder / FEATURES, overwrite=True) as temporary, temporary.open("wb") as file:
        np.save(file, found.astype(np.float32))
    return judge.score(found, recon, recognized)


def _sheet(pictures: list[Tensor]) -> Image.Image:
    return grid([pictures[i : i + SHOWN] for i in range(0, len(pictures), SHOWN)])
