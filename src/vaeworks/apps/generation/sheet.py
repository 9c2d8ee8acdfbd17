"""Pictures side by side, and folders of numbered pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from ...files.atomic import atomic
from ...images import labelled, to_pillow

COLUMNS = 8
"""Pictures in a row."""


def sheet(pictures: Sequence[Tensor], names: Sequence[str], title: str = "") -> Image.Image:
    """Images uint8 c h w in rows of COLUMNS, each below its name, as one picture."""
    parts = [slice(first, first + COLUMNS) for first in range(0, len(pictures), COLUMNS)]
    return labelled([pictures[part] for part in parts], captions=[names[part] for part in parts], title=title)


def write_numbered(folder: Path, pictures: Sequence[Tensor], overwrite: bool) -> None:
    """Write a folder of numbered PNG files, whole or not at all. Errors: ConfigError for a folder that exists, without
    `overwrite`."""
    with atomic(folder, overwrite) as temporary:
        temporary.mkdir()
        for number, picture in enumerate(pictures):
            to_pillow(picture).save(temporary / f"{number:04}.png")
