"""Shards: files of latents, each written whole or not at all, with a list of its images."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from torch import Tensor

from ..devices import DTYPES
from ..errors import FormatError
from ..files.atomic import atomic, check_header, read_json, read_tensors, write_tensors, write_text
from ..files.tensor_file import open_tensors
from .image_file import METADATA_KEY
from .plan import LatentsPlan, Shard


class ShardRow(NamedTuple):
    """The image of one row of a shard."""

    number: int
    """position in the data set"""
    name: str
    """path below the source"""
    digest: str
    """SHA-256 of the file's bytes"""


class Content(NamedTuple):
    """The images of a shard."""

    rows: list[ShardRow]
    skipped: list[tuple[str, str]]
    """(name, reason) of images without latents"""


def write_shard(
    folder: Path, shard: Shard, tensors: dict[str, Tensor], content: Content, plan: LatentsPlan, facts: dict[str, Any]
) -> None:
    """Write a shard: its list first, so that every shard has one.

    facts: metadata about the VAE and the preprocessing. Errors: VaeworksError where it cannot be written.
    """
    text = json.dumps({"images": content.rows, "skipped": content.skipped}, ensure_ascii=False)
    write_text(folder / shard.names, text)
    own = facts | {
        "plan": plan.digest,
        "first": shard.start,
        "last": shard.stop - 1,
        "names": shard.names,
        "names_sha256": hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest(),  # as `write_text` does
    }
    metadata = {
        "total_size": str(len(content.rows)),
        "dtype": str(DTYPES[plan.settings.dtype]),
        "device": "cpu",
        METADATA_KEY: json.dumps(own),
    }
    with atomic(folder / shard.file, overwrite=True) as temporary:
        write_tensors(temporary, tensors, metadata)


def is_done(folder: Path, shard: Shard, plan: LatentsPlan) -> bool:
    """Whether a shard and its list exist.

    Errors: FormatError for a file of its name that is torn, or belongs to other latents.
    """
    path = folder / shard.file
    if not path.exists():
        return False
    try:
        check_header(path)
        with open_tensors(path, framework="pt") as file:
            own = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise FormatError(
            f"{path} is not a whole safetensors file ({error}); delete it, and the same call makes it again"
        ) from None
    if not isinstance(own, dict) or own.get("plan") != plan.digest:
        raise FormatError(
            f"{path} belongs to other latents than {folder / 'index.json'} describes; delete it, or choose another "
            "folder"
        )
    return (folder / shard.names).exists()


def read_content(folder: Path, shard: Shard) -> Content:
    """The images of a shard. Errors: FormatError for a list that is missing or torn."""
    return _content(folder / shard.names, shard.file)


def names_of(path: Path) -> list[str] | None:
    """The names of a shard's images, by the list beside it; None for latents of one image or from elsewhere,
    which have no list.

    Errors: FormatError for a list that is torn.
    """
    _, metadata = read_tensors(path)
    try:
        own = json.loads(metadata.get(METADATA_KEY, "{}"))
    except (ValueError, RecursionError):
        return None
    names = own.get("names") if isinstance(own, dict) else None
    if not isinstance(names, str) or Path(names).name != names or not (path.parent / names).is_file():
        return None
    return [row.name for row in _content(path.parent / names, path.name).rows]


def _content(path: Path, shard: str) -> Content:
    """The list in a file, of the images of a shard."""
    found = read_json(path)
    try:
        content = Content(
            [ShardRow(*row) for row in found["images"]], [(name, reason) for name, reason in found["skipped"]]
        )
    except (KeyError, TypeError, ValueError):
        raise FormatError(f"{path} does not list the images of {shard}") from None
    known = all(
        type(number) is int and isinstance(name, str) and isinstance(digest, str)
        for number, name, digest in content.rows
    )
    if not known or not all(isinstance(word, str) for skipped in content.skipped for word in skipped):
        raise FormatError(f"{path} lists other things than images by number, name and digest")
    return content
