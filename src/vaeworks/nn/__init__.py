"""Building blocks of the networks."""

from .attention import SpatialAttention
from .conv import Conv3x3
from .norm import GroupNorm
from .resample import Downsample, Upsample
from .residual import ResBlock

__all__ = ["Conv3x3", "Downsample", "GroupNorm", "ResBlock", "SpatialAttention", "Upsample"]
