"""Any file at all: an archive whose every tensor can be read, or a FormatError, and nothing else ever."""

from __future__ import annotations

import json
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
import torch
from crafted import contained, program, safetensors, table, tensor, text, torch_zip
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from vaeworks.errors import FormatError
from vaeworks.formats.archive import open_archive
from vaeworks.formats.archive.torch_dtypes import TORCH_DTYPES

MANY = settings(max_examples=400, derandomize=True, deadline=None)

NASTY = [
    *(bytes([byte]) for byte in (0, 1, 127, 128, 255, *b"(.0123459NQRIVSTXBCUPpqrjhgGaesud}{]lt)cioKMJLF")),
    *(bytes([byte]) for byte in range(0x80, 0x99)),
    *(struct.pack("<Q", value) for value in (0, 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1)),
    *(struct.pack("<i", value) for value in (-1, 2**31 - 1, -(2**31))),
    *(str(value).encode() for value in (-1, 2**31, 2**62, 2**64, 1e400)),
    *(
        b"cos\nsystem\n",
        b"cbuiltins\neval\n",
        b"ccollections\nOrderedDict\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"PK\3\4",
        b"PK\1\2",
    ),
    *(b'"', b"[", b"]", b"{", b"}", b",", b"null", b"\\u0000", b"\xed\xa0\x80", b"\n", b" "),
]


@st.composite
def mutations(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes with a few places replaced, taken away, doubled, or filled with something nasty."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 8)))
        content[start:end] = draw(
            st.one_of(
                st.sampled_from(NASTY), st.just(b""), st.binary(max_size=4), st.just(bytes(content[start:end]) * 2)
            )
        )
    return bytes(content)


def opened(content: bytes) -> None:
    """Open a file of this content and read all of it."""
    with NamedTemporaryFile() as file:
        path = Path(file.name)
        path.write_bytes(content)
        try:
            archive = open_archive(path)
        except FormatError as error:
            message = str(error)
            assert "\n" not in message and message.isprintable() and len(message) < 600
            return
        for name, entry in archive.entries.items():
            assert sum(map(len, archive.chunks(name))) == entry.nbytes
            if entry.dtype in TORCH_DTYPES:
                assert tuple(archive.read(name).shape) == entry.shape
            else:
                with pytest.raises(FormatError):
                    archive.read(name)


CONTENT = OrderedDict(
    x=torch.arange(6.0).reshape(2, 3).T, y=torch.nn.Parameter(torch.zeros(1)), z=torch.tensor(3, dtype=torch.uint16)
)


def torch_file(new: bool) -> bytes:
    with NamedTemporaryFile() as file:
        torch.save({"state_dict": CONTENT, "epoch": 1}, file.name, _use_new_zipfile_serialization=new)
        return Path(file.name).read_bytes()


SAFETENSORS = save({"x": torch.zeros(2, 3), "y": torch.zeros(0), "z": torch.tensor(True)}, {"format": "pt"})
PICKLE = program(
    table({"x": tensor(), "state_dict": table({"a": tensor((2, 2), (2, 1)), "b": tensor((), ())}), "c": text("d")})
)
ZIP, STREAM = torch_file(True), torch_file(False)


@MANY
@given(mutations(SAFETENSORS))
def test_safetensors(content: bytes) -> None:
    opened(content)


@MANY
@given(mutations(SAFETENSORS[8:-25]))
def test_safetensors_headers(header: bytes) -> None:
    """With a length that is right, so that more of it is read."""
    opened(safetensors(header, SAFETENSORS[-25:]))


@MANY
@given(mutations(PICKLE), st.sampled_from(["bare", "zip", "stream"]))
def test_pickles(pickled: bytes, container: str) -> None:
    opened(contained(pickled, container))


@MANY
@given(mutations(ZIP))
def test_zips(content: bytes) -> None:
    opened(content)


@MANY
@given(mutations(STREAM))
def test_streams(content: bytes) -> None:
    opened(content)


@MANY
@given(st.lists(st.one_of(st.sampled_from(NASTY), st.binary(max_size=3)), max_size=30).map(b"".join))
def test_anything(content: bytes) -> None:
    opened(content)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@MANY
@given(st.dictionaries(st.text(max_size=3), PLAIN, max_size=4), st.integers(0, 5))
def test_plain_values_are_understood(value: dict, protocol: int) -> None:
    """Whatever protocol Python writes them in, they are dropped, and never mistaken for something torn."""
    pickled = pickle.dumps({"a name of its own": value}, protocol)
    with NamedTemporaryFile() as file:
        path = Path(file.name)
        path.write_bytes(torch_zip(pickled))
        with pytest.raises(FormatError, match=r"without tensors \(keys: a name of its own\)"):
            open_archive(path)


def test_the_seeds_themselves_are_fine() -> None:
    for whole in (SAFETENSORS, ZIP, STREAM, torch_zip(PICKLE)):
        with NamedTemporaryFile() as file:
            Path(file.name).write_bytes(whole)
            assert open_archive(Path(file.name)).entries
    assert json.loads(SAFETENSORS[8:-25])
