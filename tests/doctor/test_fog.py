"""Fog: planted faults are found and named, sound VAEs are cleared; and which VAE fits a checkpoint."""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.cli.main import main
from vaeworks.config import MODELS, AutoencoderConfig, TinyConfig, dumps
from vaeworks.data import photos
from vaeworks.doctor import Fog, fog, fog_picture, match
from vaeworks.doctor.compatibility import decode as looking
from vaeworks.doctor.compatibility.decode import PHOTOS, read_photos
from vaeworks.doctor.compatibility.verdict import LABELS, LINE
from vaeworks.errors import ConfigError, DataError, FormatError
from vaeworks.formats import native
from vaeworks.formats.fold import fold_to
from vaeworks.formats.io import stored_tensors
from vaeworks.formats.known_vaes import known_vaes
from vaeworks.images import to_pillow
from vaeworks.models.init import linear_init_

TWO = [path for path in photos() if path.stem in ("astronaut", "coffee")]
FIRST_STAGE = "first_stage_model."
SIZE = 128


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Smaller photographs, four times as fast; but for tests of what is measured at the real size."""
    if "sound" not in request.node.name:
        monkeypatch.setattr(looking, "SIZE", SIZE)


def linear(name: str = "small-f8c4", scale: float | None = None, **overrides: int) -> vw.Autoencoder:
    """A VAE that works without training, whose configuration says how its latents are scaled."""
    vae = vw.build(name, **overrides).eval().requires_grad_(False)
    linear_init_(vae, torch.Generator().manual_seed(0))
    measured = 0.85  # 1 / standard deviation of its latents of photographs, about
    vae.config = dataclasses.replace(vae.config, scaling_factor=measured)
    return vae if scale is None else fold_to(vae, scale)


@pytest.fixture(scope="module")
def vae() -> vw.Autoencoder:
    return linear()


def permuted(vae: vw.Autoencoder, halves: tuple[str, ...] = ("encoder", "decoder")) -> vw.Autoencoder:
    """The same shapes and other latents; with one half only, a VAE whose halves do not belong together."""
    other, order = copy.deepcopy(vae), [1, 2, 3, 0]
    with torch.no_grad():
        if "decoder" in halves:
            other.decoder.conv_in.weight.copy_(vae.decoder.conv_in.weight[:, order])
        if "encoder" in halves:
            other.encoder.conv_out.weight[:4] = vae.encoder.conv_out.weight[:4][order]
            other.encoder.conv_out.bias[:4] = vae.encoder.conv_out.bias[:4][order]
    return other


def desaturated(vae: vw.Autoencoder, share: float) -> vw.Autoencoder:
    """A decoder that leaves this share of the colours."""
    mix = share * torch.eye(3) + (1 - share) / 3
    other = copy.deepcopy(vae)
    with torch.no_grad():
        other.decoder.conv_out.weight.copy_(torch.einsum("oc,cikl->oikl", mix, vae.decoder.conv_out.weight))
        other.decoder.conv_out.bias.copy_(mix @ vae.decoder.conv_out.bias)
    return other


def seen(vae: vw.Autoencoder, scale: float = 1.0, **options: bool) -> Fog:
    """The VAE in a checkpoint under which its latents are `scale` times what they should be."""
    return fog(None, vae, vae.config.scaling_factor / scale, vae.config.shift_factor, TWO, **options)


# Sound ones are cleared


@pytest.mark.parametrize("name", ["small-f8c4", "small-f8c16"])
def test_a_sound_vae_is_clear(name: str) -> None:
    found = fog(None, linear(name), linear(name).config.scaling_factor)
    assert found.verdict == "clear" and found.sentence.startswith("clear")
    assert (
        found.scale == pytest.approx(1, abs=1e-4)
        and found.shift == pytest.approx(0, abs=1e-4)
        and found.correlation is None
    )
    assert (found.contrast, found.saturation, found.psnr) == (
        found.fitting_contrast,
        found.fitting_saturation,
        found.fitting_psnr,
    )
    assert 0.8 < found.contrast < 1.05 and 0.8 < found.saturation < 1.05
    assert 0.6 < found.latents_std < 1.5


def test_a_sound_vae_is_clear_beside_itself_and_in_half_precision(vae: vw.Autoencoder) -> None:
    found = fog(vae, copy.deepcopy(vae).half(), vae.config.scaling_factor, images=TWO)
    assert found.verdict == "clear" and found.correlation == pytest.approx(1, abs=1e-3)


def test_a_gray_vae_has_no_colours_to_lose() -> None:
    gray = linear(in_channels=1, out_channels=1)
    found = seen(gray)
    assert found.verdict == "clear" and found.saturation == 1
    assert seen(gray, 0.5).verdict == "wrong scale"


@pytest.mark.parametrize("scale", [0.92, 1.08])
def test_what_nobody_sees_is_clear(vae: vw.Autoencoder, scale: float) -> None:
    assert seen(vae, scale).verdict == "clear"


def test_the_small_decoder_of_flux2_is_clear(test_data: Path) -> None:
    taef2 = vw.load(test_data / "weights" / "taef2")
    found = fog(None, taef2, None)
    assert found.verdict == "clear" and found.psnr > 26
    assert fog(taef2, taef2, None, images=TWO).verdict == "clear"


# Planted faults are found


@pytest.mark.parametrize("scale", [0.5, 0.13025 / 0.18215, 0.18215 / 0.13025, 2.0])
def test_a_wrong_scale_is_found_and_measured(vae: vw.Autoencoder, scale: float) -> None:
    """Down to the difference of SD 1 and SDXL. Under a wrong constant the latents' spread is off by the same factor."""
    found, right = seen(vae, scale), seen(vae)
    assert found.verdict == "wrong scale"
    assert found.scale == pytest.approx(scale, rel=1e-3)
    assert found.latents_std == pytest.approx(right.latents_std / scale, rel=1e-3)
    assert found.sentence.startswith("foggy" if scale < 1 else "harsh")
    assert (
        f"{vae.config.scaling_factor:.5g}" in found.sentence
        and f"{vae.config.scaling_factor / scale:.5g}" in found.sentence
    )
    if scale < 1:  # a linear decoder: contrast is lost in proportion, black is gray, and white is too
        assert found.contrast == pytest.approx(scale * found.fitting_contrast, rel=0.03)
        assert found.black > right.black + 5 and found.white < right.white - 5
    else:
        assert found.contrast > found.fitting_contrast


@pytest.mark.parametrize("scale", [0.25, 0.4, 3.0])
def test_a_scale_that_nobody_knows_is_judged_by_the_spread(vae: vw.Autoencoder, scale: float) -> None:
    found = seen(vae, scale, known=False)
    assert found.verdict == "wrong scale"
    assert found.scale == pytest.approx(scale / seen(vae).latents_std, rel=0.01)
    assert "asks for a scaling_factor of about" in found.sentence
    cleared = seen(vae, known=False)
    assert cleared.verdict == "clear" and "if the scale is right" in cleared.sentence


def test_a_wrong_shift_is_found(vae: vw.Autoencoder) -> None:
    found = fog(None, vae, vae.config.scaling_factor, vae.config.shift_factor + 1.5, TWO)
    assert found.verdict == "wrong scale" and found.shift > 0.5 and found.scale == pytest.approx(1, abs=1e-3)
    assert "away from what this VAE expects" in found.sentence


def test_another_vae_of_the_same_shape_is_found(vae: vw.Autoencoder) -> None:
    """By itself it is a sound VAE; only beside the checkpoint's own can it be told, and what is the matter with it."""
    other = permuted(vae)
    assert seen(other).verdict == "clear"
    found = fog(vae, other, vae.config.scaling_factor, images=TWO)
    assert found.verdict == "mixed channels" and abs(found.correlation or 0) < 0.6
    assert max(found.psnr, found.mended_psnr) < found.fitting_psnr - 5
    assert "channels 0, 1, 2 and 3 have changed places" in found.sentence


def changed(vae: vw.Autoencoder, matrix: torch.Tensor) -> vw.Autoencoder:
    """The same VAE with latents M z in place of z; matrix: M, orthogonal."""
    other, c = copy.deepcopy(vae), len(matrix)
    with torch.no_grad():
        conv, out = other.decoder.conv_in, other.encoder.conv_out
        if isinstance(other.quant_conv, torch.nn.Conv2d):
            out, conv = other.quant_conv, other.post_quant_conv
        conv.weight.copy_(torch.einsum("oihw,ji->ojhw", conv.weight, matrix))
        out.weight[:c] = torch.einsum("ji,iohw->johw", matrix, out.weight[:c].clone())
        out.bias[:c] = matrix @ out.bias[:c].clone()
    return other


def _swap(*pairs: tuple[int, int]) -> torch.Tensor:
    matrix = torch.eye(4)
    for i, j in pairs:
        matrix[[i, j]] = matrix[[j, i]]
    return matrix


MIXED = {
    "two channels": (_swap((0, 1)), "channels 0 and 1 have changed places"),
    "two others": (_swap((2, 3)), "channels 2 and 3 have changed places"),
    "two pairs": (_swap((0, 3), (1, 2)), "channels 0, 1, 2 and 3 have changed places"),
    "one sign": (torch.diag(torch.tensor([1.0, 1, -1, 1])), "the signs of channels 2 are turned"),
    "all signs": (-torch.eye(4), "the signs of channels 0, 1, 2 and 3 are turned"),
    "both": (_swap((0, 1)) @ torch.diag(torch.tensor([1.0, 1, 1, -1])), "places and the signs of channels 3"),
    "rotation": (torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0], "mixed with each"),
}


@pytest.mark.parametrize("way", MIXED)
def test_mixed_channels_are_no_wrong_scale(vae: vw.Autoencoder, way: str) -> None:
    """A fold would not mend them: what is prescribed is tried first."""
    matrix, said = MIXED[way]
    other = changed(vae, matrix)
    assert torch.allclose(
        other.encode(IMAGE).mode(), torch.einsum("ji,nihw->njhw", matrix, vae.encode(IMAGE).mode()), atol=1e-4
    )
    assert seen(other).verdict == "clear"
    found = fog(vae, other, vae.config.scaling_factor, images=TWO)
    if found.verdict == "clear":  # a channel that the decoder hardly uses
        assert found.psnr >= found.fitting_psnr - 3
        return
    assert found.verdict == "mixed channels" and said in found.sentence
    assert found.scale == pytest.approx(1, abs=0.05), "the latents are as large as they should be"
    assert found.mended_psnr < found.fitting_psnr - 3


IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_the_same_vae_at_another_scale_is_no_other_vae(vae: vw.Autoencoder, scale: float) -> None:
    """What users see who take a VAE with latents of another scale: its decoder expects 1 / scale times the latents."""
    own = vae.config.scaling_factor
    found = fog(vae, fold_to(vae, own * scale), own, images=TWO)
    assert found.verdict == "wrong scale" and found.correlation == pytest.approx(1, abs=1e-4)
    assert found.mended_psnr == pytest.approx(found.fitting_psnr, abs=0.05), "the cure was tried"
    assert found.scale == pytest.approx(scale, rel=1e-3)
    folded_back = fold_to(fold_to(vae, own * scale), own)
    assert fog(vae, folded_back, own, images=TWO).verdict == "clear"
    moved = fold_to(vae, own, 1.5)
    found = fog(moved, moved, own, 1.5, TWO)
    assert found.verdict == "clear" and found.shift == pytest.approx(0, abs=1e-4)


def test_a_decoder_without_colours_is_found(vae: vw.Autoencoder) -> None:
    faded = desaturated(vae, 0.3)
    for reference in (None, vae):
        found = fog(reference, faded, vae.config.scaling_factor, images=TWO)
        assert found.verdict == "broken" and "fades" in found.sentence
        assert found.saturation == pytest.approx(0.3 * seen(vae).saturation, rel=0.15)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_halves_of_two_vaes_are_found(vae: vw.Autoencoder, half: str) -> None:
    found = seen(permuted(vae, (half,)))
    assert found.verdict == "broken" and "do not belong together" in found.sentence


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_decoder_that_makes_nothing_is_found(vae: vw.Autoencoder, value: float) -> None:
    dead = copy.deepcopy(vae)
    nn.init.constant_(dead.decoder.norm_out.weight, value)
    found = seen(dead)
    assert found.verdict == "broken" and "flat" in found.sentence
    assert json.loads(dumps(found.to_dict()))["verdict"] == "broken"


def test_fog_refuses(vae: vw.Autoencoder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"f8c16.*f8c4"):
        fog(linear("small-f8c16"), vae, 1.0, images=TWO)
    with pytest.raises(DataError, match="images is empty"):
        fog(None, vae, 1.0, images=[])
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(DataError, match=r"a\.png: not an image"):
        fog(None, vae, 1.0, images=[tmp_path / "a.png"])


def test_photographs_become_squares_that_the_vae_takes(vae: vw.Autoencoder) -> None:
    assert [p.shape for p in read_photos(vae)] == [(3, SIZE, SIZE)] * len(PHOTOS)
    odd = copy.copy(vae)
    odd.config = dataclasses.replace(vae.config, latents_patch=3)
    assert read_photos(odd, TWO)[0].shape == (3, 120, 120)


def test_the_same_vae_at_a_scale_that_its_file_does_not_say(vae: vw.Autoencoder) -> None:
    """Where the checkpoint's own VAE has another scale than the checkpoint, the file of a folded copy does not lead to
    the right pictures: what was tried is named, and that the latents are the same."""
    found = fog(vae, fold_to(vae, 0.3), 0.18215, images=TWO)
    assert found.verdict == "wrong VAE" and found.correlation == pytest.approx(1.0, abs=1e-3)
    factor = f"{1 / found.scale:.2g}"
    assert f"are those that the checkpoint was trained on, {factor} times as large, which the scale in its" in (
        found.sentence
    )
    assert "the scale that its file states brings" in found.sentence and "best scale" not in found.sentence


# The picture


def test_the_picture_shows_all_three(vae: vw.Autoencoder) -> None:
    """Row by row: the photograph, decoded with what fits, decoded as it would be, between labels and the verdict."""
    own = vae.config.scaling_factor
    picture = fog_picture(None, vae, own * 2, images=TWO)
    assert picture.width == 3 * SIZE + 8 and picture.height >= LINE + 2 * SIZE + 4 + LINE
    column = [picture.crop((i * (SIZE + 4), LINE, i * (SIZE + 4) + SIZE, LINE + SIZE)) for i in range(3)]
    assert column[0].tobytes() == to_pillow(read_photos(vae, TWO)[0]).tobytes()
    spread = [torch.frombuffer(bytearray(c.tobytes()), dtype=torch.uint8).float().std().item() for c in column]
    assert spread[2] < 0.6 * spread[1]
    for i in range(len(LABELS)):
        label = picture.crop((i * (SIZE + 4), 0, i * (SIZE + 4) + SIZE, LINE)).convert("L")
        assert label.getextrema()[0] < 100
    below = picture.crop((0, LINE + 2 * SIZE + 4, picture.width, picture.height)).convert("L")
    assert below.getextrema()[0] < 100
    right = below.crop((below.width - 4, 0, below.width, below.height))
    assert right.getextrema() == (255, 255)  # lines are broken before the edge


# Which VAE fits a checkpoint


def denoiser() -> dict[str, Tensor]:
    """As little of SD 1 as tells that it is."""
    unet = "model.diffusion_model."
    return {
        unet + "input_blocks.0.0.weight": torch.zeros(8, 4, 3, 3),
        unet + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(8, 768),
        unet + "out.2.weight": torch.zeros(4, 8, 3, 3),
    }


def checkpoint(
    path: Path, vae: vw.Autoencoder | None = None, edit: dict[str, Tensor] | None = None, drop: str = ""
) -> Path:
    """An SD 1 checkpoint with this VAE, of which tensors are replaced, and one is left out."""
    inside = {} if vae is None else stored_tensors(vae, "ldm") | (edit or {})
    tensors = {FIRST_STAGE + name: t.contiguous() for name, t in inside.items() if name != drop}
    save_file(denoiser() | tensors, path, metadata={} if vae is None else native.config_metadata(vae.config))
    return path


def file_of(path: Path, vae: vw.Autoencoder, told: bool = True) -> Path:
    save_file(
        stored_tensors(vae, "ldm"), path, metadata=native.config_metadata(vae.config) if told else {"format": "pt"}
    )
    return path


SD = MODELS["sd1"].scaling_factor


@pytest.fixture(scope="module")
def sd_vae() -> vw.Autoencoder:
    return linear(scale=SD)


def test_a_candidate_whose_images_are_no_pictures_is_judged_with_the_others(
    tmp_path: Path, vae: vw.Autoencoder, sd_vae: vw.Autoencoder
) -> None:
    """An RGBA decoder cannot decode photographs; it has its line, and the others their verdicts."""
    full = checkpoint(tmp_path / "full.safetensors", sd_vae)
    same = file_of(tmp_path / "same.safetensors", sd_vae)
    rgba = file_of(tmp_path / "rgba.safetensors", vw.build(dataclasses.replace(vae.config, out_channels=4)))
    found = match(full, [rgba, same], TWO)
    assert [candidate.verdict for candidate in found.candidates] == ["does not fit", "fits"]
    assert found.candidates[0].reasons[0].startswith("it takes images of 3 channels and gives images of 4 channels")
    inside = match(checkpoint(tmp_path / "inside.safetensors", vw.load(rgba)), (), TWO)
    assert inside.baked.state == "broken" and "gives images of 4 channels" in inside.baked.reasons[0]


def test_a_sound_checkpoint_and_its_candidates(tmp_path: Path, vae: vw.Autoencoder, sd_vae: vw.Autoencoder) -> None:
    full = checkpoint(tmp_path / "full.safetensors", sd_vae)
    files = {
        "same": file_of(tmp_path / "same.safetensors", sd_vae),
        "xl": file_of(tmp_path / "xl.safetensors", linear(scale=0.13025)),
        "other": file_of(tmp_path / "other.safetensors", fold_to(permuted(vae), SD)),
        "deep": file_of(tmp_path / "deep.safetensors", linear("small-f8c16")),
        "junk": tmp_path / "junk.safetensors",
    }
    files["junk"].write_bytes(b"junk")
    found = match(full, list(files.values()), TWO)
    assert found.family == "SD 1" and (found.latent_channels, found.downsample_factor) == (4, 8)
    assert (found.scaling_factor, found.shift_factor) == (SD, 0)
    assert found.baked.state == "fine"
    verdicts = dict(zip(files, (c.verdict for c in found.candidates), strict=True))
    assert verdicts == {
        "same": "fits",
        "xl": "fits after fold",
        "other": "does not fit",
        "deep": "does not fit",
        "junk": "does not fit",
    }
    told = dict(zip(files, found.candidates, strict=True))
    assert told["xl"].fog is not None and told["xl"].fog.scale == pytest.approx(0.13025 / SD, rel=1e-3)
    assert told["xl"].scaling_factor == 0.13025
    assert "mixed channels" in told["other"].reasons[0] and "latent_channels 4" in told["deep"].reasons[0]
    sentences = found.sentences()
    assert len(sentences) == 2 + len(files) and all("\n" not in s for s in sentences)
    assert "0.18215" in sentences[0] and "fine" in sentences[1]
    assert json.loads(dumps(found.to_dict()))["candidates"][1]["verdict"] == "fits after fold"
    assert isinstance(found.picture, Image.Image) and found.picture.height > 3 * 2 * 128


def test_files_alone_tell_less(tmp_path: Path, vae: vw.Autoencoder, sd_vae: vw.Autoencoder) -> None:
    """Without a look, the weights decide: those of the checkpoint's own VAE fit, and nothing can be told of others."""
    full = checkpoint(tmp_path / "full.safetensors", sd_vae)
    other = file_of(tmp_path / "other.safetensors", fold_to(permuted(vae), SD))
    xl = file_of(tmp_path / "xl.safetensors", linear(scale=0.13025))
    untold = file_of(tmp_path / "untold.safetensors", sd_vae, told=False)
    tiny = tmp_path / "tiny.safetensors"
    vw.save(vw.build(TinyConfig()), tiny, "taesd")
    found = match(full, [other, xl, untold, tiny], ())
    assert [c.verdict for c in found.candidates] == ["cannot tell", "cannot tell", "fits", "cannot tell"]
    assert found.picture is None and all(c.fog is None for c in found.candidates)
    assert (
        "does not say how they are scaled" in found.candidates[2].reasons[0]
        and found.candidates[2].scaling_factor is None
    )
    assert any("TAESD" in reason for reason in found.candidates[3].reasons)


def test_a_missing_vae(tmp_path: Path, sd_vae: vw.Autoencoder) -> None:
    """Then nothing tells the right VAE from any other of its shape."""
    found = match(
        checkpoint(tmp_path / "full.safetensors"),
        [file_of(tmp_path / "a.safetensors", sd_vae), file_of(tmp_path / "xl.safetensors", linear(scale=0.13025))],
        TWO,
    )
    assert found.baked.state == "missing" and FIRST_STAGE in found.baked.reasons[0]
    assert [c.verdict for c in found.candidates] == ["cannot tell", "cannot tell"]
    assert all("there is nothing to compare with" in " ".join(c.reasons) for c in found.candidates)
    assert any("if the checkpoint was trained with it" in reason for reason in found.candidates[1].reasons)
    assert found.candidates[1].fog is not None and found.candidates[1].fog.verdict == "wrong scale"


def test_an_incomplete_vae(tmp_path: Path, sd_vae: vw.Autoencoder) -> None:
    found = match(checkpoint(tmp_path / "full.safetensors", sd_vae, drop="decoder.conv_out.bias"), (), TWO)
    assert found.baked.state == "incomplete" and "decoder.conv_out.bias" in found.baked.reasons[0]
    assert found.picture is None


def test_broken_tensors_are_named(tmp_path: Path, sd_vae: vw.Autoencoder) -> None:
    name = "encoder.conv_in.weight"
    bad = stored_tensors(sd_vae, "ldm")[name].clone()
    bad[0, 0, 0, 0] = float("nan")
    found = match(checkpoint(tmp_path / "nan.safetensors", sd_vae, {name: bad}), (), TWO)
    assert found.baked.state == "broken" and FIRST_STAGE + name in found.baked.reasons[0]
    found = match(checkpoint(tmp_path / "zero.safetensors", sd_vae, {name: torch.zeros_like(bad)}), (), TWO)
    assert found.baked.state == "broken" and "download it again" in found.baked.reasons[0]
    assert any("only zeros" in reason and name in reason for reason in found.baked.reasons)


def test_a_vae_of_another_shape_inside(tmp_path: Path) -> None:
    found = match(checkpoint(tmp_path / "full.safetensors", linear("small-f8c16")), (), ())
    assert found.baked.state == "broken" and "latent_channels 4" in found.baked.reasons[0]


def test_match_takes_images_of_a_folder(
    tmp_path: Path, sd_vae: vw.Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most a few of them, from all over it."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(20):
        Image.new("RGB", (16, 16), (12 * i, 0, 0)).save(folder / f"{i:02}.png")
    taken: list[list[Path]] = []

    def stop(*arguments: object, **options: object) -> None:
        taken.append(list(arguments[3]))  # type: ignore[call-overload]
        raise DataError("enough")

    monkeypatch.setattr(sys.modules["vaeworks.doctor.compatibility.match"], "look", stop)
    with pytest.raises(DataError, match="enough"):
        match(checkpoint(tmp_path / "full.safetensors", sd_vae), (), folder)
    assert [path.stem for path in taken[0]] == ["00", "03", "06", "09", "12", "15", "18"]


def test_match_refuses(tmp_path: Path, sd_vae: vw.Autoencoder) -> None:
    with pytest.raises(FormatError, match="a VAE by itself"):
        match(file_of(tmp_path / "vae.safetensors", sd_vae))
    with pytest.raises(FormatError, match="does not exist"):
        match(tmp_path / "none.safetensors")


def test_small_configurations_are_of_the_family() -> None:
    """What these tests stand on: the linear VAE has SD 1's f and c."""
    assert isinstance(linear().config, AutoencoderConfig) and linear().config.name == MODELS["sd1"].name == "f8c4"


def test_a_folder_of_vaes_is_ranked(
    tmp_path: Path, vae: vw.Autoencoder, sd_vae: vw.Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which VAE is for my checkpoint? The best first; files that are none are named, and remembered names are told."""
    monkeypatch.setenv("VAEWORKS_CONFIG", str(tmp_path / "config"))
    full = checkpoint(tmp_path / "full.safetensors", sd_vae)
    folder = tmp_path / "vaes"
    (folder / "sub").mkdir(parents=True)
    file_of(folder / "a-xl.safetensors", linear(scale=0.13025))
    file_of(folder / "sub" / "z-same.safetensors", sd_vae)
    vw.save(linear("small-f8c16"), folder / "deep", layout="diffusers")
    (folder / "junk.safetensors").write_bytes(b"junk")
    (folder / "readme.txt").write_text("no model")
    assert vw.inspect(folder / "sub" / "z-same.safetensors", name="the right one").known_as == "the right one"
    found = match(full, [folder], TWO)
    names = [Path(candidate.path).name for candidate in found.candidates]
    assert names[:2] == ["z-same.safetensors", "a-xl.safetensors"] and set(names[2:]) == {"deep", "junk.safetensors"}
    assert [c.verdict for c in found.candidates] == ["fits", "fits after fold", "does not fit", "does not fit"]
    assert found.candidates[0].known_as == "the right one" and "(the right one): fits" in found.sentences()[2]
    beside = match(full, [tmp_path], TWO)
    assert len(beside.candidates) == 4 and not any("full" in c.path for c in beside.candidates)  # it is no candidate
    (tmp_path / "empty").mkdir()
    with pytest.raises(vw.ConfigError, match="a folder without a model file"):
        match(full, [tmp_path / "empty"], TWO)


def test_names_of_vaes(tmp_path: Path, sd_vae: vw.Autoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal weights have one name, in any layout and container; one name is of one VAE."""
    monkeypatch.setenv("VAEWORKS_CONFIG", str(tmp_path / "config"))
    path = file_of(tmp_path / "a.safetensors", sd_vae)
    vw.save(sd_vae, tmp_path / "folder", layout="diffusers")
    other = file_of(tmp_path / "other.safetensors", linear(scale=0.13025))
    assert main(["inspect", str(path), "--remember", "mine", "--json"]) == 0
    assert vw.inspect(tmp_path / "folder").known_as == "mine" and vw.inspect(other).known_as is None
    assert dict(vw.inspect(path).rows())["known as"] == "mine"
    with pytest.raises(vw.ConfigError, match="'mine' is the name of another VAE"):
        vw.inspect(other, name="mine")
    with pytest.raises(vw.ConfigError, match="name them one by one"):
        vw.inspect(path, other, name="both")
    vw.inspect(path, name="yours")
    assert list(known_vaes().values()) == ["yours"]
