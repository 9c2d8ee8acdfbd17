"""The plan of a data set's latents: what they depend on, and which shard holds which images."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..config import AutoencoderConfig, LatentConfig, differences, to_dict
from ..errors import ConfigError
from ..images.channels import PICTURES, check_pictures
from ..models import Autoencoder
from .sizes import check_square

SHARD_SIZE = 10_000
"""Images per shard; LightningDiT's number."""


@dataclass(frozen=True)
class Settings:
    """How images become latents."""

    size: int = 256
    """side of the squares that images become, in pixels: the middle of the image, its shorter side resized to it by
    Lanczos"""
    posterior: Literal["mode", "sample", "moments"] = "mode"
    """the posterior's mode, one sample, or moments: means and log-variances, so that training can sample"""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """dtype of the kept latents"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """dtype of the computation"""
    flip: bool = False
    """also keep the latents of the mirrored image"""
    shard_size: int = SHARD_SIZE
    """images per shard"""
    seed: int = 0
    """seed of posterior "sample" """

    def check(self, config: LatentConfig) -> None:
        """Errors: ConfigError for settings that this model does not take, or none does."""
        check_square(self.size, config)
        if self.shard_size < 1:
            raise ConfigError(f"shard_size (={self.shard_size}) must be at least 1 image")
        if self.seed < 0:
            raise ConfigError(f"seed (={self.seed}) must not be negative")
        check_pictures(config, writes=False, channels=PICTURES)
        if self.posterior == "moments" and not (
            isinstance(config, AutoencoderConfig) and config.bottleneck.kind == "kl"
        ):
            raise ConfigError("this model's latents are points, without a variance; pass --posterior mode")

    def preprocessing(self, channels: int) -> str:
        """The preprocessing of an image in words."""
        colour = "RGB" if channels == 3 else "gray"
        return (
            f"upright by EXIF, transparency onto white, 8-bit {colour}; the largest middle square, resized to "
            f"{self.size} px by Pillow's Lanczos (ImageOps.fit); x / 127.5 - 1"
        )


@dataclass(frozen=True)
class LatentsPlan:
    """Everything that the latents depend on. Two calls with equal plans make equal files."""

    model: str
    """SHA-256 over configuration and weights"""
    images: str
    """SHA-256 over the images' contents, in order"""
    count: int
    """number of images"""
    labels: str
    """SHA-256 over the images' classes; empty without"""
    settings: Settings
    processes: int = 1
    """number of processes that share the images"""

    @property
    def digest(self) -> str:
        """SHA-256 over all fields, in hex."""
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
    """One file: the latents of images start..stop of the data set."""

    rank: int
    number: int
    start: int
    stop: int

    @property
    def stem(self) -> str:
        """The file's name without its ending; LightningDiT's scheme."""
        return f"latents_rank{self.rank:02d}_shard{self.number:03d}"

    @property
    def file(self) -> str:
        """Name of the file of latents."""
        return f"{self.stem}.safetensors"

    @property
    def names(self) -> str:
        """Name of the file that lists its images."""
        return f"{self.stem}.json"

    def __len__(self) -> int:
        return self.stop - self.start


def check_same(plan: LatentsPlan, kept: LatentsPlan, where: str) -> None:
    """Errors: ConfigError where a folder's latents have another plan; one line names all differences."""
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
    """A value as text; of a hash, the first 12 digits."""
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else str(value) or "none"


def labels_digest(labels: Sequence[str] | None) -> str:
    """SHA-256 over the images' classes; empty without."""
    return "" if labels is None else hashlib.sha256(json.dumps(list(labels)).encode()).hexdigest()


def normalization_facts(autoencoder: Autoencoder) -> dict[str, Any]:
    """The constants that normalize the latents for a diffusion model. They are stored beside the latents, not applied;
    unknown ones are None."""
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
        assert mean is not None and var is not None  # BatchNorm tracks them
        facts |= {"batchnorm_mean": mean.tolist(), "batchnorm_std": (var + config.latents_norm_eps).sqrt().tolist()}
    return facts


def settings_of(settings: Settings) -> Settings:
    """The settings without the seed where nothing is drawn, so that equal latents have equal plans."""
    return settings if settings.posterior == "sample" else dataclasses.replace(settings, seed=0)
