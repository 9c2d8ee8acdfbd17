"""A data set to latents: what comes out is each image's own, whole or not there, and the same however often the work
was cut off."""

from __future__ import annotations

import copy
import dataclasses
import errno
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.torch import load_file
from torch.utils.data import DataLoader

import vaeworks as vw
from vaeworks.cli import main
from vaeworks.data import scan
from vaeworks.errors import ConfigError, DataError, FormatError, VaeworksError
from vaeworks.images import open_image, to_model_range, to_uint8
from vaeworks.latents import LatentSet, Settings, encode_dataset, shards
from vaeworks.latents import tensors as latents
from vaeworks.latents.index import INDEX, STATS
from vaeworks.latents.plan import LatentsPlan
from vaeworks.models.digest import model_digest
from vaeworks.random_streams import latent_noise

MODEL = vw.AutoencoderConfig(
    channels=8, channel_mult=(1, 2, 2), num_res_blocks=1, norm_groups=4, latent_channels=4, scaling_factor=0.5
)
SETTINGS = Settings(size=32, shard_size=4)
IMAGES = 11


@pytest.fixture(scope="module")
def vae() -> vw.Autoencoder:
    torch.manual_seed(0)
    return vw.build(MODEL).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of many sizes in two class folders; one of them smaller than the squares."""
    root = tmp_path_factory.mktemp("data") / "photos"
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        path = root / ("cat" if i < 5 else "dog") / f"p{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        side = (40 + 7 * i, 90 - 5 * i) if i else (20, 25)
        Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize(side, Image.Resampling.BICUBIC).save(
            path
        )
    return root


def alone(vae: vw.Autoencoder, path: Path, size: int = 32, mirrored: bool = False) -> vw.Posterior:
    """The posterior of one image, by itself."""
    picture = ImageOps.fit(open_image(path), (size, size), Image.Resampling.LANCZOS)
    picture = ImageOps.mirror(picture) if mirrored else picture
    with torch.inference_mode():
        return vae.encode(to_model_range(to_uint8(picture)[None]))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder; also those that should not be there."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def encode(vae: vw.Autoencoder, photos: Path, out: Path, settings: Settings = SETTINGS, **options: object) -> object:
    return encode_dataset(vae, scan(photos, decode=False), out, settings, **{"batch": 3, "workers": 0} | options)


@pytest.fixture(scope="module")
def undisturbed(vae: vw.Autoencoder, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "latents"
    encode(vae, photos, out)
    return out


# ---------------------------------------------------------------- what comes out


def test_latents_are_each_image_s_own(vae: vw.Autoencoder, photos: Path, undisturbed: Path) -> None:
    """Row i is encode(image i).mode(), in the order of the paths, whatever batch and shard it was in; so are name and
    hash."""
    found = LatentSet(undisturbed)
    files = scan(photos).files
    assert len(found) == len(files) == IMAGES
    for i, file in enumerate(files):
        z, label = found[i]
        assert torch.allclose(z, alone(vae, Path(str(file.path))).mode()[0], atol=1e-5), i
        assert label == 0 and found.classes is None
        assert found.image(i) == (i, str(Path(str(file.path)).relative_to(photos)), file.digest)
    assert torch.equal(found[-1][0], found[IMAGES - 1][0])
    with pytest.raises(IndexError):
        found[IMAGES]


@pytest.mark.parametrize(
    ("dtype", "kind", "step"), [("fp16", torch.float16, 2.0**-11), ("bf16", torch.bfloat16, 2.0**-8)]
)
def test_dtype_is_rounding_alone(
    vae: vw.Autoencoder, photos: Path, undisturbed: Path, tmp_path: Path, dtype: str, kind: torch.dtype, step: float
) -> None:
    """Latents in half precision are float32's, rounded once."""
    encode(vae, photos, tmp_path, dataclasses.replace(SETTINGS, dtype=dtype))  # type: ignore[arg-type]
    exact, found = LatentSet(undisturbed), LatentSet(tmp_path)
    for i in range(IMAGES):
        assert found[i][0].dtype == kind
        assert torch.equal(found[i][0], exact[i][0].to(kind))
        assert ((found[i][0].float() - exact[i][0]).abs() <= step * exact[i][0].abs() + 1e-7).all()


def test_computation_in_bf16_is_close_and_told(
    vae: vw.Autoencoder, photos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """--precision bf16 computes otherwise, keeps float32, and is another plan."""
    encode(vae, photos, tmp_path, dataclasses.replace(SETTINGS, precision="bf16"))
    exact, found = (torch.stack([LatentSet(folder)[i][0] for i in range(IMAGES)]) for folder in (undisturbed, tmp_path))
    assert found.dtype == torch.float32
    assert 1e-5 < float((found - exact).norm() / exact.norm()) < 0.05
    assert vae.dtype == torch.float32


def test_moments_flips_and_labels(vae: vw.Autoencoder, photos: Path, tmp_path: Path) -> None:
    """Log-variances stand beside means; mirrored images are encoded, not mirrored latents; classes are numbered by the
    alphabet."""
    images = scan(photos)
    labels = [Path(str(file.path)).parent.name for file in images.files]
    encode_dataset(
        vae,
        images,
        tmp_path,
        dataclasses.replace(SETTINGS, posterior="moments", flip=True),
        labels=labels,
        batch=4,
        workers=0,
    )
    found = LatentSet(tmp_path)
    assert found.classes == ["cat", "dog"]
    for i, file in enumerate(images.files):
        for flip in (False, True):
            expected, kept = alone(vae, Path(str(file.path)), mirrored=flip), found.posterior(i, flip)
            assert torch.allclose(kept.mean, expected.mean, atol=1e-5)
            assert torch.allclose(kept.logvar, expected.logvar, atol=1e-5)
            assert torch.equal(found.latents(i, flip), kept.mean[0])
        assert found[i][1] == ["cat", "dog"].index(labels[i])
        assert not torch.allclose(found.latents(i, True), found.latents(i).flip(-1), atol=1e-3)


def test_samples_depend_on_seed_and_number_alone(vae: vw.Autoencoder, photos: Path, tmp_path: Path) -> None:
    """A sample's noise is keyed by the image's number: neither batch, shards nor workers change it; mirror images have
    their own."""
    settings = dataclasses.replace(SETTINGS, posterior="sample", seed=3, flip=True)
    encode(vae, photos, tmp_path / "a", settings)
    encode(vae, photos, tmp_path / "b", dataclasses.replace(settings, shard_size=5), batch=5, workers=2)
    encode(vae, photos, tmp_path / "c", dataclasses.replace(settings, seed=4))
    a, b, c = (LatentSet(tmp_path / name) for name in "abc")
    noises = []
    for i, file in enumerate(scan(photos).files):
        posterior = alone(vae, Path(str(file.path)))
        noise = latent_noise(3, [i], (4, 8, 8))
        assert torch.allclose(a[i][0], posterior.sample(noise=noise)[0], atol=1e-5)
        assert torch.allclose(a[i][0], b[i][0], atol=1e-5)
        assert not torch.allclose(a[i][0], c[i][0], atol=1e-2)
        mirror = alone(vae, Path(str(file.path)), mirrored=True)
        noises.append((a.latents(i, True)[None] - mirror.mean) / mirror.std)
        assert not torch.allclose(noises[-1], noise, atol=1e-2)
    assert abs(float(torch.cat(noises).std()) - 1) < 0.05
    assert not torch.allclose(noises[0], noises[1], atol=1e-2)


def test_layout_is_lightningdit_s(vae: vw.Autoencoder, photos: Path, tmp_path: Path) -> None:
    """Names, tensors, types and string metadata as its loader reads them, by glob; statistics load without pickles."""
    encode(vae, photos, tmp_path, dataclasses.replace(SETTINGS, flip=True))
    files = sorted(tmp_path.glob("*.safetensors"))
    assert [path.name for path in files] == [f"latents_rank00_shard{n:03d}.safetensors" for n in range(3)]
    rows = []
    for path, length in zip(files, (4, 4, 3), strict=True):
        tensors = load_file(path)
        assert {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()} == {
            "latents": (torch.float32, (length, 4, 8, 8)),
            "latents_flip": (torch.float32, (length, 4, 8, 8)),
            "labels": (torch.int64, (length,)),
        }
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        assert (metadata["total_size"], metadata["dtype"], metadata["device"]) == (str(length), "torch.float32", "cpu")
        assert len(json.dumps(metadata)) < 4096  # the loader parses it for every image
        rows.append(tensors["latents"])
    z = torch.cat(rows)
    stats = torch.load(tmp_path / STATS, weights_only=True)
    assert stats.keys() == {"mean", "std"}
    assert torch.allclose(stats["mean"], z.mean((0, 2, 3), keepdim=True), atol=1e-6)
    assert torch.allclose(stats["std"], z.std((0, 2, 3), keepdim=True), rtol=1e-6)
    assert stats["mean"].shape == (1, 4, 1, 1) and stats["mean"].dtype == torch.float32


def test_statistics_of_moments_are_those_of_samples(vae: vw.Autoencoder, photos: Path, tmp_path: Path) -> None:
    """Where training will sample, std has the posterior's variance in it; the means' alone would be too small."""
    encode(vae, photos, tmp_path, dataclasses.replace(SETTINGS, posterior="moments"))
    found = LatentSet(tmp_path)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([found.posterior(i).sample(generator) for i in range(IMAGES) for _ in range(100)])
    means = torch.stack([found[i][0] for i in range(IMAGES)])
    mean, std = found.statistics()
    assert torch.allclose(mean, drawn.mean((0, 2, 3), keepdim=True), atol=0.02)
    assert torch.allclose(std, drawn.std((0, 2, 3), keepdim=True), rtol=0.02)
    assert (means.std((0, 2, 3), keepdim=True) < 0.8 * std).all()


@pytest.mark.parametrize("dead", [1, 4])
def test_a_dead_channel_can_be_divided_by(dead: int, vae: vw.Autoencoder, photos: Path, tmp_path: Path) -> None:
    """Of a channel that is the same everywhere, (latents - mean) / std is finite; and it is said."""
    vae = copy.deepcopy(vae)
    with torch.no_grad():
        vae.get_submodule("quant_conv").weight[:dead] = 0
    with pytest.warns(UserWarning, match=r"channels \[0.*same everywhere"):
        encode(vae, photos, tmp_path, SETTINGS)
    found = LatentSet(tmp_path)
    mean, std = found.statistics()
    assert (std > 0).all() and (dead < 4 or torch.equal(std, torch.ones_like(std)))
    assert all((((found[i][0] - mean) / std)[:, :dead].abs() < 1).all() for i in range(IMAGES))


def test_every_file_says_what_it_is(vae: vw.Autoencoder, photos: Path, undisturbed: Path) -> None:
    """Hash of the VAE, normalization (of which nothing is applied), preprocessing, first and last image: in each shard
    and the index."""
    index = json.loads((undisturbed / INDEX).read_text())
    assert index["complete"] and index["skipped"] == []
    assert [(s["first"], s["last"], s["rows"]) for s in index["shards"]] == [(0, 3, 4), (4, 7, 4), (8, 10, 3)]
    with safe_open(undisturbed / "latents_rank00_shard002.safetensors", framework="pt") as file:
        own = json.loads(file.metadata()["vaeworks_latents"])
    for facts in (own, index["facts"]):
        assert facts["model"] == "f4c4" and facts["model_digest"] == model_digest(vae)
        assert facts["normalized"] is False and facts["scaling_factor"] == 0.5
        assert (facts["size"], facts["dtype"], facts["posterior"], facts["enlarged"]) == (32, "fp32", "mode", 1)
        assert "Lanczos" in facts["preprocessing"] and len(facts["preprocessing_sha256"]) == 64
    assert (own["first"], own["last"]) == (8, 10)
    assert LatentsPlan(model_digest(vae), scan(photos).digest, IMAGES, "", SETTINGS).digest == own["plan"]


def test_a_latent_set_feeds_a_loader(undisturbed: Path) -> None:
    """PyTorch's loader takes it, with processes of its own, also after it has been read here."""
    found = LatentSet(undisturbed)
    first = found[0][0]
    loader = DataLoader(found, batch_size=4, num_workers=1, multiprocessing_context="spawn")
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [4, 4, 3]
    assert torch.equal(batches[0][0][0], first)
    with pytest.raises(ConfigError, match="--flip"):
        found.latents(0, flip=True)
    with pytest.raises(ConfigError, match="moments"):
        found.posterior(0)


def test_a_tar_gives_what_its_folder_gives(
    vae: vw.Autoencoder, photos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """The source's kind changes nothing; of one tar, names are those within it."""
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        for path in sorted(photos.rglob("*.png")):
            archive.add(path, str(path.relative_to(photos)))
    encode(vae, tmp_path / "photos.tar", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(undisturbed)


def test_two_processes_are_one(vae: vw.Autoencoder, photos: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Each rank writes its own run of images; the folder is complete with the last of them, and reads as one process's
    does."""
    first = encode(vae, photos, tmp_path, rank=1, world=2)
    assert not first.complete and first.images == 6  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="not complete"):
        LatentSet(tmp_path)
    assert encode(vae, photos, tmp_path, rank=0, world=2).complete  # type: ignore[attr-defined]
    assert {path.name for path in tmp_path.glob("*.safetensors")} == {
        f"latents_rank{rank:02d}_shard{number:03d}.safetensors" for rank, number in ((0, 0), (0, 1), (1, 0), (1, 1))
    }
    one, other = LatentSet(undisturbed), LatentSet(tmp_path)
    assert len(other) == IMAGES
    assert all(
        torch.allclose(one[i][0], other[i][0], atol=1e-5) and one.image(i) == other.image(i) for i in range(IMAGES)
    )


# ---------------------------------------------------------------- what goes wrong


def full_disk(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The disk is full when shard number `at` has been written in part."""
    write = shards.write_tensors
    count = iter(range(1000))

    def failing(path: Path, *rest: object) -> None:
        if next(count) == at:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(shards, "write_tensors", failing)


def test_a_full_disk_leaves_what_is_done(
    vae: vw.Autoencoder, photos: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line; the first shard stays, no half of the second; a second call does only the rest, and all is as if
    nothing had happened."""
    with monkeypatch.context() as broken:
        full_disk(broken, at=1)
        with pytest.raises(VaeworksError, match=r"shard001.*No space left.*1 of 3 shards are whole") as error:
            encode(vae, photos, tmp_path)
    assert "\n" not in str(error.value)
    left = contents(tmp_path)
    assert "latents_rank00_shard000.safetensors" in left
    assert not [name for name in left if "shard001.safetensors" in name or name.endswith(".tmp")]
    stamp = (tmp_path / "latents_rank00_shard000.safetensors").stat().st_mtime_ns
    again = encode(vae, photos, tmp_path)
    assert (again.images, again.kept, again.complete) == (7, 4, True)  # type: ignore[attr-defined]
    assert (tmp_path / "latents_rank00_shard000.safetensors").stat().st_mtime_ns == stamp
    assert contents(tmp_path) == contents(undisturbed)


def test_a_file_that_may_not_grow(vae: vw.Autoencoder, photos: Path, undisturbed: Path, tmp_path: Path) -> None:
    """The system's own refusal in the middle of a shard: one line, nothing half-written, and the rest later."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        with pytest.raises(VaeworksError, match=r"shard000.*too large.*0 of 3 shards"):
            encode(vae, photos, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob(".*"))
    encode(vae, photos, tmp_path)
    assert contents(tmp_path) == contents(undisturbed)


def test_too_little_room_is_told_before_the_work(
    vae: vw.Autoencoder, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk cannot hold what is missing, nothing is encoded."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(VaeworksError, match="make room"):
        encode(vae, photos, tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.fixture
def model(vae: vw.Autoencoder, tmp_path: Path) -> Path:
    vw.save(vae, tmp_path / "vae.safetensors", "native")
    return tmp_path / "vae.safetensors"


def waited_for(condition: Iterator[bool], process: subprocess.Popen, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not next(condition):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.002)


def test_ctrl_c(model: Path, photos: Path, undisturbed: Path, tmp_path: Path) -> None:
    """SIGINT in the middle: code 130, one line, whole shards alone; the same command does the rest, byte for byte."""
    out = tmp_path / "out"
    slow = (  # a shard takes longer than it takes to notice the first
        "import sys, time; from vaeworks.latents import shards; write = shards.write_tensors;shards.write_tensors = "
        "lambda *a: (write(*a), time.sleep(0.5));from vaeworks.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["encode", str(model), str(photos), "--out", str(out), "--size", "32", "--shard-size", "4", "--batch", "3"]
    words += ["--workers", "1", "--labels", "none"]
    process = subprocess.Popen([sys.executable, "-c", slow, *words], stderr=subprocess.PIPE, text=True)
    try:
        first = out / "latents_rank00_shard000.safetensors"
        waited_for(iter(first.exists, None), process)  # type: ignore[arg-type]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert [line for line in said.splitlines() if line.startswith("vaeworks: ")] == [
        "vaeworks: interrupted; 1 of 3 shards are whole and stay, the same call does the rest"
    ]
    assert not list(out.glob(".*"))
    assert main(words) == 0
    assert contents(out) == contents(undisturbed)


def test_other_latents_are_refused(vae: vw.Autoencoder, photos: Path, tmp_path: Path) -> None:
    """Another model, image, class or option in the same folder is named, and nothing is touched; --overwrite
    replaces."""
    encode(vae, photos, tmp_path)
    before = contents(tmp_path)
    torch.manual_seed(1)
    cases = {
        "model": lambda: encode(vw.build(MODEL), photos, tmp_path),
        r"size \(32 there, 16 now\)": lambda: encode(vae, photos, tmp_path, dataclasses.replace(SETTINGS, size=16)),
        "dtype.*flip": lambda: encode(vae, photos, tmp_path, dataclasses.replace(SETTINGS, dtype="fp16", flip=True)),
        "images.*count": lambda: encode(vae, photos / "cat", tmp_path),
        "labels": lambda: encode(vae, photos, tmp_path, labels=["a"] * IMAGES),
        "processes": lambda: encode(vae, photos, tmp_path, world=2),
        "posterior.*seed": lambda: encode(
            vae, photos, tmp_path, dataclasses.replace(SETTINGS, posterior="sample", seed=1)
        ),
    }
    for words, call in cases.items():
        with pytest.raises(ConfigError, match=words):
            call()
    assert contents(tmp_path) == before
    # what changes nothing is no other plan
    encode(vae, photos, tmp_path, dataclasses.replace(SETTINGS, seed=9), batch=2)
    assert contents(tmp_path) == before
    encode(vae, photos / "cat", tmp_path, overwrite=True)
    assert len(LatentSet(tmp_path)) == 5
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_broken_images_are_named(vae: vw.Autoencoder, photos: Path, tmp_path: Path) -> None:
    """No image, and one whose pixels end too early: both named with a reason; all others keep their numbers."""
    data = tmp_path / "data"
    data.mkdir()
    for i, path in enumerate(sorted(photos.rglob("*.png"))[:6]):
        (data / f"{i}.png").write_bytes(path.read_bytes())
    whole = (data / "2.png").read_bytes()
    (data / "2.png").write_bytes(whole[: len(whole) // 2])
    (data / "4.png").write_text("no picture")
    found = encode(vae, data, tmp_path / "out")
    assert [name for name, _ in found.skipped] == ["4.png", "2.png"]  # type: ignore[attr-defined]
    assert all(reason for _, reason in found.skipped)  # type: ignore[attr-defined]
    assert found.images == 4  # type: ignore[attr-defined]
    latent_set = LatentSet(tmp_path / "out")
    assert [latent_set.image(i).name for i in range(len(latent_set))] == ["0.png", "1.png", "3.png", "5.png"]
    for i in range(4):
        assert torch.allclose(latent_set[i][0], alone(vae, data / latent_set.image(i).name).mode()[0], atol=1e-5)
    again = encode(vae, data, tmp_path / "out")
    assert again.skipped == found.skipped and again.images == 0  # type: ignore[attr-defined]
    for name in ("0.png", "1.png", "3.png", "5.png"):
        (data / name).unlink()
    with pytest.raises(DataError, match=r"none of the 1 images.*2\.png"):
        encode(vae, data, tmp_path / "none")


def test_images_that_change_meanwhile(vae: vw.Autoencoder, photos: Path, tmp_path: Path) -> None:
    """An image that vanishes or is another one since it was listed ends the work with its name: it is not skipped."""
    data = tmp_path / "data"
    data.mkdir()
    sources = sorted(photos.rglob("*.png"))
    for i in range(6):
        (data / f"{i}.png").write_bytes(sources[i].read_bytes())
    images = scan(data, decode=False)
    (data / "5.png").write_bytes(sources[7].read_bytes())
    with pytest.raises(DataError, match=r"5\.png has changed.*1 of 2 shards"):
        encode_dataset(vae, images, tmp_path / "a", SETTINGS, workers=0)
    (data / "5.png").unlink()
    with pytest.raises(DataError, match=r"5\.png could be read"):
        encode_dataset(vae, images, tmp_path / "b", SETTINGS, workers=0)


def test_what_cannot_be(vae: vw.Autoencoder, photos: Path, tmp_path: Path) -> None:
    """Each rule in one line, before anything is written."""
    for settings, words in (
        (dataclasses.replace(SETTINGS, size=30), "multiple of 4"),
        (dataclasses.replace(SETTINGS, shard_size=0), "at least 1 image"),
        (dataclasses.replace(SETTINGS, seed=-1), "negative"),
    ):
        with pytest.raises(ConfigError, match=words):
            encode(vae, photos, tmp_path / "out", settings)
    with pytest.raises(ConfigError, match="batch"):
        encode(vae, photos, tmp_path / "out", batch=0)
    with pytest.raises(ConfigError, match="rank"):
        encode(vae, photos, tmp_path / "out", rank=2, world=2)
    with pytest.raises(ConfigError, match="1 labels"):
        encode(vae, photos, tmp_path / "out", labels=["a"])
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "other.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"other\.safetensors"):
        encode(vae, photos, tmp_path / "mine")
    with pytest.raises(FormatError, match=r"index\.json"):
        LatentSet(tmp_path / "mine")
    tiny = vw.build("taesd").eval()
    with pytest.raises(ConfigError, match="points"):
        encode(tiny, photos, tmp_path / "tiny", dataclasses.replace(SETTINGS, posterior="moments"))


def test_latents_that_are_no_numbers(vae: vw.Autoencoder) -> None:
    """What float16 cannot hold, or the encoder made NaN, names its image and a remedy."""
    big = {"latents": torch.tensor([1.0, 1e6])[:, None, None, None].half()}
    with pytest.raises(DataError, match=r"b\.png.*take --dtype bf16"):
        latents.check_finite(big, [0, 1], ["a.png", "b.png"], "fp16")
    with pytest.raises(DataError, match=r"a\.png.*overflowed"):
        latents.check_finite({"latents": torch.full((1, 1, 1, 1), math.nan)}, [0], ["a.png"], "fp32")


# ---------------------------------------------------------------- the command


def test_encode_a_folder(
    model: Path, photos: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder becomes shards, with class folders as labels; single files become single files unless told otherwise."""
    words = ["encode", str(model), str(photos), "--size", "32", "--shard-size", "4", "--batch", "3", "--workers", "0"]
    assert main([*words, "--out", str(tmp_path / "a"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["images"], told["complete"], told["skipped"], told["classes"]) == (IMAGES, True, [], 2)
    found, exact = LatentSet(tmp_path / "a"), LatentSet(undisturbed)
    assert found.classes == ["cat", "dog"]
    assert all(torch.equal(found[i][0], exact[i][0]) for i in range(IMAGES))
    photo = str(photos / "dog" / "p07.png")
    assert main(["encode", str(model), photo, "--out", str(tmp_path / "b")]) == 0
    assert load_file(tmp_path / "b" / "p07.safetensors")["latents"].ndim == 3
    assert (
        main(
            [
                "encode",
                str(model),
                photo,
                "--out",
                str(tmp_path / "c"),
                "--into",
                "shards",
                "--size",
                "32",
                "--workers",
                "0",
            ]
        )
        == 0
    )
    assert len(LatentSet(tmp_path / "c")) == 1
    assert main(["encode", str(model), str(photos), "--out", str(tmp_path / "d"), "--into", "files"]) == 0
    assert len(list((tmp_path / "d").rglob("*.safetensors"))) == IMAGES


def test_the_command_s_errors(model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line and code 2: options of shards for single files, another size in the same folder, streams."""
    photo = str(photos / "dog" / "p07.png")
    shards_only = ["encode", str(model), photo, "--out", str(tmp_path / "a"), "--flip", "--size", "32"]
    words = ["encode", str(model), str(photos), "--out", str(tmp_path / "b"), "--workers", "0", "--size"]
    assert main([*words, "32"]) == 0
    for command, message in (
        (shards_only, "--size, --flip"),
        ([*words, "16"], "differ in size (32 there, 16 now)"),
        (["encode", str(model), "stream:x.tar", "--out", str(tmp_path / "c")], "stream"),
        ([*words, "32", "--memory", "a lot"], "memory"),
        ([*words, "32", "--memory", "1k", "--overwrite", "--shard-size", "3"], "at least"),
    ):
        capsys.readouterr()
        assert main(command) == 2, command
        told = capsys.readouterr().err.strip().splitlines()[-1]
        assert told.startswith("vaeworks: ") and message in told, told


def test_a_shard_that_does_not_fit_into_memory(
    vae: vw.Autoencoder, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be found out after hours otherwise: a shard is in memory until it is written."""
    monkeypatch.setattr("vaeworks.latents.encode.free_memory", lambda device: 1000)
    with pytest.raises(vw.ConfigError, match=r"a shard of 4 images takes .* take --shard-size 1 or less"):
        encode(vae, photos, tmp_path / "out")
