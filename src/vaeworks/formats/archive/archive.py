"""`Archive`: the tensors of a model file of any container, known at once and read when asked for.

Nothing in a file is ever executed, and what a file claims is checked against the bytes it has before anything is
allocated.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from ...errors import FormatError
from ...files.atomic import MAX_HEADER
from ...files.tensor_file import open_tensors
from . import not_a_model as foreign
from .entries import BITS, ROOM, ByteLayout, Entry, check_shape
from .limits import MAX_METADATA, MAX_SHARDS, Allowance, check_names
from .mapped import MappedFile, mapped
from .pickle_vm import TornPickleError, shown
from .torch_files import read_stream, read_zip

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Archive", "Entry", "joined", "open_archive", "open_shards"]

ZIP, PICKLE = b"PK\3\4", b"\x80"
"""First bytes of zip files, and of pickles of protocol 2 and above."""


@dataclass(frozen=True)
class Archive:
    """The tensors of a file, or of a set of files.

    `container` is "safetensors", "pickle", "shards" or "pair"; `metadata` is that of safetensors files; `dropped` says
    in words what a pickle holds besides its tensors; `wrapper` is the keys of the dicts that all of them lie in.
    """

    path: Path
    container: str
    places: Mapping[str, ByteLayout] = field(repr=False)
    metadata: dict[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    wrapper: str = ""

    @cached_property
    def entries(self) -> dict[str, Entry]:
        return {name: place.entry for name, place in self.places.items()}

    def read(self, name: str) -> Tensor:
        """A tensor in its own dtype, a view of the mapped file: writing to it changes memory, never the file.

        Errors: FormatError for a name that is not there, and a dtype that PyTorch has not.
        """
        return self._place(name).read()

    def chunks(self, name: str) -> Iterator[bytes | memoryview]:
        """A tensor's little-endian bytes in C order, at most 16 MiB at a time."""
        return self._place(name).chunks()

    def check_claims(self, names: Iterable[str]) -> None:
        """That tensors which are one network are in the file, one beside another, but for some that are expanded.

        Errors: FormatError for tensors that share their bytes so much that their network is far larger than the file.
        """
        places = [self.places[name] for name in names]
        files = {id(place.file): len(place.file) for place in places}
        claimed, there = sum(place.entry.nbytes for place in places), sum(files.values())
        if claimed > there + ROOM:
            raise FormatError(
                f"{self.path} claims {claimed} bytes of weights in {there} bytes; it was altered, take another copy"
            )

    def _place(self, name: str) -> ByteLayout:
        if name not in self.places:
            raise FormatError(f"{self.path} has no tensor '{shown(name)}'")
        return self.places[name]


def open_archive(path: str | Path, allowance: Allowance | None = None) -> Archive:
    """The tensors of one file, whose kind is told by its content and never by its name.

    allowance: what the other files of the same model have left.
    Errors: FormatError for a file that is missing, torn, altered or of another kind, and for a pickle with anything
    that could run.
    """
    path, allowance = Path(path), allowance or Allowance()
    file = mapped(path)
    head = file[: foreign.HEAD]
    if _is_safetensors(head):
        return _open_safetensors(path, file, allowance)
    if words := foreign.description(head):
        raise FormatError(f"{path} {words}")
    try:
        read = read_zip if head.startswith(ZIP) else read_stream
        places, wrapper, dropped = read(file, str(path), allowance.steps)
    except TornPickleError:
        if head.startswith((ZIP, PICKLE)):  # what is neither may still have been a pickle of protocol 0, which is text
            raise
        raise FormatError(
            f"{path} begins with {head[:8]!r}, which is no model file of a known kind; pass a .safetensors file"
        ) from None
    return Archive(path, "pickle", places, {}, dropped, wrapper)


def open_shards(index: str | Path) -> Archive:
    """The tensors of a model in several files, from its "….safetensors.index.json" or "….bin.index.json".

    Errors: FormatError for an index or a file that is missing or broken, and for files that do not hold what the index
    says.
    """
    index = Path(index)
    files, allowance = _shard_files(index), Allowance()
    places: dict[str, ByteLayout] = {}
    metadata: dict[str, str] = {}
    dropped: dict[str, None] = {}
    for name in sorted(set(files.values())):
        if not (index.parent / name).exists():
            raise FormatError(f"{index} lists '{shown(name)}', which is not beside it; download it too")
        shard = open_archive(index.parent / name, allowance)
        for tensor, place in shard.places.items():
            if files.get(tensor) != name:
                raise FormatError(
                    f"{shard.path} holds tensor '{shown(tensor)}', which {index.name} places elsewhere; download both "
                    "again"
                )
            places[tensor] = place
        metadata.update(shard.metadata)
        dropped.update(dict.fromkeys(shard.dropped))
    if missing := files.keys() - places.keys():
        first = min(missing)
        raise FormatError(
            f"{index.parent / files[first]} lacks tensor '{shown(first)}', which {index.name} asks for; download both "
            "again"
        )
    return Archive(index, "shards", places, metadata, tuple(dropped))


def joined(path: Path, halves: Mapping[str, Archive]) -> Archive:
    """One archive of several, such as a TAESD's encoder and decoder, with each one's prefix before the names of its
    tensors."""
    places = {prefix + name: place for prefix, half in halves.items() for name, place in half.places.items()}
    metadata = {key: value for half in halves.values() for key, value in half.metadata.items()}
    return Archive(
        path,
        "pair",
        places,
        metadata,
        tuple(dict.fromkeys(words for half in halves.values() for words in half.dropped)),
    )


def _is_safetensors(head: bytes) -> bool:
    """Whether a file begins with a length of 64 bits and a brace, or with half of that and is nothing else."""
    length_fits, brace = head[4:8] == bytes(4) and any(head[:4]), head[8:9] == b"{"
    if length_fits and brace:
        return True
    return (length_fits or brace) and not head.startswith((ZIP, PICKLE)) and not foreign.description(head)


def _open_safetensors(path: Path, file: MappedFile, allowance: Allowance) -> Archive:
    """Let safetensors check the header, then read it again for what safetensors does not tell: offsets, and keys given
    twice."""
    (length,) = struct.unpack("<Q", file[:8].ljust(8, b"\0"))
    if length > MAX_HEADER:
        raise FormatError(
            f"{path} claims a header of {length} bytes, more than {MAX_HEADER}; it is torn, or no model file"
        )
    if 8 + length > len(file):
        raise FormatError(
            f"{path} ends within its header: {len(file)} bytes of {8 + length} or more; download it again"
        )
    allowance.take_header(length, str(path))
    try:
        with open_tensors(path, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        raise FormatError(
            f"{path} is not a whole safetensors file: {shown(str(error), 200)}; download it again"
        ) from None
    header = _json(file[8 : 8 + length], path)
    metadata = header.pop("__metadata__", None) or {}
    if len(metadata) > MAX_METADATA:
        raise FormatError(
            f"{path} has {len(metadata)} entries of metadata, more than {MAX_METADATA}; it is no model file"
        )
    check_names(header, str(path))
    places = {name: _safetensors_place(path, file, 8 + length, name, item) for name, item in header.items()}
    return Archive(path, "safetensors", places, metadata)


def _safetensors_place(path: Path, file: MappedFile, content: int, name: str, item: Any) -> ByteLayout:
    match item:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(start), int(end)]} if dtype in BITS:
            entry = Entry(dtype, tuple(shape))
        case _:
            raise FormatError(f"{path}: tensor '{shown(name)}' has a header of an unknown kind; update vaeworks")
    why = check_shape(entry.shape, BITS[dtype], len(file))
    if why or entry.nbytes != end - start or content + end > len(file):
        raise FormatError(f"{path}: tensor '{shown(name)}' claims {why or 'what is not there'}; download it again")
    return ByteLayout(entry, file, content + start)


def _shard_files(index: Path) -> dict[str, str]:
    """An index's file names by tensor; each is a plain name, so that an index reaches nothing outside its folder."""
    content = mapped(index)
    if len(content) > MAX_HEADER:
        raise FormatError(f"{index} has {len(content)} bytes, too many for an index; pass a .safetensors.index.json")
    weight_map = _json(content[:], index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(f"{index} has no weight_map; pass a .safetensors.index.json")
    check_names(weight_map, str(index))
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or name in ("", ".", "..") or any(c in name for c in "/\\:\0"):
            raise FormatError(
                f"{index} places tensor '{shown(tensor)}' in {shown(repr(name))}, which is no file name; mend the index"
            )
    if (count := len(set(weight_map.values()))) > MAX_SHARDS:
        raise FormatError(f"{index} lists {count} files, more than {MAX_SHARDS}; it is no model that holds a VAE")
    return weight_map


def _json(content: bytes, path: Path) -> dict[str, Any]:
    """A JSON object in which no key stands twice.

    Errors: FormatError for anything else.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise FormatError(
                f"{path} has key '{shown(twice)}' twice; which of them counts is anybody's guess, so make the file anew"
            )
        return found

    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=unique)
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON: {shown(str(error))}; download it again") from None
    if not isinstance(value, dict):
        raise FormatError(f"{path} must hold a JSON object, not a {type(value).__name__}; download it again")
    return value
