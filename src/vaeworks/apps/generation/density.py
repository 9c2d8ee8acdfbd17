"""Densities that are fitted to a data set's latents and sampled.

All have `fit(latents, seed)` and `sample(count, seed)`; all but the flow have `score_samples(latents)`. Latents are n c
h w, unnormalized. Fitted densities are not stored in files.
"""

from __future__ import annotations

import math
from typing import Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from torch import Tensor

from ...config import PROBES
from ...errors import ConfigError, DataError
from ...models.dit import DiT
from ...models.ema import ema_decay, ema_update_
from ...models.flow_matching import euler, flow_loss
from ...random_streams import (
    DENSITY_SAMPLES,
    DENSITY_TIMES,
    DENSITY_WEIGHTS,
    PRIOR,
    Order,
    latent_noise,
    random_seed,
)
from ..codes import Track

VARIANCE = 0.99
"""Share of the latents' variance that is modelled; the rest is not sampled."""

LEAST = 32
"""Least number of latents to fit a density to."""

PER_NUMBER = 2
"""Least number of latents per component and dimension for a full covariance; below it, the covariance is diagonal."""


class Density(Protocol):
    """A density that latents can be sampled from."""

    def fit(self, latents: Tensor, seed: int = 0) -> Self:
        """Fit to latents n c h w. Errors: DataError for fewer than `LEAST`."""
        ...

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Sample latents count c h w, float32."""
        ...

    @property
    def stated(self) -> str:
        """The density in words."""
        ...


class Prior:
    """The standard normal prior that a KL term pulls posteriors to; only its shape is fitted.

    Source: Kingma & Welling 2013 (arXiv 1312.6114).
    """

    stated = "standard normal prior"

    def __init__(self, shape: tuple[int, int, int] | None = None):
        """shape: c h w, for use without `fit`."""
        self.shape = shape

    def fit(self, latents: Tensor, seed: int = 0) -> Self:
        """Take the shape of latents n c h w."""
        self.shape = _shape(latents)
        return self

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Sample latents count c h w; sample k does not depend on the count."""
        assert self.shape is not None
        return latent_noise(seed, list(range(count)), self.shape, PRIOR)

    def score_samples(self, latents: Tensor) -> NDArray[np.float64]:
        """Log-density of latents n c h w in nats: n."""
        x = latents.double().flatten(1)
        return (-0.5 * (x.square().sum(1) + x.shape[1] * math.log(2 * math.pi))).numpy()


class Mixture:
    """A mixture of Gaussians (scikit-learn) on the principal components that hold 99 % of the variance; with one
    component, a Gaussian.

    Samples and log-densities leave out the other principal components. Source: Ghosh et al. 2019 (arXiv 1903.12436),
    who fit a mixture to an autoencoder's latents after training it.
    """

    def __init__(self, components: int = 10):
        if components < 1:
            raise ConfigError(f"components (={components}) must be at least 1")
        self.components = components

    def fit(self, latents: Tensor, seed: int = 0) -> Self:
        """Fit to latents n c h w. Errors: DataError for fewer than `LEAST`, or fewer than `components`."""
        x = _flat(latents)
        if len(x) < self.components:
            raise DataError(
                f"{len(x)} images cannot have {self.components} components; give fewer --components, or more images"
            )
        self.shape = _shape(latents)
        if not np.ptp(x, axis=0).any():
            raise DataError("all latents are equal; there is nothing to fit a density to")
        self.pca = PCA(VARIANCE, whiten=True, svd_solver="full").fit(x)
        dimensions = self.pca.n_components_
        full = len(x) >= PER_NUMBER * dimensions * self.components
        self.mixture = GaussianMixture(
            self.components, covariance_type="full" if full else "diag", reg_covar=1e-4, max_iter=200, random_state=seed
        ).fit(self.pca.transform(x))
        return self

    @property
    def stated(self) -> str:
        """The density in words."""
        what = "Gaussian" if self.components == 1 else f"mixture of {self.components} Gaussians"
        return (
            f"{what} with {self.mixture.covariance_type} covariance on {self.pca.n_components_} principal components "
            "of the latents"
        )

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Sample latents count c h w, the components in random order."""
        drawn = self.mixture.set_params(random_state=seed).sample(count)[0]
        drawn = drawn[np.random.default_rng(seed).permutation(count)]
        return torch.from_numpy(self.pca.inverse_transform(drawn)).float().reshape(count, *self.shape)

    def score_samples(self, latents: Tensor) -> NDArray[np.float64]:
        """Log-density of latents n c h w in the space of whitened principal components, in nats: n."""
        return np.asarray(self.mixture.score_samples(self.pca.transform(_flat(latents, 1))))


class Flow:
    """A flow-matching transformer, the arena's smallest generator (models/flow_matching.py), trained on standardized
    latents.

    It has no `score_samples`: the density would take an integral for every sample.
    """

    TOKENS = 64
    """Most tokens; more positions are merged into square patches."""

    BATCH, LR, HALFLIFE, WARMUP, STEPS = 128, 1e-3, 4096, 4096, 25

    def __init__(self, images: int = 32_768, track: Track = iter):
        """images: length of the training, in latents."""
        self.images, self.track = images, track

    def fit(self, latents: Tensor, seed: int = 0) -> Self:
        """Fit to latents n c h w. Errors: DataError for fewer than `LEAST`; ConfigError for latents that are not
        square."""
        self.shape = _shape(latents)
        _, height, width = self.shape
        if height != width:
            raise ConfigError(f"a flow takes square latents, not {height} x {width}")
        self.patch = next(p for p in range(1, height + 1) if height % p == 0 and (height // p) ** 2 <= self.TOKENS)
        self.mean = latents.mean((0, 2, 3))[:, None, None]
        self.std = latents.std((0, 2, 3))[:, None, None].clamp_min(1e-8)
        tokens = self._tokens((latents - self.mean) / self.std)
        _flat(latents)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_seed(seed, DENSITY_WEIGHTS))
            make = (PROBES["xs"], height // self.patch, tokens.shape[-1])
            model, self.model = DiT(*make), DiT(*make)
        self.model.load_state_dict(model.state_dict())
        self._train(model, tokens, seed)
        return self

    def _train(self, model: DiT, tokens: Tensor, seed: int) -> None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.LR, betas=(0.9, 0.95), weight_decay=0.0)
        order, generator, labels = (
            Order(len(tokens), seed),
            torch.Generator(),
            torch.zeros(self.BATCH, dtype=torch.long),
        )
        for step in self.track(range(max(1, self.images // self.BATCH))):
            seen = (step + 1) * self.BATCH
            z = tokens[[order[step * self.BATCH + i] for i in range(self.BATCH)]]
            generator.manual_seed(random_seed(seed, DENSITY_TIMES, step))
            times, noise = torch.randn(self.BATCH, generator=generator), torch.randn(z.shape, generator=generator)
            optimizer.zero_grad()
            flow_loss(model, z, labels, noise, times, 1.0).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = self.LR * min(1.0, seen / self.WARMUP)
            optimizer.step()
            ema_update_(self.model, model, ema_decay(self.HALFLIFE, self.BATCH, seen))

    @property
    def stated(self) -> str:
        """The density in words."""
        count = sum(p.numel() for p in self.model.parameters())
        return f"flow of {count:,} parameters, trained on {self.images:,} latents, {self.STEPS} steps"

    @torch.inference_mode()
    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Sample latents count c h w; sample k does not depend on the count."""
        found = []
        for part in torch.arange(count).split(self.BATCH):
            noise = self._tokens(latent_noise(seed, part.tolist(), self.shape, DENSITY_SAMPLES))
            tokens = euler(self.model, noise, torch.zeros(len(part), dtype=torch.long), self.STEPS, 1.0)
            side = self.shape[1] // self.patch
            found.append(F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (side, side)), self.patch))
        return torch.cat(found) * self.std + self.mean

    def _tokens(self, latents: Tensor) -> Tensor:
        return F.pixel_unshuffle(latents, self.patch).flatten(2).transpose(1, 2)


def density(name: str, components: int = 10, track: Track = iter) -> Density:
    """The density of this name: prior, gaussian, mixture or flow. Errors: ConfigError for another name."""
    match name:
        case "prior":
            return Prior()
        case "gaussian":
            return Mixture(1)
        case "mixture":
            return Mixture(components)
        case "flow":
            return Flow(track=track)
    raise ConfigError(f"density {name!r} is not known; choose from prior, gaussian, mixture, flow")


def _shape(latents: Tensor) -> tuple[int, int, int]:
    c, h, w = latents.shape[1:]
    return c, h, w


def _flat(latents: Tensor, least: int = LEAST) -> NDArray[np.float64]:
    """Latents n c h w as n d. Errors: DataError for too few."""
    if len(latents) < least:
        raise DataError(f"{len(latents)} images are too few to fit a density to their latents; give at least {least}")
    return latents.flatten(1).double().numpy()
