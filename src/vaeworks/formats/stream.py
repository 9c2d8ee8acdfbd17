"""Write safetensors files tensor by tensor, without holding a whole file in memory.

Source: the format's description in safetensors' README.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import FormatError
from ..files.atomic import METADATA, check_room
from ..files.tensor_file import open_tensors
from .archive.entries import BITS, Entry
from .archive.torch_dtypes import TORCH_DTYPES

Chunks = Callable[[], Iterable[bytes | memoryview]]

DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
"""safetensors' names of PyTorch's dtypes."""

MAX_HEADER = 100_000_000
"""Longest header that safetensors reads, in bytes."""


@dataclass(frozen=True)
class Item:
    """A tensor to write: `chunks()` yields its little-endian bytes in C order, in pieces of any size."""

    name: str
    entry: Entry
    chunks: Chunks


def tensor_item(name: str, tensor: Tensor) -> Item:
    """An item for a tensor in memory."""
    return Item(name, Entry(DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)), lambda: (tensor_bytes(tensor),))


def tensor_bytes(tensor: Tensor) -> memoryview:
    """A tensor's bytes in C order; they are copied only if its order differs."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def write_stream(
    path: Path,
    items: Iterable[Item],
    metadata: Mapping[str, str] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write a safetensors file and return its size in bytes; call it inside `files.atomic`.

    One chunk is in memory at a time. progress: called after every tensor with the bytes written and the total.
    Errors: VaeworksError for a disk with too little room, before anything is written; FormatError for names that are
    not unique, dtypes that safetensors lacks, and chunks of another length than the shape says.
    """
    # safetensors' own order: wide elements first, so that all are aligned
    ordered = sorted(items, key=lambda item: (-BITS[item.entry.dtype], item.name))
    header = _header(ordered, metadata or {})
    total = len(header) + sum(item.entry.nbytes for item in ordered)
    check_room(path, total)
    done = len(header)
    with path.open("xb") as file:  # with the permissions that the umask leaves
        file.write(header)
        for item in ordered:
            for chunk in _exactly(item):
                file.write(chunk)
            done += item.entry.nbytes
            if progress is not None:
                progress(done, total)
    with open_tensors(path, framework="pt") as written:  # safetensors itself must be able to read it
        assert set(written.keys()) == {item.name for item in ordered}
    return total


def _header(ordered: Sequence[Item], metadata: Mapping[str, str]) -> bytes:
    """Length, names, dtypes, shapes and offsets, padded with spaces so that the first tensor is aligned to 8 bytes."""
    table: dict[str, object] = {METADATA: {str(key): str(value) for key, value in metadata.items()}} if metadata else {}
    place = 0
    for item in ordered:
        if item.name in table or item.name == METADATA:
            raise FormatError(f"two tensors are called {item.name!r}; names in a safetensors file must be unique")
        if not item.entry.dtype.isupper():
            raise FormatError(
                f"safetensors has no dtype {item.entry.dtype}, which {item.name!r} has; cast it where the file was made"
            )
        end = place + item.entry.nbytes
        table[item.name] = {"dtype": item.entry.dtype, "shape": list(item.entry.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise FormatError(f"{len(ordered)} tensors need a header of {len(text)} bytes; safetensors reads {MAX_HEADER}")
    return len(text).to_bytes(8, "little") + text


def _exactly(item: Item) -> Iterator[bytes | memoryview]:
    """The item's chunks, checked for the length that its entry says: another length would move every later tensor."""
    left = item.entry.nbytes
    for chunk in item.chunks():
        left -= memoryview(chunk).nbytes
        if left < 0:
            break
        yield chunk
    if left:
        raise FormatError(
            f"tensor {item.name!r} has {'more' if left < 0 else f'{left} fewer'} bytes than its shape "
            f"{item.entry.shape} says"
        )
