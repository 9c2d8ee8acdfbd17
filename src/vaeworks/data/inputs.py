"""Files in: what IN and SRC mean on the command line and in the functions behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from PIL import Image

from ..arguments import several
from ..errors import ConfigError, DataError
from ..files.links import missing
from ..images import Pixels, has_alpha, is_pixels, kind_of, open_image
from ..reporting import SILENT, Reporter, under_bar
from .image_ref import ImageFile, read_place
from .image_set import ImageSet, scan
from .memory_images import images_in_memory
from .sources.folder import Tree, find_images

Inputs: TypeAlias = str | Path | Sequence[str | Path]
"""One file or folder, or several."""

T = TypeVar("T")

BUILT_IN = {
    "photos": "the bundled photographs",
    "procedural": "images that are drawn",
    "shapes": "figures with captions",
    "digits": "handwritten digits",
}
"""Sources that are there without files."""


def data_source(data: str | Path, built_in: Iterable[str] = BUILT_IN, reporter: Reporter = SILENT) -> str:
    """SRC as it is; the reporter is warned where a folder has the name of a built-in source. built_in: those names of
    BUILT_IN that would be taken. Errors: ConfigError for what is no SRC."""
    check_source(data)
    data = str(data)
    if data in built_in and Path(data).is_dir():
        reporter.warn(f"taking {BUILT_IN[data]}; for the folder of that name write ./{data}")
    return data


def check_source(data: object) -> None:
    """Errors: ConfigError for what is no SRC."""
    if not isinstance(data, (str, Path)):
        raise ConfigError(
            f"data must be the name of a source, such as a folder (docs/data.md), not {kind_of(data)}; save images "
            "that are in memory to a folder"
        )


Images: TypeAlias = str | Path | ImageSet | Sequence[ImageFile] | Sequence[str | Path] | Pixels | Sequence[Pixels]
"""SRC, several of them, images that `scan` has found, or images in memory: Pillow images, arrays n h w c or h w c,
tensors n c h w or c h w, of uint8 or of floats in [0,1] or [-1,1]."""


def source_name(data: Images) -> str:
    """What results call the images' source."""
    if isinstance(data, (str, Path)):
        return str(data)
    return data.source if isinstance(data, ImageSet) else "images in memory"


def image_set(data: Images, reporter: Reporter = SILENT, *, decode: bool = True) -> ImageSet:
    """The images of a source, of several, or in memory. decode: as in `scan`.

    Errors: those of `scan`; ConfigError for anything else.
    """
    if isinstance(data, ImageSet):
        return data
    found: Sequence[Any] = (data,) if is_pixels(data) else several(data)
    if found and all(isinstance(image, ImageFile) for image in found):
        return ImageSet("", tuple(found))
    if found and all(map(is_pixels, found)):
        return ImageSet(source_name(found), images_in_memory(found))
    if not found or not all(isinstance(source, (str, Path)) for source in found):
        wrong = next((one for one in found if not isinstance(one, (str, Path))), data)
        raise ConfigError(
            "data must be a folder or another source (docs/data.md), files, Pillow images, arrays or tensors, not "
            f"{kind_of(wrong) if found else 'an empty sequence'}"
        )
    return _joined([_scanned(data_source(source, reporter=reporter), decode, reporter) for source in found])


def _scanned(source: str, decode: bool, reporter: Reporter) -> ImageSet:
    """The images of a source, while a bar shows how many of them are looked at."""
    return scan(source, progress=partial(under_bar, reporter.counting("looking at images")), decode=decode)


def _joined(sets: Sequence[ImageSet]) -> ImageSet:
    """The images of several sets, one after the other."""
    if len(sets) == 1:
        return sets[0]
    return ImageSet(
        " ".join(found.source for found in sets),
        tuple(file for found in sets for file in found.files),
        tuple(entry for found in sets for entry in found.skipped),
    )


def image_files(inputs: Inputs, reporter: Reporter = SILENT) -> list[tuple[Path, Path]]:
    """(image file, its place below the folder that was named). Errors: ConfigError without inputs; DataError where
    there is no image."""
    found = []
    for source in listed(inputs):
        name = data_source(str(source), ("photos",), reporter)
        found += [(path, source) for path in find_images(name)]
        if name != "photos" and (root := Path(name).expanduser()).is_dir():
            warn_of_skipped(Tree(root).left_out(), reporter)
    return [
        (path, path.relative_to(source) if Path(source).is_dir() and source != "photos" else Path(path.name))
        for path, source in found
    ]


def files_ending(inputs: Inputs, suffix: str) -> list[tuple[Path, Path]]:
    """(file, its place below the folder that was named). Errors: ConfigError without inputs; DataError where there is
    no such file."""
    inputs = listed(inputs)
    found: list[tuple[Path, Path]] = []
    for source in map(Path, inputs):
        if not source.exists():
            raise DataError(f"{str(source)!r} {missing(source)}; give {suffix} files or folders of them")
        found += (
            [(p, p.relative_to(source)) for p in sorted(source.rglob(f"*{suffix}"))]
            if source.is_dir()
            else [(source, Path(source.name))]
        )
    if not found:
        there = Counter(path.suffix for folder in inputs for path in Path(folder).rglob("*") if path.is_file())
        others = ", ".join(f"{count:,} {ending or 'without an ending'}" for ending, count in there.most_common(3))
        more = f"; it has files that end otherwise: {others}" if others else ""
        raise DataError(f"no {suffix} file in {', '.join(map(str, inputs))}{more}")
    return found


def listed(inputs: Inputs) -> list[str | Path]:
    """The inputs as a list, also where one is given alone. Errors: ConfigError without inputs."""
    found = list(several(inputs))
    if wrong := [source for source in found if not isinstance(source, (str, Path))]:
        raise ConfigError(
            f"inputs must be files or folders, not {kind_of(wrong[0])}; for an image in memory "
            "`vae.encode(vaeworks.open_image(image))`, and `vae.decode` or `vae.reconstruct`"
        )
    if not found:
        raise ConfigError("no IN is given; name files or folders behind MODEL")
    return found


def readable_images(
    pairs: Sequence[tuple[Path, T]], channels: int, reporter: Reporter = SILENT
) -> Iterator[tuple[Path, T, Image.Image]]:
    """(source, target, image) of every file that can be read; the others are named, and are an error if there is no
    image at all."""
    errors, flattened = [], 0
    for source, target in pairs:
        try:
            content = _content(source)
            image = opened(source, channels, content)
        except DataError as error:
            errors.append(error)
            reporter.warn(f"skipped {error}")
            continue
        flattened += has_alpha(content)
        yield source, target, image
    if len(errors) == len(pairs):
        raise errors[0]
    _say_flattened(flattened, len(pairs), reporter)


def opened(path: Path, channels: int, content: bytes | None = None) -> Image.Image:
    """The image in a file, or in its content that was read already; a DataError names the file."""
    try:
        return open_image(path if content is None else content, channels)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _content(path: Path) -> bytes:
    try:
        return read_place(path)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def say_flattened(files: Sequence[ImageFile], reporter: Reporter) -> None:
    """Say how many of the images are transparent: networks get them laid on white."""
    _say_flattened(sum(bool(file.alpha) for file in files), len(files), reporter)


def _say_flattened(count: int, total: int, reporter: Reporter) -> None:
    if count:
        reporter.warn(f"{count:,} of {total:,} images have transparency, and were laid on white")


def warn_of_skipped(skipped: Iterable[tuple[str, str]], reporter: Reporter) -> None:
    """Name the images that were left out: (name, reason) each."""
    for name, reason in skipped:
        reporter.warn(f"skipped {name}: {reason}")
