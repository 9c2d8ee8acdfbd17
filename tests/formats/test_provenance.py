"""Which images a model was trained on travels with its weights, and an evaluation leaves them out."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from checkpoints import F8C4, checkpoint, ldm_tensors
from runs import make_images
from safetensors.torch import load_file, save_file

import vaeworks as vw
from vaeworks.config import DataConfig, FinetuneConfig, OptimizerConfig, TrainConfig
from vaeworks.data import ImageSet, scan
from vaeworks.data.trained_on import METADATA_KEY, MOST, StreamedImages, TrainedOn, trained_on
from vaeworks.formats.locate import locate
from vaeworks.formats.provenance import trained_on_of

CONFIG = TrainConfig(
    model=F8C4,
    images=4,
    batch=2,
    data=DataConfig(size=24, val_fraction=0.4, val_images=2, workers=0),
    optimizer=OptimizerConfig(warmup_images=0),
    stats_images=2,
    device="cpu",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a run on some of them, other images, and a run that was fine-tuned on some of those."""
    place = tmp_path_factory.mktemp("provenance")
    make_images(place / "images", 12, 24)
    make_images(place / "all", 20, 24)
    make_images(place / "others", 20, 24)
    for path in sorted((place / "others").iterdir())[:12]:
        path.unlink()
    vw.train(CONFIG, place / "images", place / "run", show=False)
    start = dataclasses.replace(CONFIG, finetune=FinetuneConfig(path=str(place / "vae.safetensors")))
    shutil.copy(place / "run" / "model.safetensors", place / "vae.safetensors")
    vw.train(start, place / "others", place / "tuned", show=False)
    return place


@pytest.fixture(scope="module")
def known(place: Path) -> set[str]:
    """Digests of the run's training images."""
    train, val = scan(place / "images").split(CONFIG.data.val_fraction)
    assert len(train.files) > 2 and len(val.files) > 1
    return {file.digest for file in train.files}


def judged(model: str | Path | vw.Autoencoder, images: ImageSet, **more: object) -> set[str]:
    """Digests of the images that an evaluation judges."""
    by_path = {str(file.path): file.digest for file in images.files}
    return {by_path[score.path] for score in vw.evaluate(model, images, **more).scores}


def _convert(place: Path, out: Path) -> Path:
    vw.convert(place / "run", out / "ldm.safetensors", "ldm")
    return out / "ldm.safetensors"


def _diffusers(place: Path, out: Path) -> Path:
    vw.save(vw.load(place / "vae.safetensors"), out / "diffusers", layout="diffusers")
    return out / "diffusers"


def _fold(place: Path, out: Path) -> Path:
    vw.fold(_convert(place, out), out / "folded.safetensors", scaling_factor=0.5)
    return out / "folded.safetensors"


def _extract(place: Path, out: Path) -> Path:
    """Out of the checkpoint that it was baked into."""
    checkpoint(out / "full.safetensors", ldm_tensors())
    vw.bake(place / "run", out / "full.safetensors", out / "baked.safetensors", dtype="fp32")
    vw.extract(out / "baked.safetensors", out / "extracted.safetensors")
    return out / "extracted.safetensors"


def _older(place: Path, out: Path) -> Path:
    """A run of a version that wrote no digests into the file: its data.json lists them."""
    shutil.copytree(place / "run", out / "older")
    for name in ("model.safetensors", "best.safetensors"):
        path = out / "older" / name
        metadata = locate(path).archive.metadata
        save_file(load_file(path), path, {k: v for k, v in metadata.items() if k != METADATA_KEY})
    return out / "older" / "best.safetensors"


@pytest.mark.parametrize(
    "way",
    [
        lambda place, out: place / "run",
        lambda place, out: place / "run" / "model.safetensors",
        lambda place, out: place / "run" / "best.safetensors",
        lambda place, out: place / "vae.safetensors",
        _convert,
        _diffusers,
        _fold,
        _extract,
        _older,
    ],
    ids=["run", "model", "best", "copy", "ldm", "diffusers", "folded", "extracted", "older"],
)
def test_every_copy_of_a_model_knows_its_training_images(place: Path, known: set[str], tmp_path: Path, way) -> None:
    images = scan(place / "images")
    model = way(place, tmp_path)
    everything = {file.digest for file in images.files}
    assert judged(model, images) == everything - known
    assert judged(vw.load(model), images) == everything - known
    assert judged(model, images, include_training=True) == everything


def test_a_fine_tuned_model_knows_the_images_of_both_runs(place: Path, known: set[str], tmp_path: Path) -> None:
    images = scan(place / "all")
    later, _ = scan(place / "others").split(CONFIG.data.val_fraction)
    both = known | {file.digest for file in later.files}
    assert judged(place / "tuned" / "model.safetensors", images) == {f.digest for f in images.files} - both
    assert trained_on(place / "tuned") == TrainedOn.of(both) == trained_on_of(locate(place / "tuned"))
    more = dataclasses.replace(CONFIG, images=6, finetune=FinetuneConfig(path=str(place / "gone.safetensors")))
    shutil.copytree(place / "tuned", tmp_path / "tuned")
    vw.train(more, place / "others", tmp_path / "tuned", resume=True, show=False)
    assert trained_on_of(locate(tmp_path / "tuned")) == TrainedOn.of(both)


def test_a_model_with_training_images_only_is_refused(place: Path) -> None:
    train, _ = scan(place / "images").split(CONFIG.data.val_fraction)
    with pytest.raises(vw.DataError, match="trained on all; --include-training judges them"):
        vw.evaluate(place / "vae.safetensors", train)


def test_the_pca_is_fitted_on_the_training_images(place: Path, known: set[str]) -> None:
    found = vw.evaluate(place / "vae.safetensors", place / "images")
    assert f"PCA: components of the training images, fitted on {len(known)} images" in found.codes


def test_digests_survive_the_file_and_streams_do_too() -> None:
    listed = TrainedOn.of(f"{i:064x}"[::-1] for i in range(1000))
    stream = TrainedOn.of((), [StreamedImages(0.3, frozenset({"00000000ff"}))])
    both = listed | stream
    again = TrainedOn.from_metadata(both.to_metadata(), "file")
    assert again == both
    assert f"{7:064x}"[::-1] in listed and f"{1001:064x}"[::-1] not in listed
    held_out, trained = "00" * 12 + "00000000" + "00" * 16, "00" * 12 + "ffffffff" + "00" * 16
    assert trained in stream and held_out not in stream
    assert "00000000ff" + trained[10:] not in stream
    assert TrainedOn.from_metadata({}, "file") is None


def test_too_many_images_are_counted_and_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file lists no more than MOST; then it says how many there are, and the evaluation warns."""
    monkeypatch.setattr("vaeworks.data.trained_on.MOST", 3)
    assert MOST > 3
    values = json.loads(TrainedOn.of(f"{i:064x}"[::-1] for i in range(5)).to_metadata()[METADATA_KEY])
    assert values["digests"] == "" and values["unlisted"] == 5


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"digests": "!", "streams": [], "unlisted": 0}',
     '{"digests": "AA==", "streams": [], "unlisted": 0}',
     '{"digests": "", "streams": [{"val_fraction": 2, "judged": ""}], "unlisted": 0}',
     '{"digests": "", "streams": [], "unlisted": -1}', '{"digests": 3, "streams": [], "unlisted": 0}'],
)  # fmt: skip
def test_metadata_that_list_no_images_are_refused_in_a_line(place: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "vae.safetensors"
    metadata = {**locate(place / "vae.safetensors").archive.metadata, METADATA_KEY: text}
    save_file(load_file(place / "vae.safetensors"), path, metadata)
    with pytest.raises(vw.FormatError, match="do not list images") as caught:
        vw.load(path)
    assert "\n" not in str(caught.value)
