"""Data sets whose rows, cards and states name other files than their own, or programs: none is opened, run or waited
for."""

from __future__ import annotations

import io
import itertools
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import vaeworks as vw
from vaeworks.config.recorded import HUB
from vaeworks.data import open_stream, scan
from vaeworks.data.sources import row_files
from vaeworks.data.sources.dispatch import open_shards
from vaeworks.data.sources.hub import DatasetName, _check_files, _only_own_files, encoded
from vaeworks.data.sources.row_files import Reach, folder_reach
from vaeworks.data.sources.stream import _rows
from vaeworks.data.table import plain, table


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Data sets are prepared below the tests' own folder."""
    folder = tmp_path_factory.mktemp("hugging-face")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
        datasets.disable_progress_bars()
        yield
        datasets.enable_progress_bars()


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


OWN, SECRET = png(0), png(1)

RAN = ("subprocess", "os.system", "os.posix_spawn", "os.exec", "socket.connect", "socket.getaddrinfo")
"""Beginnings of audit events that nothing of this has a reason for."""

TEMPLATE = {
    "version": 1,
    "templates": {"x": "{{ cycler.__init__.__globals__.os.system('touch canary') }}"},
    "refs": {"a": "{{x}}"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set's folder, with files beside it that it may not reach, and links and pipes in it."""
    (tmp_path / "secret.png").write_bytes(SECRET)
    (tmp_path / "set-twin").mkdir()
    (tmp_path / "set-twin" / "a.png").write_bytes(SECRET)
    found = tmp_path / "set"
    (found / "sub").mkdir(parents=True)
    (found / "sub" / "own.png").write_bytes(OWN)
    (found / "link.png").symlink_to(tmp_path / "secret.png")
    (found / "linked").symlink_to(tmp_path)
    (found / "circle.png").symlink_to(found / "circle.png")
    (found / "good-link.png").symlink_to(found / "sub" / "own.png")
    os.mkfifo(found / "pipe.png")
    (found / "zero.png").symlink_to("/dev/zero")
    (found / "template.json").write_text(json.dumps(TEMPLATE))
    with zipfile.ZipFile(found / "own.zip", "w") as file:
        file.writestr("a.png", OWN)
    with (
        zipfile.ZipFile(found / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file,
        file.open("a.png", "w", force_zip64=True) as member,
    ):
        for _ in range(3):
            member.write(bytes(2**20))
    return found


def hostile(folder: Path) -> list[str]:
    secret = folder.parent / "secret.png"
    return [
        str(secret),
        "../secret.png",
        f"{folder}/../secret.png",
        f"{folder}-twin/a.png",
        "link.png",
        f"{folder}/link.png",
        "linked/secret.png",
        "circle.png",
        "pipe.png",
        str(folder / "pipe.png"),
        "zero.png",
        "/dev/zero",
        "/dev/stdin",
        "/etc/passwd",
        "/proc/self/environ",
        "",
        ".",
        str(folder),
        f"file://{secret}",
        f"file://{folder}/sub/own.png",
        f"local://{secret}",
        "http://127.0.0.1:9/a.png",
        "https://example.org/a",
        "ftp://127.0.0.1/x",
        "memory://a.png",
        f"reference://a::{folder}/template.json",
        f"reference://::file://{folder}/template.json",
        f"simplecache::file://{secret}",
        f"filecache::{secret}",
        "ssh://127.0.0.1/x",
        "git://x",
        "data:,x",
        "github://a:b@main/x",
        f"zip://a.png::{secret}",
        f"zip://none.png::{folder}/own.zip",
        f"zip://a.png::{folder}/bomb.zip",
        f"zip://a.png::file://{folder}/own.zip",
        f"tar://a::{folder}/own.zip",
        f"zip://a.png::zip://b.zip::{folder}/own.zip",
        f"zip://a.png::{folder}/pipe.png",
        "hf://datasets/a/b/x.png",
        "zip://a.png::hf://datasets/a/b/x.zip",
        "a\0b.png",
        "x" * 5000,
        "../" * 3000,
        "::::",
        "://",
        "zip://::",
        "hf://",
        "~/x.png",
        "missing.png",
        "\x1b[31mred.png",
    ]


def test_rows_name_files_of_their_own_folder_only(
    folder: Path, watched: list[str], modest: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the others is a DataError in one line, and nothing is opened, run or asked for."""
    monkeypatch.setattr(row_files, "LARGEST_FILE", 2**21)
    reach = folder_reach(str(folder))
    for path in (
        "sub/own.png",
        str(folder / "sub" / "own.png"),
        "sub/../sub/own.png",
        "good-link.png",
        f"zip://a.png::{folder}/own.zip",
    ):
        assert encoded({"bytes": None, "path": path}, reach) == OWN
    for path in hostile(folder):
        watched.clear()
        with pytest.raises(vw.DataError) as caught:
            encoded({"bytes": None, "path": path}, reach)
        assert watched == []
        assert len(str(caught.value)) < 700
        with pytest.raises(vw.DataError):
            encoded({"bytes": None, "path": path})


@pytest.mark.parametrize("kind", ["rows", "stream"])
def test_a_parquet_file_with_such_rows(folder: Path, kind: str, watched: list[str]) -> None:
    """The images that are the data set's own are read, and the others are skipped and named."""
    paths = [None, "sub/own.png", *[path for path in hostile(folder) if path and "\0" not in path]]
    cells = [path and {"bytes": None, "path": path} for path in paths]
    home = folder / "data"
    home.mkdir()
    columns = pa.table({"image": pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))})
    kinds = json.dumps(
        {"info": {"features": {"image": {"_type": "Image"}}}}
    )  # the library itself would put the files' contents into it
    pq.write_table(columns.replace_schema_metadata({"huggingface": kinds}), home / "train.parquet")
    for name in (
        "own.zip",
        "bomb.zip",
        "template.json",
        "pipe.png",
        "zero.png",
        "link.png",
        "circle.png",
        "good-link.png",
    ):
        (folder / name).unlink()
    watched.clear()
    if kind == "rows":
        found = scan(f"dataset:{home.parent}")
        assert [file.path.read_bytes() for file in found.files] == [OWN]
        assert len(found.skipped) == len(paths) - 1
    else:
        contents = [content for _, content in _rows(open_shards(f"stream:dataset:{home.parent}"))]
        assert len(contents) == len(paths)
        assert [content for content in contents if isinstance(content, bytes)] == [OWN]
    assert [
        event
        for event in watched
        if event.startswith(("subprocess", "os.system", "os.posix", "os.exec", "socket.connect", "socket.get"))
    ] == []
    assert not (folder.parent / "canary").exists()


@pytest.mark.parametrize(
    "value",
    [
        5,
        2**40,
        "text",
        [1, 2],
        {"a": 1},
        {"bytes": 10**12, "path": None},
        {"bytes": [1], "path": None},
        {"bytes": None, "path": 5},
        {"bytes": None, "path": ["x"]},
        None,
        {},
        True,
        1.5,
    ],
    ids=repr,
)
def test_cells_of_other_types(value: object) -> None:
    """`bytes(10**12)` would be a terabyte of zeros."""
    with pytest.raises(vw.DataError, match=r"in this row|it is not opened"):
        encoded(value, Reach((Path("/tmp"),)))


def test_what_a_hub_data_set_may_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Addresses of data sets on the hub, and its own files in the cache."""
    import fsspec

    asked: list[str] = []
    monkeypatch.setattr(fsspec, "open", lambda address, mode: asked.append(address) or io.BytesIO(OWN))
    reach = Reach((tmp_path / "datasets--a--b", tmp_path / "downloads"), hub=True)
    for address in ("hf://datasets/a/b@main/x.png", "zip://x/y.png::hf://datasets/a/b@main/x.zip"):
        assert encoded({"bytes": None, "path": address}, reach) == OWN
    assert len(asked) == 2
    for address in (
        "http://x/y",
        "zip://a::http://x/y.zip",
        "simplecache::hf://datasets/a/b/x",
        "reference://x::hf://datasets/a/b/x.json",
        "file:///etc/passwd",
        "zip://a::zip://b::hf://datasets/a/b/x",
        "hf://spaces/a/b/x",
        "hf://datasets/a/b/x::file:///etc/passwd",
        "/etc/passwd",
        "../x.png",
        "hf://datasets/../../x",
    ):
        with pytest.raises(vw.DataError):
            encoded({"bytes": None, "path": address}, reach)
    assert len(asked) == 2
    (tmp_path / "datasets--a--b").mkdir()
    (tmp_path / "datasets--a--b" / "x.png").write_bytes(OWN)
    assert encoded({"bytes": None, "path": str(tmp_path / "datasets--a--b" / "x.png")}, reach) == OWN


def card(patterns: object, **more: object) -> str:
    config = {"config_name": "default", "data_files": patterns} | more
    return "---\n" + json.dumps({"configs": [config]}) + "\n---\n"


CARDS = {
    "absolute": lambda home: card(f"{home.parent}/elsewhere/*.parquet"),
    "above": lambda home: card("../elsewhere/*.parquet"),
    "above in the middle": lambda home: card("data/../../elsewhere/*.parquet"),
    "in a list": lambda home: card([{"split": "train", "path": ["data/*.parquet", "../elsewhere/*.parquet"]}]),
    "file": lambda home: card(f"file://{home.parent}/elsewhere/a.parquet"),
    "https": lambda home: card("https://127.0.0.1:9/a.parquet"),
    "reference": lambda home: card(f"reference://x::{home}/template.json"),
    "hub": lambda home: card("hf://datasets/a/b/x.parquet"),
    "zip": lambda home: card("zip://*::https://127.0.0.1:9/a.zip"),
    "folder above": lambda home: card("**/*.parquet", data_dir="../elsewhere"),
    "absolute folder": lambda home: card("**/*.parquet", data_dir=f"{home.parent}/elsewhere"),
    "default folder": lambda home: (
        "---\n" + json.dumps({"configs": [{"config_name": "default", "data_dir": "../elsewhere"}]}) + "\n---\n"
    ),
    "linked": lambda home: card("linked/elsewhere/a.parquet"),
    "lines": lambda home: "---\n" + "\n" * 100_000 + "x",
    "laughs": lambda home: (
        "---\nb0: &b0 [x]\n" + "".join(f"b{i + 1}: &b{i + 1} [*b{i}, *b{i}]\n" for i in range(60)) + "---\n"
    ),
    "large": lambda home: "---\n" + "x" * 2**25,
    "much YAML": lambda home: "---\na: [" + "[a,b]," * 10**5 + "]\n---\n",
}


@pytest.mark.parametrize("prefix", ["", "stream:"])
@pytest.mark.parametrize("kind", CARDS)
def test_cards_that_name_other_files(tmp_path: Path, watched: list[str], kind: str, prefix: str, modest: None) -> None:
    """Of a README or YAML beside the data: refused before the library looks for such files."""
    home, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    for place, content in ((home / "data", OWN), (elsewhere, SECRET)):
        place.mkdir(parents=True)
        rows = {"image": [{"bytes": content, "path": None}]}
        datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image()})).to_parquet(
            place / "a.parquet"
        )
    (home / "template.json").write_text(json.dumps(TEMPLATE))
    (home / "linked").symlink_to(tmp_path)
    (home / "README.md").write_text(CARDS[kind](home))
    watched.clear()
    with pytest.raises(vw.DataError) as caught:
        open_stream(f"stream:dataset:{home}", 0.0) if prefix else scan(f"dataset:{home}")
    assert any(
        word in str(caught.value)
        for word in (
            "its card names",
            "outside of the data set",
            "hundreds of empty lines",
            "are read of one file",
            "characters of YAML",
        )
    ), caught
    assert [event for event in watched if event.startswith(RAN)] == []


def test_sound_cards_are_followed(tmp_path: Path) -> None:
    """Splits and configurations as they are written on the hub."""
    home = tmp_path / "set"
    for name, seed in (("a", 0), ("b", 1)):
        (home / name).mkdir(parents=True)
        rows = {"image": [{"bytes": png(seed), "path": None}]}
        datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image()})).to_parquet(
            home / name / "x-0.parquet"
        )
    (home / "README.md").write_text(
        card([{"split": "train", "path": "b/x-*"}, {"split": "test", "path": ["a/*.parquet"]}])
    )
    assert [f.path.read_bytes() for f in scan(f"dataset:{home}").files] == [png(1)]
    assert [f.path.read_bytes() for f in scan(f"dataset:{home}:test").files] == [png(0)]
    (tmp_path / "linked").symlink_to(home)  # as a folder on another disk often is, and what macOS calls /tmp
    assert [f.path.read_bytes() for f in scan(f"dataset:{tmp_path / 'linked'}").files] == [png(1)]


def test_patterns_of_a_hub_data_set() -> None:
    """Its own files, and others of the hub; no file of this machine, and no other address."""
    name = DatasetName(HUB, "a/b")
    reach, base = Reach((Path("/cache/datasets--a--b"),), hub=True), "hf://datasets/a/b@0123"
    seen: list[str] = []

    class Library:
        class data_files:
            @staticmethod
            def resolve_pattern(
                pattern: str, base_path: str, allowed_extensions: object = None, download_config: object = None
            ) -> list[str]:
                seen.append(pattern)
                return []

    original = Library.data_files.resolve_pattern
    with _only_own_files(Library, reach):
        for pattern in (
            "data/train-*",
            "**",
            "hf://datasets/a/c@main/*.parquet",
            "zip://*.png::hf://datasets/a/b/x.zip",
        ):
            Library.data_files.resolve_pattern(pattern, base_path=base)
        for pattern in ("/etc/*", "../x", "file:///etc/*", "https://x/*", "reference://x::y", "x:y"):
            with pytest.raises(vw.DataError, match="its card names"):
                Library.data_files.resolve_pattern(pattern, base_path=base)
        with pytest.raises(vw.DataError, match="its card names"):
            Library.data_files.resolve_pattern("*", base_path="/etc")
    assert len(seen) == 4
    assert Library.data_files.resolve_pattern is original

    class Builder:
        name = "parquet"

        class config:
            data_files = {"train": ["hf://datasets/a/b@0/x.parquet", "/etc/passwd"]}  # noqa: RUF012

    with pytest.raises(vw.DataError, match="outside of the data set"):
        _check_files(Builder(), name)


@pytest.mark.parametrize("kind", ["text", "pickle", "script", "packed", "webdataset"])
def test_readers_that_are_not_used(tmp_path: Path, kind: str, watched: list[str]) -> None:
    """Of what the library knows, what may hold images is read; scripts and pickles are nothing to it."""
    name = {"text": "a.txt", "pickle": "a.pkl", "script": "set.py", "packed": "a.json.gz", "webdataset": "b.tar"}[kind]
    home = tmp_path / "json"  # as one of the library's formats is called
    home.mkdir()
    (home / name).write_bytes(b"cos\nsystem\n(S'touch canary'\ntR." if kind == "pickle" else b"open('canary', 'w')\n")
    if kind == "webdataset":
        (home / "a.png").write_bytes(OWN)
        (home / "c.tar").write_bytes(b"")
    watched.clear()
    with pytest.raises(vw.DataError):
        scan(f"dataset:{home}")
    assert [
        event
        for event in watched
        if event.startswith(("exec", "pickle", "os.system", "subprocess")) and "canary" in event
    ] == []


def saved(home: Path, **changes: object) -> Path:
    rows = {"image": [{"bytes": OWN, "path": None}]}
    datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image()})).save_to_disk(home)
    state = json.loads((home / "state.json").read_text()) | changes
    (home / "state.json").write_text(json.dumps(state))
    return home


def test_states_that_name_other_files(tmp_path: Path) -> None:
    """Of what `save_to_disk` wrote, only files beside the state are parts of it, and parts are folders within."""
    other = saved(tmp_path / "other")
    good = saved(tmp_path / "good")
    assert [f.path.read_bytes() for f in scan(good).files] == [OWN]
    arrow = next(other.glob("*.arrow"))
    (tmp_path / "good" / "pipe.arrow").unlink(missing_ok=True)
    for number, name in enumerate(
        [str(arrow), f"../other/{arrow.name}", "/dev/zero", "", "..", 5, None, "pipe.arrow", "link.arrow", "a\0b"]
    ):
        home = saved(tmp_path / f"bad-{number}", _data_files=[{"filename": name}])
        os.mkfifo(home / "pipe.arrow")
        (home / "link.arrow").symlink_to(arrow)
        for source in (home, f"dataset:{home}"):
            with pytest.raises(vw.DataError):
                scan(source)
        with pytest.raises(vw.DataError):
            open_stream(f"stream:dataset:{home}", 0.0)
    again = saved(
        tmp_path / "again", _data_files=[{"filename": arrow.name}] * 20_000
    )  # after half a minute and 1.8 GB there was no answer
    with pytest.raises(vw.DataError, match="twice"):
        scan(again)
    for number, splits in enumerate([["../other"], [str(other)], 5, None, [None], ["."], ["none"]]):
        home = tmp_path / f"splits-{number}"
        home.mkdir()
        (home / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
        with pytest.raises(vw.DataError):
            scan(home)


def test_arrow_files_are_checked_before_they_are_believed(tmp_path: Path) -> None:
    """They are memory as it was: a wrong offset in one would be a wrong place in ours."""
    home = saved(tmp_path / "set")
    arrow = next(home.glob("*.arrow"))
    content = arrow.read_bytes()
    offsets = np.array([0, len(OWN)], dtype="<i4").tobytes()
    assert content.count(offsets) >= 1
    arrow.write_bytes(content.replace(offsets, np.array([0, 2**30], dtype="<i4").tobytes()))
    with pytest.raises(vw.DataError, match="cannot be opened"):
        scan(home)


# tables

CELLS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    " =1",
    "＝1",
    "=cmd|' /C calc'!A0",
    "-",
    "+",
    "=",
    "-a.png",
    "+_1",
]


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    """Text that a spreadsheet would compute gets an apostrophe; numbers, and all other text, come back as they were."""
    import csv

    others = ["plain", "a,b", 'say "x"', "a;=1", "two\nlines", "", "'quoted", "a=b", "1.5", "ü", "x\ty"]
    numbers = [-1, -1.5, 0, 2.5, -1e-9, float("-inf"), float("nan"), "-0.1234", "+3", "-inf", "1e5", "-.5"]
    text = table([["name", *map(str, range(40))], [*CELLS, *others], numbers, [None, True]])
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert read[1] == [*(f"'{cell}" for cell in CELLS), *others]
    assert [float(cell) for cell in read[2] if "nan" not in cell] == [
        float(value) for value in numbers if str(value) != "nan"
    ]
    assert read[3] == ["", "True"]
    assert [plain(cell) for cell in read[1]] == [*CELLS, *others]
    assert text.endswith("\n")
    assert '"a;=1"' in text  # a program that takes semicolons for borders sees one cell, too


def test_tables_are_written_in_one_place() -> None:
    """By `table`: no other module has the library's writer."""
    source = Path(vw.__file__).parent
    assert [
        path.name
        for path in source.rglob("*.py")
        if any(word in path.read_text() for word in ("csv.writer", "DictWriter", "to_csv"))
    ] == []


def test_minima_are_met_by_what_is_pinned() -> None:
    """The versions that are tested close the holes that pyproject.toml names."""
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = [
        line.split("==")
        for line in (root / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    ]
    pinned = {canonicalize_name(name): version for name, version in lines}
    asked = [
        Requirement(text)
        for text in [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    ]
    for requirement in asked:
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is None or requirement.specifier.contains(version), requirement
    least = {
        "torch": "2.9.1",
        "pillow": "12.1.1",
        "jinja2": "3.1.5",
        "fsspec": "2026.5.0",
        "diffusers": "0.42.0",
        "transformers": "5.2.0",
        "datasets": "5.1.0",
    }
    for name, version in least.items():
        assert all(not r.specifier.contains(version) for r in asked if r.name == name), name
