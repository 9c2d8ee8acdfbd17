"""Captions of images, from every kind of source: which one counts, which images have none, and what is refused."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from idx_files import idx
from PIL import Image

from vaeworks.data import Captions, ImageFile, captioned_shapes, find_captions, open_stream, procedural, scan
from vaeworks.data.caption_text import LONGEST, article
from vaeworks.data.synthetic.colour_names import NAMES, colour_name
from vaeworks.data.synthetic.drawing import CLASSES
from vaeworks.errors import ConfigError, DataError


def picture(number: int) -> bytes:
    """A PNG unlike those of other numbers."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def put(folder: Path, *names: str) -> tuple[ImageFile, ...]:
    """Pictures of these names, below a folder."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(number))
    return scan(folder).files


def tar(path: Path, members: dict[str, bytes]) -> Path:
    """A tar of these members."""
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def refused(files: tuple[ImageFile, ...], *words: str, **options: str) -> str:
    """The error's one line, which contains these words."""
    with pytest.raises(DataError) as caught:
        find_captions(files, **options)
    said = str(caught.value)
    assert "\n" not in said and all(word in said for word in words), said
    return said


# --- files beside images


def test_files_beside_images(tmp_path: Path) -> None:
    """NAME.txt on one line, without a byte order mark; missing and empty ones are named, and have no words."""
    files = put(tmp_path, *(f"{n}.png" for n in range(8)))
    texts = {0: "a  dog\n on grass ", 1: "\ufeffein Käfer", 2: "", 3: " \n"}
    for number, text in texts.items():
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")
    found = find_captions(files)
    assert found.texts == ("a dog on grass", "ein Käfer", "", "", "", "", "", "")
    assert found.origin == "NAME.txt beside each image"
    assert found.missing == tuple(str(tmp_path / f"{n}.png") for n in (4, 5, 6, 7))
    assert found.empty == tuple(str(tmp_path / f"{n}.png") for n in (2, 3))
    assert found.sentences == (
        "4 of 8 images have no caption: 4.png, 5.png, 6.png and 1 more; they are trained without words",
        "2 of 8 images have an empty caption: 2.png, 3.png; they are trained without words",
    )


def test_a_sentence_about_one_image() -> None:
    said = Captions(("x", ""), "", missing=("set/b.png",)).sentences
    assert said == ("1 of 2 images has no caption: b.png; it is trained without words",)
    assert Captions(("x",), "").sentences == ()


def test_names_that_files_beside_images_may_have(tmp_path: Path) -> None:
    """Dots in names, endings in capitals, kohya's own ending; NAME.txt comes before NAME.caption."""
    files = put(tmp_path, "a.b.png", "c/d.PNG", "e.png", "f.png")
    (tmp_path / "a.b.txt").write_text("dots")
    (tmp_path / "a.txt").write_text("another's")
    (tmp_path / "c" / "d.TXT").write_text("capitals")
    (tmp_path / "e.caption").write_text("kohya")
    (tmp_path / "f.caption").write_text("second")
    (tmp_path / "f.txt").write_text("first")
    found = find_captions(files)
    assert found.texts == ("dots", "capitals", "kohya", "first")
    assert found.origin == "NAME.txt beside each image, NAME.caption beside each image"
    assert not found.sentences


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"caf\xe9 au lait", "is not UTF-8 text (byte 3); save it as UTF-8"),
        (b"x" * (LONGEST + 1), "65,537 bytes, more than the 65,536"),
    ],
)
def test_files_that_are_no_captions(tmp_path: Path, content: bytes, said: str) -> None:
    files = put(tmp_path, "a.png")
    (tmp_path / "a.txt").write_bytes(content)
    refused(files, str(tmp_path / "a.txt"), said)


def test_a_caption_is_a_regular_file(tmp_path: Path) -> None:
    """A pipe would be waited for without end."""
    files = put(tmp_path, "a.png")
    os.mkfifo(tmp_path / "a.txt")
    refused(files, "a.txt", "no regular file")


# --- tables


def test_a_table_of_json_lines(tmp_path: Path) -> None:
    """In the folder itself or above; null is no caption, rows of other images and empty lines count for nothing."""
    files = put(tmp_path / "set", "train/a.png", "train/b.png", "train/deep/c.png", "train/d.png", "train/e.png")
    rows = [
        {"file_name": "train/a.png", "text": "an  ant"},
        {"file_name": "train/deep/../b.png", "text": ""},
        {"file_name": "train/deep/c.png", "text": ["a cat", "another"], "other": 1},
        {"file_name": "train/d.png", "text": None},
        {"file_name": "gone.png", "text": "gone"},
        {"text": "nobody's"},
    ]
    (tmp_path / "set" / "metadata.jsonl").write_text("\n\n".join(map(json.dumps, rows)) + "\n")
    found = find_captions(files)
    assert found.texts == ("an ant", "", "", "a cat", "")
    assert [Path(name).name for name in found.missing] == ["d.png", "e.png"]
    assert [Path(name).name for name in found.empty] == ["b.png"] and found.origin == "metadata.jsonl"


def test_a_table_of_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CSV with quotes and line ends in a cell; also where the source is named by a relative path."""
    put(tmp_path / "set", "a.png", "b.png", "c.png")
    (tmp_path / "set" / "metadata.csv").write_text('file_name,text\na.png,"red, or\nnot"\nb.png,\nc.png\n')
    monkeypatch.chdir(tmp_path)
    found = find_captions(scan("set").files)
    assert found.texts == ("red, or not", "", "") and found.origin == "metadata.csv"
    assert found.empty == ("set/b.png",) and found.missing == ("set/c.png",)


def test_the_nearest_statement_counts(tmp_path: Path) -> None:
    """A file beside an image before a table; a table beside it before one above; JSON lines before CSV; the first row
    of several; what is not stated is looked for further on."""
    files = put(tmp_path, *(f"set/{name}.png" for name in "abcde"))
    (tmp_path / "set" / "a.txt").write_text("file")
    lines = [{"file_name": f"{n}.png", "text": "lines"} for n in "ab"] + [{"file_name": "b.png", "text": "again"}]
    (tmp_path / "set" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "set" / "metadata.csv").write_text("file_name,text\nb.png,cells\nc.png,cells\n")
    above = [{"file_name": f"set/{n}.png", "text": "above"} for n in "abcd"]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, above)))
    found = find_captions(files)
    assert found.texts == ("file", "lines", "cells", "above", "")
    assert found.origin == "NAME.txt beside each image, metadata.jsonl, metadata.csv"


def test_columns_of_tables(tmp_path: Path) -> None:
    """`text` before `caption`; the one that is given before both, and before files beside images."""
    files = put(tmp_path, "a.png", "b.png")
    (tmp_path / "metadata.csv").write_text("file_name,caption,text,tags\na.png,C,T,G\nb.png,C,T,G\n")
    assert find_captions(files).texts == ("T", "T")
    assert find_captions(files, column="caption").texts == ("C", "C")
    (tmp_path / "a.txt").write_text("beside")
    assert find_captions(files).texts == ("beside", "T")
    assert find_captions(files, column="tags").texts == ("G", "G")
    refused(files, "column 'gone' is in no data set", "caption, text, tags", column="gone")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metadata.jsonl", b'{"file_name": "a.png", "text": "x"}\n\n{"file_name": "b.png"', "line 3 is not JSON"),
        ("metadata.jsonl", b'{"file_name": "a.png", "text": "x"}\n[1]', "line 2 must be a JSON object"),
        ("metadata.jsonl", b"[" * 100_000, "line 1 is not JSON"),
        ("metadata.jsonl", b'{"file_name": "a.png", "text": "\xe9"}', "is not UTF-8 text (byte 32)"),
        ("metadata.csv", b"file_name,text\n" + b"a.png,x\n" * 2 + b"b.png," + b"x" * 200_000, "line 4 is not CSV"),
    ],
)
def test_broken_tables_name_the_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    files = put(tmp_path, "a.png")
    (tmp_path / name).write_bytes(content)
    refused(files, str(tmp_path / name), said)


# --- tars and data sets


def test_samples_of_tars(tmp_path: Path) -> None:
    """`txt` before `caption` before `json`, in any order, also behind a class; a sample without is named."""
    members = {
        "0.json": b'{"caption": "json", "cls": 1}',
        "0.png": picture(0),
        "0.txt": b"text\n of two lines",
        "1.png": picture(1),
        "1.caption": b"caption",
        "1.json": b'{"text": "json"}',
        "./x/2.png": picture(2),
        "./x/2.json": b'{"prompt": "json"}',
        "./x/2.cls": b"7",
        "3.png": picture(3),
        "3.json": b'{"width": 16}',
        "4.png": picture(4),
        "5.txt": b"",
        "5.png": picture(5),
        "6.png": picture(6),
        "6.json": b"{",
    }
    files = scan(tar(tmp_path / "0.tar", members)).files
    found = find_captions(files)
    assert found.texts == ("text of two lines", "caption", "json", "", "", "", "")
    assert [Path(name).name for name in found.missing] == ["3.png", "4.png", "6.png"]
    assert [Path(name).name for name in found.empty] == ["5.png"]
    assert found.origin == "texts in the samples of tars"
    assert [file.path.read_bytes() for file in files] == [picture(n) for n in range(7)]


@pytest.mark.parametrize(
    ("text", "said"), [(b"caf\xe9", "is not UTF-8 text (byte 3)"), (b"x" * (LONGEST + 1), "65,537 bytes, more than")]
)
def test_members_that_are_no_captions(tmp_path: Path, text: bytes, said: str) -> None:
    files = scan(tar(tmp_path / "0.tar", {"a.png": picture(0), "a.txt": text})).files
    refused(files, f"{tmp_path / '0.tar'}/a.txt", said)


def test_a_scan_reads_no_caption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It notes where they are."""
    members = {f"{n}.{kind}": picture(n) if kind == "png" else b"words" for n in range(4) for kind in ("png", "txt")}
    path, opened = tar(tmp_path / "0.tar", members), []
    from vaeworks.data.sources import tars

    real = tars.regular_file
    monkeypatch.setattr(tars, "regular_file", lambda place: opened.append(place) or real(place))
    found = tars.tar_members(path)[0]
    assert len(opened) == 1 and [member.caption for member in found] == ["words"] * 4 and len(opened) == 5


def rows(folder: Path, **columns: object) -> tuple[ImageFile, ...]:
    """A parquet file of four images and these columns."""
    datasets = pytest.importorskip("datasets")
    features = {"image": datasets.Image()}
    for name, values in columns.items():
        kind = type(values[0])  # type: ignore[index]
        simple = datasets.Value({int: "int64", bytes: "binary"}.get(kind, "string"))
        features[name] = datasets.List(simple) if kind is list else simple
    folder.mkdir()
    images = [{"bytes": picture(n), "path": None} for n in range(4)]
    data = datasets.Dataset.from_dict({"image": images, **columns}, features=datasets.Features(features))
    data.to_parquet(folder / "0.parquet")
    return scan(folder).files


def test_columns_of_data_sets(tmp_path: Path) -> None:
    """The first usual name that holds text, or the one that is given; null is no caption."""
    files = rows(tmp_path / "set", text=[1, 2, 3, 4], caption=["a", " b  c", "", None], mine=["w", "x", "y", "z"])
    found = find_captions(files)
    assert found.texts == ("a", "b c", "", "") and found.origin == "column 'caption' of the data set"
    assert (len(found.missing), len(found.empty)) == (1, 1) and found.missing[0].endswith("#3")
    assert find_captions(files, column="mine").texts == ("w", "x", "y", "z")
    refused(files, "'gone' of data set", "is not there", "caption, mine", column="gone")
    refused(files, "'text' of data set", "holds no text", column="text")


def test_data_sets_with_several_captions_and_of_tars(tmp_path: Path) -> None:
    """The first of a list; bytes in a column that is called as a tar's field."""
    lists = rows(tmp_path / "lists", captions=[["a", "b"], ["c"], [], None])
    found = find_captions(lists)
    assert found.texts == ("a", "c", "", "") and (len(found.missing), len(found.empty)) == (1, 1)
    assert find_captions(rows(tmp_path / "tars", txt=["ä".encode(), b"b", b"c", None])).texts == ("ä", "b", "c", "")
    broken = rows(tmp_path / "broken", txt=[b"a", b"\xff", b"c", b"d"])
    refused(broken, "#1, column txt is not UTF-8")


def test_a_data_set_without_captions(tmp_path: Path) -> None:
    files = rows(tmp_path / "set", number=[1, 2, 3, 4])
    refused(files, "no image has a caption", "write NAME.txt beside NAME.jpg")


def test_a_folder_of_images_as_a_data_set(tmp_path: Path) -> None:
    """The library reads the same table, with the same result."""
    pytest.importorskip("datasets")
    put(tmp_path / "set", "a.png", "b.png")
    lines = [{"file_name": "a.png", "text": "ant"}, {"file_name": "b.png", "text": "bee"}]
    (tmp_path / "set" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for source in (str(tmp_path / "set"), f"dataset:{tmp_path / 'set'}"):
        assert find_captions(scan(source).files).texts == ("ant", "bee")


# --- classes


CLASS_FILES = ("american_bulldog/0.png", "american_bulldog/1.png", "ox/2.png", "ox/3.png")


def test_classes_are_captions_of_images_without(tmp_path: Path) -> None:
    """Underscores are blanks, and "an" stands before vowels; a template of one's own says more."""
    files = put(tmp_path, *CLASS_FILES)
    found = find_captions(files)
    assert found.texts == ("a photo of an american bulldog",) * 2 + ("a photo of an ox",) * 2
    assert found.origin == "classes, as 'a photo of a {}'" and not found.sentences
    assert find_captions(files, "A {}, drawn: {}").texts[2] == "An ox, drawn: ox"
    assert find_captions(files, "the {} {x}").texts[0] == "the american bulldog {x}"


def test_stated_captions_come_before_classes_and_a_template_before_both(tmp_path: Path) -> None:
    files = put(tmp_path, *CLASS_FILES)
    (tmp_path / "ox" / "2.txt").write_text("a lonely ox")
    found = find_captions(files)
    assert found.texts == ("", "", "a lonely ox", "") and len(found.missing) == 3
    assert find_captions(files, "a {}").texts == ("an american bulldog",) * 2 + ("an ox",) * 2


def test_a_template_needs_classes(tmp_path: Path) -> None:
    """Without them stated captions are taken, which is said; with neither it is an error."""
    files = put(tmp_path, "a.png", "b.png")
    refused(files, "no image has a caption", "sort the images into folders", template="a {}")
    (tmp_path / "a.txt").write_text("ant")
    found = find_captions(files, "a {}")
    assert found.texts == ("ant", "") and "the images have no classes, so 'a {}' is not used" in found.sentences


def test_a_template_needs_a_place_for_the_class(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^the template \(='a photo'\) must contain \{\}[^\n]*$"):
        find_captions(put(tmp_path, *CLASS_FILES), "a photo")


# --- what is drawn, and what has no captions


def test_drawn_images_have_words_of_their_own() -> None:
    """For each of the eight classes; colours are those of the pixels."""
    files = scan("procedural:160:32:4").files
    found = find_captions(files)
    assert found.origin == "words for what is drawn" and not found.sentences
    right = []
    for place, text in zip(procedural(160, 64, 4), found.texts, strict=True):
        kind = CLASSES[place.label]
        pixels, inside = place.image().double() / 255, place.mask.image()[0] > 0
        figure, ground = (colour_name(pixels[:, part].mean(1).numpy()) for part in (inside, ~inside))
        assert (" stripes on " in text and " disc with " in text) if kind == "stripes" else f" {kind} on " in text
        if kind != "stripes":
            expected = f"{figure} text" if kind == "text" else f"a {figure} {kind}"
            right.append(text == article(f"{expected} on a {ground} ground"))
    assert len(right) == 140 and np.mean(right) > 0.9
    assert find_captions(files, "one {}").texts[:2] == ("one disc", "one square")
    assert find_captions(scan("procedural:8:256:4").files).texts == found.texts[:8]


def test_colours_have_their_names() -> None:
    for name, colour in NAMES.items():
        assert colour_name((np.array(colour) + 6) / 255) == name
    assert article("a orange star on a red ground, a ice") == "an orange star on a red ground, an ice"


def test_figures_and_digits_have_words(tmp_path: Path) -> None:
    """Digits of IDX files have classes alone: other sets have the same form."""
    files = scan("shapes:12:32").files
    assert find_captions(files).texts == tuple(place.caption for place in captioned_shapes(12, 32))
    digits = find_captions(scan("digits").files)
    assert digits.texts[:3] == ("a handwritten zero", "a handwritten one", "a handwritten two")
    assert digits.origin == "the digits' names" and len(set(digits.texts)) == 10
    (tmp_path / "x-images-idx3-ubyte").write_bytes(idx(np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8)))
    (tmp_path / "x-labels-idx1-ubyte").write_bytes(idx(np.array([1, 1, 7, 7], np.uint8)))
    assert find_captions(scan(tmp_path).files, "a handwritten {}").texts[1:3] == ("a handwritten 1", "a handwritten 7")


def test_images_without_captions_are_refused_with_the_remedies(tmp_path: Path) -> None:
    files = put(tmp_path, "a.png", "b.png")
    said = refused(files, "no image has a caption", "NAME.txt", "metadata.jsonl", "column", "folders")
    assert said.startswith("no image has a caption; write NAME.txt")
    (tmp_path / "a.txt").write_text(" ")
    refused(files, "all captions are empty")
    (tmp_path / "metadata.csv").write_text("file_name,words\na.png,ant\n")
    refused(files, "the columns are words")
    assert find_captions(files, column="words").texts == ("ant", "")


def test_streams_are_refused(tmp_path: Path) -> None:
    """They have no list of images."""
    tar(tmp_path / "0.tar", {"0.png": picture(0), "0.txt": b"x"})
    stream = open_stream(f"stream:{tmp_path / '0.tar'}", 0.0)
    refused(stream, "leave 'stream:' away")  # type: ignore[arg-type]
    refused(stream.files, "leave 'stream:' away")
