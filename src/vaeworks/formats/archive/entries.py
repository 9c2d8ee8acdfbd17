"""`Entry` and `ByteLayout`: a tensor that is known but not read, and where its bytes lie in a mapped file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import FormatError
from .mapped import MappedFile

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHUNK = 16 * 2**20
"""Bytes that are on the heap at most while a tensor is copied."""

ROOM = 64 * 2**20
"""Bytes that a tensor may take even where its file is smaller: expanded tensors store one element for many."""

MAX_DIMENSIONS = 64
"""PyTorch's own limit for most operations."""

BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "C64": 64, "complex128": 128,
    "F8_E4M3": 8, "F8_E4M3FNUZ": 8, "F8_E5M2": 8, "F8_E5M2FNUZ": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
    "quint8": 8, "qint8": 8, "qint32": 32, "quint4x2": 8, "quint2x4": 8,
}  # fmt: skip
"""Bits per element, by safetensors' names and, where it has none, PyTorch's."""


@dataclass(frozen=True)
class Entry:
    """A tensor in a file, not read yet.

    `dtype` is safetensors' name ("F32", "BF16", "F8_E4M3", "I64"), or PyTorch's where safetensors has none
    ("complex128").
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * BITS[self.dtype] // 8

    @property
    def is_float(self) -> bool:
        return self.dtype in ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class ByteLayout:
    """Where an entry's bytes lie: `strides` in elements from byte `start` of the file; None for C order."""

    entry: Entry
    file: MappedFile
    start: int
    strides: tuple[int, ...] | None = None

    def read(self) -> Tensor:
        """The tensor, a copy-on-write view of the mapped file.

        Errors: FormatError for a dtype that PyTorch has no tensors of, and for a file that has changed since it was
        opened.
        """
        from .torch_dtypes import TORCH_DTYPES

        entry = self.entry
        if entry.dtype not in TORCH_DTYPES:
            raise FormatError(
                f"PyTorch has no tensors of dtype {entry.dtype}; convert the file to F16, BF16 or F32 where it was made"
            )
        return self._strided(TORCH_DTYPES[entry.dtype])

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The tensor's little-endian bytes in C order, at most 16 MiB at a time; views of the mapped file where it is
        in C order.

        Errors: FormatError for a file that has changed since it was opened.
        """
        if self.strides is None:
            for window in _windows(memoryview(self.file)[self.start : self.start + self.entry.nbytes]):
                self.file.check()
                yield window
        elif self.entry.numel:
            from .torch_dtypes import RAW

            for copy in _copies(self._strided(RAW[BITS[self.entry.dtype]])):
                yield copy
                self.file.check()

    def _strided(self, dtype: torch.dtype) -> Tensor:
        import torch

        self.file.check()
        shape, strides = self.entry.shape, self.strides or c_strides(self.entry.shape)
        if not self.entry.numel:
            return torch.empty(shape, dtype=dtype)
        reach = span(shape, strides) * dtype.itemsize
        content = torch.frombuffer(self.file, dtype=torch.uint8, count=reach, offset=self.start)
        if self.start % dtype.itemsize:
            content = content.clone()  # elements must lie at multiples of their size
        return content.view(dtype).as_strided(shape, strides)


def c_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of a tensor in C order."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements from the first to the last that a strided tensor touches, both included; 0 where it is empty."""
    return 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) if math.prod(shape) else 0


def simple_strides(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...] | None:
    """None for strides that mean C order, whatever those of dimensions of size one are."""
    in_order = all(n == 1 or step == want for n, step, want in zip(shape, strides, c_strides(shape), strict=True))
    return None if in_order or not math.prod(shape) else strides


def check_shape(shape: tuple[int, ...], bits: int, file_size: int) -> str:
    """Why a tensor of this shape is not to be believed; empty where it is.

    Nothing is allocated for a claim: a tensor is at most as large as its file, or as ROOM.
    """
    if len(shape) > MAX_DIMENSIONS:
        return f"{len(shape)} dimensions, more than {MAX_DIMENSIONS}"
    if any(n < 0 or n >= 2**63 for n in shape) or math.prod(max(n, 1) for n in shape) >= 2**60:
        return "an impossible shape"
    nbytes = math.prod(shape) * bits // 8
    return f"{nbytes} bytes in a file of {file_size}" if nbytes > max(file_size, ROOM) else ""


def _windows(view: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(view), CHUNK):
        yield view[start : start + CHUNK]


def _copies(tensor: Tensor) -> Iterator[bytes]:
    """Bytes of a strided tensor, by as many rows at a time as fit into a chunk."""
    import torch

    row = tensor[0].numel() * tensor.itemsize if tensor.ndim else 1
    if row > CHUNK:
        for part in tensor:
            yield from _copies(part)
        return
    rows = CHUNK // row
    for part in tensor.split(rows) if tensor.ndim else (tensor,):
        yield part.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
