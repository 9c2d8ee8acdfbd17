"""What every page must be: whole, without anything from the network, legible in the dark and on a telephone."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from PIL import Image

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """The elements of a page, each with the classes of what it is in."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.words: list[str] = []
        self._open: list[tuple[str, str]] = []
        self.feed(self.text)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.elements.append((tag, values, [kind for _, classes in self._open for kind in classes.split()]))
        if tag not in VOID:
            self._open.append((tag, values.get("class", "")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}, []))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._open.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1][0] not in ("style", "script"):
            self.words.append(data)

    @property
    def said(self) -> str:
        """All words, with single spaces."""
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [values for name, values, _ in self.elements if name == tag]

    def pictures(self) -> list[Image.Image]:
        """The pictures inside the page, decoded."""
        inside = [values["src"] for values in self.all("img") if values["src"].startswith("data:")]
        found = [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in inside]
        for picture in found:
            picture.load()
        return found


def checked(path: Path) -> Page:
    """The page, which is found to be whole."""
    page = Page(path)
    assert "color-scheme: light dark" in page.text and "prefers-color-scheme: dark" in page.text
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page.text)
    ids = {values["id"] for _, values, _ in page.elements if "id" in values}
    for tag, values, _ in page.elements:
        for name in ("src", "href"):
            address = values.get(name, "")
            if not address or address.startswith("data:"):
                continue
            place, _, part = address.partition("#")
            assert place or part in ids, f"{address} leads nowhere"
            assert not place or (path.parent / unquote(place)).exists(), f"{tag} {address} does not exist"
    assert all(values.get("alt") for values in page.all("img"))
    for tag, values, around in page.elements:
        assert tag != "table" or "scroll" in around, "a wide table would make the page wider than its window"
        assert tag != "svg" or not re.search(r"background|white", values.get("style", ""))
    drawn = re.findall(r"<svg.*?</svg>", page.text, re.S)
    assert not [colour for svg in drawn for colour in re.findall(r'(?:fill|stroke)="(#\w+|white|black)"', svg)]
    styles = "".join(re.findall(r"<style>(.*?)</style>", page.text, re.S))
    for name in set(re.findall(r"var\((--[\w-]+)\)", page.text)) - {"--tone", "--tone-back"}:
        assert f"{name}:" in styles, f"{name} has no value"
    return page
