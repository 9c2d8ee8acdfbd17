"""Autoencoders of a study: trained, scored by reconstruction and examined by the doctor. Each is kept and continued."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...config import TrainConfig, dumps, to_dict
from ...data import ImageSet
from ...data.image_ref import ImageRef
from ...data.image_set import is_held_out
from ...data.square_images import SquareImages, open_pictures
from ...data.subsets import spaced
from ...doctor.examination import examine_files
from ...errors import FormatError
from ...files.atomic import read_json, write_text
from ...formats import load
from ...images import from_model_range
from ...latents.posteriors import posterior_of
from ...metrics import psnr
from ...reporting import Progress
from ...training import Interrupted, train
from ...training.run.folder import RESULT, RUN
from ..latent_dataset import BATCH
from ..pool import heard, run_all

FACTS = "arm.json"

JUDGED = 512
"""Largest number of held-out images whose reconstructions are scored."""

EXAMINED = 512
"""Images that the doctor examines."""


@dataclass(frozen=True)
class StudyArm:
    """One autoencoder of one seed."""

    name: str
    seed: int
    path: str
    """the model's file"""
    psnr: float
    """dB of reconstructions from the posterior's mode, mean over held-out images"""
    bits: float
    """bits per latent number of the posterior; nan for points"""
    std: float
    """standard deviation of all latents"""
    doctor: dict[str, float]
    """every figure of the doctor, by PANEL.FIGURE"""
    seconds: float
    """training time"""


def arm_folder(folder: Path, name: str, config: TrainConfig, seed: int, source: str) -> Path:
    """The folder of an arm, whose name hashes everything that the arm depends on."""
    key = hashlib.sha256(
        json.dumps([to_dict(dataclasses.replace(config, seed=0)), source], sort_keys=True, default=str).encode()
    ).hexdigest()
    return folder / "arms" / f"{name}-{key[:8]}" / f"seed-{seed}"


@dataclass(frozen=True)
class ArmTask:
    """One arm, for the next free process."""

    folder: Path
    """of the study"""
    name: str
    config: TrainConfig
    seed: int
    source: str
    pictures: Path
    """a folder of `prepare`"""
    images: ImageSet
    labels: tuple[str, ...] | None
    masks: tuple[ImageRef | None, ...] | None

    @property
    def place(self) -> Path:
        """The folder of this arm."""
        return arm_folder(self.folder, self.name, self.config, self.seed, self.source)


def train_arms(tasks: Sequence[ArmTask], jobs: int, say: Callable[[str], None], progress: Progress) -> list[StudyArm]:
    """All arms, `jobs` at once; only missing ones are trained.

    Errors: those of `train`; KeyboardInterrupt with what is done kept.
    """
    missing = {task.place: task for task in tasks if not (task.place / FACTS).exists()}
    total = sum(task.config.images for task in missing.values())
    run_all(
        work,
        missing,
        jobs,
        told=lambda task, arm: say(f"{task.name}, seed {task.seed}: {arm.psnr:.2f} dB"),
        progress=lambda images: progress(images, total),
    )
    return [read_arm(task.place) for task in tasks]


def work(task: ArmTask, wanted: Callable[[], bool], tell: Callable[[int], None]) -> StudyArm | None:
    """One arm in this process; None if it was stopped."""
    run = task.place / "run"
    if not (run / RESULT).exists():
        config = dataclasses.replace(task.config, seed=task.seed)
        try:
            with heard():
                train(config, task.source, run, recipe=task.name, resume=(run / RUN).exists(), show=False)
        except Interrupted:
            return None
    tell(task.config.images)
    if wanted():
        return None
    seconds = read_json(run / RESULT)["seconds"]
    path = run / "model.safetensors"
    pictures = open_pictures(task.pictures)
    figures = _reconstruction(path, pictures, task.images, task.config.data.val_fraction)
    doctor = _examined(path, pictures.size, task.images, task.labels, task.masks)
    arm = StudyArm(task.name, task.seed, str(path.relative_to(task.folder)), **figures, doctor=doctor, seconds=seconds)
    write_text(task.place / FACTS, dumps(asdict(arm)) + "\n")
    return arm


def read_arm(place: Path) -> StudyArm:
    """The record of an arm. Errors: FormatError for another file."""
    values = read_json(place / FACTS)
    try:
        doctor = {k: math.nan if v is None else v for k, v in values.pop("doctor").items()}
        plain: dict[str, Any] = {k: math.nan if v is None else v for k, v in values.items()}
        found = StudyArm(**plain, doctor=doctor)
        _check(found)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(f"{place / FACTS} is no arm's record: {error}; delete it, and it is made again") from None
    return found


def _check(arm: StudyArm) -> None:
    """Errors: TypeError for fields of other kinds; ValueError for a model outside the study's folder."""
    texts, numbers = (arm.name, arm.path), (arm.psnr, arm.bits, arm.std, arm.seconds, *arm.doctor.values())
    if (
        not all(isinstance(t, str) for t in texts)
        or type(arm.seed) is not int
        or not all(isinstance(n, (int, float)) for n in numbers)
    ):
        raise TypeError("its fields are of other kinds")
    if Path(arm.path).is_absolute() or ".." in Path(arm.path).parts:
        raise ValueError(f"its model {arm.path!r:.80} is not in the study's folder")


@torch.inference_mode()
def _reconstruction(path: Path, pictures: SquareImages, images: ImageSet, val_fraction: float) -> dict[str, Any]:
    """PSNR on held-out images, and the latents' bits and spread."""
    vae = load(path).eval()
    held_out = [i for i, file in enumerate(images.files) if is_held_out(file.digest, val_fraction)] or list(
        range(pictures.count)
    )
    rows = np.array([held_out[i] for i in spaced(len(held_out), JUDGED)])
    scores, bits, squares = [], [], []
    for part in np.array_split(rows, max(1, -(-len(rows) // BATCH))):
        x = pictures.batch(part)
        posterior = posterior_of(vae.encode, x, vae.device)
        recon = from_model_range(vae.decode(posterior.mode()))
        scores += [psnr(a, b) for a, b in zip(x, recon, strict=True)]
        bits.append(math.nan if posterior.is_point else posterior.bits_per_dimension().item())
        squares.append(posterior.mean.std().item())
    return {"psnr": statistics.fmean(scores), "bits": statistics.fmean(bits), "std": statistics.fmean(squares)}


def _examined(path: Path, size: int, images: ImageSet, labels: Sequence[str] | None, masks: Any) -> dict[str, float]:
    """All metrics of a quick doctor run."""
    found = examine_files(
        load(path),
        images.files,
        size=size,
        limit=min(EXAMINED, len(images.files)),
        quick=True,
        labels=labels,
        masks=masks,
    )
    return {
        f"{panel}.{name}": figure.value
        for panel, finding in found.findings.items()
        for name, figure in finding.figures.items()
    }
