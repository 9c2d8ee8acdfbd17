"""Building blocks of the networks."""

from .attention import SpatialAttention
from .norm import GroupNorm
from .residual import ResBlock
from .resample import Downsample, Upsample

__all__ = ["Downsample", "GroupNorm", "ResBlock", "SpatialAttention", "Upsample"]
