"""Where results go: targets are checked before any work; several models get short names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import ConfigError
from .atomic import check_name


def targets(sources: list[tuple[Path, Path]], out: Path, suffix: str, overwrite: bool) -> list[tuple[Path, Path]]:
    """(source, target) pairs for files (path, place below its folder). All targets are checked before the first is
    written.

    Sources that differ in their endings alone, a.jpg and a.png, become a-jpg.png and a-png.png.
    Errors: ConfigError for two sources of one target, for a target that exists without `overwrite`, and for an
    impossible name.
    """
    pairs = [
        (source, out / place)
        for (source, _), place in zip(sources, distinct([place for _, place in sources], suffix), strict=True)
    ]
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


def distinct(places: Sequence[Path], suffix: str) -> list[Path]:
    """The places with another ending; those that differ in their endings alone keep them in their names."""
    found = [place.with_suffix(suffix) for place in places]
    taken = Counter(found)
    return [
        place.with_name(f"{place.stem}-{place.suffix[1:]}{suffix}") if taken[target] > 1 and place.suffix else target
        for place, target in zip(places, found, strict=True)
    ]


def check_free(out: Path, names: Iterable[str], overwrite: bool, besides: str = "") -> None:
    """Check before any work that `out` is no file, and that it holds none of the files to be written, unless
    `overwrite`.

    besides: what --overwrite keeps, for the sentence. Errors: ConfigError.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; --out is a folder")
    for name in names if not overwrite else ():
        if (out / name).exists():
            raise ConfigError(f"{out / name} exists; choose another --out, or pass --overwrite{besides}")


def check_apart(folders: Iterable[Path], places: Iterable[Path]) -> None:
    """Check before any work that no result lies in a folder that another result replaces as a whole. Errors:
    ConfigError."""
    whole = set(folders)
    for place in places:
        if inside := next((parent for parent in place.parents if parent in whole), None):
            raise ConfigError(
                f"{place} would lie in {inside}, which another input's results fill; give them in two calls with two "
                "--out"
            )


def short_names(models: Iterable[str]) -> list[str]:
    """A short and unique name for each model: that of its file, with its folder's in front where needed."""
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
