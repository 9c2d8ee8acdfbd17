"""Read the headers of a tar file in order, and check each claim against the file.

Python's own reader loops at a size of -512 in releases before the fix of CVE-2025-8194, reads extended headers of any
length into memory, and interprets odd bytes in some way or other. No option changes that.
Sources: POSIX pax (ustar and its extended headers), GNU tar's long names and sparse files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
"""Bytes of a header; contents are padded to a multiple of it."""

LONGEST = 2**20
"""Most bytes of an extended header; names have fewer."""

MOST = 10_000_000
"""Most headers of a file."""

REGULAR, SPARSE, FOLDER = (b"0", b"\0", b"7", b"S"), b"S", b"5"
"""Kinds of members with contents (files, contiguous files, GNU's sparse files); sparse files; folders."""

WITHOUT = (b"1", b"2", b"3", b"4", FOLDER, b"6")
"""Kinds of members without contents, whatever their size field holds: links, devices, folders, pipes."""

LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL = b"L", b"K", (b"x", b"X"), b"g"


class BrokenTarError(Exception):
    """The headers cannot be read further, with the reason."""


@dataclass(frozen=True, slots=True)
class Member:
    """The facts of a tar's member."""

    name: str
    kind: bytes
    offset: int
    """of its first byte, in bytes"""
    size: int
    """in bytes; the whole member is within the file"""
    sparse: bool

    @property
    def is_plain(self) -> bool:
        """Whether its bytes are the content of a file."""
        return self.kind in REGULAR and not self.sparse


def read_members(file: BinaryIO, length: int) -> Iterator[Member]:
    """Members of a tar file of `length` bytes, in order. Every header lies behind the one before, whatever sizes claim.

    Errors: BrokenTarError with the reason, after all members before it; OSError.
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
        if kind == SPARSE:  # its map may continue in front of its contents
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
    """The claims of extended headers about the next member. Global headers (`g`) may not move or rename members."""

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
    """Names and values of pax records; a record is its length, a blank, name=value and a new line."""
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
    if kind == b"\0" and name.endswith("/"):  # folders in old tars without kinds
        kind = FOLDER
    if prefix and kind not in (LONG_NAME, LONG_LINK, SPARSE):
        name = f"{prefix}/{name}"
    return name.rstrip("/") if kind == FOLDER else name, kind, _number(block[124:136], here)


def _number(field: bytes, here: int) -> int:
    """A number in octal digits, or in binary with the first bit set. Errors: BrokenTarError for any other field, and
    for negative numbers."""
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
"""Bytes behind the end mark that are checked; tar pads to far less."""


def _check_end(file: BinaryIO, place: int) -> None:
    """Errors: BrokenTarError where something follows the end mark."""
    file.seek(place)
    if file.read(BEHIND).strip(b"\0"):
        raise BrokenTarError("something follows its end mark, as if several tars had been joined")
