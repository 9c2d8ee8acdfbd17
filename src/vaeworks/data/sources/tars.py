"""Images in tar files with WebDataset's layout, read in place without extraction.

A sample consists of the members whose names are equal up to the first dot behind the last slash. The rest of a name is
the member's field.
Source: the WebDataset format (github.com/webdataset/webdataset).
"""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...images import LARGEST_FILE, SUFFIXES, UNREAD, regular_file
from ..caption_text import ENDINGS, LONGEST, decoded, named_text
from .folder import files_below, is_junk
from .tar_headers import FOLDER, BrokenTarError, Member, read_members

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
"""Endings of compressed tars, which can only be read from their beginning."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """An image within a tar file."""

    tar: Path
    name: str
    offset: int
    """of the member's first byte, in bytes"""
    size: int
    """in bytes"""
    label: str | None = field(default=None, compare=False)
    """the class that its sample states in a field `cls`, or in `json`"""
    words: tuple[str, int, int] | None = field(default=None, compare=False)
    """name, offset and size of the member with its sample's caption, which is read when it is asked for"""

    @property
    def name_in_archive(self) -> str:
        """The member's name, in which folders may be classes."""
        return self.name

    @property
    def stem(self) -> str:
        """The member's name without folder and ending."""
        return Path(self.name).stem

    @property
    def caption(self) -> str | None:
        """The caption that its sample states in a field `txt` or `caption`, or in `json`; None without one.

        Errors: OSError; DataError for text that is too long or no UTF-8.
        """
        if self.words is None:
            return None
        name, offset, size = self.words
        kind = key_and_field(name)[1]
        if size > (LONGEST_JSON if kind == "json" else LONGEST):
            raise DataError(f"{self.tar}/{name} has {size:,} bytes, more than the {LONGEST:,} of a caption")
        content = _content(self.tar, offset, size)
        return decoded(content, f"{self.tar}/{name}") if kind != "json" else named_text(_values(content))

    def read_bytes(self) -> bytes:
        """The encoded image. Errors: OSError; DataError where the tar ends too early."""
        if self.size > LARGEST_FILE:
            raise DataError(f"{self.size:,} bytes, more than the {LARGEST_FILE:,} that are read of one image")
        return _content(self.tar, self.offset, self.size)

    def __str__(self) -> str:
        return f"{self.tar}/{self.name}"


def tar_files(source: str) -> list[Path] | None:
    """The tars that a source names: one file, braces as in {000..012} or {a,b}, wildcards, or a folder with tars and
    without images; None for a source of another kind.

    Errors: DataError for a name without a file, and for compressed tars, which cannot be read in any order.
    """
    root = Path(source).expanduser()
    try:
        is_folder, is_file = root.is_dir(), root.exists()
    except OSError:  # the name is too long; its braces may stand for shorter ones
        is_folder = is_file = False
    if is_folder:
        found = files_below(root, (".tar", *COMPRESSED))
    elif not source.lower().endswith((".tar", *COMPRESSED)):
        return None
    else:
        found = [path for name in ([source] if is_file else expand_braces(source)) for path in _matches(name)]
    if packed := [path for path in found if path.name.lower().endswith(COMPRESSED)]:
        raise DataError(
            f"{packed[0]} is compressed, so that its images cannot be read in any order; unpack it to a plain .tar"
        )
    return found or None


def _matches(name: str) -> list[Path]:
    path = Path(name).expanduser()
    found = [path] if _is_file(path) else sorted(filter(_is_file, _wild(path)))
    if not found:
        raise DataError(f"tar file {name!r} does not exist")
    return found


def _wild(path: Path) -> Iterator[Path]:
    """Matches of wildcards. With `**`, glob follows circular links; pathlib does not, but finds hidden files, which are
    left out."""
    if "**" not in path.parts:
        return map(Path, glob.iglob(str(path)))
    root = Path(path.anchor)
    found = root.glob(str(path.relative_to(root)))
    return (hit for hit in found if not any(part.startswith(".") and part not in path.parts for part in hit.parts))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or has characters that no name may have
        return False


MOST_NAMES = 100_000
"""Most names that braces may stand for."""

MOST_BRACES = 20


def expand_braces(text: str) -> list[str]:
    """Expand braces as shells do: shard-{008..010}.tar to shard-008.tar, shard-009.tar, shard-010.tar; {a,b} to both.

    Errors: DataError for more than MOST_NAMES names.
    """
    if len(text) > 4096:
        raise DataError(f"{text[:100]!r} and what follows is longer than a path can be")
    found, place = [""], 0
    for count, match in enumerate(re.finditer(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", text)):
        middle = _choices(*match.groups())
        if count >= MOST_BRACES or middle is None or len(found) * len(middle) > MOST_NAMES:
            raise DataError(
                f"{text[:100]!r} stands for more than {MOST_NAMES:,} names; name a folder, or use a wildcard"
            )
        found = [name + text[place : match.start()] + word for name in found for word in middle]
        place = match.end()
    return [name + text[place:] for name in found]


def _choices(first: str | None, last: str | None, words: str | None) -> list[str] | None:
    """What braces stand for; None if that is too much."""
    if words is not None:
        return words.split(",")
    assert first is not None and last is not None
    if max(len(first), len(last)) > 20 or abs(int(first) - int(last)) >= MOST_NAMES:
        return None
    step = 1 if int(first) <= int(last) else -1
    width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
    return [f"{number:0{width}}" for number in range(int(first), int(last) + step, step)]


def tar_members(tar: Path, column: str = "") -> tuple[list[TarMember], list[tuple[str, str]]]:
    """The images of a tar in its order, and (name, reason) of unusable members: links, further images of a sample,
    pictures that are not read, a torn end.

    Beside a simple image field such as `jpg`, a sample's other images are skipped: `0001.seg.png` beside `0001.jpg`.
    column: the field of the images; empty: any.
    Errors: DataError for a file that is no tar.
    """
    found: list[TarMember] = []
    skipped: list[tuple[str, str]] = []
    classes: dict[str, str] = {}
    texts: dict[str, Member] = {}
    try:
        for member in _members(tar):
            name = member.name.removeprefix("./")
            if member.is_plain and (stated := _stated_class(tar, member)) is not None:
                classes.setdefault(key_and_field(name)[0], stated)
            if member.is_plain and (rank := _rank(member.name)) < len(TEXTS):
                other = texts.setdefault(key_and_field(name)[0], member)
                if rank < _rank(other.name):
                    texts[key_and_field(name)[0]] = member
            if member.kind == FOLDER or is_junk(name.split("/")):
                continue
            if (reason := UNREAD.get(Path(name).suffix.lower())) is not None:
                skipped.append((f"{tar}/{name}", reason))
            if not name.lower().endswith(SUFFIXES):
                continue
            if member.is_plain:
                found.append(TarMember(tar, name, member.offset, member.size))
            else:
                skipped.append((f"{tar}/{name}", "a link or a sparse file within the tar"))
    except BrokenTarError as error:
        if not found:
            raise DataError(f"{tar} is no tar file: {error}") from None
        skipped.append((str(tar), f"{error}; what is in front of that is used"))
    if column:
        kept = [member for member in found if key_and_field(member.name)[1] == column.lower()]
    else:
        kept, others = _one_a_sample(found)
        skipped += others
    if classes:
        kept = [replace(member, label=classes.get(key_and_field(member.name)[0])) for member in kept]
    if texts:
        kept = [replace(member, words=_place_of(texts.get(key_and_field(member.name)[0]))) for member in kept]
    return kept, skipped


LONGEST_CLASS, LONGEST_JSON = 2**10, 2**16
"""Bytes of a field `cls`, and of a field `json`, that are looked at."""

CLASS_KEYS = ("label", "cls", "class", "class_id", "class_name", "fine_label")
"""Keys of a sample's `json` that state its class, in this order."""


TEXTS = (*ENDINGS, "json")
"""Fields of a sample that hold its caption, in this order."""


def _rank(name: str) -> int:
    """The place of a member's field in TEXTS; their number for other fields."""
    kind = key_and_field(name)[1]
    return TEXTS.index(kind) if kind in TEXTS else len(TEXTS)


def _place_of(member: Member | None) -> tuple[str, int, int] | None:
    return None if member is None else (member.name.removeprefix("./"), member.offset, member.size)


def _stated_class(tar: Path, member: Member) -> str | None:
    """The class in a field `cls`, or in one of CLASS_KEYS of a field `json`, as text."""
    kind = key_and_field(member.name)[1]
    most = {"cls": LONGEST_CLASS, "json": LONGEST_JSON}.get(kind, -1)
    if not 0 < member.size <= most:
        return None
    with regular_file(tar) as file:
        file.seek(member.offset)
        content = file.read(member.size)
    if kind == "cls":
        return content.decode(errors="replace").strip().partition("\n")[0].strip() or None
    values = _values(content)
    stated = next((values[key] for key in CLASS_KEYS if key in values), None)
    return str(stated) if isinstance(stated, (int, str)) and not isinstance(stated, bool) else None


def _values(content: bytes) -> dict[str, Any]:
    """A JSON object; empty for anything else."""
    try:
        found = json.loads(content.decode(errors="replace"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _content(tar: Path, offset: int, size: int) -> bytes:
    """Bytes of a member. Errors: OSError; DataError where the tar ends too early."""
    with regular_file(tar) as file:
        file.seek(offset)
        content = file.read(size)
    if len(content) < size:
        raise DataError(f"{tar} ends within it")
    return content


def plain_members(tar: Path) -> Iterator[TarMember]:
    """Files in a tar, in its order. Errors: BrokenTarError, after all members before it; DataError for a file that
    cannot be opened."""
    return (TarMember(tar, member.name, member.offset, member.size) for member in _members(tar) if member.is_plain)


def _members(tar: Path) -> Iterator[Member]:
    """Members of a tar. Errors: BrokenTarError; DataError for a file that cannot be opened."""
    try:
        with regular_file(tar) as file:
            yield from read_members(file, os.fstat(file.fileno()).st_size)
    except (OSError, DataError) as error:
        raise DataError(f"{tar}: {getattr(error, 'strerror', None) or error}") from None


def _one_a_sample(members: list[TarMember]) -> tuple[list[TarMember], list[tuple[str, str]]]:
    kept: list[TarMember] = []
    skipped: list[tuple[str, str]] = []
    for key, sample in itertools.groupby(members, key=lambda member: key_and_field(member.name)[0]):
        images = list(sample)
        plain = [member for member in images if f".{key_and_field(member.name)[1]}" in SUFFIXES]
        if not plain:  # dots in these names have another meaning
            kept += images
            continue
        kept.append(plain[0])
        skipped += [(str(other), f"another image of sample {key}") for other in images if other is not plain[0]]
    return kept, skipped


def key_and_field(name: str) -> tuple[str, str]:
    """The key, with its folder, and the field of a name: a/0001 and seg.png of a/0001.seg.png."""
    folder, slash, last = name.rpartition("/")
    key, _, field = last.partition(".")
    return folder + slash + key, field.lower()


def all_tar_members(tars: list[Path], field: str = "") -> tuple[list[TarMember], list[tuple[str, str]]]:
    """`tar_members` of several tars in order. Of several files, those that are no tars are skipped.

    Errors: DataError for a single file that is no tar.
    """
    found: list[TarMember] = []
    skipped: list[tuple[str, str]] = []
    for tar in tars:
        try:
            members, unused = tar_members(tar, field)
        except DataError as error:
            if len(tars) == 1:
                raise
            members, unused = [], [(str(tar), str(error))]
        found += members
        skipped += unused
    return found, skipped
