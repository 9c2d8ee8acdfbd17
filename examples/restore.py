"""Damage a photograph on purpose, restore it in several ways, and compare the results with the original.

    python examples/restore.py MODEL PHOTO OUT.png [block|scratches|salt|text|noise:25] [--size 256]

MODEL is anything that `vaeworks.load` takes. OUT.png shows the original, the damaged image, the result of each method,
and the difference between our result and the original.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import vaeworks as vw
from vaeworks.apps.codes import encode_squares
from vaeworks.apps.restoration import fit_prior, plant, restore_picture
from vaeworks.apps.restoration.baselines import baselines
from vaeworks.apps.restoration.scores import best, score, strip
from vaeworks.data import scan
from vaeworks.files.atomic import write_picture
from vaeworks.images import open_image, to_uint8


def main() -> None:
    """Fit a prior, damage one image, restore it, score the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("photo", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("damage", nargs="?", default="noise:25")
    parser.add_argument("--size", type=int, default=256, help="side of the squares that the prior is fitted on")
    args = parser.parse_args()

    vae = vw.load(args.model).float().eval().requires_grad_(False)
    codec = vw.Codec(vae)
    size = args.size // vae.downsample_factor * vae.downsample_factor
    prior = fit_prior(vae, encode_squares(vae, scan("photos"), size))
    original = to_uint8(open_image(args.photo, vae.config.in_channels))
    damage = plant(original, args.damage)
    results = {**baselines(codec, damage), "VAE": restore_picture(codec, damage, prior).image}
    scores = {name: score(original, image, damage.region) for name, image in results.items()}
    for name, found in scores.items():
        print(f"{name:20} PSNR {found.psnr_region:6.2f} dB, SSIM {found.ssim_region:.4f} in the damaged region")
    print(f"best: {best(scores)}")
    write_picture(args.out, strip(damage, results, "VAE", original))


if __name__ == "__main__":
    main()
