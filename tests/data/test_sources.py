"""Tars, Hugging Face data sets and streams: the same images, splits and crops as a folder's, whatever breaks on the
way."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from configs import TINY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

import vaeworks as vw
from vaeworks.config import DataConfig, OptimizerConfig, TrainConfig
from vaeworks.data import (
    Crops,
    ImageSet,
    ImageStream,
    StreamedCrops,
    batches,
    first_images,
    is_held_out,
    open_stream,
    scan,
    streamed_crops,
    training_crops,
)
from vaeworks.data.crops import random_crop
from vaeworks.data.sources.hub import dataset_name, encoded
from vaeworks.data.sources.row_files import Reach
from vaeworks.data.sources.tars import expand_braces, tar_files
from vaeworks.data.trained_on import TrainedOn, trained_on
from vaeworks.images import open_image, to_uint8
from vaeworks.metrics import evaluate
from vaeworks.metrics.crop import Crop
from vaeworks.metrics.gallery import gallery
from vaeworks.random_streams import BLOCKS, SHARDS, random_words
from vaeworks.training import train
from vaeworks.training.run.folder import RunRecord, claim_folder, split_data

CONFIG = DataConfig(size=8, min_scale=0.5)
COUNT = 23
FRACTION = 0.3
"""share of contents that is held out"""


@pytest.fixture(autouse=True, scope="module")
def hugging_face_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Data sets are prepared below the tests' own folder, without bars."""
    folder = tmp_path_factory.mktemp("hugging-face")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
        patch.setenv("HF_DATASETS_CACHE", str(folder))  # of processes that tests start
        datasets.disable_progress_bars()
        yield
        datasets.enable_progress_bars()


def png(seed: int, width: int = 24, height: int = 20) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


CONTENTS = [png(seed) for seed in range(COUNT)]
DIGESTS = [hashlib.sha256(content).hexdigest() for content in CONTENTS]
EPOCH = sum(not is_held_out(digest, FRACTION) for digest in DIGESTS)
"""training images"""


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_parquet(folder: Path, shards: list[list[bytes | None]], split: str = "train") -> Path:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    for number, contents in enumerate(shards):
        rows = {
            "image": [c if c is None else {"bytes": c, "path": None} for c in contents],
            "label": list(range(len(contents))),
        }
        path = folder / "data" / f"{split}-{number:05}-of-{len(shards):05}.parquet"
        datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return folder


def in_shards(contents: list, sizes: tuple[int, ...]) -> list[list]:
    ends = list(itertools.accumulate(sizes))
    return [contents[end - size : end] for size, end in zip(sizes, ends, strict=True)]


SIZES = (9, 3, 11)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same images in the same order, kept in every way; by kind."""
    root = tmp_path_factory.mktemp("sources")
    (root / "folder").mkdir()
    for i, content in enumerate(CONTENTS):
        (root / "folder" / f"{i:03}.png").write_bytes(content)
    numbered = list(enumerate(CONTENTS))
    for shard, part in enumerate(in_shards(numbered, SIZES)):
        members = [
            (f"{i:04}.{field}", c)
            for i, content in part
            for field, c in (("txt", b"a dog"), ("png", content), ("json", b"{}"))
        ]
        write_tar(root / "tars" / f"shard-{shard + 8:03}.tar", members)
    write_parquet(root / "parquet", in_shards(CONTENTS, SIZES))
    table = datasets.load_dataset(str(root / "parquet"), split="train")
    table.save_to_disk(root / "saved")
    datasets.DatasetDict({"test": table.select(range(2)), "train": table}).save_to_disk(root / "saved-splits")
    return {
        "folder": str(root / "folder"),
        "tars": str(root / "tars"),
        "braces": str(root / "tars" / "shard-{008..010}.tar"),
        "wildcard": str(root / "tars" / "*.tar"),
        "parquet": str(root / "parquet"),
        "named parquet": f"dataset:{root / 'parquet'}:train:image",
        "saved": str(root / "saved"),
        "named saved": f"dataset:{root / 'saved'}",
        "saved splits": f"dataset:{root / 'saved-splits'}",
    }


@pytest.mark.parametrize(
    "kind", ["tars", "braces", "wildcard", "parquet", "named parquet", "saved", "named saved", "saved splits"]
)
def test_every_source_is_as_good_as_a_folder(sources: dict[str, str], kind: str) -> None:
    """Contents, sizes, sides of the split and crops of every counter are those of a folder with the same images in the
    same order."""
    reference, found = scan(sources["folder"]), scan(sources[kind])
    facts = [(f.digest, f.width, f.height) for f in found.files]
    assert facts == [(f.digest, f.width, f.height) for f in reference.files]
    assert [hashlib.sha256(f.path.read_bytes()).hexdigest() for f in found.files] == [f.digest for f in found.files]
    assert len({str(f.path) for f in found.files}) == COUNT
    assert found.digest == reference.digest
    for ours, theirs in zip(found.split(FRACTION), reference.split(FRACTION), strict=True):
        assert [f.digest for f in ours.files] == [f.digest for f in theirs.files]
    expected = everything(batches(Crops(reference.files, CONFIG, 5), 0, 60, 4, 0))
    for workers in (0, 2):
        assert same(everything(batches(Crops(found.files, CONFIG, 5), 0, 60, 4, workers)), expected)


def gather(stream, found: list) -> None:
    """Everything that a stream gives before it fails."""
    for result in stream:
        found.append(result)


def everything(stream) -> tuple[Tensor, list[int]]:
    images, counters = zip(*stream, strict=True)
    return torch.cat(images), [k for part in counters for k in part]


def same(a: tuple[Tensor, list[int]], b: tuple[Tensor, list[int]]) -> bool:
    return torch.equal(a[0], b[0]) and a[1] == b[1]


def test_images_have_names_that_people_can_find(sources: dict[str, str]) -> None:
    """A member is named by its tar and its name, a row by its data set, split and number; both survive pickling, and
    can be read again."""
    member, row = scan(sources["tars"]).files[9], scan(sources["named parquet"]).files[9]
    assert str(member.path) == f"{sources['tars']}/shard-009.tar/0009.png"
    assert str(row.path) == sources["named parquet"].replace(":train:image", ":train#9")
    assert (member.path.stem, row.path.stem) == ("0009", "9")
    for file in (member, row):
        assert pickle.loads(pickle.dumps(file)) == file
    lines = f"import pickle, sys\nprint(len(pickle.loads({pickle.dumps(row.path)!r}).read_bytes()))"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(CONTENTS[9])


def test_which_members_are_images(tmp_path: Path) -> None:
    """A sample's image is its member with a plain image field; masks beside it are named as skipped, other and hidden
    files are not."""
    members = [
        "./a/0001.JPG",
        "./a/0001.txt",
        "./a/0001.seg.png",
        "a/0002.png",
        "a/0002.jpg",
        "b/0002.png",
        "x.2024.01.png",
        "x.2024.02.png",
        "._0003.png",
        ".cache/0004.png",
        "notes.md",
        "in.image.png",
        "in.target.png",
    ]
    tar = write_tar(tmp_path / "t.tar", [(name, png(i)) for i, name in enumerate(members)])
    found = scan(tar)
    names = [str(f.path).removeprefix(f"{tar}/") for f in found.files]
    assert names == [
        "a/0001.JPG",
        "a/0002.png",
        "b/0002.png",
        "x.2024.01.png",
        "x.2024.02.png",
        "in.image.png",
        "in.target.png",
    ]
    assert [(name.removeprefix(f"{tar}/"), reason) for name, reason in found.skipped] == [
        ("a/0001.seg.png", "another image of sample a/0001"),
        ("a/0002.jpg", "another image of sample a/0002"),
    ]


def test_members_are_read_where_they_lie(tmp_path: Path) -> None:
    """Long names and PAX headers in front of a member do not shift its bytes; links are skipped; nothing is written
    anywhere."""
    tar = tmp_path / "t.tar"
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind in (
            ("d" * 90 + "/" + "n" * 120 + "ß.png", tarfile.REGTYPE),
            ("link.png", tarfile.SYMTYPE),
            ("b.png", tarfile.REGTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "b.png"
            info.size = len(CONTENTS[0]) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(CONTENTS[0]))
    found = scan(tar)
    assert [f.path.read_bytes() for f in found.files] == [CONTENTS[0]] * 2
    assert found.skipped == ((f"{tar}/link.png", "a link or a sparse file within the tar"),)
    assert list(tmp_path.iterdir()) == [tar]


@pytest.mark.parametrize(
    "damage", ["member cut", "header cut", "header broken", "joined", "broken image", "no end mark"]
)
def test_broken_tars_lose_what_is_broken_and_say_so(tmp_path: Path, damage: str) -> None:
    """What is in front of the damage is used, and what is lost is named; a tar that merely lacks its end mark is
    whole."""
    tar = write_tar(
        tmp_path / "t.tar",
        [(f"{i}.png", CONTENTS[i] if (i, damage) != (1, "broken image") else b"hello") for i in range(4)],
    )
    whole = tar.read_bytes()
    with tarfile.open(tar) as archive:
        infos = archive.getmembers()
    if damage == "member cut":
        tar.write_bytes(whole[: infos[3].offset_data + 100])
    elif damage == "header cut":
        tar.write_bytes(whole[: infos[3].offset + 100])
    elif damage == "header broken":
        tar.write_bytes(whole[: infos[2].offset] + b"x" * 512 + whole[infos[2].offset + 512 :])
    elif damage == "joined":
        tar.write_bytes(whole + whole)
    elif damage == "no end mark":
        tar.write_bytes(whole[: infos[3].offset_data + -(-infos[3].size // 512) * 512])
    found = scan(tmp_path)
    kept = {"member cut": 3, "header cut": 3, "header broken": 2, "joined": 4, "broken image": 3, "no end mark": 4}[
        damage
    ]
    assert len(found.files) == kept
    assert all(f.path.read_bytes() in CONTENTS for f in found.files)
    if damage == "no end mark":
        assert not found.skipped
    else:
        assert str(tar) in found.skipped[0][0]
        reason = {
            "member cut": "",
            "header cut": "broken at byte",
            "header broken": "broken at byte",
            "joined": "follows its end mark",
            "broken image": "not an image",
        }[damage]
        assert reason in found.skipped[0][1]
        assert all("\n" not in text for pair in found.skipped for text in pair)


def test_one_bad_tar_among_good_ones(tmp_path: Path) -> None:
    """A file that is no tar is skipped and named; alone it is an error."""
    write_tar(tmp_path / "a.tar", [("0.png", CONTENTS[0])])
    (tmp_path / "b.tar").write_bytes(b"hello" * 500)
    found = scan(tmp_path)
    assert len(found.files) == 1
    assert found.skipped[0][0] == str(tmp_path / "b.tar")
    with pytest.raises(vw.DataError, match=r"^[^\n]*b\.tar is no tar file[^\n]*$"):
        scan(tmp_path / "b.tar")


def test_images_beside_tars_do_not_hide_them(tmp_path: Path) -> None:
    """All images of a folder count, whatever they lie in; a file without any is named."""
    write_tar(tmp_path / "a.tar", [("0.png", CONTENTS[0])])
    (tmp_path / "b.png").write_bytes(CONTENTS[1])
    (tmp_path / "broken.tar").write_bytes(b"no tar")
    write_tar(tmp_path / "texts.tar", [("0.txt", b"a dog")])
    found = scan(tmp_path)
    assert [str(f.path) for f in found.files] == [str(tmp_path / "b.png"), f"{tmp_path}/a.tar/0.png"]
    assert [name for name, _ in found.skipped] == [str(tmp_path / "broken.tar")]


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz"])
def test_compressed_tars_are_refused(tmp_path: Path, suffix: str) -> None:
    """In one line that says why and what to do; as a file, by wildcard and in a folder."""
    packed = tmp_path / f"a{suffix}"
    packed.write_bytes(gzip.compress(write_tar(tmp_path / "a.bin", [("0.png", CONTENTS[0])]).read_bytes()))
    for source in (packed, tmp_path / f"*{suffix}", tmp_path):
        with pytest.raises(vw.DataError, match=r"^[^\n]*compressed[^\n]*unpack it[^\n]*$"):
            scan(source)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash to compare with")
@pytest.mark.parametrize(
    "text",
    ["a{000..012}.tar", "{a,b}/{1..3}.tar", "{9..11}", "{011..9}", "x{a,,c}", "plain", "{1}", "{}", "a{3..1}b{x,y}"],
)
def test_braces_are_those_of_the_shell(text: str) -> None:
    """Ranges with and without leading zeros, downwards, words and their products expand as bash expands them."""
    theirs = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {text}"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert expand_braces(text) == theirs


@pytest.mark.parametrize(
    "source", ["none.tar", "{a,b}.tar", "x/*.tar", "dataset:nowhere", "dataset:nowhere:train", "stream:nowhere"]
)
def test_missing_sources_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """A tar or a data set that is not there is a DataError in one line that says so."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(vw.DataError, match=r"^[^\n]*(does not exist|cannot be streamed)[^\n]*$"):
        open_stream(source, 0.1) if source.startswith("stream:") else scan(source)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hf:a/b", ("a/b", "", "", "")),
        ("hf:a/b.c-d:train", ("a/b.c-d", "", "train", "")),
        ("hf:a/b/small:test:picture", ("a/b", "small", "test", "picture")),
        ("hf:a/b::picture", ("a/b", "", "", "picture")),
    ],
)
def test_names_of_data_sets(source: str, expected: tuple[str, ...]) -> None:
    """Owner, name, configuration, split and column are told apart."""
    name = dataset_name(source)
    assert (name.path, name.config, name.split, name.column) == expected


@pytest.mark.parametrize("source", ["hf:", "hf:a", "hf:a/b/c/d", "hf:a/b:c:d:e", "hf:a/b c"])
def test_what_is_no_data_set(source: str) -> None:
    """Anything else is refused in one line that shows the forms."""
    with pytest.raises(vw.DataError, match=r"^[^\n]*is no data set[^\n]*OWNER/NAME[^\n]*$"):
        scan(source)


@pytest.mark.parametrize("prefix", ["", "stream:"])
def test_the_hub_out_of_reach(prefix: str) -> None:
    """Without a network, a data set of the hub is a DataError in one line that names it and the remedy."""
    with pytest.raises(
        vw.DataError, match=r"^data set hf:nobody/nothing cannot be opened: [^\n]*HF_HUB_OFFLINE[^\n]*$"
    ):
        open_stream("stream:hf:nobody/nothing", 0.1) if prefix else scan("hf:nobody/nothing")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, sources: dict[str, str]) -> None:
    """A data set needs an extra, which the error names; folders and tars do not."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(vw.MissingExtraError, match=r"vaeworks\[datasets\]"):
        scan(sources["saved"])
    assert len(scan(sources["tars"]).files) == COUNT
    lines = "import sys, vaeworks.data as d\nassert not {'datasets', 'pyarrow', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", lines], check=True)


def test_columns_and_splits_are_chosen_by_name(tmp_path: Path) -> None:
    """The only column of images is found; several, none, an unknown one or an unknown split are a line that lists what
    there is."""
    image, text = datasets.Image(), datasets.Value("string")
    cells = [{"bytes": c, "path": None} for c in CONTENTS[:3]]

    def saved(name: str, columns: dict, features: dict) -> str:
        datasets.DatasetDict(
            {"a": datasets.Dataset.from_dict(columns, features=datasets.Features(features))}
        ).save_to_disk(tmp_path / name)
        return f"dataset:{tmp_path / name}"

    two = saved("two", {"x": cells, "mask": cells[::-1]}, {"x": image, "mask": image})
    none = saved("none", {"words": ["a", "b"]}, {"words": text})
    plain = saved("plain", {"words": ["a"] * 3, "jpg": CONTENTS[:3]}, {"words": text, "jpg": datasets.Value("binary")})
    split = tmp_path / "three"
    table = datasets.Dataset.from_dict({"x": cells}, features=datasets.Features({"x": image}))
    datasets.DatasetDict({"b": table, "c": table}).save_to_disk(split)

    assert [f.path.read_bytes() for f in scan(f"{two}:a:mask").files] == CONTENTS[2::-1]
    assert [f.path.read_bytes() for f in scan(f"{two}::x").files] == CONTENTS[:3]
    assert [f.path.read_bytes() for f in scan(plain).files] == CONTENTS[:3]
    assert len(scan(f"dataset:{split}:c").files) == 3
    for source, message in (
        (two, rf"several columns of images, x, mask; choose one: {two}:a:x"),
        (none, "no column of images; its columns are words"),
        (f"{none}:a:words", "column 'words' of data set .* holds no images; its columns are words"),
        (f"{two}:z", "no split 'z'; it has a"),
        (str(split), f"has the splits b, c; choose one: dataset:{split}:b"),
    ):
        with pytest.raises(vw.DataError, match=message):
            scan(source)


def test_rows_that_cannot_be_used_are_skipped_and_named(tmp_path: Path) -> None:
    """Empty cells, text and small images are listed with their row."""
    cells = [None, CONTENTS[0], b"hello", png(0, 24, 7), CONTENTS[1]]
    features = datasets.Features({"image": datasets.Image()})
    table = datasets.Dataset.from_dict(
        {"image": [c and {"bytes": c, "path": "x.png"} for c in cells]}, features=features
    )
    table.save_to_disk(tmp_path / "set")
    found = scan(tmp_path / "set", min_side=8)
    assert [f.path.read_bytes() for f in found.files] == CONTENTS[:2]
    rows = {name.removeprefix(f"dataset:{tmp_path / 'set'}:train"): reason for name, reason in found.skipped}
    assert rows == {"#0": "no image in this row", "#2": "not an image", "#3": "24x7 pixels, smaller than 8"}


def test_rows_that_are_files(sources: dict[str, str], tmp_path: Path) -> None:
    """A folder of images as a data set has paths in its rows: the files are read, and one that is gone is named when it
    is needed."""
    shutil.copytree(sources["folder"], tmp_path / "set")
    found = scan(f"dataset:{tmp_path / 'set'}")
    assert [f.digest for f in found.files] == DIGESTS
    (tmp_path / "set" / "007.png").unlink()
    with pytest.raises(
        vw.DataError, match=rf"set:train#7 could be read .* now: no file {tmp_path / 'set' / '007.png'}"
    ):
        everything(batches(Crops(found.files, CONFIG, 0), 0, COUNT, 1, 0))


@pytest.mark.parametrize("address", ["hf://datasets/a/b@main/{}.png", "zip://{}.png::hf://datasets/a/b@main/x.zip"])
def test_images_behind_addresses(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """A cell with an address of the hub, as its streams have, is fetched through fsspec; one without a file is no
    image."""
    import fsspec

    def fetch(asked: str, mode: str) -> io.BytesIO:
        if asked != address.format("a"):
            raise FileNotFoundError(asked)
        return io.BytesIO(CONTENTS[0])

    monkeypatch.setattr(fsspec, "open", fetch)
    assert encoded({"bytes": None, "path": address.format("a")}, Reach(hub=True)) == CONTENTS[0]
    with pytest.raises(vw.DataError, match=rf"^no file {re.escape(address.format('b'))}$"):
        encoded({"bytes": None, "path": address.format("b")}, Reach(hub=True))
    with pytest.raises(vw.DataError, match="it is not opened"):
        encoded({"bytes": None, "path": address.format("a")}, Reach((Path("/"),)))


# data-parallel processes, and workers that die


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("kind", ["set", "stream"])
def test_processes_together_see_what_one_sees(
    sources: dict[str, str], kind: str, world: int, small_blocks: None
) -> None:
    """Each global batch is the concatenation of the processes' parts, contiguous and in order; a smaller last batch is
    left out by all."""

    def crops() -> Crops | StreamedCrops:
        images = scan(sources["folder"]) if kind == "set" else open_stream(f"stream:{sources['parquet']}", FRACTION)
        return training_crops(images, CONFIG, 3)

    whole = list(batches(crops(), 5, 50, 8, 0))
    parts = [list(batches(crops(), 5, 50, 8, 0, rank=rank, world=world)) for rank in range(world)]
    assert len(whole) == 5
    for (images, counters), *shares in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([share[0] for share in shares]), images)
        assert [k for share in shares for k in share[1]] == counters
        assert all(len(share[1]) == 8 // world for share in shares)


@pytest.mark.parametrize("kind", ["set", "stream"])
@pytest.mark.parametrize("victims", [1, 2])
def test_killed_workers_change_nothing(sources: dict[str, str], kind: str, victims: int, small_blocks: None) -> None:
    """Workers killed again and again at random moments are replaced, which is said; every batch is that of an
    undisturbed stream."""

    def crops() -> Crops | StreamedCrops:
        images = scan(sources["folder"]) if kind == "set" else open_stream(f"stream:{sources['parquet']}", FRACTION)
        return training_crops(images, CONFIG, 3)

    undisturbed = list(batches(crops(), 3, 123, 4, 0))
    told: list[str] = []
    chance = random.Random(0)
    found = []
    for number, result in enumerate(batches(crops(), 3, 123, 4, 2, say=told.append)):
        found.append(result)
        if number in (0, 7, 8, 20):
            time.sleep(chance.random() * 0.05)
            for worker in chance.sample(living := multiprocessing.active_children(), min(victims, len(living))):
                os.kill(worker.pid, signal.SIGKILL)
            end = time.monotonic() + 60  # the pool ends the others when it has found the death: no kill is overlooked
            while any(worker.is_alive() for worker in living) and time.monotonic() < end:
                time.sleep(0.001)
    assert len(found) == len(undisturbed) == 30
    assert all(same(a, b) for a, b in zip(found, undisturbed, strict=True))
    assert len(told) == 4
    assert all("died" in message and "image " in message and "\n" not in message for message in told)
    assert multiprocessing.active_children() == []


def test_workers_killed_at_the_end(sources: dict[str, str]) -> None:
    """A worker that dies while it waits for work holds the lock of the queue; the stream ends all the same, exhausted
    or left early."""
    images = scan(sources["folder"])
    for victim, leave in itertools.product((0, 1), (True, False)):
        stream = batches(Crops(images.files, CONFIG, 1), 0, 8, 4, 2)
        next(stream)
        next(stream)
        time.sleep(0.05)  # now both wait
        with contextlib.suppress(IndexError):  # on one core there is one worker
            os.kill(multiprocessing.active_children()[victim].pid, signal.SIGKILL)
        if leave:
            stream.close()
        assert list(stream) == []
        assert multiprocessing.active_children() == []


def test_batches_reach_page_locked_memory(sources: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a GPU, every batch is pinned once, in order, and a killed worker is replaced all the same."""
    images = scan(sources["folder"])
    undisturbed = list(batches(Crops(images.files, CONFIG, 1), 0, 80, 4, 0))
    pinned: list[int] = []

    def pin_memory(self: Tensor) -> Tensor:
        pinned.append(1)
        return self.clone()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    for workers in (0, 2):
        pinned.clear()
        found = []
        for result in batches(Crops(images.files, CONFIG, 1), 0, 80, 4, workers):
            found.append(result)
            if workers and len(found) == 5:
                os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        assert all(same(a, b) for a, b in zip(found, undisturbed, strict=True))
        assert 20 <= len(pinned) <= 24
    assert multiprocessing.active_children() == []


class Deadly(Crops):
    """Kills the process that loads crop 17."""

    def __getitem__(self, counter: int) -> tuple[Tensor, int]:
        if counter == 17:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(counter)


def test_workers_that_keep_dying_end_the_stream(sources: dict[str, str]) -> None:
    """What always kills its worker is given up after three new starts; everything before it is delivered, and the error
    says what to do."""
    told: list[str] = []
    found: list = []
    with pytest.raises(
        vw.DataError, match=r"^[^\n]*died 4 times in a row at image 16[^\n]*memory[^\n]*data\.workers \(0[^\n]*$"
    ):
        gather(batches(Deadly(scan(sources["folder"]).files, CONFIG, 0), 0, 40, 4, 2, say=told.append), found)
    assert [k for _, counters in found for k in counters] == list(range(16))
    assert 3 <= len(told) <= 7  # three at the batch itself, others while it is prepared beside batches before it
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("kind", ["folder", "tars", "saved"])
def test_an_image_that_breaks_in_mid_epoch(sources: dict[str, str], tmp_path: Path, kind: str, workers: int) -> None:
    """The error names the image and comes exactly in its batch's place: all batches before it are delivered, in order
    and unchanged."""
    shutil.copytree(sources[kind], tmp_path / "copy")
    images = scan(tmp_path / "copy")
    expected = list(batches(Crops(images.files, CONFIG, 1), 0, 20, 4, 0))
    broken = images.files[Crops(images.files, CONFIG, 1).order[14]]
    for path in (tmp_path / "copy").rglob("*"):  # every copy of its bytes, wherever they are
        if path.is_file() and (at := path.read_bytes().find(broken.path.read_bytes())) >= 0:
            with path.open("r+b") as file:
                file.seek(at)
                file.write(b"broken")
            break
    found: list = []
    with pytest.raises(vw.DataError, match="could be read when the run started and cannot now: not an image") as caught:
        gather(batches(Crops(images.files, CONFIG, 1), 0, 20, 4, workers), found)
    assert str(broken.path) in str(caught.value)
    assert len(found) == 3
    assert all(same(a, b) for a, b in zip(found, expected, strict=False))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes through /proc")
def test_workers_end_with_a_killed_trainer(sources: dict[str, str]) -> None:
    """SIGKILL of the process that trains leaves no worker behind."""
    lines = f"""
        import multiprocessing, time
        from vaeworks.config import DataConfig
        from vaeworks.data import Crops, batches, scan
        stream = batches(Crops(scan({sources["folder"]!r}).files, DataConfig(size=8), 0), 0, 10**6, 4, 2)
        next(stream)
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
        time.sleep(60)
    """
    trainer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(lines)], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout is not None
    workers = [int(pid) for pid in trainer.stdout.readline().split()]
    trainer.kill()
    trainer.communicate()
    assert workers
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in workers)


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


# streams


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 5, so that an epoch of these small data sets has several."""
    monkeypatch.setattr(streamed_crops, "BLOCK", 5)


def shuffled(items: list, seed: int, stream: int, counter: int) -> list:
    words = random_words(seed, stream, counter, len(items)).tolist()
    return [item for _, item in sorted(zip(words, items, strict=True), key=lambda pair: pair[0])]


def reference(
    shards: list[list[bytes]], seed: int, epochs: int, size: int = 8, fraction: float = FRACTION, block: int = 5
) -> list[Tensor]:
    """The stream by its definition, with all shards in memory."""
    crops: list[Tensor] = []
    for epoch in range(epochs):
        rows = [row for shard in shuffled(shards, seed, SHARDS, epoch) for row in shard]
        rows = [row for row in rows if not is_held_out(hashlib.sha256(row).hexdigest(), fraction)]
        for number, first in enumerate(range(0, len(rows), block)):
            for row in shuffled(rows[first : first + block], seed, BLOCKS, epoch * 2**32 + number):
                crops.append(to_uint8(random_crop(open_image(row), size, 0.5, True, seed, len(crops))))
    return crops


@pytest.fixture(scope="module")
def streams(sources: dict[str, str]) -> dict[str, str]:
    names = ("tars", "braces", "parquet", "named parquet", "saved", "saved splits", "folder")
    return {name: f"stream:{sources[name]}" for name in names}


@pytest.mark.parametrize("kind", ["tars", "braces", "parquet", "named parquet", "saved", "saved splits", "folder"])
@pytest.mark.parametrize("workers", [0, 2])
def test_streams_are_what_their_definition_says(
    streams: dict[str, str], kind: str, workers: int, small_blocks: None
) -> None:
    """Over three epochs: shards in an order from (seed, epoch), blocks shuffled by (seed, epoch, block), crops keyed by
    the counter."""
    sizes = SIZES if kind in ("tars", "braces", "parquet", "named parquet") else (COUNT,)
    expected = reference(in_shards(CONTENTS, sizes), 7, 3)
    assert len(expected) == 3 * EPOCH
    crops = training_crops(open_stream(streams[kind], FRACTION), CONFIG, 7)
    images, counters = everything(batches(crops, 0, 3 * EPOCH, 3, workers))
    assert counters == list(range(3 * EPOCH))
    assert torch.equal(images, torch.stack(expected))
    assert (crops.rows_read >= 3 * COUNT, crops.rows_skipped) == (True, 0)


def test_epochs_of_a_stream_take_every_training_image_once(streams: dict[str, str], small_blocks: None) -> None:
    """Whole images as crops: every epoch is a permutation of the training side of the folder, and the epochs differ."""
    config = dataclasses.replace(CONFIG, size=20, min_scale=1.0, flip=False)
    wanted = sorted(digest for digest in DIGESTS if not is_held_out(digest, FRACTION))
    middle = [
        to_uint8(open_image(content))[0, :, 12].numpy().tobytes() for content in CONTENTS
    ]  # a column that every crop has
    known = dict(zip(middle, DIGESTS, strict=True))
    images, _ = everything(
        batches(training_crops(open_stream(streams["parquet"], FRACTION), config, 0), 0, 3 * EPOCH, EPOCH, 0)
    )
    seen = [
        next(known[key] for x in range(20) if (key := image[0, :, x].numpy().tobytes()) in known) for image in images
    ]
    orders = [tuple(seen[first : first + EPOCH]) for first in (0, EPOCH, 2 * EPOCH)]
    assert all(sorted(order) == wanted for order in orders)
    assert len(set(orders)) == 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=12)
@given(start=st.integers(0, 60), batch=st.integers(1, 9))
def test_streams_start_anywhere(streams: dict[str, str], small_blocks: None, start: int, batch: int) -> None:
    """From any counter on, at any batch size, the stream is the tail of the whole one."""
    expected = torch.stack(reference(in_shards(CONTENTS, SIZES), 1, 6))
    images, counters = everything(
        batches(training_crops(open_stream(streams["parquet"], FRACTION), CONFIG, 1), start, start + 30, batch, 0)
    )
    assert counters == list(range(start, start + 30 - 30 % batch))
    assert torch.equal(images, expected[start : start + len(images)])


def test_bookmarks_save_reading_and_change_nothing(streams: dict[str, str], tmp_path: Path, small_blocks: None) -> None:
    """A continued stream with bookmarks gives the same crops from every counter and reads a block, not all before
    it."""
    path = tmp_path / "stream.jsonl"
    whole, _ = everything(
        batches(training_crops(open_stream(streams["tars"], FRACTION), CONFIG, 1, bookmarks=path), 0, 96, 4, 0)
    )
    for start in range(90):
        crops = training_crops(open_stream(streams["tars"], FRACTION), CONFIG, 1, bookmarks=path)
        images, _ = everything(batches(crops, start, start + 2, 2, 0))
        assert torch.equal(images, whole[start : start + 2])
        assert crops.rows_read <= 3 * COUNT
    far = training_crops(open_stream(streams["tars"], FRACTION), CONFIG, 1)
    everything(batches(far, 5 * EPOCH, 5 * EPOCH + 2, 2, 0))
    assert far.rows_read > 5 * COUNT


@pytest.mark.parametrize("change", ["torn", "seed", "size", "fraction", "judged", "source", "unwritable"])
def test_bookmarks_of_something_else_count_for_nothing(
    streams: dict[str, str], tmp_path: Path, change: str, small_blocks: None
) -> None:
    """Half a line, or lines of another seed, size, split or source, mislead nobody; nor does a place where none can be
    kept."""
    path = tmp_path / "stream.jsonl"
    everything(
        batches(training_crops(open_stream(streams["parquet"], FRACTION), CONFIG, 1, bookmarks=path), 0, 64, 4, 0)
    )
    lines = path.read_text().split("\n")
    assert len(lines) > 10
    if change == "torn":
        path.write_text("\n".join(lines)[:-20])
    if change == "unwritable":
        path = tmp_path / "none" / "stream.jsonl"
    seed = 2 if change == "seed" else 1
    config = dataclasses.replace(CONFIG, size=20 if change == "size" else 8)
    fraction = 0.6 if change == "fraction" else FRACTION
    judged = frozenset(DIGESTS[:1]) if change == "judged" else frozenset()
    source = streams["saved" if change == "source" else "parquet"]

    def crops(bookmarks: Path | None) -> Tensor:
        return everything(
            batches(
                training_crops(open_stream(source, fraction, judged), config, seed, bookmarks=bookmarks), 40, 80, 4, 0
            )
        )[0]

    assert torch.equal(crops(path), crops(None))
    assert torch.equal(crops(path), crops(None))  # what was written now is right, behind half a line too


def test_what_a_stream_holds_out(streams: dict[str, str], sources: dict[str, str]) -> None:
    """Its validation images are the first that a folder would hold out, no image twice; without a fraction there are
    none."""
    stream = open_stream(streams["parquet"], FRACTION)
    _, val = scan(sources["folder"]).split(FRACTION)
    assert [f.digest for f in stream.held_out(100, 8).files] == [f.digest for f in val.files]
    assert [f.digest for f in stream.held_out(3, 8).files] == [f.digest for f in val.files[:3]]
    assert all(f.path.read_bytes() in CONTENTS for f in stream.held_out(3, 8).files)
    assert stream.held_out(3, 21).files == ()
    assert open_stream(streams["parquet"], 0.0).held_out(3, 8).files == ()
    assert [f.digest for f in first_images(streams["parquet"], 4, 8).files] == [
        f.digest for f in scan(sources["folder"]).files[:4]
    ]


def test_streams_skip_and_count(tmp_path: Path, small_blocks: None) -> None:
    """Empty cells, text and small images are left out as if they were not there, and are counted and named."""
    odd: list[bytes | None] = [None, b"hello", png(90, 24, 7), b""]
    mixed = [*CONTENTS[:4], odd[0], odd[1], *CONTENTS[4:9], odd[2], odd[3]]
    source = write_parquet(tmp_path / "set", [mixed, CONTENTS[9:]])
    told: list[str] = []
    crops = training_crops(open_stream(f"stream:{source}", 0.0), CONFIG, 1)
    images, _ = everything(batches(crops, 0, 46, 2, 0, say=told.append))
    assert torch.equal(images, torch.stack(reference([CONTENTS[:9], CONTENTS[9:]], 1, 2, fraction=0.0)))
    assert crops.rows_skipped >= 8
    assert len(told) == 5
    reasons = {message.split(": ", 1)[1].split(";")[0] for message in told}
    assert reasons == {"no image in this row", "not an image", "24x7 pixels, smaller than 8"}
    assert f"dataset:{source}:train/0#4" in " ".join(told)


@pytest.mark.parametrize("broken", [(6, 13), (2, 8, 11, 22), tuple(range(3, 9))], ids=str)
@pytest.mark.parametrize("workers", [0, 2])
def test_broken_pixels_give_way_to_the_next_of_their_block(
    tmp_path: Path, workers: int, broken: tuple[int, ...], small_blocks: None
) -> None:
    """An image with a good header and broken pixels is replaced by the next one in its block, for all processes alike;
    other crops stay.

    An epoch's last block is without it.
    """
    contents = [content[:-300] if i in broken else content for i, content in enumerate(CONTENTS)]
    source = write_parquet(tmp_path / "set", in_shards(contents, SIZES))

    def crops() -> StreamedCrops:
        found = training_crops(open_stream(f"stream:{source}", 0.0), CONFIG, 1)
        assert isinstance(found, StreamedCrops)
        return found

    expected: list[Tensor] = []
    for epoch in range(3):
        rows = [row for shard in shuffled(in_shards(contents, SIZES), 1, SHARDS, epoch) for row in shard]
        for number, first in enumerate(range(0, len(rows), 5)):
            part = rows[first : first + 5]
            block = shuffled(
                part if len(part) == 5 else [row for row in part if row in CONTENTS], 1, BLOCKS, epoch * 2**32 + number
            )
            for place in range(len(block)):
                row = next(r for r in block[place:] + block[:place] if r in CONTENTS)
                expected.append(to_uint8(random_crop(open_image(row), 8, 0.5, True, 1, len(expected))))
    told: list[str] = []
    stream = crops()
    stop = len(expected) // 2 * 2
    images, _ = everything(batches(stream, 0, stop, 2, workers, say=told.append))
    assert torch.equal(images, torch.stack(expected[:stop]))
    assert stream.rows_skipped >= 3 * len(broken) - 1
    places = {
        f"{shard}#{i - sum(SIZES[:shard])}"
        for shard in range(3)
        for i in range(sum(SIZES[:shard]), sum(SIZES[: shard + 1]))
        if i in broken
    }
    assert {message.split(": ")[0] for message in told} <= {
        f"skipped dataset:{source}:train/{place}" for place in places
    }
    shares = [everything(batches(crops(), 0, stop, 2, workers, rank=rank, world=2))[0] for rank in (0, 1)]
    assert torch.equal(torch.stack(shares, 1).flatten(0, 1), images)


def test_a_stream_of_nothing_usable(tmp_path: Path, small_blocks: None) -> None:
    """All held out, all broken in their headers, or all in their pixels: an error in one line instead of reading for
    ever."""
    cut = [content[:-300] for content in CONTENTS]
    for name, contents, fraction, message in (
        ("held", CONTENTS[:5], 0.9999999, "no image of .* can be trained on"),
        ("text", [b"hello"] * 5, 0.0, "no image of .* can be trained on"),
        ("cut", cut, 0.0, "none of the 5 images around .* can be read"),
        ("few cut", cut[:4], 0.0, "no image of .* can be trained on"),
    ):
        source = write_parquet(tmp_path / name, [contents])
        with pytest.raises(vw.DataError, match=message):
            next(batches(training_crops(open_stream(f"stream:{source}", fraction), CONFIG, 1), 0, 8, 4, 0))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_cannot_be_read_on(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch, small_blocks: None
) -> None:
    """The error names the place and comes after all batches before it: nothing is passed over in silence."""
    source = write_parquet(tmp_path / "set", in_shards(CONTENTS, SIZES))
    stream = open_stream(f"stream:{source}", 0.0)
    order = shuffled(list(range(3)), 1, SHARDS, 0)
    expected = torch.stack(reference(in_shards(CONTENTS, SIZES), 1, 1, fraction=0.0))
    last = source / "data" / f"train-{order[2]:05}-of-00003.parquet"
    last.write_bytes(last.read_bytes()[:200])
    found: list = []
    with pytest.raises(vw.DataError, match=rf"^[^\n]*:train/{order[2]}#0 and what follows cannot be read: [^\n]*$"):
        gather(batches(training_crops(stream, CONFIG, 1), 0, 40, 1, workers), found)
    whole_blocks = sum(SIZES[shard] for shard in order[:2]) // 5 * 5
    assert torch.equal(torch.cat([images for images, _ in found]), expected[:whole_blocks])


def test_a_stream_that_is_left_early_stops_reading(streams: dict[str, str], small_blocks: None) -> None:
    """Neither threads nor processes stay behind, and a stream may be begun again."""
    crops = training_crops(open_stream(streams["parquet"], FRACTION), CONFIG, 1)
    for workers in (0, 2):
        stream = batches(crops, 0, 10**6, 4, workers)
        first = next(stream)
        stream.close()
        assert multiprocessing.active_children() == []
        assert same(first, next(batches(crops, 0, 4, 4, 0)))


def test_streams_are_pickled_by_name(streams: dict[str, str], small_blocks: None) -> None:
    """Sent to another process, a stream is opened again there."""
    stream = open_stream(streams["parquet"], FRACTION)
    again = pickle.loads(pickle.dumps(stream))
    assert again.digest == stream.digest
    assert same(*(next(batches(training_crops(s, CONFIG, 1), 8, 12, 4, 0)) for s in (stream, again)))


def test_streams_are_for_training_only(streams: dict[str, str]) -> None:
    """Where every image must be seen, a stream is refused in one line."""
    with pytest.raises(vw.DataError, match=r"^[^\n]*which only training can; leave 'stream:' away$"):
        scan(streams["parquet"])


# runs

TRAINING = TrainConfig(
    model=TINY,
    data=DataConfig(size=8, val_fraction=FRACTION, val_images=3),
)


def claimed(
    source: str, out: Path, config: TrainConfig = TRAINING
) -> tuple[ImageSet | ImageStream, ImageSet, list[str]]:
    out.mkdir(exist_ok=True)
    images, val, told = split_data(config, source, out)
    claim_folder(out, RunRecord("custom", source, config), images, val)
    return images, val, told


@pytest.mark.parametrize("kind", ["folder", "tars", "saved"])
def test_a_run_writes_down_its_images(sources: dict[str, str], tmp_path: Path, kind: str) -> None:
    """data.json names every image by where it is, with the keys that earlier runs have, and a changed source is
    noticed."""
    images, val, told = claimed(sources[kind], tmp_path / "run")
    values = json.loads((tmp_path / "run" / "data.json").read_text())
    assert [f["path"] for f in values["train"] + values["val"]] == [str(f.path) for f in (*images.files, *val.files)]
    assert all(set(f) == {"path", "digest", "width", "height"} for f in values["train"] + values["val"])
    assert told == [f"{EPOCH} training images, {COUNT - EPOCH} held out by content hash"]
    seen = trained_on(tmp_path / "run")
    assert seen == TrainedOn.of(f.digest for f in images.files)
    assert all(f.digest in seen for f in images.files) and not any(f.digest in seen for f in val.files)
    split_data(TRAINING, sources[kind], tmp_path / "run")
    with pytest.raises(vw.DataError, match="not those that the run started with"):
        split_data(
            TRAINING,
            str(write_tar(tmp_path / "x.tar", [(f"{i}.png", c) for i, c in enumerate(CONTENTS[:9])])),
            tmp_path / "run",
        )


def test_a_streamed_run_writes_down_what_it_can(
    streams: dict[str, str], sources: dict[str, str], tmp_path: Path
) -> None:
    """The validated images and the rule of the split; all that it does not hold out counts as trained on; a changed
    source is noticed."""
    images, val, told = claimed(streams["parquet"], tmp_path / "run")
    assert isinstance(images, ImageStream)
    values = json.loads((tmp_path / "run" / "data.json").read_text())
    assert values["train"] == []
    assert values["streamed"] == {"shards": 3, "val_fraction": FRACTION}
    assert [f["digest"] for f in values["val"]] == [f.digest for f in val.files]
    assert len(val.files) == 3
    assert "a share of 0.3 is held out by content hash, and its first 3 validated" in told[0]
    seen = trained_on(tmp_path / "run")
    everywhere = scan(sources["folder"])
    assert {f.digest for f in everywhere.files if f.digest in seen} == {
        f.digest for f in everywhere.split(FRACTION)[0].files
    }
    split_data(
        dataclasses.replace(TRAINING, data=dataclasses.replace(TRAINING.data, val_images=2)),
        streams["parquet"],
        tmp_path / "run",
    )
    with pytest.raises(vw.DataError, match="not those that the run started with"):
        split_data(TRAINING, streams["saved"], tmp_path / "run")


@pytest.mark.parametrize("val", ["tars", "stream"])
def test_a_stream_with_validation_images_of_its_own(
    streams: dict[str, str], sources: dict[str, str], tmp_path: Path, val: str, small_blocks
) -> None:
    """Validation images of another source leave the training stream, wherever in it they are, and nothing else does."""
    tar = write_tar(tmp_path / "val.tar", [("a.png", CONTENTS[3]), ("b.png", CONTENTS[20])])
    config = dataclasses.replace(
        TRAINING, data=dataclasses.replace(TRAINING.data, val=str(tar) if val == "tars" else f"stream:{tar}")
    )
    stream, judged, _ = claimed(streams["parquet"], tmp_path / "run", config)
    left = [[c for c in shard if c not in (CONTENTS[3], CONTENTS[20])] for shard in in_shards(CONTENTS, SIZES)]
    images, _ = everything(batches(training_crops(stream, CONFIG, 4), 0, 42, 2, 0))
    assert torch.equal(images, torch.stack(reference(left, 4, 2, fraction=0.0)))
    assert [f.path.read_bytes() for f in judged.files] == [CONTENTS[3], CONTENTS[20]]
    seen = trained_on(tmp_path / "run")
    assert [digest in seen for digest in DIGESTS].count(False) == 2


@pytest.mark.parametrize("kind", ["tars", "stream"])
def test_runs_on_other_sources_are_continued_exactly(
    sources: dict[str, str], streams: dict[str, str], tmp_path: Path, kind: str, small_blocks
) -> None:
    """A run on tars or on a stream, stopped in mid-epoch and continued with other workers, ends with the weights of one
    that was not."""
    source = streams["parquet"] if kind == "stream" else sources["tars"]
    config = dataclasses.replace(
        TRAINING,
        images=80,
        batch=4,
        precision="fp32",
        val_every=40,
        save_every=1000,
        log_every=40,
        stats_images=8,
        optimizer=OptimizerConfig(lr=1e-3, warmup_images=8, final_lr=1.0),
        data=dataclasses.replace(TRAINING.data, workers=0),
    )
    train(config, source, tmp_path / "whole", show=False)
    train(dataclasses.replace(config, images=44), source, tmp_path / "parts", show=False)
    train(
        dataclasses.replace(config, data=dataclasses.replace(config.data, workers=2)),
        source,
        tmp_path / "parts",
        resume=True,
        show=False,
    )
    whole, parts = (vw.load(tmp_path / name).state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    if kind == "stream":
        assert len((tmp_path / "parts" / "stream.jsonl").read_text().split("\n")) > 10


@pytest.mark.parametrize("kind", ["tars", "saved"])
def test_images_that_are_no_files_are_judged_too(sources: dict[str, str], kind: str) -> None:
    """Figures and the gallery are those of the same images in a folder."""
    model = vw.build(TRAINING.model)
    results = {name: evaluate(model, scan(sources[name]).files[:4], limit=None) for name in (kind, "folder")}
    assert [s.psnr for s in results[kind].scores] == [s.psnr for s in results["folder"].scores]
    assert results[kind].protocol == results["folder"].protocol
    crop = Crop(model.downsample_factor, limit=None)
    shots = [gallery(model, results[name], scan(sources[name]).files, crop) for name in (kind, "folder")]
    for here, there in zip(*shots, strict=True):
        assert torch.equal(here.recon, there.recon) and torch.equal(here.original, there.original)


def test_tars_named_by_braces_and_order() -> None:
    """What is no tar is left to other sources."""
    assert tar_files("a/folder") is None
    assert tar_files("photo.png") is None
