"""Latent files and shards to pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from ..config import TinyConfig
from ..data.inputs import Inputs, files_ending
from ..errors import ConfigError
from ..files.atomic import check_name, write_picture
from ..files.outputs import check_free, distinct, targets
from ..images import crop_to, from_model_range, to_pillow
from ..images.reading import SUFFIXES
from ..reporting import SILENT, Reporter
from ..runtime import Codec
from ..runtime.codec import Certificate
from ..runtime.opening import Model, Precision, open_codec
from .image_file import read_latents
from .shards import names_of


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """One picture of a latent file, or of one entry of a shard."""

    source: str
    """file of latents"""
    path: str | None
    """file that was written; None without `out`"""
    shape: tuple[int, int, int]
    """channels, height, width in pixels"""
    certificate: Certificate | None
    """difference to decoding whole in float32; None without `verify`"""
    image: Tensor | None
    """uint8 c h w; None where it was written"""


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """What `decode` returns: pictures in the order of the files, and of the entries of each shard."""

    images: tuple[DecodedImage, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values, by the name of the written file, or by the source and the picture's number."""
        return {one.path or f"{one.source}:{number}": _facts(one) for number, one in enumerate(self.images)}


def _facts(one: DecodedImage) -> dict[str, Any]:
    checked = {} if one.certificate is None else {"certificate": dataclasses.asdict(one.certificate)}
    return {"source": one.source, "shape": list(one.shape)} | checked


def decode(
    model: Model,
    inputs: Inputs,
    out: str | Path | None = None,
    *,
    memory: str | int | None = None,
    precision: Precision | None = None,
    verify: bool = False,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> DecodedImages:
    """Decode unnormalized latents from files that `encode` wrote, one image each or shards, at any size.

    model: a path, a hub id or an Autoencoder. inputs: .safetensors files or folders of them, one or several. out:
    folder for PNG files, a subfolder for each shard, in which pictures have the names of its images; None returns the
    images as tensors. memory: bytes, or "4GiB", that an image may take beside the weights; larger ones are decoded in
    strips of rows. precision: of the computation; None is the weights' own. verify: measure the difference to decoding
    whole in float32 on a part that fits into memory. settings: facts that the model's file leaves out, as keywords of
    `vw.load`. overwrite: replace files.

    Errors: ConfigError without inputs, for latents of another model, for a file that exists and for a budget below the
    least that works; DataError where there is no such file; FormatError for a file without latents.

    >>> vw.encode("runs/dogs", "a.png", "latents")
    >>> vw.decode("runs/dogs", "latents", memory="4GiB").images[0].image
    """
    sources = files_ending(inputs, ".safetensors")
    codec = open_codec(model, memory, precision, settings)
    pairs: list[Any] = [(path, None) for path, _ in sources]
    if out is not None:
        pairs = targets(sources, Path(out), ".png", overwrite)
    found: list[DecodedImage] = []
    for path, target in pairs:
        found += _decoded(codec, path, target, verify, overwrite, reporter)
    return DecodedImages(tuple(found))


def _decoded(
    codec: Codec, path: Path, target: Path | None, verify: bool, overwrite: bool, reporter: Reporter
) -> Iterator[DecodedImage]:
    """The pictures of one file."""
    found, (height, width) = read_latents(path, codec.autoencoder.config)
    shape = found.shape[-3:]
    certificate = None
    if not isinstance(codec.autoencoder.config, TinyConfig):
        reporter.detail(f"{path}: {codec.plan_decode(1, *shape).sentence}")
    if verify:
        certificate = codec.verify(found.reshape(-1, *shape)[:1])
        reporter.say(certificate.sentence)
    for place, latents in zip(_places(path, target, found, overwrite), found.reshape(-1, *shape), strict=True):
        try:
            decoded = codec.decode(latents[None])
        except ConfigError as error:
            raise type(error)(f"{path}: {error}") from None
        image = crop_to(from_model_range(decoded.float())[0].cpu(), height, width)
        if place is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
            write_picture(place, to_pillow(image), overwrite)
        reporter.say(f"{place or path}  {width} x {height}")
        channels, rows, columns = image.shape
        yield DecodedImage(
            str(path),
            None if place is None else str(place),
            (channels, rows, columns),
            certificate,
            image if place is None else None,
        )


def _places(path: Path, target: Path | None, latents: Tensor, overwrite: bool) -> list[Path | None]:
    """The file of each picture: `target` for one image; for a shard, in a folder of its name, the images' own names, or
    numbers where none are known. They are checked before the first is written.

    Errors: ConfigError for a file that exists.
    """
    if target is None:
        return [None] * (1 if latents.ndim == 3 else len(latents))
    if latents.ndim == 3:
        return [target]
    folder, names = target.with_suffix(""), names_of(path)
    if names is None or len(names) != len(latents):
        names = [f"{number:06}" for number in range(len(latents))]
    places = [folder / place for place in distinct([_below(name) for name in names], ".png")]
    if len(set(places)) < len(places):
        places = [folder / f"{number:06}.png" for number in range(len(latents))]
    check_free(folder, (str(place.relative_to(folder)) for place in places), overwrite)
    for place in places:
        check_name(place)
    return list(places)


def _below(name: str) -> Path:
    """An image's place below the folder, whatever the list says; an ending that is no image's stays in the name."""
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..")] or ["image"]
    known = PurePosixPath(parts[-1]).suffix.lower() in SUFFIXES
    return Path(*parts[:-1], parts[-1] if known else f"{parts[-1]}.png")
