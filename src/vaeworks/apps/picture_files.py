"""Image files in and out, for restoring and editing: targets, strips for comparison, masks, the record of a call."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ..config import dumps
from ..data.image_ref import ImageFile
from ..data.inputs import Images, Inputs, image_files, image_set, opened, readable_images, warn_of_skipped
from ..data.labels import find_masks
from ..data.subsets import spaced
from ..errors import ConfigError, DataError
from ..files.atomic import write_text
from ..files.outputs import check_free, targets
from ..images import default_size, marked
from ..models import Autoencoder
from ..models.modes import evaluating
from ..pages.gallery import REPORT
from ..reporting import SILENT, Reporter
from .codes import Codes, check_size, encode_squares

SCHEMA = 1
"""Version of edit.json and restore.json; it rises when a key changes its meaning."""


def picture_targets(
    inputs: Inputs,
    out: Path,
    record: str,
    channels: int,
    *,
    versions: int = 1,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> list[tuple[Path, Path]]:
    """(image file, its result below `out`) for every input that can be read. Nothing is written but the folder.

    record: name of the record. versions: results per image.
    Errors: ConfigError where a result exists, or two inputs have the same result; DataError where no image can be read.
    """
    sources = image_files(inputs, reporter)
    names = [place.with_suffix(".png") for _, place in sources]
    results = [version_place(name, number, versions) for name in names for number in range(versions)]
    written = [*results, *(strip_place(out, out / name).relative_to(out) for name in names)]
    check_free(out, [record, REPORT, *map(str, written)], overwrite)
    if twice := next((name for name, count in Counter(written).items() if count > 1), None):
        raise ConfigError(f"two results would become {out / twice}; give their pictures in two calls with two --out")
    pairs = targets(sources, out, ".png", overwrite)
    return [(path, target) for path, target, _ in readable_images(pairs, channels, reporter)]


def version_place(place: Path, number: int, versions: int) -> Path:
    """The file of result `number`, where an image has several."""
    return place if versions == 1 else place.with_stem(f"{place.stem}-{number}")


def strip_place(out: Path, target: Path) -> Path:
    """The file that shows an input and its results side by side."""
    return out / "strips" / target.relative_to(out)


def write_record(place: Path, facts: Mapping[str, Any], overwrite: bool) -> None:
    """Write edit.json or restore.json."""
    write_text(place, dumps(facts), overwrite)


def mask_files(paths: Sequence[Path], mask: Path | None) -> list[Path | None]:
    """The mask of every image: one file for all, or files of a folder by name. Errors: DataError where one is
    missing."""
    if mask is None:
        return [None] * len(paths)
    if not mask.exists():
        raise DataError(f"mask {str(mask)!r} does not exist; give an image, or a folder with a mask for each image")
    if not mask.is_dir():
        return [mask] * len(paths)
    found = find_masks([ImageFile(path, "", 0, 0) for path in paths], mask)
    places = [Path(str(place)) if place else None for place in found or ()]
    if missing := next((path for path, place in zip(paths, places, strict=True) if place is None), None):
        raise DataError(f"{missing} has no mask in {mask}; every picture needs one, such as {missing.stem}.png")
    return list(places)


def read_mask(file: Path | None) -> Tensor | None:
    """bool h w; None without a file."""
    return None if file is None else marked(opened(file, 1))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the file's name before the errors inside."""
    try:
        yield
    except (ConfigError, DataError) as error:
        raise type(error)(f"{path}: {error}") from None


@contextmanager
def frozen(autoencoder: Autoencoder) -> Iterator[Autoencoder]:
    """The autoencoder without gradients of its weights; afterwards it is as it was."""
    learned = [p for p in autoencoder.parameters() if p.requires_grad]
    autoencoder.requires_grad_(False)
    try:
        with evaluating(autoencoder):
            yield autoencoder
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)


def encoded_source(
    autoencoder: Autoencoder, source: Images, size: int | None, limit: int | None = None, reporter: Reporter = SILENT
) -> Codes:
    """The squares of a data source, encoded.

    size: side of the squares in pixels; None: `default_size`. limit: most images, evenly spaced.
    Errors: those of `encode_squares`.
    """
    size = default_size(autoencoder.config) if size is None else size
    check_size(autoencoder, size)
    images = image_set(source, reporter, decode=False)
    if limit is not None:
        images = dataclasses.replace(images, files=tuple(images.files[i] for i in spaced(len(images.files), limit)))
    codes = encode_squares(autoencoder, images, size, track=partial(reporter.track, what=f"encode {images.source}"))
    warn_of_skipped(codes.skipped, reporter)
    return codes
