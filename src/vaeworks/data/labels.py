"""Classes of images from folders, file names or a table; masks of their objects from a folder."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import DataError
from ..images import file_content
from ..reporting import SILENT, Reporter
from .image_ref import ImageFile, ImageRef
from .sources.folder import files_below
from .table import plain

MOST = 2**27
"""Most bytes of a table; that of a million images has fewer."""

NUMBER = re.compile(r"[\s_\-.]*\d+$")
"""The number at the end of a file name, behind its class."""


def find_labels(
    files: Sequence[ImageFile], how: str | None = None, reporter: Reporter = SILENT
) -> tuple[str, ...] | None:
    """A class per image.

    how: "folders", the name of each image's folder; "names", file names up to their last number ("beagle_12.jpg" is a
    beagle); a CSV file whose rows begin with a file name and a class; "none". None: the classes that the data set
    states, in fields `cls` or `json` of a tar's samples or in a column; else folders, if at least two hold two images
    or more. Classes that only some images state are not used, and the reporter warns of that.
    Errors: DataError for a table that cannot be read or lacks an image.
    """
    if how == "none":
        return None
    if how == "names":
        return tuple(NUMBER.sub("", Path(str(file.path)).stem) or Path(str(file.path)).stem for file in files)
    if how is None:
        stated = [label for file in files if isinstance(label := getattr(file.path, "label", None), str)]
        if stated and len(stated) == len(files):
            return tuple(stated)
        if stated:
            without = [file.path for file in files if not isinstance(getattr(file.path, "label", None), str)]
            reporter.warn(
                f"{len(without):,} of {len(files):,} images state no class, the first is {without[0]}; so the classes "
                "of the others are not used"
            )
    if how is None or how == "folders":
        names = tuple(_folder(file.path) for file in files)
        counts = Counter(names)
        named = len(counts) > 1 and "" not in counts and sum(count > 1 for count in counts.values()) > 1
        return names if how or named else None
    return _from_table(files, Path(how))


def _folder(place: ImageRef) -> str:
    """The name of the folder that an image lies in; "" where it lies in none: a tar is no folder."""
    return Path(getattr(place, "name_in_archive", str(place))).parent.name


def _from_table(files: Sequence[ImageFile], path: Path) -> tuple[str, ...]:
    try:
        rows = [row for row in csv.reader(io.StringIO(file_content(path, MOST).decode(), newline="")) if len(row) >= 2]
    except OSError as error:
        raise DataError(
            f"labels {str(path)!r}: {error.strerror}; give folders, names, none or a CSV file of file names and classes"
        ) from None
    except (ValueError, csv.Error) as error:
        raise DataError(f"labels {str(path)!r} are no CSV: {error}") from None
    table = {plain(row[0]).strip(): plain(row[1]).strip() for row in rows}
    found = []
    for image in files:
        name = Path(str(image.path))
        label = next((table[key] for key in (str(name), name.name, name.stem) if key in table), None)
        if label is None:
            raise DataError(f"labels {str(path)!r} have no row for {name.name}; every image needs one")
        found.append(label)
    return tuple(found)


def find_masks(files: Sequence[ImageFile], folder: str | Path | None = None) -> tuple[ImageRef | None, ...] | None:
    """A mask per image: the file in `folder` with the image's name, with any ending and also with "_mask" behind it;
    None for an image without one.

    Of several files with that name, the mask is the one in a folder that has the name of the image's folder.
    folder: None takes the masks that images bring along, as drawn images do; the result is None if no image has one.
    Errors: DataError where there is no folder, no mask at all, or more than one mask of an image.
    """
    if folder is None:
        drawn = tuple(getattr(file.path, "mask", None) for file in files)
        return None if all(mask is None for mask in drawn) else drawn
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"masks {str(folder)!r} is no folder")
    known: dict[str, list[Path]] = {}
    for path in files_below(root, (".png", ".bmp", ".tif", ".jpg")):
        known.setdefault(path.stem.removesuffix("_mask"), []).append(path)
    found = tuple(_mask_of(Path(str(file.path)), known) for file in files)
    if not any(found):
        raise DataError(
            f"no image has a mask in {str(folder)!r}; they must have the images' names, such as "
            f"{Path(str(files[0].path)).stem}.png"
        )
    return found


def _mask_of(image: Path, known: Mapping[str, Sequence[Path]]) -> Path | None:
    """The mask of an image, by its name, and by its folder's name if several images have that name."""
    found = known.get(image.stem, ())
    if len(found) > 1:
        found = [path for path in found if path.parent.name == image.parent.name] or found
    if len(found) > 1:
        raise DataError(
            f"{image} has {len(found)} masks, {found[0]} and {found[1]}; put them into folders with the names of the "
            "images' folders"
        )
    return found[0] if found else None
