"""Evaluation: how faithful a reconstruction is, under a stated protocol."""

from .api import evaluate, evaluate_models
from .comparison import Comparison, compare
from .evaluation import Evaluation, ImageScore
from .feature_spaces import Features, load_features
from .frechet import frechet_distance
from .legibility import Legibility
from .protocol import Protocol, check_alike, differences
from .reconstruction import psnr, ssim
from .results import Evaluations, read_evaluations
from .shape_check import ShapeCheck
from .shape_check import chance as shape_chance
from .shape_check import shares as shape_shares
from .throughput import Speed

__all__ = [
    "Comparison",
    "Evaluation",
    "Evaluations",
    "Features",
    "ImageScore",
    "Legibility",
    "Protocol",
    "ShapeCheck",
    "Speed",
    "check_alike",
    "compare",
    "differences",
    "evaluate",
    "evaluate_models",
    "frechet_distance",
    "load_features",
    "psnr",
    "read_evaluations",
    "shape_chance",
    "shape_shares",
    "ssim",
]
