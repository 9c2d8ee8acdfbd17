"""HTML fragments for notebooks: tables and pictures, with everything inside them and all text escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

from PIL import Image

SHOWN = 640
"""Widest picture of a fragment, in CSS pixels."""


def data_uri(image: Image.Image, quality: int | None = None) -> str:
    """A picture as the value of an <img>'s src: PNG, or JPEG of this quality."""
    buffer = io.BytesIO()
    if quality is None:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.convert("RGB").save(buffer, "JPEG", quality=quality, subsampling=0)
    kind = "png" if quality is None else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def png(image: Image.Image) -> bytes:
    """A picture as the content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def heading(text: str) -> str:
    """A line in bold."""
    return f"<p><b>{escape(text)}</b></p>"


def paragraph(text: str) -> str:
    """A paragraph; nothing where there is no text."""
    return f"<p>{escape(text)}</p>" if text else ""


def table(rows: Iterable[Sequence[object]], header: Sequence[str] = ()) -> str:
    """A table of texts; nothing where there are no rows."""
    body = "".join(_row(row, "td") for row in rows)
    return f"<table>{_row(header, 'th') if header else ''}{body}</table>" if body else ""


def _row(cells: Sequence[object], tag: str) -> str:
    return "<tr>" + "".join(f'<{tag} style="text-align:left">{escape(str(cell))}</{tag}>' for cell in cells) + "</tr>"


def picture(image: Image.Image, caption: str = "", pixelated: bool = False) -> str:
    """A picture above its caption. pixelated: enlarge it without blurring."""
    style = f"max-width:{SHOWN}px;width:100%" + (";image-rendering:pixelated" if pixelated else "")
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="{data_uri(image)}" alt="{escape(caption)}" style="{style}">{words}</figure>'
