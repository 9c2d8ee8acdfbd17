"""The command `doctor`: examine VAEs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from .console import TERMINAL, results
from .exit_status import FailOnTriggered
from .options import Data, Models, Out, Overwrite, Told, arg, settings_of

if TYPE_CHECKING:
    from ..doctor.api import Examinations
    from ..doctor.examination import Examination


def doctor(
    model: Models,
    data: Data,
    out: Out,
    panels: Annotated[
        tuple[str, ...] | None, arg(metavar="PANEL", help="panels to run (docs/doctor.md); default: all")
    ] = None,
    quick: Annotated[
        bool, arg(help="use fewer images and probes: an SD-sized VAE takes five minutes on two cores")
    ] = False,
    images: Annotated[
        int | None, arg(metavar="N", help="largest number of images, evenly spaced; default: each panel's own number")
    ] = None,
    size: Annotated[
        int | None, arg(metavar="PX", help="side of the squares that images become; default: about 256")
    ] = None,
    labels: Annotated[
        str | None,
        arg(metavar="HOW", help="classes of the images: folders, names, none, or a CSV file; default: folders, if any"),
    ] = None,
    masks: Annotated[
        Path | None, arg(metavar="DIR", help="folder with a mask of the object for every image, by name")
    ] = None,
    reference: Annotated[
        str | None, arg(metavar="VAE", help="VAE that the diffusion model was trained with, if MODEL is to replace it")
    ] = None,
    fail_on: Annotated[
        tuple[str, ...],
        arg(
            metavar="RULE",
            help="conditions for exit code 1: ill (any panel), watch (that or worse), PANEL, PANEL:watch",
        ),
    ] = (),
    seed: Annotated[int, arg(help="seed of probes and noise")] = 0,
    cache: Annotated[bool, arg(help="cache results and reuse them for the same model, images and options")] = True,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Find the diseases of a VAE, worst first, with figures, pictures and remedies; compare several.

    In Python: `vaeworks.examine_models`.
    """
    from ..doctor import examine_models

    result = examine_models(
        model,
        data,
        out,
        panels=None if panels is None else _words(panels),
        size=size,
        limit=images,
        quick=quick,
        seed=seed,
        labels=labels,
        masks=masks,
        reference=reference,
        keep=cache,
        fail_on=_words(fail_on),
        settings=settings_of(told),
        overwrite=overwrite,
        reporter=TERMINAL,
    )
    _print(result)
    if result.failures:
        raise FailOnTriggered(result.to_dict(), result.failures)
    return result.to_dict()


def _words(values: tuple[str, ...]) -> list[str]:
    """Words that commas or spaces separate."""
    return [word.strip() for value in values for word in value.split(",") if word.strip()]


STYLES = {"ill": "red", "watch": "yellow", "healthy": "green", "not examined": "dim"}


def _print(result: Examinations) -> None:
    """A table for each model, and the files that hold all this."""
    from ..doctor.page import RECORD, REPORT

    for examination, folder in zip(result.models, result.folders, strict=True):
        if len(result.models) > 1:
            results().print(examination.model)
        _print_one(examination)
        results().print(f"{folder / REPORT} shows it; {folder / RECORD} has every figure")
        results().print()
    if result.comparison is not None:
        results().print(f"{result.comparison} has all of them side by side")


def _print_one(examination: Examination) -> None:
    """A line for each panel, worst first."""
    from rich.table import Table
    from rich.text import Text

    from ..doctor.panels import TITLES

    table = Table("panel", "verdict", "what was seen", box=None, header_style="dim", pad_edge=False)
    for name, finding in examination.findings.items():
        seen = Text(finding.sentence)
        if finding.remedy and finding.verdict in ("ill", "watch"):
            seen.append(f"\n{finding.remedy}", style="dim")
        table.add_row(TITLES[name].partition(":")[0], Text(finding.verdict, style=STYLES[finding.verdict]), seen)
    out = results()
    protocol = examination.protocol
    flattened = f"; {protocol.flattened} with transparency were flattened onto white" if protocol.flattened else ""
    out.print(f"{protocol.count} images of {protocol.size} px{', quick' if protocol.quick else ''}{flattened}")
    out.print(table)
