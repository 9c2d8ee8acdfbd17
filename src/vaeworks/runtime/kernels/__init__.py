"""The steps of a decode between convolutions, in NHWC memory: Triton kernels on GPUs, PyTorch's functions elsewhere.

Every function here has its plain formula in the same file. It runs where Triton does not, and tests compare the kernels
with it.
"""

from __future__ import annotations

from .doubling import doubled
from .normalization import group_moments, normalized_silu

__all__ = ["doubled", "group_moments", "normalized_silu"]
