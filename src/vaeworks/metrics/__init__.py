"""How faithful a reconstruction is, under a stated protocol."""

from .comparison import Comparison, compare
from .evaluate import evaluate
from .evaluation import Evaluation, ImageScore
from .feature_spaces import Features, load_features
from .frechet import frechet_distance
from .legibility import Legibility
from .protocol import Protocol, check_alike, differences
from .reconstruction import psnr, ssim
from .throughput import Speed

__all__ = [
    "Comparison",
    "Evaluation",
    "Features",
    "ImageScore",
    "Legibility",
    "Protocol",
    "Speed",
    "check_alike",
    "compare",
    "differences",
    "evaluate",
    "frechet_distance",
    "load_features",
    "psnr",
    "ssim",
]
