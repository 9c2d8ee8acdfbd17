"""Draw spectrograms with axes: original, reconstruction, and their difference."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...data.spectrogram import MEL, hertz_to_mel
from ...images import difference, to_pillow

HERTZ = (250, 500, 1000, 2000, 4000)
SHOWN = 640
"""Most columns on a sheet: the first 10 s."""

SIDES = {1: ("",), 2: ("left: ", "right: ")}
"""Prefixes of the panels' titles, by the number of channels."""

SCALE, LEFT, TOP, GAP = 2, 60, 18, 22
"""Enlargement of a spectrogram's pixels; margins in pixels."""

INK = 40


def sheet(image: Tensor, recon: Tensor, gain: int = 4) -> Image.Image:
    """Two spectrograms, uint8 c bands columns, above `gain` times their difference, with axes in Hz and seconds.

    One channel has three panels, two channels have six: left and right of each.
    """
    image, recon = image[..., :SHOWN], recon[..., :SHOWN]
    full = 255 * MEL.step
    pictures = (
        (f"original, {MEL.floor:.0f} dB (black) to {MEL.floor + full:.0f} dB (white)", image),
        ("reconstruction", recon),
        (f"difference, 0 to {full / gain:.0f} dB", difference(image, recon, gain)),
    )
    panels = [
        (side + title, channel[None])
        for title, picture in pictures
        for side, channel in zip(SIDES[len(picture)], picture, strict=True)
    ]
    height, width = MEL.bands * SCALE, image.shape[-1] * SCALE
    drawn = Image.new("L", (max(LEFT + width + 12, 360), len(panels) * (TOP + height + GAP)), 255)
    for number, (title, pixels) in enumerate(panels):
        top = number * (TOP + height + GAP) + TOP
        drawn.paste(to_pillow(pixels).resize((width, height), Image.Resampling.NEAREST), (LEFT, top))
        _write_axes(ImageDraw.Draw(drawn), title, top, height, width)
    return drawn


def _write_axes(draw: ImageDraw.ImageDraw, title: str, top: int, height: int, width: int) -> None:
    font = ImageFont.load_default(12)
    draw.text((LEFT, top - 3), title, INK, font, anchor="ls")
    mels = hertz_to_mel(np.array([*map(float, HERTZ), MEL.highest]))
    for hertz, mel in zip(HERTZ, mels, strict=False):
        y = top + height - mel / mels[-1] * (MEL.bands + 1) * SCALE + SCALE / 2  # band m peaks at edge m + 1
        draw.line((LEFT - 4, y, LEFT - 1, y), INK)
        draw.text((LEFT - 6, y), f"{hertz} Hz" if hertz == HERTZ[-1] else str(hertz), INK, font, anchor="rm")
    seconds = MEL.seconds(width / SCALE)
    step = 0.5 if seconds < 4 else 1.0 if seconds < 8 else 2.0
    for number in range(int(seconds / step) + 1):
        x = LEFT + number * step / MEL.seconds(1) * SCALE
        draw.line((x, top + height, x, top + height + 3), INK)
        draw.text(
            (x, top + height + 4),
            f"{number * step:g} s" if not number else f"{number * step:g}",
            INK,
            font,
            anchor="ma",
        )
