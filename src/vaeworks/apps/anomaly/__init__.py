"""What does not look like the normal images: a detector in scikit-learn's manner, its figures, and what it has to
beat."""

from .auroc import auroc, localization
from .detector import AnomalyDetector
from .storage import load_detector, save_detector

__all__ = ["AnomalyDetector", "auroc", "load_detector", "localization", "save_detector"]
