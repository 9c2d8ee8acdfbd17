"""The command `encode`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional

from .console import TERMINAL, results
from .options import Memory, Model, Out, Overwrite, Told, arg, settings_of

if TYPE_CHECKING:
    from ..latents.encode_files import LatentShards

Sources = Annotated[
    Positional[tuple[str, ...]],
    arg(metavar="IN", help="one or more image files or sources: folder, tars, hf:OWNER/NAME (docs/data.md)"),
]


def encode(
    model: Model,
    inputs: Sources,
    out: Out,
    into: Annotated[
        Literal["files", "shards"] | None,
        arg(
            help="form of the output; files: one per image, of its own size; shards: many squares in each; "
            "default: files for image files"
        ),
    ] = None,
    posterior: Annotated[
        Literal["mode", "sample", "moments"], arg(help="latents to keep; moments: means and log-variances (shards)")
    ] = "mode",
    seed: Annotated[int, arg(help="random seed of --posterior sample")] = 0,
    size: Annotated[int | None, arg(metavar="PX", help="shards: side of the squares; default: about 256")] = None,
    flip: Annotated[bool, arg(help="shards: also encode the mirrored images")] = False,
    labels: Annotated[
        str | None,
        arg(
            metavar="HOW",
            help="shards: classes of the images: folders, names, none, or a CSV file; default: folders, if any",
        ),
    ] = None,
    dtype: Annotated[Literal["fp32", "bf16", "fp16"], arg(help="shards: number format of the stored latents")] = "fp32",
    precision: Annotated[
        Literal["fp32", "bf16"] | None,
        arg(help="number format of the computation; default: the weights' for files, fp32 for shards"),
    ] = None,
    shard_size: Annotated[int, arg(metavar="N", help="shards: images in each")] = 10_000,
    batch: Annotated[int, arg(metavar="N", help="shards: images in a batch")] = 8,
    workers: Annotated[int, arg(metavar="N", help="shards: processes that read and resize images")] = 2,
    memory: Memory = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Encode images to latents: one file per image, or a whole data set in shards.

    A second call with the same arguments encodes what is missing. See docs/latents.md.
    In Python: `vaeworks.encode`.
    """
    from ..latents.encode_files import LatentShards
    from ..latents.encode_files import encode as run

    result = run(
        model,
        inputs,
        out,
        into=into,
        posterior=posterior,
        seed=seed,
        size=size,
        flip=flip,
        labels=labels,
        dtype=dtype,
        precision=precision,
        shard_size=shard_size,
        batch=batch,
        workers=workers,
        memory=memory,
        settings=settings_of(told),
        overwrite=overwrite,
        reporter=TERMINAL,
    )
    if isinstance(result, LatentShards):
        _print_shards(result)
    return result.to_dict()


def _print_shards(result: LatentShards) -> None:
    done = result.encoded
    speed = f", {result.images_per_second:.2f} images/s" if result.images_per_second else ""
    results().print(
        f"{result.out}  {done.images:,} images encoded{speed}"
        + (f"; {done.kept:,} were there" if done.kept else "")
        + ("" if done.complete else "; the other processes' are not complete yet")
    )
