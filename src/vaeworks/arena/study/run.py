"""A study: autoencoders that differ in one thing, compared by what a diffusion model learns of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from ...config import ArenaConfig
from ...data import scan
from ...data.labels import find_labels, find_masks
from ...data.square_images import prepare
from ...errors import ConfigError
from ...recipes.studies import Study, StudyScale
from ...reporting import SILENT, Reporter
from ..entries import Entrant
from ..pool import check_jobs
from ..results import Outcome
from ..scorer import checked_space
from ..space import SpaceSpec
from ..tournament import run_tournament
from .autoencoders import ArmTask, StudyArm, train_arms

FEWEST = 5
"""Smallest number of autoencoders for a rank correlation."""


@dataclass(frozen=True)
class Correlation:
    """Rank correlation of a doctor's figure with the arena's distances, over autoencoders."""

    figure: str
    rank: float
    """Spearman's rank correlation with the distance to reconstructions"""
    rank_real: float
    """rank correlation with the distance to real images"""
    p: float
    """two-sided p-value of `rank`, for one figure alone"""
    arms: int


@dataclass(frozen=True)
class StudyResult:
    """The result of a study."""

    name: str
    question: str
    scale: StudyScale
    arms: Mapping[str, Sequence[StudyArm]]
    """by name, one for each seed"""
    outcome: Outcome
    correlations: tuple[Correlation, ...]
    """strongest first; empty for fewer arms than `FEWEST`"""
    seconds: float
    """training time of everything, summed over processes, as measured then"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values: what study.json holds."""
        return {
            "study": self.name,
            "question": self.question,
            "scale": asdict(self.scale),
            "seconds": self.seconds,
            "arms": {name: [asdict(arm) for arm in arms] for name, arms in self.arms.items()},
            "arena": self.outcome.to_dict(),
            "correlations": [asdict(c) for c in self.correlations],
        }


def compare_arms(
    name: str,
    study: Study,
    source: str,
    folder: Path,
    scale: StudyScale,
    config: ArenaConfig,
    *,
    only: Sequence[str] = (),
    vae_seeds: int = 2,
    features: str = "auto",
    weights: Path | None = None,
    labels: str | None = None,
    jobs: int | None = None,
    device: torch.device | None = None,
    reporter: Reporter = SILENT,
) -> StudyResult:
    """Train a study's autoencoders, examine them and run a tournament; several studies may share the folder.

    only: names of autoencoders besides the baseline; by default all. vae_seeds: number of times that each autoencoder
    is trained. The generator's first seed takes the first of them, and so on, so that intervals cover the chance of
    both trainings.
    Errors: those of `train` and `run_tournament`; KeyboardInterrupt after Ctrl-C, with everything kept.
    """
    configs = _chosen(study.arms(scale), only)
    with reporter.counting("looking at images"):
        images = scan(source)
    classes, masks = find_labels(images.files, labels, reporter), find_masks(images.files, None)
    with reporter.counting("reading images") as progress:
        pictures = prepare(images, folder / "pictures", scale.size, 3, classes, progress)
    checked_space(pictures, features, weights, device or torch.device("cpu"))  # before hours of training
    place = folder / "pictures" / pictures.digest[:16]
    tasks = [
        ArmTask(folder, n, c, seed, source, place, images, classes, masks)
        for seed in range(vae_seeds)
        for n, c in configs.items()
    ]
    with reporter.counting("training autoencoders") as progress:
        trained = train_arms(tasks, check_jobs(jobs, device or torch.device("cpu")), reporter.detail, progress)
    arms = {n: [arm for arm in trained if arm.name == n] for n in configs}
    entrants = [
        Entrant(n, tuple(SpaceSpec("vae", str(folder / arm.path)) for arm in found)) for n, found in arms.items()
    ]
    outcome = run_tournament(
        entrants,
        images,
        folder,
        config,
        size=scale.size,
        labels=classes,
        features=features,
        weights=weights,
        jobs=jobs,
        device=device,
        reporter=reporter,
    )
    seconds = math.fsum(arm.seconds for found in arms.values() for arm in found)
    seconds += math.fsum(r.seconds for by in outcome.results.values() for rs in by.values() for r in rs)
    return StudyResult(name, study.question, scale, arms, outcome, correlations(arms, outcome), seconds)


def _chosen(configs: dict[str, Any], only: Sequence[str]) -> dict[str, Any]:
    for name in only:
        if name not in configs:
            raise ConfigError(f"arm {name!r} is not in this study; choose from {', '.join(configs)}")
    baseline = next(iter(configs))
    return {n: c for n, c in configs.items() if not only or n in only or n == baseline}


def correlations(arms: Mapping[str, Sequence[StudyArm]], outcome: Outcome) -> tuple[Correlation, ...]:
    """Rank correlations of the doctor's figures and of PSNR with the arena's distances; constant figures are left
    out."""
    names = list(arms)
    if len(names) < FEWEST:
        return ()
    targets = {d: [_overall(outcome, n, d) for n in names] for d in ("fd_recon", "fd_real")}
    figures = {key for found in arms.values() for arm in found for key in arm.doctor} | {"psnr", "bits", "std"}
    made = []
    for key in sorted(figures):
        values = [_mean([arm.doctor.get(key, getattr(arm, key, math.nan)) for arm in arms[n]]) for n in names]
        usable = [i for i, v in enumerate(values) if math.isfinite(v)]
        if len(usable) < FEWEST or np.ptp([values[i] for i in usable]) < 1e-12:
            continue
        of = [values[i] for i in usable]
        found = spearmanr(of, [targets["fd_recon"][i] for i in usable])
        real = spearmanr(of, [targets["fd_real"][i] for i in usable])
        made.append(Correlation(key, float(found.statistic), float(real.statistic), float(found.pvalue), len(usable)))
    return tuple(sorted(made, key=lambda c: -abs(c.rank)))


def _overall(outcome: Outcome, name: str, distance: str) -> float:
    """Mean logarithm of a distance over generators."""
    return _mean([math.log(max(i.value, 1e-12)) for i in outcome.row(name).figures[distance].values()])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
