"""Which files are used, on which side of the split, in which order, cropped how: all of it fixed by content and
counters."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import multiprocessing
import os
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

import vaeworks as vw
from vaeworks.data import Crops, ImageFile, ImageSet, batches, photos, scan
from vaeworks.data.crops import random_crop
from vaeworks.images import open_image, to_uint8
from vaeworks.random_streams import (
    CROP,
    INIT,
    NOISE,
    ORDER,
    Order,
    latent_noise,
    random_seed,
    random_uniforms,
    random_words,
)

CONFIG = vw.DataConfig(size=8, min_scale=0.5)


def picture(seed: int, width: int = 24, height: int = 20) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def write_pictures(folder: Path, count: int, first: int = 0) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:03}.png" for i in range(first, first + count)]
    for i, path in enumerate(paths, first):
        picture(i).save(path)
    return paths


def names(images: ImageSet, root: Path) -> list[str]:
    return [f.path.relative_to(root).as_posix() for f in images.files]


def test_scan_finds_images_in_a_tree(tmp_path: Path) -> None:
    """Images of all subfolders and odd names are found in a fixed order with their facts; other and hidden files are
    not."""
    for name in ("b.png", "a/ß 猫 🐈.png", "a/deep/er/UPPER.PNG", "with space/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(len(name)).save(tmp_path / name)
    for name in ("notes.txt", "a/.hidden.png", "a/._b.png", "png", "labels.png.json"):
        (tmp_path / name).write_text("text")
    (tmp_path / "folder.png").mkdir()
    found = scan(tmp_path)
    assert names(found, tmp_path) == ["a/deep/er/UPPER.PNG", "a/ß 猫 🐈.png", "b.png", "with space/c.png"]
    assert found.skipped == ()
    for file in found.files:
        assert (file.width, file.height) == (24, 20)
        assert file.digest == hashlib.sha256(file.path.read_bytes()).hexdigest()


@pytest.mark.parametrize("folder", [".thumbnails", "a/.cache/x"])
def test_hidden_folders_are_ignored(tmp_path: Path, folder: str) -> None:
    """Thumbnails and caches that desktop programs keep in hidden folders are no training images."""
    write_pictures(tmp_path / folder, 2)
    picture(9).save(tmp_path / "seen.png")
    assert names(scan(tmp_path), tmp_path) == ["seen.png"]


def test_scan_of_one_file_and_of_a_name(tmp_path: Path) -> None:
    """One image file is a source too, and a source may be given as text."""
    (path,) = write_pictures(tmp_path, 1)
    assert scan(str(path)).files == scan(str(tmp_path)).files == scan(tmp_path).files
    assert scan(path).files[0].path == path


def test_scan_reports_sizes_upright(tmp_path: Path) -> None:
    """Width and height are those after EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(0, 24, 20).save(tmp_path / "turned.jpg", exif=exif)
    (file,) = scan(tmp_path).files
    assert (file.width, file.height) == (20, 24)


def test_broken_and_tiny_files_are_skipped_and_named(tmp_path: Path) -> None:
    """What cannot be used is listed with its path and a reason of one line, and does not stop the rest."""
    (good,) = write_pictures(tmp_path, 1)
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:500])
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty.webp").write_bytes(b"")
    picture(1, 24, 7).save(tmp_path / "tiny.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    found = scan(tmp_path, min_side=8)
    assert names(found, tmp_path) == ["000.png"]
    reasons = {Path(path).name: reason for path, reason in found.skipped}
    assert sorted(reasons) == ["cut.png", "empty.webp", "gone.png", "text.jpg", "tiny.png"]
    assert reasons["tiny.png"] == "24x7 pixels, smaller than 8"
    assert reasons["text.jpg"] == reasons["empty.webp"] == "not an image"
    assert "No such file" in reasons["gone.png"]
    assert all(reason and "\n" not in reason for reason in reasons.values())


def test_scan_accepts_the_smallest_allowed_side(tmp_path: Path) -> None:
    """min_side itself is large enough."""
    picture(0, 9, 8).save(tmp_path / "a.png")
    assert len(scan(tmp_path, min_side=8).files) == 1


@pytest.mark.parametrize("make", ["missing", "empty", "text", "broken"])
def test_sources_without_a_usable_image_are_refused(tmp_path: Path, make: str) -> None:
    """A missing, empty or wholly broken source is a DataError in one line that names it."""
    source = tmp_path / "source"
    if make != "missing":
        source.mkdir()
    if make == "text":
        (source / "a.txt").write_text("hello")
    if make == "broken":
        (source / "a.png").write_text("hello")
        (source / "b.png").write_text("hello")
    with pytest.raises(vw.DataError, match=r"^[^\n]*source[^\n]*$") as caught:
        scan(source)
    if make == "broken":
        assert "none of the 2" in str(caught.value)
        assert "a.png: not an image" in str(caught.value)


def test_scan_leaves_the_warnings_of_the_process_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files read at the same time in several threads do not silence the warnings of everything that runs later."""
    write_pictures(tmp_path, 2)
    second_entered, plain = threading.Event(), Image.open
    numbers = iter(range(2))

    def interleaved(source, **options):
        if next(numbers) == 0:
            second_entered.wait(0.5)  # the first to enter leaves first ...
        else:
            second_entered.set()
            time.sleep(0.2)  # ... and the second after it
        return plain(source, **options)

    monkeypatch.setattr(Image, "open", interleaved)
    with warnings.catch_warnings():
        before = list(warnings.filters)
        assert len(scan(tmp_path).files) == 2
        assert warnings.filters == before


def test_warnings_of_odd_metadata_skip_no_file(tmp_path: Path) -> None:
    """Where warnings are errors, what Pillow warns of is still read."""
    picture(0).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x09\x01\x0f")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="EXIF"), Image.open(tmp_path / "a.jpg") as image:
            image.getexif()
        assert len(scan(tmp_path).files) == 1


def test_scan_tells_its_progress(tmp_path: Path) -> None:
    """A progress bar is told how many files there are and sees each one."""
    write_pictures(tmp_path, 3)
    seen = []

    def progress(items, total):
        for item in items:
            seen.append(total)
            yield item

    assert len(scan(tmp_path, progress=progress).files) == 3
    assert seen == [3, 3, 3]


def sides(images: ImageSet, fraction: float) -> dict[str, str]:
    train, val = images.split(fraction)
    assert len(train.files) + len(val.files) == len(images.files)
    return {f.digest: side for side, part in (("train", train), ("val", val)) for f in part.files}


def test_split_is_by_content(tmp_path: Path) -> None:
    """Renaming files, moving them and adding others never changes a file's side."""
    paths = write_pictures(tmp_path, 40)
    before = sides(scan(tmp_path), 0.4)
    assert set(before.values()) == {"train", "val"}
    for i, path in enumerate(paths):
        (tmp_path / f"sub{i % 3}").mkdir(exist_ok=True)
        path.rename(tmp_path / f"sub{i % 3}" / f"{97 * i % 41}.png")
    write_pictures(tmp_path / "more", 20, first=40)
    after = sides(scan(tmp_path), 0.4)
    assert len(after) == 60
    assert {digest: after[digest] for digest in before} == before


def synthetic(count: int) -> ImageSet:
    return ImageSet(
        "x", tuple(ImageFile(Path(f"{i}"), hashlib.sha256(str(i).encode()).hexdigest(), 9, 9) for i in range(count))
    )


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.1, 0.5, 0.9])
def test_split_holds_the_fraction(fraction: float) -> None:
    """Of 10,000 contents the held-out share lies within 4 standard errors, and a larger fraction only adds to it."""
    images = synthetic(10_000)
    train, val = images.split(fraction)
    assert abs(len(val.files) - 10_000 * fraction) <= 4 * (10_000 * fraction * (1 - fraction)) ** 0.5
    assert set(val.files) <= set(images.split(fraction + 0.05)[1].files)
    assert not set(train.files) & set(val.files)


def test_duplicates_are_on_one_side(tmp_path: Path) -> None:
    """Copies of one file are all for training or all held out, so that no held-out image was trained on."""
    for i in range(12):
        for name in ("a", "z/b"):
            path = tmp_path / f"{name}{i}.png"
            path.parent.mkdir(exist_ok=True)
            picture(i).save(path)
    train, val = scan(tmp_path).split(0.5)
    assert len(train.files) % 2 == len(val.files) % 2 == 0
    assert not {f.digest for f in train.files} & {f.digest for f in val.files}
    assert train.files
    assert val.files


def test_photos_are_sixteen_readable_files() -> None:
    """There are 16 distinct photographs, 10 in colour and 6 gray, with sides as documented, on both sides of the
    split."""
    found = scan("photos")
    assert [f.path for f in found.files] == photos()
    assert found.skipped == ()
    assert len({f.digest for f in found.files}) == 16
    short = [min(f.width, f.height) for f in found.files]
    assert f"{min(short)} to {max(short)} pixels" in photos.__doc__
    arrays = [to_uint8(open_image(path).resize((32, 32))).int() for path in photos()]
    assert sum(bool((a[0] != a[1]).any() or (a[0] != a[2]).any()) for a in arrays) == 10
    assert all(part.files for part in found.split(0.25))


def test_real_folder(test_data: Path) -> None:
    """Every photograph of a real folder is readable, large enough and has one side of the split."""
    found = scan(test_data / "data" / "oxford-pets-cats", min_side=64)
    assert len(found.files) > 100
    assert not found.skipped
    assert set(sides(found, 0.2).values()) == {"train", "val"}


@given(length=st.integers(1, 60), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 10**6))
def test_every_epoch_is_a_permutation(length: int, seed: int, epoch: int) -> None:
    """Each run of `length` counters takes every file once."""
    order = Order(length, seed)
    assert sorted(order[epoch * length + i] for i in range(length)) == list(range(length))


def test_epochs_and_seeds_differ() -> None:
    """Neither two epochs nor two seeds have the same order."""
    orders = [tuple(Order(50, seed)[epoch * 50 + i] for i in range(50)) for seed in range(5) for epoch in range(5)]
    assert len(set(orders)) == 25


@given(length=st.integers(1, 20), counters=st.lists(st.integers(0, 200), min_size=1, max_size=40))
def test_random_access_equals_sequential(length: int, counters: list[int]) -> None:
    """Asking in any order, by one object or by fresh ones, gives what counting up gives."""
    order = Order(length, 3)
    sequence = [order[i] for i in range(201)]
    assert [order[k] for k in counters] == [sequence[k] for k in counters] == [Order(length, 3)[k] for k in counters]


def test_first_places_are_uniform() -> None:
    """Over 5,000 epochs every one of 5 files comes first about equally often, within 5 standard errors."""
    firsts = np.bincount([Order(5, 0)[5 * epoch] for epoch in range(5000)], minlength=5)
    assert (abs(firsts - 1000) < 5 * (5000 * 0.2 * 0.8) ** 0.5).all()


def test_random_streams_do_not_overlap() -> None:
    """Other seeds, streams and counters give other words, however many are drawn; uniforms lie in [0,1) and are spread
    evenly."""
    words = [
        random_words(seed, stream, k, 64) for seed in (0, 1) for stream in (ORDER, CROP, NOISE, INIT) for k in range(50)
    ]
    assert len(np.unique(np.concatenate(words))) == len(words) * 64
    uniforms = np.concatenate([random_uniforms(0, CROP, k, 4) for k in range(5000)])
    assert 0 <= uniforms.min() < uniforms.max() < 1
    assert (abs(np.bincount((uniforms * 10).astype(int), minlength=10) - 2000) < 5 * (20_000 * 0.09) ** 0.5).all()
    assert 0 <= random_seed(1, INIT) < 2**63


class Recorder:
    """Stands in for a Pillow image and notes what is cut out of it."""

    def __init__(self, width: int, height: int):
        self.size = (width, height)
        self.box: tuple[int, ...] = ()
        self.mirrored = False

    def resize(self, size, resample, box, reducing_gap):
        self.size_out, self.box = size, box
        return self

    def transpose(self, method):
        assert method == Image.Transpose.FLIP_LEFT_RIGHT
        self.mirrored = True
        return self


@given(
    width=st.integers(1, 500),
    height=st.integers(1, 500),
    min_scale=st.floats(0.01, 1),
    counter=st.integers(0, 2**40),
    data=st.data(),
)
def test_crops_lie_inside_and_are_never_enlarged(
    width: int, height: int, min_scale: float, counter: int, data: st.DataObject
) -> None:
    """Every crop is a square inside the image, of min_scale..1 of the shorter side and at least the size asked for."""
    size = data.draw(st.integers(1, min(width, height)))
    image = Recorder(width, height)
    random_crop(image, size, min_scale, True, 5, counter)
    left, top, right, bottom = image.box
    assert image.size_out == (size, size)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert right - left == bottom - top
    assert max(size, min_scale * min(width, height) - 0.5) <= right - left <= min(width, height)


def test_crops_reach_every_border_and_size() -> None:
    """Over many counters crops touch all four borders and take the smallest and the largest side."""
    boxes = []
    for counter in range(2000):
        image = Recorder(30, 20)
        random_crop(image, 8, 0.5, True, 0, counter)
        boxes.append(image.box)
    left, top, right, bottom = np.array(boxes).T
    assert (left.min(), top.min(), right.max(), bottom.max()) == (0, 0, 30, 20)
    assert set(right - left) == set(range(10, 21))


def test_half_of_the_crops_are_mirrored() -> None:
    """About half, within 4 standard errors; none where flipping is off; mirroring changes nothing but the direction."""
    mirrored = 0
    for counter in range(2000):
        image = Recorder(30, 20)
        random_crop(image, 8, 0.5, True, 0, counter)
        mirrored += image.mirrored
        plain = Recorder(30, 20)
        random_crop(plain, 8, 0.5, False, 0, counter)
        assert not plain.mirrored
        assert plain.box == image.box
    assert abs(mirrored - 1000) < 4 * 500**0.5


def test_random_crop_depends_on_seed_and_counter_alone() -> None:
    """The same keys give the same pixels, other seeds and counters give others, and a flip is the mirrored crop."""
    image = picture(0, 40, 30)

    def crop(seed: int, counter: int, flip: bool = True) -> Tensor:
        return to_uint8(random_crop(image, 8, 0.5, flip, seed, counter))

    assert torch.equal(crop(1, 2), crop(1, 2))
    keys = [(seed, counter) for seed in range(4) for counter in range(8)]
    crops = [crop(*key) for key in keys]
    assert len({tuple(c.flatten().tolist()) for c in crops}) == len(keys)
    for key, c in zip(keys, crops, strict=True):
        plain = crop(*key, flip=False)
        assert torch.equal(c, plain) or torch.equal(c, plain.flip(-1))


def test_crop_of_whole_image_is_the_image() -> None:
    """At the size of a square image and min_scale 1 nothing is resampled."""
    image = picture(0, 16, 16)
    assert torch.equal(to_uint8(random_crop(image, 16, 1.0, False, 0, 0)), to_uint8(image))


def test_latent_noise_depends_on_seed_and_counter_alone() -> None:
    """Batching and order do not matter, and every seed and counter has its own standard normal noise."""
    whole = latent_noise(0, list(range(12)), (4, 8, 8))
    assert whole.shape == (12, 4, 8, 8)
    assert whole.dtype == torch.float32
    assert torch.equal(torch.cat([latent_noise(0, list(range(i, i + 3)), (4, 8, 8)) for i in range(0, 12, 3)]), whole)
    assert torch.equal(latent_noise(0, [7, 3], (4, 8, 8)), whole[[7, 3]])
    other = latent_noise(1, list(range(12)), (4, 8, 8))
    everything = torch.cat([whole, other]).flatten(1)
    correlation = torch.corrcoef(everything) - torch.eye(24)
    assert correlation.abs().max() < 5 * 256**-0.5
    assert abs(everything.mean()) < 5 * everything.numel() ** -0.5
    assert abs(everything.std() - 1) < 5 * (2 * everything.numel()) ** -0.5


def test_latent_noise_leaves_the_global_generator_alone() -> None:
    """Torch's global random state is the same before and after."""
    before = torch.get_rng_state()
    latent_noise(0, [0, 1], (4, 2, 2))
    assert torch.equal(before, torch.get_rng_state())


def crops(folder: Path, config: vw.DataConfig = CONFIG, seed: int = 0, channels: int = 3) -> Crops:
    return Crops(scan(folder).files, config, seed, channels)


def everything(stream) -> tuple[Tensor, list[int]]:
    images, counters = zip(*stream, strict=True)
    return torch.cat(images), [k for part in counters for k in part]


def test_batches_are_the_same_with_and_without_workers(tmp_path: Path) -> None:
    """0 and 2 worker processes give identical tensors in the same order, across epochs."""
    write_pictures(tmp_path, 5)
    images, counters = everything(batches(crops(tmp_path), 0, 24, 4, workers=0))
    assert images.shape == (24, 3, 8, 8)
    assert images.dtype == torch.uint8
    assert counters == list(range(24))
    by_workers, their_counters = everything(batches(crops(tmp_path), 0, 24, 4, workers=2))
    assert torch.equal(by_workers, images)
    assert their_counters == counters


def test_batches_are_the_crops_of_the_order(tmp_path: Path) -> None:
    """Crop k is random_crop with counter k of the file that the order names; one channel is that of the gray image."""
    write_pictures(tmp_path, 5)
    files = scan(tmp_path).files
    order = Order(5, 9)
    for channels in (1, 3):
        images, counters = everything(batches(crops(tmp_path, seed=9, channels=channels), 3, 13, 5, workers=0))
        for image, k in zip(images, counters, strict=True):
            source = open_image(files[order[k]].path, channels)
            assert torch.equal(image, to_uint8(random_crop(source, 8, 0.5, True, 9, k)))


@pytest.mark.parametrize("workers", [0, 2])
def test_starting_in_the_middle_gives_the_tail(tmp_path: Path, workers: int) -> None:
    """A stream from counter 7 on equals the whole stream from there, at another batch size too, and leaves out a
    smaller last batch."""
    write_pictures(tmp_path, 5)
    whole, _ = everything(batches(crops(tmp_path), 0, 20, 4, workers=0))
    tail, counters = everything(batches(crops(tmp_path), 7, 20, 3, workers=workers))
    assert counters == list(range(7, 19))
    assert torch.equal(tail, whole[7:19])


@pytest.mark.parametrize("cache_mib", [0, 1])
def test_cache_changes_no_result(tmp_path: Path, cache_mib: int) -> None:
    """With no cache, with one that holds some images and with one that holds all, the crops are the same."""
    for i in range(4):
        picture(i, 400, 400).save(tmp_path / f"{i}.png")
    reference, _ = everything(batches(crops(tmp_path), 0, 12, 4, workers=0))
    config = dataclasses.replace(CONFIG, cache_mib=cache_mib)
    stream = crops(tmp_path, config)
    assert torch.equal(everything(batches(stream, 0, 12, 4, workers=0))[0], reference)
    assert len(stream._cache) == (2 if cache_mib else 0)  # 400 * 400 * 3 bytes are 0.46 MiB


def test_cached_images_need_no_file(tmp_path: Path) -> None:
    """An image in the cache is not read again."""
    paths = write_pictures(tmp_path, 3)
    stream = crops(tmp_path)
    reference, _ = everything(batches(stream, 0, 6, 3, workers=0))
    for path in paths:
        path.unlink()
    assert torch.equal(everything(batches(stream, 0, 6, 3, workers=0))[0], reference)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("damage", ["deleted", "replaced", "shrunk"])
def test_a_file_lost_during_training_is_named(tmp_path: Path, workers: int, damage: str) -> None:
    """A file that went away, broke or shrank after the scan is a DataError in one line that names it, from workers
    too."""
    write_pictures(tmp_path, 3)
    stream = crops(tmp_path)
    if damage == "deleted":
        (tmp_path / "001.png").unlink()
    elif damage == "replaced":
        (tmp_path / "001.png").write_text("hello")
    else:
        picture(1, 24, 7).save(tmp_path / "001.png")
    with pytest.raises(vw.DataError, match=r"001\.png") as caught:
        everything(batches(stream, 0, 6, 3, workers=workers))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ["error", "early"])
def test_workers_end_with_the_stream(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error, and where a run stops early, the workers are gone without PyTorch's waiting for each: 5 seconds,
    here 150."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 150.0)
    write_pictures(tmp_path, 3)
    stream = crops(tmp_path)
    if ending == "error":
        (tmp_path / "001.png").unlink()
    gc.collect()
    start = time.monotonic()
    with contextlib.suppress(vw.DataError):
        for _ in batches(stream, 0, 100, 2, workers=2):
            if ending == "early":
                break
    gc.collect()
    assert time.monotonic() - start < 120
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores")
def test_no_more_workers_than_cores_allowed(tmp_path: Path) -> None:
    """Bound to one core of several, as in containers and under taskset, loading works without PyTorch's warning of too
    many workers."""
    write_pictures(tmp_path, 4)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(list(batches(crops(tmp_path), 0, 4, 2, workers=4))) == 2
    finally:
        os.sched_setaffinity(0, allowed)
