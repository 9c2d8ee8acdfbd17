"""A tournament of latent spaces: from entrants and images to the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ..config import ArenaConfig
from ..data import ImageSet
from ..data.square_images import prepare
from ..errors import ConfigError
from ..reporting import SILENT, Reporter
from .entries import Entrant, checks
from .latent_dataset import patch_for
from .pool import check_jobs
from .probe_run import protocol_key
from .results import Outcome, conclude
from .runner import ArenaContext, Floor, open_context, prepare_arm, run_trials
from .space import SpaceSpec, open_space


def run_tournament(
    entrants: Sequence[Entrant],
    images: ImageSet,
    folder: Path,
    config: ArenaConfig,
    *,
    size: int,
    labels: Sequence[str] | None = None,
    baseline: str | None = None,
    features: str = "auto",
    weights: Path | None = None,
    with_checks: bool = True,
    jobs: int | None = None,
    device: torch.device | None = None,
    reporter: Reporter = SILENT,
) -> Outcome:
    """Train generators on every entrant's latents and compare them; the same call continues after an interruption.

    folder: where trials and latents are kept. size: side of the square images, in pixels. labels: a class for each
    image. baseline: an entrant's name, by default the first. features, weights: as in `open_scorer`. with_checks: run
    the arena's own checks, without which it gives no verdict. jobs: trials at once.
    Errors: ConfigError for models of unlike images, or latents that do not give `config.tokens`; DataError for too few
    images; KeyboardInterrupt after Ctrl-C, with everything kept.
    """
    device = device or torch.device("cpu")
    at_once = check_jobs(jobs, device)
    base = _baseline(entrants, baseline)
    channels = open_space(entrants[0].space(0)).channels
    everyone = [*entrants, *(checks(base, channels, [e.name for e in entrants]) if with_checks else ())]
    _check_alike(everyone, channels, size, config.tokens)

    with reporter.counting("reading images") as progress:
        pictures = prepare(images, folder / "pictures", size, channels, labels, progress)
    place = folder / "pictures" / pictures.digest[:16]
    ground = ArenaContext(folder, place, features, weights, config, str(device))
    with reporter.counting("a feature space"):
        _, judge = open_context(ground)
    reporter.detail(
        f"{pictures.count:,} images of {size} px{_classes(len(pictures.classes))}; features: {judge.stated}"
    )

    prepared: dict[SpaceSpec, tuple[str, Floor]] = {}
    for entrant in everyone:
        for spec in entrant.spaces:
            if spec not in prepared:
                with reporter.counting(f"encoding: {entrant.name}") as progress:
                    prepared[spec] = prepare_arm(ground, spec, entrant.name, progress)
    digests = {spec: digest for spec, (digest, _) in prepared.items()}
    floors = {entrant.name: prepared[entrant.space(0)][1] for entrant in everyone}
    with reporter.counting("training generators") as progress:
        held = run_trials(ground, everyone, digests, at_once, reporter.detail, progress)
    return conclude(
        everyone,
        held,
        floors,
        config,
        base.name,
        protocol=protocol_key(config, judge),
        features=judge.stated,
        images=pictures.count,
        size=size,
        classes=len(pictures.classes),
        source=pictures.source,
    )


def _classes(count: int) -> str:
    return f" in {count} classes" if count > 1 else ""


def _baseline(entrants: Sequence[Entrant], name: str | None) -> Entrant:
    if not entrants:
        raise ConfigError("no model is given; an arena needs at least one")
    names = [e.name for e in entrants]
    if name is None:
        return entrants[0]
    if name not in names:
        raise ConfigError(f"baseline {name!r} is not among the models: {', '.join(names)}")
    return entrants[names.index(name)]


def _check_alike(entrants: Sequence[Entrant], channels: int, size: int, tokens: int) -> None:
    """Before anything is computed. channels: of the first one's images.

    Errors: ConfigError for models that take other images than the first, or whose latents do not give so many tokens.
    """
    for entrant in entrants:
        for spec in entrant.spaces:
            space = open_space(spec)
            if space.channels != channels:
                raise ConfigError(
                    f"{entrant.name} is of images with {space.channels} channels and {entrants[0].name} of {channels}; "
                    "put models of one kind into an arena"
                )
            patch_for(space.shape(size), tokens, entrant.name)
