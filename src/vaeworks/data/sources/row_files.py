"""The files that rows and cards of a data set may name: those of the data set itself.

A path in a row is a stranger's text. The file system would open every file that this user may read; fsspec, whose
addresses can name programs and templates, would run them.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ...errors import DataError
from ...images import LARGEST_FILE, file_content, regular_file

HUB_ADDRESS = "hf://datasets/"
"""Beginning of an address of the hub."""

ZIP = "zip://"

PACKED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".7z", ".rar")
"""Endings of files that the library would unpack into its cache, at any size."""

REMEDY = (
    "; copy the images into the folder, write the data set with the images in it, or give the folder of images as the "
    "source"
)
"""How to make a data set of paths readable."""


@dataclass(frozen=True)
class Reach:
    """The files that a data set may name."""

    folders: tuple[Path, ...] = ()
    """resolved paths; relative names start at the first"""
    hub: bool = False
    """whether the data set is of the hub, and may name files there"""

    def content(self, name: str) -> bytes:
        """The content of a file that a row names: by path, hf://datasets/..., or zip://MEMBER::FILE with either.

        Errors: DataError for any other name, and for anything but a regular file; those of networks.
        """
        first, *rest = name.split("::")
        if self.hub and is_hub_address(name):
            return _fetched(name)
        if len(rest) == 1 and first.startswith(ZIP):
            return _member(self.file(rest[0]), first.removeprefix(ZIP))
        path = self.file(name)
        try:
            return file_content(path)
        except FileNotFoundError:
            raise DataError(f"no file {shown(name)}") from None
        except OSError as error:
            raise DataError(f"{shown(name)}: {error.strerror or error}") from None

    def file(self, name: str) -> Path:
        """The resolved path of a file. Errors: DataError for one outside the folders."""
        if "://" in name or "::" in name or not self.folders:
            raise DataError(
                f"a row names {shown(name)}, and not a file of the data set's own folder; it is not opened{REMEDY}"
            )
        try:
            path = Path(os.path.realpath(self.folders[0] / name))
        except (ValueError, OSError):  # characters that no name may have, circular links
            raise DataError(f"no file {shown(name)}") from None
        if not any(path.is_relative_to(folder) for folder in self.folders):
            raise DataError(
                f"a row names {shown(name)}, which is outside of the data set's own folder; it is not opened{REMEDY}"
            )
        return path

    def check_pattern(self, pattern: str, base: str) -> None:
        """Errors: DataError for a pattern in a data set's card that may match files of others."""
        within = base.startswith(HUB_ADDRESS) if self.hub else self._holds(base)
        plain = ":" not in pattern and not os.path.isabs(pattern) and ".." not in Path(pattern.replace("\\", "/")).parts
        if not (within and plain) and not (self.hub and is_hub_address(pattern)):
            where = "" if within else f" in {shown(base)}"
            raise DataError(
                f"its card names files by {shown(pattern)}{where}, which may be others than its own; they are not "
                "looked for"
            )

    def _holds(self, base: str) -> bool:
        """Whether a path is one of the folders or within one, with links resolved, such as those to another disk."""
        return any(Path(os.path.realpath(base)).is_relative_to(folder) for folder in self.folders)

    def check_file(self, name: str) -> None:
        """Errors: DataError for a data file that is not the data set's own, or is compressed."""
        if self.hub and is_hub_address(name):
            return
        path = self.file(name)
        if path.name.lower().endswith(PACKED):
            raise DataError(f"{shown(name)} is packed; unpack it")
        try:
            regular_file(path).close()
        except (OSError, DataError) as error:
            raise DataError(f"{shown(name)}: {getattr(error, 'strerror', None) or error}") from None


def is_hub_address(name: str) -> bool:
    """Whether a name is hf://datasets/..., or a member of a zip file there."""
    *outer, last = name.split("::")
    return (
        last.startswith(HUB_ADDRESS)
        and len(outer) <= 1
        and all(hop.startswith(ZIP) for hop in outer)
        and ".." not in name.split("/")
    )


def folder_reach(folder: str) -> Reach:
    """The reach of a data set in a local folder; in the hub's cache its files are links to blobs."""
    root = Path(os.path.realpath(folder))
    blobs = root.parent.parent / "blobs"
    return Reach((root, blobs) if root.parent.name == "snapshots" and blobs.is_dir() else (root,))


def shown(name: str) -> str:
    """A stranger's text on one line, shortened."""
    return repr(name[:200]) + ("..." if len(name) > 200 else "") if len(name) > 200 or not name.isprintable() else name


def _fetched(address: str) -> bytes:
    import fsspec

    try:
        with fsspec.open(address, "rb") as file:
            content: bytes = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise DataError(f"no file {shown(address)}") from None
    if len(content) > LARGEST_FILE:
        raise DataError(f"{shown(address)} has more than the {LARGEST_FILE:,} bytes that are read of one file")
    return content


def _member(archive: Path, member: str) -> bytes:
    try:
        found = _zip_file(archive, os.getpid()).getinfo(member)
        if found.file_size > LARGEST_FILE:
            raise DataError(f"{found.file_size:,} bytes, more than the {LARGEST_FILE:,} that are read of one file")
        return _zip_file(archive, os.getpid()).read(found)  # no more than it says
    except DataError:
        raise
    except KeyError:
        raise DataError(f"no file {shown(member)} in {archive}") from None
    except Exception as error:  # a parser of other people's bytes fails in many ways
        raise DataError(
            f"{shown(member)} in {archive}: {' '.join(str(error).split()) or type(error).__name__}"
        ) from None


@lru_cache(maxsize=4)
def _zip_file(archive: Path, process: int) -> zipfile.ZipFile:
    """An open zip file, one per process, because processes would share its file position."""
    regular_file(archive).close()
    return zipfile.ZipFile(archive)
