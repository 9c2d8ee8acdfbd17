"""Between two photographs: a straight path and a great circle through latent space, as strips over a cross-fade.

    python examples/interpolate.py MODEL [IMAGE IMAGE] --out strips

MODEL is whatever vaeworks loads. Without images, two of the bundled photographs are taken.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import vaeworks as vw
from vaeworks.apps.generation.interpolate import interpolate
from vaeworks.data import scan
from vaeworks.data.image_ref import open_place
from vaeworks.images import grid, open_image, square

SIDE = 192


def main() -> None:
    """Make the pictures, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("images", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=Path("strips"))
    parser.add_argument("--steps", type=int, default=6)
    args = parser.parse_args()

    vae = vw.load(args.model).float()
    channels = vae.config.in_channels
    pictures = [open_image(path, channels) for path in args.images]
    pictures = pictures or [open_place(file.path, channels) for file in scan("photos").files[:2]]
    images = [square(picture, SIDE) for picture in pictures]

    args.out.mkdir(parents=True, exist_ok=True)
    codec = vw.Codec(vae)
    for path in ("linear", "spherical"):
        found = interpolate(codec, images, args.steps, path)
        rows = [[frame.pixels for frame in found.frames], [frame.fade for frame in found.frames]]
        grid(rows).save(args.out / f"{path}.png")
        middle = found.frames[args.steps // 2]
        print(
            f"{path:9}  halfway: norm {middle.norm:.2f}, E(D(z)) - z {middle.recon:.2f} std (fade "
            f"{middle.recon_fade:.2f}), contrast {middle.contrast:.2f} (fade {middle.contrast_fade:.2f}), ghost "
            f"{middle.ghost:.2f}"
        )


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
