"""A plane of latents, where a model has two of them: where each class lies, and what every point is decoded to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...errors import ConfigError
from ...images import grid
from ...models import Autoencoder
from ..codes import decode_pixels

COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")
"""Of classes, in their order: matplotlib's ten."""

SIDE, ROWS, MARGIN = 640, 16, 26
"""Of each half in pixels, of the decoded points, and the strip with the axis's numbers."""

SMOOTH = 2
"""The scatter is drawn so many times larger, and made smaller."""

WITHIN = 0.995
"""Share of the points that the plane shows at least."""


def latent_map(
    autoencoder: Autoencoder,
    mean: Tensor,
    std: Tensor,
    labels: Sequence[str] | None = None,
    extent: float | None = None,
) -> Image.Image:
    """Two squares of one plane side by side: posteriors, an ellipse of one std each, coloured by class; and decoded
    points of a grid.

    mean, std: n 2 1 1, zeros for points; extent: half the plane's side, by default that of 99.5 % of the means and at
    least 3, about 0. The two rings are a standard normal prior's one and two std. Errors: ConfigError for latents that
    are not two numbers.
    """
    check_plane(mean)
    extent = extent or plane_extent(mean)
    decoded = decode_pixels(autoencoder, plane_points(extent)).unflatten(0, (ROWS, ROWS))
    sheet = grid([list(row) for row in decoded], gap=1, background=90).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    picture = Image.new("RGB", (2 * SIDE + MARGIN, SIDE + MARGIN), "white")
    picture.paste(_scatter(mean.flatten(1), std.flatten(1), labels, extent), (0, 0))
    picture.paste(sheet, (SIDE + MARGIN, 0))
    _axis(picture, extent)
    return picture


def check_plane(latents: Tensor) -> None:
    """Errors: ConfigError for latents n c h w that are not two numbers each."""
    if latents[0].numel() != 2:
        shape = " x ".join(map(str, latents.shape[1:]))
        raise ConfigError(
            f"a map needs latents of two numbers, and these are {shape}; train digits-vae or digits-ae, and give its "
            "--size"
        )


def plane_extent(mean: Tensor) -> float:
    """Half the side of the plane that shows 99.5 % of means n 2 1 1 about 0; at least 3."""
    return max(3.0, float(np.quantile(mean.abs().amax((1, 2, 3)).numpy(), WITHIN)) * 1.05)


def plane_points(extent: float) -> Tensor:
    """Latents of a grid, row by row from the top left, the first number going right and the second up: n 2 1 1."""
    middle = (torch.arange(ROWS) + 0.5) / ROWS * 2 - 1
    y, x = torch.meshgrid(-middle * extent, middle * extent, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)[:, :, None, None]


def _scatter(mean: Tensor, std: Tensor, labels: Sequence[str] | None, extent: float) -> Image.Image:
    """Posteriors n 2 as ellipses, and the classes' names at their medians."""
    side = SIDE * SMOOTH
    unit = side / (2 * extent)
    picture = Image.new("RGB", (side, side), "#fcfcfc")
    draw = ImageDraw.Draw(picture, "RGBA")
    for radius in (1, 2):
        _ellipse(draw, side / 2, side / 2, radius * unit, radius * unit, outline="#bbbbbb", width=SMOOTH)
    classes = sorted(set(labels)) if labels is not None else [""]
    colors = {name: COLORS[number % len(COLORS)] for number, name in enumerate(classes)}
    for number, ((x, y), (a, b)) in enumerate(zip(mean.tolist(), std.tolist(), strict=True)):
        color = colors[labels[number] if labels is not None else ""]
        place = side / 2 + x * unit, side / 2 - y * unit
        _ellipse(draw, *place, max(a * unit, 2 * SMOOTH), max(b * unit, 2 * SMOOTH), fill=color + "60")
    font = ImageFont.load_default(22 * SMOOTH)
    for name in classes if labels is not None else ():
        x, y = mean[[label == name for label in labels or ()]].median(0).values.tolist()
        place = side / 2 + x * unit, side / 2 - y * unit
        draw.text(place, name, font=font, fill=colors[name], anchor="mm", stroke_width=3 * SMOOTH, stroke_fill="white")
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _ellipse(draw: ImageDraw.ImageDraw, x: float, y: float, a: float, b: float, **how: object) -> None:
    draw.ellipse((x - a, y - b, x + a, y + b), **how)  # type: ignore[arg-type]


def _axis(picture: Image.Image, extent: float) -> None:
    """The ends and the middle of the first latent below both halves."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    for left in (0, SIDE + MARGIN):
        for share, anchor in ((0.0, "lm"), (0.5, "mm"), (1.0, "rm")):
            draw.text(
                (left + share * SIDE, SIDE + MARGIN / 2),
                f"{(2 * share - 1) * extent:.1f}",
                font=font,
                fill="#444444",
                anchor=anchor,
            )
