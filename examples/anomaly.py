"""Scratches on a woven texture: fit on sound pieces, find the others, and show where.

python examples/anomaly.py [MODEL]      MODEL: any VAE for gray or RGB images; without one, principal components stand
in
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import vaeworks as vw
from vaeworks.apps.anomaly import AnomalyDetector, auroc, localization, save_detector
from vaeworks.apps.anomaly.heat import sheet
from vaeworks.files.atomic import write_picture

SIZE = 64


def woven(count: int, rng: np.random.Generator) -> np.ndarray:
    """Sound pieces: uint8 n h w."""
    y, x = np.mgrid[:SIZE, :SIZE]
    clean = 128 + 40 * np.sin(x * 0.8) + 40 * np.sin(y * 0.8)
    return np.clip(clean + rng.normal(0, 5, (count, 1, 1)) + rng.normal(0, 8, (count, SIZE, SIZE)), 0, 255).astype(
        np.uint8
    )


def scratched(images: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The same with a bright scratch each, and where it is."""
    found, masks = images.copy(), np.zeros(images.shape, dtype=bool)
    for image, mask in zip(found, masks, strict=True):
        (top, left), slope = rng.integers(4, SIZE - 24, 2), rng.uniform(-0.2, 1)
        for step in range(20):
            mask[top + step, left + round(slope * step) : left + round(slope * step) + 3] = True
        image[mask] = np.minimum(image[mask].astype(int) + 70, 255)
    return found, masks


def main() -> None:
    """Fit, tell apart, show, keep."""
    rng = np.random.default_rng(0)
    vae = vw.load(sys.argv[1]).float() if len(sys.argv) > 1 else None
    detector = AnomalyDetector(vae, false_alarms=0.05).fit(woven(200, rng))
    good = woven(50, rng)
    bad, masks = scratched(woven(50, rng), rng)
    told = auroc(-detector.score_samples(good), -detector.score_samples(bad))
    heat = detector.heat_maps(bad)
    where = localization(heat, masks)
    print(
        f"images: AUROC {told.value:.3f} ({told.low:.3f} to {told.high:.3f}); pixels: AUROC {where.pixel_auroc:.3f}, "
        f"PRO {where.pro:.3f}"
    )
    print(f"false alarms {(detector.predict(good) == -1).mean():.0%}, found {(detector.predict(bad) == -1).mean():.0%}")
    write_picture(
        Path("scratches.png"), sheet(list(bad[:8, None]), list(heat[:8]), list(masks[:8]), detector.normal_heat_)
    )
    save_detector(detector, "scratches.safetensors", overwrite=True)
    print("scratches.png shows eight of them; scratches.safetensors is the detector")


if __name__ == "__main__":
    main()
