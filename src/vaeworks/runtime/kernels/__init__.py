"""What a decode does between convolutions, in NHWC memory: Triton's kernels on GPUs, PyTorch's own functions everywhere
else.

Every function here has its plain formula in the same file, which runs where Triton does not, and which its kernels are
tested against.
"""

from __future__ import annotations

from .doubling import doubled
from .normalization import group_moments, group_norm_silu, normalized_silu

__all__ = ["doubled", "group_moments", "group_norm_silu", "normalized_silu"]
