"""New images from a density of latents, and their metrics beside those of held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...data import ImageSet
from ...data.subsets import some
from ...errors import DataError
from ...models import Autoencoder
from ...random_streams import DENSITY_POSTERIORS, latent_noise
from ..codes import Codes, Track, decode_pixels, encode_squares
from .density import Density
from .sample_metrics import Likeness, PixelFeatures

HELD_OUT = 0.1
"""Share of images held out from the fit, chosen by content as in training, with training's default."""


@dataclass(frozen=True, eq=False)
class SampledSet:
    """Decoded samples of a density, and their metrics."""

    pixels: Tensor
    """uint8 n c h w"""
    stated: str
    """the density in words"""
    features: str | None = None
    """the feature space of the metrics; None without data"""
    figures: dict[str, Likeness] | None = None
    """metrics of samples, held-out images, and reconstructions of these"""
    latents_std: float | None = None
    """std of samples of all posteriors, root mean square over channels; 1 for a standard normal prior"""
    kl_bits: float | None = None
    """KL divergence to the prior in bits, mean over latents; None where latents are points"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        figures = (
            None if self.figures is None else {name: likeness.to_dict() for name, likeness in self.figures.items()}
        )
        return {
            "density": self.stated,
            "count": len(self.pixels),
            "features": self.features,
            "figures": figures,
            "latents_std": self.latents_std,
            "kl_bits": self.kl_bits,
        }


def sample_density(
    autoencoder: Autoencoder, density: Density, count: int, seed: int = 0, track: Track = iter
) -> SampledSet:
    """Decoded samples of a density that is fitted, or needs no fit."""
    return SampledSet(decode_pixels(autoencoder, density.sample(count, seed), track), density.stated)


def read_halves(
    autoencoder: Autoencoder, images: ImageSet, size: int, labels: Sequence[str] | None = None, track: Track = iter
) -> tuple[Codes, Codes]:
    """Codes of the images to fit a density to, and of the held-out images. Errors: DataError if either set is empty."""
    kept = {} if labels is None else {str(file.path): label for file, label in zip(images.files, labels, strict=True)}
    halves = []
    for part in images.split(HELD_OUT):
        if not part.files:
            raise DataError(f"{len(images.files)} images of {images.source!r} are too few to hold some out; give more")
        own = None if labels is None else [kept[str(file.path)] for file in part.files]
        halves.append(encode_squares(autoencoder, part, size, own, track))
    return halves[0], halves[1]


def sample_like(
    autoencoder: Autoencoder,
    density: Density,
    known: Codes,
    held_out: Codes,
    count: int,
    seed: int = 0,
    track: Track = iter,
) -> SampledSet:
    """Fit a density to samples of the known images' posteriors, decode samples of it, and score them beside held-out
    images.

    All columns have equally many images, the fewer of samples and held-out images, because Fréchet distance and
    coverage depend on the number. Errors: DataError for too few images.
    """
    c, h, w = known.mean.shape[1:]
    noise = latent_noise(seed, list(range(len(known))), (c, h, w), DENSITY_POSTERIORS)
    drawn = known.mean + known.std * noise
    space = PixelFeatures(known.pixels, known.labels)
    made = sample_density(autoencoder, density.fit(drawn, seed), count, seed, track)
    n = min(count, len(held_out))
    if n < 2:
        raise DataError(
            f"figures need two samples and two held-out images at least; there are {count} and {len(held_out)}"
        )
    rows = some(len(held_out), n)  # the first ones may all have one class
    figures = {
        "samples": space.judge(made.pixels[:n]),
        "held-out images": space.judge(held_out.pixels[rows]),
        "their reconstructions": space.judge(decode_pixels(autoencoder, held_out.mean[rows], track)),
    }
    spread = drawn.std((0, 2, 3)).square().mean().sqrt().item()
    return SampledSet(made.pixels, made.stated, space.stated, figures, spread, _bits(known))


def _bits(codes: Codes) -> float | None:
    if not codes.std.any():
        return None
    kl = 0.5 * (codes.mean.square() + codes.std.square() - 1 - 2 * codes.std.log())
    return kl.mean().item() / torch.log(torch.tensor(2.0)).item()
