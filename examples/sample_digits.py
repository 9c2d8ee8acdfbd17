"""Sample digits from a standard normal prior with an AE and with a VAE, each with two latent numbers per image.

    python examples/sample_digits.py [--images 60000] [--out digits]

The program trains both on scikit-learn's digits, about a minute each, draws a map of each latent plane, and measures
the samples. Fewer --images give a quick preview.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import vaeworks as vw
from vaeworks.apps.generation.density import Mixture, Prior
from vaeworks.apps.generation.latent_map import latent_map
from vaeworks.apps.generation.sampling import read_halves, sample_like
from vaeworks.data import scan
from vaeworks.data.labels import find_labels
from vaeworks.images import labelled


def main() -> None:
    """Train each model, draw its map and its samples, print the metrics."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60_000, help="number of training images, repetitions included")
    parser.add_argument("--out", type=Path, default=Path("digits"))
    args = parser.parse_args()

    images = scan("digits")
    labels = find_labels(images.files)
    for name in ("digits-ae", "digits-vae"):
        config = vw.recipe(name)
        every = min(config.val_every, args.images)
        save_every = max(every, args.images // 2)
        config = dataclasses.replace(config, images=args.images, val_every=every, save_every=save_every)
        run = args.out / name
        vw.train(config, "digits", run, recipe=name)
        vae = vw.load(run)
        train, held_out = read_halves(vae, images, config.data.size, labels)
        latent_map(vae, train.mean, train.std, train.labels).save(args.out / f"{name}-map.png")
        for density in (Prior(), Mixture(10)):
            samples = sample_like(vae, density, train, held_out, count=178)
            pictures = list(samples.pixels[:64])
            kind = type(density).__name__.lower()
            rows = [pictures[i : i + 16] for i in range(0, 64, 16)]
            labelled(rows, title=f"{name}: samples of {samples.stated}").save(args.out / f"{name}-{kind}.png")
            assert samples.figures is not None  # there are held-out images to compare with
            for what, likeness in samples.figures.items():
                print(
                    f"{name:10} {kind:8} {what:22} Fréchet {likeness.frechet:.3f}  coverage {likeness.coverage:.2f}  "
                    f"recognized {likeness.recognized:.0%}  classes {likeness.classes:.1f}"
                )


if __name__ == "__main__":
    main()
