"""Tiled decoding in applications: each tile is normalized by its own statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from ...images import difference, labelled, to_model_range, to_pillow, to_uint8
from ...metrics import psnr
from ..compatibility.verdict import lab
from ..finding import Figure, Finding, Picture, Verdict
from ..subject import Subject
from .nonfinite import need_content

Decode = Callable[[Tensor], Tensor]

TILE, WHOLE = 512, 768
"""Sides in pixels: of a tile, the default of diffusers and ComfyUI; and of the decoded picture."""

TILE_QUICK, WHOLE_QUICK = 192, 288
"""The sides with --quick; smaller tiles make everything worse than in applications."""

MOST = 128
"""Largest side in latents: with more, attention would take minutes in models with a small f."""

OVERLAP = {"diffusers": 1 / 4, "ComfyUI": 1 / 4}
"""Overlap of neighbouring tiles, as a share of a tile: the applications' defaults."""

NOTICEABLE, VISIBLE = 1.0, 2.3
"""Delta E in Lab between the tones of a region, tiled and whole: 2.3 is just noticeable side by side (Mahy et al.
1994); below 1 it is not. Seams between neighbouring tiles are where two tones do meet."""

PICTURES, PICTURES_QUICK = 3, 1


def examine(subject: Subject) -> Finding:
    """Decode pictures whole and in two applications' tiles, and compare tones and details."""
    need_content(subject)
    f = subject.factor
    tile, whole = (max(1, side // f) * f for side in ((TILE_QUICK, WHOLE_QUICK) if subject.quick else (TILE, WHOLE)))
    if whole > MOST * f:
        tile, whole = MOST * f * 2 // 3 // f * f, MOST * f
    pictures, enlarged = large_pictures(subject, whole, PICTURES_QUICK if subject.quick else PICTURES)
    rows: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in OVERLAP}
    originals = []
    for picture in subject.track(pictures):
        latents = subject.encode(to_model_range(picture[None]).to(subject.autoencoder.device))
        exact = subject.uint8(subject.decode(latents))[0]
        originals.append(exact)
        for name, tiles in (("diffusers", blended_tiles), ("ComfyUI", averaged_tiles)):
            found = tiles(subject.decode, latents, tile // f, round(tile // f * OVERLAP[name]), f)
            rows[name].append((exact, subject.uint8(found)[0]))
    shifts = {name: [tone_shift(a, b, tile // 4).max() for a, b in pairs] for name, pairs in rows.items()}
    scores = {name: [psnr(a, b) for a, b in pairs] for name, pairs in rows.items()}
    figures: dict[str, Figure] = {}
    for name in OVERLAP:
        key = name.lower()
        limit = f"watch above {NOTICEABLE:g}, ill above {VISIBLE:g}"
        figures[f"{key}_tone"] = Figure(
            f"{name}: largest shift of a region's tone", float(max(shifts[name])), unit="Delta E", limit=limit
        )
        figures[f"{key}_psnr"] = Figure(
            f"{name}: tiled against whole", min(scores[name]), unit="dB", limit="8-bit rounding alone 59"
        )
    verdict, sentence = _verdict(shifts, scores, tile)
    shown = [[exact, *(difference(*rows[name][i], 8) for name in OVERLAP)] for i, exact in enumerate(originals)]
    half = [[_halved(x) for x in row] for row in shown]
    titles = ["decoded whole", *(f"difference of {name}'s tiles x 8" for name in OVERLAP)]
    origin = "enlarged, because none is that large" if enlarged else "of that size"
    return Finding(
        verdict,
        sentence,
        figures,
        meaning="Programs decode large pictures in tiles to save memory. Group normalization then takes mean and "
        "variance of a tile instead of the whole picture, and attention sees one tile only. So every tile gets its own "
        "tone, and blending turns the steps into gradients.",
        remedy=""
        if verdict == "healthy"
        else "Decode in strips, which give the whole picture's result within a budget (vaeworks decode --memory; in a "
        "pipeline, vaeworks.accelerate(pipe)), or whole; in other applications, use the largest tiles and overlap that "
        "fit. A decoder without normalization over the picture is not affected (TAESD; not TAEF2, which has a "
        "normalized branch).",
        uncertainty=f"{len(pictures)} picture{'s' if len(pictures) > 1 else ''} of {whole} px, {origin}, in tiles of "
        f"{tile} px; the figures are those of the worst, without an interval. Tests compare diffusers' tiles with its "
        "own code; ComfyUI's tiles are restated from its published code.",
        pictures=(Picture("decoded whole; difference x 8 to tiled decoding", labelled(half, columns=titles)),),
        images=len(pictures),
    )


def blended_tiles(decode: Decode, latents: Tensor, tile: int, overlap: int, factor: int) -> Tensor:
    """Images n c f*h f*w of latents n c h w, tile by tile as diffusers' AutoencoderKL does.

    tile, overlap: in latents. Tiles begin at multiples of tile - overlap; a tile is faded in linearly over the overlap,
    first from above, then from the left.
    """
    step, ramp, kept = tile - overlap, overlap * factor, (tile - overlap) * factor
    height, width = latents.shape[-2:]
    rows = [
        [decode(latents[..., y : y + tile, x : x + tile]).clone() for x in range(0, width, step)]
        for y in range(0, height, step)
    ]
    lines = []
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            if i:
                _fade(rows[i - 1][j], image, ramp, -2)
            if j:
                _fade(row[j - 1], image, ramp, -1)
        lines.append(torch.cat([image[..., :kept, :kept] for image in row], dim=-1))
    return torch.cat(lines, dim=-2)


def _fade(before: Tensor, image: Tensor, ramp: int, dim: int) -> None:
    """Fade from the end of `before` into the beginning of `image`, in place."""
    ramp = min(ramp, before.shape[dim], image.shape[dim])
    if not ramp:
        return
    weight = (torch.arange(ramp, dtype=image.dtype, device=image.device) / ramp).unflatten(
        0, (-1, 1) if dim == -2 else (1, -1)
    )
    start = image.narrow(dim, 0, ramp)
    start.copy_(before.narrow(dim, before.shape[dim] - ramp, ramp) * (1 - weight) + start * weight)


def averaged_tiles(decode: Decode, latents: Tensor, tile: int, overlap: int, factor: int) -> Tensor:
    """Images n c f*h f*w of latents n c h w as ComfyUI's tiled decoding: the mean of three tilings, square, tall and
    wide.

    Within a tiling, tiles overlap, and pixels weigh less towards a tile's edge.
    """
    shapes = ((tile, tile), (tile * 2, max(tile // 2, 1)), (max(tile // 2, 1), tile * 2))
    found = [_weighted_tiles(decode, latents, shape, min(overlap, min(shape) - 1), factor) for shape in shapes]
    return torch.stack(found).mean(0)


def _weighted_tiles(decode: Decode, latents: Tensor, shape: tuple[int, int], overlap: int, factor: int) -> Tensor:
    total = weight = torch.zeros(())
    height, width = latents.shape[-2:]
    for y in _starts(height, shape[0], overlap):
        for x in _starts(width, shape[1], overlap):
            part = decode(latents[..., y : y + shape[0], x : x + shape[1]])
            if not total.ndim:
                total = part.new_zeros(*part.shape[:-2], height * factor, width * factor)
                weight = torch.zeros_like(total)
            mask = _tent(part.shape[-2], overlap * factor, part)[:, None] * _tent(
                part.shape[-1], overlap * factor, part
            )
            place = (
                ...,
                slice(y * factor, y * factor + part.shape[-2]),
                slice(x * factor, x * factor + part.shape[-1]),
            )
            total[place] += part * mask
            weight[place] += mask
    return total / weight


def _starts(side: int, tile: int, overlap: int) -> list[int]:
    return [0] if side <= tile else list(range(0, side - overlap, tile - overlap))


def _tent(side: int, ramp: int, like: Tensor) -> Tensor:
    """Weights along a side: 1/ramp, 2/ramp ... 1 ... 2/ramp, 1/ramp."""
    edge = torch.arange(side, dtype=like.dtype, device=like.device)
    near = torch.minimum(edge, side - 1 - edge) + 1
    return near.clamp(max=ramp) / ramp if ramp else torch.ones_like(near)


def tone_shift(whole: Tensor, tiled: Tensor, block: int) -> NDArray[np.floating[Any]]:
    """Delta E in Lab between the mean colours of blocks of uint8 images c h w: h/block w/block."""
    a, b = lab([whole])[0], lab([tiled])[0]
    rows, columns = a.shape[0] // block, a.shape[1] // block
    means = (x[: rows * block, : columns * block].reshape(rows, block, columns, block, 3).mean((1, 3)) for x in (a, b))
    return np.asarray(np.linalg.norm(np.subtract(*means), axis=-1))


def large_pictures(subject: Subject, side: int, most: int) -> tuple[list[Tensor], bool]:
    """The largest images, at most `most`, as squares uint8 c side side; and whether any had to be enlarged."""
    found = [to_pillow(image) for image in subject.whole[:most]]
    if not found:
        found = [to_pillow(subject.pixels[i]) for i in subject.some(most)]
    enlarged = any(min(picture.size) < side for picture in found)
    return [to_uint8(ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS)) for picture in found], enlarged


def _verdict(shifts: dict[str, list[Any]], scores: dict[str, list[float]], tile: int) -> tuple[Verdict, str]:
    name = max(shifts, key=lambda n: max(shifts[n]))
    worst, score = float(max(shifts[name])), min(min(values) for values in scores.values())
    figures = (
        f"in tiles of {tile} px a region's tone shifts by up to {worst:.1f} Delta E ({name}); the worst is at "
        f"{score:.1f} dB of the whole"
    )
    if worst > VISIBLE:
        return "ill", f"tiles show: {figures}"
    return (
        ("watch", f"tiles may show: {figures}") if worst > NOTICEABLE else ("healthy", f"tiles do not show: {figures}")
    )


def _halved(picture: Tensor) -> Tensor:
    """The picture at half its size, in three channels, to fit on the page."""
    image: Sequence[int] = picture.shape
    return to_uint8(to_pillow(picture.expand(3, -1, -1)).resize((image[-1] // 2, image[-2] // 2), Image.Resampling.BOX))
