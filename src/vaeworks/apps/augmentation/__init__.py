"""Make new training images from labelled ones, with provenance, and judge whether a classifier gains by them."""

from .augment import AugmentationJudgement, AugmentedFolder, augment, judge_augmentation
from .folder import write_folder
from .judgement import judge
from .plan import METHODS, Noise, Variant, blends
from .render import Renderer, reproduce

__all__ = [
    "METHODS",
    "AugmentationJudgement",
    "AugmentedFolder",
    "Noise",
    "Renderer",
    "Variant",
    "augment",
    "blends",
    "judge",
    "judge_augmentation",
    "reproduce",
    "write_folder",
]
