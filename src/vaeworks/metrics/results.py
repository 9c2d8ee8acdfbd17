"""The evaluations of several models together, and the files that hold them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import dumps
from ..errors import ConfigError, MissingExtraError
from ..files.atomic import write_picture, write_text
from ..files.outputs import make_folder
from ..reporting import SILENT, Reporter
from .comparison import Comparison, compare, titles
from .evaluation import SCHEMA, Evaluation
from .gallery import Shot, sheet
from .page import write_report
from .protocol import check_alike

RECORD, GALLERY, REPORT = "eval.json", "gallery.png", "report.html"


@dataclass(frozen=True)
class Evaluations:
    """Several models on the same images, with paired differences against the first."""

    measured: tuple[Evaluation, ...]
    """the models of this call"""
    earlier: tuple[Evaluation, ...] = ()
    """those that `against` has read"""
    paired: tuple[Comparison, ...] = ()
    """every figure of every model after the first against the first"""
    written: tuple[Path, ...] = ()
    """the files that hold all this"""

    @property
    def models(self) -> tuple[Evaluation, ...]:
        """All evaluations, those of this call first."""
        return (*self.measured, *self.earlier)

    @property
    def failures(self) -> tuple[str, ...]:
        """A sentence for every model whose output was not finite for some images."""
        return tuple(
            f"{e.title}: its output is not finite (NaN or infinite) for {e.not_finite:,} images; "
            "`vaeworks repair` mends what overflows in float16"
            for e in self.measured
            if e.not_finite
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values, which eval.json holds: one evaluation, or several with their comparisons."""
        if len(self.models) == 1:
            return self.models[0].to_dict()
        paired = [{**dataclasses.asdict(c), "verdict": c.verdict} for c in self.paired]
        return {"schema": SCHEMA, "models": [e.to_dict() for e in self.models], "paired": paired}


class UnlikeEvaluationsError(ConfigError):
    """Earlier evaluations have another protocol than those of this call, which are in `result`."""

    def __init__(self, message: str, result: Evaluations):
        super().__init__(message)
        self.result = result


def combined(measured: Sequence[Evaluation], earlier: Sequence[Evaluation] = ()) -> Evaluations:
    """Several evaluations and their comparisons. Errors: ConfigError for unlike protocols, naming what differs."""
    everything = [*measured, *earlier]
    return Evaluations(tuple(measured), tuple(earlier), compare(everything) if len(everything) > 1 else ())


def check_evaluations_alike(evaluations: Sequence[Evaluation]) -> None:
    """Errors: ConfigError for unlike protocols, naming what differs."""
    check_alike({title: e.protocol for title, e in zip(titles(evaluations), evaluations, strict=True)})


def read_evaluations(path: str | Path) -> list[Evaluation]:
    """The evaluations of one model or of several in an eval.json, or in the folder of one.

    Errors: ConfigError for a file that holds none.
    """
    path = Path(path)
    try:
        values = json.loads((path / RECORD if path.is_dir() else path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is no eval.json: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is no eval.json, but a list or a value")
    try:
        several = values.get("models", [values])
        if not isinstance(several, list) or not several or not all(isinstance(v, dict) for v in several):
            raise ConfigError("holds no results; give an eval.json that `vaeworks eval --out` wrote")
        found = [Evaluation.from_dict(v) for v in several]
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return [dataclasses.replace(e, name=e.name or path.parent.name) for e in found]


def write_evaluations(
    out: Path,
    result: Evaluations,
    galleries: Sequence[Sequence[Shot]],
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> Evaluations:
    """Write eval.json, gallery.png and, where jinja2 is installed, report.html; returns the result with their places.

    galleries: of each model of `result.measured`, the same images.
    """
    make_folder(out)
    rows = tuple(shot for shots in zip(*galleries, strict=True) for shot in shots)
    several = titles(result.models)[: len(galleries)] if len(galleries) > 1 else ()
    names = [name for _ in galleries[0] for name in several] if galleries else []
    write_picture(out / GALLERY, sheet(rows, names), overwrite)
    write_text(out / RECORD, dumps(result.to_dict()) + "\n", overwrite)
    written = [out / RECORD, out / GALLERY]
    try:
        write_report(out / REPORT, result.models, result.paired, galleries, overwrite)
        written.append(out / REPORT)
    except MissingExtraError as error:
        reporter.warn(f"no {REPORT}: {error}")
    return dataclasses.replace(result, written=tuple(written))
