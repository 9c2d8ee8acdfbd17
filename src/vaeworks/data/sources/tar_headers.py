"""Headers of a tar file, one after the other: what every one claims is checked against the file before it is believed.

Python's own reader follows a size of -512 back to where it came from, in any release before the mend of CVE-2025-8194,
reads extended headers of any length into memory, and answers odd bytes with whatever they happen to mean. It also has
no way to be told.
Sources: POSIX pax (ustar and its extended headers), GNU tar's long names and sparse files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
"""Bytes of a header, and what contents are padded to a multiple of."""

LONGEST = 2**20
"""Bytes of an extended header: names have fewer."""

MOST = 10_000_000
"""Headers of a file."""

REGULAR, SPARSE, FOLDER = (b"0", b"\0", b"7", b"S"), b"S", b"5"
"""Kinds of members with contents: files, contiguous ones, and GNU's sparse ones; of the latter alone; of folders."""

WITHOUT = (b"1", b"2", b"3", b"4", FOLDER, b"6")
"""Kinds of members that have no contents, whatever their size says: links, devices, folders, pipes."""

LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL = b"L", b"K", (b"x", b"X"), b"g"


class BrokenTarError(Exception):
    """Headers end here, and why."""


@dataclass(frozen=True, slots=True)
class Member:
    """What a tar says of a member."""

    name: str
    kind: bytes
    offset: int
    """of its first byte, in bytes"""
    size: int
    """in bytes; all of them are within the file"""
    sparse: bool

    @property
    def is_plain(self) -> bool:
        """Whether its bytes are a file's, as they are."""
        return self.kind in REGULAR and not self.sparse


def read_members(file: BinaryIO, length: int) -> Iterator[Member]:
    """Members in the order of a tar file of `length` bytes. Whatever is claimed, the next header lies behind the last.

    Errors: BrokenTarError, with the reason in a few words, behind all members before it; OSError.
    """
    place, extended = 0, _Extended()
    for _ in range(MOST):
        block = _read(file, place, BLOCK)
        if not block:
            return
        if len(block) < BLOCK:
            raise BrokenTarError(f"broken at byte {place:,}")
        if not block.strip(b"\0"):
            _check_end(file, place + BLOCK)
            return
        name, kind, size = _header(block, place)
        here, place = place, place + BLOCK
        if kind in (LONG_NAME, LONG_LINK, *PAX, PAX_GLOBAL):
            if size > LONGEST or place + size > length:
                raise BrokenTarError(f"broken at byte {here:,}: an extended header of {size:,} bytes")
            extended.add(kind, _read(file, place, size), here)
            place += _padded(size)
            continue
        if kind == SPARSE:  # its map may go on in front of its contents
            more = bool(block[482])
            while more:
                more, place = bool(_read(file, place, BLOCK)[504:505].strip(b"\0")), place + BLOCK
        size = 0 if kind in WITHOUT else extended.size if extended.size is not None else size
        if place + size > length:
            raise BrokenTarError(
                f"broken at byte {here:,}: a member of {size:,} bytes, of which the file has {max(0, length - place):,}"
            )
        yield Member(extended.name or name, kind, place, size, extended.sparse or kind == SPARSE)
        place, extended = place + _padded(size), _Extended()
    raise BrokenTarError(f"more than {MOST:,} members")


class _Extended:
    """What extended headers say of the member that follows. Those of all members (`g`) may not move or rename any."""

    def __init__(self) -> None:
        self.name = ""
        self.size: int | None = None
        self.sparse = False

    def add(self, kind: bytes, content: bytes, here: int) -> None:
        if kind == LONG_NAME:
            self.name = _text(content)
        if kind not in PAX:
            return
        for key, value in _records(content, here):
            if key == b"path":
                self.name = _text(value).rstrip("/")
            elif key == b"size":
                self.size = _decimal(value, here)
            elif key.startswith(b"GNU.sparse"):
                self.sparse = True


def _records(content: bytes, here: int) -> Iterator[tuple[bytes, bytes]]:
    """Names and values of pax records: their length, a blank, name=value, a new line."""
    content, place = content.rstrip(b"\0"), 0
    while place < len(content):
        digits, blank, _ = content[place : place + 21].partition(b" ")
        length = _decimal(digits, here)
        record = content[place + len(digits) + 1 : place + length]
        key, equals, value = record.partition(b"=")
        if not (blank and equals and value.endswith(b"\n") and place + length <= len(content)):
            raise BrokenTarError(f"broken at byte {here:,}: an extended header that is none")
        yield key, value[:-1]
        place += length


def _header(block: bytes, here: int) -> tuple[str, bytes, int]:
    """Name, kind and size. Errors: BrokenTarError."""
    rest = block[:148] + b" " * 8 + block[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in rest)
    if _number(block[148:156], here) not in (sum(rest), signed):
        raise BrokenTarError(f"broken at byte {here:,}")
    name, kind, prefix = _text(block[:100]), block[156:157], _text(block[345:500])
    if kind == b"\0" and name.endswith("/"):  # as tars had folders before there was a kind
        kind = FOLDER
    if prefix and kind not in (LONG_NAME, LONG_LINK, SPARSE):
        name = f"{prefix}/{name}"
    return name.rstrip("/") if kind == FOLDER else name, kind, _number(block[124:136], here)


def _number(field: bytes, here: int) -> int:
    """A number in octal digits, or in binary with the first bit set. Errors: BrokenTarError for any other, and for one
    below zero."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    if digits.strip(b"01234567"):
        raise BrokenTarError(f"broken at byte {here:,}: {field!r} is no number")
    return int(digits or b"0", 8)


def _decimal(digits: bytes, here: int) -> int:
    if not (0 < len(digits) < 20 and digits.isdigit()):
        raise BrokenTarError(f"broken at byte {here:,}: {digits[:20]!r} is no number")
    return int(digits)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _read(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)


BEHIND = 2**24
"""Bytes behind the end mark that are looked at: tar pads to far less."""


def _check_end(file: BinaryIO, place: int) -> None:
    """Errors: BrokenTarError where something follows the end mark."""
    file.seek(place)
    if file.read(BEHIND).strip(b"\0"):
        raise BrokenTarError("something follows its end mark, as if several tars had been joined")
