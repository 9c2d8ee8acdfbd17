"""Handwritten digits as a source: scikit-learn's, and IDX files."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from idx_files import idx
from PIL import Image
from sklearn.datasets import load_digits

from vaeworks.data import scan
from vaeworks.data.labels import find_labels
from vaeworks.errors import DataError


def test_bundled() -> None:
    """The digits are scikit-learn's, in its order, with its classes as labels."""
    images = scan("digits")
    truth = load_digits()
    assert find_labels(images.files) == tuple(map(str, truth.target))
    for i in (0, 700, 1796):
        pixels = np.asarray(Image.open(io.BytesIO(images.files[i].path.read_bytes())))
        assert np.abs(pixels / 255 * 16 - truth.images[i]).max() <= 0.5 * 16 / 255


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx(tmp_path: Path, ending: str) -> None:
    """A folder of IDX files gives its images, labelled where there are labels."""
    values = np.arange(5 * 6 * 4, dtype=np.uint8).reshape(5, 6, 4)
    pack = gzip.compress if ending else bytes
    (tmp_path / f"a-images-idx3-ubyte{ending}").write_bytes(pack(idx(values)))
    images = scan(tmp_path)
    assert [(f.width, f.height) for f in images.files] == [(4, 6)] * 5
    assert find_labels(images.files) is None
    (tmp_path / f"b-images-idx3-ubyte{ending}").write_bytes(pack(idx(values)))
    (tmp_path / f"b-labels-idx1-ubyte{ending}").write_bytes(pack(idx(np.array([3, 1, 3, 1, 3], np.uint8))))
    images = scan(tmp_path)
    assert find_labels(images.files)[5:] == ("3", "1", "3", "1", "3")
    assert (np.asarray(Image.open(io.BytesIO(images.files[7].path.read_bytes()))) == values[2]).all()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no", "cannot be read as IDX"),
        (struct.pack(">HBBI", 0, 8, 1, 2) + bytes(12), "no IDX file of 3 dimensions"),
        (idx(np.zeros((2, 3, 3), np.uint8))[:-1], "says that it has 2 x 3 x 3 bytes, and has 17"),
    ],
)
def test_broken_idx(tmp_path: Path, content: bytes, says: str) -> None:
    """A torn or foreign file is named in one line."""
    (tmp_path / "t-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=says):
        scan(tmp_path)


def test_labels_of_another_set(tmp_path: Path) -> None:
    """Labels must be as many as images."""
    (tmp_path / "t-images-idx3-ubyte").write_bytes(idx(np.zeros((2, 3, 3), np.uint8)))
    (tmp_path / "t-labels-idx1-ubyte").write_bytes(idx(np.zeros(3, np.uint8)))
    with pytest.raises(DataError, match="3 labels"):
        scan(tmp_path)
