"""The commands that ask a diffusion model: the arena, and studies for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from ..config import ArenaConfig
from ..data.inputs import data_source
from ..errors import ConfigError
from ..files.outputs import check_free, make_folder, short_names
from ..recipes.studies import STUDIES, StudyScale, study
from .console import TERMINAL, console
from .options import Models, Out, Overwrite

if TYPE_CHECKING:
    from ..arena.results import Outcome

_DEFAULT = ArenaConfig()

BUDGETS = {"quick": 8_192, "laptop": 32_768, "gpu": 2_097_152}
"""Training images of each generator, by name."""

Budget = Annotated[
    str,
    arg(
        metavar="IMAGES",
        help=f"that each generator is trained on: a number, or {', '.join(f'{k} ({v:,})' for k, v in BUDGETS.items())}",
    ),
]
Tokens = Annotated[
    int,
    arg(
        help="that generators see of an image, whatever the latents' size: 16 fits 32 px and f8, 64 or 256 fit larger "
        "images"
    ),
]
Probes = Annotated[tuple[str, ...], arg(metavar="SIZE", help="of the generators: xs and s for CPUs, b and l for GPUs")]
Seeds = Annotated[int, arg(metavar="N", help="generators of each size, with other weights, order and noise")]
Shifts = Annotated[
    tuple[Literal["none", "dimension"], ...],
    arg(help="of times; with both, each space keeps what suits the first generator's first seed"),
]
Samples = Annotated[int, arg(metavar="N", help="pictures of each generator that are judged, at each look")]
FeatureSpace = Annotated[
    str,
    arg(
        help="of distances: classifier (trained on the same images), statistics, inception, mobilenetv2, a "
        "transformers folder"
    ),
]
Weights = Annotated[
    Path | None, arg(metavar="PATH", help="the network's weights; by default from the cache, or fetched")
]
Labels = Annotated[
    str | None, arg(metavar="HOW", help="folders, names, none, or a CSV file; by default folders where there are any")
]
Jobs = Annotated[
    int | None, arg(metavar="N", help="generators trained at once; by default one a core, or one on a GPU")
]
Data = Annotated[
    str,
    arg(
        metavar="SRC",
        help="folder of images (class subfolders are labels), procedural[:COUNT[:SIZE]], hf:OWNER/NAME, ... "
        "(docs/data.md)",
    ),
]


def arena(
    model: Models,
    data: Data,
    out: Out,
    budget: Budget = "laptop",
    baseline: Annotated[
        str | None, arg(metavar="MODEL", help="what the others are compared with; by default the first")
    ] = None,
    size: Annotated[
        int | None,
        arg(metavar="PX", help="side of the squares that images become; by default 32 on a CPU, 64 on a GPU"),
    ] = None,
    tokens: Tokens = _DEFAULT.tokens,
    probes: Probes = _DEFAULT.probes,
    seeds: Seeds = 2,
    shifts: Shifts = _DEFAULT.shifts,
    samples: Samples = _DEFAULT.samples,
    features: FeatureSpace = "auto",
    features_weights: Weights = None,
    labels: Labels = None,
    checks: Annotated[
        bool, arg(help="also run what the arena itself is checked with; without, nothing is concluded")
    ] = True,
    jobs: Jobs = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Which latent space does a diffusion model learn best? Small generators on each, with intervals. See also: arena
    study."""
    from ..arena.api import run_arena
    from ..arena.entries import models
    from ..arena.page import RECORD, REPORT, write_outcome
    from ..data import scan
    from ..data.labels import find_labels
    from ..devices import resolve_device

    if not model:
        raise ConfigError(
            "no MODEL is given: vaeworks arena MODEL... --data SRC --out DIR, or vaeworks arena study NAME"
        )
    config = _config(budget, tokens, probes, seeds, shifts, samples)
    names = short_names(model)
    if baseline is not None and baseline not in model:
        raise ConfigError(f"--baseline {baseline} is not among the models: {', '.join(model)}")
    first = None if baseline is None else names[model.index(baseline)]
    check_free(out, (REPORT, RECORD), overwrite, ", which makes the page anew and keeps trials")
    make_folder(out)
    device = resolve_device("auto")
    images = scan(data_source(data, reporter=TERMINAL))
    outcome = run_arena(
        models(names, model),
        images,
        out / "kept",
        config,
        size=size or (64 if device.type == "cuda" else 32),
        labels=find_labels(images.files, labels),
        baseline=first,
        features=features,
        weights=features_weights,
        with_checks=checks,
        jobs=jobs,
        device=device,
        say=_say,
        begin=_begin,
    )
    write_outcome(out, outcome, overwrite)
    _print(outcome)
    console().print(f"{out / REPORT} shows it; {out / RECORD} has every figure")
    return outcome.to_dict()


def arena_study(
    name: Annotated[Positional[str], arg(metavar="NAME", help=", ".join(STUDIES))],
    data: Data,
    out: Annotated[Path, arg(metavar="DIR", help="for NAME/report.html, and for everything that studies share")],
    arms: Annotated[tuple[str, ...], arg(metavar="ARM", help="only these besides the baseline; by default all")] = (),
    size: Annotated[int, arg(metavar="PX", help="side of images: 32 on a CPU, 64 or 128 on a GPU")] = StudyScale.size,
    channels: Annotated[int, arg(metavar="N", help="width of the autoencoders' first level")] = StudyScale.channels,
    images: Annotated[int, arg(metavar="N", help="that each autoencoder is trained on")] = StudyScale.images,
    vae_seeds: Annotated[int, arg(metavar="N", help="how often each autoencoder is trained")] = 2,
    budget: Budget = "laptop",
    tokens: Tokens = _DEFAULT.tokens,
    probes: Probes = _DEFAULT.probes,
    seeds: Seeds = 2,
    shifts: Shifts = _DEFAULT.shifts,
    samples: Samples = _DEFAULT.samples,
    features: FeatureSpace = "auto",
    features_weights: Weights = None,
    labels: Labels = None,
    jobs: Jobs = None,
) -> dict[str, Any]:
    """Train autoencoders that differ in one thing, examine them, and hold an arena: kl, channels, bottleneck, ... It
    can be interrupted."""
    from ..arena.page import REPORT, STUDY_RECORD, write_study
    from ..arena.study.run import run_study
    from ..devices import resolve_device

    chosen = study(name)
    config = _config(budget, tokens, probes, seeds, shifts, samples)
    scale = StudyScale(size=size, channels=channels, images=images)
    if vae_seeds < 1:
        raise ConfigError(f"--vae-seeds {vae_seeds} trains nothing; give at least 1")
    make_folder(out)
    result = run_study(
        name,
        chosen,
        data_source(data, reporter=TERMINAL),
        out,
        scale,
        config,
        only=arms,
        vae_seeds=vae_seeds,
        features=features,
        weights=features_weights,
        labels=labels,
        jobs=jobs,
        device=resolve_device("auto"),
        say=_say,
        begin=_begin,
    )
    make_folder(out / name)
    write_study(out / name, result)
    _print(result.outcome)
    console().print(f"{out / name / REPORT} shows it; {out / name / STUDY_RECORD} has every figure")
    return result.to_dict()


def _config(budget: str, tokens: int, probes: tuple[str, ...], seeds: int, shifts: Any, samples: int) -> ArenaConfig:
    images = BUDGETS.get(budget)
    if images is None:
        try:
            images = int(budget.replace(",", "").replace("_", ""))
        except ValueError:
            raise ConfigError(
                f"--budget {budget!r} is neither a number of images nor one of {', '.join(BUDGETS)}"
            ) from None
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds} trains nothing; give at least 1, and 2 for a verdict")
    return ArenaConfig(
        tokens=tokens, probes=probes, seeds=tuple(range(seeds)), shifts=shifts, images=images, samples=samples
    )


def _say(line: str) -> None:
    console().print(line, style="dim")


@contextmanager
def _begin(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar that is told how much is done, and of how much."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn(what),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(),
        console=console(),
        transient=True,
    ) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


WIDTH = 130
"""Characters of a table at least: a row that a narrow terminal breaks is easier to read than cells that are broken."""

STYLES = {"better": "green", "worse": "red", "tie": "", "undecided": "dim"}


def _print(outcome: Outcome) -> None:
    """A line per row, and what the arena says of itself."""
    from rich.table import Table
    from rich.text import Text

    from ..arena.page import between, number

    probes = outcome.config.probes
    out = console()
    for distance, what in (
        ("fd_recon", "distance to reconstructions: how well the latents are learned"),
        ("fd_real", "distance to real images"),
    ):
        table = Table(
            "",
            *(f"{p}, interval" for p in probes),
            *(f"{p}, times baseline" for p in probes),
            "verdict",
            "",
            box=None,
            header_style="dim",
            pad_edge=False,
            title=what,
            title_justify="left",
            title_style="bold",
        )
        for row in outcome.rows:
            found = row.comparisons.get(distance)
            figures = row.figures[distance]
            cells = [f"{number(figures[p].value)}  {between(figures[p])}" for p in probes]
            ratios = [
                f"{found.ratios[p].value:.2f}  {between(found.ratios[p])}" if found and p in found.ratios else ""
                for p in probes
            ]
            verdict = Text(found.verdict, style=STYLES[found.verdict]) if found else Text("baseline")
            table.add_row(row.entrant.name, *cells, *ratios, verdict, Text(found.why if found else "", style="dim"))
        out.print(table, width=max(out.width, WIDTH))
    for line in outcome.failures:
        out.print(f"concludes nothing: {line}", style="yellow")
    for line in outcome.notes:
        out.print(line, style="yellow")


def arena_report(
    folder: Annotated[Positional[Path], arg(metavar="DIR", help="what `arena study --out` has filled")],
    out: Annotated[Path, arg(metavar="DIR", help="for six-claims.md, and its plots in images/")],
) -> dict[str, Any]:
    """Six claims about the SD VAE, from finished studies: a page with tables, verdicts and plots."""
    from ..arena.study.claims import judge
    from ..arena.study.claims_page import write_claims
    from ..arena.study.record import read_studies

    studies = read_studies(folder)
    make_folder(out)
    path, claims = write_claims(out, studies), judge(studies)
    for claim in claims:
        console().print(f"{claim.standing}: {claim.said}")
    console().print(f"{path} has the figures")
    return {claim.said: {"verdict": claim.standing, "why": claim.why} for claim in claims}
