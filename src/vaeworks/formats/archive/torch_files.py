"""PyTorch's two containers: the zip file, and the stream of before PyTorch 1.6."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from typing import NoReturn

from ...errors import FormatError
from .entries import BITS, ByteLayout, Entry, check_shape, simple_strides, span
from .limits import check_names
from .mapped import MappedFile
from .pickle_types import Storage, StoredTensor, Table, Unreadable, Value
from .pickle_vm import MAX_BYTES, Machine, Stream, shown
from .records import Record, records
from .state_dicts import MAX_DROPPED, kind, state_dict

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001

_NO_TEXT = re.compile("[\ud800-\udfff]")
"""Halves of characters: text that has them cannot be written as UTF-8."""

Contents = tuple[dict[str, ByteLayout], str, tuple[str, ...]]
"""Tensors by name, the keys before all of them, and what else a file held."""


def read_zip(file: MappedFile, where: str, steps: Iterator[int] | None = None) -> Contents:
    """The tensors of a zip file that torch.save wrote.

    Errors: FormatError for any other zip file, and for whatever is wrong with this one.
    """
    names = records(file, where)
    root = _root(names, where)
    _check_byteorder(file, names.get(f"{root}/byteorder"), where)
    data = names[f"{root}/data.pkl"]
    if data.end - data.start > MAX_BYTES:
        raise FormatError(
            f"{where} has a pickle of {data.end - data.start} bytes, more than {MAX_BYTES}; it is no model file"
        )
    if file[data.start : min(data.end, data.start + 4)] == b"PK\3\4":
        raise FormatError(f"{where} is a zip file within a zip file; unpack it first, or ask for a .safetensors file")
    machine = Machine(where, steps)
    value = machine.interpret(Stream(file, data.start, data.end))
    prefix = f"{root}/data/"
    storages = {name.removeprefix(prefix): record for name, record in names.items() if name.startswith(prefix)}
    return _placed(file, value, machine, storages, where)


def _root(names: Mapping[str, Record], where: str) -> str:
    """The folder within the zip file that everything lies in; its name is whatever the file was called at first."""
    if any(part in name for name in names for part in ("/code/", "/constants.pkl")):
        raise FormatError(
            f"{where} is a TorchScript program, not weights; save the model's state_dict() as a .safetensors file"
        )
    for name, record in names.items():
        if record.obstacle:
            raise FormatError(
                f"{where} is a zip file with {record.obstacle} records ('{shown(name)}'), not one of PyTorch's; unpack "
                "it"
            )
    roots = [name.removesuffix("/data.pkl") for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        first = ", ".join(shown(name, 40) for name in list(names)[:3]) or "nothing"
        raise FormatError(
            f"{where} is a zip file, but not one of PyTorch's (it holds {first}); unpack it and pass the model file in "
            "it"
        )
    return roots[0]


def _check_byteorder(file: MappedFile, record: Record | None, where: str) -> None:
    order = file[record.start : min(record.end, record.start + 8)] if record else b"little"
    if order != b"little":
        raise FormatError(
            f"{where} is not in little-endian byte order; load it where it was made and save it as a .safetensors file"
        )


def read_stream(file: MappedFile, where: str, steps: Iterator[int] | None = None) -> Contents:
    """The tensors of a file of before PyTorch 1.6: pickles of magic number, protocol, system, content and keys, then
    bytes.

    Errors: FormatError for any other pickle, after a look at what it would run, and for whatever is wrong with this
    one.
    """
    machine = Machine(where, steps)
    stream = Stream(file, 0, len(file))
    first = machine.interpret(stream)
    if type(first) is not int or first != MAGIC:
        raise FormatError(
            f"{where} is a plain pickle that holds {kind(first)}, not a file of PyTorch's; ask for a .safetensors file"
        )
    values = []
    for _ in range(4):
        values.append(machine.interpret(stream))
    protocol, system, value, keys = values
    if type(protocol) is not int or protocol != PROTOCOL:
        raise FormatError(f"{where} has an unknown protocol of PyTorch's; load and save it again with a recent PyTorch")
    if type(system) is Table and system.named().get("little_endian") is False:
        raise FormatError(
            f"{where} is not in little-endian byte order; load it where it was made and save it as a .safetensors file"
        )
    return _placed(file, value, machine, _streamed(file, stream.position, keys, machine.storages, where), where)


def _streamed(
    file: MappedFile, position: int, keys: Value, storages: Mapping[str, Storage], where: str
) -> dict[str, Record]:
    """The records behind the pickles, in the order of `keys`: a number of elements, then their bytes."""
    found: dict[str, Record] = {}
    for key in keys if type(keys) is list else ():
        if type(key) is not str or key not in storages or key in found:
            raise FormatError(
                f"{where} is torn or altered: its storages are not those of its tensors; download it again"
            )
        storage = storages[key]
        (numel,) = struct.unpack("<q", file[position : position + 8].ljust(8, b"\0"))
        start = position + 8
        position = start + numel * BITS[storage.dtype] // 8
        if numel != storage.numel or position > len(file):
            raise FormatError(
                f"{where} is torn or altered: storage {shown(key)} has another size than its tensors; download it again"
            )
        found[key] = Record(start, position)
    if position != len(file):
        raise FormatError(
            f"{where} is torn or altered: {len(file) - position} bytes follow its last tensor; download it again"
        )
    return found


def _placed(file: MappedFile, value: Value, machine: Machine, storages: Mapping[str, Record], where: str) -> Contents:
    """The tensors of an unpickled value, each within the bounds of its storage."""
    found = state_dict(value, where)
    check_names(found.tensors, where)
    places = {name: _place(file, name, tensor, storages, where) for name, tensor in found.tensors.items()}
    dropped = list(dict.fromkeys([*found.dropped, *(f"class {shown(name)}" for name in machine.classes)]))
    more = [f"and {len(dropped) - MAX_DROPPED} more"] if len(dropped) > MAX_DROPPED else []
    return places, found.wrapper, (*dropped[:MAX_DROPPED], *more)


def _place(
    file: MappedFile, name: str, tensor: StoredTensor | Unreadable, storages: Mapping[str, Record], where: str
) -> ByteLayout:
    def refuse(why: str) -> NoReturn:
        raise FormatError(f"{where}: tensor '{shown(name)}' {why}; ask for a .safetensors file")

    if _NO_TEXT.search(name):
        refuse("has a name that is no Unicode text")
    if isinstance(tensor, Unreadable):
        refuse(f"is {tensor.kind}")
    storage = tensor.storage
    if storage.key not in storages:
        refuse("has no bytes in the file")
    record = storages[storage.key]
    bits, stored = BITS[tensor.dtype], BITS[storage.dtype]
    if storage.numel < 0 or (storage.offset + storage.numel) * stored > 8 * (record.end - record.start):
        refuse("claims more bytes than its storage has")
    if len(tensor.strides) != len(tensor.shape) or any(not 0 <= step < 2**63 for step in tensor.strides):
        refuse("has impossible strides")
    if why := check_shape(tensor.shape, bits, len(file)):
        refuse(f"claims {why}")
    reach = span(tensor.shape, tensor.strides)
    offset = tensor.offset if reach else 0  # that of an empty view may lie anywhere
    if offset < 0 or (offset + reach) * bits > storage.numel * stored:
        refuse("reaches beyond its storage")
    start = record.start + (storage.offset * stored + offset * bits) // 8
    return ByteLayout(Entry(tensor.dtype, tensor.shape), file, start, simple_strides(tensor.shape, tensor.strides))
