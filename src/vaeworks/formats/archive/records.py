"""The records of a zip file as PyTorch writes it: stored, not compressed, none lying over another."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ...errors import FormatError
from .mapped import MappedFile

MAX_RECORDS = 200_000
"""Most records of a zip file: PyTorch writes one for every tensor, and a few besides."""

MAX_DIRECTORY = 32 * 2**20
"""Longest directory of a zip file, in bytes: 200,000 records take half of it."""

_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")


@dataclass(frozen=True, slots=True)
class Record:
    """A record's bytes: `start` to `end` of the file; "" or why they are not its content."""

    start: int
    end: int
    obstacle: str = ""


@dataclass(frozen=True, slots=True)
class _Listed:
    """A record as the directory at the end of the file lists it."""

    name: str
    flags: int
    method: int
    stored: int
    size: int
    header: int


def records(file: MappedFile, where: str) -> dict[str, Record]:
    """The records of a zip file by their names.

    Errors: FormatError for a zip file that is torn or ambiguous.
    Source: PKWARE's APPNOTE.TXT 6.3.
    """
    listed, directory = _directory(file, where)
    names: dict[str, Record] = {}
    free = 0
    for entry in sorted(listed, key=lambda entry: entry.header):
        record = _record(file, entry, where)
        if entry.header < free or record.end > directory or entry.name in names:
            raise FormatError(
                f"{where} is an altered zip file: its records overlap or share a name; ask for a .safetensors file"
            )
        names[entry.name] = record
        free = record.end
    return names


def _directory(file: MappedFile, where: str) -> tuple[list[_Listed], int]:
    """What the directory lists, and its first byte."""
    first, end, count = _directory_bounds(file, where)
    start = first
    if count > MAX_RECORDS or end - start > MAX_DIRECTORY:
        raise FormatError(
            f"{where} is a zip file of {count} records, more than any model file has; unpack it and pass the model "
            "file in it"
        )
    if count * _ENTRY.size > end - start:
        raise _torn(where)
    listed = []
    for _ in range(count):
        entry, start = _listed(file, start, end, where)
        listed.append(entry)
    if start != end:
        raise _torn(where)
    return listed, first


def _directory_bounds(file: MappedFile, where: str) -> tuple[int, int, int]:
    """First byte and end of the directory, and how many entries it has."""
    position = file.rfind(b"PK\5\6", max(0, len(file) - _END.size - 2**16))
    if position < 0 or position + _END.size > len(file):
        raise _torn(where)
    _, disk, first_disk, _, count, size, start, comment = _END.unpack_from(file, position)
    if position + _END.size + comment != len(file):
        raise _torn(where)
    end = position
    if position >= _LOCATOR64.size and file[position - _LOCATOR64.size : position - _LOCATOR64.size + 4] == b"PK\6\7":
        _, _, end, _ = _LOCATOR64.unpack_from(file, position - _LOCATOR64.size)
        if end + _END64.size > position or file[end : end + 4] != b"PK\6\6":
            raise _torn(where)
        _, _, _, _, disk, first_disk, _, count, size, start = _END64.unpack_from(file, end)
    if disk or first_disk or start + size != end:
        raise _torn(where)
    return start, end, count


def _listed(file: MappedFile, start: int, end: int, where: str) -> tuple[_Listed, int]:
    """The directory's entry at byte `start`, and where the next one begins."""
    if start + _ENTRY.size > end or file[start : start + 4] != b"PK\1\2":
        raise _torn(where)
    _, _, _, flags, method, _, _, _, stored, size, name_length, extra_length, comment, _, _, _, header = (
        _ENTRY.unpack_from(file, start)
    )
    name_end = start + _ENTRY.size + name_length
    after = name_end + extra_length + comment
    if after > end:
        raise _torn(where)
    name = file[start + _ENTRY.size : name_end].decode("utf-8", "surrogateescape")
    size, stored, header = _wide(file[name_end : name_end + extra_length], (size, stored, header), where)
    return _Listed(name, flags, method, stored, size, header), after


def _wide(extra: bytes, values: tuple[int, int, int], where: str) -> tuple[int, int, int]:
    """The three numbers with those replaced that do not fit into 32 bits and stand in the entry's zip64 field."""
    wide = list(values)
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        position += 4
        if kind == 1:
            places = [i for i, value in enumerate(values) if value == 0xFFFFFFFF]
            if 8 * len(places) > length or position + length > len(extra):
                raise _torn(where)
            for n, i in enumerate(places):
                (wide[i],) = struct.unpack_from("<Q", extra, position + 8 * n)
        position += length
    return wide[0], wide[1], wide[2]


def _record(file: MappedFile, entry: _Listed, where: str) -> Record:
    """Where the record's bytes lie, behind its own header."""
    if entry.header + _LOCAL.size > len(file) or file[entry.header : entry.header + 4] != b"PK\3\4":
        raise _torn(where)
    _, _, flags, method, _, _, _, _, _, name_length, extra_length = _LOCAL.unpack_from(file, entry.header)
    name_start = entry.header + _LOCAL.size
    start = name_start + name_length + extra_length
    name = file[name_start : name_start + name_length].decode("utf-8", "surrogateescape")
    if name != entry.name or method != entry.method or (flags ^ entry.flags) & 1:
        raise _torn(where)
    obstacle = "encrypted" if flags & 1 else "compressed" if method or entry.stored != entry.size else ""
    return Record(start, start + entry.stored, obstacle)


def _torn(where: str) -> FormatError:
    return FormatError(f"{where} is a zip file that is torn or altered; download it again")
