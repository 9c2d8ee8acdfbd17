"""Flux.2: 32 channels, 2x2 squares of latents, batch normalization's running statistics, in both layouts."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLFlux2, DiffusionPipeline, Flux2Pipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import vaeworks as vw
from vaeworks.config import MODELS, TINY_MODELS, AutoencoderConfig
from vaeworks.formats.locate import locate
from vaeworks.images import from_model_range, to_pillow
from vaeworks.pipelines.stable_diffusion import inject, load_pipeline, paint

SMALL = dataclasses.replace(MODELS["flux2"], channels=32, latent_channels=8)
SMALL_DECODER = dataclasses.replace(SMALL, decoder_channels=32, decoder_channel_mult=(1, 3, 2, 2))


def random_flux2(config: AutoencoderConfig) -> vw.Autoencoder:
    vae = vw.build(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in vae.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / 8)
        vae.bn.running_mean.copy_(torch.randn(vae.bn.running_mean.shape, generator=generator))
        vae.bn.running_var.copy_(torch.rand(vae.bn.running_var.shape, generator=generator) + 0.1)
        vae.bn.num_batches_tracked.fill_(1234)
    return vae


def assert_same(a: vw.Autoencoder, b: vw.Autoencoder) -> None:
    assert a.config == b.config
    assert a.state_dict().keys() == b.state_dict().keys()
    assert all(
        torch.equal(t, b.state_dict()[name]) and t.dtype == b.state_dict()[name].dtype
        for name, t in a.state_dict().items()
    )


def pipeline_normalize(vae: AutoencoderKLFlux2, latents: Tensor) -> Tensor:
    """As Flux2Pipeline does with an image that it is given."""
    z = Flux2Pipeline._patchify_latents(latents)
    return (z - vae.bn.running_mean.view(1, -1, 1, 1)) / torch.sqrt(
        vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps
    )


def pipeline_denormalize(vae: AutoencoderKLFlux2, z: Tensor) -> Tensor:
    """As Flux2Pipeline does before it decodes."""
    std = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
    return Flux2Pipeline._unpatchify_latents(z * std + vae.bn.running_mean.view(1, -1, 1, 1))


@pytest.mark.parametrize("config", [SMALL, SMALL_DECODER])
def test_parity_with_diffusers(config: AutoencoderConfig) -> None:
    """Moments, pictures and normalization equal AutoencoderKLFlux2's in fp64, and so do latents that the pipeline makes
    of them."""
    vae = random_flux2(config).double()
    theirs = vw.to_diffusers(vae)
    assert isinstance(theirs, AutoencoderKLFlux2)
    images = torch.rand(2, 3, 32, 48, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        posterior, expected = vae.encode(images), theirs.encode(images).latent_dist
        torch.testing.assert_close(posterior.mean, expected.mean)
        torch.testing.assert_close(posterior.std, expected.std)
        torch.testing.assert_close(vae.decode(expected.mean), theirs.decode(expected.mean).sample)
        z = vae.normalize(posterior.mean)
        assert z.shape == (2, 32, 2, 3)
        torch.testing.assert_close(z, pipeline_normalize(theirs, posterior.mean))
        torch.testing.assert_close(vae.denormalize(z), pipeline_denormalize(theirs, z))
        torch.testing.assert_close(vae.denormalize(z), posterior.mean)


def test_training_mode_normalizes_by_the_running_statistics() -> None:
    """normalize never computes a batch's own statistics, nor changes the running ones."""
    vae = random_flux2(SMALL)
    latents = torch.randn(2, 8, 4, 4)
    before = vae.normalize(latents), vae.bn.running_mean.clone()
    vae.train()
    assert torch.equal(vae.normalize(latents), before[0])
    assert torch.equal(vae.bn.running_mean, before[1])


def test_odd_latents_are_refused() -> None:
    """Three latents make no 2x2 square; the message speaks of the image's size."""
    with pytest.raises(vw.ConfigError, match="must be divisible by"):
        random_flux2(SMALL).normalize(torch.zeros(1, 8, 3, 4))


@pytest.mark.filterwarnings("ignore:.*(does not say|do not show)")  # which test_certainty.py is about
@pytest.mark.parametrize("layout", ["native", "ldm", "diffusers"])
@pytest.mark.parametrize("config", [SMALL, SMALL_DECODER])
def test_every_layout_gives_everything_back(config: AutoencoderConfig, layout: str, tmp_path: Path) -> None:
    """Configuration, statistics and weights come back, also without our metadata."""
    vae, path = random_flux2(config), tmp_path / "model.safetensors"
    vw.save(vae, path, layout)
    assert_same(vw.load(path), vae)
    for file in path.iterdir() if path.is_dir() else [path]:
        if file.suffix == ".safetensors":
            save_file(load_file(file), file)
    assert_same(vw.load(path), vae)


@pytest.mark.filterwarnings("ignore:.*(does not say|do not show)")  # which test_certainty.py is about
def test_the_ldm_layout_is_black_forest_labs(tmp_path: Path) -> None:
    """quant_conv stands in the encoder, post_quant_conv in the decoder, 251 tensors at full size."""
    vae = random_flux2(SMALL)
    vw.save(vae, tmp_path / "ae.safetensors", "ldm")
    stored = load_file(tmp_path / "ae.safetensors")
    assert len(stored) == 251
    assert stored["encoder.quant_conv.weight"].shape == (16, 16, 1, 1)
    assert stored["decoder.post_quant_conv.weight"].shape == (8, 8, 1, 1)
    assert stored["decoder.mid.attn_1.q.weight"].ndim == 4
    assert {name for name in stored if name.startswith(("bn.", "quant", "post"))} == {
        "bn.running_mean",
        "bn.running_var",
        "bn.num_batches_tracked",
    }
    del stored["bn.num_batches_tracked"]  # some files leave it out
    save_file(stored, tmp_path / "less.safetensors")
    located = locate(tmp_path / "less.safetensors")
    assert (located.layout, located.config) == ("ldm", vae.config)
    assert vw.load(tmp_path / "less.safetensors").bn.num_batches_tracked == 0


def test_full_size() -> None:
    """The published numbers of tensors and parameters."""
    with torch.device("meta"):
        vae = vw.build("flux2")
    assert (len(vae.state_dict()), vae.num_parameters) == (251, 84_046_115)
    assert vae.config.name == "f8c32"
    assert math.prod(vae.bn.running_mean.shape) == 128


def test_it_cannot_be_folded() -> None:
    """128 statistics cannot go into 32 channels; the message says so."""
    with pytest.raises(vw.ConfigError, match="batch normalization"):
        vw.formats.fold.fold_to(random_flux2(SMALL), 1.0)


# In pipelines


def load(name: str | Path, vae: vw.Autoencoder, dtype: torch.dtype = torch.float32) -> DiffusionPipeline:
    return load_pipeline(str(name), vae, "cpu", dtype)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def other_vae(**options: object) -> vw.Autoencoder:
    torch.manual_seed(0)
    return vw.build(
        AutoencoderConfig(
            channels=16, channel_mult=(1, 1, 2, 2), num_res_blocks=1, norm_groups=8, latent_channels=4, **options
        )
    ).eval()


VAES = {
    "flux2": lambda: random_flux2(dataclasses.replace(SMALL, latent_channels=4)),
    "scale and shift": lambda: other_vae(scaling_factor=0.4, shift_factor=0.7),
    "channel": lambda: other_vae(
        normalization="channel",
        latents_mean=(0.5, -1.0, 2.0, 0.1),
        latents_std=(0.5, 2.0, 1.0, 1.5),
        scaling_factor=0.8,
    ),
    "taef2": lambda: vw.build(dataclasses.replace(TINY_MODELS["taef2"], latent_channels=4)).eval(),
}


@pytest.mark.parametrize("name", VAES)
def test_pipelines_normalize_as_the_vae_says(name: str) -> None:
    """Whatever normalization a VAE has, the latents that the pipeline makes become the picture that `denormalize` and
    `decode` make."""
    vae = VAES[name]()
    pipe = load("tiny-flux2", vae)
    options = {"height": 64, "width": 48, "num_inference_steps": 2, "guidance_scale": 1.0}
    latents = pipe(prompt="a cat", generator=torch.Generator().manual_seed(0), output_type="latent", **options).images
    painted = paint(pipe, "a cat", size=(64, 48), steps=2, guidance=1.0)
    z = pipeline_patches(pipe, latents)
    with torch.no_grad():
        per_square = dataclasses.replace(vae.config, latents_patch=2)
        vae.config = per_square  # as Flux.2's denoiser sees the latents of any VAE
        expected = pixels(to_pillow(from_model_range(vae.decode(vae.denormalize(z)))[0]))
    assert expected.std() > 1
    assert abs(pixels(painted) - expected).max() <= 1


def pipeline_patches(pipe: DiffusionPipeline, latents: Tensor) -> Tensor:
    """What the denoiser made, before the pipeline's own denormalization."""
    z = pipe._patchify_latents(latents)
    return (z - pipe.vae.bn.running_mean.view(1, -1, 1, 1)) / torch.sqrt(
        pipe.vae.bn.running_var.view(1, -1, 1, 1) + pipe.vae.config.batch_norm_eps
    )


def test_saved_pipelines_and_swaps(tmp_path: Path) -> None:
    """diffusers loads what it saved; our VAE takes the place of another, in memory and from a folder; wrong ones are
    refused."""
    vae = VAES["flux2"]()
    pipe = load("tiny-flux2", vae)
    painted = pixels(paint(pipe, "a cat", size=64, steps=2))
    pipe.save_pretrained(tmp_path)
    assert isinstance(DiffusionPipeline.from_pretrained(tmp_path, local_files_only=True).vae, AutoencoderKLFlux2)
    assert abs(pixels(paint(load(tmp_path, vae), "a cat", size=64, steps=2)) - painted).max() <= 1
    for name in ("taef2", "channel"):
        swapped = VAES[name]()
        pictures = [
            pixels(paint(p, "a cat", size=64, steps=2)) for p in (load(tmp_path, swapped), inject(pipe, swapped))
        ]
        assert abs(pictures[0] - pictures[1]).max() <= 1
        assert abs(pictures[0] - painted).max() > 10
    with pytest.raises(vw.ConfigError, match=r"latents of 4 channels \(f8c4\)"):
        load(tmp_path, random_flux2(SMALL))
    with pytest.raises(vw.ConfigError, match="generate without an image"):
        paint(pipe, "a cat", image=Image.new("RGB", (64, 64)), steps=2)


@pytest.mark.parametrize("name", VAES)
def test_bfloat16_is_near(name: str) -> None:
    """In half precision the picture is about the same."""
    vae = VAES[name]()
    full, half = (
        pixels(paint(load("tiny-flux2", vae, dtype), "a cat", size=64, steps=2, guidance=1.0))
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert abs(full - half).mean() < 4


@pytest.mark.parametrize("kind", ["tiny", "tiny-sdxl", "tiny-sd3", "tiny-flux"])
def test_a_taesd_paints(kind: str) -> None:
    """diffusers' own AutoencoderTiny takes the VAE's place; TAEF2 belongs into Flux.2's pipelines only."""
    vae = vw.build(TINY_MODELS["taesd"]).eval()
    pipe = load(kind, vae)
    assert type(pipe.vae).__name__ == "AutoencoderTiny"
    assert pixels(paint(pipe, "a cat", size=64, steps=2)).std() > 0
    with pytest.raises(vw.ConfigError, match=r"Flux\.2"):
        load(kind, vw.build(TINY_MODELS["taef2"]).eval())
