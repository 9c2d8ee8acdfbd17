"""The arena from models and images to pages: what its commands do, as functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..arguments import several
from ..config import ArenaConfig
from ..data.inputs import Images, data_source, image_set
from ..data.labels import find_labels
from ..devices import resolve_device
from ..errors import ConfigError
from ..files.outputs import check_free, make_folder, short_names
from ..formats.locate import locate
from ..images.channels import PICTURES, check_pictures
from ..recipes.studies import StudyScale, study
from ..reporting import SILENT, Reporter
from .budget import budget_images
from .entries import entrants_of
from .page import RECORD, REPORT, write_outcome, write_study
from .results import Outcome
from .study.claims import Claim, judge
from .study.claims_page import write_claims
from .study.record import read_studies
from .study.run import StudyResult, compare_arms
from .tournament import run_tournament

Shift = Literal["none", "dimension"]

_DEFAULT = ArenaConfig()


def run_arena(
    models: Sequence[str | Path],
    data: Images,
    out: str | Path,
    *,
    budget: int | str = "laptop",
    baseline: str | Path | None = None,
    size: int | None = None,
    tokens: int = _DEFAULT.tokens,
    probes: Sequence[str] = _DEFAULT.probes,
    seeds: int = 2,
    shifts: Sequence[Shift] = _DEFAULT.shifts,
    samples: int = _DEFAULT.samples,
    features: str = "auto",
    features_weights: str | Path | None = None,
    labels: str | None = None,
    checks: bool = True,
    jobs: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> Outcome:
    """Find out which VAE's latents a diffusion model learns best: `vaeworks arena`.

    >>> outcome = vw.run_arena(["sd.safetensors", "runs/dogs"], "folder/of/images", "out/arena", budget="quick")
    >>> outcome.row("dogs").comparisons["fd_recon"].verdict
    'better'

    Small generators are trained on the latents of every model, with all else equal, and their samples are compared. The
    same call continues after an interruption.
    models: paths or hub ids of VAEs. data: a source of images (docs/data.md), or what `vaeworks.data.scan` found. out:
    folder for report.html, arena.json and everything that is kept; overwrite: make the pages anew, and keep the trials.
    budget: training images of each generator: a number, quick, laptop or gpu. baseline: the model that the others are
    compared with, by default the first. size: side of the squares that images become, in pixels; None: 32 on a CPU, 64
    on a GPU. tokens: that a generator sees of an image. probes: sizes of the generators, xs and s for CPUs, b and l for
    GPUs. seeds: generators of each size. shifts: timestep shifts to try. samples: images of each generator that are
    compared with the real ones. features: space of the distances: classifier (trained on the same images), statistics,
    inception, mobilenetv2, a transformers folder; auto: classifier where there are classes. labels: where classes are
    from: folders, names, none, or a CSV file. checks: run the arena's own checks, without which it gives no verdict.
    jobs: generators trained at once.
    Errors: ConfigError for models of unlike images, for latents that cannot be cut into these tokens, and where `out`
    holds results; DataError for too few images; KeyboardInterrupt after Ctrl-C, with everything kept.
    """
    models = several(models)
    if not models:
        raise ConfigError(
            "no MODEL is given: vaeworks arena MODEL... --data SRC --out DIR, or vaeworks arena study NAME"
        )
    config = _config(budget, tokens, probes, seeds, shifts, samples)
    if held := next((model for model in models if not isinstance(model, (str, Path))), None):
        raise ConfigError(f"the arena's workers read models from files, not {type(held).__name__}; `vaeworks.save` it")
    paths, folder = [str(model) for model in models], Path(out)
    names = short_names(paths)
    if baseline is not None and str(baseline) not in paths:
        raise ConfigError(f"--baseline {baseline} is not among the models: {', '.join(paths)}")
    check_free(folder, (REPORT, RECORD), overwrite, ", which makes the page anew and keeps trials")
    for path in paths:
        check_pictures(locate(path).config, channels=PICTURES, name=path)
    images = image_set(data, reporter)
    make_folder(folder)
    place = resolve_device(device)
    outcome = run_tournament(
        entrants_of(names, paths),
        images,
        folder / "kept",
        config,
        size=size or (64 if place.type == "cuda" else 32),
        labels=find_labels(images.files, labels, reporter),
        baseline=None if baseline is None else names[paths.index(str(baseline))],
        features=features,
        weights=None if features_weights is None else Path(features_weights),
        with_checks=checks,
        jobs=jobs,
        device=place,
        reporter=reporter,
    )
    write_outcome(folder, outcome, overwrite)
    return outcome


def run_study(
    name: str,
    data: str | Path,
    out: str | Path,
    *,
    arms: Sequence[str] = (),
    size: int = StudyScale.size,
    channels: int = StudyScale.channels,
    images: int = StudyScale.images,
    vae_seeds: int = 2,
    budget: int | str = "laptop",
    tokens: int = _DEFAULT.tokens,
    probes: Sequence[str] = _DEFAULT.probes,
    seeds: int = 2,
    shifts: Sequence[Shift] = _DEFAULT.shifts,
    samples: int = _DEFAULT.samples,
    features: str = "auto",
    features_weights: str | Path | None = None,
    labels: str | None = None,
    jobs: int | None = None,
    device: str = "auto",
    reporter: Reporter = SILENT,
) -> StudyResult:
    """Train autoencoders that differ in one thing, examine them and compare them in an arena: `vaeworks arena study`.

    >>> vw.run_study("kl", "folder/of/images", "out/studies", budget="quick").outcome.conclusive
    True

    name: of the study, as in `recipes.studies.STUDIES`. data: a source of images (docs/data.md). out: folder that
    several studies may share; NAME/report.html and NAME/study.json are this one's. The same call continues after an
    interruption.
    arms: autoencoders besides the baseline; by default all. size: side of the images, in pixels. channels: width of the
    autoencoders' first level. images: training images of each autoencoder. vae_seeds: number of times that each
    autoencoder is trained. All other arguments: as in `run_arena`.
    Errors: those of `train` and `run_arena`; ConfigError for an unknown study or arm.
    """
    chosen = study(name)
    config = _config(budget, tokens, probes, seeds, shifts, samples)
    scale = StudyScale(size=size, channels=channels, images=images)
    if vae_seeds < 1:
        raise ConfigError(f"--vae-seeds {vae_seeds} trains nothing; give at least 1")
    folder = Path(out)
    source = data_source(data, reporter=reporter)
    make_folder(folder)
    result = compare_arms(
        name,
        chosen,
        source,
        folder,
        scale,
        config,
        only=arms,
        vae_seeds=vae_seeds,
        features=features,
        weights=None if features_weights is None else Path(features_weights),
        labels=labels,
        jobs=jobs,
        device=resolve_device(device),
        reporter=reporter,
    )
    make_folder(folder / name)
    write_study(folder / name, result)
    return result


@dataclass(frozen=True)
class ClaimsReport:
    """Six claims about the SD VAE, judged, and the page that shows them."""

    page: Path
    claims: tuple[Claim, ...]

    def to_dict(self) -> dict[str, Any]:
        """The verdict on every claim, and its reason, by the claim's sentence."""
        return {claim.said: {"verdict": claim.verdict, "why": claim.why} for claim in self.claims}


def report_claims(studies: str | Path, out: str | Path) -> ClaimsReport:
    """Judge six claims about the SD VAE by finished studies, and write a page: `vaeworks arena report`.

    >>> [claim.standing for claim in vw.report_claims("out/studies", "docs").claims]
    ['undecided', 'supported', ...]

    studies: the folder that `run_study` has filled. out: folder for six-claims.md, and for its plots in images/, over
    what was there.
    Errors: FormatError where there is no finished study, or where a record is not whole.
    """
    records = read_studies(Path(studies))
    make_folder(Path(out))
    return ClaimsReport(write_claims(Path(out), records), tuple(judge(records)))


def _config(
    budget: int | str, tokens: int, probes: Sequence[str], seeds: int, shifts: Sequence[Shift], samples: int
) -> ArenaConfig:
    images = budget_images(budget)
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds} trains nothing; give at least 1, and 2 for a verdict")
    return ArenaConfig(
        tokens=tokens,
        probes=several(probes),
        seeds=tuple(range(seeds)),
        shifts=several(shifts),
        images=images,
        samples=samples,
    )
