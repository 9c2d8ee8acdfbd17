"""Files in: what IN and SRC mean on the command line and in the functions behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from PIL import Image

from ..arguments import several
from ..errors import ConfigError, DataError
from ..files.links import missing
from ..images import has_alpha, open_image
from ..reporting import SILENT, Reporter
from .image_ref import ImageFile, read_place
from .image_set import ImageSet, scan
from .sources.folder import Tree, find_images

Inputs: TypeAlias = str | Path | Sequence[str | Path]
"""One file or folder, or several."""

T = TypeVar("T")

BUILT_IN = {"photos": "the bundled photographs", "procedural": "images that are drawn", "digits": "handwritten digits"}
"""Sources that are there without files."""


def data_source(data: str, built_in: Iterable[str] = BUILT_IN, reporter: Reporter = SILENT) -> str:
    """SRC as it is; the reporter is warned where a folder has the name of a built-in source. built_in: those names of
    BUILT_IN that would be taken."""
    if data in built_in and Path(data).is_dir():
        reporter.warn(f"taking {BUILT_IN[data]}; for the folder of that name write ./{data}")
    return data


Images: TypeAlias = str | Path | ImageSet | Sequence[ImageFile]
"""SRC, or images that `scan` has found."""


def image_set(data: Images, reporter: Reporter = SILENT) -> ImageSet:
    """The images of a source. Errors: those of `scan`."""
    if isinstance(data, (str, Path)):
        return scan(data_source(str(data), reporter=reporter))
    if isinstance(data, ImageSet):
        return data
    if isinstance(data, Iterable):
        for image in (found := tuple(data)):
            if not isinstance(image, ImageFile):
                break
        else:
            return ImageSet("", found)
    raise ConfigError(f"data must be a source or images that vaeworks.data.scan found, not {type(data).__name__}")


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
        raise ConfigError(f"inputs must be files or folders, not {type(wrong[0]).__name__}")
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
        reporter.say(f"{count:,} of {total:,} images have transparency, and were laid on white")


def warn_of_skipped(skipped: Iterable[tuple[str, str]], reporter: Reporter) -> None:
    """Name the images that were left out: (name, reason) each."""
    for name, reason in skipped:
        reporter.warn(f"skipped {name}: {reason}")
