"""Move an image along a direction between two sets of images, and raise its contrast in latents and in pixels.

    python examples/edit.py MODEL WITH WITHOUT PHOTO OUT.png [--size 256]

WITH and WITHOUT are folders of images that have an attribute and that lack it. OUT.png shows the photo, three strengths
of the direction, the contrast raised in latents, and the contrast raised in pixels.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import vaeworks as vw
from vaeworks.apps.codes import encode_squares
from vaeworks.apps.editing import Adjustment, adjusted_latents, adjusted_pixels, edit_picture, fit_direction
from vaeworks.data import scan
from vaeworks.files.atomic import write_picture
from vaeworks.images import labelled, open_image, to_uint8
from vaeworks.metrics import psnr


def main() -> None:
    """Fit the direction, apply it, and compare both ways to raise the contrast."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("having", metavar="WITH")
    parser.add_argument("lacking", metavar="WITHOUT")
    parser.add_argument("photo", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=256, help="side of the squares that the direction is fitted on")
    args = parser.parse_args()

    vae = vw.load(args.model).float().eval().requires_grad_(False)
    codec = vw.Codec(vae)
    size = args.size // vae.downsample_factor * vae.downsample_factor
    having = encode_squares(vae, scan(args.having), size)
    lacking = encode_squares(vae, scan(args.lacking), size)
    direction = fit_direction(having.mean, lacking.mean)
    print(f"the direction separates held-out images with an AUROC of {direction.separation:.3f}")

    photo = to_uint8(open_image(args.photo, vae.config.in_channels))
    moved = [edit_picture(codec, photo, [partial(direction.applied, strength=s)]).image for s in (-1.0, 1.0, 2.0)]
    contrast = Adjustment(contrast=1.4)
    in_latents = edit_picture(codec, photo, [lambda z: adjusted_latents(codec, z, contrast)]).image
    in_pixels = adjusted_pixels(photo, contrast)
    print(f"PSNR between the contrast raised in latents and in pixels: {psnr(in_pixels, in_latents):.2f} dB")
    names = ["input", "strength -1", "strength 1", "strength 2", "contrast in latents", "contrast in pixels"]
    write_picture(args.out, labelled([[photo, *moved, in_latents, in_pixels]], columns=names))


if __name__ == "__main__":
    main()
