"""Files in and files out: what IN and SRC mean, and where the results go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, DataError
from .console import console
from .options import settings_of

if TYPE_CHECKING:
    from PIL import Image

    from ..models import Autoencoder
    from ..runtime import Codec


def loaded(model: str, told: tuple[str, ...] = ()) -> Autoencoder:
    """The model to compute with on a CPU: float16 becomes float32, because convolutions in it are up to hundreds of
    times slower there.

    told: what --set says of it.
    """
    import torch

    from ..formats import load

    autoencoder = load(model, **settings_of(told))
    return autoencoder.float() if autoencoder.dtype == torch.float16 else autoencoder


def placed(model: str, told: tuple[str, ...] = ()) -> Autoencoder:
    """As `loaded`, on a GPU where there is one."""
    from ..devices import resolve_device

    return loaded(model, told).to(resolve_device("auto"))


def codec(model: str, memory: str | None, precision: str | None, told: tuple[str, ...] = ()) -> Codec:
    """The model within a memory budget, on a GPU where there is one.

    precision: fp32, bf16 or fp16; None: the weights' own, but fp32 for fp16 on a CPU. told: what --set says of the
    model.
    """
    import torch

    from ..devices import resolve_device
    from ..formats import load
    from ..runtime import Codec

    device = resolve_device("auto")
    autoencoder = load(model, **settings_of(told)).to(device)
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision is None and device.type == "cpu" and autoencoder.dtype == torch.float16:
        precision = "fp32"
    return Codec(autoencoder, memory=memory, dtype=None if precision is None else dtypes[precision])


BUILT_IN = {"photos": "the bundled photographs", "procedural": "images that are drawn", "digits": "handwritten digits"}
"""Sources that are there without files."""


def data_source(data: str, built_in: Iterable[str] = BUILT_IN) -> str:
    """SRC, with a word where it is ambiguous. built_in: those names of BUILT_IN that would be taken."""
    if data in built_in and Path(data).is_dir():
        console().print(f"taking {BUILT_IN[data]}; for the folder of that name write ./{data}", style="yellow")
    return data


def image_files(inputs: tuple[str, ...]) -> list[tuple[Path, Path]]:
    """(image file, its place below the folder that was named). Errors: ConfigError without inputs; DataError where
    there is no image."""
    from ..data.sources.folder import find_images

    _check_given(inputs)
    found = [(path, source) for source in inputs for path in find_images(data_source(source, ("photos",)))]
    return [
        (path, path.relative_to(source) if Path(source).is_dir() and source != "photos" else Path(path.name))
        for path, source in found
    ]


def files_ending(inputs: tuple[str, ...], suffix: str) -> list[tuple[Path, Path]]:
    """(file, its place below the folder that was named). Errors: ConfigError without inputs; DataError where there is
    no such file."""
    _check_given(inputs)
    found: list[tuple[Path, Path]] = []
    for source in map(Path, inputs):
        if not source.exists():
            raise DataError(f"{str(source)!r} does not exist")
        found += (
            [(p, p.relative_to(source)) for p in sorted(source.rglob(f"*{suffix}"))]
            if source.is_dir()
            else [(source, Path(source.name))]
        )
    if not found:
        raise DataError(f"no {suffix} file in {', '.join(inputs)}")
    return found


def _check_given(inputs: tuple[str, ...]) -> None:
    if not inputs:
        raise ConfigError("no IN is given; name files or folders behind MODEL")


def targets(sources: list[tuple[Path, Path]], out: Path, suffix: str, overwrite: bool) -> list[tuple[Path, Path]]:
    """(source, target) pairs; all targets are checked before the first is written."""
    from ..files.atomic import check_name

    pairs = [(source, out / place.with_suffix(suffix)) for source, place in sources]
    seen: dict[Path, Path] = {}
    for source, target in pairs:
        if target in seen:
            raise ConfigError(
                f"{seen[target]} and {source} would both become {target}; give them in two calls with two --out"
            )
        seen[target] = source
        check_name(target)
        if target.exists() and not overwrite:
            raise ConfigError(f"{target} exists; choose another --out, or pass --overwrite")
    make_folder(out)
    return pairs


def check_free(out: Path, names: Iterable[str], overwrite: bool, besides: str = "") -> None:
    """Before any work: --out is no file, and holds none of the files to be written, unless they may be replaced.

    besides: what --overwrite keeps, for the error.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; --out is a folder")
    for name in names if not overwrite else ():
        if (out / name).exists():
            raise ConfigError(f"{out / name} exists; choose another --out, or pass --overwrite{besides}")


def check_apart(folders: Iterable[Path], places: Iterable[Path]) -> None:
    """Before any work: no result lies in a folder that another one replaces whole."""
    whole = set(folders)
    for place in places:
        if inside := next((parent for parent in place.parents if parent in whole), None):
            raise ConfigError(
                f"{place} would lie in {inside}, which another input's results fill; give them in two calls with two "
                "--out"
            )


def check_seed(seed: int) -> None:
    """Before any work: seeds are not negative."""
    if seed < 0:
        raise ConfigError(f"seed (={seed}) must not be negative")


def short_names(models: Iterable[str]) -> list[str]:
    """A short name for each, all different: the file's, with its folder's before it where needed."""
    names: list[str] = []
    for model in models:
        path = Path(model.removeprefix("hf:"))
        parts = [part for part in path.resolve().parts if part not in ("/", "run", "model.safetensors")] or ["model"]
        name = (
            Path(parts[-1]).stem
            if Path(parts[-1]).suffix in (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
            else parts[-1]
        )
        while name in names:
            name = f"{parts[-2]}-{name}" if len(parts) > 1 and not name.startswith(parts[-2]) else f"{name}-2"
        names.append(name)
    return names


def make_folder(out: Path) -> None:
    """Make the folder for --out."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; choose a folder for --out")
    out.mkdir(parents=True, exist_ok=True)


def readable_images(pairs: list[tuple[Path, Path]], channels: int) -> Iterator[tuple[Path, Path, Image.Image]]:
    """(source, target, image) of every file that can be read; the others are named, and are an error if there is no
    image at all."""
    errors = []
    for source, target in pairs:
        try:
            image = opened(source, channels)
        except DataError as error:
            errors.append(error)
            console().print(f"skipped {error}", style="yellow")
            continue
        yield source, target, image
    if len(errors) == len(pairs):
        raise errors[0]


def say_skipped(skipped: Iterable[tuple[str, str]]) -> None:
    """Name images that were left out."""
    for name, reason in skipped:
        console().print(f"skipped {name}: {reason}", style="yellow")


def opened(path: Path, channels: int) -> Image.Image:
    """The image in a file; a DataError names the file."""
    from ..images import open_image

    try:
        return open_image(path, channels)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
