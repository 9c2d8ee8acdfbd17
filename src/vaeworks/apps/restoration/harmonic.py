"""Interpolate missing pixels from the known ones around them, by Laplace's equation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import DataError


def harmonic_fill(values: Tensor, missing: Tensor) -> Tensor:
    """float c h w, in which the missing values, bool h w, are the solution of Laplace's equation. The others stay.

    Applied to the residuals of a decoded image, it removes the seam: Pérez et al. 2003, "Poisson image editing", eq. 2.
    Errors: DataError where all values are missing.
    """
    from scipy.sparse.linalg import splu

    if bool(missing.all()):
        raise DataError("all pixels are missing; nothing is known of this picture")
    if not bool(missing.any()):
        return values.clone()
    array, hole = values.double().cpu().numpy().copy(), missing.cpu().numpy()
    matrix, border = _laplacian(hole, np.where(hole, 0.0, array))
    array[:, hole] = splu(matrix).solve(border.T).T
    return torch.from_numpy(array).to(values)


def _laplacian(hole: NDArray[np.bool_], known: NDArray[np.float64]) -> tuple[object, NDArray[np.float64]]:
    """Graph Laplacian of the missing pixels, and for each the sum of its known neighbours: c n."""
    from scipy.sparse import coo_matrix

    number = np.where(hole, np.cumsum(hole).reshape(hole.shape) - 1, -1)
    count = int(hole.sum())
    degree, border = np.zeros(count), np.zeros((len(known), count))
    rows, columns = [], []
    for here, there in _neighbours():
        inside, outside = number[here], number[there]
        mine = inside >= 0
        np.add.at(degree, inside[mine], 1.0)
        both, edge = mine & (outside >= 0), mine & (outside < 0)
        rows.append(inside[both])
        columns.append(outside[both])
        border[:, inside[edge]] += known[(slice(None), *there)][:, edge]
    row, column = np.concatenate(rows), np.concatenate(columns)
    links = coo_matrix((-np.ones(len(row)), (row, column)), (count, count))
    return (links + coo_matrix((degree, (np.arange(count),) * 2))).tocsc(), border


def _neighbours() -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Pairs of slices of a map: positions, and their neighbours in one of four directions."""
    first, last, every = slice(None, -1), slice(1, None), slice(None)
    pairs = [((first, every), (last, every)), ((every, first), (every, last))]
    return pairs + [(b, a) for a, b in pairs]
