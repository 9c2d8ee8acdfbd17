"""Images in data sets of the Hugging Face `datasets` library: rows read in any order, or shard by shard as a stream."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ...config.recorded import HUB
from ...errors import DataError, MissingExtraError
from ...files.hub_network import one_try
from ...images import file_content
from ..caption_text import ENDINGS, NAMES, decoded, text_of
from ..classes import ClassName
from .row_files import Reach, folder_reach, shown
from .tars import tar_files

LOCAL = "dataset:"
"""Beginning of a source that is a data set on this machine; one of the hub begins with HUB."""


@dataclass(frozen=True, slots=True)
class DatasetName:
    """The parts of a data set's name: place, split and column; empty parts are not given."""

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
class DatasetRow:
    """An image in a row of a data set."""

    name: DatasetName
    """with its split and column"""
    index: int

    @property
    def label(self) -> str | None:
        """The class that a column states; None without such a column, or where it is empty."""
        return _labels(self.name)[self.index] if self.name in _label_columns else None

    @property
    def caption(self) -> str | None:
        """The text of the first column of captions; None without such a column, or where it is empty."""
        return row_captions(self.name)[1][self.index]

    @property
    def name_in_archive(self) -> str:
        """The row's number: a data set is no folder."""
        return str(self.index)

    @property
    def stem(self) -> str:
        """The row's number."""
        return str(self.index)

    def read_bytes(self) -> bytes:
        """The encoded image. Errors: OSError; DataError for a row without one, or one that names a file outside of the
        data set."""
        try:
            value = _table(self.name)[self.index].column(0)[0].as_py()
        except (OSError, DataError):
            raise
        except Exception as error:  # the library and its readers raise errors of many kinds
            raise DataError(_line(error)) from None
        return encoded(value, _reach(self.name))

    def __str__(self) -> str:
        return f"{self.name}:{self.name.split}#{self.index}"


def dataset_name(source: str) -> DatasetName:
    """Parse hf:OWNER/NAME[/CONFIG][:SPLIT[:COLUMN]] or dataset:PATH[:SPLIT[:COLUMN]].

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
        raise DataError(
            f"{source!r} is no data set; write {HUB}OWNER/NAME, {HUB}OWNER/NAME:SPLIT or "
            f"{HUB}OWNER/NAME/CONFIG:SPLIT:COLUMN"
        )
    return DatasetName(HUB, match[1], *(word or "" for word in match.groups()[1:]))


def is_dataset_folder(folder: Path) -> bool:
    """Whether the library's `save_to_disk` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def rows(name: DatasetName) -> list[DatasetRow]:
    """Every row of a data set.

    Errors: MissingExtraError without `datasets`; DataError for a data set that cannot be opened, or has no column of
    images.
    """
    name, dataset = _opened(name, streaming=False)
    _tables[name] = _as_table(name, dataset)
    _data_sets[name] = dataset
    if (column := _label_column(dataset.features or {})) is not None:
        _label_columns[name] = (column, dataset)
    return [DatasetRow(name, index) for index in range(len(dataset))]


class Shards:
    """A data set as a stream: the rows of any shard, from any row on, in stored order."""

    def __init__(self, name: DatasetName):
        self.name, dataset = _opened(name, streaming=True)
        self._reach = _reach(name)
        self.count: int = dataset.num_shards
        self._dataset: Any = dataset

    def rows(self, shard: int, start: int = 0) -> Iterator[tuple[str, bytes | DataError]]:
        """(name, encoded image or the reason why there is none) of a shard's rows from number `start` on; earlier rows
        are read and dropped.

        Errors: DataError where the shard cannot be read on.
        """
        part = self._dataset.shard(num_shards=self.count, index=shard)
        values = iter(part.skip(start) if start else part)
        for index in itertools.count(start):
            name = f"{self.name}:{self.name.split}/{shard}#{index}"
            try:
                content = encoded(next(values)[self.name.column], self._reach)
            except StopIteration:
                return
            except DataError as error:
                yield name, error
            except Exception as error:  # the library, its readers and the network raise errors of many kinds
                raise DataError(f"{name} and what follows cannot be read: {_line(error)}") from None
            else:
                yield name, content

    def __getstate__(self) -> DatasetName:
        return self.name

    def __setstate__(self, name: DatasetName) -> None:
        self.__init__(name)  # type: ignore[misc]


def encoded(value: Any, reach: Reach = Reach()) -> bytes:  # noqa: B008
    """The encoded image in the library's form: bytes, or {"bytes", "path"} with one of the two.

    reach: the files that a path may name; by default none.
    Errors: DataError where there is no image, or none within reach; those of networks.
    """
    content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if content is None and path is None:
        raise DataError("no image in this row")
    if content is None and isinstance(path, str):
        return reach.content(path)
    if not isinstance(content, bytes):
        raise DataError(
            f"a {type(path if content is None else content).__name__} in this row, where the bytes of an image should "
            "be"
        )
    return content


@cache
def _reach(name: DatasetName) -> Reach:
    """The files that a data set may name."""
    if name.kind == LOCAL:
        return folder_reach(name.path) if Path(name.path).is_dir() else Reach()
    import datasets

    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(datasets.config.HF_CACHE_HOME, "hub"))
    downloads = Path(datasets.config.HF_DATASETS_CACHE, "downloads")
    return Reach(
        tuple(Path(os.path.realpath(p)) for p in (hub / f"datasets--{name.path.replace('/', '--')}", downloads)),
        hub=True,
    )


_tables: dict[DatasetName, Any] = {}
"""The open data sets of this process, as arrow tables of the image column, so that nothing is decoded."""


def _table(name: DatasetName) -> Any:
    """The table of a data set whose name has split and column."""
    if name not in _tables:
        _tables[name] = _as_table(*_opened(name, streaming=False))
    return _tables[name]


_label_columns: dict[DatasetName, tuple[str, Any]] = {}
"""The columns of classes of the open data sets, each with its data set."""

LABEL_NAMES = ("label", "labels", "class", "class_name", "cls", "fine_label", "category")
"""Names of columns of classes whose type does not say so, in this order."""


def _label_column(features: Mapping[str, Any]) -> str | None:
    """The column of type ClassLabel, or of one of LABEL_NAMES that holds numbers or text."""
    classes = [column for column, kind in features.items() if getattr(kind, "_type", "") == "ClassLabel"]
    usual = [
        name
        for name in LABEL_NAMES
        if getattr(features.get(name), "_type", "") == "Value"
        and str(getattr(features[name], "dtype", "")).startswith(("int", "uint", "string", "large_string"))
    ]
    return next(iter(sorted(classes, key=lambda name: name not in LABEL_NAMES) or usual), None)


@cache
def _labels(name: DatasetName) -> list[str | None]:
    """The class of every row."""
    column, dataset = _label_columns[name]
    values = dataset.with_format("arrow", columns=[column])[:].column(0).to_pylist()
    kind = dataset.features[column]
    names = (kind.names or []) if getattr(kind, "_type", "") == "ClassLabel" else None
    if names is None:
        return [None if value is None else str(value) for value in values]
    return [
        None if value is None or value < 0 else ClassName(names[value] if value < len(names) else str(value), value)
        for value in values
    ]


_data_sets: dict[DatasetName, Any] = {}
"""The open data sets of this process, with all columns."""


@cache
def row_captions(name: DatasetName, column: str = "") -> tuple[str, list[str | None]]:
    """The column of a data set's captions and every row's: that of this name, or the first of NAMES that holds text.
    Without one the column is "", and no row has a caption.

    Errors: DataError where the column that is given is not there or holds no text.
    """
    dataset = _data_sets[name] if name in _data_sets else _opened(name, streaming=False)[1]
    texts = [known for known, kind in dataset.features.items() if _holds_text(known, kind)]
    found = column or next((known for known in (*NAMES, *ENDINGS) if known in texts), "")
    if column and column not in texts:
        there = "holds no text" if column in dataset.features else "is not there"
        raise DataError(
            f"column {column!r} of data set {name} {there}; its columns with text are {', '.join(texts) or 'none'}"
        )
    if not found:
        return "", [None] * len(dataset)
    values = dataset.with_format("arrow", columns=[found])[:].column(0).to_pylist()
    return found, [
        decoded(value, f"{name}:{name.split}#{index}, column {found}") if isinstance(value, bytes) else text_of(value)
        for index, value in enumerate(values)
    ]


def _holds_text(column: str, kind: Any) -> bool:
    """Whether a column has one text per row, or a list of them; those of tars stay bytes."""
    kind = getattr(kind, "feature", kind[0] if isinstance(kind, list) and kind else kind)
    form = str(getattr(kind, "dtype", ""))
    return form.startswith(("string", "large_string")) or (column in ENDINGS and _holds_bytes(kind))


def _as_table(name: DatasetName, dataset: Any) -> Any:
    return dataset.with_format("arrow", columns=[name.column])


def _opened(name: DatasetName, streaming: bool) -> tuple[DatasetName, Any]:
    """The data set, and its name with split and column."""
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", "datasets", "a Hugging Face data set") from None
    unreachable = ""
    try:
        with one_try() if name.kind == HUB else nullcontext("") as unreachable:
            dataset, split = _load(datasets, name, streaming)
    except DataError:
        raise
    except Exception as error:  # the library, its readers and the network raise errors of many kinds
        if unreachable:
            raise DataError(
                f"data set {name} is not in the hub's cache, and {unreachable}; pass a path instead"
            ) from None
        remedy = (
            "check the name, the network (HF_HUB_OFFLINE) and, for a private one, 'hf auth login'"
            if name.kind == HUB
            else "check it"
        )
        raise DataError(f"data set {name} cannot be opened: {_line(error.__cause__ or error)}; {remedy}") from None
    column = _image_column(dataset.features or {}, name, split)
    if streaming:
        dataset = dataset.select_columns([column]).decode(False)
    return DatasetName(name.kind, name.path, name.config, split, column), dataset


def _load(datasets: Any, name: DatasetName, streaming: bool) -> tuple[Any, str]:
    """The data set's split and its name: the one that is given, `train`, or the only one."""
    if name.kind == LOCAL and is_dataset_folder(Path(name.path)):
        _check_saved(Path(name.path))
        loaded = datasets.load_from_disk(os.path.abspath(name.path))
        parts = loaded if isinstance(loaded, dict) else {str(loaded.split or "train"): loaded}
        split = _split(list(parts), name)
        dataset = parts[split]
        dataset.data.validate(full=True)  # a file as it is in memory: a wrong place in it would be a place in ours
        return dataset.to_iterable_dataset(num_shards=max(1, len(dataset.cache_files))) if streaming else dataset, split
    if name.kind == LOCAL and not Path(name.path).is_dir():
        raise DataError(f"data set {name.path!r} is no folder; give the one that it is in")
    # a folder's name could be that of one of the library's formats, or of a data set of the hub; its path cannot
    path, config = os.path.abspath(name.path) if name.kind == LOCAL else name.path, name.config or None
    if name.kind == LOCAL:
        _check_cards(Path(name.path))
    with _only_own_files(datasets, _reach(name)):
        builder = datasets.load_dataset_builder(path, config)
        _check_files(builder, name)
        split = _split(list(builder.info.splits or builder.config.data_files or ()), name)
        if (
            builder.name == "webdataset"
        ):  # what else is in its tars stays bytes, and is not given to torch.load, numpy and others
            builder.__class__ = type("Images", (type(builder),), {"DECODERS": {}})
        if streaming:
            return builder.as_streaming_dataset(split=split), split
        builder.download_and_prepare()
        return builder.as_dataset(split=split), split


READ = ("parquet", "arrow", "imagefolder", "json", "csv")
"""The library's readers for local files. Others hold no images, or follow links out of their files."""

CARDS = ("README.md", ".huggingface.yaml", "dataset_infos.json")
"""Files that describe a data set."""

CARD, HEAD = 2**24, 2**18
"""Most bytes of such a file and of its YAML, which suffice for 6,000 class names. The parser reads 90,000 bytes of
crafted YAML per second."""


def _check_cards(folder: Path) -> None:
    """Errors: DataError for a card that would cost the library's parser much time or memory."""
    for name in CARDS:
        if not os.path.lexists(folder / name):
            continue
        try:
            text = file_content(folder / name, CARD).decode(errors="replace")
        except (OSError, DataError) as error:
            raise DataError(f"{folder / name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        head = text.partition("\n---")[0] if name.endswith(".md") else "" if name.endswith(".json") else text
        if len(head) > HEAD:
            raise DataError(
                f"{folder / name} has {len(head):,} characters of YAML, more than the {HEAD:,} that are read; shorten "
                "it"
            )
        if re.search(r"[\r\n]{200}", text) or len(re.findall(r"(?m)(?:^|[\s,\[{:-])\*[\w-]", head)) > 50:
            raise DataError(f"{folder / name} has hundreds of empty lines or references; delete it to read the data")


def _check_saved(folder: Path) -> None:
    """Errors: DataError for a folder that `save_to_disk` would not write, such as one with names of files elsewhere."""
    reach = folder_reach(str(folder))
    try:
        if (folder / "dataset_dict.json").is_file():
            names = json.loads(file_content(folder / "dataset_dict.json", CARD))["splits"]
            parts = [Path(reach.file(_plain(name))) for name in names]
        else:
            parts = [folder]
        for part in parts:
            file_content(part / "dataset_info.json", CARD)
            state = json.loads(file_content(part / "state.json", CARD))
            files = [
                _plain(file["filename"]) for file in [*state["_data_files"], *(state.get("_indices_data_files") or ())]
            ]
            if len(set(files)) < len(files):  # a file of a few KB that is read as often as its name fits into 16 MiB
                raise DataError("it names a file twice")
            for file in files:
                reach.check_file(str(Path(os.path.abspath(part), file)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{folder} is not as save_to_disk writes it: {getattr(error, 'strerror', None) or _line(error)}"
        ) from None


def _plain(name: Any) -> str:
    if not isinstance(name, str) or Path(name).name != name:
        raise DataError(f"it names {shown(str(name))}")
    return name


@contextmanager
def _only_own_files(datasets: Any, reach: Reach) -> Iterator[None]:
    """Inside this context the library looks for the data set's own files alone.

    Patterns of files stand in a README, in YAML beside it, and behind names of configurations; the library resolves all
    of them with one function, which is replaced here.
    """
    module, resolve = datasets.data_files, datasets.data_files.resolve_pattern

    def checked(pattern: str, base_path: str, *arguments: Any, **options: Any) -> Any:
        reach.check_pattern(str(pattern), str(base_path))
        return resolve(pattern, base_path, *arguments, **options)

    module.resolve_pattern = checked
    try:
        yield
    finally:
        module.resolve_pattern = resolve


def _check_files(builder: Any, name: DatasetName) -> None:
    """Errors: DataError for a reader that is not used here, and for data files that are not the data set's own."""
    allowed = READ if name.kind == LOCAL else (*READ, "webdataset", "cache")
    if builder.name not in allowed:
        raise DataError(
            f"data set {name} is of the library's kind {builder.name}; those with images are {', '.join(READ)}, and "
            "tars"
        )
    for files in (builder.config.data_files or {}).values():
        for file in files:
            _reach(name).check_file(str(file))
            if name.kind == LOCAL and builder.name != "imagefolder" and str(file).lower().endswith(".zip"):
                raise DataError(f"{shown(str(file))} is packed; unpack it")


def _split(names: list[str], name: DatasetName) -> str:
    if name.split in names:
        return name.split
    if name.split:
        raise DataError(f"data set {name} has no split {name.split!r}; it has {', '.join(names)}")
    if "train" in names or len(names) == 1:
        return "train" if "train" in names else names[0]
    if not names:
        raise DataError(f"data set {name} has no splits")
    raise DataError(f"data set {name} has the splits {', '.join(names)}; choose one: {name}:{names[0]}")


def _image_column(features: dict[str, Any], name: DatasetName, split: str) -> str:
    """The column of images: the one that is given, the only one of type image, or else the only one of bytes."""
    images = [column for column, kind in features.items() if getattr(kind, "_type", "") == "Image"]
    return choose_column(
        images or [column for column, kind in features.items() if _holds_bytes(kind)], list(features), name, split
    )


def choose_column(images: list[str], columns: list[str], name: DatasetName, split: str) -> str:
    """The column that is given, or the only one of `images`. Errors: DataError."""
    if name.column in images:
        return name.column
    if name.column:
        raise DataError(
            f"column {name.column!r} of data set {name} holds no images; its columns are {', '.join(columns)}"
        )
    if not images:
        raise DataError(f"data set {name} has no column of images; its columns are {', '.join(columns) or 'unknown'}")
    if len(images) > 1:
        raise DataError(
            f"data set {name} has several columns of images, {', '.join(images)}; choose one: "
            f"{name}:{split}:{images[0]}"
        )
    return images[0]


def _holds_bytes(kind: Any) -> bool:
    if isinstance(kind, dict):
        return _holds_bytes(kind.get("bytes"))
    return getattr(kind, "dtype", "") in ("binary", "large_binary")


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
