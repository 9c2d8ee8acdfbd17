"""How faithful a reconstruction is, under a stated protocol."""

from .evaluate import Evaluation, ImageScore, evaluate
from .reconstruction import psnr, ssim

__all__ = ["Evaluation", "ImageScore", "evaluate", "psnr", "ssim"]
