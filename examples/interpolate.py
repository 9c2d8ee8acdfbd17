"""Interpolate between two photographs in latent space, along a straight line and along a great circle.

    python examples/interpolate.py MODEL [IMAGE IMAGE] [--out strips] [--steps 6] [--size 192]

MODEL is anything that `vaeworks.load` takes. Without images, the program takes two bundled photographs. Each strip
shows the path above a cross-fade of the pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import vaeworks as vw
from vaeworks.apps.generation.interpolate import interpolate, strip
from vaeworks.data import photos
from vaeworks.images import open_image, square


def main() -> None:
    """Make the strips, and print how the middle of each path differs from the cross-fade."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("images", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=Path("strips"))
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--size", type=int, default=192, help="side in pixels")
    args = parser.parse_args()

    codec = vw.Codec(vw.load(args.model).float())
    channels = codec.autoencoder.config.in_channels
    images = [square(open_image(path, channels), args.size) for path in args.images or photos()[:2]]

    args.out.mkdir(parents=True, exist_ok=True)
    for path in ("linear", "spherical"):
        result = interpolate(codec, images, args.steps, path)
        strip(result).save(args.out / f"{path}.png")
        middle = result.frames[args.steps // 2]
        print(
            f"{path:9} halfway: relative norm {middle.norm:.2f}, "
            f"E(D(z)) - z {middle.recon:.2f} std (cross-fade {middle.recon_fade:.2f}), "
            f"contrast {middle.contrast:.2f} (cross-fade {middle.contrast_fade:.2f}), ghost {middle.ghost:.2f}"
        )


if __name__ == "__main__":
    main()
