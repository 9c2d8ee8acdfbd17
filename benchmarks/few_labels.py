"""Few labels on digits, MNIST and three breeds of pets: what small VAEs' latents are worth, and whether their variants
help a classifier.

    python benchmarks/few_labels.py --data FOLDER --out FOLDER [--only digits mnist pets] [--minutes 4] [--json
        OUT.json] [--charts docs/images]

--data holds mnist/ (IDX), oxford-pets-dogs/ and oxford-pets-cats/ (breeds in file names), and
weights/mobilenetv2-keras-features beside it (../weights); scikit-learn's digits are on every machine. A VAE is trained
for so many minutes on all images of a set, without labels, which is why figures depend on the machine; one that is in
--out already is taken as it is, and so is every study.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

GRAY = ("--model.in-channels", "1", "--model.out-channels", "1")
ENOUGH = 100  # images of a breed: 50 labels and a test half
WHOLE = ("--data.min-scale", "1.0", "--data.no-flip")


@dataclass(frozen=True)
class DataSet:
    """What is measured on a set of images."""

    labels: str
    size: int
    """of the squares whose features are taken, in pixels"""
    judged_size: int
    """of those that classifiers are trained on"""
    judged_counts: tuple[int, ...]
    flip: bool
    network: bool
    """whether MobileNetV2's features are a row; they need 32 px"""
    models: dict[str, tuple[str, ...]]
    """recipe -> options of its training"""


SETS = {
    "digits": DataSet(
        "folders",
        8,
        8,
        (2, 5, 20),
        False,
        False,
        {"digits-vae": (), "digits-ae": (), "small-f4c4": (*GRAY, *WHOLE, "--data.size", "8", "--batch", "32")},
    ),
    "mnist": DataSet(
        "folders", 28, 28, (5, 20), False, False, {"small-f4c4": (*GRAY, *WHOLE, "--data.size", "28", "--batch", "16")}
    ),
    "pets": DataSet("names", 128, 48, (20,), True, True, {"small-f8c16": ()}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--charts", type=Path, help="folder for the linear probes' charts")
    options = parser.parse_args()
    found = {
        f"{name} {recipe}": measured(options, name, recipe) for name in options.only for recipe in SETS[name].models
    }
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
    """Both studies of a recipe's VAE on a set of images."""
    chosen, source, run = SETS[name], images(options, name), options.out / f"{name}-{recipe}"
    if not (run / "model.safetensors").exists():
        call("train", recipe, "--data", source, "--out", run, "--max-minutes", options.minutes, *chosen.models[recipe])
    shared = ("--data", source, "--labels", chosen.labels)
    places = {kind: options.out / f"{name}-{recipe}-{kind}" for kind in ("features", "judge")}
    if not (places["features"] / "features.json").exists():
        weights = options.data.parent / "weights/mobilenetv2-keras-features"
        network = ("--features", "mobilenetv2", "--features-weights", weights) if chosen.network else ()
        call("features", run, *shared, "--size", chosen.size, *network, "--out", places["features"])
    if not (places["judge"] / "judge.json").exists():
        flip = ("--flip",) if chosen.flip else ()
        words = ("--judge", "--size", chosen.judged_size, "--counts", *chosen.judged_counts, *flip)
        call("augment", run, *shared, *words, "--out", places["judge"])
    if options.charts:
        options.charts.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(places["features"] / "linear-probe.svg", options.charts / f"few-labels-{name}-{recipe}.svg")
    return {
        "features": json.loads((places["features"] / "features.json").read_text()),
        "judge": json.loads((places["judge"] / "judge.json").read_text()),
    }


def images(options: argparse.Namespace, name: str) -> object:
    """A source; the breeds of dogs and of cats that have enough images are linked into one folder."""
    if name != "pets":
        return name if name == "digits" else options.data / name
    folder = options.out / "pets"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [path for kind in ("dogs", "cats") for path in sorted((options.data / f"oxford-pets-{kind}").glob("*.jpg"))]
    known = Counter(breed(path) for path in paths)
    for path in paths:
        if known[breed(path)] >= ENOUGH and not (folder / path.name).exists():
            (folder / path.name).symlink_to(path.resolve())
    return folder


def breed(path: Path) -> str:
    return path.stem.rsplit("_", 1)[0]


def call(*words: object) -> None:
    from vaeworks.cli import main as vaeworks

    if code := vaeworks([str(word) for word in words]):
        raise SystemExit(code)


if __name__ == "__main__":
    main()
