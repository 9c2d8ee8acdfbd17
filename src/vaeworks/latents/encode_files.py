"""Images to latents on disk: a file for each image, or a data set's in shards."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from ..arguments import check_choice, several
from ..data.inputs import Inputs, image_files, image_set, readable_images, say_flattened, warn_of_skipped
from ..data.labels import find_labels
from ..errors import ConfigError
from ..files.outputs import targets
from ..images import SUFFIXES, default_size, to_uint8
from ..images.channels import check_pictures
from ..launcher import place
from ..models import Autoencoder
from ..reporting import SILENT, Reporter
from ..runtime import Codec
from ..runtime.opening import Model, open_codec, open_in_own_dtype
from .encode import BATCH, EncodedDataset, encode_dataset
from .image_file import write_latents
from .plan import SHARD_SIZE, Settings
from .posteriors import picture_posterior

WORKERS = 2
"""Processes that read and resize images."""


@dataclass(frozen=True)
class LatentFile:
    """The latents of one image."""

    source: str
    """image file that was read"""
    path: str
    """file that was written"""
    shape: tuple[int, ...]
    """of the latents: channels, height, width"""


@dataclass(frozen=True)
class LatentFiles:
    """What `encode` returns for single images."""

    files: tuple[LatentFile, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values, by the name of the written file."""
        return {one.path: {"source": one.source, "shape": list(one.shape)} for one in self.files}


@dataclass(frozen=True)
class LatentShards:
    """What `encode` returns for a data set."""

    out: str
    """folder of the shards"""
    encoded: EncodedDataset
    """what this call has done"""
    classes: int
    """number of different labels; 0 without labels"""
    enlarged: int
    """images smaller than the squares"""
    images_per_second: float | None
    """None where nothing was left to encode"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "out": self.out,
            "images": self.encoded.images,
            "kept": self.encoded.kept,
            "complete": self.encoded.complete,
            "classes": self.classes,
            "skipped": [list(entry) for entry in self.encoded.skipped],
            "enlarged": self.enlarged,
            "images_per_second": self.images_per_second,
        }


def encode(
    model: Model,
    inputs: Inputs,
    out: str | Path,
    *,
    into: Literal["files", "shards"] | None = None,
    posterior: Literal["mode", "sample", "moments"] = "mode",
    seed: int = 0,
    size: int | None = None,
    flip: bool = False,
    labels: str | None = None,
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32",
    precision: Literal["fp32", "bf16"] | None = None,
    shard_size: int = SHARD_SIZE,
    batch: int = BATCH,
    workers: int = WORKERS,
    memory: str | int | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> LatentFiles | LatentShards:
    """Write the unnormalized latents of images: a file each, of the image's own size, or shards of squares.

    model: a path, a hub id or an Autoencoder. inputs: image files, or sources of images as in docs/data.md, one or
    several. out: folder. into: None takes files for image files, shards for all else. posterior: its mode, a sample, or
    (shards) means and log-variances. seed: of the sample. precision: of the computation; None is the weights' own for
    files, fp32 for shards. memory: bytes, or "4GiB", that a batch may take beside the weights. settings: facts that the
    model's file leaves out, as keywords of `vw.load`. overwrite: replace files, or the latents of other settings.

    For shards: size: side of the squares in pixels, about 256 by default. flip: also encode the mirrored images.
    labels: "folders", "names", "none" or a CSV file. dtype: of the stored latents. shard_size: images in a file. batch:
    images that go through the network together. workers: processes that read images. A second call with the same
    arguments encodes only what is missing; processes that a launcher started together share the work.

    Errors: ConfigError for options of shards that are given for files, and for other latents in the folder; DataError
    where no image can be read.

    >>> vw.encode("runs/dogs", ["a.png", "b.png"], "latents")                   # two files
    >>> vw.encode("runs/dogs", "~/photos", "latents", size=256, flip=True)      # shards, docs/latents.md
    """
    names = several(inputs)
    if not names:
        raise ConfigError("no IN is given: vaeworks encode MODEL IN --out DIR")
    if into is None:
        into = "files" if all(_is_image_file(str(name)) for name in names) else "shards"
    check_choice("into", into, ("files", "shards"))
    check_choice("posterior", posterior, ("mode", "sample", "moments"))
    if into == "files":
        given = {
            "--size": size is not None,
            "--flip": flip,
            "--labels": labels is not None,
            "--dtype": dtype != "fp32",
            "--posterior moments": posterior == "moments",
            "--shard-size": shard_size != SHARD_SIZE,
            "--batch": batch != BATCH,
            "--workers": workers != WORKERS,
        }
        if wrong := [name for name, is_given in given.items() if is_given]:
            raise ConfigError(f"{', '.join(wrong)}: only for shards; pass --into shards, or leave it out")
        codec = open_codec(model, memory, precision, settings)
        check_pictures(codec.autoencoder.config, writes=False)
        return _encode_into_files(codec, names, Path(out), posterior, seed, overwrite, reporter)
    autoencoder = open_in_own_dtype(model, settings)
    how = Settings(
        size=default_size(autoencoder.config) if size is None else size,
        posterior=posterior,
        dtype=dtype,
        precision=precision or "fp32",
        flip=flip,
        shard_size=shard_size,
        seed=seed,
    )
    run = partial(encode_dataset, batch=batch, workers=workers, memory=memory, overwrite=overwrite)
    return _encode_into_shards(autoencoder, names, out, how, labels, run, reporter)


def _is_image_file(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not Path(name).is_dir()


def _encode_into_files(
    codec: Codec, inputs: Inputs, out: Path, posterior: str, seed: int, overwrite: bool, reporter: Reporter
) -> LatentFiles:
    """One safetensors file per image, `latents` c h/f w/f."""
    config = codec.autoencoder.config
    generator = torch.Generator().manual_seed(seed)
    pairs = targets(image_files(inputs, reporter), out, ".safetensors", overwrite)
    found = []
    for path, target, picture in readable_images(pairs, config.in_channels, reporter):
        image = to_uint8(picture)
        distribution = picture_posterior(codec, image)
        latents = (distribution.mode() if posterior == "mode" else distribution.sample(generator))[0]
        write_latents(target, latents, config, (image.shape[-2], image.shape[-1]), posterior, overwrite)
        found.append(LatentFile(str(path), str(target), tuple(latents.shape)))
        reporter.say(f"{target}  {' x '.join(map(str, latents.shape))}")
    return LatentFiles(tuple(found))


def _encode_into_shards(
    autoencoder: Autoencoder,
    inputs: Sequence[str | Path],
    out: str | Path,
    settings: Settings,
    labels: str | None,
    run: partial[EncodedDataset],
    reporter: Reporter,
) -> LatentShards:
    """A data set in shards; each of several processes that a launcher started does its part. run: `encode_dataset`
    with its options."""
    settings.check(autoencoder.config)
    images = image_set(inputs, reporter, decode=False)
    say_flattened(images.files, reporter)
    classes = find_labels(images.files, labels, reporter)
    here = place()
    rank, world = (0, 1) if here is None else (here.rank, here.size)
    began = time.perf_counter()
    with reporter.counting("encoding") as progress:
        done = run(
            autoencoder,
            images,
            out,
            settings,
            labels=classes,
            rank=rank,
            world=world,
            say=reporter.warn,
            progress=progress,
        )
    seconds = time.perf_counter() - began
    rate = done.images / seconds if done.images else None
    warn_of_skipped(done.skipped, reporter)
    smaller = sum(min(file.width, file.height) < settings.size for file in images.files)
    if smaller:
        reporter.warn(f"{smaller} images are smaller than {settings.size} px and were enlarged")
    return LatentShards(str(out), done, len(set(classes or ())), smaller, rate)
