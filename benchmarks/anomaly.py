"""Anomalies on magnetic-tile and mvtec-screw: small VAEs trained on the normal images, the detector, and its baselines,
in one table each.

    python benchmarks/anomaly.py --data FOLDER --out FOLDER [--recipes small-f8c16 small-f8c4] [--minutes 5] [--json
        OUT.json] [--pictures docs/images]

--data holds magnetic-tile/ and mvtec-screw/ with train/good, test/CLASS and, of the tiles, test_masks/. Everything is
gray. A VAE is trained for so many minutes on train/good, which is why figures depend on the machine; one that is in
--out already is taken as it is. Detectors are fitted on the same train/good with a false-alarm rate of 5 %, with
Gaussians by position and with a shared one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

DATA_SETS = ("magnetic-tile", "mvtec-screw")
DENSITIES = ("position", "shared")
LIMIT = 150_000  # bytes of a picture in docs/images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipes", nargs="+", default=["small-f8c16"])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the first recipe's results")
    options = parser.parse_args()
    found = {f"{name} {recipe}": measured(options, name, recipe) for recipe in options.recipes for name in DATA_SETS}
    packages = {name: version(name) for name in ("torch", "scikit-learn", "scipy")}
    document = {
        "minutes": options.minutes,
        "machine": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": packages,
        "runs": found,
    }
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document))


def measured(options: argparse.Namespace, name: str, recipe: str) -> dict:
    """What a recipe's VAE finds in a data set, by density."""
    source, run = options.data / name, options.out / f"{name}-{recipe}"
    learned, normal = halves(source / "train" / "good", options.out / f"{name}-normals")
    if not (run / "model.safetensors").exists():
        gray = ("--model.in-channels", "1", "--model.out-channels", "1")
        call("train", recipe, "--data", learned, "--out", run, "--max-minutes", options.minutes, *gray)
    masks = ("--masks", source / "test_masks") if (source / "test_masks").is_dir() else ()
    results = {}
    for density in DENSITIES:
        out = options.out / f"{name}-{recipe}-{density}"
        words = (
            "--normal",
            normal,
            "--test",
            source / "test",
            *masks,
            "--density",
            density,
            "--out",
            out,
            "--overwrite",
        )
        call("anomaly", run, *words, *(() if density == DENSITIES[0] else ("--no-baselines",)))
        record = json.loads((out / "anomaly.json").read_text())
        results[density] = {
            key: record[key]
            for key in ("evidence", "normals", "false_alarms", "false_alarms_range", "table", "classes")
        }
        if options.pictures and recipe == options.recipes[0] and density == DENSITIES[0]:
            publish(out, options.pictures, name)
    return results


def halves(folder: Path, out: Path) -> tuple[Path, Path]:
    """Normal images that the VAE is trained on, and others for the detector: its threshold is for images that neither
    has learned from."""
    for number, path in enumerate(sorted(p for p in folder.iterdir() if p.is_file())):
        link = out / ("vae", "detector")[number % 2] / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(path.resolve())
    return out / "vae", out / "detector"


def call(*words: object) -> None:
    from vaeworks.cli import main as vaeworks

    if code := vaeworks([str(word) for word in words]):
        raise SystemExit(code)


def publish(out: Path, folder: Path, name: str) -> None:
    """The sheets of a run, small enough for documentation."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("worst", "misses", "false-alarms"):
        if not (out / f"{kind}.jpg").exists():
            continue
        picture = Image.open(out / f"{kind}.jpg")
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS)
        target = folder / f"anomaly-{name}-{kind}.jpg"
        for quality in (90, 80, 70, 60):
            picture.save(target, quality=quality)
            if target.stat().st_size <= LIMIT:
                break


if __name__ == "__main__":
    main()
