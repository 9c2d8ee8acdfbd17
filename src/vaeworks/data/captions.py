"""Captions of images: from files beside them, tables, samples of tars, columns of data sets, or their classes.

For each image, the first of these that states a caption counts, also an empty one:

1. with `column`: that column of its data set, or of a table;
2. its own: `txt`, `caption` or `json` of its sample in a tar, a column of text in its data set, the words of what is
   drawn;
3. NAME.txt beside NAME.jpg, or NAME.caption;
4. metadata.jsonl or metadata.csv with `file_name` and a column of text, in the image's folder or up to ABOVE folders
   above it; the nearest table that names the image counts.

Where no image states one, classes do ("a photo of a {}"). A template that the user gives comes before all of them,
where there are classes.
Sources: kohya's scripts (files beside images), Hugging Face's imagefolder (tables), WebDataset (samples).
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError
from ..images import file_content
from ..words import many
from .caption_text import ENDINGS, LONGEST, NAMES, decoded, on_one_line, text_of
from .image_ref import ImageFile, ImageRef
from .labels import MOST, find_labels
from .sources.digits import Digit
from .sources.hub import DatasetRow, row_captions
from .sources.stream import ImageStream
from .sources.tars import TarMember
from .table import plain

TEMPLATE = "a photo of a {}"
"""Caption of a class."""

TABLES = ("metadata.jsonl", "metadata.csv")
"""Names of tables, in this order."""

FILE_NAME = "file_name"
"""Column of a table with the images' paths, relative to the table."""

ABOVE = 4
"""Folders above an image's that may hold a table."""

SHOWN = 3
"""Images that a sentence names."""

REMEDY = (
    "write NAME.txt beside NAME.jpg; or metadata.jsonl or metadata.csv with file_name and text into the folder; or "
    "name a data set's column of text; or sort the images into folders, whose names are then their captions"
)


@dataclass(frozen=True)
class Captions:
    """A caption per image, and what people should know about them."""

    texts: tuple[str, ...]
    """one per image, on one line; "" where there is none"""
    origin: str
    """short words about where they come from"""
    missing: tuple[str, ...] = ()
    """names of images without a caption"""
    empty: tuple[str, ...] = ()
    """names of images whose caption is empty"""
    notes: tuple[str, ...] = ()
    """further sentences"""

    @property
    def sentences(self) -> tuple[str, ...]:
        """For people: which images have no words, and what was not used."""
        counted = [
            _counted(names, len(self.texts), what)
            for names, what in ((self.missing, "no caption"), (self.empty, "an empty caption"))
            if names
        ]
        return (*counted, *self.notes)


def _counted(names: Sequence[str], total: int, what: str) -> str:
    shown = ", ".join(Path(name).name for name in names[:SHOWN])
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    has, they = ("has", "it is") if len(names) == 1 else ("have", "they are")
    return f"{len(names):,} of {many(total, 'image')} {has} {what}: {shown}{more}; {they} trained without words"


def find_captions(files: Sequence[ImageFile], template: str | None = None, column: str | None = None) -> Captions:
    """A caption per image, by the precedence above.

    template: the caption of a class, {} standing for its name ("american_bulldog" as "american bulldog"). It is used in
    place of stated captions where the images have classes. column: of text, in data sets or tables.
    Errors: ConfigError for a template without {}; DataError for a stream, where no image has a caption, for a column
    that is not there, for a file that is no UTF-8 or too long, and for a broken table, with the line.
    """
    if template is not None and "{}" not in template:
        raise ConfigError(f"the template (={template!r}) must contain {{}}, which stands for the class: {TEMPLATE!r}")
    if isinstance(files, ImageStream) or not files:
        raise DataError("a stream's captions are not read, as it has no list of images; leave 'stream:' away")
    classes = find_labels(files) if template is not None else None
    if template is not None and classes is not None:
        return _of_classes(classes, template)
    stated = _Stated(column or "")
    found = [stated.caption(file.path) for file in files]
    stated.check_column()
    if any(text for _, text in found):
        unused = () if template is None else (f"the images have no classes, so {template!r} is not used",)
        return _stated(files, found, unused)
    classes = find_labels(files)
    if classes is None:
        none = "all captions are empty" if any(text == "" for _, text in found) else "no image has a caption"
        columns = f"; the columns are {', '.join(stated.columns)}" if stated.columns else ""
        raise DataError(f"{none}{columns}; {REMEDY}")
    return _of_classes(classes, TEMPLATE)


def _stated(files: Sequence[ImageFile], found: Sequence[tuple[str, str | None]], notes: tuple[str, ...]) -> Captions:
    names = [str(file.path) for file in files]
    origins = dict.fromkeys(origin for origin, text in found if text is not None)
    return Captions(
        tuple(text or "" for _, text in found),
        ", ".join(origins),
        tuple(name for name, (_, text) in zip(names, found, strict=True) if text is None),
        tuple(name for name, (_, text) in zip(names, found, strict=True) if text == ""),
        notes,
    )


def _of_classes(classes: Sequence[str], template: str) -> Captions:
    captions = {name: _filled(template, _spoken(name)) for name in set(classes)}
    return Captions(tuple(captions[name] for name in classes), f"classes, as {template!r}")


def _spoken(name: str) -> str:
    """A class as words."""
    return " ".join(name.replace("_", " ").replace("-", " ").split()) or name


def _filled(template: str, name: str) -> str:
    """The template with a name, and "an" for "a" before a vowel."""
    if name.lower().startswith(tuple("aeiou")):
        template = re.sub(r"\b([Aa]) \{\}", r"\1n {}", template)
    return on_one_line(template.replace("{}", name))


@dataclass
class _Table:
    """Captions that a table states: of paths, absolute and without links resolved."""

    name: str
    captions: dict[str, str] = field(default_factory=dict)


class _Stated:
    """What the data state about images, one after the other. column: the one that is given, or ""."""

    def __init__(self, column: str):
        self.column = column
        self.columns: dict[str, None] = {}
        """columns of tables and data sets that hold captions, or could"""
        self._beside: dict[Path, dict[str, dict[str, str]]] = {}
        self._tables: dict[Path, list[_Table]] = {}
        self._is_there = False

    def caption(self, place: ImageRef) -> tuple[str, str | None]:
        """(origin, caption) of an image; None without one."""
        if isinstance(place, DatasetRow):
            column, texts = row_captions(place.name, self.column)
            self._is_there = True
            return f"column {column!r} of the data set", texts[place.index]
        if not isinstance(place, Path):
            try:
                return _own_origin(place), getattr(place, "caption", None)
            except OSError as error:
                raise DataError(f"caption of {place}: {error.strerror}") from None
        ways = (self._in_table, self._in_file) if self.column else (self._in_file, self._in_table)
        found = next((found for way in ways if (found := way(place)) is not None), None)
        return found if found is not None else ("", None)

    def check_column(self) -> None:
        """Errors: DataError where no table and no data set has the column that is given."""
        if self.column and not self._is_there:
            there = f"; the columns are {', '.join(self.columns)}" if self.columns else ""
            raise DataError(f"column {self.column!r} is in no data set and no {' or '.join(TABLES)} of images{there}")

    def _in_file(self, path: Path) -> tuple[str, str] | None:
        folder = path.parent
        if folder not in self._beside:
            self._beside[folder] = _texts_in(folder)
        for ending in ENDINGS:
            if (name := self._beside[folder][ending].get(path.stem)) is not None:
                return f"NAME.{ending} beside each image", _text_in(folder / name)
        return None

    def _in_table(self, path: Path) -> tuple[str, str] | None:
        path = Path(os.path.abspath(path))
        for folder in (path.parent, *path.parent.parents[:ABOVE]):
            if folder not in self._tables:
                self._tables[folder] = [self._opened(folder / name) for name in TABLES if os.path.isfile(folder / name)]
            for table in self._tables[folder]:
                if str(path) in table.captions:
                    return table.name, table.captions[str(path)]
        return None

    def _opened(self, path: Path) -> _Table:
        read = _jsonl if path.suffix == ".jsonl" else _csv
        rows = read(path)
        columns = dict.fromkeys(name for row in rows for name in row)
        self.columns |= {name: None for name in columns if name != FILE_NAME}
        names = (self.column,) if self.column else NAMES
        chosen = next((name for name in names if name in columns), None)
        self._is_there |= chosen is not None and bool(self.column)
        table = _Table(path.name)
        if chosen is None:
            return table
        for row in rows:
            text = text_of(row.get(chosen))
            if text is not None and isinstance(file_name := row.get(FILE_NAME), str):
                table.captions.setdefault(os.path.normpath(path.parent / file_name), text)
        return table


def _own_origin(place: ImageRef) -> str:
    if isinstance(place, TarMember):
        return "texts in the samples of tars"
    return "the digits' names" if isinstance(place, Digit) else "words for what is drawn"


def _texts_in(folder: Path) -> dict[str, dict[str, str]]:
    """By ending, the names of a folder's files by their names without it."""
    found: dict[str, dict[str, str]] = {ending: {} for ending in ENDINGS}
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise DataError(f"captions in {folder} cannot be looked for: {error.strerror}") from None
    for name in sorted(names):
        stem, _, ending = name.rpartition(".")
        if ending.lower() in found:
            found[ending.lower()].setdefault(stem, name)
    return found


def _text_in(path: Path) -> str:
    return decoded(_content(path, LONGEST), str(path))


def _content(path: Path, most: int) -> bytes:
    try:
        return file_content(path, most)
    except (OSError, DataError) as error:
        raise DataError(f"captions in {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _lines(path: Path) -> str:
    """A table's text. Errors: DataError."""
    try:
        return _content(path, MOST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start:,}); save it as UTF-8") from None


def _jsonl(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(_lines(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            what = error.msg if isinstance(error, json.JSONDecodeError) else "too deep, or numbers too long"
            raise DataError(f"{path}, line {number:,} is not JSON: {what}") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number:,} must be a JSON object with {FILE_NAME} and a caption")
        rows.append(row)
    return rows


def _csv(path: Path) -> list[dict[str, Any]]:
    reader = csv.reader(io.StringIO(_lines(path), newline=""))
    try:
        header = [plain(name).strip() for name in next(reader, [])]
        return [dict(zip(header, map(plain, row), strict=False)) for row in reader if row]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num:,} is not CSV: {error}") from None
