"""A VAE of ours inside the pipelines of SD, SDXL, SD3 and Flux: it is the one that paints, and what cannot be right is
refused."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import diffusers
import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.config import AutoencoderConfig
from vaeworks.images import from_model_range, to_pillow
from vaeworks.pipelines.stable_diffusion import inject, load_pipeline, paint
from vaeworks.pipelines.tiny import TINY

LEVELS = {2: (1, 2), 4: (1, 1, 2), 8: (1, 1, 2, 2), 16: (1, 1, 1, 2, 2)}
KINDS = sorted(TINY.keys() - {"tiny-flux2"})  # which has its own kind of VAE: tests/formats/test_flux2.py
CASES = [(kind, c) for kind in KINDS for c in (4, 16)]
PHOTO = Image.effect_mandelbrot((96, 80), (-2.0, -1.2, 1.0, 1.2), 60).convert("RGB")


def random_vae(c: int, f: int = 8, seed: int = 0, **options: object) -> vw.Autoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = AutoencoderConfig(
            channels=16, channel_mult=LEVELS[f], num_res_blocks=1, norm_groups=8, latent_channels=c, **options
        )  # type: ignore[arg-type]
        return vw.build(config).requires_grad_(False).eval()


def tiny(kind: str, vae: vw.Autoencoder, dtype: torch.dtype = torch.float32) -> diffusers.DiffusionPipeline:
    return load_pipeline(kind, vae, "cpu", dtype)


def aligned(pipe: diffusers.DiffusionPipeline) -> diffusers.DiffusionPipeline:
    """With weights at addresses as PyTorch chooses them. In a mapped file they lie elsewhere, and sums round
    otherwise."""
    for part in pipe.components.values():
        for p in part.parameters() if isinstance(part, nn.Module) else ():
            p.data = p.data.clone()
    return pipe


def load(path: Path | str, vae: vw.Autoencoder) -> diffusers.DiffusionPipeline:
    return aligned(load_pipeline(str(path), vae, "cpu", torch.float32))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def same(a: Image.Image, b: Image.Image) -> bool:
    return np.array_equal(pixels(a), pixels(b))


@contextmanager
def refused(kind: type[Exception], *parts: str) -> Iterator[None]:
    """An error of this kind, in one line, that names these things."""
    with pytest.raises(kind) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


# What is painted


@pytest.mark.parametrize("image", [None, PHOTO], ids=["txt2img", "img2img"])
@pytest.mark.parametrize(("kind", "c"), CASES)
def test_paints(kind: str, c: int, image: Image.Image | None) -> None:
    vae = random_vae(c)
    pipe = tiny(kind, vae)
    assert type(pipe.vae) is diffusers.AutoencoderKL
    picture = paint(pipe, "a cat", image=image, size=(64, 48), steps=3)
    assert (picture.mode, picture.size) == ("RGB", (48, 64))
    assert pixels(picture).std() > 1
    assert same(picture, paint(pipe, "a cat", image=image, size=(64, 48), steps=3))
    assert same(picture, paint(tiny(kind, vae), "a cat", image=image, size=(64, 48), steps=3))
    for other in (
        paint(pipe, "a cat", image=image, size=(64, 48), steps=3, seed=1),
        paint(pipe, "two dogs in the snow", image=image, size=(64, 48), steps=3),
        paint(tiny(kind, random_vae(c, seed=1)), "a cat", image=image, size=(64, 48), steps=3),
    ):
        assert not same(picture, other)


@pytest.mark.parametrize("kind", KINDS)
def test_strength_says_how_much_of_the_image_is_kept(kind: str) -> None:
    """With few steps done over, the picture is about the VAE's own reconstruction of the image."""
    vae = random_vae(4, quant_conv=False)
    vae.encoder.conv_out.weight[4:] = 0
    vae.encoder.conv_out.bias[4:] = -20  # log-variance
    photo = PHOTO.resize((64, 64))
    x = torch.from_numpy(pixels(photo)).permute(2, 0, 1)[None] / 127.5 - 1
    z = vae.encode(x).mode()
    scaled = copy.deepcopy(vae)
    scaled.config = dataclasses.replace(vae.config, scaling_factor=float(1 / z.std()), shift_factor=float(z.mean()))
    recon = pixels(to_pillow(from_model_range(scaled.reconstruct(x))[0]))
    pipe = tiny(kind, scaled)
    little, much = (pixels(paint(pipe, "a cat", image=photo, steps=50, strength=s, guidance=1)) for s in (0.02, 1.0))
    assert abs(little - recon).mean() < 0.5 * abs(much - recon).mean()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("f", [2, 4, 16])
def test_size_is_the_one_asked_for_at_any_f(kind: str, f: int) -> None:
    pipe = tiny(kind, random_vae(4, f))
    assert paint(pipe, "a cat", steps=1).size == (64, 64)
    assert paint(pipe, "a cat", size=(96, 32), steps=1).size == (32, 96)
    assert paint(pipe, "a cat", image=PHOTO, size=(96, 32), steps=2).size == (32, 96)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_without_a_size_keeps_its_pixels(kind: str) -> None:
    pipe = tiny(kind, random_vae(4))
    assert paint(pipe, "a cat", image=PHOTO.resize((70, 85)), steps=2).size == (64, 80)
    assert same(
        paint(pipe, "a cat", image=PHOTO.crop((16, 0, 80, 80)), steps=2),
        paint(pipe, "a cat", image=PHOTO.crop((14, 0, 82, 80)), steps=2),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_gray_images(kind: str) -> None:
    pipe = tiny(kind, random_vae(4, in_channels=1, out_channels=1))
    assert paint(pipe, "a cat", steps=1).mode == "L"
    assert paint(pipe, "a cat", image=PHOTO, size=64, steps=2).mode == "L"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_near(kind: str, dtype: torch.dtype) -> None:
    """SDXL in float16 goes back to float32 for its VAE, and asks post_quant_conv, which this one lacks, for the
    dtype."""
    vae = random_vae(4, quant_conv=False, post_quant_conv=False)
    exact = pixels(paint(tiny(kind, vae), "a cat", image=PHOTO, steps=2, guidance=1))
    near = pixels(paint(tiny(kind, vae, dtype), "a cat", image=PHOTO, steps=2, guidance=1))
    assert abs(near - exact).mean() < 3


def test_any_prompt_is_text() -> None:
    pipe = tiny("tiny", random_vae(4))
    assert not same(paint(pipe, "", steps=1), paint(pipe, "un café, 猫", steps=1))


def test_a_pipeline_that_starts_from_images_can_start_from_noise() -> None:
    pipe = tiny("tiny", random_vae(4))
    other = diffusers.AutoPipelineForImage2Image.from_pipe(pipe)
    assert same(paint(pipe, "a cat", steps=2), paint(other, "a cat", steps=2))
    assert same(paint(pipe, "a cat", image=PHOTO, steps=2), paint(other, "a cat", image=PHOTO, steps=2))


def test_nothing_on_stdout_and_no_bar_off_terminals(capfd: pytest.CaptureFixture[str]) -> None:
    pipe = tiny("tiny", random_vae(4))
    pipe.set_progress_bar_config(desc="painting")
    capfd.readouterr()
    paint(pipe, "a cat", steps=2)
    paint(pipe, "a cat", image=PHOTO, steps=2)
    assert capfd.readouterr() == ("", "")
    assert pipe._progress_bar_config == {"desc": "painting"}


# The normalization of the latents

NORMALIZATIONS: dict[str, dict[str, object]] = {
    "scale": {"scaling_factor": 0.4},
    "shift": {"scaling_factor": 1.5, "shift_factor": 0.7},
    "channel": {
        "normalization": "channel",
        "latents_mean": (0.5, -1.0, 2.0, 0.1),
        "latents_std": (0.5, 2.0, 1.0, 1.5),
        "scaling_factor": 0.8,
        "shift_factor": 9.0,  # not looked at
    },
}
CONVOLUTIONS = {"quant": {}, "plain": {"quant_conv": False, "post_quant_conv": False}}


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize("convolutions", CONVOLUTIONS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_pipelines_normalize_as_the_vae_says(kind: str, normalization: str, convolutions: str) -> None:
    """Whatever scale, shift and channel statistics the VAE has, and whichever of them the pipeline looks at."""
    vae = random_vae(4, **NORMALIZATIONS[normalization], **CONVOLUTIONS[convolutions])
    scramble_outermost_(vae)
    pipe = tiny(kind, vae)
    z = pipe(
        "a cat",
        height=64,
        width=48,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).images
    if kind == "tiny-flux":
        z = pipe._unpack_latents(z, 64, 48, pipe.vae_scale_factor)
    expected = pixels(to_pillow(from_model_range(vae.decode(vae.denormalize(z)))[0]))
    painted = pixels(paint(pipe, "a cat", size=(64, 48), steps=2, guidance=pipe._guidance_scale))
    assert expected.std() > 1
    assert abs(painted - expected).max() <= 1

    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    theirs, ours = pipe.vae.encode(x).latent_dist, vae.encode(x)
    applied = kind in ("tiny-sd3", "tiny-flux")
    shift, scale = pipe.vae.config.shift_factor if applied else 0.0, pipe.vae.config.scaling_factor
    assert pipe.vae.config.latents_mean is None
    torch.testing.assert_close((theirs.mean - shift) * scale, vae.normalize(ours.mean), rtol=1e-4, atol=1e-4)
    spread = vae.normalize(ours.mean + ours.std) - vae.normalize(ours.mean)
    torch.testing.assert_close(theirs.std * scale, spread, rtol=1e-3, atol=1e-4)


def scramble_outermost_(vae: vw.Autoencoder) -> None:
    """Biases at the latents that are not zero, so that a wrong order of shift and convolution would show."""
    generator = torch.Generator().manual_seed(2)
    for module in (vae.quant_conv, vae.post_quant_conv, vae.encoder.conv_out, vae.decoder.conv_in):
        if isinstance(module, nn.Conv2d):
            assert module.bias is not None
            module.bias.copy_(torch.randn(module.bias.shape, generator=generator))


def test_published_constants_stay_where_the_pipeline_applies_them() -> None:
    options = {"scaling_factor": 0.3611, "shift_factor": 0.1159, "quant_conv": False, "post_quant_conv": False}
    for kind in ("tiny-sd3", "tiny-flux"):
        config = tiny(kind, random_vae(4, **options)).vae.config
        assert (config.scaling_factor, config.shift_factor, config.use_post_quant_conv) == (0.3611, 0.1159, False)


def test_the_vae_itself_stays_as_it_is() -> None:
    vae = random_vae(4, shift_factor=0.5, post_quant_conv=False)
    before, config = {name: t.clone() for name, t in vae.state_dict().items()}, vae.config
    tiny("tiny", vae)
    assert vae.config == config
    assert before.keys() == vae.state_dict().keys()
    assert all(torch.equal(t, vae.state_dict()[name]) for name, t in before.items())


@pytest.mark.parametrize("kind", KINDS)
def test_neither_follows_nor_changes_the_random_state(kind: str) -> None:
    vae = random_vae(4, shift_factor=0.5, post_quant_conv=False)
    pictures = []
    with torch.random.fork_rng(devices=[]):
        for seed in (1, 2):
            state: Tensor = torch.manual_seed(seed).get_state()
            pictures.append(paint(tiny(kind, vae), "a cat", steps=1))
            assert torch.equal(state, torch.get_rng_state())
    assert same(*pictures)


# Stored pipelines


@pytest.mark.parametrize("kind", KINDS)
def test_saved_pipelines_paint_the_same(kind: str, tmp_path: Path) -> None:
    """diffusers loads what diffusers saved, without vaeworks; we load it with a VAE in place of its own."""
    vae = random_vae(4, scaling_factor=0.7, shift_factor=0.3)
    pipe = tiny(kind, vae)
    pipe.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "vae" / "config.json").read_text())["_class_name"] == "AutoencoderKL"
    theirs = aligned(diffusers.DiffusionPipeline.from_pretrained(tmp_path, local_files_only=True))
    painted = paint(pipe, "a cat", size=64, steps=2)
    assert same(painted, paint(theirs, "a cat", size=64, steps=2))

    for file in (tmp_path / "vae").glob("*.safetensors"):
        file.unlink()  # never looked at
    assert same(painted, paint(load(tmp_path, vae), "a cat", size=64, steps=2))
    other = random_vae(4, seed=1)
    swapped = load(tmp_path, other)
    assert same(paint(tiny(kind, other), "a cat", size=64, steps=2), paint(swapped, "a cat", size=64, steps=2))
    for wrong, parts in (
        (random_vae(16), ("4 channels (f8c4)", "16 (f8c16)")),
        (random_vae(4, f=4), ("1/8", "1/4", "f8c4")),
    ):
        with refused(vw.ConfigError, *parts):
            load(tmp_path, wrong)


def test_hub_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the cache of an earlier download, in which the pipeline's own VAE has no weights."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    vae, repository = random_vae(4), tmp_path / "models--org--name"
    pipe = tiny("tiny", vae)
    pipe.save_pretrained(repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40) / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    for name in ("org/name", "hf:org/name"):
        assert same(paint(pipe, "a cat", steps=1), paint(load(name, vae), "a cat", steps=1))
    with refused(vw.FormatError, "org/other", "HF_HUB_OFFLINE", "tiny-flux"):
        load_pipeline("org/other", vae, "cpu", torch.float32)


def rewrite(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(change((folder / name).read_text())) and None


def cut(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


DAMAGES: dict[str, tuple[Callable[[Path], None], type[Exception], str]] = {
    "no index": (lambda folder: (folder / "model_index.json").unlink(), vw.FormatError, "model_index.json"),
    "index is no JSON": (rewrite("model_index.json", lambda text: text[:-5]), vw.FormatError, "not a valid JSON"),
    "index is a list": (rewrite("model_index.json", lambda text: "[]"), vw.FormatError, "class None"),
    "class of another world": (
        rewrite("model_index.json", lambda text: text.replace("StableDiff", "Stable")),
        vw.FormatError,
        "'StableusionP",
    ),
    "no denoiser": (
        rewrite("model_index.json", lambda text: text.replace('"unet"', '"prior"')),
        vw.FormatError,
        "neither a unet",
    ),
    "no VAE in the class": (
        rewrite("model_index.json", lambda text: text.replace("StableDiffusionP", "DDPMP")),
        vw.ConfigError,
        "DDPMPipeline",
    ),
    "another VAE": (
        rewrite("model_index.json", lambda text: text.replace("KL", "KLWan")),
        vw.ConfigError,
        "AutoencoderKLWan",
    ),
    "torn weights": (cut, vw.FormatError, "unet"),
    "no weights": (lambda folder: shutil.rmtree(folder / "unet"), vw.FormatError, "unet"),
    "weights of another size": (
        rewrite("unet/config.json", lambda text: text.replace("32,", "40,")),
        vw.FormatError,
        "shape",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_folders(damage: str, tmp_path: Path) -> None:
    vae = random_vae(4)
    tiny("tiny", vae).save_pretrained(tmp_path)
    change, error, part = DAMAGES[damage]
    change(tmp_path)
    with refused(error, part):
        load(tmp_path, vae)


@pytest.mark.parametrize("name", ["./nowhere", "a/b/c", "checkpoint.safetensors", "nobody/nothing", "tiny-sd4"])
def test_names_of_nothing(name: str) -> None:
    with refused(vw.FormatError, name, "tiny-sd3"):
        load(name, random_vae(4))


def test_a_file_is_no_pipeline(tmp_path: Path) -> None:
    vw.save(random_vae(4), tmp_path / "vae.safetensors")
    with refused(vw.FormatError, "vae.safetensors", "model_index.json"):
        load_pipeline(str(tmp_path / "vae.safetensors"), random_vae(4), "cpu", torch.float32)


def test_a_folder_published_without_its_vae(tmp_path: Path) -> None:
    vae = random_vae(4)
    pipe = tiny("tiny", vae)
    pipe.save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / "vae")
    assert same(paint(pipe, "a cat", steps=1), paint(load(tmp_path, vae), "a cat", steps=1))


def test_sd3_published_without_t5(tmp_path: Path) -> None:
    """diffusers itself loads such a folder only when told text_encoder_3=None."""
    vae = random_vae(4)
    pipe = tiny("tiny-sd3", vae)
    pipe.text_encoder_3 = pipe.tokenizer_3 = None
    pipe.save_pretrained(tmp_path)
    assert same(paint(pipe, "a cat", steps=1), paint(load(tmp_path, vae), "a cat", steps=1))


# Swapping in memory


@pytest.mark.parametrize("kind", KINDS)
def test_inject(kind: str) -> None:
    first, second = random_vae(4), random_vae(4, seed=1, scaling_factor=0.5, shift_factor=0.2)
    pipe = tiny(kind, first, torch.bfloat16)
    before = paint(pipe, "a cat", size=64, steps=2)
    swapped = inject(pipe, second)
    assert type(swapped) is type(pipe)
    assert {name for name, part in swapped.components.items() if part is not pipe.components[name]} == {"vae"}
    assert swapped.vae.dtype == torch.bfloat16
    assert dict(swapped.config) == dict(pipe.config)
    assert same(before, paint(pipe, "a cat", size=64, steps=2))
    assert same(
        paint(swapped, "a cat", size=64, steps=2), paint(tiny(kind, second, torch.bfloat16), "a cat", size=64, steps=2)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_latents_that_do_not_match(kind: str) -> None:
    pipe = tiny(kind, random_vae(4))
    with refused(vw.ConfigError, "latents of 4 channels (f8c4)", "makes 16 (f8c16)"):
        inject(pipe, random_vae(16))
    with refused(vw.ConfigError, "1/8 of the picture's size (f8c4)", "makes 1/4 (f4c4)"):
        inject(pipe, random_vae(4, f=4))


@pytest.mark.parametrize("kind", KINDS)
def test_inject_where_there_was_none_follows_the_new_factor(kind: str) -> None:
    pipe, vae = tiny(kind, random_vae(4)), random_vae(4, f=4)
    pipe.vae = None
    swapped = inject(pipe, vae)
    assert swapped.vae_scale_factor == 4
    assert paint(swapped, "a cat", size=64, steps=1).size == (64, 64)
    assert paint(swapped, "a cat", image=PHOTO, size=64, steps=2).size == (64, 64)


def test_inject_into_other_denoisers() -> None:
    """Inpainting's U-Net takes a mask and a masked image besides the latents; AutoencoderTiny has no scale of latents
    to keep."""
    vae = random_vae(4)
    pipe = tiny("tiny", vae)
    unet = diffusers.UNet2DConditionModel.from_config({**pipe.unet.config, "in_channels": 9})
    inpaint = diffusers.StableDiffusionInpaintPipeline(
        **{**pipe.components, "unet": unet}, requires_safety_checker=False
    )
    swapped = inject(inpaint, vae)
    assert type(swapped.vae) is diffusers.AutoencoderKL
    with refused(vw.ConfigError, "StableDiffusionInpaintPipeline", "is for inpainting"):
        paint(swapped, "a cat", image=PHOTO)
    pipe.vae = diffusers.AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
    assert type(inject(pipe, vae).vae) is diffusers.AutoencoderKL
    pipe.vae = diffusers.AutoencoderKLWan(
        base_dim=8, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False]
    )
    with refused(vw.ConfigError, "AutoencoderKLWan", "SD3"):
        inject(pipe, vae)


# What cannot be painted


@pytest.mark.parametrize(
    ("kind", "f", "multiple"), [("tiny", 4, 8), ("tiny-sdxl", 16, 16), ("tiny-sd3", 8, 16), ("tiny-flux", 4, 8)]
)
def test_sizes_that_the_pipeline_cannot_make(kind: str, f: int, multiple: int) -> None:
    pipe = tiny(kind, random_vae(4, f))
    assert paint(pipe, "a cat", size=3 * multiple, steps=1).size == (3 * multiple,) * 2
    for size in (3 * multiple - 3, (4 * multiple, 3 * multiple - 1), 3 * multiple + 1):
        with refused(vw.ConfigError, f"divisible by {multiple}", f"f{f}", f"{3 * multiple}"):
            paint(pipe, "a cat", size=size, steps=1)
    with refused(vw.ConfigError, f"{multiple}x{multiple}"):
        paint(pipe, "a cat", size=0, steps=1)
    with refused(vw.DataError, "3x3 pixels"):
        paint(pipe, "a cat", image=PHOTO.resize((3, 3)))


def test_larger_than_the_table_of_positions() -> None:
    with refused(vw.ConfigError, "1536x1536"):
        paint(tiny("tiny-sd3", random_vae(4)), "a cat", size=1552)


def test_steps_and_strength() -> None:
    pipe = tiny("tiny", random_vae(4))
    with refused(vw.ConfigError, "steps (=0)"):
        paint(pipe, "a cat", steps=0)
    for strength in (0.0, 0.04, 1.1, float("nan")):
        with refused(vw.ConfigError, f"strength (={strength})"):
            paint(pipe, "a cat", image=PHOTO, strength=strength, steps=20)
    assert paint(pipe, "a cat", image=PHOTO, strength=0.05, steps=20).size == PHOTO.size


@pytest.mark.parametrize("kind", KINDS)
def test_images_that_would_pass_for_latents(kind: str) -> None:
    """LDM's f4 has 3 latent channels: SD3 and Flux would take the image itself for its latents."""
    pipe = tiny(kind, random_vae(3))
    assert paint(pipe, "a cat", steps=1).size == (64, 64)
    if kind in ("tiny", "tiny-sdxl"):
        assert paint(pipe, "a cat", image=PHOTO, steps=2).size == PHOTO.size
    else:
        with refused(vw.ConfigError, "3 channels for latents"):
            paint(pipe, "a cat", image=PHOTO)


def test_numbers_that_overflow() -> None:
    vae = random_vae(4)
    vae.decoder.conv_out.weight.fill_(float("nan"))
    with refused(vw.ConfigError, "float16", "bfloat16"):
        paint(tiny("tiny", vae, torch.float16), "a cat", steps=1)


@pytest.mark.parametrize("package", ["diffusers", "transformers"])
def test_without_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with refused(vw.MissingExtraError, "diffusers and transformers", "pip install 'vaeworks[diffusers]'"):
        load_pipeline("tiny", random_vae(4), "cpu", torch.float32)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_sdxls_own_channel_statistics() -> None:
    """diffusers' SDXL pipeline applies latents_mean, latents_std and scaling_factor of its VAE as `denormalize` does
    (Playground)."""
    vae = random_vae(4, **NORMALIZATIONS["channel"])
    pipe = tiny("tiny-sdxl", vae)
    pipe.vae = vw.to_diffusers(vae)  # not folded
    assert pipe.vae.config.latents_mean is not None
    options = {"height": 64, "width": 48, "num_inference_steps": 2, "guidance_scale": 1.0}
    z = pipe("a cat", generator=torch.Generator().manual_seed(0), output_type="latent", **options).images
    expected = pixels(to_pillow(from_model_range(vae.decode(vae.denormalize(z)))[0]))
    painted = pixels(pipe("a cat", generator=torch.Generator().manual_seed(0), **options).images[0])
    assert expected.std() > 1
    assert abs(painted - expected).max() <= 1
