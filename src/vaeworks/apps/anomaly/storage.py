"""Save a fitted detector as one safetensors file: its arrays as tensors, and settings and hashes of the networks as
JSON in the metadata."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import ConfigError, FormatError
from ...files.atomic import atomic, check_ending, read_tensors, write_tensors
from ...models import Autoencoder
from ...models.digest import SAME_PRECISION
from .density import Gaussian
from .detector import AnomalyDetector
from .evidence import EvidenceScale
from .extractors import Maps, PcaExtractor, VaeExtractor
from .threshold import Split

METADATA_KEY, VERSION = "vaeworks_anomaly", 1
PARAMETERS = "evidence", "density", "combine", "false_alarms", "held_out", "image_shape", "random_state"
FITTED = "evidence_", "image_shape_", "false_alarms_", "offset_", "normal_heat_", "n_features_in_"


def save_detector(detector: AnomalyDetector, path: str | Path, overwrite: bool = False) -> None:
    """Write a fitted detector atomically. The file does not hold its autoencoder and feature network.

    Errors: ConfigError where `path` exists, or does not end in .safetensors.
    """
    check_ending(Path(path))
    facts = {
        "version": VERSION,
        "networks": detector.extractor_.digests,
        "parameters": {name: _plain(getattr(detector, name)) for name in PARAMETERS},
        "fitted": {name: _plain(getattr(detector, name)) for name in FITTED if hasattr(detector, name)},
        "scales": {name: asdict(scale) for name, scale in detector.scales_.items()},
        "map_scales": {name: asdict(scale) for name, scale in detector.map_scales_.items()},
    }
    tensors = {f"split.{name}": rows for name, rows in vars(detector.split_).items()}
    tensors |= {f"calibration.{name}": scores for name, scores in detector.calibration_.items()}
    tensors["calibration_anomaly"] = detector.calibration_anomaly_
    if detector.gaussian_ is not None:
        tensors |= {"gaussian.mean": detector.gaussian_.mean, "gaussian.whitening": detector.gaussian_.whitening}
    if isinstance(detector.extractor_, PcaExtractor):
        tensors |= {"pca.mean": detector.extractor_.mean, "pca.components": detector.extractor_.components}
    with atomic(path, overwrite) as temporary:
        arrays = {name: torch.from_numpy(np.array(values, order="C")) for name, values in tensors.items()}
        write_tensors(temporary, arrays, {METADATA_KEY: json.dumps(facts)})


def load_detector(
    path: str | Path, autoencoder: Autoencoder | None = None, features: Maps | None = None
) -> AnomalyDetector:
    """Read a detector. With the same networks it scores as the saved one did.

    Errors: FormatError for a file that is no detector; ConfigError for networks that it was not fitted with.
    """
    tensors, metadata = read_tensors(Path(path))
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    try:
        facts = json.loads(metadata[METADATA_KEY])
        if facts["version"] > VERSION:
            raise FormatError(f"{path} was written by a newer vaeworks (version {facts['version']}); update vaeworks")
        parameters = {name: _tuple(facts["parameters"][name]) for name in PARAMETERS}
        detector = AnomalyDetector(autoencoder, features=features, **parameters)
        linear = "pca.mean" in arrays
        if not linear:
            _check_networks(path, facts["networks"], autoencoder, features)
        _restore(detector, facts, arrays)
        if linear:
            detector.extractor_ = PcaExtractor(arrays["pca.mean"], arrays["pca.components"])
        else:
            detector.extractor_ = VaeExtractor(autoencoder, features)  # type: ignore[arg-type]
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, (FormatError, ConfigError)):
            raise
        raise FormatError(f"{path} is no detector of `vaeworks anomaly`: {error}; fit one with --normal") from None
    return detector


def _restore(detector: AnomalyDetector, facts: dict[str, Any], arrays: dict[str, Any]) -> None:
    for name in FITTED:
        if name in facts["fitted"]:
            setattr(detector, name, _tuple(facts["fitted"][name]))
    detector.scales_ = {name: EvidenceScale(**values) for name, values in facts["scales"].items()}
    detector.map_scales_ = {name: EvidenceScale(**values) for name, values in facts["map_scales"].items()}
    detector.split_ = Split(arrays["split.fit"], arrays["split.scale"], arrays["split.threshold"])
    detector.calibration_ = {name: arrays[f"calibration.{name}"] for name in detector.evidence_}
    detector.calibration_anomaly_ = arrays["calibration_anomaly"]
    detector.gaussian_ = (
        Gaussian(arrays["gaussian.mean"], arrays["gaussian.whitening"]) if "gaussian.mean" in arrays else None
    )


def _check_networks(
    path: str | Path, known: dict[str, str], autoencoder: Autoencoder | None, features: Maps | None
) -> None:
    if autoencoder is None:
        raise ConfigError(f"{path} was fitted with an autoencoder; give the same one")
    given = VaeExtractor(autoencoder, features).digests
    for name in ("model", "features"):
        if given.get(name) != known.get(name):
            theirs, ours = ((digest or "none")[:12] for digest in (known.get(name), given.get(name)))
            raise ConfigError(
                f"{path} was fitted with another {name} network ({theirs}, this is {ours}); give that one "
                f"{SAME_PRECISION}, or fit again"
            )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else list(value) if isinstance(value, tuple) else value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
