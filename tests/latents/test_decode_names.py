"""The pictures of a shard have the names of its images, and lie in its folder whatever its list says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from configs import LEAST
from PIL import Image

import vaeworks as vw
from vaeworks.images import open_image


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Latents of gray images, whose brightness tells them apart."""
    for number, name in enumerate(("cats/a.jpg", "cats/a.png", "dogs/a.png", "dogs/b.c.png")):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (60 * number,) * 3).save(path)
    vw.save(vw.build(LEAST), tmp_path / "vae.safetensors")
    vw.encode(tmp_path / "vae.safetensors", tmp_path / "images", tmp_path / "latents", size=16)
    return tmp_path


def decoded(place: Path, out: str = "out") -> dict[str, str]:
    """Written files below the folder of the shard, and what each was made of."""
    folder = place / out / "latents_rank00_shard000"
    found = vw.decode(place / "vae.safetensors", place / "latents", place / out)
    return {str(Path(one.path or "").relative_to(folder)): one.source for one in found.images}


def test_names_and_folders_are_kept(shards: Path) -> None:
    assert list(decoded(shards)) == ["cats/a-jpg.png", "cats/a-png.png", "dogs/a.png", "dogs/b.c.png"]
    vae = vw.load(shards / "vae.safetensors")
    for name, picture in (("cats/a.jpg", "cats/a-jpg.png"), ("dogs/b.c.png", "dogs/b.c.png")):
        image = vw.open_image(shards / "images" / name)
        expected = vw.to_images(vae.decode(vae.encode(image).mode()))[0]
        written = open_image(shards / "out" / "latents_rank00_shard000" / picture)
        assert max(abs(a - b) for a, b in zip(expected.tobytes(), written.tobytes(), strict=True)) <= 1


def rewritten(place: Path, names: list[str] | None) -> None:
    (path,) = (place / "latents").glob("*_shard000*.json")
    values = json.loads(path.read_text())
    if names is None:
        path.unlink()
        return
    values["images"] = [[n, name, "0"] for n, name in enumerate(names)]
    path.write_text(json.dumps(values))


def test_a_list_cannot_lead_out_of_the_folder(shards: Path) -> None:
    rewritten(shards, ["../../x.png", "/etc/x.png", "a/../../b.jpg", ".."])
    assert list(decoded(shards)) == ["x.png", "etc/x.png", "a/b.png", "image.png"]


@pytest.mark.parametrize("names", [None, ["a.png"]])
def test_latents_without_their_list_are_numbered(shards: Path, names: list[str] | None) -> None:
    rewritten(shards, names)
    assert list(decoded(shards)) == [f"{number:06}.png" for number in range(4)]


def test_all_places_are_checked_before_the_first_is_written(shards: Path) -> None:
    taken = shards / "out" / "latents_rank00_shard000" / "dogs"
    taken.mkdir(parents=True)
    (taken / "b.c.png").write_text("mine")
    with pytest.raises(vw.ConfigError, match=r"b\.c\.png exists"):
        decoded(shards)
    assert [path.name for path in (shards / "out").rglob("*.png")] == ["b.c.png"]
