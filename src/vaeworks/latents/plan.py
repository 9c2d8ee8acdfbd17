"""What the latents of a data set depend on, and which file has which of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..config import AutoencoderConfig, LatentConfig, differences, to_dict
from ..errors import ConfigError
from ..models import Autoencoder
from .sizes import check_square

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

SHARD_SIZE = 10_000
"""Images per shard, as LightningDiT has it."""


@dataclass(frozen=True)
class Settings:
    """How images become latents."""

    size: int = 256
    """side of the squares that images become, in pixels: the middle of the image, its shorter side resized to it by
    Lanczos"""
    posterior: Literal["mode", "sample", "moments"] = "mode"
    """moments: means and log-variances, so that training can sample"""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """of the latents that are kept"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """of the computation"""
    flip: bool = False
    """whether latents of the mirrored image are kept as well"""
    shard_size: int = SHARD_SIZE
    """images per shard"""
    seed: int = 0
    """of posterior "sample" """

    def check(self, config: LatentConfig) -> None:
        """Errors: ConfigError for settings that this model, or nobody, can do."""
        check_square(self.size, config)
        if self.shard_size < 1:
            raise ConfigError(f"shard_size (={self.shard_size}) must be at least 1 image")
        if self.seed < 0:
            raise ConfigError(f"seed (={self.seed}) must not be negative")
        if config.in_channels not in (1, 3):
            raise ConfigError(
                f"this model's images have {config.in_channels} channels; data sets hold images of 1 or 3"
            )
        if self.posterior == "moments" and not (
            isinstance(config, AutoencoderConfig) and config.bottleneck.kind == "kl"
        ):
            raise ConfigError("this model's latents are points, without a variance; take --posterior mode")

    def preprocessing(self, channels: int) -> str:
        """What is done to an image, in words."""
        colour = "RGB" if channels == 3 else "gray"
        return (
            f"upright by EXIF, transparency onto white, 8-bit {colour}; the largest middle square, resized to "
            f"{self.size} px by Pillow's Lanczos (ImageOps.fit); x / 127.5 - 1"
        )


@dataclass(frozen=True)
class LatentsPlan:
    """All that the latents depend on. Two calls with equal plans make equal files."""

    model: str
    """SHA-256 over configuration and weights"""
    images: str
    """SHA-256 over the images' contents, in order"""
    count: int
    """of images"""
    labels: str
    """SHA-256 over the images' classes; empty without"""
    settings: Settings
    processes: int = 1
    """among which the images are divided"""

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, in hex."""
        return hashlib.sha256(json.dumps(to_dict(self), sort_keys=True).encode()).hexdigest()

    def shards(self, rank: int | None = None) -> list[Shard]:
        """The shards of one process, or of all, in the order of their images."""
        ranks = range(self.processes) if rank is None else (rank,)
        return [shard for number in ranks for shard in self._shards_of(number)]

    def _shards_of(self, rank: int) -> list[Shard]:
        first, stop = (self.count * r // self.processes for r in (rank, rank + 1))
        step = self.settings.shard_size
        return [
            Shard(rank, number, start, min(start + step, stop)) for number, start in enumerate(range(first, stop, step))
        ]


@dataclass(frozen=True)
class Shard:
    """One file of latents: of the images start..stop of the data set."""

    rank: int
    number: int
    start: int
    stop: int

    @property
    def stem(self) -> str:
        """The file's name without its ending, as LightningDiT has it."""
        return f"latents_rank{self.rank:02d}_shard{self.number:03d}"

    @property
    def file(self) -> str:
        """Of latents."""
        return f"{self.stem}.safetensors"

    @property
    def names(self) -> str:
        """Of the file that says which images they are of."""
        return f"{self.stem}.json"

    def __len__(self) -> int:
        return self.stop - self.start


def check_same(plan: LatentsPlan, kept: LatentsPlan, where: str) -> None:
    """Errors: ConfigError where a folder's latents were made by another plan: one line that names all that differs."""
    if found := differences(kept, plan):
        words = [
            f"{name.removeprefix('settings.').replace('_', '-')} ({_short(x)} there, {_short(y)} now)"
            for name, (x, y) in found.items()
        ]
        raise ConfigError(
            f"{where} holds latents that were made otherwise: they differ in {', '.join(words)}; choose another "
            "folder, or pass --overwrite"
        )


def _short(value: Any) -> str:
    """Hashes by their first 12 digits."""
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else str(value) or "none"


def labels_digest(labels: Sequence[str] | None) -> str:
    """SHA-256 over the images' classes; empty without."""
    return "" if labels is None else hashlib.sha256(json.dumps(list(labels)).encode()).hexdigest()


def normalization_facts(autoencoder: Autoencoder) -> dict[str, Any]:
    """What makes of the latents what a diffusion model sees: kept beside them, and not applied to them; None where it
    is not known."""
    config = autoencoder.config
    scale, shift = (config.scaling_factor, config.shift_factor) if config.normalization_known else (None, None)
    facts: dict[str, Any] = {
        "normalized": False,
        "normalization": config.normalization,
        "scaling_factor": scale,
        "shift_factor": shift,
        "latents_mean": config.latents_mean,
        "latents_std": config.latents_std,
        "latents_patch": config.latents_patch,
    }
    if config.normalization == "batchnorm":
        mean, var = autoencoder.bn.running_mean, autoencoder.bn.running_var
        assert mean is not None and var is not None  # they are tracked
        facts |= {"batchnorm_mean": mean.tolist(), "batchnorm_std": (var + config.latents_norm_eps).sqrt().tolist()}
    return facts


def settings_of(settings: Settings) -> Settings:
    """Without what changes nothing: the seed where nothing is drawn."""
    return settings if settings.posterior == "sample" else dataclasses.replace(settings, seed=0)
