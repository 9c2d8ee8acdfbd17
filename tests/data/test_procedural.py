"""Images that are drawn: what number k of a seed is, its class, its mask, and every way in which it is read."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from configs import TRAIN
from patients import linear
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

import vaeworks as vw
from vaeworks.cli.console import TERMINAL
from vaeworks.cli.main import main
from vaeworks.data import photos, procedural, scan
from vaeworks.data.image_ref import ImageFile
from vaeworks.data.inputs import data_source
from vaeworks.data.labels import find_labels, find_masks
from vaeworks.data.synthetic.drawing import CLASSES, CONTRAST, GRATING, SIZES, colours, distance
from vaeworks.data.synthetic.letters import LETTERS, signed_distance, word
from vaeworks.data.synthetic.procedural import Drawn, png
from vaeworks.data.synthetic.shapes import (
    CROSS_ARM,
    RING_HOLE,
    STAR_WAIST,
    cross,
    disc,
    lettering,
    ring,
    square,
    star,
    triangle,
)
from vaeworks.data.synthetic.textures import checks, noise, stripes
from vaeworks.doctor.subject import encode_subject
from vaeworks.errors import DataError
from vaeworks.images import open_image, to_uint8

TRAIN_32 = [*TRAIN, "--val-every", "32", "--save-every", "32"]
"""A tiny run of four steps."""


def halved(image: Tensor) -> Tensor:
    """A uint8 image c h w at half its size: means of 2 x 2 pixels, float."""
    return F.avg_pool2d(image[None].float(), 2)[0]


# --- which image is number k


def test_an_image_is_a_function_of_seed_size_and_number_alone() -> None:
    """Not of the order of drawing, nor of how many there are; and another number or seed is another image."""
    forward = [place.read_bytes() for place in procedural(40)]
    assert forward[:16] == [place.read_bytes() for place in reversed(procedural(16))][::-1]
    assert len({*forward, *(place.read_bytes() for place in procedural(40, seed=1))}) == 80
    assert Drawn(5).read_bytes() == Drawn(5, 32, 0).read_bytes() and Drawn(5) == Drawn(5, 32, 0)


def test_a_size_is_a_resolution_of_the_same_scene() -> None:
    """Averaged to half its size an image is that size's own image, to antialiasing; a mask is, but for its outline."""
    for index in range(48):
        large, small = Drawn(index, 64), Drawn(index, 32)
        assert (halved(large.image()) - small.image()).abs().mean() < 1
        assert (halved(large.mask.image()) / 255 - small.mask.image() / 255).abs().mean() < 0.04
    assert (halved(Drawn(3, 64).image()) - Drawn(11).image()).abs().mean() > 20


@pytest.mark.parametrize("size", [8, 16, 33, 200])
def test_what_is_read_is_what_is_drawn(size: int) -> None:
    """The PNGs decode to exactly the image and the mask, at odd sides too."""
    for place in procedural(8, size, 3):
        image, mask = place.image(), place.mask.image()
        assert (
            image.dtype == mask.dtype == torch.uint8
            and image.shape == (3, size, size)
            and mask.shape == (1, size, size)
        )
        assert torch.equal(to_uint8(open_image(place.read_bytes())), image)
        with Image.open(io.BytesIO(place.mask.read_bytes())) as file:
            assert file.mode == "L" and torch.equal(to_uint8(file), mask)


def test_pngs_are_sound() -> None:
    """Every checksum holds, which Pillow's own check says, and breaking one is seen."""
    content = png(np.arange(60, dtype=np.uint8).reshape(4, 5, 3))
    Image.open(io.BytesIO(content)).verify()
    broken = bytearray(content)
    broken[50] ^= 1
    with pytest.raises(SyntaxError, match="broken PNG"):
        Image.open(io.BytesIO(bytes(broken))).verify()


# --- classes and masks


def test_classes_are_equally_frequent_and_in_the_names() -> None:
    """Any multiple of 8 first images is balanced; the folder in the name is the class, and names are unique."""
    places = procedural(64)
    assert Counter(place.label for place in places) == dict.fromkeys(range(8), 8)
    assert [Path(str(place)).parent.name for place in places] == [CLASSES[place.label] for place in places]
    assert (
        len({str(place) for place in places}) == 64
        and str(places[11]) == "procedural/star/000011.png"
        and places[11].stem == "000011"
    )
    assert str(places[11].mask) == "procedural/star/000011_mask.png" and places[11].mask.stem == "000011_mask"


def test_masks_are_black_and_white_and_of_some_size() -> None:
    """A few percent to half of the image, at small sizes too."""
    for size, least in ((16, 0.015), (64, 0.03)):
        for place in procedural(160, size):
            mask = place.mask.image()
            assert set(mask.unique().tolist()) == {0, 255}
            assert least < (mask > 0).float().mean() < math.pi / 4 * SIZES["text"][1] ** 2


def test_the_foreground_can_be_seen() -> None:
    """Every image's mean colour within its mask is not that around it, as the rule for colours demands."""
    for place in procedural(320, 64):
        image, inside = place.image().double().div(255), place.mask.image()[0] > 0
        # away from the outline, where pixels are mixed
        core, rim = (
            (-F.max_pool2d(-inside[None].double(), 3, 1, 1) > 0)[0],
            (F.max_pool2d(inside[None].double(), 3, 1, 1) > 0)[0],
        )
        within, around = image[:, core if core.any() else inside].mean(1), image[:, ~rim].mean(1)
        assert distance(within.numpy(), around.numpy()) > CONTRAST * (0.95 if core.any() else 0.6), place


def test_colours_keep_their_distance() -> None:
    """Of all blends, and of a grating's two colours; and colours are not of a few kinds."""
    blend = np.linspace(0, 1, 33)[:, None]
    for index in range(300):
        a, b, c, d = colours(index, 0)
        behind, before = a + blend * (b - a), c + blend * (d - c)
        assert distance(behind[:, None], before[None]).min() > 0.95 * CONTRAST
        assert distance(*colours(index, 0, GRATING)[2:]) >= GRATING
    every = np.concatenate([colours(index, 0) for index in range(300)])
    assert (every.std(0) > 0.2).all() and every.min() >= 0 and every.max() <= 1
    assert distance(np.zeros(3), np.ones(3)) == pytest.approx(1)


def features(place: Drawn) -> list[float]:
    """Of a mask: how far from its middle its points are, in its own size, and its outline's length; and of its colours:
    their spread."""
    inside = place.mask.image()[0] > 0
    y, x = inside.nonzero().double().unbind(1)
    area = len(x)
    radii = torch.hypot(x - x.mean(), y - y.mean()) / math.sqrt(area)
    outline = (inside[1:] != inside[:-1]).sum() + (inside[:, 1:] != inside[:, :-1]).sum()
    shares = torch.histc(radii, 12, 0, 1.2) / area
    spread = place.image().double()[:, inside].std(1).norm()
    return [*shares.tolist(), float(outline) / math.sqrt(area), float(spread)]


def test_classes_can_be_told_apart() -> None:
    """A linear classifier of a few features of the masks, and of the spread of colours within, knows unseen images'
    classes."""
    seen, unseen = procedural(480, 64), procedural(240, 64, seed=1)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    model.fit([features(place) for place in seen], [place.label for place in seen])
    guessed = model.predict([features(place) for place in unseen])
    right = {
        name: np.mean([g == p.label for g, p in zip(guessed, unseen, strict=True) if CLASSES[p.label] == name])
        for name in CLASSES
    }
    assert min(right.values()) > 0.85 and np.mean(list(right.values())) > 0.95, right


# --- what it is drawn with


def test_shapes_have_their_areas_and_fill_their_circles() -> None:
    """Against geometry's formulas: area within, and the farthest point on the circle."""
    r, n = 0.4, 800
    x = ((np.arange(n) + 0.5) / n - 0.5)[None]
    arm, length = CROSS_ARM, math.sqrt(1 - CROSS_ARM**2)
    areas = {
        disc: math.pi,
        ring: math.pi * (1 - RING_HOLE**2),
        square: 2.0,
        triangle: 0.75 * math.sqrt(3),
        cross: 8 * arm * length - 4 * arm * arm,
        star: 5 * STAR_WAIST * math.sin(math.pi / 5),
    }
    for shape, area in areas.items():
        inside = shape(x, x.T, r) < 0
        assert inside.mean() == pytest.approx(area * r * r, rel=0.01), shape.__name__
        assert (np.hypot(x, x.T) * inside).max() == pytest.approx(r, rel=0.02), shape.__name__


def test_outlines_are_distances() -> None:
    """Near the outline a shape's field has slope 1, so that antialiased edges are one pixel wide, letters' too."""
    n = 400
    x = ((np.arange(n) + 0.5) / n - 0.5)[None]
    for shape in (disc, ring, square, triangle, cross, star, lettering("OWL")):
        field = np.broadcast_to(shape(x, x.T, 0.4), (n, n))
        down, right = np.gradient(field, 1 / n)
        slope = np.hypot(down, right)[abs(field) < 2 / n]
        assert np.median(slope) == pytest.approx(1, abs=0.02) and slope.max() < 1.3


def test_a_picture_gives_its_distances() -> None:
    """Of an antialiased disc: those of the circle, to a quarter of a pixel, a twentieth on average, and no side is
    preferred."""
    x = np.arange(40.0)[None]
    true = np.hypot(x - 19.3, x.T - 20.1) - 12
    error = signed_distance((0.5 - true).clip(0, 1) - 0.5) - true
    assert abs(error).max() < 0.25 and abs(error).mean() < 0.05 and abs(error.mean()) < 0.02


def test_letters_are_whole_and_apart() -> None:
    """No letter touches its cell's sides, so none its neighbour; all are of one height but Q and J."""
    for letter in LETTERS:
        inside = word(letter) < 0
        assert inside.any() and not inside[[0, -1]].any() and not inside[:, [0, -1]].any(), letter
        rows = np.flatnonzero(inside.any(1))
        assert letter in "QJ" or 60 <= rows[-1] - rows[0] <= 72, letter
    assert (word("AB") == np.concatenate([word("A"), word("B")], axis=1)).all()


def test_textures_are_averages_over_pixels() -> None:
    """Halved, a fine field is the coarse one: exactly for noise where nothing is clipped, else to its edges; halves are
    even."""
    x = ((np.arange(64) + 0.5) / 64)[None]
    lattice = 0.4 + 0.2 * np.random.default_rng(0).random((9, 9))
    fine, coarse = noise(lattice, 64), noise(lattice, 32)
    np.testing.assert_allclose(fine.reshape(32, 2, 32, 2).mean((1, 3)), coarse, atol=1e-12)
    assert noise(np.full((9, 9), 0.5), 16) == pytest.approx(0.5)
    for draw in (stripes, checks):
        field = draw(x, x.T, 0.0, 0.25, 1 / 64)
        assert field.mean() == pytest.approx(0.5, abs=0.02) and field.std() > 0.4
        assert np.allclose(np.roll(field, 16, axis=1), field)  # 0.25 of 64 pixels


# --- how it is read


def test_a_source_is_scanned_like_any_other() -> None:
    """Numbers in the source's name, or none of them; files with digests and sides; a split by content."""
    found = scan("procedural:64:16:5")
    assert [file.path for file in found.files] == procedural(64, 16, 5) and not found.skipped
    assert {(file.width, file.height) for file in found.files} == {(16, 16)} and len(
        {file.digest for file in found.files}
    ) == 64
    train, val = found.split(0.25)
    assert 0 < len(val.files) < 32 and len(train.files) + len(val.files) == 64
    assert len(procedural()) == 20_000 and scan("procedural:3").files == scan("procedural:9").files[:3]


@pytest.mark.parametrize(
    "source",
    [
        "procedural:",
        "procedural:x",
        "procedural:8:32:0:1",
        "procedural:-8",
        "procedural: 8",
        "procedural::32",
        "procedural:8:32:",
    ],
)
def test_wrong_syntax_is_said_with_the_right_form(source: str) -> None:
    with pytest.raises(
        DataError, match=r"^[^\n]*write procedural\[:COUNT\[:SIZE\[:SEED\]\]\], such as procedural:20000:32:0$"
    ):
        scan(source)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("procedural:0", "COUNT (=0)"),
        ("procedural:9:7", "SIZE (=7)"),
        ("procedural:9:1025", "8 to 1024"),
        ("procedural:9999999", "1 to 1000000"),
        ("procedural:9:32:99999999999999999999", "SEED"),
    ],
)
def test_numbers_out_of_range_are_refused(source: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        scan(source)
    assert said in str(caught.value) and "procedural[:COUNT" in str(caught.value) and "\n" not in str(caught.value)


def test_labels_and_masks_are_found_without_being_told() -> None:
    """Classes from names, masks from places; a folder of files has no masks of its own, and a mask that is none is
    named."""
    files = scan("procedural:32:32").files
    assert find_labels(files) == tuple(CLASSES[i % 8] for i in range(32))
    masks = find_masks(files)
    assert masks is not None and masks == tuple(place.mask for place in procedural(32))
    assert find_masks([ImageFile(path, "", 0, 0) for path in photos()]) is None
    seen = encode_subject(linear(), files[:8], size=32, masks=masks[:8])
    assert seen.masks is not None
    assert torch.equal(seen.masks, torch.stack([place.mask.image()[0] > 0 for place in procedural(8)]))
    assert (
        seen.protocol.labels != encode_subject(linear(), files[:8], size=32, masks=[*masks[:7], None]).protocol.labels
    )


def test_a_mask_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(b"no")
    for name, why in (("m.png", "not an image"), ("gone.png", "No such file")):
        with pytest.raises(DataError, match=rf"^mask [^\n]*{name} cannot be read: {why}[^\n]*$"):
            encode_subject(linear(), scan("procedural:1").files, size=32, masks=[tmp_path / name])


def test_the_doctor_examines_semantics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command alone: figures that need labels (the probe) and masks (contrast of the object)."""
    monkeypatch.setenv("VAEWORKS_CACHE", str(tmp_path / "cache"))
    vw.save(linear(), tmp_path / "vae.safetensors", layout="native")
    words = [
        "--data",
        "procedural:128:32",
        "--size",
        "32",
        "--images",
        "128",
        "--panels",
        "semantics",
        "--quick",
        "--json",
    ]
    assert main(["doctor", str(tmp_path / "vae.safetensors"), *words, "--out", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)["findings"]["semantics"]
    assert found["verdict"] != "not examined" and found["images"] == 128
    assert {"srss", "probe", "rho"} <= found["figures"].keys(), found["figures"].keys()


def test_a_run_trains_on_it_and_is_judged_on_what_it_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """train, eval and encode take it by its name, as any source."""
    run, source = tmp_path / "run", "procedural:40:16"
    assert main(["train", "small-f4c4", "--data", source, "--out", str(run), *TRAIN_32, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images_seen"] == 32
    assert main(["eval", str(run), "--data", source, "--no-legibility", "--json"]) == 0
    held_out = {entry["path"] for entry in json.loads((run / "data.json").read_text())["val"]}
    assert {score["path"] for score in json.loads(capsys.readouterr().out)["scores"]} == held_out and len(held_out) > 2
    assert main(["encode", str(run), source, "--out", str(tmp_path / "latents"), "--size", "16", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["images"], done["classes"], done["enlarged"]) == (40, 8, 0)


def test_a_folder_of_the_same_name_is_mentioned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The word means what is built in, for both words; ./ names the folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "procedural"):
        assert data_source(name, reporter=TERMINAL) == name and not capsys.readouterr().err
        (tmp_path / name).mkdir()
        assert (
            data_source(name, reporter=TERMINAL) == name
            and f"for the folder of that name write ./{name}" in capsys.readouterr().err
        )
        assert data_source(f"./{name}", reporter=TERMINAL) == f"./{name}" and not capsys.readouterr().err
    with pytest.raises(DataError, match="no image file"):
        scan("./procedural")
    assert len(scan("procedural:8").files) == 8
