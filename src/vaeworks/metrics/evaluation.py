"""The result of evaluating a model: figures with their intervals, to JSON and back."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import ConfigError
from ..images import notebook
from ..intervals import Interval, bootstrap
from .colour import axes
from .legibility import Legibility
from .protocol import Protocol
from .sets import SetDistances
from .throughput import Speed

DOWN_UP, JPEG, DCT, PCA = "bicubic down-up", "JPEG, same bytes", "DCT, same numbers", "PCA, same numbers"
"""Names of the baselines. PCA is left out where there was nothing to fit it on."""

SCHEMA = 2


@dataclass(frozen=True)
class ImageScore:
    """One image's figures; a baseline's name maps to its PSNR and SSIM. All are nan where the model's output was not
    finite."""

    path: str
    width: int
    """pixels of the evaluated crop"""
    height: int
    psnr: float
    """dB"""
    ssim: float
    baselines: dict[str, tuple[float, float]]
    latent_bytes: int
    """size of the latents in fp16"""
    jpeg_bytes: int
    """size of the JPEG baseline's file"""
    ms_ssim: float = math.nan
    lpips: float | None = None
    """None: not measured"""
    bias: tuple[float, ...] = ()
    """signed mean error by the axes of colour.py"""
    finite: bool = True
    """whether the model's output was finite"""


def mean_psnr(values: Iterable[float]) -> float:
    """Mean of PSNRs in dB; an image that is reproduced exactly counts as 100."""
    return statistics.fmean(capped(value) for value in values)


def capped(psnr: float) -> float:
    """At most 100 dB; nan stays."""
    return psnr if math.isnan(psnr) else min(psnr, 100.0)


@dataclass(frozen=True)
class Evaluation:
    """A model's figures on a set of images."""

    model: str
    """f and c"""
    protocol: Protocol
    scores: tuple[ImageScore, ...]
    skipped: tuple[tuple[str, str], ...]
    """(path, reason)"""
    name: str = ""
    """title of the model"""
    sets: SetDistances | None = None
    notes: tuple[str, ...] = ()
    """remarks about the figures"""
    legibility: Legibility | None = None
    speed: Speed | None = None
    codes: str = ""
    """what the baselines of as many numbers keep, and what the PCA was fitted on"""

    @property
    def title(self) -> str:
        """The model's name, or f and c."""
        return self.name or self.model

    @property
    def psnr(self) -> float:
        """Mean over images, in dB."""
        return mean_psnr(score.psnr for score in self.scores)

    @property
    def ssim(self) -> float:
        """Mean over images."""
        return statistics.fmean(score.ssim for score in self.scores)

    def __repr__(self) -> str:
        """One line: the model, its mean figures, and how many images they are of."""
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        figures = f"{self.psnr:.2f} dB PSNR, {self.ssim:.4f} SSIM" if self.scores else "no figures"
        return f"Evaluation({self.title}: {figures}, {len(self.scores)} images{skipped})"

    def _repr_html_(self) -> str:
        """The figures with their intervals and the baselines, for notebooks."""
        if not self.scores:
            return notebook.paragraph(repr(self))
        rows = [(name, f"{x.value:.4g}", f"{x.low:.4g} to {x.high:.4g}") for name, x in self.figures.items()]
        rows += [(f"psnr of {name}", f"{self.baseline(name)[0]:.4g}", "") for name in self.baselines]
        figures = notebook.table(rows, ("figure", "mean", "95 % interval"))
        return notebook.heading(repr(self)) + figures + "".join(map(notebook.paragraph, self.warnings))

    @property
    def not_finite(self) -> int:
        """Images for which the model's output was not finite."""
        return sum(not score.finite for score in self.scores)

    def values(self, figure: str) -> list[float]:
        """A figure of every image: psnr (at most 100), ssim, ms_ssim, lpips or an axis of the colour bias; empty if not
        measured."""
        if figure == "psnr":
            return [capped(score.psnr) for score in self.scores]
        if figure in ("ssim", "ms_ssim", "lpips"):
            return [value for score in self.scores if (value := getattr(score, figure)) is not None]
        position = self.axes.index(figure)
        return [score.bias[position] for score in self.scores]

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the colour bias's axes."""
        return axes(3 if len(self.scores[0].bias) == 6 else 1) if self.scores[0].bias else ()

    @property
    def figures(self) -> dict[str, Interval]:
        """Means over images by name, each with its 95 % interval: what was measured of psnr, ssim, ms_ssim, lpips and
        the colour bias."""
        named = {figure: self.values(figure) for figure in ("psnr", "ssim", "ms_ssim", "lpips")}
        named |= {f"bias {axis}": self.values(axis) for axis in self.axes}
        return {figure: bootstrap(values) for figure, values in named.items() if values}

    @property
    def baselines(self) -> tuple[str, ...]:
        """Names of the baselines that were measured."""
        return tuple(self.scores[0].baselines) if self.scores else ()

    def baseline(self, name: str) -> tuple[float, float]:
        """Mean PSNR and SSIM of a baseline over the same images."""
        pairs = [score.baselines[name] for score in self.scores]
        return mean_psnr(p for p, _ in pairs), statistics.fmean(s for _, s in pairs)

    @property
    def ranked(self) -> tuple[ImageScore, ...]:
        """Images by PSNR, worst first; images without a finite output come before all others."""
        return tuple(sorted(self.scores, key=lambda score: score.psnr if score.finite else -math.inf))

    def worst(self, count: int) -> tuple[ImageScore, ...]:
        """The images with the lowest PSNR, worst first."""
        return self.ranked[:count]

    @property
    def warnings(self) -> tuple[str, ...]:
        """All remarks about the figures."""
        return (*self.notes, *(self.sets.warnings if self.sets else ()))

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        baselines = {name: dict(zip(("psnr", "ssim"), self.baseline(name), strict=True)) for name in self.baselines}
        return {
            "schema": SCHEMA,
            "psnr": self.psnr,
            "ssim": self.ssim,
            "figures": {k: asdict(v) for k, v in self.figures.items()},
            "baselines": baselines,
            **asdict(self),
            "protocol_digest": self.protocol.digest,
            "legibility": self.legibility.to_dict() if self.legibility else None,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Evaluation:
        """From the values of `to_dict`, also after JSON; means and intervals are computed again from the scores.

        Errors: ConfigError for values that are no evaluation of this version.
        """
        if values.get("schema") != SCHEMA:
            raise ConfigError(
                f"not an evaluation of schema {SCHEMA}, but of {values.get('schema')!r}; measure again with `vaeworks "
                "eval`"
            )
        try:
            found = cls(
                values["model"],
                Protocol.from_dict(values["protocol"]),
                tuple(map(_score, values["scores"])),
                tuple((path, reason) for path, reason in values["skipped"]),
                values["name"],
                _sets(values["sets"]),
                tuple(values["notes"]),
                Legibility.from_dict(values["legibility"]) if values["legibility"] else None,
                Speed(**values["speed"]) if values["speed"] else None,
                values.get("codes", ""),  # evaluations before 0.3 have none
            )
            _check_scores(found.scores)
            return found
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"not a whole evaluation: {type(error).__name__}: {error}; measure again with `vaeworks eval`"
            ) from None


def _number(value: float | None, absent: float = math.nan) -> float:
    """JSON knows neither nan nor infinity: both are null there."""
    return absent if value is None else value


def _score(values: dict[str, Any]) -> ImageScore:
    finite = values["finite"]
    exact = math.inf if finite else math.nan  # of a finite output, only the PSNR of an image reproduced exactly is null
    baselines = {name: (_number(p, math.inf), _number(s)) for name, (p, s) in values["baselines"].items()}
    lpips = values["lpips"] if finite or values["lpips"] is not None else None
    known = {field.name: values[field.name] for field in fields(ImageScore)}
    return ImageScore(
        **known
        | {
            "psnr": _number(values["psnr"], exact),
            "ssim": _number(values["ssim"]),
            "ms_ssim": _number(values["ms_ssim"]),
            "lpips": lpips,
            "bias": tuple(_number(x) for x in values["bias"]),
            "baselines": baselines,
        }
    )


def _check_scores(scores: tuple[ImageScore, ...]) -> None:
    """Errors: ValueError for what no measurement leaves: no image, figures that are no numbers, or that some images
    lack."""
    if not scores:
        raise ValueError("no image")
    for score in scores:
        numbers = (
            score.psnr,
            score.ssim,
            score.ms_ssim,
            *score.bias,
            *(x for pair in score.baselines.values() for x in pair),
        )
        if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers):
            raise ValueError(f"{score.path} has figures that are no numbers")
        alike = [(s.lpips is None, len(s.bias), set(s.baselines)) for s in (scores[0], score)]
        if alike[0] != alike[1] or len(score.bias) not in (0, 2, 6) or not {DOWN_UP, JPEG} <= set(score.baselines):
            raise ValueError(f"{score.path} lacks figures that other images have")


def interval(values: dict[str, Any]) -> Interval:
    """From JSON values."""
    return Interval(*(_number(values[end]) for end in ("value", "low", "high")))


def _sets(values: dict[str, Any] | None) -> SetDistances | None:
    if values is None:
        return None
    changed: dict[str, Any] = {"frechet": interval(values["frechet"]), "kernel": interval(values["kernel"])}
    changed |= {k: _number(values[k]) for k in ("frechet_half", "kernel_published")} | {
        "warnings": tuple(values["warnings"])
    }
    return SetDistances(**values | changed)
