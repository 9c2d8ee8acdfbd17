"""Image files: one, or all in a folder tree."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ...errors import DataError
from ...files.links import missing
from ...images import SUFFIXES
from ..bundled_photos import photos


def find_images(source: str | Path) -> list[Path]:
    """The image files of a source: `photos` (bundled with scikit-image and scikit-learn), one file, or a folder tree.

    Errors: DataError where there is no such folder or no image file in it.
    """
    if str(source) == "photos":
        return photos()
    root = Path(source).expanduser()
    if not root.exists():
        raise DataError(
            f"data source {str(source)!r} {missing(root)}; give a folder of images, or `photos` for the bundled ones"
        )
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise DataError(f"{str(source)!r} is no regular file and no folder")
    paths = files_below(root, SUFFIXES)
    if not paths:
        raise DataError(f"no image file in {str(source)!r}; looked for {' '.join(SUFFIXES)} in all its subfolders")
    return paths


def _walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    try:
        yield from os.walk(root, followlinks=False)
    except RecursionError:  # Python 3.11 calls itself for every level
        raise DataError(f"folders in {str(root)[:300]!r} are nested by the hundred; give one further down") from None


def files_below(root: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files of a folder tree with these endings, sorted by path, without hidden ones."""
    return sorted(
        Path(folder, name)
        for folder, _, names in _walk(root)
        if not any(part.startswith(".") for part in Path(folder).relative_to(root).parts)  # thumbnails and caches
        for name in names
        if name.lower().endswith(suffixes) and not name.startswith(".")
    )
