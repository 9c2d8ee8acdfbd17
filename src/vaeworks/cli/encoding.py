"""The command that makes latents: of single images, or of whole data sets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from ..data.inputs import data_source, image_files, readable_images
from ..errors import ConfigError
from ..files.outputs import targets
from ..launcher import place
from .console import TERMINAL, console
from .options import Memory, Model, Out, Overwrite, Told, settings_of
from .paths import codec

if TYPE_CHECKING:
    from ..data import ImageSet
    from ..runtime import Codec

SHARD, BATCH, WORKERS = 10_000, 8, 2

Sources = Annotated[
    Positional[tuple[str, ...]],
    arg(metavar="IN", help="image files, or a source: folder, tars, hf:OWNER/NAME (docs/data.md)"),
]


def encode(
    model: Model,
    inputs: Sources,
    out: Out,
    into: Annotated[
        Literal["files", "shards"] | None,
        arg(help="a file per image, of its own size, or shards of squares; by default files for image files"),
    ] = None,
    posterior: Annotated[
        Literal["mode", "sample", "moments"], arg(help="which latents; moments: means and log-variances (shards)")
    ] = "mode",
    seed: Annotated[int, arg(help="of --posterior sample")] = 0,
    size: Annotated[
        int | None, arg(metavar="PX", help="shards: side of the squares that images become; by default about 256")
    ] = None,
    flip: Annotated[bool, arg(help="shards: latents of the mirrored images as well")] = False,
    labels: Annotated[
        str | None,
        arg(metavar="HOW", help="shards: folders, names, none, or a CSV file; by default folders where there are any"),
    ] = None,
    dtype: Annotated[Literal["fp32", "bf16", "fp16"], arg(help="shards: of the latents that are kept")] = "fp32",
    precision: Annotated[
        Literal["fp32", "bf16"] | None,
        arg(help="of the computation; by default the weights' for files, fp32 for shards"),
    ] = None,
    shard_size: Annotated[int, arg(metavar="N", help="shards: images in each")] = SHARD,
    batch: Annotated[int, arg(metavar="N", help="shards: images that go through the network together")] = BATCH,
    workers: Annotated[int, arg(metavar="N", help="shards: processes that read and resize images")] = WORKERS,
    memory: Memory = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Images to latents, unnormalized: a file each, or a data set's in shards (docs/latents.md), where a second call
    does the rest."""
    if not inputs:
        raise ConfigError("no IN is given: vaeworks encode MODEL IN --out DIR")
    if into is None:
        into = "files" if all(_is_image_file(name) for name in inputs) else "shards"
    if into == "files":
        given = {
            "--size": size is not None,
            "--flip": flip,
            "--labels": labels is not None,
            "--dtype": dtype != "fp32",
            "--posterior moments": posterior == "moments",
            "--shard-size": shard_size != SHARD,
            "--batch": batch != BATCH,
            "--workers": workers != WORKERS,
        }
        if wrong := [name for name, is_given in given.items() if is_given]:
            raise ConfigError(f"{', '.join(wrong)}: only for shards; pass --into shards, or leave it away")
        return _files(codec(model, memory, precision, told), inputs, out, posterior, seed, overwrite)

    from ..devices import resolve_device
    from ..formats import load
    from ..images import default_size
    from ..latents import Settings

    autoencoder = load(model, **settings_of(told)).to(resolve_device("auto"))
    settings = Settings(
        size=default_size(autoencoder.config) if size is None else size,
        posterior=posterior,
        dtype=dtype,
        precision=precision or "fp32",
        flip=flip,
        shard_size=shard_size,
        seed=seed,
    )
    options = {"batch": batch, "workers": workers, "memory": memory, "overwrite": overwrite}
    return _shards(autoencoder, inputs, out, settings, labels, options)


def _is_image_file(name: str) -> bool:
    from ..images import SUFFIXES

    return name.lower().endswith(SUFFIXES) and not Path(name).is_dir()


def _files(
    through: Codec, inputs: tuple[str, ...], out: Path, posterior: str, seed: int, overwrite: bool
) -> dict[str, Any]:
    """One safetensors file per image, `latents` c h/f w/f."""
    import torch

    from ..images import to_uint8
    from ..latents.image_file import write_latents
    from ..latents.posteriors import picture_posterior

    config = through.autoencoder.config
    generator = torch.Generator().manual_seed(seed)
    rows: dict[str, Any] = {}
    for path, target, picture in readable_images(
        targets(image_files(inputs, TERMINAL), out, ".safetensors", overwrite), config.in_channels, TERMINAL
    ):
        image = to_uint8(picture)
        found = picture_posterior(through, image)
        latents = (found.mode() if posterior == "mode" else found.sample(generator))[0]
        write_latents(target, latents, config, (image.shape[-2], image.shape[-1]), posterior, overwrite)
        rows[str(target)] = {"source": str(path), "shape": list(latents.shape)}
        console().print(f"{target}  {' x '.join(map(str, latents.shape))}")
    return rows


def _shards(
    autoencoder: Any, inputs: tuple[str, ...], out: Path, settings: Any, labels: str | None, options: dict[str, Any]
) -> dict[str, Any]:
    """A data set in shards; of several processes that a launcher has started, each does its part."""
    from ..data.labels import find_labels
    from ..latents import encode_dataset

    settings.check(autoencoder.config)
    images = _scanned(inputs)
    classes = find_labels(images.files, labels)
    here = place()
    began = time.perf_counter()
    with _image_bar("encoding") as progress:
        done = encode_dataset(
            autoencoder,
            images,
            out,
            settings,
            labels=classes,
            rank=0 if here is None else here.rank,
            world=1 if here is None else here.size,
            say=lambda text: console().print(text, style="yellow"),
            progress=progress,
            **options,
        )
    seconds = time.perf_counter() - began
    rate = done.images / seconds if done.images else None
    for name, reason in done.skipped:
        console().print(f"skipped {name}: {reason}", style="yellow")
    smaller = sum(min(file.width, file.height) < settings.size for file in images.files)
    if smaller:
        console().print(f"{smaller} images are smaller than {settings.size} px and were enlarged", style="yellow")
    speed = f", {rate:.2f} images/s" if rate else ""
    console().print(
        f"{out}  {done.images:,} images encoded{speed}"
        + (f"; {done.kept:,} were there" if done.kept else "")
        + ("" if done.complete else "; the other processes' are not complete yet")
    )
    return {
        "out": str(out),
        "images": done.images,
        "kept": done.kept,
        "complete": done.complete,
        "classes": len(set(classes or ())),
        "skipped": [list(entry) for entry in done.skipped],
        "enlarged": smaller,
        "images_per_second": rate,
    }


def _scanned(inputs: tuple[str, ...]) -> ImageSet:
    """The images of one source, or of several, one after the other."""
    from ..data import ImageSet, scan

    sets = [scan(data_source(name, reporter=TERMINAL), progress=_listing_bar, decode=False) for name in inputs]
    if len(sets) == 1:
        return sets[0]
    return ImageSet(
        " ".join(inputs), tuple(f for s in sets for f in s.files), tuple(entry for s in sets for entry in s.skipped)
    )


def _listing_bar(items: Iterable[Any], total: int) -> Iterable[Any]:
    from rich.progress import track

    return track(items, "listing", total=total, console=console(), transient=True, disable=not console().is_terminal)


@contextmanager
def _image_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar that is told the images done and to be done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console(), transient=True, disable=not console().is_terminal) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
