"""New training images from a few labelled ones, each made again from its row of provenance.

python examples/augment.py [MODEL [FOLDER]]      FOLDER: images in a folder for each class; without any, drawn discs and
squares. Without a MODEL weights are random, and the images show nothing; the rows are true all the same.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import vaeworks as vw
from vaeworks.apps.augmentation import Noise, Renderer, reproduce, write_folder
from vaeworks.apps.augmentation.folder import read_rows
from vaeworks.apps.augmentation.plan import plan
from vaeworks.data import scan
from vaeworks.data.labels import find_labels
from vaeworks.images import open_image, to_uint8


def drawn(root: Path) -> Path:
    """Six images of two classes."""
    y, x = np.mgrid[:48, :48] - 24
    for number in range(3):
        size = 10 + 4 * number
        for name, shape in (("disc", np.hypot(x, y) < size), ("square", np.maximum(abs(x), abs(y)) < size)):
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.where(shape[..., None], (220, 170, 60), (40, 60, 90)).astype(np.uint8)).save(
                root / name / f"{number}.png"
            )
    return root


def main() -> None:
    """Plan, write, and check one image against its row."""
    torch.manual_seed(0)
    codec = vw.Codec(
        vw.load(sys.argv[1])
        if len(sys.argv) > 1
        else vw.build(vw.AutoencoderConfig(channels=8, channel_mult=(1, 2), norm_groups=4))
    )
    work = Path(tempfile.mkdtemp())
    images = scan(sys.argv[2] if len(sys.argv) > 2 else drawn(work / "data"))
    labels = find_labels(images.files, "folders")
    render = Renderer(codec)
    for method, noise in (("noise", Noise(temperature=1.0)), ("interpolate", None), ("mixup", None)):
        variants = plan(images.files, labels, method, per_image=2, seed=0, noise=noise, model=render.model)
        write_folder(work / method, variants, render, {"method": method})
        row = read_rows(work / method)[-1]
        same = torch.equal(
            reproduce(codec, row),
            to_uint8(open_image(work / method / row["file"], codec.autoencoder.config.in_channels)),
        )
        print(
            f"{len(variants)} images in {work / method}; {row['file']} is {row['label']}, made again from its row: "
            f"{same}"
        )


if __name__ == "__main__":
    main()
