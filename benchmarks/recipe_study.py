"""The recipes at equal images on real photographs: what each costs and what each gives, in figures.

    python benchmarks/recipe_study.py --data DIR --out out/study [--images 4000] [RECIPE ...]

Every recipe is trained for the same number of images from the same seed, on the same crops in the same order, and
judged on the same held-out photographs. Results are kept in OUT/RECIPE/study.json, so that the study can be interrupted
and run in parts; the table of all that is there comes at the end, and the last line of stdout is one JSON document. One
seed each: differences below some tenths of a decibel mean nothing.

Columns. psnr, ssim: of 8-bit reconstructions from the posterior's mode. vgg: squared distance of VGG16's first
features, uncalibrated (--features FILE; left out without). structure: 1/2 (1 - MS-SSIM) + Haar L1. bits: KL in bits per
latent number. Of the latents: std over all, largest |z| / std, kurtosis (3 is normal), rank: effective number of
channels (sum of covariance's eigenvalues squared over sum of their squares), high: share of power in the upper half of
frequencies (DCT, u + v > half; white noise has 0.45 to 0.5), noise: decibels lost when latents get noise of 0.2 std,
eq: error of encoding half-size images against half-size latents, as a share of their variance.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import dctn
from torch import Tensor

import vaeworks as vw
from vaeworks.data import scan
from vaeworks.features.weights import load_feature_distance
from vaeworks.images import from_model_range, to_model_range
from vaeworks.losses.perceptual import distance_without_weights
from vaeworks.metrics import psnr, ssim
from vaeworks.metrics.roundtrip import read_crop
from vaeworks.recipes import GROUPS
from vaeworks.training import train

LEFT_OUT = ("demo", "small-f16c32", "lpips")
"""Of another network's size, another crop's, or with weights that have to be fetched."""

DEFAULT = [
    n
    for g in ("small networks", "bottlenecks", "regularizers", "losses", "discriminators")
    for n in GROUPS[g]
    if n not in LEFT_OUT
]


def study(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Train one recipe and judge it; the figures of its row."""
    out = options.out / name
    if (out / "study.json").exists():
        return json.loads((out / "study.json").read_text())
    config = vw.recipe(name)
    if name == "align":
        config = dataclasses.replace(
            config, regularizers=dataclasses.replace(config.regularizers, alignment_path=options.features)
        )
    if name == "vgg":
        config = dataclasses.replace(config, loss=dataclasses.replace(config.loss, perceptual_path=options.features))
    if name == "projected-gan":
        config = dataclasses.replace(
            config, adversarial=dataclasses.replace(config.adversarial, network_path=options.features)
        )
    config = dataclasses.replace(
        config,
        images=options.images,
        val_every=options.images,
        save_every=options.images,
        seed=options.seed,
        trackers=(),
        stats_images=64,  # the figures below are of held-out photographs
        data=dataclasses.replace(config.data, workers=0, val_images=8),
    )
    result = train(
        config, options.data, out / "run", recipe=name, show=False, resume=(out / "run" / "run.json").exists()
    )
    vae = vw.load(out / "run" / "model.safetensors")
    row = {"images_per_second": result.images_per_second, **judged(vae, out / "run", options)}
    (out / "study.json").write_text(json.dumps(row))
    return row


@torch.inference_mode()
def judged(vae: vw.Autoencoder, run: Path, options: argparse.Namespace) -> dict[str, float]:
    """The figures of a trained model on held-out photographs."""
    held_out = {file["digest"] for file in json.loads((run / "data.json").read_text())["val"]}
    files = tuple(f for f in scan(options.data).files if f.digest in held_out)[: options.val_images]
    images = torch.stack([read_crop(file.path, vae, 256) for file in files])
    x = to_model_range(images)
    parts = [vae.encode(part) for part in x.split(4)]
    mean = torch.cat([p.mean for p in parts])
    recon = torch.cat([vae.decode(z) for z in mean.split(4)]).clamp(-1, 1)
    noisy = mean + 0.2 * mean.std() * torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    disturbed = torch.cat([vae.decode(z) for z in noisy.split(4)])
    small = torch.cat(
        [
            vae.encode(F.interpolate(part, scale_factor=0.5, mode="bilinear", antialias=False)).mean
            for part in x.split(4)
        ]
    )
    scores = [(psnr(a, b), ssim(a, b)) for a, b in zip(images, from_model_range(recon), strict=True)]
    quality = statistics.fmean(p for p, _ in scores)
    row = {
        "psnr": quality,
        "ssim": statistics.fmean(s for _, s in scores),
        "structure": distance_without_weights(recon, x).item(),
        "bits": statistics.fmean(p.bits_per_dimension().item() for p in parts)
        if not parts[0].is_point
        else float("inf"),
        **latent_figures(mean),
        "noise": quality
        - statistics.fmean(psnr(a, b) for a, b in zip(images, from_model_range(disturbed), strict=True)),
        "eq": ((small - F.interpolate(mean, scale_factor=0.5, mode="bilinear")).square().mean() / mean.var()).item(),
    }
    if options.features:
        distance = load_feature_distance(path=options.features)
        row["vgg"] = statistics.fmean(distance(a, b).item() for a, b in zip(recon.split(4), x.split(4), strict=True))
    return row


def latent_figures(z: Tensor) -> dict[str, float]:
    """Shape of the latents' distribution, and of their spectrum; z: n c h w."""
    flat = z.transpose(0, 1).flatten(1).double()
    centred = flat - flat.mean(1, keepdim=True)
    normal = (centred / centred.std(1, keepdim=True)).flatten()
    eigenvalues = torch.linalg.eigvalsh(torch.cov(flat)).clamp(min=0)
    standard = ((z - z.mean((0, 2, 3), keepdim=True)) / z.std((0, 2, 3), keepdim=True)).double().numpy()
    power = (dctn(standard, axes=(2, 3), norm="ortho") ** 2).mean((0, 1))
    h, w = power.shape
    high = np.add.outer(np.arange(h), np.arange(w)) > 0.5 * (h + w - 2)
    return {
        "std": z.std().item(),
        "largest": (z.abs().max() / z.std()).item(),
        "kurtosis": normal.pow(4).mean().item(),
        "rank": (eigenvalues.sum().square() / eigenvalues.square().sum()).item(),
        "high": float(power[high].sum() / power.sum()),
    }


COLUMNS = {
    "psnr": ".2f",
    "ssim": ".4f",
    "vgg": ".3f",
    "structure": ".4f",
    "bits": ".2f",
    "std": ".2f",
    "largest": ".1f",
    "kurtosis": ".1f",
    "rank": ".1f",
    "high": ".3f",
    "noise": ".2f",
    "eq": ".3f",
    "images_per_second": ".1f",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=DEFAULT, metavar="RECIPE")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, default=Path("out/study"))
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--val-images", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--features", help="file or folder with VGG16's conv1 to conv3")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    needs = {"align", "vgg", "projected-gan"} if not options.features else set()
    for name in options.recipes:
        if name not in needs:
            print(f"{name} ...", file=sys.stderr, flush=True)
            row = study(name, options)
            print(f"{name}: {row['psnr']:.2f} dB, {row['images_per_second']:.1f} img/s", file=sys.stderr, flush=True)
    table(options)


def table(options: argparse.Namespace) -> None:
    """All results that are there."""
    rows = {n: json.loads(path.read_text()) for n in DEFAULT if (path := options.out / n / "study.json").exists()}
    facts = {"images": options.images, "seed": options.seed, "threads": options.threads, "cpus": os.cpu_count()}
    facts |= {p: version(p) for p in ("torch", "numpy")} | {"vaeworks": vw.__version__, "machine": platform.machine()}
    print(", ".join(f"{k} {v}" for k, v in facts.items()))
    print("| recipe | " + " | ".join(c.replace("images_per_second", "img/s") for c in COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name, row in rows.items():
        cells = [format(row[c], f) if c in row and np.isfinite(row[c]) else "–" for c, f in COLUMNS.items()]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(json.dumps({**facts, "rows": rows}))


if __name__ == "__main__":
    main()
