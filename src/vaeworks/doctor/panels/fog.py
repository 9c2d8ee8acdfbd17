"""Washed-out or tinted pictures: by the VAE itself, under applications' constants, or in the place of another VAE."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...images import labelled
from ...intervals import bootstrap
from ..compatibility.decode import Constants, DecodedPhotos, look, make, takes_constants
from ..compatibility.verdict import FADED, HARSH, Fog, judge, lab, mean_chroma, spread_of_lightness
from ..finding import Figure, Finding, Picture, Verdict
from ..subject import Subject
from .nonfinite import need_content

APPLICATIONS: Mapping[int, Mapping[str, tuple[float, float]]] = {
    4: {"Stable Diffusion 1 and 2": (0.18215, 0.0), "Stable Diffusion XL": (0.13025, 0.0)},
    16: {"Stable Diffusion 3": (1.5305, 0.0609), "Flux.1": (0.3611, 0.1159)},
}
"""(scaling_factor, shift_factor) that applications use for an f8 checkpoint with these latent channels, whatever the
VAE's file says."""

TINT = 2.3
"""Just noticeable mean shift of a colour in Lab (Mahy et al. 1994: Delta E 2.3)."""

BLOCK = 4
"""Side of the blocks whose tint is measured, in latents."""

GRAY, LEAST_GRAY = 10.0, 0.01
"""Chroma in Lab below which a block is nearly gray, and the share of a picture that must be nearly gray for its tint to
be measured."""

IMAGES, IMAGES_QUICK = 24, 4
TRIED, TRIED_QUICK = 4, 2
"""Number of images, and of those that are also decoded under applications' constants."""


def examine(subject: Subject) -> Finding:
    """Measure contrast, saturation and tint of decoded images, as they are and under applications' constants."""
    need_content(subject)
    numbers = subject.some(IMAGES_QUICK if subject.quick else IMAGES)
    pixels = [subject.pixels[i].clone() for i in numbers]
    vae, known = subject.autoencoder, subject.known
    made = None if subject.reference is None else make(subject.reference, pixels)
    seen = look(made, vae, None if made is None else _constants(subject), pixels, known=known)
    fog = judge(seen, vae, None if made is None else _constants(subject), known=known)
    tint = _tint(seen.originals, seen.shown, BLOCK * subject.factor)
    size = math.hypot(*tint.mean(0)[1:]) if len(tint) else 0.0
    figures = _figures(fog, seen, tint)
    verdict, sentence = _verdict(fog, size)
    rows = (seen.originals, seen.fitting, seen.shown) if made else (seen.originals, seen.own)
    shown = [[x.expand(3, -1, -1) for x in row[:4]] for row in rows]
    caption = (
        "Originals; decoded with the right constants; decoded with the constants in use"
        if made
        else "Originals; decoded from its own latents"
    )
    pictures = [Picture(caption, labelled(shown, sides=caption.split("; ")))]
    table = _applications(subject, seen, TRIED_QUICK if subject.quick else TRIED) if made is None else {}
    return Finding(
        verdict,
        sentence + _worst_application(table),
        figures,
        meaning="A washed-out picture comes from a decoder that fades or, far more often, from latents at another "
        "scale than in the decoder's training: a checkpoint with a VAE of another family, or with a wrong scaling "
        "factor. Colours and contrast suffer first; shapes stay.",
        remedy=_remedy(verdict, table, made is not None),
        uncertainty=f"{len(numbers)} images; intervals of colours resample them. Limits of contrast and saturation are "
        "from planted scales on sound VAEs (doctor/compatibility/verdict.py); blur also reduces contrast, so only a "
        "larger loss counts as a fault.",
        pictures=tuple(pictures),
        tables={"used with an application's constants": table} if table else {},
        images=len(numbers),
    )


def _constants(subject: Subject) -> Constants:
    """The constants under which the reference's diffusion model runs."""
    assert subject.reference is not None
    config = subject.reference.config
    return (
        (config.scaling_factor, config.shift_factor)
        if takes_constants(subject.reference) and config.normalization == "scalar"
        else None
    )


def _figures(fog: Fog, seen: DecodedPhotos, tint: NDArray[np.floating[Any]]) -> dict[str, Figure]:
    range_ = f"{FADED} to {HARSH} of what fits"
    figures: dict[str, Figure] = {
        "contrast": Figure("contrast, of the original's", fog.contrast, limit=f"{range_}: {fog.fitting_contrast:.2f}"),
        "saturation": Figure(
            "saturation, of the original's", fog.saturation, limit=f"{range_}: {fog.fitting_saturation:.2f}"
        ),
        "psnr": Figure("PSNR", fog.psnr, unit="dB"),
        "latents_std": Figure("standard deviation of the normalized latents", fog.latents_std, limit="about 1"),
    }
    for i, name in enumerate(
        ("lightness", "green to red where it is gray", "blue to yellow where it is gray") if len(tint) else ()
    ):
        figures["tint_" + "lab"[i]] = Figure.of(
            f"mean shift in Lab, {name}", bootstrap(tint[:, i]), limit=f"noticeable from {TINT}"
        )
    if seen.correlation is not None:
        figures["correlation"] = Figure(
            "correlation with the reference's latents", seen.correlation, limit="other latents below 0.6"
        )
        figures["scale"] = Figure("given latents over expected latents", fog.scale, limit="0.87 to 1.15 does not show")
    return figures


def _tint(originals: list[Tensor], shown: list[Tensor], block: int) -> NDArray[np.floating[Any]]:
    """Mean difference in Lab of every picture, n 3: lightness everywhere, colours where the original is gray.

    A faded picture is paler, a tinted one is coloured where it should be gray. Blocks are large enough that blur brings
    no colours in from their surroundings. Pictures without gray places are left out.
    """
    before, after = (_blocks(lab(pictures).astype(np.float64), block) for pictures in (originals, shown))
    gray = np.hypot(before[..., 1], before[..., 2]) < GRAY
    rows = [
        [(b - a)[..., 0].mean(), *(b - a)[where][:, 1:].mean(0)]
        for a, b, where in zip(before, after, gray, strict=True)
        if where.mean() > LEAST_GRAY
    ]
    return np.array(rows) if rows else np.zeros((0, 3))


def _blocks(pictures: NDArray[np.floating[Any]], block: int) -> NDArray[np.floating[Any]]:
    """Means of blocks of n h w 3: n h/block w/block 3."""
    n, height, width, _ = pictures.shape
    block = min(block, height, width)
    rows, columns = height // block, width // block
    return np.asarray(
        pictures[:, : rows * block, : columns * block].reshape(n, rows, block, columns, block, 3).mean((2, 4))
    )


def _verdict(fog: Fog, tint: float) -> tuple[Verdict, str]:
    if fog.verdict != "clear":
        return "ill", fog.sentence
    if tint > TINT:
        return "ill", f"tinted: what is gray is shifted by {tint:.1f} in Lab, {TINT} is noticeable; {fog.sentence}"
    if min(fog.contrast, fog.saturation) < FADED:
        faded = f"contrast {fog.contrast:.0%} and saturation {fog.saturation:.0%} of the originals"
        return "watch", f"its reconstructions are paler than the originals, as blur makes them: {faded}"
    return "healthy", fog.sentence


def _applications(subject: Subject, seen: DecodedPhotos, count: int) -> dict[str, list[Any]]:
    """Pictures that an application decodes from latents of the right scale under its own constants."""
    vae = subject.autoencoder
    if subject.factor != 8 or not takes_constants(vae) or not subject.known:
        return {}
    reference = lab(seen.own[:count])
    table: dict[str, list[Any]] = {"application": [], "times the right scale": [], "contrast": [], "saturation": []}
    for name, (scale, shift) in APPLICATIONS.get(vae.latent_channels, {}).items():
        latents = [vae.normalize(z) / scale + shift for z in seen.latents[:count]]
        pictures = [subject.uint8(subject.decode(z))[0] for z in latents]
        shown = lab(pictures)
        ratio = latents[0].std().item() / max(seen.latents[0].std().item(), 1e-12)
        table["application"].append(name)
        table["times the right scale"].append(ratio)
        table["contrast"].append(spread_of_lightness(shown) / max(spread_of_lightness(reference), 1e-6))
        table["saturation"].append(mean_chroma(shown) / max(mean_chroma(reference), 1e-6))
    return table if table["application"] else {}


def _misfits(table: Mapping[str, list[Any]]) -> tuple[list[str], list[str]]:
    """Applications whose pictures look right, and those whose pictures do not."""
    good: list[str] = []
    bad: list[str] = []
    for name, contrast, saturation in zip(
        *(table.get(k, ()) for k in ("application", "contrast", "saturation")), strict=True
    ):
        right = FADED <= contrast <= HARSH and FADED <= saturation <= HARSH
        (good if right else bad).append(name)
    return good, bad


def _worst_application(table: Mapping[str, list[Any]]) -> str:
    good, bad = _misfits(table)
    if not bad:
        return ""
    fits = f", but right under those of {' and '.join(good)}" if good else ""
    return f"; under the constants of {' and '.join(bad)} its pictures have the wrong contrast or colours{fits}"


def _remedy(verdict: Verdict, table: Mapping[str, list[Any]], compared: bool) -> str:
    _, bad = _misfits(table)
    fold = (
        "`vaeworks fold MODEL DST --scaling-factor ...` moves the scale into the weights, where an application cannot "
        "lose it"
    )
    if compared and verdict != "healthy":
        return (
            f"Use the VAE that the checkpoint was trained with; if only the scale differs, {fold}. `vaeworks match "
            "CHECKPOINT VAE` tells which fits."
        )
    if verdict == "ill":
        return "Train or fine-tune its decoder (`vaeworks train finetune-decoder --from MODEL`), or take another VAE."
    return f"Before it is used in {' or '.join(bad)}: {fold}." if bad else ""
