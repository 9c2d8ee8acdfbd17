"""What `edit` and `restore` share: pictures in, masks, and a record beside the pictures that come out."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.inputs import data_source, image_files, opened, readable_images, warn_of_skipped
from ..errors import ConfigError, DataError
from ..files.outputs import check_free, targets
from .console import TERMINAL, bar, console
from .paths import placed

if TYPE_CHECKING:
    from torch import Tensor

    from ..apps.codes import Codes
    from ..models import Autoencoder
    from ..runtime import Codec

SCHEMA = 1
"""Of edit.json and restore.json; rises when a key changes its meaning."""


def differentiable(model: str, memory: str | None = None, told: tuple[str, ...] = ()) -> Codec:
    """The model to be differentiated, on a GPU where there is one."""
    from ..runtime import Codec

    return Codec(placed(model, told).eval().requires_grad_(False), memory=memory)


def places(
    inputs: tuple[str, ...], out: Path, overwrite: bool, record: str, codec: Codec, versions: int = 1
) -> tuple[list[tuple[Path, Path]], Path]:
    """Pairs of files that can be read and targets, and the record's place; everything is checked before anything is
    written.

    versions: pictures that are made of each.
    """
    sources = image_files(inputs, TERMINAL)
    names = [place.with_suffix(".png") for _, place in sources]
    results = [version_place(name, number, versions) for name in names for number in range(versions)]
    written = [*results, *(strip_place(out, out / name).relative_to(out) for name in names)]
    check_free(out, [record, *map(str, written)], overwrite)
    if twice := next((name for name, count in Counter(written).items() if count > 1), None):
        raise ConfigError(f"two results would become {out / twice}; give their pictures in two calls with two --out")
    pairs = targets(sources, out, ".png", overwrite)
    return [
        (path, target) for path, target, _ in readable_images(pairs, codec.autoencoder.config.in_channels, TERMINAL)
    ], out / record


def version_place(place: Path, number: int, versions: int) -> Path:
    """Where one of several pictures that are made of one goes."""
    return place if versions == 1 else place.with_stem(f"{place.stem}-{number}")


def strip_place(out: Path, target: Path) -> Path:
    """Where a picture is shown beside what it was made from."""
    return out / "strips" / target.relative_to(out)


def recorded(place: Path, result: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    """Write what a command has found, and return it."""
    from ..config import dumps
    from ..files.atomic import write_text

    result = {"schema": SCHEMA, **result}
    write_text(place, dumps(result), overwrite)
    console().print(f"{place} has every figure; {place.parent / 'strips'} shows pictures side by side")
    return result


def mask_files(paths: list[Path], mask: Path | None) -> list[Path | None]:
    """The file of every picture's mask: one for all of them, or from a folder by name. Errors: DataError for a picture
    without one."""
    from ..data.image_ref import ImageFile
    from ..data.labels import find_masks

    if mask is None:
        return [None] * len(paths)
    if mask.is_dir():
        found = find_masks([ImageFile(path, "", 0, 0) for path in paths], mask)
        places = [Path(str(place)) if place else None for place in found or ()]
        if missing := next((path for path, place in zip(paths, places, strict=True) if place is None), None):
            raise DataError(f"{missing} has no mask in {mask}; every picture needs one, such as {missing.stem}.png")
        return list(places)
    return [mask] * len(paths)


def read_mask(file: Path | None) -> Tensor | None:
    """bool h w; None without a file."""
    from ..images import marked

    return None if file is None else marked(opened(file, 1))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors inside name the picture."""
    try:
        yield
    except (ConfigError, DataError) as error:
        raise type(error)(f"{path}: {error}") from None


def squares(autoencoder: Autoencoder, source: str, size: int | None, limit: int | None = None) -> Codes:
    """Images of a source as squares, encoded; `limit` at most, evenly spaced."""
    from ..apps.codes import check_size, encode_squares
    from ..data import scan
    from ..doctor.image_sample import choose
    from ..images import default_size

    size = default_size(autoencoder.config) if size is None else size
    check_size(autoencoder, size)
    images = scan(data_source(source, reporter=TERMINAL), decode=False)
    if limit is not None:
        images = dataclasses.replace(images, files=tuple(images.files[i] for i in choose(images.files, limit, False)))
    codes = encode_squares(autoencoder, images, size, track=bar(f"encode {source}"))
    warn_of_skipped(codes.skipped, TERMINAL)
    return codes
