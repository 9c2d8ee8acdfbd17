"""Find scratches on a woven texture: fit a detector on intact samples, score others, and show where the scratches are.

    python examples/anomaly.py [MODEL] [--images 200] [--out scratches]

MODEL is a VAE for gray or RGB images. Without one, the detector uses principal components of patches.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import vaeworks as vw
from vaeworks.apps.anomaly import AnomalyDetector, auroc, localization, save_detector
from vaeworks.apps.anomaly.heat import sheet
from vaeworks.files.atomic import write_picture

SIDE = 64


def woven(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw intact samples: uint8 n h w."""
    y, x = np.mgrid[:SIDE, :SIDE]
    clean = 128 + 40 * np.sin(x * 0.8) + 40 * np.sin(y * 0.8)
    noise = rng.normal(0, 5, (count, 1, 1)) + rng.normal(0, 8, (count, SIDE, SIDE))
    return np.clip(clean + noise, 0, 255).astype(np.uint8)


def scratched(images: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw one bright scratch on a copy of each image. Returns the copies and the scratches' masks."""
    damaged, masks = images.copy(), np.zeros(images.shape, dtype=bool)
    for image, mask in zip(damaged, masks, strict=True):
        (top, left), slope = rng.integers(4, SIDE - 24, 2), rng.uniform(-0.2, 1)
        for step in range(20):
            mask[top + step, left + round(slope * step) : left + round(slope * step) + 3] = True
        image[mask] = np.minimum(image[mask].astype(int) + 70, 255)
    return damaged, masks


def main() -> None:
    """Fit the detector, measure it, draw heat maps, save it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--images", type=int, default=200, help="number of intact images to fit on")
    parser.add_argument("--out", type=Path, default=Path("scratches"))
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    vae = vw.load(args.model).float() if args.model else None
    detector = AnomalyDetector(vae, false_alarms=0.05).fit(woven(args.images, rng))

    good = woven(50, rng)
    bad, masks = scratched(woven(50, rng), rng)
    by_image = auroc(-detector.score_samples(good), -detector.score_samples(bad))
    heat = detector.heat_maps(bad)
    by_pixel = localization(heat, masks)
    print(f"images: AUROC {by_image.value:.3f} ({by_image.low:.3f} to {by_image.high:.3f})")
    print(f"pixels: AUROC {by_pixel.pixel_auroc:.3f}, PRO {by_pixel.pro:.3f}")
    false_alarms, hits = ((detector.predict(images) == -1).mean() for images in (good, bad))
    print(f"false alarms {false_alarms:.0%}, scratches found {hits:.0%}")

    args.out.mkdir(parents=True, exist_ok=True)
    picture = sheet(list(bad[:8, None]), list(heat[:8]), list(masks[:8]), detector.normal_heat_)
    write_picture(args.out / "heat.png", picture)
    save_detector(detector, args.out / "detector.safetensors", overwrite=True)
    print(f"{args.out / 'heat.png'} shows eight scratches; {args.out / 'detector.safetensors'} is the detector")


if __name__ == "__main__":
    main()
