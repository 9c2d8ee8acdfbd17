"""Folders as people have them: what is read, what is left out, and that it is said."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from configs import LEAST
from PIL import Image, ImageCms
from safetensors.torch import load_file

import vaeworks as vw
from vaeworks.cli.main import main
from vaeworks.data import scan
from vaeworks.data.image_ref import open_place
from vaeworks.data.inputs import image_files
from vaeworks.data.labels import find_labels
from vaeworks.data.sources import folder as folders
from vaeworks.images import SUFFIXES, UNREAD, open_image
from vaeworks.reporting import Reporter


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


def test_a_folder_has_its_own_name_rather_than_a_link_s(tmp_path: Path) -> None:
    """In whatever order the system lists them: a class is called as its folder is. The link is named."""
    for name in ("b", "m"):
        put(tmp_path / "set" / "m" / "deep" / f"{name}.png")
    for name in ("a", "z"):
        (tmp_path / "set" / name).symlink_to("m/deep")
    assert names(tmp_path / "set") == ["m/deep/b.png", "m/deep/m.png"]
    why = f"a link to {tmp_path / 'set' / 'm' / 'deep'}, which is read already"
    assert scan(tmp_path / "set").skipped == tuple((str(tmp_path / "set" / name), why) for name in ("a", "z"))


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
    ".apng": "PNG", ".PNG": "PNG", ".TIFF": "TIFF", ".webp": "WEBP", ".rgb": "SGI", ".icb": "TGA",
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


NO_PICTURES = {".bufr", ".grib", ".h5", ".hdf", ".iim", ".mpg", ".mpeg", ".pdf"}
"""Endings for which Pillow has a reader, or the place for one, of something else: measurements, notes, films."""


def test_no_ending_of_pillow_is_left_out_in_silence() -> None:
    Image.init()
    known = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    assert known - set(SUFFIXES) - set(UNREAD) <= NO_PICTURES
    assert not set(SUFFIXES) & set(UNREAD)


def test_pictures_in_tars_that_are_not_read_are_named(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {"0.png": picture(), "1.heic": b"anything", "1.txt": b"text", "sub/2.JXL": b"x"})
    found = scan(path)
    assert len(found.files) == 1
    assert found.skipped == ((f"{path}/1.heic", UNREAD[".heic"]), (f"{path}/sub/2.JXL", UNREAD[".jxl"]))


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
    [
        "@eaDir",
        "__MACOSX",
        "#recycle",
        "$RECYCLE.BIN",
        ".thumbnails",
        "lost+found",
        "@Recycle",
        ".ipynb_checkpoints",
        "@Recently-Snapshot",
        "#snapshot",
        "Network Trash Folder",
    ],
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


def test_classes_of_some_samples_are_said_and_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line: how many have none, and the first of them; nothing where all have one, or none has."""
    members = {}
    for n in range(5):
        members |= {f"{n}.png": picture(n)} | ({} if n in (1, 3) else {f"{n}.cls": b"7"})
    tar(tmp_path / "some.tar", members)
    tar(tmp_path / "all.tar", {k: v for k, v in members.items() if k[0] not in "13"})
    tar(tmp_path / "none.tar", {k: v for k, v in members.items() if k.endswith(".png")})
    vw.save(vw.build(LEAST), tmp_path / "vae.safetensors", layout="native")

    said = {}
    for name in ("some", "all", "none"):
        words = ["encode", tmp_path / "vae.safetensors", tmp_path / f"{name}.tar", "--out", tmp_path / name]
        assert main([*map(str, words), "--size", "16"]) == 0
        said[name] = [line for line in capsys.readouterr().err.splitlines() if "class" in line]
    line = f"2 of 5 images state no class, the first is {tmp_path / 'some.tar'}/1.png; so the classes of the others "
    assert said == {"some": [f"{line}are not used"], "all": [], "none": []}
    assert load_file(next((tmp_path / "some").glob("*.safetensors")))["labels"].tolist() == [0] * 5


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


# ---------------------------------------------------------------------- Names, transparency, colour


def vae(place: Path) -> Path:
    vw.save(vw.build(LEAST), place / "vae.safetensors")
    return place / "vae.safetensors"


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"\xff\xfe.png", "日本.png".encode("shift-jis")])
def test_names_that_are_no_utf8(tmp_path: Path, name: bytes) -> None:
    """From old archives: every result is written, and names the image somehow."""
    folder = tmp_path / "set"
    for number in range(12):
        put(folder / f"{number}.png", picture(9 * number))
    os.rename(os.fsencode(folder / "3.png"), os.fsencode(folder) + b"/" + name)
    model = vae(tmp_path)
    found = vw.evaluate_models([model], folder, features="off", lpips="off", legibility=False, out=tmp_path / "eval")
    assert len(found.models[0].scores) == 12 and (tmp_path / "eval" / "report.html").exists()
    assert vw.encode(model, folder, tmp_path / "latents", size=16).encoded.images == 12
    assert len(vw.reconstruct(model, folder, tmp_path / "out").images) == 12
    vw.detect_anomalies(model, tmp_path / "anomaly", normal=folder, test=folder, false_alarms=0.5, baselines=False)
    scores = (tmp_path / "anomaly" / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert len(scores) == 13


def test_transparency_is_said(tmp_path: Path) -> None:
    """Laid on white in every command, and no command is silent about it."""
    for number in range(3):
        put(tmp_path / "set" / f"{number}.png", picture(number))
    image = Image.new("RGBA", (24, 24), (255, 0, 0, 0))
    image.save(tmp_path / "set" / "clear.png")
    model, said = vae(tmp_path), Spoken()
    vw.reconstruct(model, tmp_path / "set", tmp_path / "out", reporter=said)
    vw.encode(model, tmp_path / "set", tmp_path / "latents", size=16, reporter=said)
    vw.edit(model, tmp_path / "set", tmp_path / "edited", saturation=1.1, reporter=said)
    assert said.lines.count("1 of 4 images have transparency, and were laid on white") == 3
    assert vw.open_image(tmp_path / "set" / "clear.png").min() == 1


class Spoken(Reporter):
    """What a command warns of."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warn(self, line: str) -> None:
        self.lines.append(line)


def test_files_that_differ_in_their_endings_alone(tmp_path: Path) -> None:
    """Each becomes a picture of its own."""
    for name, kind in (("a.jpg", "JPEG"), ("a.png", "PNG"), ("b.png", "PNG"), ("sub/a.png", "PNG")):
        put(tmp_path / "set" / name, picture(len(name), kind))
    model = vae(tmp_path)
    vw.reconstruct(model, tmp_path / "set", tmp_path / "out")
    made = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png"))
    assert made == ["a-jpg.png", "a-png.png", "b.png", "sub/a.png"]
    put(tmp_path / "other" / "a.png")
    with pytest.raises(vw.ConfigError, match="two calls"):
        vw.reconstruct(model, [tmp_path / "set" / "b.png", put(tmp_path / "other" / "b.png")], tmp_path / "more")


def wide_gamut(gamma: float = 2.2) -> bytes:
    """A profile with the primaries of Display P3."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + bytes(78),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1.0, 0.8249),
        b"rXYZ": b"XYZ \0\0\0\0" + fixed(0.5151, 0.2412, -0.0011),
        b"gXYZ": b"XYZ \0\0\0\0" + fixed(0.2920, 0.6922, 0.0419),
        b"bXYZ": b"XYZ \0\0\0\0" + fixed(0.1571, 0.0666, 0.7841),
    } | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)))
    table, data, start = b"", b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(data), b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed(0.9642, 1.0, 0.8249) + bytes(4)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
@pytest.mark.parametrize("colour", [(220, 20, 30), (30, 180, 60), (128, 128, 128)])
def test_profiles_become_srgb(tmp_path: Path, mode: str, colour: tuple[int, int, int]) -> None:
    """The same colour in a wide space has other numbers, which are read as the colour."""
    profile = wide_gamut()
    wide = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    image = ImageCms.profileToProfile(Image.new("RGB", (24, 24), colour), ImageCms.createProfile("sRGB"), wide)
    assert image.getpixel((0, 0)) != colour or len(set(colour)) == 1
    path = tmp_path / "a.png"
    (image.quantize(4) if mode == "P" else image.convert(mode)).save(path, icc_profile=profile)
    read = open_image(path).getpixel((5, 5))
    assert max(abs(a - b) for a, b in zip(read, colour, strict=True)) <= 2
    assert np.allclose(vw.open_image(path)[0, :, 0, 0].numpy() * 127.5 + 127.5, colour, atol=2.01)
    packed = tar(tmp_path / "a.tar", {"a.png": path.read_bytes()})
    assert open_place(scan(packed).files[0].path).getpixel((5, 5)) == read


@pytest.mark.parametrize("profile", [b"no profile", wide_gamut()[:200], b"", wide_gamut().replace(b"RGB ", b"CMYK")])
def test_broken_profiles_count_for_nothing(tmp_path: Path, profile: bytes) -> None:
    Image.new("RGB", (24, 24), (220, 20, 30)).save(tmp_path / "a.png", icc_profile=profile)
    assert open_image(tmp_path / "a.png").getpixel((0, 0)) == (220, 20, 30)


def test_srgb_itself_changes_no_pixel(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=srgb)
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.png")), pixels)


def test_gray_profiles_and_deep_pixels(tmp_path: Path) -> None:
    """Gray of another gamma becomes sRGB's; 16 bits stay as they are."""
    Image.new("L", (24, 24), 128).save(tmp_path / "plain.png")
    assert open_image(tmp_path / "plain.png", 1).getpixel((0, 0)) == 128
    deep = Image.fromarray(np.full((24, 24), 30_000, np.uint16))
    deep.save(tmp_path / "deep.png", icc_profile=wide_gamut())
    assert open_image(tmp_path / "deep.png", 1).getpixel((0, 0)) == round(30_000 / 257)


def test_the_protocol_says_what_is_done_to_profiles() -> None:
    found = vw.evaluate(vw.build(LEAST), scan("photos").files[:1], limit=64)
    assert "ICC profiles converted to sRGB" in found.protocol.colour


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_folders_whose_names_are_no_utf8(tmp_path: Path) -> None:
    """Models, latents and pictures are read from them and written into them."""
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9"))
    for number in range(3):
        put(root / "set" / f"{number}.png", picture(number))
    model = vae(root)
    assert vw.encode(model, root / "set", root / "latents", size=16).encoded.images == 3
    assert vw.encode(model, root / "set", root / "latents", size=16).encoded.kept == 3
    vw.decode(model, root / "latents", root / "out")
    assert len(list((root / "out").rglob("*.png"))) == 3
    vw.convert(model, root / "ldm.safetensors", layout="ldm")
    assert vw.load(root / "ldm.safetensors").config == vw.load(model).config
