"""Smuggling: single cells of the latents that carry what belongs to the whole picture, as spots of Stable Diffusion's
VAE are said to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...images import difference
from ...intervals import Interval, bootstrap
from ...pages.heatmap import heat, sheet
from ..finding import Figure, Finding, NotExamined, Picture, Verdict, number
from ..measures.capacity import measure_channels, standardization
from ..measures.occlusion import (
    Influence,
    concentration,
    decoder_gradient,
    encoder_gradient,
    influence,
    occluded,
    of_gaussian,
    outlier,
    receptive_radius,
)
from ..measures.sensitivity import covariances, explained, sensitivity, slope
from ..subject import Subject
from .crops import crop_cells, not_finite, undecodable
from .nonfinite import broken

Array = NDArray[np.floating[Any]]

IMAGES, IMAGES_QUICK = 8, 2
"""Images whose decoder is probed; norms and log-variances are of all images."""

PROBES, PROBES_QUICK = 8, 4

CELLS, CELLS_QUICK = (4, 4, 8), (2, 1, 3)
"""Cells that are occluded: of the largest norm, of the largest sensitivity, at random."""

FLOOR = -30.0
"""The clamp of the log-variance (models/posterior.py)."""

NORM_OUTLIER = 8.0
"""Largest over median norm, mean over images, from which on cells are outliers: of TAEF2 and 8 VAEs of our recipes on
64 portraits of dogs at 256 px the largest is 5.2 (strong KL), the smallest 2.1 (TAEF2). A spike that is planted into
one cell of n in every picture cannot have more than about sqrt(n), because it widens the standard deviation, in which
norms are."""

FAR, NONLOCAL = 2.0, 0.1
"""Gray levels by which the picture beyond a cell's neighbourhood may change, and share of the cell's influence that may
be there. On the same VAEs, the worst cell has 0.39 to 0.83 gray levels and a share of 0.013 to 0.059; random weights
have 6 and 0.6, a planted global colour 20 and more. Both are needed: a very large value leaves traces far away in any
decoder."""

LEAST = 5
"""Latents along a side that are needed, for something to be outside a cell's neighbourhood."""


def examine(subject: Subject) -> Finding:
    """Norms, log-variances, sensitivity and occlusion."""
    if (found := broken(subject)) is not None:
        return found
    if min(subject.mean.shape[-2:]) < LEAST:
        raise NotExamined(
            f"needs latents of at least {LEAST} x {LEAST}; examine at a size of {LEAST * subject.factor} px or more"
        )
    survey = _surveyed(subject)
    if isinstance(survey, float):
        return undecodable(survey)
    figures = _figures(subject, survey)
    verdict, sentence = _verdict(figures)
    n, m = subject.count, len(survey.probed)
    return Finding(
        verdict,
        sentence,
        figures,
        meaning="A cell of the latents should say what is in its part of the picture. Where a few cells of very large "
        "values steer colour or contrast of the whole picture, a diffusion model must hit those few cells exactly: an "
        "error there, an edit or a crop changes everything else.",
        remedy=""
        if verdict == "healthy"
        else "Train with noise on the latents (recipes noise, sigma-noise, denoise), or with a bound (recipe "
        "clamped-ae, softclamp), under which no cell can carry a large value unharmed; do not crop, tile or edit "
        "latents of this VAE where the marked cells are.",
        dispute="That Stable Diffusion's VAE smuggles global information through bright spots (drhead, 2024) is "
        "disputed: editing them was found to change distant patches only slightly, and its log-variance says little, "
        "the posterior being nearly deterministic.",
        uncertainty=f"Norms and log-variances are of {n} images; sensitivity and occlusion of {m}, on crops of "
        f"{survey.cells} x {survey.cells} latents about the cell of the largest norm; intervals resample images. "
        f"Sensitivity is a mean over {survey.probes} random probes; the slope is freed of their noise by two "
        f"independent halves. The best cell to smuggle through may not be among the {survey.occluded} occluded ones. "
        "Group normalization couples all cells a little: hence something far away changes in every VAE of this family, "
        "and more so in smaller pictures.",
        pictures=(_picture(subject, survey),),
        images=n,
    )


@dataclass(frozen=True)
class Probed:
    """One image's crop under probes and occlusions."""

    number: int
    place: tuple[int, int]
    """of the crop, in latents"""
    latents: Tensor
    """1 c h w"""
    decoded: Tensor
    """k H W"""
    gain: Tensor
    """h w: ||J|| by position, of changes by one standard deviation of each channel, in gray levels over the whole
    picture"""
    rows: tuple[float, float, float] | None
    """`covariances`, where there are log-variances above the clamp"""
    common: tuple[Influence, ...]
    """of cells at random"""
    chosen: tuple[Influence, ...]
    """of cells with the largest norm or sensitivity"""
    worst: tuple[int, int]
    """the cell, of all, that changes most far away"""
    change: Tensor
    """k H W: what replacing that cell changed"""
    encoder: tuple[float, float]
    """radii of the encoder's receptive field: 50 and 95 % of the energy, in pixels; nan where not measured"""
    decoder: tuple[float, float]


@dataclass(frozen=True)
class SmugglingSurvey:
    """All that was measured."""

    outliers: Array
    """n: largest norm over median norm of the standardized latents, by image"""
    shares: Array
    """n: of the energy, in the top 1 % of positions"""
    fixed: float
    """largest over median of the mean norm by position"""
    gaussian: tuple[float, float]
    floor: Array | None
    """n: share of log-variances at the clamp"""
    logvar: float | None
    """median of all log-variances that were looked at"""
    cells: int
    probes: int
    occluded: int
    norms: dict[int, Tensor] = field(repr=False)
    """by image probed, of the whole picture: h w"""
    probed: tuple[Probed, ...] = ()


def _surveyed(subject: Subject) -> SmugglingSurvey | float:
    """All measurements; or the share of decoded values that are no numbers."""
    alive, mean, std = standardization(measure_channels(subject))
    numbers = subject.some(IMAGES_QUICK if subject.quick else IMAGES)
    outliers, shares, seen = [], [], 0
    norms: dict[int, Tensor] = {}
    total = torch.zeros(subject.mean.shape[-2:], dtype=torch.float64)
    for part in subject.parts(subject.mean):
        energy = ((part[:, alive] - mean) / std).square().sum(1)
        outliers.append(outlier(energy.sqrt()))
        shares.append(concentration(energy))
        total += energy.sqrt().double().sum(0)
        norms |= {i: energy[i - seen].sqrt() for i in numbers if seen <= i < seen + len(part)}
        seen += len(part)
    floor, logvars = None, []
    if subject.logvar is not None:
        floors = []
        for part in subject.parts(subject.logvar):
            floors.append((part <= FLOOR).double().mean((1, 2, 3)))
            logvars.append(float(part.median()))
        floor = torch.cat(floors).numpy()
    probes = PROBES_QUICK if subject.quick else PROBES
    cells = crop_cells(subject)
    probed: list[Probed] = []
    scale = torch.zeros(subject.mean.shape[1])
    scale[alive] = std[:, 0, 0]
    for i in subject.track(numbers):
        one = _probe(subject, i, cells, norms[i], scale, probes, fields=not (subject.quick and probed))
        if isinstance(one, float):
            return one
        probed.append(one)
    h, w = subject.mean.shape[-2:]
    return SmugglingSurvey(
        torch.cat(outliers).numpy(),
        torch.cat(shares).numpy(),
        float(outlier(total[None])),
        of_gaussian(len(alive), h, w, subject.protocol.seed),
        floor,
        float(np.median(logvars)) if logvars else None,
        cells,
        probes,
        sum(CELLS_QUICK if subject.quick else CELLS),
        norms,
        tuple(probed),
    )


def _probe(
    subject: Subject, i: int, cells: int, norm: Tensor, scale: Tensor, probes: int, fields: bool
) -> Probed | float:
    """fields: whether receptive fields are measured, which do not differ much from image to image."""
    model, f, seed = subject.autoencoder, subject.factor, subject.protocol.seed + i
    top, left = (
        min(max(int(at) - cells // 2, 0), side - cells)
        for at, side in zip(divmod(int(norm.argmax()), norm.shape[1]), norm.shape, strict=True)
    )
    here = (slice(top, top + cells), slice(left, left + cells))
    latents = subject.mean[[i]][..., here[0], here[1]].to(model.device)
    decoded = subject.decode(latents)
    if share := not_finite(decoded):
        return share
    halves = sensitivity(model.decode, latents, probes, seed)
    if not_finite(halves):
        return not_finite(halves)
    rows = None
    if subject.logvar is not None:
        logvar = subject.logvar[i][..., here[0], here[1]].clone()
        rows = covariances(logvar, halves * (logvar > FLOOR))
    gain = 127.5 * (halves.mean(0) * scale[:, None, None].square()).sum(0).sqrt()
    chosen, common = _cells(norm[here], gain, CELLS_QUICK if subject.quick else CELLS, seed)
    influences, changes = [], []
    for cell in (*chosen, *common):
        change = (subject.decode(occluded(latents, cell)) - decoded)[0].cpu()
        if share := not_finite(change):
            return share
        influences.append(influence(change, cell, f))
        changes.append(change)
    worst = int(np.argmax([x.far for x in influences]))
    middle = (cells // 2, cells // 2)
    centre = (f * (middle[0] + 0.5) - 0.5, f * (middle[1] + 0.5) - 0.5)
    crop = subject.images([i])[..., f * top : f * (top + cells), f * left : f * (left + cells)]
    encoder = decoder = (float("nan"), float("nan"))
    if fields:
        encoder = receptive_radius(encoder_gradient(model, crop, middle, seed).cpu(), centre)
        decoder = receptive_radius(
            decoder_gradient(model, latents, middle, f, seed).cpu(), (float(middle[0]), float(middle[1]))
        )
    return Probed(
        i,
        (top, left),
        latents.cpu(),
        decoded[0].cpu(),
        gain,
        rows,
        tuple(influences[len(chosen) :]),
        tuple(influences[: len(chosen)]),
        influences[worst].cell,
        changes[worst],
        encoder,
        (f * decoder[0], f * decoder[1]),
    )


def _cells(
    norm: Tensor, gain: Tensor, counts: tuple[int, int, int], seed: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Cells of the largest norm and sensitivity; and others at random."""
    w = norm.shape[1]
    chosen: list[int] = []
    for values, count in ((norm, counts[0]), (gain, counts[1])):
        order = values.flatten().argsort(descending=True, stable=True).tolist()
        chosen += [i for i in order if i not in chosen][:count]
    order = torch.randperm(norm.numel(), generator=torch.Generator().manual_seed(seed)).tolist()
    common = [i for i in order if i not in chosen][: counts[2]]
    return [divmod(i, w) for i in chosen], [divmod(i, w) for i in common]


def _figures(subject: Subject, survey: SmugglingSurvey) -> dict[str, Figure]:
    gaussian, share = survey.gaussian
    figures = {
        "norm_outlier": Figure.of(
            "largest norm of a cell over the median",
            _mean(survey.outliers),
            limit=f"{gaussian:.2f} of a Gaussian; watch above {NORM_OUTLIER:g}",
        ),
        "norm_largest": Figure("the same, of the worst image", float(survey.outliers.max())),
        "norm_top": Figure.of(
            "share of energy in the top 1 % of cells", _mean(survey.shares), limit=f"{share:.3f} of a Gaussian"
        ),
        "norm_fixed": Figure(
            "largest mean norm of a place over the median", survey.fixed, limit="1 where no place is special"
        ),
    }
    if survey.floor is not None and survey.logvar is not None:
        figures["logvar"] = Figure("median log-variance", survey.logvar)
        figures["logvar_floor"] = Figure.of("share of log-variances at the clamp of -30", _mean(survey.floor))
        rows = np.array([x.rows for x in survey.probed])
        rows = rows[np.isfinite(rows).all(1)]
        if len(rows):
            figures["logvar_slope"] = Figure.of(
                "slope of log-variance by ln ||J||²", bootstrap(rows, slope), limit="-1 in theory"
            )
            figures["logvar_explained"] = Figure.of(
                "R² of that line", bootstrap(rows, explained), limit="0: log-variance says nothing"
            )
    gains = torch.stack([x.gain for x in survey.probed])
    figures["gain_outlier"] = Figure.of("largest sensitivity of a cell over the median", _mean(outlier(gains).numpy()))
    figures["gain_top"] = Figure.of(
        "share of squared sensitivity in the top 1 %", _mean(concentration(gains.square()).numpy())
    )
    common = [_median(x.common) for x in survey.probed]
    figures["far_median"] = Figure.of("change far from a cell at random", _mean([x.far for x in common]), "gray levels")
    figures["far_worst"] = Figure.of(
        "change far from the worst cell",
        _mean([_worst(x).far for x in survey.probed]),
        "gray levels",
        f"watch above {FAR:g}",
    )
    figures["nonlocal_median"] = Figure.of(
        "share of its influence that is far away, cell at random", _mean([x.nonlocal_share for x in common])
    )
    figures["nonlocal_worst"] = Figure.of(
        "the same, worst cell",
        _mean([_worst(x).nonlocal_share for x in survey.probed]),
        limit=f"ill above {NONLOCAL:g}, where the change is, too",
    )
    figures["influence_ratio"] = Figure.of(
        "influence of the strongest cell over a cell at random",
        _mean(
            [
                _ratio(max(y.total for y in (*x.common, *x.chosen)), c.total)
                for x, c in zip(survey.probed, common, strict=True)
            ]
        ),
    )
    figures["radius_50"] = Figure.of("radius of half a cell's influence", _mean([x.radius_50 for x in common]), "px")
    figures["radius_95"] = Figure.of("radius of 95 % of it", _mean([x.radius_95 for x in common]), "px")
    for name in ("encoder", "decoder"):
        radius = _mean([getattr(x, name)[1] for x in survey.probed])
        known = bool(np.isfinite(radius.low))
        label, low, high = (
            f"radius of 95 % of the {name}'s gradient",
            radius.low if known else None,
            radius.high if known else None,
        )
        figures[f"{name}_radius"] = Figure(label, radius.value, low, high, "px")
    return figures


def _mean(values: object) -> Interval:
    rows = np.asarray(values, dtype=np.float64)
    kept = rows[np.isfinite(rows)]
    return bootstrap(kept) if len(kept) else Interval(float("nan"), float("nan"), float("nan"))


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else float("nan")


def _median(cells: tuple[Influence, ...]) -> Influence:
    """By each of their figures."""
    names = ("total", "nonlocal_share", "far", "radius_50", "radius_95")
    return Influence(cells[0].cell, *(float(np.median([getattr(x, name) for x in cells])) for name in names))


def _worst(probed: Probed) -> Influence:
    return next(x for x in (*probed.chosen, *probed.common) if x.cell == probed.worst)


def _verdict(figures: dict[str, Figure]) -> tuple[Verdict, str]:
    norm, far, common, share = (
        figures[name].value for name in ("norm_outlier", "far_worst", "far_median", "nonlocal_worst")
    )
    gaussian = figures["norm_outlier"].limit.split(" of")[0]
    changes = (
        f"replacing the worst cell by its neighbours changes the picture beyond them by {number(far)} gray levels, "
        f"{share:.0%} of all that it changes (a cell at random: {number(common)} gray levels)"
    )
    largest = f"the largest cell is {number(norm)} times the median cell (a Gaussian: {gaussian})"
    if far > FAR and share > NONLOCAL:
        return "ill", f"{changes}; {largest}"
    if norm > NORM_OUTLIER or far > FAR:
        return "watch", f"{largest}; {changes}"
    return "healthy", f"{largest}, and {changes}"


def _picture(subject: Subject, survey: SmugglingSurvey) -> Picture:
    rows = []
    for one in survey.probed[:4]:
        f, (top, left), side = subject.factor, one.place, survey.cells
        pixels = subject.pixels[one.number][:, f * top : f * (top + side), f * left : f * (left + side)]
        decoded = subject.uint8(one.decoded)
        here = (slice(top, top + side), slice(left, left + side))
        energy = (one.change * 127.5).square().mean(0).sqrt()
        row = [pixels, decoded, heat(survey.norms[one.number][here])]
        if subject.logvar is not None:
            row.append(heat(subject.logvar[one.number].mean(0)[here]))
        row += [
            heat(one.gain.clamp_min(1e-6).log()),
            heat((energy + 1e-3).log10(), -1.0, 2.0) if energy.max() > 0 else heat(energy),
            difference(decoded, subject.uint8(one.decoded + one.change), 8),
        ]
        rows.append(row)
    titles = [
        "image",
        "decoded",
        "norm of cells",
        "log-variance",
        "sensitivity",
        "worst cell's influence",
        "the change, 8-fold",
    ]
    if subject.logvar is None:
        titles.remove("log-variance")
    caption = (
        "light: large; sensitivity by its logarithm; influence: what replacing the cell that acts farthest by its "
        "neighbours' mean changes, 0.1 to 100 gray levels by logarithm"
    )
    return Picture(caption, sheet(rows, titles))
