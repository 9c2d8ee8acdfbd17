"""The page of an application: every picture with its caption, the figures, the command, and links to the files."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from .. import __version__
from ..config import dumps
from ..errors import MissingExtraError
from ..images import image_file
from ..images.notebook import data_uri
from ..reporting import SILENT, Reporter
from .call import Call
from .page import check_templates, write_page

REPORT = "report.html"
"""The name of the page in the folder of an application's results."""

INSIDE = 48
"""Pictures that the page holds itself; more are read from the folder, so that no page is too large to open."""

WIDEST = 1600
"""Widest picture inside a page, in pixels; wider ones are shrunk, and link to the file."""

JPEG_FROM = 160_000
"""Pixels from which a picture is stored as JPEG: photographs are small files then, and small maps stay exact."""

FILM = 2 * 2**20
"""Bytes of the largest GIF inside a page."""

RECORD = 200_000
"""Letters of the longest record inside a page."""


@dataclass(frozen=True)
class Exhibit:
    """A file and its caption: a picture, a GIF or MP4 film, or a sound. Or a picture that is no file."""

    path: Path | None
    caption: str
    image: Image.Image | None = None
    """the picture, where it is no file"""


@dataclass(frozen=True)
class PageTable:
    """A table of texts; of the cells, all but the first are aligned as numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class GallerySection:
    """A part of the page: exhibits, tables, and charts as SVG."""

    title: str
    text: str = ""
    exhibits: Sequence[Exhibit] = ()
    tables: Sequence[PageTable] = ()
    charts: Sequence[str] = ()


@dataclass(frozen=True)
class Gallery:
    """What a page shows."""

    heading: str
    lead: str
    """a sentence or two below the heading"""
    call: Call
    sections: Sequence[GallerySection]
    record: Mapping[str, Any]
    """what the command returned, as JSON values"""
    figures: Mapping[str, str] = field(default_factory=dict)
    """large numbers at the top: values by what they are"""
    files: Mapping[str, str] = field(default_factory=dict)
    """what the files and folders are that the page links, by their names below its folder; absent ones are left out"""


def page_place(folder: Path | None, reporter: Reporter = SILENT) -> Path | None:
    """The path of the page in a folder of results. None without a folder and, with a warning, without jinja2."""
    if folder is None:
        return None
    try:
        check_templates()
    except MissingExtraError as error:
        reporter.warn(f"no {REPORT}: {error}")
        return None
    return folder / REPORT


def write_gallery(page: Path | None, gallery: Gallery, overwrite: bool = False, reporter: Reporter = SILENT) -> None:
    """Write the page where `page_place` has a path for it. The pictures are read from their files.

    Errors: ConfigError where there is a page, without `overwrite`.
    """
    if page is not None:
        write_page(page, "gallery.html", gallery_values(page.parent, gallery), overwrite)
        reporter.say(f"{page} shows it all")


def gallery_values(folder: Path, gallery: Gallery) -> dict[str, Any]:
    """What the template shows. Pictures are read from the folder."""
    left = INSIDE
    sections = []
    for section in gallery.sections:
        shown = []
        for exhibit in section.exhibits:
            shown.append(_exhibit(folder, exhibit, left > 0))
            left -= shown[-1]["kind"] == "picture"
        sections.append(
            {
                "title": section.title,
                "text": section.text,
                "exhibits": shown,
                "tables": [_full(table) for table in section.tables],
                "charts": [chart for chart in section.charts if chart],
            }
        )
    record = dumps(gallery.record)
    return {
        "version": __version__,
        "heading": gallery.heading,
        "lead": gallery.lead,
        "command": gallery.call.command,
        "line": gallery.call.line,
        "settings": gallery.call.settings,
        "sections": sections,
        "figures": gallery.figures,
        "record": record if len(record) <= RECORD else "",
        "outside": max(-left, 0),
        "inside": INSIDE,
        "files": [
            {"name": name, "link": link(folder, folder / name), "what": what}
            for name, what in gallery.files.items()
            if (folder / name).exists()
        ],
    }


def _full(table: PageTable) -> PageTable:
    """The table without columns that have no value in any row."""
    kept = [i for i in range(len(table.header)) if i == 0 or any(row[i] for row in table.rows)]
    return PageTable([table.header[i] for i in kept], [[row[i] for i in kept] for row in table.rows])


def link(folder: Path, path: Path) -> str:
    """The address of a file relative to a page's folder, with letters that addresses cannot have escaped."""
    return quote(os.fsencode(os.path.relpath(path, folder)).replace(os.fsencode(os.sep), b"/"))


def _exhibit(folder: Path, exhibit: Exhibit, inside: bool) -> dict[str, Any]:
    if exhibit.image is not None:
        shape = _shape(exhibit.image) | {"source": _preview(exhibit.image), "link": "", "name": ""}
        return shape | {"kind": "picture", "caption": exhibit.caption}
    assert exhibit.path is not None, "an exhibit is a file or a picture"
    path, address = exhibit.path, link(folder, exhibit.path)
    found = {
        "link": address,
        "name": path.name,
        "caption": exhibit.caption,
        "source": address,
        "width": 0,
        "wide": False,
    }
    if (ending := path.suffix.lower()) in (".wav", ".mp4"):
        return found | {"kind": "audio" if ending == ".wav" else "video"}
    if ending == ".gif":
        if inside and path.stat().st_size <= FILM:
            found["source"] = "data:image/gif;base64," + base64.b64encode(path.read_bytes()).decode()
        return found | {"kind": "picture"}
    with image_file(path) as picture:
        found |= _shape(picture)
        if inside:
            found["source"] = _preview(picture)
    return found | {"kind": "picture"}


def _shape(picture: Image.Image) -> dict[str, Any]:
    return {"width": picture.width, "wide": picture.width > 2 * picture.height}


def _preview(picture: Image.Image) -> str:
    shown = picture
    if picture.width > WIDEST:
        height = max(1, round(picture.height * WIDEST / picture.width))
        shown = picture.convert("RGB").resize((WIDEST, height), Image.Resampling.LANCZOS)
    return data_uri(shown, None if shown.width * shown.height < JPEG_FROM else 90)
