"""Facts from the files of a finished run, for its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config import AutoencoderConfig, TrainConfig
from ..run.folder import RunRecord
from .log_schema import LOOK, STEP


@dataclass(frozen=True)
class Facts:
    """Facts from the files of a finished run."""

    name: str
    record: RunRecord
    data: Mapping[str, Any]
    result: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]
    model: AutoencoderConfig
    """as it is in the model's file"""

    @property
    def config(self) -> TrainConfig:
        """The run's configuration."""
        return self.record.config

    @property
    def source(self) -> str:
        """The data's name."""
        given = self.record.source
        return given if ":" in given or "/" not in given else Path(given).name

    @property
    def seen(self) -> str:
        """The training images in words."""
        if (streamed := self.data.get("streamed")) is not None:
            count = f"{streamed['shards']} shards" if streamed.get("shards") else "all shards"
            return f"the images of {self.source}, read as a stream ({count})"
        return f"{len(self.data['train']):,} images of {self.source}"

    @property
    def look(self) -> Mapping[str, Any]:
        """The last validation; {} without held-out images."""
        return next((line for line in reversed(self.lines) if LOOK in line), {})

    @property
    def step(self) -> Mapping[str, Any]:
        """The last step that was logged."""
        return next((line for line in reversed(self.lines) if STEP in line), {})

    @property
    def judged(self) -> int:
        """Number of held-out images in a validation."""
        return min(self.config.data.val_images, len(self.data["val"]))
