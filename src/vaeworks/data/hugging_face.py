"""Images in data sets of the Hugging Face `datasets` library: rows read in any order, or shard by shard as a stream."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, MissingExtraError
from .tars import tar_files

HUB, LOCAL = "hf:", "dataset:"
"""What a source begins with that is a data set of the hub, or one on this machine."""


@dataclass(frozen=True, slots=True)
class DatasetName:
    """What a source says of a data set: where it is, and which split and column; empty where it does not say."""

    kind: str
    """HUB or LOCAL"""
    path: str
    """OWNER/NAME, or the data set's folder or tars"""
    config: str = ""
    split: str = ""
    column: str = ""

    def __str__(self) -> str:
        return self.kind + self.path + (f"/{self.config}" if self.config else "")


@dataclass(frozen=True, slots=True)
class Row:
    """An image in a row of a data set."""

    name: DatasetName
    """with its split and column"""
    index: int

    @property
    def stem(self) -> str:
        """The row's number."""
        return str(self.index)

    def read_bytes(self) -> bytes:
        """The encoded image. Errors: OSError; DataError for a row without one."""
        return encoded(_table(self.name)[self.index].column(0)[0].as_py())

    def __str__(self) -> str:
        return f"{self.name}:{self.name.split}#{self.index}"


def dataset_name(source: str) -> DatasetName:
    """hf:OWNER/NAME[/CONFIG][:SPLIT[:COLUMN]] or dataset:PATH[:SPLIT[:COLUMN]], taken apart.

    Errors: DataError for anything else.
    """
    if source.startswith(LOCAL):
        path, split, column = source.removeprefix(LOCAL), "", ""
        if not Path(path).expanduser().exists() and (match := re.fullmatch(r"(.+?):([\w.]*)(?::([^:/]+))?", path)):
            path, split, column = match[1], match[2], match[3] or ""
        path = str(Path(path).expanduser())
        if not Path(path).exists() and not tar_files(path):
            raise DataError(f"data set {path!r} does not exist; {HUB}OWNER/NAME is one of the hub")
        return DatasetName(LOCAL, path, "", split, column)
    match = re.fullmatch(rf"{HUB}([\w.-]+/[\w.-]+)(?:/([^/:]+))?(?::([\w.]*))?(?::([^:/]+))?", source)
    if match is None:
        raise DataError(f"{source!r} is no data set; write {HUB}OWNER/NAME, {HUB}OWNER/NAME:SPLIT or {HUB}OWNER/NAME/CONFIG:SPLIT:COLUMN")
    return DatasetName(HUB, match[1], *(word or "" for word in match.groups()[1:]))


def is_dataset_folder(folder: Path) -> bool:
    """Whether `save_to_disk` of the library has written this folder."""
    return (folder / "dataset_dict.json").is_file() or ((folder / "state.json").is_file() and (folder / "dataset_info.json").is_file())


def rows(name: DatasetName) -> list[Row]:
    """Every row of a data set.

    Errors: MissingExtraError without `datasets`; DataError for one that cannot be opened, or without a column of images.
    """
    name, dataset = _opened(name, streaming=False)
    _tables[name] = _as_table(name, dataset)
    return [Row(name, index) for index in range(len(dataset))]


class Shards:
    """A data set as a stream: the rows of any of its shards from any row on, in the order in which they are stored."""

    def __init__(self, name: DatasetName):
        self.name, dataset = _opened(name, streaming=True)
        self.count: int = dataset.num_shards
        self._dataset: Any = dataset

    def rows(self, shard: int, start: int = 0) -> Iterator[tuple[str, bytes | DataError]]:
        """(name, encoded image, or why there is none) of a shard's rows from number `start` on; what is before is read and dropped.

        Errors: DataError where the shard cannot be read on.
        """
        part = self._dataset.shard(num_shards=self.count, index=shard)
        values = iter(part.skip(start) if start else part)
        for index in itertools.count(start):
            name = f"{self.name}:{self.name.split}/{shard}#{index}"
            try:
                content = encoded(next(values)[self.name.column])
            except StopIteration:
                return
            except DataError as error:
                yield name, error
            except Exception as error:  # whatever the library, its readers and the network report
                raise DataError(f"{name} and what follows cannot be read: {_line(error)}") from None
            else:
                yield name, content

    def __getstate__(self) -> DatasetName:
        return self.name

    def __setstate__(self, name: DatasetName) -> None:
        self.__init__(name)  # type: ignore[misc]


def encoded(value: Any) -> bytes:
    """The bytes of an image as the library stores it: bytes, or {"bytes", "path"} with one of the two.

    Errors: DataError where there is no image; OSError and those of networks where it cannot be had now.
    """
    content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if content is not None:
        return bytes(content)
    if path is None:
        raise DataError("no image in this row")
    try:
        return _file_bytes(path)
    except FileNotFoundError:
        raise DataError(f"no file {path}") from None


def _file_bytes(path: str) -> bytes:
    """A file here, or where streams of image folders have theirs: hf://..., zip://...::..."""
    if "://" not in path:
        return Path(path).read_bytes()
    import fsspec

    with fsspec.open(path, "rb") as file:
        return file.read()


_tables: dict[DatasetName, Any] = {}
"""Data sets that this process has open, as arrow tables of the column of images, so that nothing is decoded."""


def _table(name: DatasetName) -> Any:
    """The table of a data set with split and column."""
    if name not in _tables:
        _tables[name] = _as_table(*_opened(name, streaming=False))
    return _tables[name]


def _as_table(name: DatasetName, dataset: Any) -> Any:
    return dataset.with_format("arrow", columns=[name.column])


def _opened(name: DatasetName, streaming: bool) -> tuple[DatasetName, Any]:
    """The data set, and its name with split and column."""
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", "datasets", "a Hugging Face data set") from None
    try:
        dataset, split = _load(datasets, name, streaming)
    except DataError:
        raise
    except Exception as error:  # whatever the library, its readers and the network report
        remedy = "check the name, the network (HF_HUB_OFFLINE) and, for a private one, 'hf auth login'" if name.kind == HUB else "check it"
        raise DataError(f"data set {name} cannot be opened: {_line(error)}; {remedy}") from None
    column = _image_column(dataset.features or {}, name, split)
    if streaming:
        dataset = dataset.select_columns([column]).decode(False)
    return DatasetName(name.kind, name.path, name.config, split, column), dataset


def _load(datasets: Any, name: DatasetName, streaming: bool) -> tuple[Any, str]:
    """The data set's split, and which it is: the one asked for, `train`, or the only one."""
    tars = tar_files(name.path) if name.kind == LOCAL else None
    if tars is not None:
        files = [str(path) for path in tars]
        split = name.split or "train"
        return datasets.load_dataset("webdataset", data_files={split: files}, split=split, streaming=streaming), split
    if name.kind == LOCAL and is_dataset_folder(Path(name.path)):
        loaded = datasets.load_from_disk(name.path)
        parts = loaded if isinstance(loaded, dict) else {str(loaded.split or "train"): loaded}
        split = _split(list(parts), name)
        dataset = parts[split]
        return dataset.to_iterable_dataset(num_shards=max(1, len(dataset.cache_files))) if streaming else dataset, split
    config = name.config or None
    split = _split(datasets.get_dataset_split_names(name.path, config), name)
    return datasets.load_dataset(name.path, config, split=split, streaming=streaming), split


def _split(names: list[str], name: DatasetName) -> str:
    if name.split in names:
        return name.split
    if name.split:
        raise DataError(f"data set {name} has no split {name.split!r}; it has {', '.join(names)}")
    if "train" in names or len(names) == 1:
        return "train" if "train" in names else names[0]
    raise DataError(f"data set {name} has the splits {', '.join(names)}; choose one: {name}:{names[0]}")


def _image_column(features: dict[str, Any], name: DatasetName, split: str) -> str:
    """The column of images: the one asked for, or the only one whose type is an image, or else the only one of bytes."""
    images = [column for column, kind in features.items() if getattr(kind, "_type", "") == "Image"]
    images = images or [column for column, kind in features.items() if _holds_bytes(kind)]
    if name.column in images:
        return name.column
    if name.column:
        raise DataError(f"column {name.column!r} of data set {name} holds no images; its columns are {', '.join(features)}")
    if not images:
        raise DataError(f"data set {name} has no column of images; its columns are {', '.join(features) or 'unknown'}")
    if len(images) > 1:
        raise DataError(f"data set {name} has several columns of images, {', '.join(images)}; choose one: {name}:{split}:{images[0]}")
    return images[0]


def _holds_bytes(kind: Any) -> bool:
    if isinstance(kind, dict):
        return _holds_bytes(kind.get("bytes"))
    return getattr(kind, "dtype", "") in ("binary", "large_binary")


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
