"""Write the files of an installed VAE: all of them or none, and nothing if they are there already."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from ...errors import ConfigError, FormatError
from ...files.atomic import atomic
from ..archive import open_archive
from ..archive.torch_dtypes import TORCH_DTYPES
from ..stream import Item, write_stream


def write_once(files: Sequence[tuple[Path, list[Item]]], metadata: dict[str, str], overwrite: bool) -> bool:
    """Write all files or none; return whether they were there already.

    Errors: ConfigError if other files have these names.
    """
    if all(dst.is_file() and _holds(dst, items) for dst, items in files):
        return True
    for dst, _ in files:
        if dst.exists() and not overwrite:
            raise ConfigError(
                f"{dst} exists and is another VAE; pass --name for another name, or --force (overwrite=True) to "
                "replace it"
            )
    with ExitStack() as stack:
        for dst, items in files:
            temporary = stack.enter_context(atomic(dst, overwrite))
            if dst.suffix == ".pth":
                _write_pth(temporary, items)
            else:
                write_stream(temporary, items, metadata)
    return False


def _write_pth(path: Path, items: list[Item]) -> None:
    """Write a pickle of tensors and nothing else, because A1111 reads TAESDs with torch.load only."""
    tensors = {}
    for item in items:
        data = torch.frombuffer(bytearray(b"".join(item.chunks())), dtype=torch.uint8)
        tensors[item.name] = data.view(TORCH_DTYPES[item.entry.dtype]).reshape(item.entry.shape)
    content = io.BytesIO()
    torch.save(
        tensors, content
    )  # given a path, torch would store the temporary name and raise its own error for a full disk
    path.write_bytes(content.getbuffer())


def _holds(path: Path, items: list[Item]) -> bool:
    """Whether a file has exactly these tensors."""
    try:
        archive = open_archive(path)
    except FormatError:
        return False
    if archive.entries != {item.name: item.entry for item in items}:
        return False
    return all(_digest(item.chunks()) == _digest(archive.chunks(item.name)) for item in items)


def _digest(chunks: Iterable[bytes | memoryview]) -> bytes:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()
