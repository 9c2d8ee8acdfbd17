"""Containers that are torn, altered, absurd, or something else altogether: one line that says what, and no memory spent
on claims."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from crafted import (
    contained,
    items,
    name,
    number,
    program,
    safetensors,
    storage,
    table,
    tensor,
    text,
    torch_stream,
    torch_zip,
    written,
    zipped,
)
from safetensors.torch import save
from test_hostile_pickles import refusal

from vaeworks.errors import FormatError
from vaeworks.formats.archive import open_archive, open_shards

pytestmark = pytest.mark.usefixtures("modest")

HUGE = 2**62


# Not model files at all


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; download it again"),
        (bytes(1000), "only zeros"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 334643276\n",
            "git-lfs pointer, the file itself was not downloaded",
        ),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b"\n  <HTML lang='en'>", "is a web page"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page"),
        (b'{"error": "Repository not found"}', "is JSON text"),
        (b'{"_class_name": "AutoencoderKL"}', "is JSON text"),
        (b'{"vocab": {"a": 1}}', "is JSON text"),
        (b'[{"a": 1}]', "is JSON text"),
        (b'{"metadata": {}, "weight_map": {}}', "the index of a model in several files"),
        (b"GGUF\x03\0\0\0" + bytes(99), "is a GGUF file"),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:\x80\x01", "is an ONNX file"),
        (b"7z\xbc\xaf\x27\x1c\0\x04", "is a 7z archive"),
        (b"Rar!\x1a\x07\x01\0", "is a RAR archive"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03", "is a gzip archive"),
        (b"\x89HDF\r\n\x1a\n\0\0", "is an HDF5 file"),
        (b"\x93NUMPY\x01\0v\0{'descr'", "is a NumPy array"),
        (b"\x89PNG\r\n\x1a\n", "is a picture"),
        (b"pickle".ljust(257, b"\0") + b"ustar\x0000" + bytes(300), "is a tar archive"),
        (b"Not Found", "no model file of a known kind"),
        (b"Invalid username or password.", "no model file of a known kind"),
        (b"\x9e\x17\xc4\x05" + b"\xff" * 100, "no model file of a known kind"),
        (b"abc", "no model file of a known kind"),
        (b"\x00", "only zeros"),
        (b"PK\5\6" + bytes(18), "an empty zip file"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_other_files(tmp_path: Path, content: bytes, said: str) -> None:
    for ending in ("model.safetensors", "model.ckpt", "model"):
        assert said in refusal(written(tmp_path, content, ending))


def test_folders_devices_and_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is a folder" in refusal(tmp_path)
    assert "does not exist" in refusal(tmp_path / "missing")
    assert "is no regular file" in refusal(tmp_path / "pipe")
    assert "is no regular file" in refusal(Path("/dev/zero"))
    (tmp_path / "dangling").symlink_to(tmp_path / "missing")
    assert "does not exist" in refusal(tmp_path / "dangling")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may read everything")
def test_unreadable(tmp_path: Path) -> None:
    path = written(tmp_path, b"x")
    path.chmod(0)
    assert "Permission denied" in refusal(path)


# safetensors


def of(dtype: str = "F32", shape: object = (1,), offsets: object = (0, 4), **more: object) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (safetensors({"x": of()}, b"1234" + b"garbage"), "not a whole safetensors file"),
        (safetensors({"x": of()}, b"123"), "not a whole safetensors file"),
        (safetensors({"x": of(offsets=(0, 8))}, b"12345678"), "not a whole safetensors file"),
        (safetensors({"x": of(), "y": of(offsets=(2, 6))}, b"123456"), "not a whole safetensors file"),
        (safetensors({"x": of(), "y": of(offsets=(8, 12))}, bytes(12)), "not a whole safetensors file"),
        (safetensors({"x": of(), "y": of()}, b"1234"), "not a whole safetensors file"),
        (safetensors({"x": of(offsets=(4, 0))}, b"1234"), "not a whole safetensors file"),
        (safetensors({"x": of("F33")}, b"1234"), "not a whole safetensors file"),
        (safetensors({"x": of(shape=(-1,))}, b"1234"), "not a whole safetensors file"),
        (safetensors({"x": of(shape=(2**70,))}, b"1234"), "not a whole safetensors file"),
        (safetensors({"x": of(shape=(2**62, 4))}, b"1234"), "not a whole safetensors file"),
        (safetensors({"x": of(shape=(0, 2**62, 2**62), offsets=(0, 0))}), "an impossible shape"),
        (safetensors({"x": of(shape=(1,) * 65)}, b"1234"), "65 dimensions"),
        (safetensors({"x": of(shape="1")}, b"1234"), "not a whole safetensors file"),
        (safetensors({"__metadata__": {"a": 1}}), "not a whole safetensors file"),
        (safetensors({"__metadata__": of()}, b"1234"), "not a whole safetensors file"),
        (safetensors(b'{"x":%b,"x":%b}' % (2 * (json.dumps(of()).encode(),)), b"1234"), "key 'x' twice"),
        (
            safetensors(b'{"x":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}', b"1234"),
            "not a whole safetensors file",
        ),
        (safetensors(b'{"__metadata__":{"a":"b","a":"c"}}'), "key 'a' twice"),
        (safetensors(b"{not json"), "not a whole safetensors file"),
        (safetensors(b"\xff\xfe{}"), "not a whole safetensors file"),
        (safetensors(b'{"\xff":1}'), "not a whole safetensors file"),
        (safetensors(b'{"a":' * 5000), "not a whole safetensors file"),
        (safetensors(b"[" * 100_000), "not a whole safetensors file"),
        (safetensors(b"{}", length=2**63), "claims a header of 9223372036854775808 bytes"),
        (safetensors(b"{}", length=2**64 - 1), "claims a header of"),
        (safetensors(b"{}", length=100_000_001), "claims a header of"),
        (safetensors(b"{}", length=99_999_999), "claims a header of 99999999 bytes, more than 16777216"),
        (safetensors(b"{}", length=9_999_999), "ends within its header: 10 bytes of 10000007 or more"),
        (safetensors(b"{", length=2), "ends within its header"),
        (struct.pack("<Q", 700), "ends within its header"),
        (struct.pack("<Q", 700)[:5], "no model file of a known kind"),
    ],
    ids=lambda value: repr(value[-30:]),
)
def test_safetensors(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refusal(written(tmp_path, content))


def test_a_torn_safetensors_file_of_any_length(tmp_path: Path) -> None:
    whole = save({"x": torch.zeros(3), "y": torch.ones(2)})
    for length in range(len(whole)):
        refusal(written(tmp_path, whole[:length]))


def test_a_header_of_16_megabytes(tmp_path: Path) -> None:
    """Believable in length, and nothing but blanks or zeros."""
    path = tmp_path / "model"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 16_000_000) + b"{")
        file.truncate(16_000_008)
    refusal(path)


def test_an_empty_safetensors_file_is_one(tmp_path: Path) -> None:
    assert open_archive(written(tmp_path, safetensors(b"{}"))).entries == {}


# Claims of pickles


@pytest.mark.parametrize(
    ("described", "said"),
    [
        (tensor(shape=(10**15,)), "bytes in a file of"),
        (tensor(shape=(10**15,), strides=(0,)), "bytes in a file of"),
        (tensor(shape=(HUGE,)), "an impossible shape"),
        (tensor(shape=(HUGE, 4), strides=(0, 0)), "an impossible shape"),
        (tensor(shape=(2**32, 2**32, 0), strides=(0, 0, 1)), "an impossible shape"),
        (tensor(shape=(2**5000,)), "an impossible shape"),
        (tensor(shape=(-1,)), "an impossible shape"),
        (tensor(shape=(5,)), "beyond its storage"),
        (tensor(shape=(2,), strides=(4,)), "beyond its storage"),
        (tensor(shape=(2,), strides=(-1,)), "impossible strides"),
        (tensor(shape=(2,), strides=(2**63,)), "impossible strides"),
        (tensor(shape=(2,), strides=(2**62,)), "beyond its storage"),
        (tensor(shape=(2,), strides=()), "impossible strides"),
        (tensor(shape=(2,), strides=(2**20000,)), "impossible strides"),
        (tensor(offset=1), "beyond its storage"),
        (tensor(offset=-1), "beyond its storage"),
        (tensor(offset=HUGE), "beyond its storage"),
        (tensor(shape=(), strides=(), offset=4), "beyond its storage"),
        (tensor(stored=storage(numel=HUGE)), "claims more bytes than its storage has"),
        (tensor(stored=storage(numel=-4)), "claims more bytes than its storage has"),
        (tensor(stored=storage(numel=5)), "claims more bytes than its storage has"),
        (tensor(stored=storage("DoubleStorage")), "claims more bytes than its storage has"),
        (tensor(stored=storage(key="1")), "has no bytes in the file"),
        (tensor(stored=storage(key="../0")), "has no bytes in the file"),
        (tensor(stored=storage(key="/etc/passwd")), "has no bytes in the file"),
        (tensor(stored=storage(key="\0")), "has no bytes in the file"),
        (tensor(stored=storage(view=items(text("v"), number(2), number(2)))), "beyond its storage"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_claims(tmp_path: Path, described: bytes, said: str) -> None:
    message = refusal(written(tmp_path, torch_zip(program(table({"fine": tensor(), "the.key": described})))))
    assert said in message and "tensor 'the.key'" in message


def test_dimensions_are_limited(tmp_path: Path) -> None:
    shape, strides = (1,) * 1000, (1,) * 1000
    assert "an impossible shape" in refusal(written(tmp_path, torch_zip(program(table({"x": tensor(shape, strides)})))))


def test_views_of_storages(tmp_path: Path) -> None:
    """Which PyTorch wrote before 0.4."""
    view = tensor(shape=(2,), stored=storage(view=items(text("v"), number(1), number(2))))
    content = struct.pack("<4f", 1, 2, 3, 4)
    for whole in (
        torch_zip(program(table({"x": view})), {"0": content}),
        torch_stream(program(table({"x": view})), {"0": (4, content)}),
    ):
        assert open_archive(written(tmp_path, whole)).read("x").tolist() == [2, 3]


@pytest.mark.parametrize("container", ["bare", "zip", "stream"])
@pytest.mark.parametrize(
    "body",
    [
        b"Nr\xff\xff\xff\xff",
        b"N" + b"r\xff\xff\xff\xff" + b"j\xff\xff\xff\xfe",
        b"\x8e" + struct.pack("<Q", 2**40),
        b"\x96" + struct.pack("<Q", 2**40),
        b"\x8d" + struct.pack("<Q", 2**40),
        b"\x8e" + struct.pack("<Q", 2**64 - 1),
        b"B\xff\xff\xff\xff",
        b"X\xff\xff\xff\xff",
        b"T\xff\xff\xff\x7f",
        b"T\xff\xff\xff\xff",
        b"\x8b\xff\xff\xff\x7f",
        b"\x8b\xff\xff\xff\xff",
        b"\x95" + struct.pack("<Q", 2**63),
        name("builtins", "bytearray") + items(number(2**40)) + b"R",
        name("builtins", "range") + items(number(2**40)) + b"R",
        name("builtins", "list") + items(name("builtins", "range") + items(number(2**40)) + b"R") + b"R",
        name("_codecs", "encode") + items(text("a" * 1000), text("utf-16")) + b"R",
        name("numpy.core.multiarray", "_reconstruct")
        + items(name("numpy", "ndarray"), items(number(HUGE)), b"N")
        + b"R",
    ],
    ids=repr,
)
def test_lengths_that_are_not_there(tmp_path: Path, body: bytes, container: str) -> None:
    refusal(written(tmp_path, contained(program(body), container)))


def test_a_memo_may_have_gaps(tmp_path: Path) -> None:
    path = written(tmp_path, torch_zip(program(table({"x": tensor() + b"r\xff\xff\xff\xff"}))))
    assert list(open_archive(path).entries) == ["x"]


def recalled(*numbers: int) -> bytes:
    """BINGET."""
    return b"".join(bytes([ord("h"), n]) for n in numbers)


LAUGHS = {
    "lists": b"]q\0" + b"".join(b"(" + recalled(*[n] * 9) + b"lq" + bytes([n + 1]) for n in range(200)),
    "tuples": b")q\0" + b"".join(recalled(n, n) + b"\x86q" + bytes([n + 1]) for n in range(250)),
    "dicts": b"}q\0"
    + b"".join(table({"model": recalled(n), "ema": recalled(n)}) + b"q" + bytes([n + 1]) for n in range(200)),
    "keys": b")q\0"
    + b"".join(recalled(n, n) + b"\x86q" + bytes([n + 1]) for n in range(250))
    + b"}"
    + recalled(240)
    + b"Ns",
    "itself": b"]q\0" + recalled(0) + b"a",
    "its own wrapper": b"}q\0" + text("model") + recalled(0) + b"s",
    "deep": b"]" * 100_000 + b"a" * 99_999,
    "deep tuples": b")" + b"\x85" * 100_000,
    "deep dicts": b"}" + (text("model") + b"}") * 30_000 + b"s" * 30_000,
    "long names": text("a" * 10_000_000),
    "one list as many dicts": b"](K\1K\2\x86"
    + b"2" * 100_000
    + b"eq\0"
    + table({str(n): name("collections", "OrderedDict") + recalled(0) + b"\x85R" for n in range(1000)}),
}
"""Billion laughs, and other shapes that a walk would never come back from."""


@pytest.mark.parametrize("container", ["bare", "zip", "stream"])
@pytest.mark.parametrize("laugh", LAUGHS)
def test_laughs(tmp_path: Path, laugh: str, container: str) -> None:
    message = refusal(written(tmp_path, contained(program(LAUGHS[laugh]), container)))
    assert "aaaa" not in message


@pytest.mark.parametrize("laugh", LAUGHS)
def test_tensors_beside_laughs(tmp_path: Path, laugh: str) -> None:
    archive = open_archive(
        written(tmp_path, torch_zip(program(table({"model": b"(" + LAUGHS[laugh] + b"l", "x": tensor()}))))
    )
    assert list(archive.entries) == ["x"]
    assert archive.dropped == ("model",)


def test_too_many_steps(tmp_path: Path) -> None:
    assert "more than 1000000 steps" in refusal(written(tmp_path, torch_zip(program(b"N0" * 500_001))))


def test_a_pickle_too_long(tmp_path: Path) -> None:
    message = refusal(written(tmp_path, torch_zip(program(b"B" + struct.pack("<I", 64 * 2**20) + bytes(64 * 2**20)))))
    assert "more than 67108864" in message


# PyTorch's zip files

GOOD = program(table({"x": tensor()}))


def test_what_pytorch_writes_beside_tensors(tmp_path: Path) -> None:
    others = {".format_version": b"1", ".storage_alignment": b"64", ".data/serialization_id": b"1" * 40}
    archive = open_archive(written(tmp_path, torch_zip(GOOD, **others)))
    assert archive.read("x").equal(torch.zeros(4))


def test_the_root_may_have_any_name(tmp_path: Path) -> None:
    for root in ("archive", "data", "a b", "ключ", "data.pkl"):
        archive = open_archive(written(tmp_path, zipped({f"{root}/data.pkl": GOOD, f"{root}/data/0": bytes(16)})))
        assert list(archive.entries) == ["x"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            zipped({"m/data.pkl": GOOD, "m/data/0": bytes(16)}, zipfile.ZIP_DEFLATED),
            "compressed records ('m/data.pkl')",
        ),
        (zipped({"m/data.pkl": GOOD, "m/data/0": bytes(16)}, zipfile.ZIP_BZIP2), "compressed records"),
        (zipped({"m/data.pkl": bytes(10**9)}, zipfile.ZIP_DEFLATED), "compressed records"),
        (torch_zip(GOOD, byteorder=b"big"), "not in little-endian byte order"),
        (torch_zip(GOOD, byteorder=b"middle"), "not in little-endian byte order"),
        (torch_zip(GOOD, **{"constants.pkl": b"\x80\x02)."}), "is a TorchScript program"),
        (torch_zip(GOOD, **{"code/__torch__.py": b"pass"}), "is a TorchScript program"),
        (torch_zip(torch_zip(GOOD)), "a zip file within a zip file"),
        (zipped({"model.ckpt": torch_zip(GOOD)}), "it holds model.ckpt); unpack it"),
        (zipped({"word/document.xml": b"<a/>"}), "not one of PyTorch's"),
        (zipped({"data.pkl": GOOD, "data/0": bytes(16)}), "not one of PyTorch's"),
        (zipped({"a/data.pkl": GOOD, "b/data.pkl": GOOD, "a/data/0": bytes(16)}), "not one of PyTorch's"),
        (zipped([("m/data.pkl", GOOD), ("m/data.pkl", program(b"N")), ("m/data/0", bytes(16))]), "share a name"),
        (torch_zip(GOOD, {"0": bytes(15)}), "claims more bytes than its storage has"),
        (torch_zip(GOOD, {}), "has no bytes in the file"),
        (torch_zip(b""), "ends too early"),
        (torch_zip(GOOD) + b"garbage", "zip file that is torn or altered"),
        (b"garbage" + torch_zip(GOOD), "no model file of a known kind"),
        (torch_zip(GOOD)[:-1], "zip file that is torn or altered"),
        (torch_zip(GOOD)[:100], "zip file that is torn or altered"),
        (torch_zip(GOOD)[:4], "zip file that is torn or altered"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_zips(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refusal(written(tmp_path, content))


def altered(content: bytes, signature: bytes, offset: int, form: str, value: int, which: int = 0) -> bytes:
    """The zip file with one number of one header changed."""
    position = -1
    for _ in range(which + 1):
        position = content.index(signature, position + 1)
    changed = bytearray(content)
    struct.pack_into(form, changed, position + offset, value)
    return bytes(changed)


ENTRY, LOCAL, END = b"PK\1\2", b"PK\3\4", b"PK\5\6"


@pytest.mark.parametrize(
    ("signature", "offset", "form", "value", "said"),
    [
        (ENTRY, 8, "<H", 1, "torn or altered"),
        (ENTRY, 10, "<H", 8, "torn or altered"),
        (ENTRY, 20, "<L", 2**31, "overlap"),
        (ENTRY, 20, "<L", 2**32 - 1, "overlap"),
        (ENTRY, 24, "<L", 2**31, "compressed records"),
        (ENTRY, 28, "<H", 65535, "torn or altered"),
        (ENTRY, 28, "<H", 3, "torn or altered"),
        (ENTRY, 30, "<H", 9, "torn or altered"),
        (ENTRY, 42, "<L", 7, "torn or altered"),
        (ENTRY, 42, "<L", 2**31, "torn or altered"),
        (LOCAL, 6, "<H", 1, "torn or altered"),
        (LOCAL, 8, "<H", 8, "torn or altered"),
        (LOCAL, 26, "<H", 1, "torn or altered"),
        (LOCAL, 28, "<H", 40000, "overlap"),
        (END, 4, "<H", 1, "torn or altered"),
        (END, 10, "<H", 60000, "torn or altered"),
        (END, 10, "<H", 1, "torn or altered"),
        (END, 12, "<L", 2**31, "torn or altered"),
        (END, 16, "<L", 0, "torn or altered"),
        (END, 20, "<H", 5, "torn or altered"),
    ],
)
def test_altered_zips(tmp_path: Path, signature: bytes, offset: int, form: str, value: int, said: str) -> None:
    assert said in refusal(written(tmp_path, altered(torch_zip(GOOD), signature, offset, form, value)))


def test_encrypted_zips(tmp_path: Path) -> None:
    content = altered(altered(torch_zip(GOOD), ENTRY, 8, "<H", 1), LOCAL, 6, "<H", 1)
    assert "encrypted records" in refusal(written(tmp_path, content))


def test_overlapping_records(tmp_path: Path) -> None:
    """Two entries of the directory share the bytes of one record: how a small file holds petabytes."""
    content = torch_zip(GOOD, {"0": bytes(16), "1": bytes(16)})
    position = content.index(b"m/data/1", content.index(ENTRY)) - 46
    (first,) = struct.unpack_from("<L", content, content.index(b"m/data/0", content.index(ENTRY)) - 46 + 42)
    assert "torn or altered" in refusal(
        written(tmp_path, content[: position + 42] + struct.pack("<L", first) + content[position + 46 :])
    )
    longer = altered(altered(content, ENTRY, 20, "<L", 300), ENTRY, 24, "<L", 300)
    assert "overlap" in refusal(written(tmp_path, longer))


def test_zip64(tmp_path: Path) -> None:
    """As files above 4 GiB have; here the same numbers stand in the longer fields."""
    path = tmp_path / "model"
    with zipfile.ZipFile(path, "w") as file:
        for record, content in (("m/data.pkl", GOOD), ("m/data/0", struct.pack("<4f", 1, 2, 3, 4))):
            with file.open(zipfile.ZipInfo(record), "w", force_zip64=True) as opened:
                opened.write(content)
    content = path.read_bytes()
    end = content.index(END)
    _, _, _, _, count, size, start, _ = struct.unpack("<4s4H2LH", content[end:])
    directory = wide_directory(content[start:end])
    size = len(directory)
    record64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, start + size, 1)
    short = struct.pack("<4s4H2LH", END, 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    whole = content[:start] + directory + record64 + locator + short
    assert open_archive(written(tmp_path, whole)).read("x").tolist() == [1, 2, 3, 4]
    for position in range(start, len(whole), 3):  # none of these numbers may be anything else
        for value in (0, 255):
            changed = whole[:position] + bytes([value]) + whole[position + 1 :]
            with suppress(FormatError):
                assert open_archive(written(tmp_path, changed)).read("x").tolist() == [1, 2, 3, 4]


def wide_directory(directory: bytes) -> bytes:
    """The entries with sizes and offsets moved to zip64 fields."""
    entries, position = b"", 0
    while position < len(directory):
        fixed = list(struct.unpack_from("<4s6H3L5H2L", directory, position))
        record = directory[position + 46 : position + 46 + fixed[10]]
        position += 46 + fixed[10] + fixed[11] + fixed[12]
        extra = struct.pack("<HHQQQ", 1, 24, fixed[9], fixed[8], fixed[16])
        fixed[8] = fixed[9] = fixed[16] = 2**32 - 1
        fixed[11] = len(extra) + 4
        entries += struct.pack("<4s6H3L5H2L", *fixed) + record + struct.pack("<HH", 7, 0) + extra
    return entries


def test_names_that_are_no_text(tmp_path: Path) -> None:
    surrogate = b"X\x03\0\0\0\xed\xa0\x80"
    assert "no Unicode text" in refusal(written(tmp_path, torch_zip(program(b"}" + surrogate + tensor() + b"s"))))


# Streams of before PyTorch 1.6


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (torch_stream(GOOD) + b"x", "1 bytes follow its last tensor"),
        (torch_stream(GOOD)[:-1], "another size than its tensors"),
        (torch_stream(GOOD, {"0": (HUGE, bytes(16))}), "another size than its tensors"),
        (torch_stream(GOOD, {"0": (-1, bytes(16))}), "another size than its tensors"),
        (torch_stream(GOOD, {"0": (3, bytes(16))}), "another size than its tensors"),
        (torch_stream(GOOD, {"1": (4, bytes(16))}), "its storages are not those of its tensors"),
        (torch_stream(GOOD, {}), "has no bytes in the file"),
        (
            torch_stream(program(table({"x": tensor(stored=storage(numel=HUGE))})), {"0": (HUGE, b"")}),
            "another size than its tensors",
        ),
        (torch_stream(GOOD).replace(pickle.dumps(1001, 2), pickle.dumps(1002, 2)), "unknown protocol"),
        (
            torch_stream(GOOD).replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"),
            "not in little-endian byte order",
        ),
        (torch_stream(GOOD)[:40], "ends too early"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_streams(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refusal(written(tmp_path, content))


# Indices of shards


def indexed(folder: Path, weight_map: object, **more: object) -> Path:
    (folder / "a.safetensors").write_bytes(save({"x": torch.zeros(1), "y": torch.zeros(2)}))
    (folder / "b.safetensors").write_bytes(save({"z": torch.zeros(3)}))
    (folder / "c.safetensors").write_bytes(save({"x": torch.zeros(4)}))
    return written(folder, json.dumps({"weight_map": weight_map, **more}).encode(), "index.json")


def index_refusal(index: Path) -> str:
    with pytest.raises(FormatError) as caught:
        open_shards(index)
    message = str(caught.value)
    assert "\n" not in message and message.isprintable() and len(message) < 600
    return message


A, B, C = "a.safetensors", "b.safetensors", "c.safetensors"


@pytest.mark.parametrize(
    ("weight_map", "said"),
    [
        ({"x": "../../etc/passwd"}, "no file name"),
        ({"x": "/etc/passwd"}, "no file name"),
        ({"x": "..\\a.safetensors"}, "no file name"),
        ({"x": "C:a.safetensors"}, "no file name"),
        ({"x": "folder/a.safetensors"}, "no file name"),
        ({"x": "a.safetensors\0"}, "no file name"),
        ({"x": ".."}, "no file name"),
        ({"x": "."}, "no file name"),
        ({"x": ""}, "no file name"),
        ({"x": 3}, "no file name"),
        ({"x": [A]}, "no file name"),
        ({"x": "\x1b[31m\n" * 1000 + "/"}, "no file name"),
        ({"x": A, "y": A, "z": "d.safetensors"}, "'d.safetensors', which is not beside it"),
        ({"x": A, "y": A, "z": B, "w": B}, "lacks tensor 'w'"),
        ({"x": A, "z": B}, "tensor 'y', which index.json places elsewhere"),
        ({"x": A, "y": A, "z": B, "w": C}, "tensor 'x', which index.json places elsewhere"),
        ({"x": A, "y": B, "z": B}, "places elsewhere"),
        ({"x": "index.json"}, "the index of a model"),
        ({}, "no weight_map"),
        ([], "no weight_map"),
        ("x", "no weight_map"),
        (None, "no weight_map"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_indices(tmp_path: Path, weight_map: object, said: str) -> None:
    assert said in index_refusal(indexed(tmp_path, weight_map))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"[]", "must hold a JSON object"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"weight_map": {"x": "a.safetensors", "x": "c.safetensors"}}', "key 'x' twice"),
        (b'{"weight_map": {"x": ' + b"9" * 5000 + b"}}", "is not JSON"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_indices_that_are_none(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in index_refusal(written(tmp_path, content, "index.json"))


def test_an_index_that_is_a_folder_or_missing(tmp_path: Path) -> None:
    assert "is a folder" in index_refusal(tmp_path)
    assert "does not exist" in index_refusal(tmp_path / "missing")


def test_shards_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    index = indexed(tmp_path, {"x": A, "y": A, "z": B})
    (tmp_path / B).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "b.safetensors is a git-lfs pointer" in index_refusal(index)
    (tmp_path / B).unlink()
    (tmp_path / B).mkdir()
    assert "is a folder" in index_refusal(index)
