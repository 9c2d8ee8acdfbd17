"""Folders as people have them: what is read, what is left out, and that it is said."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from configs import LEAST
from PIL import Image
from safetensors.torch import load_file

import vaeworks as vw
from vaeworks.data import scan
from vaeworks.data.inputs import image_files
from vaeworks.data.labels import find_labels
from vaeworks.data.sources import folder as folders
from vaeworks.images import SUFFIXES, UNREAD


def picture(number: int = 0, kind: str = "PNG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((24, 24), 20 + number).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def put(path: Path, content: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(len(str(path))) if content is None else content)
    return path


def names(root: Path) -> list[str]:
    return [str(Path(str(file.path)).relative_to(root)) for file in scan(root).files]


# ---------------------------------------------------------------------- Links and folders that cannot be opened


def test_linked_class_folders_are_followed(tmp_path: Path) -> None:
    """Class folders are often links to where the images really are; their names are the classes."""
    for name in ("a", "b"):
        put(tmp_path / "store" / f"{name}1.png")
        put(tmp_path / "real" / name / "1.png")
        put(tmp_path / "real" / name / "2.png")
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / name).symlink_to(tmp_path / "real" / name)
    assert names(tmp_path / "set") == ["a/1.png", "a/2.png", "b/1.png", "b/2.png"]
    assert find_labels(scan(tmp_path / "set").files) == ("a", "a", "b", "b")


@pytest.mark.parametrize("target", [".", "..", "../set", "sub"])
def test_circular_links_end(tmp_path: Path, target: str) -> None:
    put(tmp_path / "set" / "sub" / "1.png")
    (tmp_path / "set" / "sub" / "loop").symlink_to(target, target_is_directory=True)
    assert names(tmp_path / "set") == ["sub/1.png"]


def test_a_folder_that_is_linked_twice_counts_once(tmp_path: Path) -> None:
    put(tmp_path / "real" / "1.png")
    for name in ("a", "b"):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / name).symlink_to(tmp_path / "real")
    assert len(names(tmp_path / "set")) == 1


def test_folders_that_cannot_be_opened_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "set" / "open" / "1.png")
    put(tmp_path / "set" / "closed" / "2.png")
    opened = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return opened(path)

    monkeypatch.setattr(folders.os, "scandir", scandir)
    assert names(tmp_path / "set") == ["open/1.png"]
    assert scan(tmp_path / "set").skipped == (
        (str(tmp_path / "set" / "closed"), "cannot be opened: Permission denied"),
    )


# ---------------------------------------------------------------------- Formats


SAVED = {
    ".avif": "AVIF", ".jfif": "JPEG", ".gif": "GIF", ".jp2": "JPEG2000", ".tga": "TGA", ".JPE": "JPEG", ".ppm": "PPM",
    ".pgm": "PPM", ".qoi": "QOI", ".pcx": "PCX", ".sgi": "SGI", ".dds": "DDS", ".dib": "DIB", ".J2K": "JPEG2000",
    ".apng": "PNG", ".PNG": "PNG", ".TIFF": "TIFF", ".webp": "WEBP",
}  # fmt: skip


@pytest.mark.parametrize("ending", SAVED)
def test_whatever_pillow_opens_is_read(tmp_path: Path, ending: str) -> None:
    """In a folder, as a file and in a tar, by the content of the file."""
    mode = "L" if ending == ".pgm" else "RGB"
    path = put(tmp_path / "set" / f"a{ending}", picture(1, SAVED[ending], mode))
    assert ending.lower() in SUFFIXES
    found = scan(tmp_path / "set")
    assert [file.path for file in found.files] == [path] and not found.skipped
    assert vw.open_image(path).shape == (1, 3, 24, 24)


@pytest.mark.parametrize("ending", UNREAD)
def test_other_pictures_are_counted_and_named(tmp_path: Path, ending: str) -> None:
    put(tmp_path / "a.png")
    left = put(tmp_path / f"b{ending.upper()}", b"anything")
    assert scan(tmp_path).skipped == ((str(left), UNREAD[ending]),)


def test_a_heic_by_another_name_is_recognized(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg", b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(vw.DataError, match="HEIC, which is not read; save it as PNG"):
        vw.open_image(tmp_path / "a.jpg")


def test_a_folder_of_pictures_that_are_not_read_says_which(tmp_path: Path) -> None:
    put(tmp_path / "IMG_1.HEIC", b"anything")
    with pytest.raises(vw.DataError, match=r"no image file .*IMG_1\.HEIC: HEIC, which Pillow does not read"):
        scan(tmp_path)


# ---------------------------------------------------------------------- What systems leave in folders


@pytest.mark.parametrize(
    "junk",
    ["@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", ".thumbnails", "lost+found", "@Recycle", ".ipynb_checkpoints"],
)
def test_thumbnails_and_deleted_files_are_no_images(tmp_path: Path, junk: str) -> None:
    """Not below a class either; folders that a user can see are named."""
    for name in ("a", "b"):
        for number in range(2):
            put(tmp_path / name / f"{number}.png")
        put(tmp_path / name / junk / "0.png" / "SYNOFILE_THUMB_M.png")
    put(tmp_path / junk / "x.png")
    put(tmp_path / "a" / "._0.png", b"macOS")
    found = scan(tmp_path)
    assert names(tmp_path) == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    assert set(find_labels(found.files)) == {"a", "b"}
    told = [] if junk.startswith(".") else [str(tmp_path / p / junk) for p in ("", "a", "b")]
    assert sorted(name for name, _ in found.skipped) == sorted(told)
    assert len(image_files(tmp_path)) == 4


# ---------------------------------------------------------------------- Classes that a data set states


def tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


STATED = {
    "cls": lambda n: {f"{n:04}.cls": str(10 - n % 3).encode()},
    "cls with a line end": lambda n: {f"{n:04}.cls": f"{10 - n % 3}\n".encode()},
    "json": lambda n: {f"{n:04}.json": json.dumps({"caption": "x", "label": 10 - n % 3}).encode()},
    "both": lambda n: {f"{n:04}.cls": str(10 - n % 3).encode(), f"{n:04}.json": b'{"label": 77}'},
}


@pytest.mark.parametrize("way", STATED)
def test_samples_of_tars_state_their_class(tmp_path: Path, way: str) -> None:
    """The shard is no class; numbers are kept as they are, in latents too."""
    for shard in range(2):
        members = {}
        for n in range(4 * shard, 4 * shard + 4):
            members |= {f"{n:04}.png": picture(n)} | STATED[way](n)
        tar(tmp_path / "set" / f"{shard}.tar", members)
    files = scan(tmp_path / "set").files
    assert find_labels(files) == tuple(str(10 - n % 3) for n in range(8))
    vw.encode(vw.build(LEAST), tmp_path / "set", tmp_path / "latents", size=16)
    found = load_file(next((tmp_path / "latents").glob("*.safetensors")))["labels"]
    assert found.tolist() == [10 - n % 3 for n in range(8)]
    assert json.loads((tmp_path / "latents" / "index.json").read_text())["classes"][8:] == ["8", "9", "10"]


def test_tars_without_classes_have_none(tmp_path: Path) -> None:
    for shard in range(2):
        tar(tmp_path / f"{shard}.tar", {f"{n}.png": picture(n + 9 * shard) for n in range(3)})
    assert find_labels(scan(tmp_path).files) is None


def test_folders_in_a_tar_are_classes(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {f"{name}/{n}.png": picture(n + len(name)) for name in ("cat", "horse") for n in range(2)})
    assert find_labels(scan(tmp_path / "a.tar").files) == ("cat", "cat", "horse", "horse")


@pytest.mark.parametrize("kind", ["ClassLabel", "int64", "string"])
@pytest.mark.parametrize("column", ["label", "fine_label"])
def test_columns_of_classes(tmp_path: Path, kind: str, column: str) -> None:
    """Of a data set in parquet: names where the type has them, and the set's own numbers in latents."""
    datasets = pytest.importorskip("datasets")
    numbers = [2, 0, 2, 1, 0]
    names = ["zebra", "ant", "mole"]
    feature = datasets.ClassLabel(names=names) if kind == "ClassLabel" else datasets.Value(kind)
    values = [names[n] for n in numbers] if kind == "string" else numbers
    features = datasets.Features({"image": datasets.Image(), column: feature})
    rows = {"image": [{"bytes": picture(n), "path": None} for n in range(5)], column: values}
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set" / "0.parquet")
    found = find_labels(scan(tmp_path / "set").files)
    assert found == tuple(str(n) for n in numbers) if kind == "int64" else tuple(names[n] for n in numbers)
    vw.encode(vw.build(LEAST), tmp_path / "set", tmp_path / "latents", size=16)
    stored = load_file(next((tmp_path / "latents").glob("*.safetensors")))["labels"].tolist()
    assert stored == ([sorted(names).index(names[n]) for n in numbers] if kind == "string" else numbers)
