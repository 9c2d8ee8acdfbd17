"""The page of an application: what it shows, what it links, and the command that made it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from html_pages import checked
from PIL import Image
from scipy.io import wavfile

import vaeworks as vw
from vaeworks.cli import main
from vaeworks.errors import ConfigError, MissingExtraError
from vaeworks.images import labelled
from vaeworks.pages import gallery, page
from vaeworks.pages.call import Call
from vaeworks.pages.gallery import Exhibit, Gallery, GallerySection, PageTable, page_place, write_gallery


def made(pictures: list[Exhibit], **more: object) -> Gallery:
    call = Call("vary", vw.vary, {"model": "m", "inputs": ("a.png",), "out": "o"})
    values = {"record": {"x": 1.5}, "sections": [GallerySection("Pictures", "", pictures)], **more}
    return Gallery("A heading", "A lead.", call, **values)  # type: ignore[arg-type]


def picture(path: Path, width: int = 30, height: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(width).integers(0, 255, (height, width, 3), np.uint8)).save(path)
    return path


def test_pictures_are_inside_and_lead_to_their_files(tmp_path: Path) -> None:
    """Names that addresses cannot have, films and sounds; a small picture keeps its pixels, a wide one is shrunk."""
    small = picture(tmp_path / "sub" / "50 % & #1 ü.png")
    wide = picture(tmp_path / "wide.png", 2000, 100)
    (tmp_path / "walk.gif").write_bytes(b"GIF89a")
    (tmp_path / "sound.wav").write_bytes(b"RIFF")
    shown = [
        Exhibit(path, f"it is {path.name}") for path in (small, wide, tmp_path / "walk.gif", tmp_path / "sound.wav")
    ]
    shown.append(Exhibit(None, "no file", labelled([[torch.zeros(3, 9, 9, dtype=torch.uint8)]])))
    write_gallery(tmp_path / "report.html", made(shown, files={"wide.png": "a file", "absent.png": "none"}))
    (tmp_path / "walk.gif").write_bytes(b"GIF89a")
    text = (tmp_path / "report.html").read_text()
    assert text.count("<audio") == 1 and "absent.png" not in text and "a file" in text
    (tmp_path / "report.html").write_text(text.replace("data:image/gif;base64,R0lGODlh", "walk.gif"))
    found = checked(tmp_path / "report.html")
    first, second, last = found.pictures()
    assert first.tobytes() == Image.open(small).tobytes()
    assert second.size == (1600, 80) and last.size == (9, 9)
    links = [values["href"] for values in found.all("a")]
    assert "sub/50%20%25%20%26%20%231%20%C3%BC.png" in links


def test_a_large_page_reads_pictures_from_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "INSIDE", 2)
    shown = [Exhibit(picture(tmp_path / f"{i}.png", 10 + i), f"number {i}") for i in range(5)]
    write_gallery(tmp_path / "report.html", made(shown))
    found = checked(tmp_path / "report.html")
    assert len(found.pictures()) == 2 and len(found.all("img")) == 5
    assert "The first 2 pictures are inside this page; the other 3 are read from its folder" in found.said


def test_columns_without_values_are_left_out(tmp_path: Path) -> None:
    table = PageTable(("image", "strength", "change"), [["a", "", "1.5"], ["b", "", ""]])
    write_gallery(tmp_path / "report.html", made([], sections=[GallerySection("Figures", "", tables=[table])]))
    found = checked(tmp_path / "report.html")
    assert "image change a 1.5 b" in found.said and "strength" not in found.said


def test_without_jinja2_results_are_written_and_the_page_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise MissingExtraError("jinja2", "report", "the page")

    monkeypatch.setattr(gallery, "check_templates", absent)
    assert page_place(tmp_path) is None and page_place(None) is None
    write_gallery(None, made([]))
    monkeypatch.setattr(gallery, "check_templates", page.check_templates)
    assert page_place(tmp_path) == tmp_path / "report.html"


def test_a_page_is_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(ConfigError, match="exists"):
        write_gallery(tmp_path / "report.html", made([]))
    assert (tmp_path / "report.html").read_text() == "mine"


CALLS = {
    "vaeworks edit 'my run' 'a b.png' c.png --out o --strength 1 -0.5 --no-detail --set norm_groups=4": (
        vw.edit,
        {"model": "my run", "inputs": ("a b.png", "c.png"), "out": Path("o"), "strength": (1.0, -0.5), "detail": False}
        | {"settings": {"norm_groups": 4}, "overwrite": True, "reporter": object(), "contrast": 1.0, "channel": ()},
    ),
    "vaeworks edit m a.png --channel 3:1.5:0": (vw.edit, {"model": "m", "inputs": "a.png", "channel": ["3:1.5:0"]}),
    "vaeworks.edit(<object>, 'a.png', brightness=5.0)": (
        vw.edit,
        {"model": object(), "inputs": "a.png", "brightness": 5.0},
    ),
}


@pytest.mark.parametrize("line", CALLS)
def test_the_command_repeats_the_call(line: str) -> None:
    """Every option that is not the default's, in the shell's words; Python where an argument is no text."""
    function, given = CALLS[line]
    assert Call("edit", function, given).line == line


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, four pictures of two classes and a mask."""
    root = tmp_path_factory.mktemp("galleries")
    torch.manual_seed(0)
    vae = vw.build("small-f8c4", channels=8, norm_groups=4, num_res_blocks=1)
    vw.save(vae, root / "vae.safetensors")
    for i in range(4):
        picture(root / "in" / ("ant", "bee")[i % 2] / f"{i}.png", 33 + i, 32)
    Image.fromarray(np.full((32, 33), 255, np.uint8)).save(root / "mask.png")
    return root


COMMANDS = {
    "interpolate": ("interpolate", "in/ant/0.png", "in/bee/1.png", "--steps", "2"),
    "vary": ("vary", "in/ant", "--count", "2", "--noise", "0.3"),
    "walk": ("vary", "in/ant/0.png", "--walk", "--steps", "3"),
    "edit": ("edit", "in", "--saturation", "0.5"),
    "arithmetic": ("edit", "in/ant/0.png", "in/ant/2.png", "--arithmetic", "0 + 2"),
    "restore": ("restore", "in/ant/0.png", *"--plant scratches --steps 1 --prior in --prior-size 32".split()),
    "sample": ("sample", "--count", "3", "--size", "16"),
    "augment": ("augment", "--data", "in", "--per-image", "1"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_application_writes_its_page(name: str, place: Path, tmp_path: Path, capsys) -> None:
    """Pictures with captions, the figures that the command returned, its command, links that exist; the JSON document
    names the page, and a second call does not replace it unasked."""
    command, *words = [str(place / w) if (place / w).exists() else w for w in COMMANDS[name]]
    call = [command, str(place / "vae.safetensors"), *words, "--out", str(tmp_path / "out")]
    assert main([*call, "--json"]) == 0, capsys.readouterr().err
    result = json.loads(capsys.readouterr().out)
    path = tmp_path / "out" / "report.html"
    found = checked(path)
    pages = {result["page"]} if "page" in result else {row["page"] for row in result.values()}
    assert pages == {str(path)}
    assert found.all("img") and all(values["alt"].strip() for values in found.all("img"))
    assert f"vaeworks {command} {place / 'vae.safetensors'}" in found.said
    assert all(word in found.said for word in words if word.startswith("--"))
    assert main(call) == 2 and "exists" in capsys.readouterr().err


def test_sounds_are_heard_on_the_page(tmp_path: Path, capsys) -> None:
    torch.manual_seed(0)
    vae = vw.build(vw.recipe("audio-mel-tiny").model)
    time = np.arange(8000) / 16000
    wavfile.write(tmp_path / "a note.wav", 16000, (8000 * np.sin(2 * np.pi * 440 * time)).astype("int16"))
    result = vw.listen(vae, str(tmp_path / "a note.wav"), tmp_path / "out", iterations=1)
    found = checked(tmp_path / "out" / "report.html")
    assert result.page == tmp_path / "out" / "report.html"
    assert len(found.all("audio")) == 3 and len(found.pictures()) == 1 and "log-mel" in found.said
