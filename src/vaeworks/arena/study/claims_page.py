"""six-claims.md: six claims judged by studies, as Markdown with plots."""

from __future__ import annotations

import math
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...config import ArenaConfig
from ...files.atomic import write_text
from ...pages.alone import alone
from ...pages.scatter import Point, scatter
from ...recipes.studies import BASELINE, STUDIES, StudyScale
from ...words import many
from ..control import MEANING, ratio
from ..page import TITLES, number
from ..results import DISTANCES
from ..verdict import TIE
from .claims import Claim, Evidence, judge
from .record import Studies, StudyRecord, whole_records

PAGE = "six-claims.md"

WIDTH = 120
"""Columns of the page's paragraphs."""

LIMIT = (
    "**The limit.** Small networks on small pictures, trained for minutes: what holds here need not hold for Stable "
    "Diffusion's VAE and a large diffusion model, and nothing here proves that it does. A space that is harder to "
    "learn costs a short training more than a long one. Every verdict below is one at this scale and after so few "
    "steps. A study that finds no difference may be one that could not have seen it: see the positive control."
)

MEASURED = {"latents": "fd_recon", "pictures": "fd_real"}
"""Names of the distances in the tables."""

SHOWN = 10
"""Largest number of rows in the doctor's tables."""


def write_claims(folder: Path, studies: Studies) -> Path:
    """Write the report and its plots (images/) into a folder, replacing earlier ones; returns the page.

    Errors: FormatError for a record that is not whole.
    """
    with whole_records():
        drawn, told = plots(studies), page(studies)
    for name, text in drawn.items():
        write_text(folder / "images" / name, text)
    write_text(folder / PAGE, told)
    return folder / PAGE


def page(studies: Studies) -> str:
    """The report as Markdown."""
    claims = judge(studies)
    lines = ["# Six claims about the SD VAE, measured", "", "| | claim | verdict at this scale |", "|---|---|---|"]
    lines += [f"| {i} | {claim.said} | **{claim.verdict}** |" for i, claim in enumerate(claims, 1)]
    lines += ["", LIMIT, "", *_run(studies), *_controls(studies), *_reading()]
    for i, claim in enumerate(claims, 1):
        lines += ["", f"## {i}. {claim.said}", "", *_claim(claim)]
    lines += ["", *_pictures(studies), *_correlations(studies), *_cost(studies)]
    return "\n".join(part for line in lines for part in _wrapped(line)) + "\n"


def _wrapped(line: str) -> list[str]:
    """A paragraph in lines of at most WIDTH columns; tables, headings and pictures are one line each."""
    if len(line) <= WIDTH or line.startswith(("|", "#", "!", "    ")):
        return [line]
    return textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; the first column is text, the others are figures."""
    plain = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    ruled = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(row) + " |" for row in (plain[0], ruled, *plain[1:])]


def _run(studies: Studies) -> list[str]:
    """A table of the studies."""
    rows = []
    for name, study in studies.items():
        data, config, arms = study.arena["data"], study.arena["config"], study.arms
        rows.append(
            [
                name,
                f"{data['images']:,} of {data['size']} px, {data['classes']} classes ({data['source']})",
                f"{len(arms)}, {many(min(map(len, arms.values())), 'seed')}, {study.scale.images:,} images",
                f"{' and '.join(study.probes)}, {many(len(config['seeds']), 'seed')}, "
                f"{study.steps:,} steps of {config['batch']} images",
                _recognized(study),
                "passed" if study.arena["conclusive"] else "**failed**",
            ]
        )
    lines = [
        "## What was run",
        "",
        *table(["study", "images", "autoencoders", "generators", "classes recognized", "checks"], rows),
        "",
    ]
    for name, study in studies.items():
        lines += (
            [f"Study {name} concludes nothing: {'; '.join(study.arena['failures'])}.", ""]
            if not study.arena["conclusive"]
            else []
        )
    features = {study.arena["features"] for study in studies.values()}
    versions = sorted({str(study.arena["protocol_version"]) for study in studies.values()})
    return [
        *lines,
        f"Distances are Fréchet distances of {_all(studies, 'samples')} samples in the features of: "
        f"{'; of: '.join(sorted(features))}. They can be compared with no published figure. [The arena](arena.md) "
        f"describes the protocol (version {', '.join(versions)}), and the checks: rows of which the answer is known. "
        "An arena that gets one wrong concludes nothing.",
    ]


def _controls(studies: Studies) -> Iterator[str]:
    """The positive control of every study, by each distance."""
    yield from ("", "## Positive control", "", f"{MEANING}.")
    for name, study in studies.items():
        found = {what: study.control(distance) for what, distance in MEASURED.items()}
        for what, control in found.items():
            yield from ("", f"*{name}, {what}.* {'. '.join(control.sentences)}.")
        if handicap := next((control.handicap for control in found.values()), ""):
            yield from ("", f"{_capital(handicap)}.")


def _recognized(study: StudyRecord) -> str:
    """The share of samples of the class that was asked for, by generator, beside chance."""
    classes = study.arena["data"]["classes"]
    found = " and ".join(f"{100 * share:.3g} %" for share in study.recognized)
    return f"{found} (by chance {100 / classes:.3g} %)" if found and classes else "–"


def _all(studies: Studies, key: str) -> str:
    return " or ".join(f"{value:,}" for value in sorted({study.arena["config"][key] for study in studies.values()}))


def _reading() -> list[str]:
    return [
        "",
        "**How to read the tables.** “Times” is a distance over the baseline's: below 1 is better. Each generator has "
        "its own line, and its 95 % interval behind the figure. Intervals come from the noise of seeds, of autoencoder "
        "and generator together, pooled over all autoencoders. *Latents*: how well the generator has learned them, by "
        "the distance to the autoencoder's own reconstructions. *Pictures*: how good they are in the end, by the "
        "distance to real images. **Better** and **worse** are said only where the intervals of both generators are on "
        f"that side of 1, **tie** where both are within a factor of {TIE:g}, **undecided** otherwise, and wherever "
        "there is only one autoencoder of a kind.",
    ]


def _claim(claim: Claim) -> Iterator[str]:
    yield f"**{_capital(claim.verdict)}.** {_capital(claim.why)}."
    yield ""
    yield f"*Tested.* {claim.tested}"
    if claim.picked > 1 and claim.standing != "not run":
        yield ""
        yield (
            f"*Chance.* {claim.picked} comparisons could have decided this. Were all of them equal in truth, one or "
            f"more would be called better in up to {2.5 * claim.picked:g} % of such studies, and worse in as many; "
            "that two generators must agree makes it less."
        )
    by_doctor = [e for e in claim.evidence if e.doctor is not None]
    for evidence in claim.evidence:
        if evidence.doctor is None:
            yield ""
            yield from _compared(evidence)
    if by_doctor:
        yield ""
        yield from _examined(by_doctor)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _compared(evidence: Evidence) -> list[str]:
    """Rows of a study against one of them, which comes first."""
    study, against = evidence.study, evidence.against
    rows = [[f"*{against}*", _decibel(study, against), "1", "", "1", ""]]
    for row in evidence.rows:
        cells = [row, _decibel(study, row)]
        for distance in ("fd_recon", "fd_real"):
            found = study.compared(row, against, distance)
            cells += ["<br>".join(f"{probe} {ratio(i)}" for probe, i in found.ratios.items()) or "–", found.verdict]
        rows.append(cells)
    return table(["autoencoder", "PSNR, dB", "latents, times", "verdict", "pictures, times", "verdict"], rows)


def _decibel(study: StudyRecord, row: str) -> str:
    value = study.arm(row, "psnr")
    return f"{value:.1f}" if math.isfinite(value) else "–"


def _examined(evidence: Sequence[Evidence]) -> list[str]:
    """Figures of the doctor for the baseline and for the rows with the largest first figure; shared rows appear
    once."""
    doctor = evidence[0].doctor or {}
    values = {row: [e.study.arm(row, key) for key in doctor] for e in reversed(evidence) for row in e.rows}
    known = sorted((row for row in values if math.isfinite(values[row][0])), key=lambda row: -values[row][0])
    rows = [
        [f"*{row}*" if row == BASELINE else row, *map(number, values[row])]
        for row in known
        if row == BASELINE or row in known[:SHOWN]
    ]
    said = (
        f"The baseline and the {min(SHOWN, len(known))} largest, of {len(known)} autoencoders that the doctor could "
        "examine:"
    )
    return [said, "", *table(["autoencoder", *doctor.values()], rows)]


def plots(studies: Studies) -> dict[str, str]:
    """Reconstruction against each distance, with the larger generator: an SVG file's text by file name."""
    made = {}
    for name, study in studies.items():
        for distance in DISTANCES:
            points = {row: found for row in study.arms if (found := _point(study, row, distance)) is not None}
            drawn = scatter(TITLES[distance], points, "PSNR of reconstructions, dB", "Fréchet distance", log=True)
            if drawn:
                made[f"arena-{name}-{distance.replace('_', '-')}.svg"] = alone(drawn)
    return made


def _point(study: StudyRecord, row: str, distance: str) -> Point | None:
    psnr, figure = study.each(row, "psnr"), study.row(row)["figures"][distance][study.probes[-1]]
    if not psnr or figure["value"] is None:
        return None
    known = figure["low"] is not None
    ends = (figure["low"], math.inf if figure["high"] is None else figure["high"]) if known else None
    return Point(study.arm(row, "psnr"), figure["value"], (min(psnr), max(psnr)), ends, row == BASELINE)


def _pictures(studies: Studies) -> Iterator[str]:
    yield "## Reconstruction against diffusability"
    yield ""
    yield (
        "Right is a better reconstruction, down is a better diffusion model. The baseline is hollow. Upright bars are "
        "95 % intervals of the larger generator's distance; level bars go from the worst autoencoder's PSNR to the "
        "best one's."
    )
    made = plots(studies)
    for name, study in studies.items():
        yield from ("", f"### {name}: {STUDIES[name].question}")
        for distance in DISTANCES:
            if (file := f"arena-{name}-{distance.replace('_', '-')}.svg") in made:
                title = f"{TITLES[distance]}, generator {study.probes[-1]}"
                yield from ("", f"{title}:", "", f"![{name}: {title}](images/{file})")


def _correlations(studies: Studies) -> Iterator[str]:
    """Figures of the doctor whose correlation with the arena's outcome has the same sign in every study."""
    found: dict[str, dict[str, float]] = {}
    for name, study in studies.items():
        for c in study.values["correlations"]:
            if c["rank"] is not None and study.arena["conclusive"]:
                found.setdefault(c["figure"], {})[name] = c["rank"]
    names = [name for name in studies if any(name in by for by in found.values())]
    common = {figure: by for figure, by in found.items() if len(by) == len(names)}
    alike = {figure: by for figure, by in common.items() if min(by.values()) > 0 or max(by.values()) < 0}
    if len(names) < 2 or not common:
        return
    yield from ("", "## What the doctor's figures say beforehand", "")
    yield (
        "Rank correlation over a study's autoencoders of a figure with the distance to reconstructions, averaged over "
        f"both generators: positive where a larger figure goes with latents that are learned worse. Of {len(common)} "
        f"figures, {len(alike)} have the same sign in all {len(names)} studies; by chance alone it would be about "
        f"{len(common) * 2 ** (1 - len(names)):.2g}. The studies share their baseline, and have a few autoencoders "
        "each."
    )
    if alike:
        strongest = sorted(alike.items(), key=lambda item: -min(map(abs, item[1].values())))[:SHOWN]
        yield from ("", f"The {len(strongest)} strongest, by their weakest study:", "")
        yield from table(["figure", *names], [[f"`{f}`", *(f"{by[n]:+.2f}" for n in names)] for f, by in strongest])


def _cost(studies: Studies) -> Iterator[str]:
    yield from ("", "## Made by", "", "```")
    yield from (command(study) for study in studies.values())
    yield from ("vaeworks arena report DIR --out docs", "```", "")
    yield (
        f"{seconds(list(studies.values())) / 3600:.1f} hours of one process for the training of every autoencoder and "
        "generator in this report, as measured when it was done. What studies share is counted once; not counted are "
        "the doctor, and trials whose shift of times was not taken."
    )


def seconds(studies: Sequence[StudyRecord]) -> float:
    """Training seconds, summed over processes; shared autoencoders and trials count once."""
    arms = {arm["path"]: arm["seconds"] for study in studies for found in study.arms.values() for arm in found}
    trials = {
        (study.arena["protocol"], *sorted(map(str, trial["trial"].items()))): trial["seconds"]
        for study in studies
        for row in study.arena["rows"]
        for by in row["trials"].values()
        for trial in by
    }
    return math.fsum(arms.values()) + math.fsum(trials.values())


def command(study: StudyRecord) -> str:
    """The command that repeats this study, as far as its record tells: with settings that are not the defaults."""
    config, scale = study.arena["config"], asdict(study.scale)
    seeds = min(map(len, study.arms.values()))
    words = ["vaeworks", "arena", "study", study.name, "--data", study.arena["data"]["source"], "--out", "DIR"]
    words += ["--images", str(scale["images"]), "--vae-seeds", str(seeds)]
    words += ["--budget", str(config["images"]), "--seeds", str(len(config["seeds"]))]
    words += _unusual(scale, asdict(StudyScale()), ("size", "channels"))
    words += _unusual(config, asdict(ArenaConfig()), ("tokens", "probes", "shifts", "samples"))
    if study.left_out:
        words += ["--arms", *(name for name in study.arms if name != BASELINE)]
    return shlex.join(words)


def _unusual(values: Mapping[str, Any], usual: Mapping[str, Any], keys: Sequence[str]) -> Iterator[str]:
    """Options whose values are not the defaults; JSON has lists where a configuration has tuples."""
    for key in keys:
        value, other = (list(v) if isinstance(v, (list, tuple)) else [v] for v in (values[key], usual[key]))
        if value != other:
            yield from (f"--{key}", *map(str, value))
