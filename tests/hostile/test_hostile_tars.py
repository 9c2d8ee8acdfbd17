"""Tars whose headers lie, and names that stand for too much: what is sound is read, and everything has an end."""

from __future__ import annotations

import io
import struct
import tarfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vaeworks as vw
from vaeworks.data import open_stream, scan
from vaeworks.data.sources.digits import digits
from vaeworks.data.sources.dispatch import open_shards
from vaeworks.data.sources.stream import _rows
from vaeworks.data.sources.tar_headers import BrokenTarError, read_members
from vaeworks.data.sources.tars import MOST_NAMES, expand_braces, tar_files, tar_members


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def block(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    """A header whose sum is right."""
    found = bytearray(512)
    found[: len(name)], found[124 : 124 + len(size)], found[156:157], found[257:263] = name, size, kind, b"ustar\0"
    found[148:156] = b" " * 8
    found[148:156] = b"%06o\0 " % sum(found)
    return bytes(found)


def member(name: str, content: bytes) -> bytes:
    return block(name.encode(), b"%011o\0" % len(content)) + content + bytes(-len(content) % 512)


def pax(*records: tuple[str, str]) -> bytes:
    content = b""
    for key, value in records:
        body = f" {key}={value}\n".encode()
        length = len(body) + len(str(len(body) + 2))
        content += str(length).encode() + body
    return block(b"pax", b"%011o\0" % len(content), b"x") + content + bytes(-len(content) % 512)


SIZES = {
    "binary below zero": (2**96 - 512).to_bytes(12, "big"),
    "far below zero": (2**96 - 2**80).to_bytes(12, "big"),
    "digits below zero": b"-0000001000\0",
    "beyond the file": b"77777777777\0",
    "beyond all files": b"\x80" + b"\xff" * 11,
    "no number": b"12345 67x89\0",
}


@pytest.mark.parametrize("size", SIZES)
def test_sizes_that_lead_nowhere(tmp_path: Path, size: str) -> None:
    """A member of size -512 leads back to its own header; what is in front of such a one is used, and the place is
    named."""
    tar = tmp_path / "a.tar"
    tar.write_bytes(member("0.png", png(0)) + block(b"1.png", SIZES[size]) + member("2.png", png(2)) + bytes(1024))
    found = scan(tar)
    assert [file.path.read_bytes() for file in found.files] == [png(0)]
    (place, why) = found.skipped[0]
    assert place == str(tar)
    assert why.startswith("broken at byte 1,024")
    tar.write_bytes(block(b"1.png", SIZES[size]) + bytes(1024))
    with pytest.raises(vw.DataError, match=r"a\.tar is no tar file: broken at byte 0"):
        scan(tar)
    with pytest.raises(vw.DataError, match="is no tar file"):
        open_stream(f"stream:{tar}", 0.0)


@pytest.mark.parametrize(
    "records", [[("size", "-512")], [("size", "9" * 30)], [("size", "1e3")], [("path", "x.png"), ("size", "")]], ids=str
)
def test_extended_headers_lie_as_well(tmp_path: Path, records: list[tuple[str, str]]) -> None:
    """Their sizes come on top of the headers'."""
    tar = tmp_path / "a.tar"
    tar.write_bytes(member("0.png", png(0)) + pax(*records) + member("1.png", png(1)) + bytes(1024))
    found = scan(tar)
    assert len(found.files) == 1
    assert "broken at byte 1,024" in found.skipped[0][1]


def test_extended_headers_are_short_and_quickly_read(tmp_path: Path, modest: None) -> None:
    """A name of gigabytes is refused before it is read; thousands in a row cost no stack; nonsense in them is an
    end."""
    tar = tmp_path / "a.tar"
    first = member("0.png", png(0))
    for kind in (b"L", b"K", b"x", b"g"):
        with tar.open("wb") as file:
            file.write(first + block(b"long", b"%011o\0" % 2**32, kind))
            file.truncate(2**33)
        assert "an extended header of 4,294,967,296 bytes" in scan(tar).skipped[0][1]
    tar.write_bytes(first + pax(("comment", "x")) * 5000 + member("1.png", png(1)) + bytes(1024))
    assert len(scan(tar).files) == 2
    for nonsense in (b"0 a=b\n", b"99 a=b\n", b"a=b\n", b"7 a=b\n", b"9" * 5000, b"\n" * 5000):
        content = nonsense + bytes(-len(nonsense) % 512)
        tar.write_bytes(first + block(b"pax", b"%011o\0" % len(nonsense), b"x") + content + member("1.png", png(1)))
        assert "broken at byte 1,024" in scan(tar).skipped[0][1]


def test_holes_have_an_end(tmp_path: Path, modest: None) -> None:
    """A terabyte of nothing behind the end mark is not read."""
    tar = tmp_path / "a.tar"
    with tar.open("wb") as file:
        file.write(member("0.png", png(0)))
        file.truncate(2**40)
    assert len(scan(tar).files) == 1
    assert not scan(tar).skipped


@pytest.mark.parametrize("kind", ["USTAR_FORMAT", "GNU_FORMAT", "PAX_FORMAT"])
def test_members_are_those_of_pythons_reader(tmp_path: Path, kind: str) -> None:
    """Names, kinds, places and sizes of whatever tars hold, in all three formats."""
    tar = tmp_path / "a.tar"
    names = [
        "a.png",
        "ß/ü.png",
        "d" * 60 + "/" + "n" * 80 + ".png",
        "folder",
        "link",
        "./dot.png",
        *([] if kind[0] == "U" else ["x/" * 90 + "y" * 150 + ".png"]),
    ]
    with tarfile.open(tar, "w", format=getattr(tarfile, kind), encoding="utf-8") as archive:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = number * 300
            if name in ("folder", "link"):
                info.type, info.size, info.linkname = (
                    (tarfile.DIRTYPE if name == "folder" else tarfile.SYMTYPE),
                    0,
                    "a.png" * 30 if kind[0] != "U" else "a",
                )
            info.mtime = 10**9 + 0.5 if kind == "PAX_FORMAT" else 10**9
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    with tarfile.open(tar, encoding="utf-8") as archive:
        expected = [(info.name, info.isreg(), info.offset_data, info.size) for info in archive]
    with tar.open("rb") as file:
        assert [(m.name, m.is_plain, m.offset, m.size) for m in read_members(file, tar.stat().st_size)] == expected


def test_sizes_in_binary_are_read(tmp_path: Path) -> None:
    """As GNU tar writes them for what has more than 8 GiB."""
    content = png(0)
    tar = tmp_path / "a.tar"
    tar.write_bytes(
        block(b"0.png", b"\x80" + len(content).to_bytes(11, "big")) + content + bytes(-len(content) % 512 + 1024)
    )
    assert [file.path.read_bytes() for file in scan(tar).files] == [content]


def test_mutations_of_every_byte_of_a_header(tmp_path: Path) -> None:
    """With the sum made right again: an end, or members within the file whose places rise."""
    whole = member("0.png", png(0)) + pax(("path", "b/1.png")) + member("1.png", png(1)) + bytes(1024)
    told: set[bool] = set()
    for place in [*range(300), 345, 482, *range(1024, 1330)]:
        for value in (0, 0x2D, 0x39, 0x80, 0xFF):
            content = bytearray(whole)
            content[place] = value
            start = place // 512 * 512
            content[start + 148 : start + 156] = b" " * 8
            content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])
            found = []
            try:
                for entry in read_members(io.BytesIO(content), len(content)):
                    found.append(entry)
            except BrokenTarError as error:
                told.add(str(error).isprintable())
            assert all(entry.offset + entry.size <= len(content) for entry in found)
            assert [entry.offset for entry in found] == sorted({entry.offset for entry in found})
    assert told == {True}


def test_a_stream_of_a_tar_that_breaks(tmp_path: Path) -> None:
    """Rows in front of the damage come, then an error that names the place; nothing is taken for the end in silence."""
    tar = tmp_path / "a.tar"
    tar.write_bytes(
        member("0.png", png(0)) + member("1.png", png(1)) + block(b"2.png", SIZES["binary below zero"]) + bytes(1024)
    )
    shards = open_shards(f"stream:{tar}")
    found = []
    with pytest.raises(vw.DataError, match=r"train/0#2 and what follows cannot be read: broken at byte 2,048"):
        found.extend(content for _, content in _rows(shards))
    assert found == [png(0), png(1)]


def test_streamed_tars_run_nothing_and_know_their_fields(tmp_path: Path, watched: list[str]) -> None:
    """Other fields of a sample stay bytes: none is given to torch.load, numpy or json; a field is chosen by name; twins
    are told."""
    tar = tmp_path / "a.tar"
    evil = [
        ("0.pth", b"\x80\x02cos\nsystem\n(U\x0ctouch canarytR."),
        ("0.npy", b"\x93NUMPY"),
        ("0.json", b"[" * 100_000),
        ("0.cls", b"9" * 5000),
    ]
    tar.write_bytes(
        b"".join(
            member(*pair) for pair in [*evil, ("0.png", png(0)), ("1.png", png(1)), ("1.png", png(2)), ("2.txt", b"")]
        )
        + bytes(1024)
    )
    shards = open_shards(f"stream:{tar}")
    watched.clear()
    contents = [content if isinstance(content, bytes) else str(content) for _, content in _rows(shards)]
    assert watched == []
    assert contents == [png(0), f"1.png is in {tar} twice", "no image in this row"]
    seg = tmp_path / "b.tar"
    seg.write_bytes(member("0.png", png(0)) + member("0.seg.png", png(1)) + bytes(1024))
    assert [f.path.read_bytes() for f in scan(f"dataset:{seg}:train:seg.png").files] == [png(1)]
    assert [f.path.read_bytes() for f in scan(f"dataset:{seg}").files] == [png(0)]
    assert [content for _, content in _rows(open_shards(f"stream:dataset:{seg}:train:seg.png"))] == [png(1)]
    with pytest.raises(vw.DataError, match=r"several columns of images, png, seg\.png"):
        open_stream(f"stream:{seg}", 0.0)


@pytest.mark.parametrize(
    "text",
    [
        "{0..9999999999}",
        "{0..9}" * 6,
        "{a,b}" * 40,
        "{" + ",x" * 5000,
        "{0.." + "9" * 4000 + "}",
        "{{{{" * 1000 + ",",
        "{9999999999..0}",
    ],
    ids=lambda text: text[:20],
)
def test_braces_that_stand_for_too_much(text: str, modest: None) -> None:
    """A refusal in a line, or the text as it is."""
    with suppress(vw.DataError):
        assert len(expand_braces(f"{text}.tar")) <= MOST_NAMES
    with pytest.raises(vw.DataError, match=r"stands for more than 100,000 names|longer than a path|does not exist"):
        tar_files(f"{text}.tar")


def test_wildcards_do_not_walk_in_circles(tmp_path: Path) -> None:
    """Two links back, each through the other: 2 to the 40th paths."""
    (tmp_path / "x" / "y").mkdir(parents=True)
    for name in ("a", "b", "c"):
        (tmp_path / "x" / "y" / name).symlink_to(tmp_path / "x")
    (tmp_path / "x" / "y" / "z.tar").write_bytes(member("0.png", png(0)) + bytes(1024))
    (tmp_path / "x" / ".hidden").mkdir()
    (tmp_path / "x" / ".hidden" / "z.tar").write_bytes(b"")
    assert tar_files(f"{tmp_path}/**/*.tar") == [tmp_path / "x" / "y" / "z.tar"]
    (tmp_path / "pipe.tar").mkdir()
    assert tar_files(f"{tmp_path}/x/*/*.tar") == [tmp_path / "x" / "y" / "z.tar"]


def test_members_that_grow_beyond_an_image(tmp_path: Path, modest: None) -> None:
    """A member of a terabyte that is a hole."""
    tar = tmp_path / "a.tar"
    with tar.open("wb") as file:
        file.write(block(b"0.png", b"\x80" + (2**40).to_bytes(11, "big")))
        file.truncate(512 + 2**40)
    (found, _) = tar_members(tar)
    with pytest.raises(vw.DataError, match="more than the 536,870,912 that are read"):
        found[0].read_bytes()


@pytest.mark.parametrize(
    "shape", [(2**32 - 1,) * 3, (2**21, 2**21, 2**22), (2**31, 1, 1), (0, 0, 0), (1, 2**16, 2**15)], ids=str
)
@pytest.mark.parametrize("packed", [False, True])
def test_idx_headers_that_claim_more(tmp_path: Path, shape: tuple[int, ...], packed: bool, modest: None) -> None:
    """Terabytes, products that are zero in 64 bits, and bombs: nothing is unpacked that is not claimed, nor claimed
    that is not read."""
    import gzip

    path = tmp_path / f"x-images-idx3-ubyte{'.gz' if packed else ''}"
    content = struct.pack(">I3I", 0x803, *shape) + bytes(10**7)
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    with pytest.raises(vw.DataError, match="says that it has"):
        digits(str(path))
    with pytest.raises(vw.DataError):
        scan(tmp_path)
