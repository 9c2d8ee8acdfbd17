"""Images, tars, data sets, IDX files, sounds and tables that nobody honest would write, and what reads them."""

from __future__ import annotations

import functools
import gzip
import io
import itertools
import json
import mimetypes
import os
import random
import struct
import tarfile
import tempfile
import wave
import zlib
from contextlib import suppress
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.io.wavfile
import scipy.signal
import soundfile
from fuzzing import Input, Target
from PIL import Image

from vaeworks.data.image_ref import ImageFile, read_place
from vaeworks.data.labels import find_labels
from vaeworks.data.sources.dispatch import find_places, open_shards
from vaeworks.data.sources.hub import Shards, dataset_name, rows
from vaeworks.errors import DataError
from vaeworks.images import SUFFIXES, has_alpha, image_size, mask_image, open_image

assert scipy.io.wavfile
assert scipy.signal
Image.init()
mimetypes.init()  # reads files of the system, once
datasets.disable_progress_bars()

INTEGERS = (0, 1, -1, -512, 127, 128, 255, 256, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)


def altered(content: bytes, chance: random.Random) -> bytes:
    """Content with one to eight bytes, fields or stretches changed, lost, doubled or taken from elsewhere in it."""
    found = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        place = chance.randrange(len(found) + 1)
        if chance.random() < 0.5:  # headers are where it matters
            place = min(place, chance.randrange(64))
        match chance.randrange(7):
            case 0:
                found[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                width, order = chance.choice((1, 2, 4, 8)), chance.choice("<>")
                value = chance.choice(INTEGERS) % 2 ** (8 * width)
                found[place : place + width] = struct.pack(order + {1: "B", 2: "H", 4: "I", 8: "Q"}[width], value)
            case 2:
                del found[place : place + chance.choice((1, 4, 100, 10_000))]
            case 3:
                del found[place:]
            case 4:
                other = chance.randrange(len(found) + 1)
                found[place:place] = found[other : other + chance.choice((1, 4, 64, 1000))]
            case 5:
                found[place : place + 4] = chance.randbytes(4)
            case 6:
                found[place:place] = chance.randbytes(chance.choice((1, 16, 300)))
    return bytes(found)


# ---------------------------------------------------------------- images

WRITTEN = (
    ("JPEG", "RGB", {}),
    ("JPEG", "L", {}),
    ("JPEG", "CMYK", {}),
    ("JPEG", "RGB", {"progressive": True}),
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "P", {}),
    ("PNG", "1", {}),
    ("PNG", "I;16", {}),
    ("PNG", "LA", {}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("BMP", "RGB", {}),
    ("BMP", "P", {}),
    ("BMP", "1", {}),
    ("TIFF", "RGB", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "L", {"compression": "jpeg"}),
    ("TIFF", "I;16", {}),
    ("TIFF", "F", {}),
    ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "CMYK", {"compression": "tiff_adobe_deflate"}),
    ("GIF", "P", {}),
    ("PPM", "RGB", {}),
    ("TGA", "RGB", {}),
    ("PCX", "RGB", {}),
    ("ICO", "RGB", {}),
    ("SGI", "RGB", {}),
    ("JPEG2000", "RGB", {}),
    ("AVIF", "RGB", {}),
    ("EPS", "RGB", {}),
    ("PDF", "RGB", {}),
    ("DDS", "RGB", {}),
    ("ICNS", "RGBA", {}),
    ("IM", "RGB", {}),
    ("SPIDER", "F", {}),
    ("XBM", "1", {}),
    ("MSP", "1", {}),
    ("BLP", "P", {}),
)
"""Formats that are read, and others, which a file may be in whatever it is called."""

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(canary) (w) file closefile\n{} loop\nshowpage\n"


@functools.cache
def picture(number: int) -> bytes:
    kind, mode, options = WRITTEN[number]
    pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 4), dtype=np.uint8)
    image = Image.fromarray(pixels, "RGBA")
    image = (
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
        if mode == "I;16"
        else image.convert("RGB").convert(mode)
    )
    buffer = io.BytesIO()
    with suppress(Exception):  # what this Pillow cannot write
        image.save(buffer, kind, **options)
    return buffer.getvalue() or POSTSCRIPT


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def large_png(chance: random.Random) -> bytes:
    """A header of many pixels, with a text or a profile that grows, and no, some or too much data."""
    sides = [chance.choice((0, 1, 20, 5000, 9000, 13_000, 30_000, 65_535, 2**31 - 1)) for _ in range(2)]
    depth, kind = chance.choice(((1, 0), (8, 0), (16, 0), (8, 2), (16, 2), (8, 3), (1, 3), (8, 4), (8, 6), (16, 6)))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *sides, depth, kind, 0, 0, chance.choice((0, 1))))
    packed = zlib.compress(bytes(chance.choice((0, 100, 10**6, 2 * 10**7))), 1)
    extra = chance.choice(
        (
            b"",
            chunk(b"zTXt", b"a\0\0" + packed),
            chunk(b"iCCP", b"a\0\0" + packed),
            chunk(b"iTXt", b"a\0\1\0\0\0" + packed),
        )
    )
    palette = chunk(b"PLTE", bytes(chance.choice((0, 3, 768, 1000)))) if kind == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + header + extra + palette + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def many_scans(chance: random.Random) -> bytes:
    """A progressive JPEG of any size whose last pass comes again and again."""
    content = bytearray(picture(3))
    frame = content.index(b"\xff\xc2")
    content[frame + 5 : frame + 9] = struct.pack(">HH", *(chance.choice((24, 500, 9000, 65_500)) for _ in range(2)))
    last = content.rindex(b"\xff\xda")
    return bytes(content[:last] + bytes(content[last:-2]) * chance.choice((1, 30, 3000)) + b"\xff\xd9")


def large_tiff(chance: random.Random) -> bytes:
    """A TIFF with tags of any value."""
    tags = {
        256: 32,
        257: 24,
        258: 8,
        259: chance.choice((1, 5, 7, 8, 32773)),
        262: 1,
        273: 8,
        277: 1,
        278: 24,
        279: 768,
    }
    for _ in range(chance.randrange(4)):
        tags[chance.choice((*tags, 322, 323, 324, 325, 320, 284, 317, 338, 339, 700, 34675))] = (
            chance.choice(INTEGERS) % 2**32
        )
    entries = b"".join(
        struct.pack("<HHII", tag, 4, chance.choice((1, 1, 1, 2**31)), value) for tag, value in sorted(tags.items())
    )
    body = bytes(1000)
    return (
        b"II*\0"
        + struct.pack("<I", 8 + len(body))
        + body
        + struct.pack("<H", len(tags))
        + entries
        + struct.pack("<I", chance.choice((0, 8)))
    )


def make_image(chance: random.Random, folder: Path) -> Input:
    share = chance.random()
    crafted = chance.choice((large_png, many_scans, large_tiff))
    content = crafted(chance) if share < 0.1 else picture(chance.randrange(len(WRITTEN)))
    if share > 0.2:
        content = altered(content, chance)
    path = folder / f"photo{chance.choice(SUFFIXES)}"
    path.write_bytes(content)
    return path


def use_image(given: Input) -> object:
    content = read_place(find_places(given)[0][0])
    for read in (image_size, mask_image, has_alpha):
        with suppress(DataError):
            read(content)
    for channels in (3, 1, 2):
        with suppress(DataError):
            open_image(content, channels)
    return open_image(Path(given))


# ---------------------------------------------------------------- tars


def header(name: bytes, size: bytes, kind: bytes, chance: random.Random) -> bytes:
    """512 bytes whose sum is right, or wrong as the one of old programs, or not at all."""
    block = bytearray(512)
    block[: len(name[:100])] = name[:100]
    block[124 : 124 + len(size[:12])] = size[:12]
    block[156:157] = kind
    block[257:265] = chance.choice((b"ustar\x0000", b"ustar  \0", bytes(8)))
    if chance.random() < 0.1:
        block[345:500] = chance.choice((b"a" * 155, b"../" * 51 + b"..", chance.randbytes(155)))
    block[148:156] = b" " * 8
    total = sum(block) if chance.random() < 0.95 else 7
    block[148:156] = b"%06o\0 " % total
    return bytes(block)


def size_field(size: int, chance: random.Random) -> bytes:
    """A size as digits, in binary, below zero, or as none."""
    lie = chance.random()
    if lie > 0.25:
        return b"%011o\0" % size
    value = chance.choice((-512, -1024, -1, 0, 1, 512, 2**33, 2**62, 2**80))
    return chance.choice(
        (
            (value % 2**96).to_bytes(12, "big"),
            bytes([0x80]) + (value % 2**88).to_bytes(11, "big"),
            b"-0000000777\0",
            b"99999999999\0",
            b"0x1ff\0",
            b" " * 12,
            chance.randbytes(12),
        )
    )


EXTENDED = (
    b"18 size=-00000512\n",
    b"20 path=abc/def.png\n",
    b"9" * 30 + b" a=b\n",
    b"11 size=1e\n",
    b"\0" * 9,
    b"0 a=b\n",
    b"5 a=\n" * 999,
)


def make_tar(chance: random.Random, folder: Path) -> Input:
    path, found = folder / "shard-000.tar", []
    for number in range(chance.randrange(1, 6)):
        name = chance.choice(
            (
                b"%d.png" % number,
                b"a/%d.jpg" % number,
                b"0.png",
                b"\xff\n\x1b[31m.png",
                b"../../x.png",
                b"x" * 96 + b".png",
            )
        )
        kind = chance.choice(
            (b"0", b"0", b"0", b"\0", b"7", b"5", b"1", b"2", b"S", b"L", b"K", b"x", b"g", b"X", b"A", b"\xff")
        )
        content = {
            b"L": b"long/" * chance.choice((1, 50, 300_000)) + b"name.png\0",
            b"x": chance.choice(EXTENDED),
        }.get(kind, picture(4 + number))
        found.append(
            header(name, size_field(len(content), chance), kind, chance) + content + bytes(-len(content) % 512)
        )
    content = b"".join(found) + bytes(chance.choice((0, 512, 1024, 10_000)))
    path.write_bytes(altered(content, chance) if chance.random() < 0.4 else content)
    if chance.random() < 0.05:
        with tarfile.open(path, "w") as tar:
            tar.add(folder.parent, "0.png", recursive=False)
    if chance.random() < 0.1:
        braces = ("{000..999999999}", "{a,b}" * 40, "{0..9}" * 9, "{" + "," * 3000, "{000..000}", "**/*")
        return f"{folder}/shard-{chance.choice(braces)}.tar"
    return chance.choice((path, folder, f"dataset:{path}", f"dataset:{path}:train:png"))


def use_tar(given: Input) -> object:
    with suppress(DataError):
        shards = open_shards(f"stream:{given}")
        for shard in range(min(shards.count, 3)):
            list(itertools.islice(shards.rows(shard), 50))
    places, _ = find_places(given)
    for place in places[:50]:
        with suppress(DataError):
            open_image(read_place(place))
    return places


# ---------------------------------------------------------------- data sets

TEMPLATE = {
    "version": 1,
    "templates": {"x": "{{ cycler.__init__.__globals__.os.system('touch canary') }}"},
    "gen": [],
    "refs": {"a": "{{x}}"},
}


def hostile_paths(folder: Path) -> list[str | None]:
    image = folder / "own.png"
    secret = folder.parent / "secret" / "image.png"
    return [
        str(image),
        "own.png",
        "./own.png",
        "missing.png",
        None,
        "",
        ".",
        "..",
        str(folder),
        str(secret),
        "../secret/image.png",
        "link.png",
        "pipe.png",
        "/etc/passwd",
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/environ",
        f"file://{image}",
        f"file://{secret}",
        f"local://{secret}",
        "http://127.0.0.1:9/x.png",
        "https://example.org/x.png",
        "ftp://127.0.0.1/x",
        "hf://datasets/a/b/x.png",
        "memory://x.png",
        f"reference://a::{folder}/template.json",
        f"zip://a.png::{folder}/own.zip",
        f"zip://a.png::{secret}",
        f"zip://../a::{folder}/own.zip",
        f"simplecache::file://{secret}",
        f"filecache::{image}",
        f"tar://x::{image}",
        "ssh://127.0.0.1/x",
        "sftp://127.0.0.1/x",
        "git://x",
        "data:image/png;base64,AAAA",
        f"dir://::{secret}",
        "github://a:b@main/x",
        "libarchive://x::y",
        "a\0b.png",
        "x" * 5000 + ".png",
        "\x1b[31m\n.png",
        "::::",
        "://",
        "zip://",
        "zip://::",
        "hf://",
        "~/x.png",
        "~nobody/x",
        "$HOME/x",
        "a" * 300,
        "../" * 2000,
    ]


CARDS = (
    "configs:\n- config_name: default\n  data_files: {0}\n",
    "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {0}\n",
    "configs:\n- config_name: default\n  data_dir: {0}\n",
    "configs: {0}\n",
    "dataset_info:\n  features:\n  - name: image\n    dtype: {0}\n",
    "- [{0}]\n",
    "a: &a [x]\nb: [*a, {0}]\n",
    "configs:\n- config_name: {0}\n  data_files: data.parquet\n  storage_options: {{fo: {0}}}\n",
)


def make_data_set(chance: random.Random, folder: Path) -> Input:
    paths = hostile_paths(folder)
    (folder / "own.png").write_bytes(picture(4))
    (folder / "template.json").write_text(json.dumps(TEMPLATE)) if chance.random() < 0.2 else None
    (folder / "link.png").symlink_to(folder.parent / "secret" / "image.png")
    os.mkfifo(folder / "pipe.png")
    chosen = chance.sample(paths, chance.randrange(1, 6))
    cells = [{"bytes": chance.choice((None, None, None, None, picture(4), b"")), "path": path} for path in chosen]
    table = pa.table(
        {
            "image": pa.array(
                cells, chance.choice((IMAGE, IMAGE, pa.struct([("path", pa.string()), ("bytes", pa.large_binary())])))
            )
        }
    )
    if chance.random() < 0.1:
        table = chance.choice(ODD)
    kind = chance.random()
    if kind < 0.25:
        return saved(chance, folder, table)
    info = {
        "info": {"features": {"image": {"_type": chance.choice(("Image", "Image", "Image", "Value", "os", "Audio"))}}}
    }
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), folder / "data.parquet")
    if chance.random() < 0.2:
        (folder / "data.parquet").write_bytes(altered((folder / "data.parquet").read_bytes(), chance))
    if chance.random() < 0.4:
        name = chance.choice(("README.md", "README.md", ".huggingface.yaml"))
        card = chance.choice(CARDS).format(
            json.dumps(chance.choice([p for p in paths if p] + ["**", "../**", "/etc/*", "evil:go", "data.*"]))
        )
        card = f"---\n{card}---\n" if name == "README.md" else card
        (folder / name).write_bytes(altered(card.encode(), chance) if chance.random() < 0.2 else card.encode())
    if chance.random() < 0.05:
        (folder / "evil.py").write_text("raise SystemExit('ran')")
    return f"dataset:{folder}"


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

ODD = (
    pa.table({"image": [1, 2, None]}),
    pa.table({"image": [[1, 2], [3]]}),
    pa.table({"image": [b"", None, picture(0)]}),
    pa.table({"image": ["/etc/passwd", "own.png"]}),
    pa.table({"image": [{"path": 5, "bytes": None}]}),
    pa.table({"image": [{"a": {"b": 1}}]}),
    pa.table({"image": [{"bytes": [1, 2], "path": None}]}),
    pa.table({}),
    pa.table({"": [b"x"]}),
    pa.table({"a": [b"x"], "b": [b"y"]}),
)
"""Columns of other types."""


def saved(chance: random.Random, folder: Path, table: pa.Table) -> Input:
    """As `save_to_disk` writes it, with something wrong."""
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as writer,
    ):
        writer.write_table(table)
    name = chance.choice(
        ("data-00000-of-00001.arrow",) * 4
        + ("../secret/image.png", "/dev/zero", "pipe.png", "/etc/passwd", "", "a\0b", 5, None)
    )
    state = {
        "_data_files": [{"filename": name}],
        "_fingerprint": "0",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
    }
    state |= {"_output_all_columns": False, "_split": chance.choice(("train", None, "../x", 5))}
    feature = chance.choice(
        ({"_type": "Image"}, {"_type": "Image"}, {"_type": "os"}, {"dtype": "string", "_type": "Value"}, 5, None)
    )
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"image": feature}}))
    content = json.dumps(state).encode()
    (folder / "state.json").write_bytes(altered(content, chance) if chance.random() < 0.1 else content)
    if chance.random() < 0.2:
        (folder / "dataset_dict.json").write_text(
            json.dumps({"splits": chance.choice((["../secret"], ["/etc"], ["x"], 5, None, ["."], [None]))})
        )
    return f"dataset:{folder}"


def use_data_set(given: Input) -> object:
    with tempfile.TemporaryDirectory() as cache:
        datasets.config.HF_DATASETS_CACHE = Path(cache)
        datasets.config.DOWNLOADED_DATASETS_PATH = Path(cache, "downloads")
        found = None
        try:
            found = rows(dataset_name(str(given)))
        finally:
            with suppress(DataError):
                shards = Shards(dataset_name(str(given)))
                for shard in range(min(shards.count, 3)):
                    list(itertools.islice(shards.rows(shard), 20))
        for row in found[:20]:
            with suppress(DataError):
                open_image(read_place(row))
        return found


# ---------------------------------------------------------------- IDX, sounds, labels


def make_idx(chance: random.Random, folder: Path) -> Input:
    shape = (
        [chance.choice((0, 1, 5, 28, 2**16, 2**31, 2**32 - 1)) for _ in range(3)]
        if chance.random() < 0.6
        else [5, 4, 3]
    )
    content = struct.pack(">I3I", 0x803, *shape) + bytes(chance.choice((60, 60, 0, 10**6)))
    labels = struct.pack(">II", 0x801, chance.choice((5, 5, 0, 2**32 - 1))) + bytes(5)
    ending = chance.choice(("", ".gz"))
    for name, data in (("x-images-idx3-ubyte", content), ("x-labels-idx1-ubyte", labels)):
        data = altered(data, chance) if chance.random() < 0.3 else data
        data = gzip.compress(data, 1) if ending else data
        (folder / (name + ending)).write_bytes(altered(data, chance) if chance.random() < 0.3 else data)
    return folder


def use_idx(given: Input) -> object:
    return [read_place(place) for place in find_places(given)[0][:20]]


@functools.cache
def sound(kind: str) -> bytes:
    buffer = io.BytesIO()
    samples = np.sin(np.arange(4000) / 5)
    if kind == "wav":
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1), file.setsampwidth(2), file.setframerate(16_000)
            file.writeframes((samples * 32767).astype("<i2").tobytes())
    else:
        soundfile.write(buffer, samples, 44_100 if kind != "flac" else 8_000, format=kind)
    return buffer.getvalue()


def make_sound(chance: random.Random, folder: Path) -> Input:
    kind = chance.choice(("wav", "wav", "flac", "ogg", "mp3"))
    path = folder / f"a.{chance.choice((kind, kind, kind, 'wav', 'flac'))}"
    content = sound(kind)
    if kind == "wav" and chance.random() < 0.4:
        rate, channels, bits = (
            chance.choice(values)
            for values in ((0, 1, 7, 999, 15_999, 44_101, 2**31, 2**32 - 1), (0, 1, 2, 9, 65_535), (8, 16, 24, 32, 64))
        )
        content = content[:22] + struct.pack("<HIIHH", channels, rate, 2**31, 2, bits) + content[36:]
    path.write_bytes(altered(content, chance) if chance.random() < 0.8 else content)
    return f"{chance.choice(('sound', 'stereo', 'segments'))}:{path}"


def use_sound(given: Input) -> object:
    return [read_place(place) for place in find_places(given)[0][:5]]


def make_labels(chance: random.Random, folder: Path) -> Input:
    content = b'own.png,a\n\'=x.png,b\n"a,b",c\n' + chance.choice(
        (b"", b'"' + b"x" * 200_000, b"\0", b"\xff", b"a,b\n" * 10_000, b"," * 9999)
    )
    path = folder / "labels.csv"
    path.write_bytes(altered(content, chance))
    return path


def use_labels(given: Input) -> object:
    return find_labels([ImageFile(Path("own.png"), "0", 8, 8)], str(given))


TARGETS = (
    Target("images", make_image, use_image),
    Target("tars", make_tar, use_tar),
    Target("data sets", make_data_set, use_data_set),
    Target("IDX", make_idx, use_idx),
    Target("sounds", make_sound, use_sound),
    Target("labels", make_labels, use_labels),
)
