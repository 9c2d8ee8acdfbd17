"""The verdict on decoded photographs: numbers, a sentence and a comparison image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...images import grid
from ...images.labels import wrapped
from ...metrics import psnr
from ...metrics.evaluation import mean_psnr
from ...models import Autoencoder
from .decode import Constants, DecodedPhotos, takes_constants

# Thresholds lie between what was measured, on the photographs of `look` at 256 and 128 px, of sound VAEs and of planted
# faults. Sound were: the linear start (models/init.py) as f8c4, f8c16, and as weak as f16c4 and f32c4; small-f8c4 and
# small-f8c16 after 2.5 minutes of training, with two seeds each; TAEF2. Of latents k times too large, contrast is k
# times that of right ones below k = 1 (k = 0.9: 0.88..0.92, 0.715: 0.71..0.73), saturation a little more (0.9:
# 0.90..0.94, 0.715: 0.72..0.79), and above 1 both saturate (k = 1.1: 1.06..1.08 and 1.04..1.07, 1.4: 1.21..1.28 and
# 1.13..1.25).
FADED, HARSH = 0.87, 1.12
"""Range of contrast or saturation, relative to the right latents'; outside it an image looks wrong. A factor of
latents from 0.9 to 1.15 stays inside; SDXL's VAE with SD 1's scale (0.715), and the other way round (1.4), do not."""

LOSS = 3.0
"""Largest accepted loss of PSNR, in dB, by other latents: k = 0.9 and 1.1 cost 0.4..1.6, another seed's VAE 1.7, a
wrong VAE 14."""

LIKENESS = 0.45
"""Correlation of lightness between photographs and a VAE's own reconstructions; below it nothing is reconstructed. Of
working VAEs the weakest has 0.72, an untrained one 0.10, and halves that do not belong together at most 0.19."""

PALE = 0.6
"""Standard deviation of lightness or colour in reconstructions, over that of the part of the original which they are
correlated with, under which the decoder is at fault and not a loss of detail: the weakest sound VAE has 0.65, the next
0.76, and one that was given half of its colours 0.41..0.52."""

SAME = 0.99
"""Correlation of the worst channel from which two VAEs have the same latents, up to scale and shift."""

CERTAIN = 0.1
"""Relative difference of scales above which the scale, and not the shift, is named as the reason."""

FLAT = 1.0
"""Standard deviation, in gray levels of 255, below which a decoded photograph counts as constant."""

TINY = 1e-6

GRAY = 1.0
"""Chroma, in units of Lab, below which an image counts as gray; JPEG's rounding alone causes some chroma."""

Lab = NDArray[np.floating]

Kind = Literal["clear", "wrong scale", "mixed channels", "wrong VAE", "broken"]


@dataclass(frozen=True)
class Fog:
    """The verdict on decoded photographs. Shares are relative to the originals, and means are over photographs."""

    verdict: Kind
    sentence: str
    latents_std: float
    """of the latents as the diffusion model sees them, under the checkpoint's constants: should be about 1"""
    scale: float
    """size of the latents relative to those that the VAE expects"""
    shift: float
    """difference of the latents' mean from the expected one, in standard deviations; of the worst channel"""
    correlation: float | None
    """of the VAE's latents with the reference's, on the same photographs, in the worst channel; None without a
    reference"""
    contrast: float
    """standard deviation of Lab's lightness"""
    saturation: float
    """mean chroma in Lab"""
    black: float
    """lightness, 0..100, that 1 % of the pixels are below"""
    white: float
    """lightness, 0..100, that 1 % of the pixels are above"""
    psnr: float
    """dB, to the originals"""
    fitting_contrast: float
    """`contrast` of the correct decodes"""
    fitting_saturation: float
    fitting_psnr: float
    mended_psnr: float
    """dB, of the decodes after the best that a fold can do"""

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return asdict(self)


def judge(seen: DecodedPhotos, candidate: Autoencoder, constants: Constants, *, known: bool = True) -> Fog:
    """The verdict on decoded photographs; arguments as in `fog`."""
    originals, fitting, shown = (lab(pictures) for pictures in (seen.originals, seen.fitting, seen.shown))
    contrast, saturation = _shares(shown, originals)
    fitting_contrast, fitting_saturation = _shares(fitting, originals)
    quality, fitting_quality = _psnr(seen.originals, seen.shown), _psnr(seen.originals, seen.fitting)
    figures = f"contrast {contrast:.0%} and saturation {saturation:.0%} of the originals, {quality:.1f} dB"
    fault = _own_fault(seen, originals)
    clear = (
        FADED <= contrast / fitting_contrast <= HARSH
        and FADED <= saturation / fitting_saturation <= HARSH
        and quality >= fitting_quality - LOSS
    )
    mended_contrast, mended_saturation = _shares(lab(seen.mended), originals)
    mended_quality = _psnr(seen.originals, seen.mended)
    mended = (
        FADED <= mended_contrast / fitting_contrast <= HARSH
        and FADED <= mended_saturation / fitting_saturation <= HARSH
        and mended_quality >= fitting_quality - LOSS
    )
    verdict: Kind
    if fault:
        verdict, sentence = "broken", f"broken: {fault}"
    elif clear:
        verdict, sentence = (
            "clear",
            f"clear: {figures}{'' if known or seen.correlation is not None else _of_spread(seen)}",
        )
    elif seen.mixing:
        verdict = "mixed channels"
        sentence = (
            f"mixed channels: {figures}; {seen.mixing}, compared with what the checkpoint was trained on; no scale and "
            "no shift mends that"
        )
    elif not mended:
        verdict = "wrong VAE"
        tried = "the scale that its file states brings" if known else "the best scale and shift bring"
        if seen.correlation is not None and seen.correlation >= SAME:
            differs = (
                f"its latents are those that the checkpoint was trained on, {1 / seen.scale:.2g} times as large, which "
                "the scale in its file does not say"
            )
        else:
            how = "" if seen.correlation is None else f" (correlation {seen.correlation:.2f} in the worst channel)"
            differs = f"its latents differ from those that the checkpoint was trained on{how}"
        sentence = f"wrong VAE: {figures}; {differs}, and {tried} {mended_quality:.1f} dB"
    else:
        verdict = "wrong scale"
        sentence = (
            f"{'foggy' if contrast < fitting_contrast else 'harsh'}: {figures}; "
            f"{_of_scale(seen, candidate, constants, known)}; with the right scale {mended_quality:.1f} dB"
        )
    return Fog(
        verdict,
        sentence,
        seen.latents_std,
        seen.scale,
        seen.shift,
        seen.correlation,
        contrast,
        saturation,
        _percentile(shown, 1),
        _percentile(shown, 99),
        quality,
        fitting_contrast,
        fitting_saturation,
        fitting_quality,
        mended_quality,
    )


def _own_fault(seen: DecodedPhotos, originals: Lab) -> str:
    """The fault of the candidate's own reconstructions; empty if there is none."""
    if max(picture.float().std().item() for picture in seen.own) < FLAT:
        return "all its decodes are one flat image"
    own = lab(seen.own)
    likeness, lightness = _fidelity(own[..., :1], originals[..., :1])
    if likeness < LIKENESS:
        return (
            "it does not reconstruct its own latents: its encoder and decoder do not belong together, or are not "
            "trained"
        )
    colour = _fidelity(own[..., 1:], originals[..., 1:])[1]
    if min(lightness, colour) < PALE:
        contrast, saturation = _shares(own, originals)
        return (
            f"its decoder fades even its own latents, to contrast {contrast:.0%} and saturation {saturation:.0%} of "
            "the originals"
        )
    return ""


def _of_scale(seen: DecodedPhotos, candidate: Autoencoder, constants: Constants, known: bool) -> str:
    """The difference of the latents from those that the VAE expects, and the right number."""
    if abs(seen.scale - 1) <= CERTAIN:
        return f"the latents are up to {abs(seen.shift):.2f} standard deviations away from what this VAE expects"
    sentence = f"the latents are {seen.scale:.2f} times what this VAE expects"
    config = candidate.config
    if constants is None or not takes_constants(candidate):
        return sentence
    if known and config.normalization == "scalar":
        return (
            f"{sentence}: it was made for scaling_factor {config.scaling_factor:.5g}, the checkpoint uses "
            f"{constants[0]:.5g}"
        )
    return (
        f"{sentence}, which asks for a scaling_factor of about {constants[0] * seen.scale:.2g}; the checkpoint uses "
        f"{constants[0]:.5g}"
    )


def _of_spread(seen: DecodedPhotos) -> str:
    return (
        f", if the scale is right: the only evidence is that the latents' standard deviation, {seen.latents_std:.2f}, "
        "is about 1"
    )


def lab(pictures: Sequence[Tensor]) -> Lab:
    """Lightness 0..100 and the two colour axes of Lab: n h w 3."""
    from skimage.color import rgb2lab

    return np.stack([rgb2lab(picture.expand(3, -1, -1).permute(1, 2, 0).numpy()) for picture in pictures])


def _shares(pictures: Lab, originals: Lab) -> tuple[float, float]:
    """Contrast and saturation, as shares of the originals'; the saturation of gray originals counts as kept."""
    contrast, saturation = (
        max(figure(pictures), TINY) / max(figure(originals), TINY) for figure in (spread_of_lightness, mean_chroma)
    )
    return contrast, saturation if mean_chroma(originals) > GRAY else 1.0


def spread_of_lightness(lab: Lab) -> float:
    """Standard deviation of lightness, mean over pictures n h w 3."""
    return float(lab[..., 0].std((1, 2)).mean())


def mean_chroma(lab: Lab) -> float:
    """Mean chroma of pictures n h w 3."""
    return float(np.hypot(lab[..., 1], lab[..., 2]).mean())


def _fidelity(pictures: Lab, originals: Lab) -> tuple[float, float]:
    """(correlation, standard deviation over that of the correlated part), about each image's mean; 1 for constants."""
    a, b = (x - x.mean((1, 2), keepdims=True) for x in (originals, pictures))
    product, square, other = float((a * b).sum()), float(np.square(a).sum()), float(np.square(b).sum())
    if square / a.size < GRAY**2:
        return 1.0, 1.0
    return product / max((square * other) ** 0.5, TINY), other / product if product > 0 else 1.0


def _percentile(lab: Lab, percent: float) -> float:
    """Mean over pictures."""
    return float(np.percentile(lab[..., 0], percent, axis=(1, 2)).mean())


def _psnr(originals: Sequence[Tensor], pictures: Sequence[Tensor]) -> float:
    return mean_psnr(psnr(a, b) for a, b in zip(originals, pictures, strict=True))


LABELS = ("original", "correct decode", "decode with this VAE")
LINE = 26  # height of a line of text, in pixels


def picture_of(seen: DecodedPhotos, verdict: Fog, rows: int = 3) -> Image.Image:
    """Comparison image with the verdict below: originals, correct decodes, decodes with this VAE."""
    pictures = [
        [x.expand(3, -1, -1) for x in row] for row in zip(seen.originals, seen.fitting, seen.shown, strict=True)
    ][:rows]
    sheet = grid(pictures, gap=4)
    column = (sheet.width + 4) // 3
    font = ImageFont.load_default(15)
    lines = wrapped(verdict.sentence, font, sheet.width - 8)
    page = Image.new("RGB", (sheet.width, sheet.height + LINE * (1 + len(lines))), "white")
    page.paste(sheet, (0, LINE))
    draw = ImageDraw.Draw(page)
    for i, label in enumerate(LABELS):
        draw.text((column * i + 4, 4), label, fill="black", font=font)
    for i, line in enumerate(lines):
        draw.text((4, LINE * (1 + i) + sheet.height + 4), line, fill="black", font=font)
    return page


def labelled(picture: Image.Image, title: str) -> Image.Image:
    """An image under a title."""
    page = Image.new("RGB", (picture.width, picture.height + LINE), "white")
    page.paste(picture, (0, LINE))
    font = ImageFont.load_default(17)
    while font.getlength(title) > picture.width - 8 and len(title) > 4:  # the end of a path says most
        title = "..." + title[4:]
    ImageDraw.Draw(page).text((4, 3), title, fill="black", font=font)
    return page
