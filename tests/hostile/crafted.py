"""Files that nobody honest would write, built byte by byte."""

from __future__ import annotations

import io
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

MAGIC = 0x1950A86A20F9469CFC6C
CONTAINERS = ("bare", "zip", "stream")


def text(value: str) -> bytes:
    """BINUNICODE."""
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value: int) -> bytes:
    """LONG4: any integer."""
    encoded = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8b" + struct.pack("<i", len(encoded)) + encoded


def name(module: str, attribute: str) -> bytes:
    """GLOBAL."""
    return f"c{module}\n{attribute}\n".encode()


def stack_name(module: str, attribute: str) -> bytes:
    """STACK_GLOBAL."""
    return text(module) + text(attribute) + b"\x93"


def items(*values: bytes) -> bytes:
    """MARK ... TUPLE."""
    return b"(" + b"".join(values) + b"t"


def table(pairs: Mapping[str, bytes]) -> bytes:
    """EMPTY_DICT MARK ... SETITEMS."""
    return b"}(" + b"".join(text(key) + value for key, value in pairs.items()) + b"u"


def storage(kind: str = "FloatStorage", key: str = "0", numel: int = 4, view: bytes = b"") -> bytes:
    """BINPERSID of PyTorch's."""
    return items(text("storage"), name("torch", kind), text(key), text("cpu"), number(numel), view) + b"Q"


def tensor(
    shape: tuple[int, ...] = (4,), strides: tuple[int, ...] = (1,), offset: int = 0, stored: bytes | None = None
) -> bytes:
    """A call of _rebuild_tensor_v2."""
    sizes = [items(*map(number, numbers)) for numbers in (shape, strides)]
    ordered_dict = name("collections", "OrderedDict") + b")R"
    arguments = items(storage() if stored is None else stored, number(offset), *sizes, b"\x89", ordered_dict)
    return name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def program(body: bytes) -> bytes:
    """PROTO ... STOP."""
    return b"\x80\x02" + body + b"."


def zipped(records: Mapping[str, bytes] | list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", compression) as file,
        warnings.catch_warnings(action="ignore"),
    ):  # of names given twice
        for record, content in records.items() if isinstance(records, Mapping) else records:
            file.writestr(record, content)
    return buffer.getvalue()


def torch_zip(pickled: bytes, storages: Mapping[str, bytes] | None = None, **others: bytes) -> bytes:
    storages = {"0": bytes(16)} if storages is None else storages
    records = {
        "m/data.pkl": pickled,
        "m/byteorder": b"little",
        **{f"m/data/{key}": content for key, content in storages.items()},
    }
    return zipped(records | {f"m/{record}": content for record, content in others.items()} | {"m/version": b"3\n"})


def torch_stream(pickled: bytes, storages: Mapping[str, tuple[int, bytes]] | None = None) -> bytes:
    """The number of elements, and the bytes, for each storage."""
    storages = {"0": (4, bytes(16))} if storages is None else storages
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = b"".join(pickle.dumps(value, 2) for value in (MAGIC, 1001, system))
    tail = b"".join(struct.pack("<q", numel) + content for numel, content in storages.values())
    return head + pickled + pickle.dumps(list(storages), 2) + tail


def contained(pickled: bytes, container: str) -> bytes:
    return {"bare": lambda p: p, "zip": torch_zip, "stream": torch_stream}[container](pickled)


def safetensors(header: bytes | dict, content: bytes = b"", length: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + content


def written(folder: Path, content: bytes, file: str = "model") -> Path:
    path = folder / file
    path.write_bytes(content)
    return path
