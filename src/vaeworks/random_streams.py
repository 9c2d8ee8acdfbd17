"""Counter-keyed randomness: every random number is a function of (seed, stream, counter) alone.

So image number k of a run, its crop and its noise depend on (seed, k) only. A checkpoint needs no random state, and
neither the number of workers or processes nor an interruption changes a run.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox). NumPy guarantees the bit stream.

This module is the registry of all streams: one number for each use, so that no two uses share random numbers. A number
never changes: results that people have published depend on it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .errors import ConfigError

# data and training
ORDER = 0  # epochs of a data set
CROP = 1  # where an image is cropped
NOISE = 2  # samples of posteriors, in training, encoding and evaluation
INIT = 3  # first weights: counter 0 of the autoencoder, 1 of the discriminator, 2 of the alignment's projection
LEVEL = 4  # how strongly latents are disturbed
STEP = 5  # the augmentation of a training step
SHARDS = 6  # order of a stream's shards
BLOCKS = 7  # order within a block of a stream
DISTURBANCE = 8  # noise on latents in training

# synthetic images and sounds
SCENE = 9
COLOURS = 10
LATTICE = 11
SOUND = 12
PANNING = 13
SHAPE_ORDER = 14  # which figure an image with a caption shows
SHAPE_SCENE = 15  # its place, size, angle and colours

# the arena
ARENA_NOISE = 64  # noise and times of a probe's training
ARENA_SAMPLES = 65  # noise that a probe's samples start from
ARENA_WEIGHTS = 66  # first weights of a probe
CLASSIFIER_STEPS = 67  # disturbances of a classifier's training
ARENA_CLASSES = 68  # classes of a probe's samples

# generation
VARIANTS = 96  # variants of an image
WALK = 97  # directions of a walk around an image
PRIOR = 98  # samples of the prior
DENSITY_WEIGHTS = 99  # first weights of a flow-matching density
DENSITY_TIMES = 100  # noise and times of its training
DENSITY_SAMPLES = 101  # noise that its samples start from
DENSITY_POSTERIORS = 102  # samples of posteriors that a density is fitted to

# painting
PAINT_WEIGHTS = 112  # first weights of a denoiser and of its text encoders
PAINT_TIMES = 113  # time and caption dropout of an image
PAINT_NOISE = 114  # noise that is added to an image's latents
PAINT_POSTERIORS = 115  # samples of posteriors
PAINT_SHEET = 116  # noise that a sheet's pictures start from
PAINT_LOOK = 117  # times and noise of held-out images

# augmentation
PARTNERS = 103  # which images are blended, and by how much
VARIANT_NOISE = 104  # noise on the latents of variants
PIXEL_VARIANTS = 105  # the baseline in pixels


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
    """The endless sequence of a data set's indices: shuffled epochs in a row, each a function of (seed, stream,
    epoch)."""

    def __init__(self, length: int, seed: int, stream: int = ORDER):
        self.length = length
        self.seed = seed
        self.stream = stream
        self._epoch = -1
        self._permutation = np.empty(0, dtype=np.int64)

    def __getitem__(self, counter: int) -> int:
        """Index of the image number `counter` of the run."""
        epoch, position = divmod(counter, self.length)
        if epoch != self._epoch:
            self._permutation = np.argsort(random_words(self.seed, self.stream, epoch, self.length), kind="stable")
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
