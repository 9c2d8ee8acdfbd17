"""The finding of a panel: figures, pictures, and a verdict that follows from them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from PIL import Image

from ..errors import DataError
from ..images import notebook
from ..intervals import Interval

Verdict = Literal["ill", "watch", "healthy", "not examined"]
"""ill: images made with this VAE suffer; watch: they may, or science disputes it; not examined: the panel could not
measure."""

VERDICTS: tuple[Verdict, ...] = ("ill", "watch", "healthy", "not examined")
"""All verdicts, worst first."""


class NotExamined(DataError):  # noqa: N818 - the name is a verdict's
    """A panel cannot measure: too few images, no labels, an architecture without the feature.

    The message is one sentence with the remedy.
    """


@dataclass(frozen=True)
class Figure:
    """A measured number."""

    label: str
    """what was measured, in a few words"""
    value: float
    low: float | None = None
    """lower end of the 95 % interval from resampling images (or what `Finding.uncertainty` names); None for exact
    values and maxima"""
    high: float | None = None
    unit: str = ""
    """"dB", "%", "sigma", "px" ...; a share in 0..1 has none"""
    limit: str = ""
    """what the value is compared with, in a few words: "ill above 0.5"; "ceiling of white noise 0.48" """

    @classmethod
    def of(cls, label: str, interval: Interval, unit: str = "", limit: str = "") -> Figure:
        """A figure with a bootstrap interval."""
        return cls(label, interval.value, interval.low, interval.high, unit, limit)

    @property
    def shown(self) -> str:
        """Value and unit as people read them."""
        return number(self.value) + (self.unit if self.unit in ("", "%") else f" {self.unit}")

    @property
    def interval(self) -> str:
        """The interval's ends as people read them; empty without an interval."""
        if self.low is None or self.high is None or not (math.isfinite(self.low) and math.isfinite(self.high)):
            return ""
        return f"{number(self.low)} to {number(self.high)}"

    @property
    def better(self) -> Literal["less", "more", ""]:
        """Whether less or more of it is better, as its limit or its label says; empty where neither does."""
        if found := re.search(r"\b(?:ill|watch) (above|below)\b|^0 ideal", self.limit):
            return "more" if found[1] == "below" else "less"
        return "more" if self.label.startswith("PSNR") and " lost" not in self.label and self.unit == "dB" else ""

    def text(self) -> str:
        """Value, unit and interval as people read them."""
        return f"{self.shown} ({self.interval})" if self.interval else self.shown


def number(value: float) -> str:
    """A number with three significant digits, without needless exponents."""
    if not math.isfinite(value):
        return str(value)
    if value == round(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    if 1e-3 <= abs(value) < 1e5:
        digits = max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:.{digits}f}"
    return f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e")


@dataclass(frozen=True)
class Picture:
    """A picture with its caption."""

    caption: str
    image: Image.Image = field(compare=False, repr=False)
    pixelated: bool = False
    """enlarge without blurring: for small maps whose pixels are latents"""

    def _repr_png_(self) -> bytes:
        """The picture, for notebooks."""
        return notebook.png(self.image)


@dataclass(frozen=True)
class Curves:
    """Named lines of (x, y), drawn by the page."""

    title: str
    lines: Mapping[str, Sequence[tuple[float, float | None]]]
    x: str
    """label of the x axis"""
    y: str = ""
    log: bool = False
    """logarithmic y axis, where all values are positive"""
    levels: Mapping[str, float] = field(default_factory=dict)
    """named horizontal lines: limits, ceilings"""


@dataclass(frozen=True)
class Finding:
    """The result of one panel."""

    verdict: Verdict
    sentence: str
    """the verdict in plain words, with the figure it rests on"""
    figures: Mapping[str, Figure]
    """figures by name; the names are keys of report.json and do not change"""
    meaning: str = ""
    """what the verdict means for users of this VAE"""
    remedy: str = ""
    """what to do; empty where nothing is needed"""
    dispute: str = ""
    """one sentence where science disputes the diagnosis"""
    uncertainty: str = ""
    """how certain the figures are: what was resampled, how many images, which biases"""
    pictures: tuple[Picture, ...] = ()
    curves: tuple[Curves, ...] = ()
    tables: Mapping[str, Mapping[str, Sequence[float | str]]] = field(default_factory=dict)
    """values by channel, layer and so on: {table: {column: values}}"""
    images: int = 0
    """number of examined images"""

    def __post_init__(self) -> None:
        assert self.verdict == "not examined" or self.figures, "no verdict without a figure"

    def __repr__(self) -> str:
        """One line: the verdict and its sentence."""
        return f"Finding({self.verdict}: {self.sentence})"

    def _repr_html_(self) -> str:
        """Verdict, sentence, figures and pictures, for notebooks."""
        rows = [(figure.label, figure.shown, figure.interval, figure.limit) for figure in self.figures.values()]
        return "".join(
            [
                notebook.heading(f"{self.verdict}: {self.sentence}"),
                notebook.table(rows, ("figure", "value", "95 % interval", "limit")),
                *map(notebook.paragraph, (self.meaning, self.remedy, self.dispute, self.uncertainty)),
                *(notebook.picture(p.image, p.caption, p.pixelated) for p in self.pictures),
            ]
        )

    @classmethod
    def absent(cls, why: NotExamined) -> Finding:
        """The finding of a panel that cannot measure."""
        return cls("not examined", str(why), {})
