"""Files that are called images: no program is reached, no format is decoded that nobody asked for, and none takes the
machine."""

from __future__ import annotations

import ast
import inspect
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import vaeworks as vw
from vaeworks.data import scan
from vaeworks.data.image_ref import ImageFile, read_place
from vaeworks.data.labels import find_labels
from vaeworks.data.source_lookup import is_source, place_named
from vaeworks.data.sources.digits import digits
from vaeworks.data.sources.dispatch import find_places
from vaeworks.data.sources.sound import read_sound
from vaeworks.errors import DataError
from vaeworks.images import has_alpha, image_size, mask_image, open_image
from vaeworks.images import reading as images

SRC = Path(vw.__file__).parent

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(canary) (w) file closefile\nshowpage\n"


def test_postscript_called_png_reaches_no_program(tmp_path: Path) -> None:
    """Wherever an image is read, with a Ghostscript on the path that leaves a canary."""
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'canary'}\n")
    program.chmod(0o755)
    (tmp_path / "photo.png").write_bytes(POSTSCRIPT)
    lines = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from vaeworks.data import scan
from vaeworks.data.image_ref import open_place
from vaeworks.doctor.image_sample import read_mask
from vaeworks.doctor.serialization import read_finding
from vaeworks.images import has_alpha, image_size, open_image
ran = []
programs = ("subprocess", "os.system", "os.posix_spawn", "os.exec")
sys.addaudithook(lambda event, values: ran.append(values) if event.startswith(programs) else None)
path = Path("photo.png")
told = []
uses = (
    open_image,
    lambda p: open_image(p.read_bytes()),
    lambda p: image_size(p.read_bytes()),
    open_place,
    lambda p: read_mask(p, 8),
    scan,
)
for use in uses:
    try:
        use(path)
    except ValueError as error:
        told.append(str(error))
assert not has_alpha(path.read_bytes())
print(len(told), all("PostScript, which is not read" in text for text in told), ran)
"""
    environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(SRC.parent)}
    done = subprocess.run(
        [sys.executable, "-c", lines], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.stdout == "6 True []\n", done.stderr
    assert not (tmp_path / "canary").exists()


def test_pillow_opens_files_in_one_place() -> None:
    """`image_file` alone calls `Image.open`, with the formats that are read; nothing else of Pillow opens anything."""
    found = []
    for path in sorted(SRC.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "PIL" not in text and "Image.open" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if (
                isinstance(node, ast.Attribute)
                and node.attr == "open"
                and ast.unparse(node.value) in ("Image", "PIL.Image")
            ):
                found.append(path.relative_to(SRC).as_posix())
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("PIL"):
                assert not {"open", "ImageFile"} & {alias.name for alias in node.names}, path
    assert found == ["images/reading.py"]
    assert "formats=FORMATS" in inspect.getsource(images.image_file)


def test_formats_are_those_of_the_suffixes() -> None:
    """Each has all endings that Pillow gives it, but for general ones such as .rgb, and no other format has them."""
    Image.init()
    assert {Image.registered_extensions()[suffix] for suffix in images.SUFFIXES} == set(images.FORMATS)
    assert not set(images.SUFFIXES) & set(images.UNREAD)


@pytest.mark.parametrize("kind", ["EPS", "FLI", "ICO", "FITS", "PDF", "ICNS", "WMF", "XBM", "MSP", "SPIDER", "BLP"])
def test_other_formats_are_closed(tmp_path: Path, kind: str) -> None:
    """Whatever Pillow could make of them."""
    crafted = {
        "FLI": struct.pack("<IHHHHHHI", 500, 0xAF11, 1, 8, 8, 8, 0, 100) + bytes(500),
        "FITS": b"".join(c.ljust(80) for c in (b"SIMPLE  = T", b"BITPIX  = 8", b"NAXIS   = 0", b"END")).ljust(2880 * 2),
        "WMF": b"\xd7\xcd\xc6\x9a" + bytes(500),
    }
    buffer = io.BytesIO(crafted.get(kind, b""))
    if kind not in crafted:
        mode = {"XBM": "1", "MSP": "1", "SPIDER": "F", "BLP": "P"}.get(kind, "RGB")
        Image.new(mode, (16, 16)).save(buffer, kind)
    path = tmp_path / "photo.png"
    path.write_bytes(buffer.getvalue())
    for use in (open_image, lambda p: image_size(p.read_bytes()), lambda p: mask_image(p.read_bytes())):
        with pytest.raises(vw.DataError, match=r"^(not an image|[A-Z0-9 a-z]+, which is not read; save it as PNG)$"):
            use(path)
    assert not has_alpha(buffer.getvalue())


def test_a_telephones_two_pictures_are_its_first(tmp_path: Path) -> None:
    """MPO is a JPEG with more behind it."""
    frames = [Image.new("RGB", (16, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
    image = open_image(tmp_path / "a.jpg")
    assert image.size == (16, 8)
    assert np.abs(np.asarray(image, dtype=int)[4, 8] - [255, 0, 0]).max() < 3


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "I;16"])
def test_strips_are_the_whole(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """What is converted in strips is what it is at once, bit for bit."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 40, 4), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200 + pixels[..., 1])
    else:
        image = Image.fromarray(pixels, "RGBA").convert("RGB" if mode in "RGBP" else mode)
        image = image.quantize(9) if mode == "P" else image
    buffer = io.BytesIO()
    image.save(
        buffer, "PNG", **({"transparency": 3} if mode == "P" else {"transparency": (1, 2, 3)} if mode == "RGB" else {})
    )
    whole = [open_image(buffer.getvalue(), channels).tobytes() for channels in (1, 3)]
    monkeypatch.setattr(images, "LARGE", 16 * 40 * 3)
    assert [open_image(buffer.getvalue(), channels).tobytes() for channels in (1, 3)] == whole


def png_of(width: int, height: int, kind: int, *chunks: tuple[bytes, bytes]) -> bytes:
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in (header, *chunks, (b"IEND", b""))
    )


def test_bombs_are_refused_before_they_are_unpacked(modest: None) -> None:
    """By what their headers say: pixels beyond Pillow's limit, or that would take a gigabyte on the way; texts that
    grow."""
    packed = zlib.compress(bytes(2 * 10**7), 1)
    progressive, webp = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (64, 64)).save(progressive, "JPEG", progressive=True)
    content = bytearray(progressive.getvalue())
    frame, last = content.index(b"\xff\xc2"), content.rindex(b"\xff\xda")
    content[frame + 5 : frame + 9] = struct.pack(">HH", 9000, 9000)
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: 2**20, 323: 2**20, 324: 8, 325: 100}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    tiff = b"II*\0" + struct.pack("<I", 108) + bytes(100) + struct.pack("<H", len(tags)) + entries + bytes(4)
    Image.new("RGB", (64, 64)).save(webp, "WEBP", lossless=True)
    canvas = bytearray(webp.getvalue())
    place = canvas.index(b"VP8L") + 9
    canvas[place : place + 4] = struct.pack(
        "<I", struct.unpack("<I", canvas[place : place + 4])[0] & 0xF0000000 | 8999 | 8999 << 14
    )
    for bomb, why in (
        (png_of(30_000, 30_000, 2), "safety limit"),
        (png_of(12_000, 12_000, 6), "GiB"),
        (bytes(canvas), "GiB"),
        (tiff, "GiB"),
        (bytes(content[:last] + content[last:-2] * 2000), "passes"),
        (png_of(8, 8, 2, *[(b"zTXt", b"a\0\0" + packed)] * 20), "too large"),
    ):
        with pytest.raises(vw.DataError, match=why):
            open_image(bomb)


def test_large_images_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that read a folder do not keep several gigabytes at once."""
    monkeypatch.setattr(images, "LARGE", 100)
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20)).save(buffer, "PNG")
    seen, convert = [], images._convert
    monkeypatch.setattr(
        images, "_convert", lambda image, mode: seen.append(images._large.locked()) or convert(image, mode)
    )
    open_image(buffer.getvalue())
    assert seen == [True]
    assert not images._large.locked()


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    """Pipes and devices with the endings of images, sounds, tars, IDX files and tables, and links to them."""
    for name in ("a.png", "b.tar", "c-images-idx3-ubyte", "d.wav", "e.csv"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    for use in (
        lambda: scan(tmp_path / "zero.png"),
        lambda: open_image(tmp_path / "a.png"),
        lambda: read_place(tmp_path / "a.png"),
        lambda: read_place(tmp_path / "zero.png"),
        lambda: read_place(tmp_path / "folder.png"),
        lambda: scan(tmp_path / "b.tar"),
        lambda: digits(str(tmp_path / "c-images-idx3-ubyte")),
        lambda: read_sound(tmp_path / "d.wav"),
        lambda: find_labels([ImageFile(Path("a.png"), "", 1, 1)], str(tmp_path / "e.csv")),
    ):
        with pytest.raises(vw.DataError, match=r"no regular file|b.tar' does not exist"):
            use()
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    found = scan(tmp_path)
    assert [file.path.name for file in found.files] == ["good.png"]
    names = ("a.png", "zero.png", "b.tar", "c-images-idx3-ubyte")
    assert dict(found.skipped).keys() == {str(tmp_path / name) for name in names}
    assert all(reason.endswith("no regular file") for _, reason in found.skipped)


def test_files_without_end(tmp_path: Path, modest: None) -> None:
    """A file may claim a terabyte that is not on the disk."""
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(vw.DataError, match="more than the 536,870,912 that are read"):
        read_place(tmp_path / "a.png")


@pytest.mark.parametrize(
    "name",
    [
        "x" * 5000,
        "~nobody-at-all/x",
        "a\0b",
        "procedural:" + "9" * 5000,
        "sound:made:" + "9" * 5000,
        "/".join("a" * 3000),
    ],
)
def test_names_that_no_file_can_have(name: str) -> None:
    """One line, from whatever looks at a source's name."""
    for use in (find_places, place_named, lambda name: find_places(f"dataset:{name}")):
        with pytest.raises(vw.DataError):
            use(name)
    assert not is_source(name)


def test_folders_in_each_other(tmp_path: Path) -> None:
    """A folder tree deeper than Python's stack."""
    here = os.getcwd()
    try:
        for _ in range(1300):
            os.mkdir("a")
            os.chdir("a")
    finally:
        os.chdir(here)
    with pytest.raises(vw.DataError, match=r"by the hundred|no image file"):
        find_places(tmp_path)
    subprocess.run(["rm", "-r", str(tmp_path / "a")], check=True)  # shutil's own calls itself for every level, too


def test_sounds_that_ask_for_gigabytes(tmp_path: Path, modest: None) -> None:
    """Rates whose filter, or whose sound, would be as long as they like."""
    from scipy.io import wavfile

    for rate in (1, 999, 16_000_001, 2**32 - 1):
        wavfile.write(tmp_path / "a.wav", 16_000, np.zeros(4000, dtype=np.int16))
        content = bytearray((tmp_path / "a.wav").read_bytes())
        content[24:32] = struct.pack("<II", rate, rate * 2 % 2**32)
        (tmp_path / "a.wav").write_bytes(content)
        with pytest.raises(vw.DataError):
            read_sound(tmp_path / "a.wav")
    soundfile = pytest.importorskip("soundfile")
    with soundfile.SoundFile(tmp_path / "b.flac", "w", 16_000, 8) as file:
        for _ in range(9):
            file.write(np.zeros((2**20, 8), dtype=np.int16))
    assert (tmp_path / "b.flac").stat().st_size < 10**6
    with pytest.raises(vw.DataError, match="75,497,472 samples of all channels, more than the 67,108,864"):
        read_sound(tmp_path / "b.flac")


def test_text_of_pngs_is_read_as_before(tmp_path: Path) -> None:
    """The limits are for bombs: a picture with a note is a picture."""
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "x" * 100_000, zip=True)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png", pnginfo=info)
    assert open_image(tmp_path / "a.png").getpixel((0, 0)) == (255, 0, 0)


def _segments(kind: str) -> bytes:
    """A picture of 24x32 whose file has a thousand pieces that say nothing, in front of its pixels."""
    buffer = io.BytesIO()
    Image.new("P" if kind in ("GIF", "BMP") else "RGB", (24, 32)).save(buffer, kind)
    content = buffer.getvalue()
    if kind == "PNG":
        return (
            content[:33]
            + (struct.pack(">I", 0) + b"abCd" + struct.pack(">I", zlib.crc32(b"abCd"))) * 1000
            + content[33:]
        )
    if kind == "JPEG":
        return content[:2] + b"\xff" * 1000 + content[2:]
    if kind == "GIF":
        pixels = content.index(b",", 13 + 3 * 2 ** ((content[10] & 7) + 1))
        return content[:pixels] + b"!\xfe" + b"\1a" * 1000 + b"\0" + content[pixels:]
    header = struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54 + 1024, 40, 24, 32, 1, 8, 1, 0, 0, 0, 256, 0)
    return (
        b"BM" + header + bytes(1024) + b"\1\5" * 1000
    )  # every run of a row that is full already costs as much as a pixel


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
def test_files_in_millions_of_pieces(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Pillow walks through them in Python, and keeps some: 40 MB of fill bytes took 15 s, 9 MB of comments 670 MB."""
    content = _segments(kind)
    if kind != "BMP":
        assert open_image(content).size == (24, 32)
    monkeypatch.setattr(images._Pieces, "_left", 1000)
    with pytest.raises(DataError, match="pieces"):
        open_image(content)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiffs_with_millions_of_strips(order: str, large: bool, modest: None) -> None:
    """19 MB of places of strips became 2 GB; a palette of as many colours likewise."""
    count, width = 5_000_000, 8 if large else 4
    for tag in (273, 320):
        tags = {256: 1, 257: count, 258: 8, 259: 1, 262: 3 if tag == 320 else 1, 273: 8, 277: 1, 278: 1, 279: 1}
        entries = b"".join(
            struct.pack(
                order + ("HHQQ" if large else "HHII"), number, 4, *((count, 16) if number == tag else (1, value))
            )
            for number, value in sorted({**tags, tag: 8}.items())
        )
        words = (43, 8, 0, 16 + 4 * count) if large else (42, 8 + 4 * count)
        header = (b"II" if order == "<" else b"MM") + struct.pack(order + ("HHHQ" if large else "HI"), *words)
        number = struct.pack(order + ("Q" if large else "H"), len(entries) // (4 + 2 * width))
        with pytest.raises(DataError, match=f"tag {tag} has 5,000,000 values"):
            open_image(header + bytes(4 * count) + number + entries)


def test_orientations_of_megabytes_are_not_looked_at() -> None:
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHII", 8, 1, 0x112, 3, 10_000_000, 26) + bytes(2**24 + 2**22)
    buffer = io.BytesIO()
    Image.new("RGB", (24, 32)).save(buffer, "PNG", exif=exif)
    assert open_image(buffer.getvalue()).size == (24, 32)
    buffer = io.BytesIO()
    turned = Image.Exif()
    turned[0x112] = 6
    Image.new("RGB", (24, 32)).save(buffer, "PNG", exif=turned)
    assert open_image(buffer.getvalue()).size == (32, 24)
