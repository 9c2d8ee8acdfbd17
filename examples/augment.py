"""Make new training images from a few labelled ones, and make one of them again from its provenance record.

    python examples/augment.py [MODEL [FOLDER]] [--out augmented]

FOLDER has a subfolder of images for each class. Without it, the program draws discs and squares. Without a MODEL, the
weights are random: the images show nothing, but the records are correct all the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

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

METHODS: dict[Literal["noise", "interpolate", "mixup"], Noise | None] = {
    "noise": Noise(temperature=1.0),
    "interpolate": None,
    "mixup": None,
}


def draw_shapes(root: Path) -> Path:
    """Draw six images of two classes."""
    y, x = np.mgrid[:48, :48] - 24
    for number in range(3):
        size = 10 + 4 * number
        for name, shape in (("disc", np.hypot(x, y) < size), ("square", np.maximum(abs(x), abs(y)) < size)):
            (root / name).mkdir(parents=True, exist_ok=True)
            pixels = np.where(shape[..., None], (220, 170, 60), (40, 60, 90)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def main() -> None:
    """For each method: plan variants, write them, and compare the last with what its record gives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--out", type=Path, default=Path("augmented"))
    args = parser.parse_args()

    torch.manual_seed(0)
    small = vw.AutoencoderConfig(channels=8, channel_mult=(1, 2), norm_groups=4)
    codec = vw.Codec(vw.load(args.model) if args.model else vw.build(small))
    images = scan(str(args.folder or draw_shapes(args.out / "data")))
    labels = find_labels(images.files, "folders")
    assert labels is not None  # folders give every image a label
    renderer = Renderer(codec)
    for method, noise in METHODS.items():
        variants = plan(images.files, labels, method, per_image=2, seed=0, noise=noise, model=renderer.model)
        folder = args.out / method
        write_folder(folder, variants, renderer, {"method": method})
        row = read_rows(folder)[-1]
        written = to_uint8(open_image(folder / row["file"], codec.autoencoder.config.in_channels))
        same = torch.equal(reproduce(codec, row), written)
        print(f"{folder}: {len(variants)} images; {row['file']} is {row['label']}; its record gives it again: {same}")


if __name__ == "__main__":
    main()
