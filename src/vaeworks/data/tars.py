"""Images in tar files, as WebDataset lays them out: read where they lie, never extracted.

A sample is the members whose names are equal up to the first dot behind the last slash; what follows is the member's field.
Source: the WebDataset format (github.com/webdataset/webdataset).
"""

from __future__ import annotations

import glob
import itertools
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..images import SUFFIXES
from .folder import files_below

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
"""Endings of tars that can only be read from their beginning."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """An image within a tar file."""

    tar: Path
    name: str
    offset: int
    """of the member's first byte, in bytes"""
    size: int
    """in bytes"""

    @property
    def stem(self) -> str:
        """The member's name without folder and ending."""
        return Path(self.name).stem

    def read_bytes(self) -> bytes:
        """The encoded image. Errors: OSError; DataError where the tar ends too early."""
        with self.tar.open("rb") as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) < self.size:
            raise DataError(f"{self.tar} ends within it")
        return content

    def __str__(self) -> str:
        return f"{self.tar}/{self.name}"


def tar_files(source: str) -> list[Path] | None:
    """The tars that a source names: one file, braces as in {000..012} or {a,b}, wildcards, a folder with tars and no images.

    None where it names no tar.
    Errors: DataError for a name without a file, and for compressed tars, in which nothing can be found without reading all before it.
    """
    root = Path(source).expanduser()
    if root.is_dir():
        found = [] if files_below(root, SUFFIXES) else files_below(root, (".tar", *COMPRESSED))
    elif not source.lower().endswith((".tar", *COMPRESSED)):
        return None
    else:
        found = [path for name in ([source] if root.exists() else expand_braces(source)) for path in _matches(name)]
    if packed := [path for path in found if path.name.lower().endswith(COMPRESSED)]:
        raise DataError(f"{packed[0]} is compressed, so that its images cannot be read in any order; unpack it to a plain .tar")
    return found or None


def _matches(name: str) -> list[Path]:
    path = Path(name).expanduser()
    found = [path] if path.is_file() else sorted(map(Path, glob.glob(str(path), recursive=True)))
    if not found:
        raise DataError(f"tar file {name!r} does not exist")
    return found


def expand_braces(text: str) -> list[str]:
    """shard-{008..010}.tar as shard-008.tar, shard-009.tar, shard-010.tar, and {a,b} as both, from left to right, as shells do."""
    match = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", text)
    if match is None:
        return [text]
    first, last, words = match.groups()
    if words is not None:
        middle = words.split(",")
    else:
        step = 1 if int(first) <= int(last) else -1
        width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
        middle = [f"{number:0{width}}" for number in range(int(first), int(last) + step, step)]
    return [text[: match.start()] + word + rest for word in middle for rest in expand_braces(text[match.end() :])]


def tar_members(tar: Path) -> tuple[list[TarMember], list[tuple[str, str]]]:
    """The images of a tar in its order, and (name, reason) of what cannot be used: links, further images of a sample, a torn end.

    A sample with an image field as simple as `jpg` has no other image, so that `0001.seg.png` is none beside `0001.jpg`.
    Errors: DataError for a file that is no tar.
    """
    found: list[TarMember] = []
    skipped: list[tuple[str, str]] = []
    try:
        with tarfile.open(tar, "r:") as archive:
            for info in archive:
                name = info.name.removeprefix("./")
                if not name.lower().endswith(SUFFIXES) or info.isdir() or any(part.startswith(".") for part in name.split("/")):
                    continue
                if info.isreg() and not info.issparse():
                    found.append(TarMember(tar, name, info.offset_data, info.size))
                else:
                    skipped.append((f"{tar}/{name}", "a link or a sparse file within the tar"))
            torn = _behind(tar, archive.offset)
    except tarfile.ReadError as error:
        if not found:
            raise DataError(f"{tar} is no tar file: {error}") from None
        torn = str(error)
    except OSError as error:
        raise DataError(f"{tar}: {error.strerror or error}") from None
    if torn:
        skipped.append((str(tar), f"{torn}; what is in front of that is used"))
    kept, others = _one_a_sample(found)
    return kept, skipped + others


def _behind(tar: Path, offset: int) -> str:
    """What is wrong with a tar behind its last member: Python takes a broken header for the end. Empty if nothing is."""
    with tar.open("rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            return f"broken at byte {offset:,}"
        if any(block.strip(b"\0") for block in iter(lambda: file.read(2**20), b"")):
            return "something follows its end mark, as if several tars had been joined"
    return ""


def _one_a_sample(members: list[TarMember]) -> tuple[list[TarMember], list[tuple[str, str]]]:
    kept: list[TarMember] = []
    skipped: list[tuple[str, str]] = []
    for key, sample in itertools.groupby(members, key=lambda member: _key_and_field(member.name)[0]):
        images = list(sample)
        plain = [member for member in images if f".{_key_and_field(member.name)[1]}" in SUFFIXES]
        if not plain:  # names with dots of other meanings
            kept += images
            continue
        kept.append(plain[0])
        skipped += [(str(other), f"another image of sample {key}") for other in images if other is not plain[0]]
    return kept, skipped


def _key_and_field(name: str) -> tuple[str, str]:
    """0001 and seg.png of a/0001.seg.png, the former with its folder."""
    folder, slash, last = name.rpartition("/")
    key, _, field = last.partition(".")
    return folder + slash + key, field.lower()


def all_tar_members(tars: list[Path]) -> tuple[list[TarMember], list[tuple[str, str]]]:
    """`tar_members` of several tars, one after the other; one of several that is no tar is skipped.

    Errors: DataError for a single file that is no tar.
    """
    found: list[TarMember] = []
    skipped: list[tuple[str, str]] = []
    for tar in tars:
        try:
            members, unused = tar_members(tar)
        except DataError as error:
            if len(tars) == 1:
                raise
            members, unused = [], [(str(tar), str(error))]
        found += members
        skipped += unused
    return found, skipped
