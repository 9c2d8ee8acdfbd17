"""A finished study, read from its record: rows, autoencoders, and comparisons of two of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ConfigError, FormatError, VaeworksError
from ...files.atomic import read_json
from ...recipes.studies import BASELINE, STUDIES, StudyScale
from ..control import PositiveControl, narrow, positive_control
from ..entries import STEADY
from ..page import STUDY_RECORD
from ..verdict import TIE, BaselineComparison, Figures, compare

SAME = ("config", "protocol", "features", "data")
"""Fields that two arenas must share for their rows to compare."""


@dataclass(frozen=True)
class StudyRecord:
    """A study's record, as far as claims need it."""

    name: str
    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        try:
            rows = {row["name"] for row in self.arena["rows"] if row["trials"].keys() >= set(self.probes)}
            whole = (
                BASELINE in rows and rows >= self.arms.keys() and self.scale and self.arena["conclusive"] is not None
            )
        except (AttributeError, ConfigError, LookupError, TypeError, ValueError) as error:
            raise FormatError(
                f"the record of study {self.name!r} is not whole ({error!r}); run the study again"
            ) from None
        if not whole:
            raise FormatError(
                f"the record of study {self.name!r} lacks rows of its own autoencoders; run the study again"
            )

    @property
    def arena(self) -> Mapping[str, Any]:
        """The values of arena.json."""
        return self.values["arena"]

    @property
    def arms(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Autoencoders by name, one for each seed."""
        return self.values["arms"]

    @property
    def scale(self) -> StudyScale:
        """Scale of the autoencoders' training."""
        return StudyScale(**self.values["scale"])

    @property
    def probes(self) -> list[str]:
        """Generators, the smaller first."""
        return list(self.arena["config"]["probes"])

    @property
    def steps(self) -> int:
        """Optimizer steps of every generator."""
        return int(self.arena["config"]["images"]) // int(self.arena["config"]["batch"])

    @property
    def recognized(self) -> list[float]:
        """Share of the baseline's samples in which a classifier finds the class that was asked for, by generator; empty
        for data without classes."""
        found = self.row(BASELINE).get("recognized", {})
        return [float(v) for probe in self.probes if (v := found.get(probe)) is not None]

    @property
    def left_out(self) -> list[str]:
        """Autoencoders of the study that were not trained; statements about all need all of them."""
        return [name for name in STUDIES[self.name].arms(self.scale) if name not in self.arms]

    def row(self, name: str) -> Mapping[str, Any]:
        """A row of the arena."""
        return next(row for row in self.arena["rows"] if row["name"] == name)

    def each(self, name: str, key: str) -> list[float]:
        """A figure of an autoencoder, for every seed that has it: psnr, bits, std, or PANEL.FIGURE of the doctor."""
        found = [arm["doctor"].get(key) if "." in key else arm.get(key) for arm in self.arms.get(name, ())]
        return [float(v) for v in found if v is not None and math.isfinite(v)]

    def arm(self, name: str, key: str) -> float:
        """Its mean over seeds; nan where there is none."""
        found = self.each(name, key)
        return math.fsum(found) / len(found) if found else math.nan

    def figures(self, distance: str) -> Figures:
        """Distances by row and generator, one for each seed; none where one is not finite, because leaving out that
        seed would favour the row."""
        return {
            row["name"]: {p: _finals(row["trials"][p], distance) for p in self.probes} for row in self.arena["rows"]
        }

    def doubt(self, *rows: str) -> str:
        """Why these autoencoders get no verdict, whatever the distances; "" where they can get one."""
        if not self.arena["conclusive"]:
            return f"the arena's own checks have failed in study {self.name}"
        if len(self.probes) < 2 or len(self.arena["config"]["seeds"]) < 2:
            return "one generator, or one seed, decides nothing"
        if any(len(self.arms[row]) < 2 for row in rows):
            return "one autoencoder says nothing of its kind: another seed may differ as much"
        return ""

    def narrow(self, rows: Sequence[str]) -> str:
        """Which rows have tokens of more numbers than a generator is wide, as a sentence; "" where none has.

        This is `arena.control.narrow`.
        """
        sizes = {row: self._numbers(row) for row in rows}
        return narrow(sizes, self.probes, "a disadvantage there that large generators do not have")

    def _numbers(self, row: str) -> int:
        """Numbers in a token of a row."""
        return math.prod(self.row(row)["latents"]) // int(self.arena["config"]["tokens"])

    @property
    def steady(self) -> frozenset[str]:
        """Names of the rows without an autoencoder's latents."""
        return frozenset(row["name"] for row in self.arena["rows"] if row["check"] in STEADY)

    def control(self, distance: str = "fd_real") -> PositiveControl:
        """Pixels compared with every autoencoder of the study."""
        pixels = next((row["name"] for row in self.arena["rows"] if row["check"] == "pixels"), None)
        numbers = self._numbers(pixels) if pixels is not None else 0
        return positive_control(self.figures(distance), pixels, list(self.arms), self.probes, self.steady, numbers)

    def compared(self, row: str, against: str = BASELINE, distance: str = "fd_real") -> BaselineComparison:
        """Two rows compared by the arena's rule, with at least two autoencoders of each."""
        found, doubt = compare(self.figures(distance), row, against, self.probes, self.steady), self.doubt(row, against)
        return BaselineComparison(row, found.ratios, "undecided", doubt) if doubt else found

    def bounded(self, row: str, worse: bool, against: str = BASELINE, distance: str = "fd_real") -> bool:
        """Whether a row is, beyond doubt and with every generator, no worse (not `worse`: no better) than another by
        more than `TIE`."""
        ratios = self.compared(row, against, distance).ratios
        if self.doubt(row, against) or len(ratios) < len(self.probes):
            return False
        return all(i.high <= TIE if worse else i.low >= 1 / TIE for i in ratios.values())

    def joined(self, other: StudyRecord) -> StudyRecord:
        """This study with the rows of another one, if protocol, images and scale are the same; else unchanged."""
        if self.values["scale"] != other.values["scale"] or any(self.arena.get(k) != other.arena.get(k) for k in SAME):
            return self
        rows = {row["name"]: row for study in (other, self) for row in study.arena["rows"]}
        both = self.arena["conclusive"] and other.arena["conclusive"]
        arena = {**self.arena, "rows": list(rows.values()), "conclusive": both}
        return StudyRecord(self.name, {**self.values, "arms": {**other.arms, **self.arms}, "arena": arena})


def _finals(trials: Sequence[Mapping[str, Any]], distance: str) -> list[float]:
    values = [trial["looks"][-1]["score"][distance] for trial in trials]
    return [] if any(v is None or not math.isfinite(v) for v in values) else [float(v) for v in values]


@contextmanager
def whole_records() -> Iterator[None]:
    """Turn errors inside records into one line. Errors: FormatError."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        if isinstance(error, VaeworksError):
            raise
        raise FormatError(f"a study's record is not whole ({error!r:.150}); run the study again") from None


Studies = Mapping[str, StudyRecord]


def read_studies(folder: Path) -> dict[str, StudyRecord]:
    """The studies in a folder. Errors: FormatError where it holds none, or a record is not whole."""
    paths = {name: folder / name / STUDY_RECORD for name in STUDIES}
    found = {name: StudyRecord(name, read_json(path)) for name, path in paths.items() if path.exists()}
    if not found:
        first = next(iter(STUDIES))
        raise FormatError(
            f"{folder} holds no finished study; `vaeworks arena study {first} --data SRC --out {folder}` makes one"
        )
    return found
