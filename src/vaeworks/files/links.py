"""Files that are not there, in words."""

from __future__ import annotations

from pathlib import Path


def missing(path: Path) -> str:
    """Why a path cannot be read, behind its name: "does not exist", or where the link leads that it is.

    A cache of links, as the Hugging Face hub's, loses the files behind them when it is cleaned or moved.
    """
    if not path.is_symlink():
        return "does not exist"
    try:
        target = str(path.readlink())
    except OSError:
        target = "a place that cannot be read"
    return f"is a link to {target!r}, which does not exist; download it again"
