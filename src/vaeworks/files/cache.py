"""The folder of what can be fetched or computed again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder of fetched weights: weights/ in $VAEWORKS_CACHE, by default ~/.cache/vaeworks
    ($XDG_CACHE_HOME/vaeworks)."""
    base = os.environ.get("VAEWORKS_CACHE")
    return (
        Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "vaeworks")
    ) / "weights"
