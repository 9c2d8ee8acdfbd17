"""All trials of an arena; a second call continues where the first ended."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from ..config import ArenaConfig
from ..data.square_images import SquareImages, open_pictures
from ..data.subsets import some
from ..metrics.frechet import FeatureMoments, moments, moments_distance
from .entries import Entrant
from .latent_dataset import Encoded, encode, open_encoded, place_of
from .pool import run_all
from .probe_run import Result, Trial, protocol_key, run_trial
from .scorer import Scorer, kept_array, open_scorer, parts
from .space import SpaceSpec, open_space

RECONSTRUCTED = 4096
"""Largest number of images whose reconstructions represent the VAE's own best."""


@dataclass(frozen=True)
class ArenaContext:
    """Folders and settings of an arena, which every process opens for itself."""

    folder: Path
    """folder of everything that is kept; several arenas may share it"""
    pictures: Path
    """a folder of `prepare`"""
    features: str
    weights: Path | None
    config: ArenaConfig
    device: str

    @property
    def spaces(self) -> Path:
        """Folder of encoded images."""
        return self.folder / "spaces"


@dataclass(frozen=True)
class Floor:
    """Score of a VAE's reconstructions, which no generator can be expected to beat."""

    fd_real: float
    """Fréchet distance of as many reconstructions as a snapshot has samples"""
    shape: tuple[int, int, int]
    """c h w of latents"""


@dataclass(frozen=True)
class Task:
    """One trial, for the next free process."""

    ground: ArenaContext
    spec: SpaceSpec
    name: str
    trial: Trial
    folder: Path


@lru_cache(maxsize=2)
def open_context(ground: ArenaContext) -> tuple[SquareImages, Scorer]:
    """Images and scorer, opened once in every process. Errors: those of `open_scorer`."""
    pictures = open_pictures(ground.pictures)
    return pictures, open_scorer(
        pictures, ground.features, ground.weights, ground.folder / "features", torch.device(ground.device)
    )


@lru_cache(maxsize=2)
def open_arm(ground: ArenaContext, spec: SpaceSpec, name: str) -> tuple[Encoded, FeatureMoments]:
    """An encoded space, and the feature moments of its reconstructions."""
    pictures, judge = open_context(ground)
    encoded = open_encoded(open_space(spec, ground.device), pictures, ground.spaces, ground.config.tokens, name)
    return encoded, moments(reconstructions(encoded, pictures, judge, ground))


def reconstructions(encoded: Encoded, pictures: SquareImages, judge: Scorer, ground: ArenaContext) -> np.ndarray:
    """Features n d of reconstructions of some images from posterior samples; kept beside the latents."""

    def make() -> np.ndarray:
        rows = some(pictures.count, RECONSTRUCTED)
        generator = torch.Generator().manual_seed(1)
        found = []
        for part in (rows[places] for places in parts(len(rows))):
            latents = torch.from_numpy(np.array(encoded.mean[part]))
            if encoded.std is not None:
                latents = latents + torch.from_numpy(np.array(encoded.std[part])) * torch.randn(
                    latents.shape, generator=generator
                )
            found.append(judge.described(encoded.decode(latents))[0])
        return np.concatenate(found)

    return kept_array(place_of(encoded.space, pictures, ground.spaces) / f"recon-{judge.key}.npy", make)


def prepare_arm(
    ground: ArenaContext, spec: SpaceSpec, name: str, progress: Callable[[int, int], None] | None = None
) -> tuple[str, Floor]:
    """Encode the images in a space and score its reconstructions: the space's digest, and the score."""
    pictures, judge = open_context(ground)
    encoded = encode(open_space(spec, ground.device), pictures, ground.spaces, ground.config.tokens, name, progress)
    found = reconstructions(encoded, pictures, judge, ground)
    as_many = found[some(len(found), ground.config.samples)]
    return encoded.space.digest, Floor(moments_distance(moments(as_many), judge.real_moments), encoded.shape)


def trial_folder(ground: ArenaContext, trial: Trial, judge: Scorer) -> Path:
    """The folder of a trial, whose name hashes everything that its figures depend on."""
    key = hashlib.sha256(f"{trial.space} {protocol_key(ground.config, judge)}".encode()).hexdigest()[:16]
    return ground.folder / "trials" / f"{key}-{trial.probe}-{trial.shift}-{trial.seed}"


@dataclass(frozen=True)
class Held:
    """All trials of an arena."""

    results: dict[str, dict[str, list[Result]]]
    """by entrant and generator, one for each seed, with the entrant's best timestep shift"""
    tried: dict[str, dict[str, Result]]
    """by entrant and shift: the pilot runs that decided"""


def run_trials(
    ground: ArenaContext,
    entrants: Sequence[Entrant],
    digests: dict[SpaceSpec, str],
    jobs: int,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Held:
    """Run all trials that have no result yet.

    The first generator's first seed is trained with every timestep shift; the shift that ends nearest to the
    reconstructions becomes the entrant's. digests: by space, as `prepare_arm` returns them. jobs: processes. say: gets
    a line for every trial that ends.
    Errors: KeyboardInterrupt after Ctrl-C or SIGTERM, with everything kept.
    """
    config = ground.config
    judge = open_context(ground)[1]
    first = config.probes[0]
    total = len(entrants) * (len(config.shifts) + len(config.probes) * len(config.seeds) - 1) * config.images

    def task(entrant: Entrant, probe: str, number: int, shift: str) -> Task:
        spec = entrant.space(number)
        trial = Trial(digests[spec], probe, shift, config.seeds[number] + entrant.seed_offset)
        return Task(ground, spec, entrant.name, trial, trial_folder(ground, trial, judge))

    deciding: dict[Key, Task] = {
        (e.name, first, 0, shift): task(e, first, 0, shift) for e in entrants for shift in config.shifts
    }
    found = _run(deciding, jobs, say, partial(_further, progress, 0, total))
    tried: dict[str, dict[str, Result]] = {
        e.name: {shift: found[e.name, first, 0, shift] for shift in config.shifts} for e in entrants
    }
    chosen = {name: min(by, key=lambda shift: _rank(by[shift])) for name, by in tried.items()}

    rest: dict[Key, Task] = {
        (e.name, probe, n, chosen[e.name]): task(e, probe, n, chosen[e.name])
        for probe in config.probes
        for n in range(len(config.seeds))
        for e in entrants
        if (probe, n) != (first, 0)
    }
    found |= _run(rest, jobs, say, partial(_further, progress, len(deciding) * config.images, total))
    numbers = range(len(config.seeds))
    results = {
        e.name: {p: [found[e.name, p, n, chosen[e.name]] for n in numbers] for p in config.probes} for e in entrants
    }
    return Held(results, tried)


def _rank(result: Result) -> tuple[bool, float]:
    return math.isnan(result.last.fd_recon), result.last.fd_recon


Key = tuple[str, str, int, str]


def _further(progress: Callable[[int, int], None], before: int, total: int, images: int) -> None:
    progress(before + images, total)


def _run(
    tasks: dict[Key, Task], jobs: int, say: Callable[[str], None], progress: Callable[[int], None]
) -> dict[Key, Result]:
    """Every task's result; equal tasks run once."""
    made = run_all(
        work,
        {task.folder: task for task in tasks.values()},
        jobs,
        told=lambda task, result: say(_told(task, result)),
        progress=progress,
    )
    return {key: made[task.folder] for key, task in tasks.items()}


def _told(task: Task, result: Result) -> str:
    last = result.last
    return (
        f"{task.name}, {task.trial.title}: {last.fd_recon:.2f} from reconstructions, {last.fd_real:.2f} from real "
        "images"
    )


def work(task: Task, wanted: Callable[[], bool], tell: Callable[[int], None] | None) -> Result | None:
    """One trial in this process; None if it was stopped."""
    _, judge = open_context(task.ground)
    encoded, recon = open_arm(task.ground, task.spec, task.name)
    config = task.ground.config
    return run_trial(
        task.folder, task.trial, encoded, recon, judge, config, torch.device(task.ground.device), wanted, tell
    )
