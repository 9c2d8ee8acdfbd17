"""Pictures side by side, and folders of numbered pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from ...files.atomic import atomic
from ...images import grid, to_pillow

COLUMNS = 8
"""Pictures in a row."""


def sheet(pictures: Sequence[Tensor]) -> Image.Image:
    """Images uint8 c h w in rows of COLUMNS, as one picture."""
    return grid([pictures[first : first + COLUMNS] for first in range(0, len(pictures), COLUMNS)])


def write_numbered(folder: Path, pictures: Sequence[Tensor], overwrite: bool) -> None:
    """Write a folder of numbered PNG files, whole or not at all. Errors: ConfigError for a folder that exists, without
    `overwrite`."""
    with atomic(folder, overwrite) as temporary:
        temporary.mkdir()
        for number, picture in enumerate(pictures):
            to_pillow(picture).save(temporary / f"{number:04}.png")
