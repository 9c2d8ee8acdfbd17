"""Find the archive with the VAE's tensors, and the config.json beside it, for a path or hub id."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from ..config import MODELS
from ..errors import ConfigError, FormatError
from ..files.atomic import MAX_CONFIG, read_json
from ..files.links import missing
from .archive import Archive, joined, open_archive, open_shards
from .hub import HUB_PREFIX, fetch
from .keymap import TAESD_HALVES

WEIGHTS = "diffusion_pytorch_model.safetensors"
"""Name of the weights in a folder of diffusers."""

DIFFUSERS_WEIGHTS = (
    WEIGHTS,
    f"{WEIGHTS}.index.json",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bf16.safetensors",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
    "diffusion_pytorch_model.fp16.bin",
)
"""Names of weights that diffusers writes, in the order of the search."""

RUN_MODEL, RUN_BEST = "model.safetensors", "best.safetensors"
"""The finished model in a run folder, and the one that validated best, in native layout."""

ENDINGS = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin")

DISTRIBUTED = ".distcp"
"""The ending of a part of a checkpoint of torch.distributed.checkpoint."""

INDEX = re.compile(r"\.index(\.\w+)?\.json$")
"""The end of an index's name, with a variant in it or not: `….safetensors.index.fp16.json`."""


@dataclass(frozen=True)
class Source:
    """An archive, and the config.json that describes it if there is one."""

    archive: Archive
    config: Path | None = None
    sure: bool = True
    """whether this config.json belongs to the archive by their names; else it counts only if it describes the same
    VAE"""


def check_path(path: object) -> None:
    """Errors: ConfigError for what is no path, such as a model where a file is read."""
    if not isinstance(path, (str, os.PathLike)):
        raise ConfigError(f"a file is given by its path, not as {type(path).__name__}; `vaeworks.save` writes a model")


def find_source(path: str | Path) -> Source:
    """Open the tensors of a file, a folder or hf:OWNER/NAME.

    Errors: FormatError for a path that does not exist or holds no model; ConfigError for what is no path.
    """
    check_path(path)
    if str(path).startswith(HUB_PREFIX):
        path = fetch(str(path))
    try:
        home = Path(path).expanduser()
    except RuntimeError:
        raise FormatError(f"model {str(path)!r} does not exist: there is no user of that name") from None
    try:
        return _of_path(home)
    except OSError as error:
        raise FormatError(f"model {str(path)!r} could not be read: {error.strerror or error}") from None


def _of_path(path: Path) -> Source:
    if path.is_dir():
        return _of_folder(path)
    if not path.exists():
        if path.is_symlink():
            raise FormatError(f"model {str(path)!r} {missing(path)}")
        built = f"; `vaeworks.build({str(path)!r})` is that model with random weights" if str(path) in MODELS else ""
        raise FormatError(
            f"model {str(path)!r} does not exist; give a file, a folder, or {HUB_PREFIX}OWNER/NAME{built}"
        )
    if path.suffix == DISTRIBUTED:
        raise FormatError(f"{path} {_distributed(path.parent)}")
    if INDEX.search(path.name):
        return _with_config_beside(open_shards(path), path)
    archive = open_archive(path)
    if half := half_of_taesd(archive):
        return Source(_with_other_half(path, archive, half))
    return _with_config_beside(archive, path)


def _of_folder(path: Path) -> Source:
    if (path / RUN_MODEL).is_file():
        return _of_path(path / RUN_MODEL)
    if (path / "vae" / "config.json").is_file():
        path = path / "vae"
    if (path / "config.json").is_file():
        weights = _weights_beside_config(path)
        opened = open_shards(weights) if INDEX.search(weights.name) else open_archive(weights)
        return Source(opened, path / "config.json")
    if halves := sorted(p for p in path.iterdir() if p.suffix in ENDINGS and re.search(r"(^|_)encoder$", p.stem)):
        if len(halves) > 1:
            raise FormatError(
                f"{path} holds several encoders ({', '.join(p.name for p in halves)}); give one of these files"
            )
        return _of_path(halves[0])
    if (path / "run.json").is_file():
        raise FormatError(f"{path} holds a run that has not finished; continue it with --resume")
    if any(p.suffix == DISTRIBUTED for p in path.iterdir()):
        raise FormatError(f"{path} {_distributed(path)}")
    models = sorted(p.name for p in path.iterdir() if p.suffix in ENDINGS)
    which = f"; give one of its files: {', '.join(models[:5])}" if models else ""
    raise FormatError(f"{path} holds neither a run's {RUN_MODEL} nor a diffusers config.json{which}")


def _distributed(folder: Path) -> str:
    """What a part of a distributed checkpoint is, with the remedy, behind its name."""
    return (
        "is of torch.distributed.checkpoint, whose tensors are spread over several files; make one file of it: python "
        f"-m torch.distributed.checkpoint.format_utils dcp_to_torch {shlex.quote(str(folder))} model.pt"
    )


def _weights_beside_config(folder: Path) -> Path:
    """The weights that a folder's config.json describes: under one of diffusers' names, else the only ones there.

    Errors: FormatError for a folder without weights, or with several.
    """
    if usual := next((folder / name for name in DIFFUSERS_WEIGHTS if (folder / name).is_file()), None):
        return usual
    indices = sorted(path for path in folder.iterdir() if INDEX.search(path.name))
    models = indices or sorted(path for path in folder.iterdir() if path.suffix in ENDINGS and path.is_file())
    if not models:
        raise FormatError(f"{folder} has a config.json but no weights beside it; {WEIGHTS} is missing")
    if len(models) > 1:
        names = ", ".join(path.name for path in models[:5])
        raise FormatError(f"{folder} has a config.json and several files of weights; give one of them: {names}")
    return models[0]


def _with_config_beside(archive: Archive, weights: Path) -> Source:
    """The source of a weights file, with the config.json of a VAE beside it, if there is one."""
    config = weights.with_name("config.json")
    if not config.is_file() or "_class_name" not in read_json(config, MAX_CONFIG):
        return Source(archive)
    return Source(archive, config, sure=weights.name in DIFFUSERS_WEIGHTS or bool(INDEX.search(weights.name)))


def half_of_taesd(archive: Archive) -> str | None:
    """encoder or decoder, for a file with one half of a TAESD; its names are bare numbers, and the decoder's layer 0
    has no weights."""
    numbered = all(name.split(".")[0].isdecimal() for name in archive.entries)
    if not numbered or not any(name.endswith(".conv.0.weight") for name in archive.entries):
        return None
    return "encoder" if "0.weight" in archive.entries else "decoder"


def _with_other_half(path: Path, archive: Archive, half: str) -> Archive:
    other = "decoder" if half == "encoder" else "encoder"
    named = [path.with_name(path.stem.replace(half, other) + ending) for ending in (path.suffix, *ENDINGS)]
    beside = next((p for p in named if p != path and p.is_file()), None)
    if beside is None:
        raise FormatError(f"{path} is the {half} of a TAESD; put the {other} beside it, as {named[0].name}")
    second = open_archive(beside)
    if half_of_taesd(second) != other:
        raise FormatError(f"{beside} should be the {other} that belongs to {path.name}, but it is not")
    halves = {half: archive, other: second}
    return joined(path, {TAESD_HALVES[h]: halves[h] for h in ("encoder", "decoder")})
