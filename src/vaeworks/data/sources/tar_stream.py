"""Tars as a stream: samples in stored order, read with tar_headers.py."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

from ...errors import DataError
from ...images import SUFFIXES
from .hub import DatasetName, choose_column
from .tar_headers import BrokenTarError
from .tars import TarMember, key_and_field, plain_members

LOOKED_AT = 5
"""Number of first samples whose fields decide the image field."""


class TarShards:
    """Tars with the interface of `Shards`: a tar is a shard, a sample is a row, the column is a field such as `jpg`."""

    def __init__(self, name: DatasetName, tars: list[Path]):
        self.tars = tars
        self.count = len(tars)
        split = name.split or "train"
        fields = _fields(tars[0])
        images = [field for field in fields if f".{field.lower()}".endswith(SUFFIXES)]
        self.name = dataclasses.replace(name, split=split, column=choose_column(images, fields, name, split))

    def rows(self, shard: int, start: int = 0) -> Iterator[tuple[str, bytes | DataError]]:
        """(name, encoded image or the reason why there is none) of a tar's samples from number `start` on.

        Errors: DataError where the tar cannot be read on.
        """
        samples, index = _samples(self.tars[shard]), start
        try:
            for index, sample in enumerate(itertools.islice(samples, start, None), start):
                yield self._row(shard, index), _image(sample.get(self.name.column))
                index += 1
        except (BrokenTarError, OSError) as error:
            raise DataError(f"{self._row(shard, index)} and what follows cannot be read: {error}") from None

    def _row(self, shard: int, index: int) -> str:
        return f"{self.name}:{self.name.split}/{shard}#{index}"


def _fields(tar: Path) -> list[str]:
    """The fields of the first samples. Errors: DataError for a file that is no tar."""
    found: dict[str, None] = {}
    try:
        for sample in itertools.islice(_samples(tar), LOOKED_AT):
            found |= dict.fromkeys(sample)
    except BrokenTarError as error:
        if not found:
            raise DataError(f"{tar} is no tar file: {error}") from None
    return list(found)


def _image(member: TarMember | DataError | None) -> bytes | DataError:
    try:
        return member.read_bytes() if isinstance(member, TarMember) else member or DataError("no image in this row")
    except DataError as error:
        return error


def _samples(tar: Path) -> Iterator[dict[str, TarMember | DataError]]:
    """Members of each sample by their fields, without hidden ones and those without a field. Errors: those of
    `plain_members`."""
    members = (member for member in plain_members(tar) if not _hidden(member.name))
    for _, sample in itertools.groupby(members, key=lambda member: key_and_field(member.name)[0]):
        found: dict[str, TarMember | DataError] = {}
        broken: BrokenTarError | None = None
        try:
            for member in sample:
                field = member.name.rpartition("/")[2].partition(".")[2]
                found[field] = DataError(f"{member.name} is in {tar} twice") if field in found else member
        except BrokenTarError as error:  # raised after the readable part of this sample
            broken = error
        yield found
        if broken:
            raise broken


def _hidden(name: str) -> bool:
    last = name.rpartition("/")[2]
    return last.startswith((".", "__")) or "." not in last
