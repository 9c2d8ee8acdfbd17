"""Files that are either whole or not there."""

from __future__ import annotations

import ctypes
import errno
import json
import math
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError

from ..errors import ConfigError, FormatError, VaeworksError, shortage
from ..words import cut
from .links import missing
from .locks import make_folder, remove_empty
from .scratch import home, scratch, stepped_aside
from .tensor_file import open_tensors

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER = 16 * 2**20
"""Longest header of a safetensors file, and longest index of shards, in bytes. 2,500 tensors take 0.3 MB, the index of
92,000 takes 9."""


@contextmanager
def atomic(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary name for `path`. What the block makes there, a file or a folder, gets its final name at the end, once
    it is on the disk.

    If the block fails, nothing is left, and what was at `path` stays. The next call in the same folder removes what a
    killed process has left. Without `overwrite` nothing is replaced, not even what another program has put there
    meanwhile.
    Errors: ConfigError where `path` exists and `overwrite` is off, and for a name that no file can have; VaeworksError
    where the disk is full or not writable, or memory runs out.
    """
    path = Path(path)
    check_free_name(path, overwrite)
    made: list[Path] = []
    try:
        made = make_folder(path.parent)
        with scratch(path.parent) as temporary:
            yield temporary
            if path.is_dir() and not temporary.is_dir():
                raise ConfigError(f"{path} is a folder; choose the name of a file")
            _to_disk(temporary)
            _publish(temporary, path, overwrite)
            _to_disk(path.parent, whole=False)
    except (OSError, SafetensorError, MemoryError, RuntimeError) as error:
        reason = shortage(error) or getattr(error, "strerror", None) or str(error)
        if isinstance(error, RuntimeError) and not shortage(error):
            raise
        kept = "; what was there before is kept" if path.exists() else ""
        raise VaeworksError(f"{path} could not be written: {reason}{kept}") from None
    finally:
        remove_empty(made)  # where nothing was written


LONGEST_NAME = 255
"""Bytes of the name of a file, on all usual file systems."""


def check_name(path: Path) -> None:
    """Errors: ConfigError for a name that no file can have."""
    if (length := len(os.fsencode(path.name))) > LONGEST_NAME:
        raise ConfigError(
            f"the name {cut(path.name, 60)!r} has {length} bytes, and file systems take {LONGEST_NAME}; choose a "
            "shorter one"
        )
    if path.name in ("", "..") or "\0" in str(path):
        raise ConfigError(f"{str(path)!r} is not the name of a file; choose another")


def check_free_name(path: Path, overwrite: bool) -> None:
    """Before any work: a file or folder of this name can be written.

    Errors: ConfigError for a name that no file can have, and for one that is taken if `overwrite` is off.
    """
    check_name(path)
    if not overwrite and os.path.lexists(path) and not _is_empty(path):  # a link to nothing is something, too
        raise _exists(path)


def check_free_picture(path: Path, overwrite: bool) -> None:
    """Before any work: a picture of this name can be written.

    Errors: ConfigError for a folder, an ending that Pillow cannot write, and a name that is taken.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; choose the name of a file")
    picture_kind(path)
    check_free_name(path, overwrite)


def _exists(path: Path) -> ConfigError:
    return ConfigError(f"{path} exists; choose another name, or pass overwrite=True (--overwrite)")


def _is_empty(path: Path) -> bool:
    """Whether it is a folder with nothing in it, which is no loss."""
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def _publish(new: Path, path: Path, overwrite: bool) -> None:
    """Give what was made its name, in one step."""
    if not new.is_dir():
        if overwrite:
            new.replace(path)
        else:
            _name_once(new, path)
    elif overwrite and path.is_dir() and not _is_empty(path):
        _replace_folder(new, path)
    else:
        try:
            new.rename(path)  # the system refuses it where a file is, or a folder with anything in it
        except OSError:
            if not overwrite and os.path.lexists(path):
                raise _exists(path) from None
            raise


def _name_once(new: Path, path: Path) -> None:
    """Give a file its name unless something has it.

    By a second link, which is refused where the name is taken. Where a file system has no links (FAT), an empty file
    claims the name first.
    """
    try:
        os.link(new, path)
        return
    except FileExistsError:
        raise _exists(path) from None
    except (OSError, NotImplementedError):
        pass
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        raise _exists(path) from None
    try:
        new.replace(path)
    except OSError:
        path.unlink()
        raise


def _replace_folder(new: Path, path: Path) -> None:
    """Exchange the new folder for the old one, which is removed with the temporary names.

    In one step where the system can. Elsewhere the old one steps aside first, and goes back if the new one cannot take
    its place; if the process is killed between the two, the next call in the same folder puts it back.
    """
    if not _exchange(new, path):
        path.rename(stepped_aside(new, path))
        new.rename(path)


def _exchange(a: Path, b: Path) -> bool:
    """Whether two names could be exchanged, by Linux' renameat2 or macOS' renamex_np."""
    library: Any = ctypes.CDLL(None) if os.name == "posix" else None
    names = os.fsencode(a), os.fsencode(b)
    if hasattr(library, "renameat2"):
        return library.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0
    if hasattr(library, "renamex_np"):
        return library.renamex_np(*names, _EXCHANGE) == 0
    return False


_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD, and RENAME_EXCHANGE, which macOS calls RENAME_SWAP."""


def _to_disk(path: Path, whole: bool = True) -> None:
    """Wait until a file, or a folder with all that is in it (or its names alone), is on the disk: a name must not
    outlive its content."""
    if path.is_symlink() or (os.name == "nt" and path.is_dir()):
        return
    if whole and path.is_dir():
        for inside in path.iterdir():
            _to_disk(inside)
    file = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (
            errno.EINVAL,
            errno.ENOTSUP,
            errno.EBADF,
            errno.EROFS,
        ):  # a file system that has nothing to wait for
            raise
    finally:
        os.close(file)


def write_text(path: str | Path, text: str, overwrite: bool = True) -> None:
    """Write a text file, whole or not at all. With `overwrite` it replaces what was there."""
    with atomic(path, overwrite) as temporary:
        temporary.write_text(
            text, encoding="utf-8", errors="backslashreplace"
        )  # names of files may hold what is no text


def write_picture(path: Path, picture: Image.Image, overwrite: bool = True) -> None:
    """Write a picture, whole or not at all; the ending of its name decides the format. With `overwrite` it replaces
    what was there.

    Errors: ConfigError for an ending that Pillow does not know, and for a name that is taken.
    """
    kind = picture_kind(path)
    with atomic(path, overwrite) as temporary:
        picture.save(temporary, format=kind)


def picture_kind(path: Path) -> str:
    """Pillow's name for the picture format of a file name.

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
    path.chmod(
        0o666 & ~_umask()
    )  # safetensors makes files that only their owner may read; a web UI may be someone else


METADATA = "__metadata__"
"""The one name in a safetensors header that is not a tensor's."""


def _order_metadata(path: Path) -> None:
    """Metadata in the order of their names, which safetensors leaves to chance: equal content shall be equal bytes."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if METADATA in header:
            header = {METADATA: dict(sorted(header.pop(METADATA).items())), **header}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:
            file.seek(8)
            file.write(text.ljust(length))


SAFETENSORS_ENDINGS = (".safetensors", ".sft")


def check_ending(path: Path) -> None:
    """Errors: ConfigError for the name of a file that applications would not read as safetensors."""
    if path.suffix.lower() not in SAFETENSORS_ENDINGS:
        raise ConfigError(f"{path} must end in .safetensors: applications choose the reader of a file by its ending")


ROOM = 2**20
"""Bytes left free besides what is written."""


def check_room(path: Path, needed: int) -> None:
    """Errors: VaeworksError where the disk of `path`'s folder has no room for so many bytes."""
    folder = home(path)
    free = shutil.disk_usage(folder).free
    if needed + ROOM > free:
        wanted = _mib(needed + ROOM)
        raise VaeworksError(
            f"{folder} has {_mib(free)} free, and {wanted} are needed; make room, or write to another disk"
        )


def map_file(path: Path, shape: tuple[int, ...], kind: Any) -> np.memmap:
    """An array whose memory is a new .npy file. Room is checked first, because writing to a map of a file on a full
    disk ends the process.

    Errors: VaeworksError where there is no room.
    """
    try:
        made = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        size = math.prod(shape) * np.dtype(kind).itemsize
        raise VaeworksError(
            f"{home(path)} cannot take {_mib(size)}: {error.strerror or error}; make room there"
        ) from None
    return made


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:,.1f} MiB"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_header(path: Path) -> None:
    """Check the length that a safetensors file claims for its header; reading an absurd one would take minutes and
    gigabytes.

    Errors: FormatError.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER:
        raise FormatError(
            f"{path} claims a header of {length} bytes, more than {MAX_HEADER}; it is torn, or no file of tensors"
        )


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; the tensors are read from the mapped file when first used.

    Errors: FormatError for a file that is missing, torn or no safetensors file.
    """
    if not path.is_file():
        raise FormatError(f"{path} {missing(path)}")
    try:
        check_header(path)
        with open_tensors(path, framework="pt") as file:
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
