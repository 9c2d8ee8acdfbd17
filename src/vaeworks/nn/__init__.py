"""Building blocks of the networks."""

from .attention import SpatialAttention
from .norm import GroupNorm
from .resample import Downsample, Upsample
from .residual import ResBlock

__all__ = ["Downsample", "GroupNorm", "ResBlock", "SpatialAttention", "Upsample"]
