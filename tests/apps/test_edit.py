"""Edits in latent space: planted directions, identities of arithmetic and statistics, and what a mask leaves alone."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from sheets import panels, words_above
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.apps.codes import decode_picture, encode_picture
from vaeworks.apps.editing import (
    Adjustment,
    adjusted_latents,
    adjusted_pixels,
    combined,
    composed,
    edit_picture,
    fit_direction,
    latent_weights,
    linear_decoder,
    load_direction,
    parse_channel,
    parse_expression,
    save_direction,
    transferred,
)
from vaeworks.apps.editing.directions import split_sources
from vaeworks.cli import main
from vaeworks.errors import ConfigError, DataError, FormatError
from vaeworks.images import open_image, to_pillow

C, F = 5, 4
CONFIG = vw.AutoencoderConfig(
    channels=8,
    channel_mult=(1, 1, 1),
    norm_groups=4,
    num_res_blocks=1,
    latent_channels=C,
    quant_conv=False,
    post_quant_conv=False,
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def linear() -> vw.Autoencoder:
    """An autoencoder of f4 whose halves are linear, and whose latents carry the colours of f x f pixels, and then
    some."""
    vae = vw.build(CONFIG)
    mix = torch.linalg.qr(random(C, C, seed=3))[0]
    to, back = nn.Conv2d(3, 2 * C, F, F), nn.ConvTranspose2d(C, 3, F, F)
    to.weight.data = torch.zeros(2 * C, 3, F, F)
    to.weight.data[:C] = (mix[:, :3] / F**2)[:, :, None, None]
    to.bias.data = torch.cat([torch.zeros(C), torch.full((C,), -30.0)])
    back.weight.data, back.bias.data = mix[:, :3, None, None].expand(-1, -1, F, F).clone(), torch.zeros(3)
    vae.encoder, vae.decoder = to, back  # type: ignore[assignment]
    return vae.eval().requires_grad_(False)


def photo(height: int = 32, width: int = 40) -> Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([90 + 60 * x, 90 + 50 * y, 128 + 30 * torch.sin(5 * x * y)]).round().to(torch.uint8)


def test_planted_direction() -> None:
    """The mean finds what was planted, beside a channel that disturbs; the logistic normal tells apart what the mean
    cannot."""
    planted = torch.tensor([1.0, 0, 0, 0, 0])
    disturbing = (
        3 * random(400, 1, 1, 1, seed=1) * torch.tensor([1.0, 1.0, 0, 0, 0])[:, None, None]
    )  # goes into two channels alike
    z = 0.1 * random(400, C, 3, 3) + disturbing
    having, lacking = (
        z[:200] + planted[:, None, None],
        z[200:] - z[200:].mean((0, 2, 3))[:, None, None] + z[:200].mean((0, 2, 3))[:, None, None],
    )
    mean, logistic = fit_direction(having, lacking), fit_direction(having, lacking, "logistic")
    assert torch.allclose(mean.change[:, 0, 0], planted, atol=0.01)
    assert logistic.separation > 0.95 > mean.separation + 0.3
    assert logistic.change[1, 0, 0] < -0.3  # it cancels what disturbs, which is no part of the attribute
    assert torch.allclose(mean.applied(z[0], -2.0), z[0] - 2 * planted[:, None, None], atol=0.05)


def test_map_direction() -> None:
    """Of aligned pictures the direction is a map; it is resized to other pictures."""
    planted = torch.zeros(C, 4, 4)
    planted[2, :2] = 3.0
    noise = 0.1 * random(40, C, 4, 4)
    found = fit_direction(noise[:20] + planted, noise[20:], "map")
    assert torch.allclose(found.change, planted, atol=0.15)
    assert found.separation == 1.0
    larger = found.applied(torch.zeros(C, 8, 8))
    assert larger.shape == (C, 8, 8) and larger[2, 0, 4] == pytest.approx(3, abs=0.15) and abs(larger[2, 7, 4]) < 0.15
    with pytest.raises(DataError, match="needs 2 pictures"):
        fit_direction(noise[:1], noise)
    assert math.isnan(fit_direction(noise[:3], noise[20:]).separation)


def test_held_out_pictures_are_no_copies() -> None:
    """Every picture twice, side by side, without an attribute: copies are in one half, so nothing is told apart; order
    is no matter."""
    having, lacking = (random(20, C, 4, 4, seed=seed).repeat_interleave(2, 0) for seed in (7, 8))
    found = fit_direction(having, lacking, "map")
    assert 0.2 < found.separation < 0.8
    turned = fit_direction(having.flip(0), lacking.flip(0), "map")
    assert turned.separation == pytest.approx(found.separation)
    names = [str(i // 2) for i in range(40)]
    assert fit_direction(having, lacking, "map", (names, names)).separation < 0.8
    mostly = torch.cat([having[:1].expand(8, -1, -1, -1), having[2:3]])  # one that differs makes a half
    assert math.isfinite(fit_direction(mostly, lacking, "mean").separation)
    assert math.isnan(fit_direction(mostly[:8], lacking, "mean").separation)


def test_sources_with_colons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The colon counts that has a source on either side; none, and more than one, are an error."""
    monkeypatch.chdir(tmp_path)
    for name in ("with", "without", "x", "y:z"):
        Path(name).mkdir()
    for pair in (
        ("with", "without"),
        ("procedural:10:32", "procedural:10:32:1"),
        ("sound:made:9", "photos"),
        ("hf:a/b:train", "with"),
    ):
        assert split_sources(":".join(pair)) == pair
    assert split_sources("x:y:z") == ("x", "y:z")
    for name in ("x:y", "z"):
        Path(name).mkdir()
    for text, says in (
        ("x:y:z", "may mean x and y:z or x:y and z"),
        ("with:gone", "'gone' does not exist"),
        ("a:b:c", "at none of"),
    ):
        with pytest.raises(ConfigError, match=says):
            split_sources(text)


def test_direction_files(tmp_path: Path) -> None:
    """What is saved is read again; files that are no directions, and other models', are refused."""
    direction = fit_direction(random(10, C, 2, 2), random(10, C, 2, 2, seed=1) + 1)
    vae = linear_free()
    save_direction(tmp_path / "d.safetensors", direction, vae)
    again = load_direction(tmp_path / "d.safetensors", vae)
    assert (
        torch.equal(again.change, direction.change)
        and again.separation == direction.separation
        and again.kind == "mean"
    )
    with pytest.raises(ConfigError, match="exists"):
        save_direction(tmp_path / "d.safetensors", direction, vae)
    other = copy.deepcopy(vae)
    with torch.no_grad():
        other.decoder.conv_out.weight[0, 0, 0, 0] += 0.1
    with pytest.raises(ConfigError, match="same precision"):
        load_direction(tmp_path / "d.safetensors", copy.deepcopy(vae).bfloat16())
    with pytest.raises(ConfigError, match="another model"):  # of the same shape
        load_direction(tmp_path / "d.safetensors", other)
    vw.save(vae, tmp_path / "vae.safetensors")
    with pytest.raises(FormatError, match="holds no direction"):
        load_direction(tmp_path / "vae.safetensors", vae)


def linear_free() -> vw.Autoencoder:
    torch.manual_seed(0)
    return vw.build(CONFIG)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("a - b + c", [(1, "a"), (-1, "b"), (1, "c")]),
        ("- a.png + 0.5*b-2.png", [(-1, "a.png"), (0.5, "b-2.png")]),
        ("'my cat.png' + 2*'x y'", [(1, "my cat.png"), (2, "x y")]),
    ],
)
def test_expressions(text: str, terms: list[tuple[float, str]]) -> None:
    assert parse_expression(text) == terms


@pytest.mark.parametrize("text", ["", "a b", "a +", "+ - a", "a + + b", "'a", "a - b c"])
def test_broken_expressions(text: str) -> None:
    with pytest.raises(ConfigError, match="arithmetic"):
        parse_expression(text)


def test_arithmetic() -> None:
    """a - a + b is b; a + b lies about the common mean, not at twice of it; unlike sizes are refused."""
    a, b = random(C, 3, 4) + 5, random(C, 3, 4, seed=1) + 5
    assert torch.allclose(combined([1, -1, 1], [a, a, b]), b, atol=1e-5)
    both = combined([1, 1], [a, b])
    middle = torch.stack([a, b]).mean((0, 2, 3))
    assert torch.allclose(both.mean((1, 2)), middle, atol=1e-4)
    assert torch.allclose(both - middle[:, None, None], a + b - 2 * middle[:, None, None], atol=1e-4)
    with pytest.raises(ConfigError, match="one size"):
        combined([1, 1], [a, random(C, 3, 3)])


def test_colours_are_pillows() -> None:
    """Contrast and saturation in pixels are ImageEnhance's."""
    image = photo()
    for adjustment, enhancer, factor in (
        (Adjustment(contrast=1.5), ImageEnhance.Contrast, 1.5),
        (Adjustment(saturation=0.3), ImageEnhance.Color, 0.3),
    ):
        theirs = torch.from_numpy(np.asarray(enhancer(to_pillow(image)).enhance(factor)).copy()).permute(2, 0, 1)
        assert (adjusted_pixels(image, adjustment).int() - theirs.int()).abs().max() <= 2
    assert torch.equal(adjusted_pixels(image, Adjustment(brightness=20)), image + 20)
    assert not Adjustment() and Adjustment(contrast=2)
    with pytest.raises(ConfigError, match="no saturation"):
        adjusted_pixels(image[:1], Adjustment(saturation=2))


def test_linear_decoder() -> None:
    """The response of a linear decoder is its matrix; its colours come out as they are asked for."""
    vae = linear()
    codec = vw.Codec(vae)
    image = photo()
    z = encode_picture(codec, image).mean
    linear_one = linear_decoder(codec, z)
    assert torch.allclose(linear_one.response.float(), 127.5 * vae.decoder.weight[:, :, 0, 0].T, atol=1e-3)
    for adjustment in (
        Adjustment(contrast=1.3),
        Adjustment(brightness=-25),
        Adjustment(saturation=0),
        Adjustment(1.2, 10, 1.4),
    ):
        plain = decode_picture(codec, z, 32, 40)
        found = decode_picture(codec, adjusted_latents(codec, z, adjustment), 32, 40)
        assert (
            found.int() - adjusted_pixels(plain, adjustment).int()
        ).abs().max() <= 3  # damped, so 3 % of the way are left
    assert (
        decode_picture(codec, z, 32, 40).int() - adjusted_pixels(image, Adjustment(brightness=-25)).int()
    ).abs().min() > 10


def test_channels() -> None:
    """One channel changes about its mean, in its own deviations."""
    z = random(C, 6, 6) + 2
    found = parse_channel("1:2:0.5", C).applied(z)
    assert torch.equal(found[[0, 2, 3, 4]], z[[0, 2, 3, 4]])
    assert found[1].mean() == pytest.approx(float(z[1].mean() + 0.5 * z[1].std(correction=0)), abs=1e-5)
    assert found[1].std() == pytest.approx(2 * float(z[1].std()), rel=1e-5)
    for text in ("1:2", "x:1:1", f"{C}:1:1", "-1:1:1"):
        with pytest.raises(ConfigError, match="channel"):
            parse_channel(text, C)


def test_statistics() -> None:
    """Means and deviations, or the whole covariance, become the other picture's; one's own change nothing; dead
    channels stay finite."""
    mix = random(C, C, seed=4)
    z, other = random(C, 9, 9), torch.einsum("ij,jhw->ihw", mix, random(C, 7, 8, seed=1)) + 3
    for how in ("channel", "full"):
        found = transferred(z, other, how)  # type: ignore[arg-type]
        assert torch.allclose(found.mean((1, 2)), other.mean((1, 2)), atol=1e-4)
        a, b = (torch.cov(x.flatten(1), correction=0) for x in (found, other))
        assert torch.allclose(*((a, b) if how == "full" else (a.diag(), b.diag())), atol=1e-3)
        assert torch.allclose(transferred(z, z, how), z, atol=1e-3)  # type: ignore[arg-type]
        dead = z.clone()
        dead[2] = 1
        assert transferred(dead, other, how).isfinite().all()  # type: ignore[arg-type]


def test_mask() -> None:
    """Outside of the mask not a bit changes, well inside it is the whole edit, and latents have the share that a mask
    holds."""
    codec = vw.Codec(linear())
    image = photo(30, 37)
    mask = torch.zeros(30, 37, dtype=torch.bool)
    mask[8:24, 6:30] = True
    weights = latent_weights(mask, F)
    assert weights.shape == (8, 10) and weights[2, 1] == 0.5 and weights[3, 3] == 1 and weights[0].sum() == 0
    shift = [lambda z: z + 0.4]
    found = edit_picture(codec, image, shift, mask, detail=False)
    whole = edit_picture(codec, image, shift, detail=False)
    assert torch.equal(found.image[:, ~mask], image[:, ~mask]) and found.outside == 0 < found.inside
    assert torch.equal(found.image[:, 12:20, 12:24], whole.image[:, 12:20, 12:24])
    ramp = composed(
        torch.zeros(1, 9, 30, dtype=torch.uint8),
        torch.full((1, 9, 30), 200, dtype=torch.uint8),
        torch.arange(30).expand(9, 30) >= 10,
        4,
    )
    assert ramp[0, 4, 8:16].tolist() == [0, 0, 50, 100, 150, 200, 200, 200]
    with pytest.raises(ConfigError, match="30 x 30 pixels"):
        edit_picture(codec, image, shift, mask[:, :30])
    with pytest.raises(ConfigError, match="marks nothing"):
        edit_picture(codec, image, shift, torch.zeros_like(mask))


def test_detail() -> None:
    """Without a change the original comes back, which the autoencoder alone would blur."""
    codec = vw.Codec(linear())
    image = (photo().float() + 20 * random(3, 32, 40)).clamp(0, 255).to(torch.uint8)
    assert torch.equal(edit_picture(codec, image, []).image, image)
    assert not torch.equal(edit_picture(codec, image, [], detail=False).image, image)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and two folders of pictures."""
    root = tmp_path_factory.mktemp("edit")
    vw.save(linear_free(), root / "vae.safetensors")
    for name, shift in (("dark", 0), ("light", 60)):
        (root / name).mkdir()
        for i in range(4):
            to_pillow((photo(32, 36 + i).float() + shift).to(torch.uint8)).save(root / name / f"{name[0]}{i}.png")
    mask = np.pad(np.full((8, 8), 255, np.uint8), ((4, 20), (8, 20)))
    for name, factor in (("mask", 1.0), ("ones", 1 / 255), ("black", 0.0)):
        Image.fromarray((mask * factor).round().astype(np.uint8)).save(root / f"{name}.png")
    return root


def run(place: Path, out: Path, *words: object) -> int:
    return main(["edit", *map(str, [place / "vae.safetensors", *words, "--out", out])])


def test_command(place: Path, tmp_path: Path) -> None:
    """A direction from folders, kept and used again at several strengths; colours; a mask."""
    source, kept = f"{place / 'light'}:{place / 'dark'}", tmp_path / "d.safetensors"
    assert (
        run(place, tmp_path / "a", place / "dark", "--direction", source, "--size", 32, "--save-direction", kept) == 0
    )
    assert run(place, tmp_path / "b", place / "dark" / "d0.png", "--direction", kept, "--strength", "1", "-1") == 0
    assert (tmp_path / "a" / "d0.png").read_bytes() == (tmp_path / "b" / "d0-0.png").read_bytes()
    strip = open_image(tmp_path / "b" / "strips" / "d0.png")
    files = (place / "dark" / "d0.png", tmp_path / "b" / "d0-0.png", tmp_path / "b" / "d0-1.png")
    assert all(words_above(strip, box) for box in panels(strip, [open_image(file) for file in files]))
    words = (
        "--contrast",
        "1.2",
        "--channel",
        "0:1:0.5",
        "--statistics-from",
        place / "light" / "l0.png",
        "--mask",
        place / "mask.png",
    )
    assert run(place, tmp_path / "c", place / "dark" / "d0.png", *words) == 0
    (row,) = json.loads((tmp_path / "c" / "edit.json").read_text())["pictures"].values()
    assert row["outside"] == 0 < row["inside"]
    assert run(place, tmp_path / "ones", place / "dark" / "d0.png", *words[:-1], place / "ones.png") == 0
    assert (tmp_path / "ones" / "d0.png").read_bytes() == (tmp_path / "c" / "d0.png").read_bytes()
    assert run(place, tmp_path / "e", place / "dark", "--brightness", "20") == 0
    rows = json.loads((tmp_path / "e" / "edit.json").read_text())["pictures"]
    assert len(rows) == 4 and all("psnr_to_pixels" in row for row in rows.values())


def test_nothing_is_written_over_unasked(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every result is looked for before the work: each strength's picture, and the strips; and no two results share a
    place."""
    picture, words = place / "dark" / "d0.png", ("--direction", f"{place / 'light'}:{place / 'dark'}", "--size", 32)
    for name, more in (("d0-1.png", ("--strength", "1", "2")), ("strips/d0.png", ())):
        out = tmp_path / name.replace("/", "-")
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text("mine")
        assert run(place, out, picture, *words, *more) == 2
        assert f"{name} exists" in capsys.readouterr().err
        assert (out / name).read_text() == "mine" and len([p for p in out.rglob("*") if p.is_file()]) == 1
    (tmp_path / "in" / "strips").mkdir(parents=True)
    for name in ("d0.png", "strips/d0.png"):
        (tmp_path / "in" / name).write_bytes(picture.read_bytes())
    assert run(place, tmp_path / "out", tmp_path / "in", "--contrast", "2") == 2
    assert "two results would become" in capsys.readouterr().err


def test_command_arithmetic(place: Path, tmp_path: Path) -> None:
    """a - a + b decodes to what b decodes to."""
    assert run(place, tmp_path / "a", place / "dark" / "d0.png", "--arithmetic", "d0 - d0 + d0.png") == 0
    assert (
        main(
            [
                "reconstruct",
                str(place / "vae.safetensors"),
                str(place / "dark" / "d0.png"),
                "--out",
                str(tmp_path / "r"),
            ]
        )
        == 0
    )
    ours, theirs = (np.asarray(open_image(tmp_path / name)).astype(int) for name in ("a/arithmetic.png", "r/d0.png"))
    assert np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "nothing is to be changed"),
        (["--direction", "dark"], "must be WITH:WITHOUT"),
        (["--direction", "dark:light", "--save-direction", "d.pt"], "must end in .safetensors"),
        (["--arithmetic", "d0 - x"], "'x' of --arithmetic is none of IN"),
        (["--arithmetic", "d0", "--contrast", "2"], "stands alone"),
        (["--channel", "9:1:1"], "channel 9 does not exist"),
        (["--contrast", "2", "--mask", "MASK"], "d1.png: the mask has 36 x 32 pixels, the picture 37 x 32"),
        (["--contrast", "2", "--mask", "BLACK"], "d0.png: the mask marks nothing"),
        (["--contrast", "2", "--strength", "1", "2"], "several --strength"),
    ],
)
def test_errors(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    """One line, before anything is written."""
    named = [str(place / f"{word.lower()}.png") if word in ("MASK", "BLACK") else word for word in words]
    assert run(place, tmp_path / "out", place / "dark", *named) == 2
    assert says in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(tmp_path.rglob("*.png")) and not list(tmp_path.rglob("*.json"))
