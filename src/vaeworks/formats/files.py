"""Files that are either whole or not there."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from safetensors import SafetensorError, safe_open

from ..errors import ConfigError, FormatError, VaeworksError

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def atomic(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary name beside `path`; the file or folder that the block makes there gets its final name at the end.

    If the block fails, nothing is left and what was at `path` stays.
    Errors: ConfigError where `path` exists and `overwrite` is off; VaeworksError where the disk is full or not writable.
    """
    path = Path(path)
    if os.path.lexists(path) and not overwrite:  # a link to nothing is something, too
        raise ConfigError(f"{path} exists; choose another name, or pass overwrite=True (--force)")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if path.is_dir():
            if not temporary.is_dir():
                raise ConfigError(f"{path} is a folder; choose the name of a file")
            _replace_folder(temporary, path)
        else:
            temporary.replace(path)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        kept = "; what was there before is kept" if path.exists() else ""
        raise VaeworksError(f"{path} could not be written: {reason}{kept}") from None
    finally:
        with suppress(OSError):
            if temporary.is_dir():
                shutil.rmtree(temporary)
            else:
                temporary.unlink(missing_ok=True)


def _replace_folder(new: Path, path: Path) -> None:
    """A folder cannot be replaced in one step: the old one steps aside, and back if the new one cannot take its place."""
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all, over what was there."""
    with atomic(path, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files may hold what is no text


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a picture, whole or not at all, over what was there; its kind is that of the name's ending.

    Errors: ConfigError for an ending that Pillow does not know.
    """
    kind = picture_kind(path)
    with atomic(path, overwrite=True) as temporary:
        picture.save(temporary, format=kind)


def picture_kind(path: Path) -> str:
    """Pillow's name for the kind of picture that a file name asks for.

    Errors: ConfigError for an ending that Pillow cannot write.
    """
    kind = Image.registered_extensions().get(path.suffix.lower(), "")
    if kind not in Image.SAVE:
        raise ConfigError(f"{path} does not end like a kind of picture; .png and .jpg do")
    return kind


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file; call it inside `atomic`."""
    from safetensors.torch import save_file

    save_file({name: t.detach().contiguous().cpu() for name, t in tensors.items()}, path, metadata=dict(metadata or {}))
    _order_metadata(path)
    path.chmod(0o666 & ~_umask())  # safetensors makes files that only their owner may read; a web UI may be someone else


METADATA = "__metadata__"


def _order_metadata(path: Path) -> None:
    """Metadata in the order of their names, which safetensors leaves to chance: equal content shall be equal bytes. And all on the disk."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if METADATA in header:
            header = {METADATA: dict(sorted(header.pop(METADATA).items())), **header}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:
            file.seek(8)
            file.write(text.ljust(length))
        file.flush()
        os.fsync(file.fileno())


SAFETENSORS_ENDINGS = (".safetensors", ".sft")


def check_ending(path: Path) -> None:
    """Errors: ConfigError for the name of a file that applications would not read as safetensors."""
    if path.suffix.lower() not in SAFETENSORS_ENDINGS:
        raise ConfigError(f"{path} must end in .safetensors: applications choose the reader of a file by its ending")


ROOM = 2**20
"""Bytes left free besides what is written."""


def check_room(path: Path, needed: int) -> None:
    """Errors: VaeworksError where the disk of `path`'s folder has no room for so many bytes."""
    free = shutil.disk_usage(path.parent).free
    if needed + ROOM > free:
        wanted = _mib(needed + ROOM)
        raise VaeworksError(f"{path.parent} has {_mib(free)} free, and {wanted} are needed; make room, or write to another disk")


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:,.1f} MiB"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; the tensors are read from the mapped file when first used.

    Errors: FormatError for a file that is missing, torn or no safetensors file.
    """
    if not path.is_file():
        raise FormatError(f"{path} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path} is not a whole safetensors file: {error}") from None


MOST_JSON = 2**28
"""Bytes of a JSON file: the list of a million images has fewer."""

MAX_CONFIG = 2**20
"""Longest description of a model, in bytes; real ones have 1,000."""


def read_json(path: Path, limit: int = MOST_JSON) -> dict:
    """A JSON object from a file of at most `limit` bytes.

    Errors: FormatError for a file that is missing or longer, or holds something else.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(f"{path} is no regular file")
        if status.st_size > limit:
            raise FormatError(f"{path} has {status.st_size:,} bytes of JSON; more than {limit:,} are not read")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"{path} could not be read: {error.strerror}") from None
    except ValueError as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path} is not JSON: {error}") from None
    except RecursionError:
        raise FormatError(f"{path} is not JSON that means anything here: its levels are too deep") from None
    if not isinstance(value, dict):
        raise FormatError(f"{path} must hold a JSON object, not a {type(value).__name__}")
    return value
