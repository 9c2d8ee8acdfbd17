"""A data set in a latent space: encoded once, standardized, cut into tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..config import dumps
from ..data.square_images import SquareImages
from ..errors import ConfigError, DataError, FormatError
from ..files.arrays import read_array
from ..files.atomic import atomic, map_file, read_json, write_text
from ..images import from_model_range
from ..latents.posteriors import encode_batches
from ..reporting import Progress
from .space import Space

BATCH = 64
"""Images that go through the VAE together."""

MEAN, STD, FACTS = "mean.npy", "std.npy", "encoded.json"


@dataclass(frozen=True, eq=False)
class Encoded:
    """The posteriors of all images, standardized for a generator."""

    space: Space
    mean: np.ndarray
    """n c h w, float32, mapped"""
    std: np.ndarray | None
    """n c h w, likewise; None where latents are points"""
    centre: Tensor
    """mean by channel over samples of all posteriors, as the generator sees them: c 1 1"""
    spread: Tensor
    """standard deviation, likewise"""
    patch: int
    """side of a token, in latents"""

    @property
    def shape(self) -> tuple[int, int, int]:
        """c h w of an image's latents."""
        c, h, w = self.mean.shape[1:]
        return c, h, w

    @property
    def dimension(self) -> int:
        """Number of values of an image's latents."""
        return math.prod(self.shape)

    @property
    def token_width(self) -> int:
        """Number of values of a token."""
        return self.shape[0] * self.patch**2

    def sample(self, rows: Sequence[int] | np.ndarray, noise: Tensor) -> Tensor:
        """Tokens n k d of samples of some images' posteriors. noise: standard normal n c h w."""
        latents = torch.from_numpy(np.array(self.mean[rows]))
        if self.std is not None:
            latents = torch.addcmul(latents, torch.from_numpy(np.array(self.std[rows])), noise)
        return self.tokens((self.space.seen(latents) - self.centre) / self.spread)

    def images(self, tokens: Tensor) -> Tensor:
        """Images of tokens n k d that a generator made: uint8 n c size size."""
        z = self.untokens(tokens.cpu().float())
        return self.decode(self.space.unseen(z * self.spread + self.centre))

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents n c h w: uint8, on the CPU. NaN becomes gray."""
        parts = [
            from_model_range(self.space.decode(part.to(self.space.device)).nan_to_num(0.0, 1.0, -1.0)).cpu()
            for part in latents.split(BATCH)
        ]
        return torch.cat(parts)

    def tokens(self, z: Tensor) -> Tensor:
        """Latents n c h w to tokens n k d: every square of patch x patch latents is a token."""
        return torch.nn.functional.pixel_unshuffle(z, self.patch).flatten(2).transpose(1, 2)

    def untokens(self, tokens: Tensor) -> Tensor:
        """The inverse of `tokens`."""
        side = math.isqrt(tokens.shape[1])
        return torch.nn.functional.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (side, side)), self.patch)


def patch_for(shape: tuple[int, int, int], tokens: int, name: str) -> int:
    """Side of a token, in latents, where latents c h w are cut into `tokens` squares.

    Errors: ConfigError where they cannot be cut into that number.
    """
    side = math.isqrt(tokens)
    if shape[1] % side or shape[1] < side:
        fitting = [n**2 for n in range(1, shape[1] + 1) if shape[1] % n == 0]
        raise ConfigError(
            f"the latents of {name} are {shape[1]}x{shape[2]}, which cannot be cut into {side}x{side} tokens (tokens "
            f"(={tokens})); {', '.join(map(str, fitting))} are possible, or larger images"
        )
    return shape[1] // side


def place_of(space: Space, pictures: SquareImages, folder: Path) -> Path:
    """The folder below `folder` that keeps the latents of these images in this space."""
    return folder / f"{space.digest[:16]}-{pictures.digest[:16]}"


def encode(
    space: Space, pictures: SquareImages, folder: Path, tokens: int, name: str, progress: Progress | None = None
) -> Encoded:
    """Encode all images into a folder, or open what an earlier call encoded there of the same space and images.

    Errors: ConfigError for a space of other images or latents that do not give so many tokens; DataError for latents
    that are not finite, or constant; VaeworksError where the disk is full.
    """
    if space.channels != pictures.pixels.shape[1]:
        raise ConfigError(
            f"{name} is of images with {space.channels} channels, the arena's have {pictures.pixels.shape[1]}; put "
            "models of one kind into an arena"
        )
    patch_for(space.shape(pictures.size), tokens, name)
    place = place_of(space, pictures, folder)
    if not (place / FACTS).exists():
        with atomic(place, overwrite=True) as temporary:
            temporary.mkdir()
            _encode(space, pictures, temporary, name, progress)
    return open_encoded(space, pictures, folder, tokens, name)


def open_encoded(space: Space, pictures: SquareImages, folder: Path, tokens: int, name: str) -> Encoded:
    """Open what `encode` wrote.

    Errors: FormatError where there is nothing; ConfigError for latents that do not give so many tokens.
    """
    place = place_of(space, pictures, folder)
    facts = read_json(place / FACTS)
    mean = read_array(place / MEAN, mapped=True)
    try:
        std = read_array(place / STD, mapped=True) if facts["variance"] else None
        centre, spread = (torch.tensor(facts[key], dtype=torch.float32)[:, None, None] for key in ("centre", "spread"))
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise FormatError(
            f"{place / FACTS} does not say how latents are standardized ({error}); delete {place}"
        ) from None
    shape = (pictures.count, *space.shape(pictures.size))
    if (
        any(array.shape != shape for array in (mean, *([std] if std is not None else [])))
        or not len(centre) == len(spread) == shape[1]
    ):
        raise FormatError(
            f"{place} holds latents of other shapes than n c h w {shape}; delete it, and they are encoded again"
        )
    return Encoded(space, mean, std, centre, spread, patch_for(space.shape(pictures.size), tokens, name))


@torch.inference_mode()
def _encode(space: Space, pictures: SquareImages, folder: Path, name: str, progress: Progress | None) -> None:
    shape = (pictures.count, *space.shape(pictures.size))
    mean = map_file(folder / MEAN, shape, np.float32)
    std: np.ndarray | None = None
    total, squares = torch.zeros(shape[1], dtype=torch.float64), torch.zeros(shape[1], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    start = 0
    for latents, deviation in encode_batches(space.encode, pictures.batches(BATCH), space.device):
        rows = slice(start, start + BATCH)
        start += BATCH
        mean[rows] = latents.numpy()
        if deviation is not None:
            if std is None:
                std = map_file(folder / STD, shape, np.float32)
            std[rows] = deviation.numpy()
            latents = torch.addcmul(latents, deviation, torch.randn(latents.shape, generator=generator))
        z = space.seen(latents).double()
        total += z.sum((0, 2, 3))
        squares += z.square().sum((0, 2, 3))
        if progress:
            progress(min(start, pictures.count), pictures.count)
    count = shape[0] * shape[2] * shape[3]
    centre = total / count
    spread = (squares / count - centre.square()).clamp(min=0).sqrt()
    if not (centre.isfinite().all() and spread.isfinite().all()):
        raise DataError(f"latents of {name} are not finite; `vaeworks doctor` shows where")
    if not (spread > 0).any():
        raise DataError(f"latents of {name} are constant: it encodes every image alike, and there is nothing to learn")
    spread[spread == 0] = 1.0  # a dead channel stays 0
    facts = {
        "space": space.digest,
        "pictures": pictures.digest,
        "variance": std is not None,
        "centre": centre.tolist(),
        "spread": spread.tolist(),
    }
    write_text(folder / FACTS, dumps(facts) + "\n")
