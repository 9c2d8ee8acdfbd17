"""The effect of one cell of the latents on the picture: its strength, its reach, and its part outside the
neighbourhood."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...models import Autoencoder

GRAY = 127.5
"""Gray levels of 255 in a unit of a model's range [-1,1]."""


@dataclass(frozen=True)
class Influence:
    """The effect of one cell."""

    cell: tuple[int, int]
    """row and column of the cell"""
    total: float
    """energy: sum of squared changes over pixels and colours, in squared gray levels"""
    nonlocal_share: float
    """share of the energy outside the window of 3f x 3f pixels around the cell: 0..1"""
    far: float
    """root mean square of the change outside the window, in gray levels; nan where the window holds the whole
    picture"""
    radius_50: float
    """radius around the cell's middle that contains half of the energy, in pixels"""
    radius_95: float


def occluded(latents: Tensor, cell: tuple[int, int]) -> Tensor:
    """Latents 1 c h w with a cell replaced by the mean of its neighbours (8, at borders fewer)."""
    row, column = cell
    top, left = max(row - 1, 0), max(column - 1, 0)
    patch = latents[0, :, top : row + 2, left : column + 2]
    count = patch.shape[1] * patch.shape[2] - 1
    result = latents.clone()
    result[0, :, row, column] = (patch.sum((1, 2)) - latents[0, :, row, column]) / max(count, 1)
    return result


def influence(change: Tensor, cell: tuple[int, int], f: int) -> Influence:
    """The effect of a cell, from the change k H W that replacing it made in a picture in [-1,1]."""
    energy = (change.double() * GRAY).square().sum(0).cpu()
    total = float(energy.sum())
    near = window(energy.shape, cell, f)
    outside = int((~near).sum())
    far = float(energy[~near].sum())
    middle = (f * (cell[0] + 0.5) - 0.5, f * (cell[1] + 0.5) - 0.5)
    return Influence(
        cell,
        total,
        far / total if total > 0 else 0.0,
        (far / outside / len(change)) ** 0.5 if outside else float("nan"),
        energy_radius(energy, middle, 0.5),
        energy_radius(energy, middle, 0.95),
    )


def window(shape: tuple[int, ...] | torch.Size, cell: tuple[int, int], f: int) -> Tensor:
    """The window of 3f x 3f pixels around a cell: bool H W."""
    rows, columns = (torch.arange(length) for length in shape)
    return ((rows // f - cell[0]).abs() <= 1)[:, None] & ((columns // f - cell[1]).abs() <= 1)


def energy_radius(energy: Tensor, middle: tuple[float, float], share: float) -> float:
    """The smallest radius around `middle` that contains at least this share of the sum of a map H W; nan where the sum
    is 0."""
    total = energy.sum()
    if not total > 0:
        return float("nan")
    rows, columns = (torch.arange(length, dtype=torch.float64) for length in energy.shape)
    distance = torch.hypot((rows - middle[0])[:, None], columns - middle[1]).flatten()
    order = distance.argsort(stable=True)
    reached = energy.flatten()[order].cumsum(0) >= share * total * (1 - 1e-12)
    return float(distance[order][int(reached.int().argmax())])


def receptive_radius(energy: Tensor, middle: tuple[float, float]) -> tuple[float, float]:
    """Radii that contain 50 and 95 % of a gradient's energy k H W."""
    total = energy.double().sum(0)
    return energy_radius(total, middle, 0.5), energy_radius(total, middle, 0.95)


def encoder_gradient(model: Autoencoder, images: Tensor, cell: tuple[int, int], seed: int = 0) -> Tensor:
    """Squared gradient k H W of one cell of the encoder's means, summed over channels with random signs, by the pixels
    of images 1 k H W."""
    with torch.enable_grad():
        x = images.detach().clone().requires_grad_()
        mean = model.encode(x).mean
        chosen = mean[0, :, cell[0], cell[1]]
        (gradient,) = torch.autograd.grad((chosen * _signs(chosen, seed)).sum(), x)
    return gradient[0].square().detach()


def decoder_gradient(model: Autoencoder, latents: Tensor, cell: tuple[int, int], f: int, seed: int = 0) -> Tensor:
    """Squared gradient c h w of the f x f pixels of a cell, with random signs, by latents 1 c h w."""
    with torch.enable_grad():
        z = latents.detach().clone().requires_grad_()
        block = model.decode(z)[0, :, f * cell[0] : f * (cell[0] + 1), f * cell[1] : f * (cell[1] + 1)]
        (gradient,) = torch.autograd.grad((block * _signs(block, seed)).sum(), z)
    return gradient[0].square().detach()


def _signs(like: Tensor, seed: int) -> Tensor:
    return (torch.randint(0, 2, like.shape, generator=torch.Generator().manual_seed(seed)).float() * 2 - 1).to(like)


def concentration(energy: Tensor, share: float = 0.01) -> Tensor:
    """Share of the sum of maps n h w that the top 1 % of positions (at least one) hold: n; nan where a sum is 0."""
    flat = energy.flatten(1).double()
    most = max(1, round(share * flat.shape[1]))
    return flat.topk(most, 1).values.sum(1) / flat.sum(1).where(
        flat.sum(1) > 0, torch.tensor(float("nan"), dtype=torch.float64)
    )


def outlier(maps: Tensor) -> Tensor:
    """Largest value over median of maps n h w: n; nan where the median is 0."""
    flat = maps.flatten(1).double()
    median = flat.quantile(0.5, dim=1)
    return flat.amax(1) / median.where(median > 0, torch.tensor(float("nan"), dtype=torch.float64))


def of_gaussian(c: int, h: int, w: int, seed: int = 0, draws: int = 32) -> tuple[float, float]:
    """`outlier` of norms and `concentration` of energy of independent normal latents c h w, averaged over draws."""
    random = torch.Generator().manual_seed(seed)
    energy = torch.cat([torch.randn(1, c, h, w, generator=random).square().sum(1) for _ in range(draws)])
    return float(outlier(energy.sqrt()).mean()), float(concentration(energy).mean())
