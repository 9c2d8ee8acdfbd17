"""A map of two-dimensional latents: posteriors by class, and the decoded image at every point."""

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
"""Colours of classes in alphabetical order: matplotlib's ten."""

SIDE, ROWS, MARGIN = 640, 16, 26
"""Side of each half in pixels, decoded points per side, and height of the axis labels."""

SMOOTH = 2
"""Supersampling factor of the scatter plot."""

WITHIN = 0.995
"""Least share of the points within the plane."""


def latent_map(
    autoencoder: Autoencoder,
    mean: Tensor,
    std: Tensor,
    labels: Sequence[str] | None = None,
    extent: float | None = None,
) -> Image.Image:
    """The plane twice, side by side: posteriors as ellipses of one std, coloured by class; and decoded points of a
    grid.

    mean, std: n 2 1 1; std is zero for points. extent: half the plane's side; by default it shows 99.5 % of the means,
    and is at least 3. The two rings are one and two stds of a standard normal prior. Errors: ConfigError for latents
    that are not two numbers.
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
    """Half the side of the plane about 0 that shows 99.5 % of means n 2 1 1; at least 3."""
    return max(3.0, float(np.quantile(mean.abs().amax((1, 2, 3)).numpy(), WITHIN)) * 1.05)


def plane_points(extent: float) -> Tensor:
    """Latents of a grid, row by row from the top left: n 2 1 1. The first number grows to the right, the second
    upward."""
    middle = (torch.arange(ROWS) + 0.5) / ROWS * 2 - 1
    y, x = torch.meshgrid(-middle * extent, middle * extent, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)[:, :, None, None]


def _scatter(mean: Tensor, std: Tensor, labels: Sequence[str] | None, extent: float) -> Image.Image:
    """Posteriors n 2 as ellipses, with class names at the classes' medians."""
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
    """Label both halves, and the ends and the middle of the horizontal axis below them."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    for left, title in ((0, "latents of the images"), (SIDE + MARGIN, "decoded from the plane")):
        draw.text((left + SIDE / 4, SIDE + MARGIN / 2), title, font=font, fill="#444444", anchor="mm")
        for share, anchor in ((0.0, "lm"), (0.5, "mm"), (1.0, "rm")):
            draw.text(
                (left + share * SIDE, SIDE + MARGIN / 2),
                f"{(2 * share - 1) * extent:.1f}",
                font=font,
                fill="#444444",
                anchor=anchor,
            )
