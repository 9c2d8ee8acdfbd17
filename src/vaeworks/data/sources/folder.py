"""Image files: one, or all in a folder tree."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import DataError
from ...files.links import missing
from ...images import SUFFIXES, UNREAD
from ..bundled_photos import photos


def find_images(source: str | Path) -> list[Path]:
    """The image files of a source: `photos` (bundled with scikit-image and scikit-learn), one file, or a folder tree.

    Errors: DataError where there is no such folder or no image file in it.
    """
    if str(source) == "photos":
        return photos()
    root = Path(source).expanduser()
    if not root.exists():
        raise DataError(
            f"data source {str(source)!r} {missing(root)}; give a folder of images, or `photos` for the bundled ones"
        )
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise DataError(f"{str(source)!r} is no regular file and no folder")
    if not (paths := files_below(root, SUFFIXES)):
        raise DataError(f"no image file in {str(source)!r}; looked for {' '.join(SUFFIXES)} in all its subfolders")
    return paths


JUNK = {
    "@eadir": "thumbnails that a Synology keeps",
    "@recycle": "deleted files of a NAS",
    "@tmp": "a NAS' own files",
    "@sharebin": "deleted files of a NAS",
    "@recently-snapshot": "older states of the files on a NAS",
    "#recycle": "deleted files of a NAS",
    "#snapshot": "older states of the files on a NAS",
    "~snapshot": "older states of the files on a NAS",
    "network trash folder": "deleted files of macOS",
    "temporary items": "macOS's own files",
    "$recycle.bin": "deleted files of Windows",
    "recycler": "deleted files of Windows",
    "system volume information": "Windows' own files",
    "__macosx": "macOS's notes about the files of an archive",
    "lost+found": "pieces of a repaired disk",
}
"""Folders that systems keep beside a user's files, by their names in lower case, and what is in them."""


def is_junk(parts: Iterable[str]) -> bool:
    """Whether a path lies in a hidden folder or in one of JUNK, or is a hidden file."""
    return any(part.startswith(".") or part.lower() in JUNK for part in parts)


@dataclass
class Tree:
    """The files of a folder tree, without hidden ones and JUNK. Links to folders are followed; a folder that is reached
    in several ways counts once, by its own path before links, and by the first link in the order of names."""

    root: Path
    paths: list[Path] = field(default_factory=list)
    """sorted"""
    unread: list[tuple[str, str]] = field(default_factory=list)
    """(folder, reason) of those that were not looked into; hidden ones are not named"""

    def __post_init__(self) -> None:
        waiting, links = [self.root], list[Path]()
        seen: dict[tuple[int, int], Path] = {}
        while waiting or links:
            folder = waiting.pop() if waiting else links.pop(0)
            try:
                status = folder.stat()
                with os.scandir(folder) as found:
                    entries = list(found)
            except OSError as error:
                self.unread.append((str(folder), f"cannot be opened: {error.strerror or error}"))
                continue
            if (place := (status.st_dev, status.st_ino)) in seen:
                self.unread.append((str(folder), f"a link to {seen[place]}, which is read already"))
                continue
            seen[place] = folder
            if len(folder.parts) - len(self.root.parts) > DEEPEST:
                raise DataError(f"folders in {str(self.root)[:300]!r} are nested by the hundred; give one further down")
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.lower() in JUNK and entry.is_dir():
                    self.unread.append((str(folder / entry.name), JUNK[entry.name.lower()]))
                elif entry.name.startswith("."):
                    continue
                elif _is_folder(entry):
                    (links if entry.is_symlink() else waiting).append(folder / entry.name)
                else:
                    self.paths.append(folder / entry.name)
        self.paths.sort()
        self.unread.sort()

    def ending(self, suffixes: tuple[str, ...]) -> list[Path]:
        """Those whose names end so, in any case."""
        return [path for path in self.paths if path.name.lower().endswith(suffixes)]

    def left_out(self) -> list[tuple[str, str]]:
        """(name, reason) of folders that were not looked into, and of pictures in formats that are not read."""
        others = [(str(path), UNREAD[path.suffix.lower()]) for path in self.paths if path.suffix.lower() in UNREAD]
        return [*self.unread, *others]


DEEPEST = 200
"""Folders within folders."""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in circles
        return False


def files_below(root: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files of a folder tree with these endings, sorted by path, without hidden ones and JUNK."""
    return Tree(root).ending(suffixes)
