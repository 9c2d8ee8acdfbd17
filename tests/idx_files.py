"""IDX files, as MNIST is kept in."""

from __future__ import annotations

import struct

import numpy as np


def idx(values: np.ndarray) -> bytes:
    """An IDX file of bytes."""
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()
