"""Counter-keyed randomness: what image number k of a run is, how it is cropped and which noise it gets are functions
of (seed, k) alone. So nothing about randomness is saved in a checkpoint, and neither the number of workers nor of
processes, nor an interruption, changes a run.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox). NumPy guarantees the bit stream.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .errors import ConfigError

ORDER, CROP, NOISE, INIT, LEVEL, STEP, SHARDS, BLOCKS, DISTURBANCE, SCENE, COLOURS, LATTICE, SOUND, PANNING = range(14)
"""Streams: one for each use, so that no two uses share random numbers."""


def random_words(seed: int, stream: int, counter: int, count: int) -> np.ndarray:
    """`count` random 64-bit words that depend on the three keys only."""
    return np.random.Philox(key=seed, counter=[0, counter, stream, 0]).random_raw(count)


def random_uniforms(seed: int, stream: int, counter: int, count: int) -> np.ndarray:
    """`count` random numbers in [0,1) that depend on the three keys only."""
    return (random_words(seed, stream, counter, count) >> np.uint64(11)) * 2.0**-53


def random_seed(seed: int, stream: int, counter: int = 0) -> int:
    """A 63-bit seed for another generator."""
    return int(random_words(seed, stream, counter, 1)[0] >> np.uint64(1))


def check_seed(seed: int) -> None:
    """Errors: ConfigError for a negative seed."""
    if seed < 0:
        raise ConfigError(f"seed (={seed}) must not be negative")


class Order:
    """The endless sequence of a data set's indices: one shuffled epoch after another, each from (seed, epoch)."""

    def __init__(self, length: int, seed: int):
        self.length = length
        self.seed = seed
        self._epoch = -1
        self._permutation = np.empty(0, dtype=np.int64)

    def __getitem__(self, counter: int) -> int:
        """Which file the image number `counter` of the run is."""
        epoch, position = divmod(counter, self.length)
        if epoch != self._epoch:
            self._permutation = np.argsort(random_words(self.seed, ORDER, epoch, self.length), kind="stable")
            self._epoch = epoch
        return int(self._permutation[position])


def noise_levels(seed: int, counters: list[int]) -> Tensor:
    """A number in [0,1) for each of the images with these counters: n, float32, on the CPU."""
    uniforms = np.concatenate([random_uniforms(seed, LEVEL, counter, 1) for counter in counters])
    return torch.from_numpy(np.minimum(uniforms.astype(np.float32), np.float32(1 - 2.0**-24)))


def latent_noise(seed: int, counters: list[int], shape: tuple[int, int, int], stream: int = NOISE) -> Tensor:
    """Standard normal noise for the images with these counters: n c h w, float32, on the CPU."""
    generator = torch.Generator()
    seeds = [random_seed(seed, stream, counter) for counter in counters]
    return torch.stack([torch.randn(shape, generator=generator.manual_seed(number)) for number in seeds])
