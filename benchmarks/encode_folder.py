"""A folder of JPEGs to latents, in images per second: `vaeworks encode` against the network alone, and against a plain
diffusers loop.

    python benchmarks/encode_folder.py --data FOLDER [--model small-f8c16 sd1] [--images 64] [--size 256] [--batch 8]
        [--rounds 5] [--threads 2] [--workers 2] [--json OUT.json]

forward    the encoder on squares that are in memory already, in batches: what no pipeline can beat ours
`encode_dataset`: listing and hashing files, decoding, resizing, encoding, checking, writing shards, statistics
diffusers  Pillow opens and resizes a batch, `AutoencoderKL.encode` encodes it, one after the other; torch.save at the
end

The same weights (random), squares, batches and precision (fp32) on all sides. Rounds are interleaved; medians are told
with the fastest and the slowest round. Files are in the page cache. The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of images")
    parser.add_argument("--model", nargs="+", default=["small-f8c16", "sd1"])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # before torch
    import torch

    torch.set_num_threads(options.threads)
    found = {name: measured(name, options) for name in options.model}
    packages = {name: version(name) for name in ("torch", "diffusers", "safetensors", "pillow")}
    told = {key: getattr(options, key) for key in ("images", "size", "batch", "rounds", "threads", "workers")}
    document = told | {
        "machine": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": packages,
        "models": found,
    }
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document))


def measured(name: str, options: argparse.Namespace) -> dict:
    """Images per second of every side, for one model."""
    import torch

    import vaeworks as vw
    from vaeworks.data import ImageSet, scan
    from vaeworks.images import open_image, square, to_model_range
    from vaeworks.latents import LatentSet, Settings, encode_dataset
    from vaeworks.runtime.codec import Codec

    torch.manual_seed(0)
    vae = vw.build(name).eval().requires_grad_(False)
    paths = sorted(path for path in Path(options.data).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[
        : options.images
    ]
    if len(paths) < options.images:
        raise SystemExit(f"{options.data} holds {len(paths)} JPEGs, not {options.images}")
    squares = torch.stack([square(open_image(path), options.size) for path in paths])
    codec = Codec(vae)

    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        photos = root / "photos"
        photos.mkdir()
        for path in paths:
            (photos / path.name).symlink_to(path.resolve())
        theirs = diffusers_model(vae, root / "diffusers")
        count = iter(range(10**6))
        kept: dict[str, torch.Tensor] = {}

        def forward() -> None:
            with torch.inference_mode():
                for part in squares.split(options.batch):
                    codec.encode(to_model_range(part)).mode()

        def ours() -> None:
            out = root / f"ours{next(count)}"
            images: ImageSet = scan(photos, decode=False)
            encode_dataset(vae, images, out, Settings(size=options.size), batch=options.batch, workers=options.workers)
            rows = LatentSet(out)
            kept["ours"] = torch.stack([rows[i][0] for i in range(len(rows))])

        def diffusers() -> None:
            kept["diffusers"] = plain_loop(
                theirs, sorted(photos.iterdir()), options.size, options.batch, root / "latents.pt"
            )

        sides: dict[str, Callable[[], None]] = {"forward": forward, "ours": ours, "diffusers": diffusers}
        rates: dict[str, list[float]] = {side: [] for side in sides}
        for number in range(options.rounds + 1):  # the first is to warm up
            for side, run in sides.items():
                started = time.perf_counter()
                run()
                if number:
                    rates[side].append(len(paths) / (time.perf_counter() - started))
    off = float((kept["ours"] - kept["diffusers"]).abs().max() / kept["diffusers"].std())
    medians = {side: statistics.median(values) for side, values in rates.items()}
    share, gain = medians["ours"] / medians["forward"], medians["ours"] / medians["diffusers"]
    print(f"{name}: {len(paths)} images of {options.size} px, batches of {options.batch}")
    for side, values in rates.items():
        print(f"  {side:10}{medians[side]:9.2f} images/s   ({min(values):.2f} to {max(values):.2f})")
    print(
        f"  ours is {share:.1%} of forward, {gain:.2f} times diffusers; latents differ by at most {off:.1e} standard "
        "deviations"
    )
    return {
        "images_per_second": rates,
        "medians": medians,
        "share_of_forward": share,
        "times_diffusers": gain,
        "largest_difference": off,
    }


def diffusers_model(vae, folder: Path):  # type: ignore[no-untyped-def]
    """The same weights in diffusers' class, as a user would load them."""
    import vaeworks as vw

    warnings.simplefilter("ignore")
    from diffusers import AutoencoderKL

    vw.save(vae, folder, "diffusers")
    return AutoencoderKL.from_pretrained(folder, local_files_only=True).eval()


def plain_loop(vae, paths: list[Path], size: int, batch: int, out: Path):  # type: ignore[no-untyped-def]
    """What many scripts do: read a batch, encode it, read the next."""
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    latents = []
    with torch.no_grad():
        for first in range(0, len(paths), batch):
            pictures = []
            for path in paths[first : first + batch]:
                with Image.open(path) as file:
                    picture = ImageOps.fit(file.convert("RGB"), (size, size), Image.Resampling.LANCZOS)
                pictures.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1))
            images = torch.stack(pictures).float() / 127.5 - 1
            latents.append(vae.encode(images).latent_dist.mode())
    found = torch.cat(latents)
    torch.save({"latents": found}, out)
    return found


if __name__ == "__main__":
    main()
