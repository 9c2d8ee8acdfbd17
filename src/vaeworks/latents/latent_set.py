"""A folder of latents as a data set to train on."""

from __future__ import annotations

import bisect
import itertools
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import ConfigError, DataError, FormatError
from ..files.atomic import check_header, read_json
from ..files.tensor_file import open_tensors
from ..formats.archive import open_archive
from ..models import Posterior
from .index import INDEX, STATISTICS, STATS, read_plan
from .shards import ShardRow, read_content
from .tensors import FLIPPED, LABELS, LATENTS, LOGVAR


class LatentSet(Dataset[tuple[Tensor, int]]):
    """Latents and labels that `encode_dataset` wrote, read from mapped files when they are needed.

    Rows are in the order of the images. A `DataLoader` takes it, with workers too.

    >>> loader = DataLoader(vw.LatentSet("latents"), batch_size=64, shuffle=True)
    >>> latents, labels = next(iter(loader))
    """

    def __init__(self, folder: str | Path):
        """Errors: FormatError for a folder without an index; DataError for an incomplete one."""
        self.folder = Path(folder)
        self.plan = read_plan(self.folder)
        index = read_json(self.folder / INDEX)
        if not index.get("complete"):
            raise DataError(f"{folder} is not complete; the call that has begun it does the rest")
        self.shards = self.plan.shards()
        try:
            self.facts: dict[str, Any] = dict(index["facts"])
            self.classes: list[str] | None = index["classes"]
            rows = [shard["rows"] for shard in index["shards"]]
        except (LookupError, TypeError, ValueError) as error:
            raise FormatError(f"{self.folder / INDEX} is not whole: {error!r}; encode again") from None
        if [type(n) for n in rows] != [int] * len(self.shards) or any(n < 0 for n in rows):
            raise FormatError(
                f"{self.folder / INDEX} does not count the rows of its {len(self.shards)} shards; encode again"
            )
        self._ends = list(itertools.accumulate(rows))
        self._files: dict[int, Any] = {}
        self._rows: dict[int, list[ShardRow]] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Unnormalized latents c h w in their stored dtype, and the class number (0 without classes)."""
        shard, row = self._place(index)
        return self._row(shard, LATENTS, row), int(self._row(shard, LABELS, row))

    def latents(self, index: int, flip: bool = False) -> Tensor:
        """Latents c h w of an image, or of its mirror image.

        Errors: ConfigError where mirror images were not encoded.
        """
        shard, row = self._place(index)
        return self._row(shard, FLIPPED if flip else LATENTS, row)

    def posterior(self, index: int, flip: bool = False) -> Posterior:
        """The posterior of an image, 1 c h w. Errors: ConfigError where log-variances were not encoded."""
        shard, row = self._place(index)
        name = FLIPPED if flip else LATENTS
        return Posterior.of(self._row(shard, name, row)[None], self._row(shard, name + LOGVAR, row)[None])

    def image(self, index: int) -> ShardRow:
        """The image of a row: its number in the data set, its name, the SHA-256 of its bytes."""
        shard, row = self._place(index)
        if shard not in self._rows:
            found = read_content(self.folder, self.shards[shard]).rows
            if len(found) != (count := self._count(shard)):
                raise FormatError(
                    f"{self.folder / self.shards[shard].names} lists {len(found)} images, {INDEX} {count}; encode again"
                )
            self._rows[shard] = found
        return self._rows[shard][row]

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation by channel, 1 c 1 1 each. LightningDiT trains on (latents - mean) / std."""
        path = next(
            (path for name in (STATISTICS, STATS) if (path := self.folder / name).is_file()), self.folder / STATISTICS
        )
        archive = open_archive(path)  # an earlier version's pickle is not unpickled
        return archive.read("mean"), archive.read("std")

    def _count(self, shard: int) -> int:
        """Number of a shard's rows."""
        return self._ends[shard] - (self._ends[shard - 1] if shard else 0)

    def _place(self, index: int) -> tuple[int, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        index %= len(self)
        shard = bisect.bisect_right(self._ends, index)
        return shard, index - (self._ends[shard - 1] if shard else 0)

    def _row(self, shard: int, name: str, row: int) -> Tensor:
        if shard not in self._files:
            path = self.folder / self.shards[shard].file
            try:
                check_header(path)
                self._files[shard] = open_tensors(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise FormatError(
                    f"{path} is not a whole safetensors file: {error}; delete it, and encode again"
                ) from None
        file = self._files[shard]
        if name not in file.keys():  # noqa: SIM118
            raise ConfigError(
                f"{self.folder} holds no {name}; encode with --flip for mirror images, --posterior moments for "
                "variances"
            )
        part = file.get_slice(name)
        shape, count = part.get_shape(), self._count(shard)
        if len(shape) != (1 if name == LABELS else 4) or shape[0] != count:
            raise FormatError(
                f"{self.folder / self.shards[shard].file} has {name} of shape {shape} for {count} images; encode again"
            )
        return part[row : row + 1][0]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": {}}  # mapped files stay with their process
