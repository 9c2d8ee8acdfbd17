"""A data set to latents: finished shards stay, missing ones are made."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import to_dict
from ..data import ImageSet, batches
from ..data.classes import numbered
from ..data.crops import Say
from ..data.inputs import Images, image_set
from ..devices import DTYPES
from ..errors import ConfigError, VaeworksError
from ..files.atomic import check_room
from ..files.locks import LOCK, alone_in
from ..models import Autoencoder
from ..models.digest import model_digest
from ..reporting import Progress
from ..runtime.codec import Codec
from ..runtime.memory import as_gib, free_memory
from ..runtime.opening import Model, open_in_own_dtype
from .index import begin, check_folder, finish, place_for
from .plan import LatentsPlan, Settings, Shard, labels_digest, normalization_facts, settings_of
from .shards import Content, ShardRow, is_done, write_shard
from .squares import Squares
from .tensors import LABELS, check_finite, encoded, latents_shape, tensor_names

BATCH = 8


@dataclass(frozen=True)
class EncodedDataset:
    """The result of `encode_dataset`."""

    images: int
    """images encoded by this call"""
    kept: int
    """images in shards that were there before"""
    complete: bool
    """whether the shards of all processes are there"""
    skipped: tuple[tuple[str, str], ...] = ()
    """(name, reason) of images without latents: this process's, or everybody's once all shards are there"""


@dataclass(eq=False)
class _Work:
    """The part of one process."""

    folder: Path
    plan: LatentsPlan
    shards: list[Shard]
    names: list[str]
    digests: list[str]
    labels: Tensor
    facts: dict[str, Any]
    shape: tuple[int, int, int]
    skipped: list[tuple[str, str]] = field(default_factory=list)


def encode_dataset(
    autoencoder: Model,
    images: Images,
    folder: str | Path,
    settings: Settings | None = None,
    *,
    labels: Sequence[str] | None = None,
    batch: int = BATCH,
    workers: int = 2,
    memory: int | str | None = None,
    rank: int = 0,
    world: int = 1,
    overwrite: bool = False,
    say: Say | None = None,
    progress: Progress | None = None,
) -> EncodedDataset:
    """Write the unnormalized latents of a set of images in shards (docs/latents.md). A second call writes the rest.

    >>> vw.encode_dataset(vw.load("vae.safetensors"), vaeworks.data.scan("photos"), "latents")
    >>> latents, label = vw.LatentSet("latents")[0]

    autoencoder: a path, a hub id or an Autoencoder. images: a source, or what `vaeworks.data.scan(source,
    decode=False)` found. settings: `vaeworks.latents.Settings`, by default
    the mode of squares of 256 pixels in float32. labels: a class per image. batch: images that go through the network
    together; workers: processes that read images; memory: as for `Codec`. These three change rounding at most.
    rank, world: the number of this process and the number of all processes that share the folder. Each encodes a run
    of consecutive images; the last to finish completes the index.
    Errors: ConfigError for settings that the model does not take, and for a folder with latents of another model, other
    images or settings; DataError for images that change or vanish; VaeworksError where the disk is full. Finished
    shards stay valid.

    """
    settings = settings or Settings()
    autoencoder = open_in_own_dtype(autoencoder)
    images = image_set(images, decode=False)
    _check(autoencoder, images, settings, labels, batch, workers, rank, world)
    settings = settings_of(settings)
    codec = Codec(autoencoder, dtype=DTYPES[settings.precision], memory=memory)
    folder = Path(folder)
    classes, class_numbers = (None, [0] * len(images.files)) if labels is None else numbered(labels)
    model = model_digest(autoencoder)
    plan = LatentsPlan(model, images.digest, len(images.files), labels_digest(labels), settings, world)
    facts = _facts(autoencoder, model, settings, images)
    check_folder(folder)
    with alone_in(folder, f"{LOCK}-{rank}"):
        place = place_for(folder, plan, overwrite and world == 1)
        missing = [shard for shard in plan.shards(rank) if not is_done(place, shard, plan)]
        names = [_below(images.source, str(file.path)) for file in images.files]
        work = _Work(
            place,
            plan,
            missing,
            names,
            [file.digest for file in images.files],
            torch.tensor(class_numbers, dtype=torch.int64),  # zeros without classes: readers of the layout expect some
            facts,
            latents_shape(autoencoder.config, settings.size),
        )
        todo = sum(map(len, work.shards))
        if work.shards:
            _check_memory(work)
            check_room(folder / work.shards[0].file, _size(work))
        begin(place, plan, facts, classes)
        if work.shards:
            with _telling_what_is_done(place, plan, rank):
                _encode(codec, images, work, batch, workers, say, progress or _silent)
        skipped = [(_below(images.source, name), reason) for name, reason in images.skipped]
        contents = finish(place, plan, facts, classes, skipped)
    skipped += work.skipped if contents is None else [entry for content in contents for entry in content.skipped]
    return EncodedDataset(
        todo - len(work.skipped), sum(map(len, plan.shards(rank))) - todo, contents is not None, tuple(skipped)
    )


def _check(
    autoencoder: Autoencoder,
    images: ImageSet,
    settings: Settings,
    labels: Sequence[str] | None,
    batch: int,
    workers: int,
    rank: int,
    world: int,
) -> None:
    settings.check(autoencoder.config)
    if batch < 1 or workers < 0:
        raise ConfigError(f"batch (={batch}) must be at least 1, and workers (={workers}) not negative")
    if not 0 <= rank < world:
        raise ConfigError(f"rank (={rank}) must be one of {world} processes, which are counted from 0")
    if labels is not None and len(labels) != len(images.files):
        raise ConfigError(f"{len(labels)} labels were given for {len(images.files)} images; each needs one")


@contextmanager
def _telling_what_is_done(folder: Path, plan: LatentsPlan, rank: int) -> Iterator[None]:
    """Add the number of finished shards to the error that ends the work early."""
    try:
        yield
    except ConfigError:
        raise
    except (KeyboardInterrupt, VaeworksError) as error:
        shards = plan.shards(rank)
        done = sum(is_done(folder, shard, plan) for shard in shards)
        text = str(error) or "interrupted"
        raise type(error)(
            f"{text}; {done} of {len(shards)} shards are whole and stay, the same call does the rest"
        ) from None


def _encode(
    codec: Codec, images: ImageSet, work: _Work, batch: int, workers: int, say: Say | None, progress: Progress
) -> None:
    settings = work.plan.settings
    squares = Squares(images.files, work.shards, settings.size, codec.autoencoder.config.in_channels)
    total, done = sum(map(len, work.shards)), 0
    with closing(batches(squares, 0, len(images.files), batch, workers, say=say)) as ready:
        coming = _one_ahead(codec, ready, squares, settings)
        for shard in work.shards:
            tensors = {
                name: torch.empty(len(shard), *work.shape, dtype=DTYPES[settings.dtype])
                for name in tensor_names(settings)
            }
            numbers: list[int] = []
            for _ in range(math.ceil(len(shard) / batch)):
                found, usable, tried = next(coming)
                check_finite(found, usable, work.names, settings.dtype)
                for name, values in found.items():
                    tensors[name][len(numbers) : len(numbers) + len(usable)] = values
                numbers += usable
                done += tried
                progress(done, total)
            _write(
                work, shard, {name: tensor[: len(numbers)] for name, tensor in tensors.items()}, numbers, squares.broken
            )


def _one_ahead(
    codec: Codec, ready: Iterator[tuple[Tensor, list[int]]], squares: Squares, settings: Settings
) -> Generator[tuple[dict[str, Tensor], list[int], int]]:
    """Latents on the CPU, the numbers of their images, and the number of images in the batch. A GPU works on the next
    batch meanwhile."""
    before: tuple[dict[str, Tensor], list[int], int] | None = None
    for pixels, numbers in ready:
        usable = [n for n in numbers if n not in squares.broken]
        now = encoded(codec, pixels, usable, settings) if usable else {}, usable, len(numbers)
        if codec.autoencoder.device.type == "cpu":
            yield now
            continue
        if before is not None:
            yield {name: tensor.cpu() for name, tensor in before[0].items()}, *before[1:]
        before = now
    if before is not None:
        yield {name: tensor.cpu() for name, tensor in before[0].items()}, *before[1:]


def _write(work: _Work, shard: Shard, tensors: dict[str, Tensor], numbers: list[int], broken: dict[int, str]) -> None:
    rows = [ShardRow(n, work.names[n], work.digests[n]) for n in numbers]
    skipped = [(work.names[n], broken[n]) for n in range(shard.start, shard.stop) if n in broken]
    write_shard(
        work.folder, shard, tensors | {LABELS: work.labels[numbers]}, Content(rows, skipped), work.plan, work.facts
    )
    work.skipped += skipped


def _below(source: str, name: str) -> str:
    """An image's name, relative to the source if that is a folder, so that the folder may move."""
    return name.removeprefix(f"{Path(source).expanduser()}/")


def _facts(autoencoder: Autoencoder, digest: str, settings: Settings, images: ImageSet) -> dict[str, Any]:
    config = autoencoder.config
    words = settings.preprocessing(config.in_channels)
    return {
        "model": config.name,
        "model_digest": digest,
        "downsample_factor": config.downsample_factor,
        "latent_channels": config.latent_channels,
        **normalization_facts(autoencoder),
        **to_dict(settings),
        "preprocessing": words,
        "preprocessing_sha256": hashlib.sha256(words.encode()).hexdigest(),
        "enlarged": sum(min(file.width, file.height) < settings.size for file in images.files),
    }


def _size(work: _Work) -> int:
    """Bytes of the missing shards."""
    return sum(map(len, work.shards)) * _image_size(work)


def _image_size(work: _Work) -> int:
    settings = work.plan.settings
    return len(tensor_names(settings)) * math.prod(work.shape) * DTYPES[settings.dtype].itemsize


def _check_memory(work: _Work) -> None:
    """Errors: ConfigError where one shard, which is in memory until it is written, would take more than half of the
    free memory."""
    count, half = max(map(len, work.shards)), free_memory(torch.device("cpu")) / 2
    if count * _image_size(work) > half:
        raise ConfigError(
            f"a shard of {count:,} images takes {as_gib(count * _image_size(work))} of memory, more than half of what "
            f"is free; take --shard-size {max(1, int(half // _image_size(work)))} or less"
        )


def _silent(done: int, total: int) -> None:
    pass
