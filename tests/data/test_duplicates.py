"""Images that were saved again: a split keeps them together, and evaluations find them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from configs import LEAST
from PIL import Image

import vaeworks as vw
from vaeworks.config import DataConfig, OptimizerConfig, TrainConfig
from vaeworks.data import scan
from vaeworks.data.duplicates import duplicate_groups, without_copies
from vaeworks.data.trained_on import TrainedOn
from vaeworks.images import open_image
from vaeworks.training.run.folder import split_data

WAYS = {
    "jpeg 50": lambda image, path: image.save(path.with_suffix(".jpg"), quality=50),
    "jpeg 90": lambda image, path: image.save(path.with_suffix(".jpeg"), quality=90),
    "webp": lambda image, path: image.save(path.with_suffix(".webp"), quality=70),
    "half": lambda image, path: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS).save(
        path.with_suffix(".bmp")
    ),
    "turned by EXIF": lambda image, path: image.transpose(Image.Transpose.ROTATE_90).save(
        path.with_suffix(".tiff"), exif=_turned()
    ),
}


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = 6
    return exif


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled photographs, in small."""
    folder = tmp_path_factory.mktemp("photos")
    for number, file in enumerate(scan("photos").files):
        image = open_image(file.path)
        image.thumbnail((256, 256))
        image.save(folder / f"{number:02}.png")
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_saved_again_is_on_the_same_side(photos: Path, tmp_path: Path, way: str) -> None:
    for path in photos.iterdir():
        image = open_image(path)
        image.save(tmp_path / path.name)
        WAYS[way](image, tmp_path / path.name)
    images = scan(tmp_path)
    groups = duplicate_groups(images.files)
    stems = [sorted(Path(str(images.files[i].path)).stem for i in group) for group in groups]
    assert sorted(stems) == [[path.stem] * 2 for path in sorted(photos.iterdir())], "each with its copy, and no other"
    train, val = images.split(0.4)
    sides = [{Path(str(file.path)).stem for file in part.files} for part in (train, val)]
    assert all(sides) and not sides[0] & sides[1]
    told = split_data(CONFIG, str(tmp_path), tmp_path / "run")[2]
    assert told[0] == "16 images look like others (saved again?); such images are on one side of the split"


CONFIG = TrainConfig(
    model=LEAST, images=2, batch=2, data=DataConfig(size=16, val_fraction=0.4, workers=0),
    optimizer=OptimizerConfig(warmup_images=0), device="cpu",
)  # fmt: skip


def test_different_images_are_no_copies(photos: Path) -> None:
    assert duplicate_groups(scan(photos).files) == []
    assert duplicate_groups(scan("digits").files) == [], "digits are too small to be told apart"
    assert duplicate_groups(scan("procedural:40:64").files) == []
    train, val = scan(photos).split(0.4)
    assert {f.digest for f in train.files} | {f.digest for f in val.files} == {f.digest for f in scan(photos).files}


def test_flat_images_are_no_copies(tmp_path: Path) -> None:
    for level in range(5):
        Image.new("RGB", (64, 64), (level, 2 * level, 3)).save(tmp_path / f"{level}.png")
    assert duplicate_groups(scan(tmp_path).files) == []


def test_copies_of_training_images_are_not_judged(photos: Path, tmp_path: Path) -> None:
    """The file lists the bytes of what it was trained on; a copy has others, and is known by the original beside it."""
    for path in photos.iterdir():
        open_image(path).save(tmp_path / path.name)
    (first, *_) = sorted(tmp_path.iterdir())
    open_image(first).save(tmp_path / "copy.jpg", quality=80)
    images = scan(tmp_path)
    vae = vw.build(LEAST)
    vae.trained_on = TrainedOn.of(f.digest for f in images.files if str(f.path) == str(first))
    judged = {Path(score.path).name for score in vw.evaluate(vae, images, limit=32).scores}
    assert judged == {path.name for path in tmp_path.iterdir()} - {first.name, "copy.jpg"}
    assert len(vw.evaluate(vae, images, limit=32, include_training=True).scores) == 17


def test_training_images_that_are_copies_of_given_validation_images_are_left_out(photos: Path, tmp_path: Path) -> None:
    val = tmp_path / "val"
    val.mkdir()
    for path in sorted(photos.iterdir())[:3]:
        open_image(path).save(val / f"{path.stem}.jpg", quality=70)
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, val=str(val)))
    train, _, told = split_data(config, str(photos), tmp_path / "run")
    assert len(train.files) == 13
    assert "3 training images left out, because they are validation images as well" in told
    assert without_copies(scan(val).files, scan(photos).files) == ()
