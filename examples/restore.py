"""Restore a photograph that was damaged on purpose, and say which method came nearest to the truth.

    python examples/restore.py MODEL PHOTO OUT.png [block|scratches|salt|text|noise:25]

MODEL: anything that `vaeworks.load` takes. OUT.png shows original, damaged, every method, and the difference of ours.
"""

import sys
from pathlib import Path

import vaeworks as vw
from vaeworks.apps.codes import encode_squares
from vaeworks.apps.restoration import fit_prior, plant, restore_picture
from vaeworks.apps.restoration.baselines import baselines
from vaeworks.apps.restoration.scores import best, score, strip
from vaeworks.data import scan
from vaeworks.files.atomic import write_picture
from vaeworks.images import grid, open_image, to_uint8


def main(model: str, photo: str, out: str, how: str = "noise:25") -> None:
    """One picture, from damage to figures."""
    vae = vw.load(model).float().eval().requires_grad_(False)
    codec = vw.Codec(vae)
    size = 256 // vae.downsample_factor * vae.downsample_factor
    prior = fit_prior(vae, encode_squares(vae, scan("photos"), size))
    truth = to_uint8(open_image(photo))
    damage = plant(truth, how)
    methods = {**baselines(codec, damage), "VAE": restore_picture(codec, damage, prior).image}
    scores = {name: score(truth, image, damage.region) for name, image in methods.items()}
    for name, found in scores.items():
        print(f"{name:20} {found.psnr_region:6.2f} dB where it was damaged, SSIM {found.ssim_region:.4f}")
    print(f"best: {best(scores)}")
    write_picture(Path(out), grid([strip(damage, methods, "VAE", truth)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
