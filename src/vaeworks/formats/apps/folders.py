"""Where applications look for VAEs, and which of several files they select.

Source: AUTOMATIC1111 1.10, modules/sd_vae.py and modules/sd_vae_taesd.py; ComfyUI of 2026, folder_paths.py and
nodes.py.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import ConfigError

Application = Literal["webui", "comfyui"]

CHECKPOINTS: dict[Application, str] = {"webui": "Stable-diffusion", "comfyui": "checkpoints"}
"""Folder of checkpoints in an application's models folder; its name identifies the application."""

VAES: dict[Application, str] = {"webui": "VAE", "comfyui": "vae"}
TINY_VAES: dict[Application, str] = {"webui": "VAE-taesd", "comfyui": "vae_approx"}

TITLES: dict[Application, str] = {"webui": "A1111's or Forge's", "comfyui": "ComfyUI's"}

WEBUI_SCANS = (
    ("Stable-diffusion", "*.vae.ckpt"), ("Stable-diffusion", "*.vae.pt"), ("Stable-diffusion", "*.vae.safetensors"),
    ("VAE", "*.ckpt"), ("VAE", "*.pt"), ("VAE", "*.safetensors"),
)  # fmt: skip
"""Folders and patterns in A1111's order. Of files with one base name it keeps the last, in the place of the first."""

AUTOMATIC = ("Automatic", "auto")


def models_folder(root: str | Path, application: Application) -> Path:
    """The models folder of an application, from that folder or the application's.

    Errors: ConfigError for a folder of something else, or of the other application.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise ConfigError(f"{root} is not a folder; give {TITLES[application]} folder, which holds models/")
    models = root / "models" if (root / "models").is_dir() else root
    here = [name for name, folder in CHECKPOINTS.items() if (models / folder).is_dir()]
    if application in here:
        return models
    if here:
        raise ConfigError(
            f"{root} is {TITLES[here[0]]} folder (it holds {CHECKPOINTS[here[0]]}); pass --into {here[0]}"
        )
    raise ConfigError(
        f"{root} is not {TITLES[application]} folder: it holds no models/{CHECKPOINTS[application]}; where models lie "
        "elsewhere (extra_model_paths.yaml, --ckpt-dir), give the folder that does"
    )


@dataclass(frozen=True)
class Rivals:
    """Files that A1111 may select instead of the one to install."""

    namesakes: tuple[Path, ...]
    """files of the same base name; A1111 keeps one of them"""
    before: tuple[Path, ...]
    """files that A1111 selects for the checkpoint instead"""
    beside: tuple[Path, ...]
    """files that A1111 selects instead if the file system lists them first"""


def webui_rivals(models: Path, dst: Path, checkpoint: Path | None) -> Rivals:
    """Rivals of `dst` in A1111, which selects the first file whose name begins with the checkpoint's."""
    found = [(rank, path) for rank, path in _scan(models) if path.resolve() != dst.resolve()]
    namesakes = tuple(path for _, path in found if path.name == dst.name)
    if checkpoint is None:
        return Rivals(namesakes, (), ())
    rank = next((i for i, scan in enumerate(WEBUI_SCANS) if _is_in(dst, models, scan)), len(WEBUI_SCANS))
    others = [(r, path) for r, path in found if path.name.startswith(webui_stem(checkpoint)) and path.name != dst.name]
    return Rivals(namesakes, tuple(p for r, p in others if r < rank), tuple(p for r, p in others if r == rank))


def _scan(models: Path) -> Iterator[tuple[int, Path]]:
    for rank, (folder, pattern) in enumerate(WEBUI_SCANS):
        for path in sorted(glob.iglob(f"{glob.escape(str(models / folder))}/**/{pattern}", recursive=True)):
            yield rank, Path(path)


def _is_in(dst: Path, models: Path, scan: tuple[str, str]) -> bool:
    folder, pattern = scan
    return dst.name.endswith(pattern[1:]) and (models / folder).resolve() in dst.resolve().parents


def webui_stem(checkpoint: Path) -> str:
    """The first part of the name of a checkpoint's VAE."""
    return checkpoint.name.rsplit(".", 1)[0]


def webui_also_takes(models: Path, dst: Path, checkpoint: Path | None) -> list[Path]:
    """Other checkpoints for which A1111 selects `dst`, because its name begins with theirs."""
    folder = models / CHECKPOINTS["webui"]
    files = sorted(
        p for ending in ("ckpt", "safetensors") for p in folder.rglob(f"*.{ending}") if ".vae." not in p.name
    )
    own = None if checkpoint is None else checkpoint.resolve()
    return [p for p in files if dst.name.startswith(webui_stem(p)) and p.resolve() != own]


def webui_preference(checkpoint: Path) -> str | None:
    """The VAE that a user has chosen in a checkpoint's card in A1111, which overrides names; None if none is chosen."""
    try:
        chosen = json.loads(checkpoint.with_name(webui_stem(checkpoint) + ".json").read_text(encoding="utf-8")).get(
            "vae"
        )
    except (OSError, ValueError, AttributeError):
        return None
    return chosen if isinstance(chosen, str) and chosen not in AUTOMATIC else None


def comfyui_before(folder: Path, dst: Path) -> list[Path]:
    """Files that ComfyUI loads instead of `dst` as half of a TAESD: of files with one stem it loads the first by
    name."""
    half = dst.name.split(".")[0] + "."
    endings = (".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft")
    return sorted(p for p in folder.glob(f"{glob.escape(half)}*") if p.name < dst.name and p.suffix.lower() in endings)
