"""How often the doctor reads a file: once for the protocol, once for its pixels."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from patients import files, linear
from PIL import Image

import vaeworks as vw
from vaeworks.cli.main import main
from vaeworks.data import image_ref, photos, scan
from vaeworks.data.labels import find_labels, find_masks
from vaeworks.doctor.examination import examine_files
from vaeworks.doctor.image_sample import ImageSample
from vaeworks.doctor.serialization import to_dict
from vaeworks.doctor.subject import encode_subject
from vaeworks.errors import ConfigError, DataError
from vaeworks.images import reading


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEWORKS_CACHE", str(tmp_path / "cache"))


class Opened:
    """How often each file was read, and each content given to Pillow."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: Counter[str] = Counter()
        self.decoded: Counter[str] = Counter()
        content, opened, bytes_of = reading.file_content, reading.image_file, Path.read_bytes

        def file_content(path: str | Path, *limit: int) -> bytes:
            self.read[str(path)] += 1
            return content(path, *limit)

        def read_bytes(path: Path) -> bytes:
            self.read[str(path)] += 1
            return bytes_of(path)

        @contextmanager
        def image_file(source: str | Path | bytes) -> Iterator[Image.Image]:
            if isinstance(source, bytes):
                self.decoded[hashlib.sha256(source).hexdigest()] += 1
            with opened(source) as file:
                yield file

        for module in (reading, image_ref):
            monkeypatch.setattr(module, "file_content", file_content)
        monkeypatch.setattr(reading, "image_file", image_file)
        monkeypatch.setattr(Path, "read_bytes", read_bytes)

    def most(self, folder: Path) -> tuple[int, int]:
        """Reads of a file below a folder, and decodings of one content, at most."""
        return max(n for path, n in self.read.items() if path.startswith(str(folder))), max(self.decoded.values())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Photographs of two classes with masks, some of them with transparency."""
    for number, path in enumerate(photos()[:6]):
        picture = Image.open(path).convert("RGB").resize((90 + 10 * number, 80))
        if number % 2:
            picture.putalpha(200)
        for folder, image in (
            ("images", picture),
            ("masks", Image.fromarray(np.eye(80, k=number, dtype=np.uint8) * 255)),
        ):
            place = tmp_path / folder / ("a" if number < 3 else "b") / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            image.save(place)
    return tmp_path / "images"


def test_every_file_is_read_twice(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing included, with labels, masks and all panels, and for a second model as well."""
    opened = Opened(monkeypatch)
    listed = scan(source).files
    sample = ImageSample(
        listed, size=64, quick=True, labels=find_labels(listed), masks=find_masks(listed, source.parent / "masks")
    )
    first = examine_files(linear(), sample, keep=False)
    assert first.protocol.flattened == 3 and first.findings["tiling"].verdict != "not examined"
    assert opened.most(source) == (2, 2)
    assert opened.most(source.parent / "masks")[0] == 2
    second = examine_files(linear("small-f8c4", norm_eps=1e-5), sample, panels=["scale", "tiling"], keep=False)
    assert second.protocol == first.protocol
    assert opened.most(source.parent) == (2, 2)


def test_the_command_reads_every_file_twice(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models, each with its own report."""
    for name in ("one", "two"):
        vw.save(linear(norm_eps=1e-5 if name == "one" else 1e-6), tmp_path / f"{name}.safetensors")
    opened = Opened(monkeypatch)
    models = [str(tmp_path / f"{name}.safetensors") for name in ("one", "two")]
    options = ["--size", "64", "--quick", "--panels", "scale", "tiling", "--masks", str(source.parent / "masks")]
    assert main(["doctor", *models, "--data", str(source), "--out", str(tmp_path / "out"), *options]) == 0
    assert opened.most(source)[0] == 2 and opened.most(source.parent / "masks")[0] == 2


def test_files_without_facts_are_looked_at_once(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that no scan has listed: their headers are read for the protocol."""
    named = files([Path(str(file.path)) for file in scan(source).files])
    opened = Opened(monkeypatch)
    assert examine_files(linear(), named, size=64, quick=True, panels=["scale", "tiling"]).protocol.flattened == 3
    assert opened.most(source) == (2, 2)


def test_findings_that_are_kept_need_no_pixels(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The protocol alone finds them."""
    examine_files(linear(), scan(source).files, size=64, panels=["scale"])
    opened = Opened(monkeypatch)
    examine_files(linear(), scan(source).files, size=64, panels=["scale"])
    assert opened.most(source) == (1, 1)


def test_a_sample_gives_what_files_give(source: Path) -> None:
    """The same findings, also after another model's, and after one of other channels."""
    listed = scan(source).files
    alone = examine_files(linear(), listed, size=64, quick=True, panels=["scale", "tiling"], keep=False)
    sample = ImageSample(listed, size=64, quick=True)
    gray = linear("small-f8c4", in_channels=1, out_channels=1)
    assert encode_subject(gray, sample).pixels.shape == (6, 1, 64, 64)
    for _ in range(2):
        shared = examine_files(linear(), sample, panels=["scale", "tiling"], keep=False)
        assert shared.protocol == alone.protocol
        assert {n: to_dict(f) for n, f in shared.findings.items()} == {n: to_dict(f) for n, f in alone.findings.items()}


def test_a_sample_has_its_own_choices(source: Path) -> None:
    sample = ImageSample(scan(source).files, size=64)
    for options in ({"size": 64}, {"limit": 2}, {"quick": True}, {"labels": ["a"] * 6}):
        with pytest.raises(ConfigError, match="belong to the ImageSample"):
            examine_files(linear(), sample, **options)
    with pytest.raises(ConfigError, match="multiple of 8"):
        examine_files(linear(), ImageSample(scan(source).files, size=60))


def test_the_largest_images_are_kept_whole(source: Path) -> None:
    kept = ImageSample(scan(source).files, size=32).pixels(3).whole
    assert [tuple(image.shape) for image in kept] == [(3, 80, 90 + 10 * n) for n in range(3)]


def test_a_broken_file_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary files go at once, and a later call may succeed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sample = ImageSample(scan(source).files, size=32)
    place = Path(str(sample.files[-1].path))
    content = place.read_bytes()
    place.write_bytes(b"torn")
    with pytest.raises(DataError, match=rf"{place.name} cannot be read any more: not an image"):
        sample.pixels(3)
    assert not list(tmp_path.glob(".vaeworks-*"))
    place.write_bytes(content)
    assert len(sample.pixels(3).squares) == 6
    del sample
    assert not list(tmp_path.glob(".vaeworks-*"))
