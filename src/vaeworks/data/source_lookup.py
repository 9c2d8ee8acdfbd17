"""Look names up without reading images: whether a text is a data source, and which image has a name."""

from __future__ import annotations

import re
from pathlib import Path

from ..config.recorded import HUB
from ..errors import DataError
from .image_ref import ImageRef
from .sources.digits import DIGITS, digits
from .sources.hub import LOCAL, dataset_name
from .sources.sound import MADE, SEGMENTS, SOUND, STEREO, SoundFile, sounds
from .sources.sound import SUFFIXES as SOUNDS
from .sources.tars import tar_files, tar_members
from .synthetic.captioned_shapes import is_shapes, shapes_source
from .synthetic.procedural import is_procedural, procedural_source


def is_source(text: str) -> bool:
    """Whether a text is a data source, by its form and the names of files: no image is read or fetched."""
    try:
        if text in ("photos", DIGITS) or (text and Path(text).expanduser().exists()):
            return True
        if text.startswith((SOUND, SEGMENTS, STEREO)):
            sound = text.partition(":")[2]
            return bool(sounds(sound)) if sound.startswith(MADE) else sound != "" and Path(sound).expanduser().exists()
        if text.startswith((HUB, LOCAL)):
            return bool(dataset_name(text))
        if is_shapes(text):
            return bool(shapes_source(text))
        return bool(procedural_source(text) if is_procedural(text) else tar_files(text))
    except (DataError, OSError, RuntimeError):  # names that are too long, no home of that user
        return False


def place_named(name: str) -> ImageRef:
    """The image whose `str` is this name: a file, a member of a tar, an image of an IDX file, one of scikit-learn's
    digits.

    Errors: DataError where there is no such image, and for names that do not lead to one: those of rows of data sets,
    drawn images and made sounds.
    """
    path = Path(name)
    if "\0" in name or len(name) > 4096:
        raise DataError(f"{name[:100]!r} is no name of a file")
    if path.is_file():
        return SoundFile(path) if path.suffix.lower() in SOUNDS else path
    source = (
        DIGITS
        if path.parts[:1] == (DIGITS,)
        else next((str(parent) for parent in path.parents if parent.is_file()), None)
    )
    if source is not None and source.lower().endswith(".tar"):
        found: list[ImageRef] = list(tar_members(Path(source))[0])
    elif source is not None and re.fullmatch("[0-9]{1,9}", path.stem):
        found = list(digits(source)[int(path.stem) :][:1])
    else:
        found = []
    if place := next((place for place in found if str(place) == name), None):
        return place
    raise DataError(f"{name} is not found from here by its name")
