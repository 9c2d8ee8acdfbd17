"""`MappedFile`: a file as memory, which tells when others change it."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from ...errors import FormatError
from ...files.links import missing


class MappedFile(mmap.mmap):
    """A file's content, read when first touched, copied when written to: the file itself is never written.

    Touching what is no longer there kills a process (SIGBUS), and a file that is rewritten in place gives a mixture of
    old and new. So whoever reads asks `check` just before. Two things remain: the moment between the question and the
    reading, and weights of a loaded model, which are still in the file when it is cut later. Replacing a file by
    renaming another one over it disturbs nobody: the old one stays mapped.
    """

    path: Path
    """as the user named it"""
    _place: str
    _written: tuple[int, int, int]

    def check(self) -> None:
        """Errors: FormatError where the file was cut or written to since it was opened."""
        if self.size() < len(self):
            raise FormatError(
                f"{self.path} was cut from {len(self)} to {self.size()} bytes while it was in use; load it again when "
                "it is whole"
            )
        try:
            now = _written(os.stat(self._place))
        except OSError:  # moved or removed: what is mapped stays as it was
            return
        if now != self._written and now[:2] == self._written[:2]:
            raise FormatError(f"{self.path} was written to while it was in use; load it again when it is whole")


def mapped(path: Path) -> MappedFile:
    """A regular file that is not empty.

    Errors: FormatError for anything else.
    """
    try:
        if path.is_dir():
            raise FormatError(f"{path} is a folder; pass a model file in it")
        if not path.is_file():
            raise FormatError(f"{path} {'is no regular file' if path.exists() else missing(path)}; pass a model file")
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not status.st_size:
                raise FormatError(f"{path} is empty; download it again")
            if hasattr(mmap, "MAP_NORESERVE"):  # else Linux wants memory for all that might be written to
                flags, prot = mmap.MAP_PRIVATE | mmap.MAP_NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
                content = MappedFile(file.fileno(), 0, flags=flags, prot=prot)
            else:
                content = MappedFile(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise FormatError(f"{path} could not be read: {error.strerror}") from None
    content.path, content._place, content._written = path, os.path.abspath(path), _written(status)
    return content


def _written(status: os.stat_result) -> tuple[int, int, int]:
    """Which file it is, and when it was last written to."""
    return status.st_dev, status.st_ino, status.st_mtime_ns
