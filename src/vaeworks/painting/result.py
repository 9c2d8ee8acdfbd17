"""The result of a painting run, and of a look at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

from ..images import notebook


@dataclass(frozen=True)
class PaintLook:
    """What a look at a run in training gave."""

    picture: Image.Image | None
    """the sheet of painted prompts"""
    figures: Mapping[str, float | None]


@dataclass(frozen=True)
class PaintResult:
    """The figures of a finished run."""

    pipeline: str
    """the folder"""
    kind: str
    """the pipeline's class in diffusers"""
    images_seen: int
    seconds: float
    """time of training and looks, over all parts of the run"""
    images_per_second: float
    loss: float | None
    """of the last batch"""
    held_out_loss: float | None
    """mean loss of held-out images; None without any"""
    num_parameters: int
    """trained ones"""
    precision: str
    device: str
    prompts: tuple[str, ...]
    """of the sheet"""

    def __repr__(self) -> str:
        """One line: where the pipeline is, and how far its training came."""
        held = "" if self.held_out_loss is None else f", held-out loss {self.held_out_loss:.4g}"
        return (
            f"PaintResult({self.pipeline!r}: {self.kind}, {self.images_seen:,} images in {self.seconds / 60:.1f} min"
            f"{held}, {self.num_parameters:,} parameters, {self.precision} on {self.device})"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as `vaeworks train-pipeline --json` prints them."""
        return {**asdict(self), "prompts": list(self.prompts)}

    def _repr_html_(self) -> str:
        """The figures as a table, for notebooks."""
        rows = [
            ("pipeline", self.kind),
            ("images seen", f"{self.images_seen:,}"),
            ("minutes", f"{self.seconds / 60:.1f}"),
            ("images per second", f"{self.images_per_second:.1f}"),
            ("held-out loss", "no held-out images" if self.held_out_loss is None else f"{self.held_out_loss:.4g}"),
            ("parameters", f"{self.num_parameters:,}"),
            ("precision", f"{self.precision} on {self.device}"),
        ]
        return notebook.heading(f"pipeline {self.pipeline}") + notebook.table(rows)
