"""Move pictures along a direction between two folders, and change their contrast in latents and in pixels.

    python examples/edit.py MODEL WITH WITHOUT PHOTO OUT.png

MODEL: anything that `vaeworks.load` takes. OUT.png shows the photograph, three strengths of the direction, and both
contrasts.
"""

import sys
from functools import partial
from pathlib import Path

import vaeworks as vw
from vaeworks.apps.codes import encode_squares
from vaeworks.apps.editing import Adjustment, adjusted_latents, adjusted_pixels, edit_picture, fit_direction
from vaeworks.data import scan
from vaeworks.files.atomic import write_picture
from vaeworks.images import grid, open_image, to_uint8
from vaeworks.metrics import psnr


def main(model: str, having: str, lacking: str, photo: str, out: str) -> None:
    """One direction, one picture."""
    vae = vw.load(model).float().eval().requires_grad_(False)
    codec = vw.Codec(vae)
    size = 256 // vae.downsample_factor * vae.downsample_factor
    direction = fit_direction(*(encode_squares(vae, scan(source), size).mean for source in (having, lacking)))
    print(f"the direction tells held-out pictures apart with an AUROC of {direction.separation:.3f}")
    image = to_uint8(open_image(photo))
    moved = [edit_picture(codec, image, [partial(direction.applied, strength=s)]).image for s in (-1.0, 1.0, 2.0)]
    contrast = Adjustment(contrast=1.4)
    latents = edit_picture(codec, image, [lambda z: adjusted_latents(codec, z, contrast)]).image
    pixels = adjusted_pixels(image, contrast)
    print(f"contrast in latents is {psnr(pixels, latents):.2f} dB from contrast in pixels")
    write_picture(Path(out), grid([[image, *moved, latents, pixels]]))


if __name__ == "__main__":
    main(*sys.argv[1:])
