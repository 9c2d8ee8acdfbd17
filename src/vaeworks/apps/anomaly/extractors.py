"""Measurements that a detector takes of images: latents, reconstruction error, and its error in a network's features.

VaeExtractor    through an autoencoder
PcaExtractor    through principal components of scikit-learn: for tables, and as the simplest autoencoder
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ...errors import DataError
from ...images import check_finite, crop_to, pad_to_multiple, to_model_range
from ...metrics.feature_spaces import weights_digest
from ...models import Autoencoder
from ...models.digest import model_digest
from ...models.modes import evaluating
from ...models.tiny import TinyBlock, TinyEncoder
from ..codes import PIXELS_AT_ONCE, Track

Array = NDArray[Any]
Maps = Callable[[Tensor], Sequence[Tensor]]
"""A frozen network: images n c h w in [-1,1] to feature maps n d_i h_i w_i, such as a `Backbone`."""

EXPLAINED = 0.9
"""Share of the variance that principal components keep."""

ROUNDING = 64
"""Differences up to so many units in the last place count as none."""


@dataclass(frozen=True, eq=False)
class Views:
    """Measurements of n images h x w."""

    error: Array
    """n h w: squared difference to the reconstruction, mean over channels"""
    latents: Array
    """n c h' w'"""
    features: Array | None
    """n h w: squared distance to the reconstruction's features; None without features"""


def batches(images: Array, track: Track = iter) -> Iterator[Array]:
    """Images n c h w in parts that fit into one pass of a network."""
    step = max(1, PIXELS_AT_ONCE // (images.shape[-1] * images.shape[-2]))
    yield from track([images[i : i + step] for i in range(0, len(images), step)])


class VaeExtractor:
    """Measure through an autoencoder. Images are uint8 n c h w, of any size; they are padded to a multiple of its
    factor."""

    def __init__(self, autoencoder: Autoencoder, features: Maps | None = None):
        """features: the network whose features are compared; None: the autoencoder's encoder."""
        self.autoencoder, self.features = autoencoder, features
        self.channels = autoencoder.config.in_channels

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the networks, in hex."""
        foreign = {} if self.features is None else {"features": features_digest(self.features)}
        return {"model": model_digest(self.autoencoder)} | foreign

    @torch.inference_mode()
    def latents(self, images: Array) -> Array:
        """The posteriors' means, float32 n c h/f w/f."""
        with evaluating(self.autoencoder):
            return self._mean(self._input(images))[0].float().cpu().numpy()

    @torch.inference_mode()
    def views(self, images: Array) -> Views:
        """The measurements of images n c h w."""
        x = self._input(images)
        with evaluating(self.autoencoder):
            mean, own = self._mean(x)
            recon = check_finite(self.autoencoder.decode(mean), "decoded images").clamp(-1, 1)
            again = self._mean(recon)[1] if self.features is None else []
        height, width = images.shape[-2:]
        before, after = (
            (own, again) if self.features is None else (self.features(x.float()), self.features(recon.float()))
        )
        changed = torch.stack([_resized(_distance(a, b), x) for a, b in zip(before, after, strict=True)]).mean(0)
        error = (x - recon).float().square().mean(1)
        return Views(*(_numpy(v) for v in (crop_to(error, height, width), mean, crop_to(changed, height, width))))

    @torch.inference_mode()
    def patches(self, images: Array) -> Array:
        """The encoder's last two maps, averaged over 3x3 neighbours, at the latents' resolution: float32 n d h/f w/f.

        Source: PatchCore, Roth et al. 2021 (arXiv 2106.08265), with maps of an ImageNet classifier.
        """
        with evaluating(self.autoencoder):
            mean, seen = self._mean(self._input(images))
        size = mean.shape[-2], mean.shape[-1]
        pooled = [
            F.adaptive_avg_pool2d(F.avg_pool2d(s.float(), 3, 1, 1, count_include_pad=False), size) for s in seen[-2:]
        ]
        return torch.cat(pooled, 1).cpu().numpy()

    def _input(self, images: Array) -> Tensor:
        x = to_model_range(torch.from_numpy(np.ascontiguousarray(images)))
        return pad_to_multiple(x, self.autoencoder.downsample_factor).to(
            self.autoencoder.device, self.autoencoder.dtype
        )

    def _mean(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        with _watched(_taps(self.autoencoder)) as seen:
            return check_finite(self.autoencoder.encode(x).mean, "encoded latents"), seen


class PcaExtractor:
    """Measure through principal components of images n c h w with any values. Latents are n k 1 1; there are no
    features."""

    digests: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, mean: Array, components: Array):
        """mean: d values; components: k d."""
        self.mean, self.components = mean, components

    @classmethod
    def fitted(cls, images: Array, explained: float = EXPLAINED) -> PcaExtractor:
        """Errors: DataError where all images are equal."""
        from sklearn.decomposition import PCA

        rows = images.reshape(len(images), -1)
        rows = rows if rows.dtype == np.float64 else rows.astype(np.float32)
        if (rows == rows[0]).all():
            raise DataError(f"all {len(rows)} normals that the detector is fitted on are equal; give some that differ")
        pca = PCA(explained, svd_solver="full").fit(rows)
        return cls(pca.mean_, pca.components_)

    def latents(self, images: Array) -> Array:
        """Coordinates, n k 1 1."""
        return ((images.reshape(len(images), -1) - self.mean) @ self.components.T)[:, :, None, None]

    def views(self, images: Array) -> Views:
        """The measurements of images n c h w."""
        latents = self.latents(images)
        recon = (latents[:, :, 0, 0] @ self.components + self.mean).reshape(images.shape)
        off = images - recon
        rows = images.reshape(len(images), -1)
        rounding = ROUNDING * np.finfo(recon.dtype).eps * (np.abs(rows).max(1) + np.abs(self.mean).max())
        off[np.abs(off) <= rounding[:, None, None, None]] = 0  # with all components the error is rounding alone
        return Views((off**2).mean(1), latents, None)


def features_digest(features: Maps) -> str:
    """SHA-256 in hex: of a module's weights, or of the name of any other callable."""
    if isinstance(features, nn.Module):
        return weights_digest(features)
    return hashlib.sha256(getattr(features, "__qualname__", type(features).__name__).encode()).hexdigest()


def _taps(autoencoder: Autoencoder) -> list[nn.Module]:
    """The encoder's modules whose outputs are features: the ends of its levels, and its middle."""
    encoder = autoencoder.encoder
    if not isinstance(encoder, TinyEncoder):
        return [*encoder.levels, encoder.middle]
    layers = list(encoder.layers)
    return [a for a, b in pairwise(layers) if isinstance(a, TinyBlock) and not isinstance(b, TinyBlock)]


@contextmanager
def _watched(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """A list that collects the outputs of these modules."""
    seen: list[Tensor] = []
    hooks = [module.register_forward_hook(lambda _module, _args, output: seen.append(output)) for module in modules]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance of features n d h w, each of length one as in LPIPS: n h w."""
    return (F.normalize(a.float(), dim=1, eps=1e-6) - F.normalize(b.float(), dim=1, eps=1e-6)).square().sum(1)


def _resized(maps: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(maps[:, None], like.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def _numpy(tensor: Tensor) -> Array:
    return tensor.float().cpu().numpy()
