"""Images with captions as latents: what a denoiser is trained on, encoded once into mapped files."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import AutoencoderConfig, PaintConfig, dumps
from ..data.captions import find_captions
from ..data.image_set import ImageSet, scan
from ..data.square_images import SquareImages
from ..data.square_images import prepare as prepare_squares
from ..errors import ConfigError, DataError, FormatError
from ..files.arrays import read_array
from ..files.atomic import atomic, map_file, read_json, write_text
from ..latents.posteriors import encode_batches
from ..models import Autoencoder
from ..models.digest import model_digest
from ..reporting import Progress

MEAN, STD, FACTS = "mean.npy", "std.npy", "latents.json"

BATCH = 64

ROUNDING = 1e-6
"""Standard deviation of a channel, as a share of its mean or of the other channels', that is rounding of float32."""

TRAINED, HELD = "t", "v"
"""First letter of what is kept beside a picture, before its caption."""


@dataclass(frozen=True)
class CaptionedImages:
    """The images of a source and their captions, before anything is encoded."""

    images: ImageSet
    captions: tuple[str, ...]
    held_out: frozenset[str]
    """digests of held-out images"""
    sentences: tuple[str, ...]
    """about the captions, for people"""

    @property
    def digest(self) -> str:
        """SHA-256 over images and captions, in hex."""
        words = "\n".join(self.captions).encode(errors="replace")
        return hashlib.sha256(self.images.digest.encode() + hashlib.sha256(words).digest()).hexdigest()


def read_captioned(
    source: str, config: PaintConfig, wording: tuple[str | None, str | None] = (None, None), track: Any = None
) -> CaptionedImages:
    """The images of a source with their captions. wording: caption of a class, such as "a photo of a {}", and column of
    text.

    Errors: DataError for a source without images or without captions, or with one caption for all images.
    """
    images = scan(source, progress=track)
    found = find_captions(images.files, *wording)
    different = set(found.texts) - {""}
    if len(images.files) < 2 * config.batch and len(images.files) < 16:
        raise DataError(f"{source!r} has {len(images.files)} usable images; at least 16 are needed to learn to paint")
    if len(different) < 2:
        only = next(iter(different), "")
        raise DataError(
            f"all images of {source!r} have one caption, {only[:60]!r}, so that words could teach nothing; give each "
            "its own (docs/data.md), or class folders with --caption 'a photo of a {}'"
        )
    train, held = images.split(config.val_fraction)
    if not train.files:
        raise DataError(f"all images of {source!r} are held out; lower val-fraction (={config.val_fraction})")
    counted = f"{len(train.files):,} training images, {len(held.files):,} held out by content hash"
    words = f"{len(different):,} different captions: {found.origin}"
    return CaptionedImages(
        images, found.texts, frozenset(file.digest for file in held.files), (counted, words, *found.sentences)
    )


@dataclass(frozen=True, eq=False)
class CaptionedLatents:
    """Posteriors of images with captions, in files, and how the denoiser sees them."""

    mean: np.ndarray
    """float32 n c h w, mapped"""
    std: np.ndarray | None
    """None where latents are points"""
    captions: tuple[str, ...]
    trained: np.ndarray
    """rows of training images; mirrored ones have rows of their own"""
    held_out: np.ndarray
    """rows of held-out images, not mirrored"""
    centre: Tensor
    """c 1 1"""
    spread: Tensor
    """c 1 1"""

    @property
    def shape(self) -> tuple[int, int, int]:
        """c h w of the latents."""
        c, h, w = self.mean.shape[1:]
        return c, h, w

    def sample(self, rows: Sequence[int] | np.ndarray, noise: Tensor) -> Tensor:
        """Samples of some images' posteriors as the denoiser sees them: n c h w. noise: standard normal n c h w."""
        latents = torch.from_numpy(np.array(self.mean[rows]))
        if self.std is not None:
            latents = torch.addcmul(latents, torch.from_numpy(np.array(self.std[rows])), noise)
        return (latents - self.centre) / self.spread


def prepare_latents(
    captioned: CaptionedImages,
    autoencoder: Autoencoder,
    config: PaintConfig,
    folder: Path,
    counting: Any,
) -> CaptionedLatents:
    """Encode all images into a folder, or open what an earlier call with the same arguments encoded there.

    counting: a context with a bar, of what is being done (Reporter.counting).
    Errors: ConfigError for latents that do not fit the size; DataError for images that cannot be read, and for latents
    that are not finite or constant.
    """
    f = autoencoder.downsample_factor
    if config.size % f:
        raise ConfigError(f"size (={config.size}) must be divisible by the VAE's downsample_factor (={f})")
    key = hashlib.sha256(
        f"{captioned.digest} {model_digest(autoencoder)} {config.size} {config.flip} {config.val_fraction}".encode()
    ).hexdigest()
    place = folder / key[:16]
    if not (place / FACTS).exists():
        with atomic(place, overwrite=True) as temporary:
            temporary.mkdir()
            _encode(captioned, autoencoder, config, temporary, key, counting)
    return _opened(place, autoencoder, config)


def _encode(
    captioned: CaptionedImages, autoencoder: Autoencoder, config: PaintConfig, folder: Path, key: str, counting: Any
) -> None:
    sides = [HELD if file.digest in captioned.held_out else TRAINED for file in captioned.images.files]
    notes = [side + caption for side, caption in zip(sides, captioned.captions, strict=True)]
    channels = autoencoder.config.in_channels
    with counting("reading images") as progress:
        squares = prepare_squares(captioned.images, folder / "squares", config.size, channels, notes, progress)
    kept = [squares.classes[number] for number in squares.labels.tolist()]
    rows = [*range(len(kept)), *(i for i in range(len(kept)) if config.flip and kept[i].startswith(TRAINED))]
    turned = [False] * len(kept) + [True] * (len(rows) - len(kept))
    with counting("encoding images") as progress:
        _encode_rows(squares, autoencoder, rows, turned, folder, progress)
    facts = {
        "key": key,
        "captions": [kept[row][1:] for row in rows],
        "trained": [i for i, row in enumerate(rows) if kept[row].startswith(TRAINED)],
        "held_out": [i for i, row in enumerate(rows) if kept[row].startswith(HELD) and not turned[i]],
    }
    write_text(folder / FACTS, dumps(facts) + "\n")


@torch.inference_mode()
def _encode_rows(
    squares: SquareImages,
    autoencoder: Autoencoder,
    rows: Sequence[int],
    turned: Sequence[bool],
    folder: Path,
    progress: Progress,
) -> None:
    c, f = autoencoder.latent_channels, autoencoder.downsample_factor
    shape = (len(rows), c, squares.size // f, squares.size // f)
    mean = map_file(folder / MEAN, shape, np.float32)
    std: np.ndarray | None = None

    def batches() -> Any:
        for start in range(0, len(rows), BATCH):
            batch = squares.batch(np.array(rows[start : start + BATCH]))
            mirror = torch.tensor(turned[start : start + BATCH])
            batch[mirror] = batch[mirror].flip(-1)
            yield batch

    start = 0
    for latents, deviation in encode_batches(autoencoder.encode, batches(), autoencoder.device):
        if not latents.isfinite().all():
            raise DataError("latents are not finite; `vaeworks doctor` shows where the VAE fails")
        mean[start : start + BATCH] = latents.numpy()
        if deviation is not None:
            if std is None:
                std = map_file(folder / STD, shape, np.float32)
            std[start : start + BATCH] = deviation.numpy()
        start += BATCH
        progress(min(start, len(rows)), len(rows))


def _opened(place: Path, autoencoder: Autoencoder, config: PaintConfig) -> CaptionedLatents:
    facts = read_json(place / FACTS)
    mean = read_array(place / MEAN, mapped=True)
    std = read_array(place / STD, mapped=True) if (place / STD).exists() else None
    try:
        captions = tuple(map(str, facts["captions"]))
        trained, held_out = (np.array(facts[name], dtype=np.int64) for name in ("trained", "held_out"))
        if not (mean.ndim == 4 and len(mean) == len(captions) > max(trained.max(), held_out.max(initial=0))):
            raise ValueError("it lists other rows than the latents have")
    except (LookupError, TypeError, ValueError) as error:
        raise FormatError(f"{place / FACTS} does not describe latents ({error}); delete {place}") from None
    centre, spread = _normalization(mean, std, trained, autoencoder, config)
    return CaptionedLatents(mean, std, captions, trained, held_out, centre, spread)


def _normalization(
    mean: np.ndarray, std: np.ndarray | None, trained: np.ndarray, autoencoder: Autoencoder, config: PaintConfig
) -> tuple[Tensor, Tensor]:
    """Centre and spread of latents, c 1 1 each, by `config.standardize`."""
    if standardize(config, autoencoder) == "file":
        c = mean.shape[1]
        ends = torch.stack([torch.zeros(c), torch.ones(c)])[:, :, None, None]
        low, high = autoencoder.normalize(ends.to(autoencoder.device)).cpu()  # affine: z = (x - centre) / spread
        spread = 1 / (high - low)
        return -low * spread, spread
    total, squares, noise = (np.zeros(mean.shape[1]) for _ in range(3))
    count = 0
    for start in range(0, len(trained), 1024):
        rows = trained[start : start + 1024]
        values = mean[rows].astype(np.float64)
        total += values.sum((0, 2, 3))
        squares += (values**2).sum((0, 2, 3))
        if std is not None:
            noise += (std[rows].astype(np.float64) ** 2).sum((0, 2, 3))
        count += values.shape[0] * values.shape[2] * values.shape[3]
    centre, second = total / count, (squares + noise) / count
    told = squares / count - centre**2  # variance of the means, which is all that images change
    if not (np.isfinite(second).all() and told.max() > ROUNDING**2 * second.max()):
        raise DataError("the latents of these images are constant or not finite; there is nothing to learn")
    if standardize(config, autoencoder) == "scalar":
        centre, second = np.full_like(centre, centre.mean()), np.full_like(second, second.mean())
    spread = np.sqrt(np.maximum(second - centre**2, 0))
    spread[spread <= ROUNDING * np.maximum(abs(centre), spread.max())] = 1.0  # a dead channel stays 0
    return _by_channel(centre), _by_channel(spread)


def _by_channel(values: np.ndarray) -> Tensor:
    """A number for each channel: c 1 1, float32."""
    return torch.tensor(values, dtype=torch.float32)[:, None, None]


def standardize(config: PaintConfig, autoencoder: Autoencoder) -> str:
    """How latents are standardized: a TAESD, or statistics within patches, cannot be folded and stay as they are."""
    own = autoencoder.config
    fits = isinstance(own, AutoencoderConfig) and own.normalization != "batchnorm" and own.bottleneck.bound == "none"
    return config.standardize if fits else "file"


def standardized(autoencoder: Autoencoder, latents: CaptionedLatents, config: PaintConfig) -> Autoencoder:
    """The same VAE, whose `normalize` is that of the latents. It shares the weights."""
    how = standardize(config, autoencoder)
    if how == "file":
        return autoencoder
    found = copy.copy(autoencoder)
    centre, spread = latents.centre.flatten().tolist(), latents.spread.flatten().tolist()
    if how == "scalar":
        facts: dict[str, Any] = {
            "normalization": "scalar",
            "shift_factor": centre[0],
            "scaling_factor": 1 / spread[0],
            "latents_mean": None,
            "latents_std": None,
        }
    else:
        facts = {"normalization": "channel", "latents_mean": tuple(centre), "latents_std": tuple(spread)}
        facts |= {"scaling_factor": 1.0, "shift_factor": 0.0}
    found.config = autoencoder.config.with_facts(**facts)
    return found
