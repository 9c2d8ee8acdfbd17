"""Restore a damaged image: search the likeliest latents, given its known pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import ConfigError, DataError
from ...images import crop_to, from_model_range, pad_to_multiple, to_model_range
from ...latents.posteriors import picture_posterior
from ...runtime import Codec
from .baselines import first_guess
from .damage import Damage
from .harmonic import harmonic_fill
from .prior import SpectralPrior, Whitened

HELD_OUT = 0.05
"""Share of the known pixels that is held out; it decides when to stop."""

STEPS = 100
"""Most steps of L-BFGS."""

PATIENCE = 10
"""Steps without a better fit of the held-out pixels before the search stops."""

LARGE = 2**20
"""Number of pixels above which gradients are computed in strips."""


@dataclass(frozen=True, eq=False)
class Restored:
    """A restored image, and the course of its search."""

    image: Tensor
    """uint8 c h w"""
    decoded: Tensor
    """uint8 c h w: the decoder's output, without the known pixels"""
    evaluations: int
    """number of evaluations of the decoder and its gradient"""
    held_out: tuple[float, ...]
    """root mean square distance to the held-out pixels at every evaluation, in gray levels"""
    taken: int
    """number of the evaluation whose image is the result"""


def restore_picture(
    codec: Codec,
    damage: Damage,
    prior: SpectralPrior,
    *,
    keep: bool | None = None,
    steps: int = STEPS,
    start: Tensor | None = None,
    seed: int = 0,
) -> Restored:
    """Find the latents z with the highest posterior probability, and decode them.

    The search minimizes |M (D(z) - y)|^2 / (2 sigma^2) + |u|^2 / 2. M selects the known pixels of y, D is the decoder,
    u are the coordinates of z in which `prior` is standard normal, and sigma^2 = noise^2 + error^2 is the variance that
    the camera and the autoencoder add. There is no weight to choose. Since D is not linear, the search, L-BFGS in u,
    finds a local optimum. Held-out pixels decide when to stop: single pixels of a noisy image, else squares of f
    pixels.
    Sources: Bora et al. 2017 (CSGM, arXiv 1703.03208) search a latent space for the known part of an image, with a
    Gaussian prior on z; MAP estimates in latent space and the use of an encoder are in Gonzalez et al. 2022 (arXiv
    2103.01648) and Prost et al. 2023. Ulyanov et al. 2018 (arXiv 1711.10925) fit a network's weights instead, and stop
    early.

    keep: leave known pixels as they are, and continue their difference from the decoded image into the hole
    (`harmonic_fill`), so that there is no seam; None: where there is no noise. start: uint8 c h w, by default
    `first_guess`; the result resembles it.
    Errors: ConfigError for a mask of another size, or for other channels than the model's; DataError where all pixels
    are missing.
    """
    image, missing = damage.image, damage.missing
    if missing.shape != image.shape[-2:]:
        raise ConfigError(
            f"the mask has {missing.shape[-1]} x {missing.shape[-2]} pixels, the picture {image.shape[-1]} x "
            f"{image.shape[-2]}; they must be alike"
        )
    height, width = missing.shape
    if bool(missing.all()):
        raise DataError("all pixels are missing; nothing is known of this picture")
    start = first_guess(damage) if start is None else start
    z = picture_posterior(codec, start).mean[0].float()
    search = Search(codec, prior.at(*z.shape[-2:]).to(z.device), damage, np.hypot(damage.noise, prior.error), seed)
    best = search.run(z, steps)
    decoded = crop_to(search.decode(best)[None], height, width)[0].float().cpu()
    result = decoded
    if keep if keep is not None else not damage.noise:
        residual = to_model_range(image) - decoded
        result = torch.where(missing, decoded + harmonic_fill(residual, missing), to_model_range(image))
    return Restored(
        from_model_range(result), from_model_range(decoded), len(search.errors), tuple(search.errors), search.taken
    )


@dataclass(frozen=True, eq=False)
class Seen:
    """One evaluation of the objective."""

    number: int
    u: Tensor
    value: float
    held: Tensor
    """squared distances to the held-out pixels"""


class Search:
    """The search of one image: its objective and the best evaluations so far."""

    def __init__(self, codec: Codec, prior: Whitened, damage: Damage, sigma: float, seed: int):
        f = codec.autoencoder.downsample_factor
        self.codec, self.prior = codec, prior
        device = prior.mean.device
        known, held = _divided(damage.missing, 1 if damage.noise else f, seed)
        padded = [pad_to_multiple(x[None, None].float(), f)[0].to(device) for x in (known, held)]
        inside = torch.zeros_like(padded[0])
        inside[..., : known.shape[0], : known.shape[1]] = 1  # padding is neither fitted nor held out
        self.fitted, self.held = (x * inside for x in padded)
        self.truth = pad_to_multiple(to_model_range(damage.image[None]), f)[0].to(device)
        self.weight = 127.5**2 / (2 * max(float(sigma), 0.5) ** 2)  # pixels are rounded
        self.errors: list[float] = []
        self.fitting: Seen | None = None
        self.predicting: Seen | None = None
        self.since = 0

    def decode(self, u: Tensor) -> Tensor:
        """The image c h w of coordinates u, about in [-1,1]."""
        latents = self.prior.latents(u)[None]
        if self.truth[0].numel() > LARGE:
            return self.codec.decode(latents, gradient=True)[0]
        return self.codec.autoencoder.decode(latents.to(self.codec.autoencoder.dtype))[0].float()

    def run(self, z: Tensor, steps: int) -> Tensor:
        """The likeliest coordinates; if these predict held-out pixels significantly worse than the best others, those
        others."""
        from scipy.optimize import minimize

        u = self.prior.coordinates(z)
        minimize(
            self._value,
            u.cpu().double().numpy().ravel(),
            (u.shape,),
            "L-BFGS-B",
            jac=True,
            callback=self._count_step,
            options={"maxiter": steps},
        )
        assert self.fitting is not None and self.predicting is not None  # the start was evaluated
        worse = self.fitting.held - self.predicting.held
        significant = len(worse) > 1 and bool(worse.mean() > 2 * worse.std() / len(worse) ** 0.5)
        taken = self.predicting if significant else self.fitting
        self.taken = taken.number
        return taken.u

    def _value(self, flat: NDArray[np.float64], shape: torch.Size) -> tuple[float, NDArray[np.float64]]:
        u = torch.tensor(flat, dtype=torch.float32, device=self.truth.device).view(shape).requires_grad_()
        squared = (self.decode(u) - self.truth).square()
        value = self.weight * (squared * self.fitted).sum() + 0.5 * u.square().sum()
        (gradient,) = torch.autograd.grad(value, u)
        held = squared.detach().mean(0)[self.held[0] > 0]
        seen = Seen(len(self.errors), u.detach(), value.item(), held)
        self.errors.append(127.5 * held.mean().sqrt().item() if len(held) else 0.0)
        if self.fitting is None or seen.value < self.fitting.value:
            self.fitting = seen
        if self.predicting is None or self.errors[-1] < self.errors[self.predicting.number]:
            self.predicting, self.since = seen, 0
        return value.item(), gradient.cpu().double().numpy().ravel()

    def _count_step(self, _: NDArray[np.float64]) -> None:
        self.since += 1
        if self.since > PATIENCE and self.held.any():
            raise StopIteration


def _divided(missing: Tensor, side: int, seed: int) -> tuple[Tensor, Tensor]:
    """The fitted and the held-out known pixels, divided in squares of `side` pixels: bool h w each."""
    height, width = missing.shape
    rng = np.random.default_rng(seed)
    squares = rng.random((-(-height // side), -(-width // side))) < HELD_OUT
    held = torch.from_numpy(np.kron(squares, np.ones((side, side), bool))[:height, :width]) & ~missing
    return ~missing & ~held, held
