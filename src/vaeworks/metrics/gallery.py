"""The gallery: the best, the median and the worst images with their differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from ..data import ImageFile
from ..images import difference, labelled
from ..images.notebook import png
from ..models import Autoencoder
from .crop import Crop
from .evaluation import Evaluation, ImageScore
from .roundtrip import reconstruction

GAIN = 4
"""Factor by which differences are amplified."""


@dataclass(frozen=True)
class Shot:
    """An image of the gallery, its reconstruction and the difference times `GAIN`: uint8 c h w."""

    rank: str
    """worst, median or best"""
    score: ImageScore
    original: Tensor
    recon: Tensor
    difference: Tensor

    @property
    def picture(self) -> Image.Image:
        """Original, reconstruction and difference side by side, below their names."""
        return sheet([self])

    def _repr_png_(self) -> bytes:
        """The picture, for notebooks."""
        return png(self.picture)


def chosen(
    evaluation: Evaluation, worst: int = 3, median: int = 1, best: int = 1
) -> tuple[tuple[str, ImageScore], ...]:
    """The images to show, by PSNR, worst first; none twice."""
    ranked = evaluation.ranked
    count = len(ranked)
    start = max(0, (count - median) // 2)
    places = [("worst", i) for i in range(min(worst, count))]
    places += [("median", i) for i in range(start, min(start + median, count))]
    places += [("best", i) for i in range(max(0, count - best), count)]
    first: dict[int, str] = {}
    for rank, i in places:
        first.setdefault(i, rank)
    return tuple((rank, ranked[i]) for i, rank in first.items())


def gallery(
    autoencoder: Autoencoder,
    evaluation: Evaluation,
    files: tuple[ImageFile, ...],
    crop: Crop,
    seed: int | None = None,
    picks: tuple[tuple[str, ImageScore], ...] | None = None,
) -> tuple[Shot, ...]:
    """The chosen images, reconstructed once more with the evaluation's arguments. picks: images in place of `chosen`
    ones."""
    places = {str(file.path): (number, file.path) for number, file in enumerate(files)}
    shots = []
    for rank, score in picks if picks is not None else chosen(evaluation):
        number, place = places[score.path]
        image, _ = crop.read(place, autoencoder.config.in_channels)
        recon, _ = reconstruction(autoencoder, image, seed, number)
        shots.append(Shot(rank, score, image, recon, difference(image, recon, GAIN)))
    return tuple(shots)


def sheet(shots: Sequence[Shot], names: Sequence[str] = ()) -> Image.Image:
    """Rows of original, reconstruction, difference; `names`, of the models, stand beside the rows."""
    rows = [[shot.original, shot.recon, shot.difference] for shot in shots]
    words = [f"{shot.rank}, {Path(shot.score.path).name}, {shot.score.psnr:.2f} dB" for shot in shots]
    sides = [f"{name}: {word}" for name, word in zip(names, words, strict=True)] if names else words
    return labelled(rows, columns=("original", "reconstruction", f"difference x {GAIN}"), sides=sides)
