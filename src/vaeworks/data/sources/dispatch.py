"""Data sources: which kind of source a text names, and the images in it.

photos                                      the bundled photographs
procedural[:COUNT[:SIZE[:SEED]]]            drawn images with labels and masks
shapes[:COUNT[:SIZE[:SEED]]]                figures with captions
digits                                      scikit-learn's handwritten digits, labelled
sound:SRC, segments:SRC, stereo:SRC         spectrograms of sound files, or of made[:COUNT[:SEED]] (sound.py)
FOLDER, FILE                                the images of a folder tree and of its tars, parquet and IDX files; or one
                                            image
shards/{000..012}.tar, shards/*.tar         tars in WebDataset's layout
hf:OWNER/NAME[/CONFIG][:SPLIT[:COLUMN]]     a data set of the Hugging Face hub
dataset:PATH[:SPLIT[:COLUMN]]               a data set on this machine: written by `save_to_disk`, or a folder with
                                            parquet or other files
stream:SOURCE                               tars or a data set, read from front to back
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...config.recorded import HUB, STREAM
from ...errors import DataError, VaeworksError
from ...images import SUFFIXES
from ..image_ref import ImageRef
from ..synthetic.captioned_shapes import is_shapes, shapes_source
from ..synthetic.procedural import is_procedural, procedural_source
from .digits import DIGITS, digits, idx_files
from .folder import Tree, find_images
from .hub import LOCAL, DatasetName, Shards, dataset_name, is_dataset_folder, rows
from .sound import SEGMENTS, SOUND, STEREO, segments, sounds
from .tar_stream import TarShards
from .tars import all_tar_members, tar_files


def is_stream(source: str | Path) -> bool:
    """Whether a source is read from front to back."""
    return str(source).startswith(STREAM)


def find_places(source: str | Path) -> tuple[list[ImageRef], list[tuple[str, str]]]:
    """The images of a source in its order, and (name, reason) of those that are known to be unusable.

    Errors: DataError for a source that is missing or empty; MissingExtraError for a data set without `datasets`.
    """
    try:
        return _found(source)
    except (OSError, RuntimeError) as error:
        raise _not_looked_at(source, error) from None


def _not_looked_at(source: str | Path, error: Exception) -> DataError:
    """The error for names that are too long, unknown home folders, and thousands of nested folders."""
    return DataError(
        f"data source {str(source)[:300]!r} cannot be looked at: {getattr(error, 'strerror', None) or error}"
    )


def _found(source: str | Path) -> tuple[list[ImageRef], list[tuple[str, str]]]:
    name = str(source)
    if is_stream(name):
        raise DataError(f"{name} is read from front to back, which only training can; leave {STREAM!r} away")
    if name.startswith((HUB, LOCAL)):
        dataset = dataset_name(name)
        tars = tar_files(dataset.path) if dataset.kind == LOCAL else None
        return _in_tars(tars, name, dataset.column) if tars else (list(rows(dataset)), [])
    if is_procedural(name):
        return list(procedural_source(name)), []
    if is_shapes(name):
        return list(shapes_source(name)), []
    if name == DIGITS:
        return list(digits()), []
    if name.startswith(SOUND):
        return list(sounds(name.removeprefix(SOUND))), []
    if name.startswith(STEREO):
        return list(sounds(name.removeprefix(STEREO), channels=2)), []
    if name.startswith(SEGMENTS):
        pieces, skipped = segments(name.removeprefix(SEGMENTS))
        return list(pieces), skipped
    root = Path(source).expanduser()
    if root.is_dir():
        return _in_folder(root, name)
    if tars := tar_files(name):
        return _in_tars(tars, name)
    return list(find_images(source)), []


def _in_folder(root: Path, name: str) -> tuple[list[ImageRef], list[tuple[str, str]]]:
    """All images of a folder: its pictures, those in its tars, in its parquet files and in its IDX files.

    Beside others, a file without usable images is skipped; alone, it is an error.
    """
    if is_dataset_folder(root):
        return list(rows(DatasetName(LOCAL, str(root)))), []
    tree = Tree(root)
    places: list[ImageRef] = list(tree.ending(SUFFIXES))
    skipped = tree.left_out()
    kinds: list[tuple[list[Path], Callable[[list[Path]], tuple[list[ImageRef], list[tuple[str, str]]]]]] = [
        (tar_files(name) or [], lambda files: _in_tars(files, name)),
        (tree.ending((".parquet",)), lambda _: (list(rows(DatasetName(LOCAL, str(root)))), [])),
        (idx_files(root), lambda files: ([digit for file in files for digit in digits(str(file))], [])),
    ]
    there = [(files, read) for files, read in kinds if files]
    for files, read in there:
        try:
            found, unusable = read(files)
        except VaeworksError as error:
            if not places and len(there) == 1:
                raise
            skipped += [(str(file), str(error)) for file in files]
            continue
        places += found
        skipped += unusable
    if not places:
        what = f"; {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise DataError(f"no image file in {name!r}; looked for {' '.join(SUFFIXES)} in all its subfolders{what}")
    return places, skipped


def _in_tars(tars: list[Path], name: str, field: str = "") -> tuple[list[ImageRef], list[tuple[str, str]]]:
    members, skipped = all_tar_members(tars, field)
    if not members:
        what = f"; {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise DataError(f"no image in {len(tars)} tars of {name!r}; looked for {field or ' '.join(SUFFIXES)}{what}")
    return list(members), skipped


def open_shards(source: str) -> Shards | TarShards:
    """The shards of a source that begins with `stream:`.

    Errors: DataError for a source that cannot be streamed; MissingExtraError for a data set without `datasets`.
    """
    try:
        name = streamed_dataset(source)
        tars = tar_files(name.path) if name.kind == LOCAL else None
    except (OSError, RuntimeError) as error:
        raise _not_looked_at(source, error) from None
    return TarShards(name, tars) if tars else Shards(name)


def streamed_dataset(source: str) -> DatasetName:
    """The data set of a source that begins with `stream:`.

    Errors: DataError for a source that cannot be streamed.
    """
    name = source.removeprefix(STREAM)
    if name.startswith((HUB, LOCAL)):
        return dataset_name(name)
    if tar_files(name) or Path(name).expanduser().is_dir():
        return DatasetName(LOCAL, str(Path(name).expanduser()))
    raise DataError(f"{name!r} cannot be streamed; give tars, {HUB}OWNER/NAME or {LOCAL}PATH behind {STREAM!r}")
