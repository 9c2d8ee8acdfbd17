"""Detect images that differ from normal ones: a detector with scikit-learn's interface, its figures and baselines."""

from .auroc import auroc, localization
from .detect import AnomalyResult, detect_anomalies
from .detector import AnomalyDetector
from .storage import load_detector, save_detector

__all__ = [
    "AnomalyDetector",
    "AnomalyResult",
    "auroc",
    "detect_anomalies",
    "load_detector",
    "localization",
    "save_detector",
]
