"""The TAESD family: against diffusers' AutoencoderTiny, Bohan's layer table, and real weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file
from skimage import data as photographs
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.config import TINY_MODELS, TinyConfig
from vaeworks.formats.locate import locate
from vaeworks.metrics import psnr

SMALL = TinyConfig(
    encoder_widths=(8, 8, 8), encoder_blocks=(1, 2, 3), decoder_widths=(8, 8, 8), decoder_blocks=(1, 1, 2)
)
VARIANTS = {
    "small": SMALL,
    "sixteen": dataclasses.replace(SMALL, latent_channels=16),
    "widths": dataclasses.replace(SMALL, decoder_widths=(4, 8, 12), encoder_widths=(4, 6, 8)),
    "pool": dataclasses.replace(SMALL, mid_pool=True, latents_patch=2),
    "stem": dataclasses.replace(SMALL, stem=(4, 8), decoder_widths=(8, 8, 8, 8, 16), decoder_blocks=(1, 3, 3, 3, 3)),
    "short-stem": dataclasses.replace(SMALL, stem=(8,), decoder_widths=(8, 8, 8, 16), decoder_blocks=(1, 3, 3, 3)),
    "gray": dataclasses.replace(SMALL, in_channels=1, out_channels=2),
}  # fmt: skip
LIKE_DIFFUSERS = ("small", "sixteen", "gray")


def random_tiny(config: TinyConfig, seed: int = 0) -> vw.Autoencoder:
    vae = vw.build(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in vae.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / 6)
    return vae


def assert_same(a: vw.Autoencoder, b: vw.Autoencoder) -> None:
    assert a.config == b.config
    assert a.state_dict().keys() == b.state_dict().keys()
    assert all(torch.equal(t, b.state_dict()[name]) for name, t in a.state_dict().items())


def raw_halves(vae: vw.Autoencoder) -> dict[str, dict[str, Tensor]]:
    """The two files of the original repository: nn.Sequential's numbers, the decoder's with a clamp as layer 0."""
    encoder = {
        name.removeprefix("encoder.layers."): t for name, t in vae.state_dict().items() if name.startswith("encoder")
    }
    decoder = {}
    for name, t in vae.state_dict().items():
        if name.startswith("decoder"):
            layer, _, rest = name.removeprefix("decoder.layers.").partition(".")
            decoder[f"{int(layer) + 1}.{rest}"] = t
    return {"encoder": encoder, "decoder": decoder}


@pytest.mark.parametrize("name", LIKE_DIFFUSERS)
def test_parity_with_diffusers(name: str, tmp_path: Path) -> None:
    """diffusers' AutoencoderTiny of random weights loads here, computes the same, and goes back bit for bit."""
    config = VARIANTS[name]
    torch.manual_seed(0)
    theirs = AutoencoderTiny(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        latent_channels=config.latent_channels,
        encoder_block_out_channels=config.encoder_widths,
        num_encoder_blocks=config.encoder_blocks,
        decoder_block_out_channels=config.decoder_widths[::-1],
        num_decoder_blocks=config.decoder_blocks[::-1],
    ).double()
    theirs.save_pretrained(tmp_path / "theirs")
    vae = vw.load(tmp_path / "theirs")
    assert vae.config == config
    images = torch.rand(2, config.in_channels, 16, 24, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        latents = theirs.encode(images).latents
        torch.testing.assert_close(vae.encode(images).mode(), latents, rtol=0, atol=1e-12)
        torch.testing.assert_close(vae.decode(latents), theirs.decode(latents).sample, rtol=0, atol=1e-12)
    vw.save(vae, tmp_path / "ours", "diffusers")
    again = AutoencoderTiny.from_pretrained(tmp_path / "ours")
    assert all(torch.equal(t.double(), again.state_dict()[n].double()) for n, t in theirs.state_dict().items())
    assert isinstance(vw.to_diffusers(vae), AutoencoderTiny)


@pytest.mark.parametrize(("name", "channels"), [("taesd", 4), ("taesd3", 16), ("taef1", 16)])
def test_full_size_has_diffusers_shapes(name: str, channels: int) -> None:
    """The published sizes are AutoencoderTiny's defaults."""
    with torch.device("meta"):
        ours, theirs = vw.build(name), AutoencoderTiny(latent_channels=channels)
    assert {k: t.shape for k, t in ours.state_dict().items()} == {k: t.shape for k, t in theirs.state_dict().items()}


def test_taesana_is_as_published() -> None:
    """The f32 variant's layers stand where the original's table has them."""
    with torch.device("meta"):
        halves = raw_halves(vw.build("taesana"))
    shapes = {half: {name: tuple(t.shape) for name, t in tensors.items()} for half, tensors in halves.items()}
    encoder, decoder = shapes["encoder"], shapes["decoder"]
    assert (encoder["0.weight"], encoder["2.weight"]) == ((32, 3, 3, 3), (64, 32, 3, 3))
    assert [n for n in range(18) if f"{n}.weight" in encoder] == [0, 2, 5, 9, 13, 17]
    assert encoder["17.weight"] == (32, 64, 3, 3)
    assert [n for n in range(32) if f"{n}.weight" in decoder] == [1, 7, 12, 17, 22, 27, 29]
    assert [decoder[f"{n}.weight"][:2] for n in (1, 7, 12, 17)] == [(256, 32), (128, 256), (64, 128), (64, 64)]
    assert decoder["29.weight"] == (3, 64, 3, 3)
    assert "1.bias" in decoder
    assert "7.bias" not in decoder


@pytest.mark.parametrize("layout", ["native", "taesd", "taesd-pair", "diffusers"])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_layout_gives_everything_back(name: str, layout: str, tmp_path: Path) -> None:
    """Configuration and every bit come back, with and without our metadata; what AutoencoderTiny lacks is refused
    there."""
    vae, path = random_tiny(VARIANTS[name]), tmp_path / ("pair" if layout == "taesd-pair" else "model.safetensors")
    if layout == "diffusers" and name not in LIKE_DIFFUSERS:
        with pytest.raises(vw.ConfigError, match="layout 'taesd'"):
            vw.save(vae, path, "diffusers")
        assert not path.exists()
        return
    vw.save(vae, path, layout.removesuffix("-pair"))
    assert_same(vw.load(path), vae)
    for file in path.iterdir() if path.is_dir() else [path]:
        if file.suffix == ".safetensors":
            save_file(load_file(file), file)  # drops the metadata
    assert_same(vw.load(path), vae)


@pytest.mark.parametrize("pickled", [False, True])
def test_two_files_as_published(pickled: bool, tmp_path: Path) -> None:
    """Either file of a pair finds the other; one alone is refused in one line that names the missing file."""
    vae = random_tiny(SMALL)
    ending = "pth" if pickled else "safetensors"
    for half, tensors in raw_halves(vae).items():
        path = tmp_path / f"taexyz_{half}.{ending}"
        torch.save(tensors, path) if pickled else save_file(tensors, path)
    for path in (tmp_path / f"taexyz_encoder.{ending}", tmp_path / f"taexyz_decoder.{ending}", tmp_path):
        assert_same(vw.load(path), vae)
        assert locate(path).layout == "taesd"
    (tmp_path / f"taexyz_encoder.{ending}").unlink()
    with pytest.raises(
        vw.FormatError, match=rf"decoder of a TAESD; put the encoder beside it, as taexyz_encoder\.{ending}$"
    ):
        vw.load(tmp_path / f"taexyz_decoder.{ending}")


def test_combined_file_has_comfyuis_names(tmp_path: Path) -> None:
    """One file holds both halves under taesd_encoder. and taesd_decoder., numbered as the original."""
    vae = random_tiny(SMALL)
    vw.save(vae, tmp_path / "x.safetensors", "taesd")
    stored = load_file(tmp_path / "x.safetensors")
    expected = {f"taesd_{half}.{name}": t for half, tensors in raw_halves(vae).items() for name, t in tensors.items()}
    assert stored.keys() == expected.keys()
    assert all(torch.equal(t, stored[name]) for name, t in expected.items())
    assert "taesd_decoder.1.weight" in stored


def test_there_is_no_distribution() -> None:
    """The posterior is a point: samples are the mode, whatever the generator; nothing is normalized."""
    vae = random_tiny(SMALL)
    with torch.no_grad():
        posterior = vae.encode(torch.zeros(1, 3, 8, 8))
    assert torch.equal(posterior.sample(torch.Generator().manual_seed(1)), posterior.mode())
    assert torch.equal(posterior.std, torch.zeros_like(posterior.mean))
    assert posterior.kl().isinf().all()
    assert torch.equal(vae.normalize(posterior.mean), posterior.mean)
    with pytest.raises(vw.ConfigError, match="TAESD"):
        _ = vae.kl_config


def test_the_pooled_block_by_hand() -> None:
    """TAEF2's first blocks: x + W2 relu(groupnorm(W1 x)), then the plain block."""
    block = random_tiny(VARIANTS["pool"]).double().decoder.layers[2]
    x = torch.randn(2, 8, 5, 3, dtype=torch.float64)
    wide = nn.functional.group_norm(
        nn.functional.conv2d(x, block.pool[0].weight), 4, block.pool[1].weight, block.pool[1].bias
    )
    y = x + nn.functional.conv2d(wide.relu(), block.pool[3].weight)
    h = y
    for i in (0, 2, 4):
        h = nn.functional.conv2d(h.relu() if i else h, block.conv[i].weight, block.conv[i].bias, padding=1)
    torch.testing.assert_close(block(x), (h + y).relu())


@pytest.mark.parametrize(
    "change", [{"stem": (8, 4)}, {"encoder_blocks": (1, 2)}, {"decoder_widths": (8, 8)}, {"encoder_widths": (0, 8, 8)}]
)
def test_configurations_that_cannot_be(change: dict) -> None:
    """Halves that do not fit together are refused in one line."""
    with pytest.raises(vw.ConfigError, match=r"^[^\n]+$"):
        dataclasses.replace(SMALL, **change)


def test_real_weights_reconstruct_photographs(test_data: Path) -> None:
    """The published pair for FLUX.2 gives photographs back at about 30 dB, as fp16 file, from either half."""
    vae = vw.load(test_data / "weights" / "taef2" / "taef2_decoder.pth")
    assert vae.config == TINY_MODELS["taef2"]
    assert vae.dtype == torch.float16
    vae = vae.float()
    values = []
    for name in ("astronaut", "coffee", "chelsea"):
        image = torch.from_numpy(getattr(photographs, name)()).permute(2, 0, 1)
        with torch.inference_mode():
            recon = vae.reconstruct(image[None] / 127.5 - 1)[0]
        values.append(psnr(image, ((recon + 1) * 127.5).round().clamp(0, 255).byte()))
    assert min(values) > 29
    assert max(values) < 36
    with torch.inference_mode():
        z = vae.normalize(vae.encode(image[None, :, :288, :448] / 127.5 - 1).mode())
    assert z.shape == (1, 128, 18, 28)
    assert 0.5 < z.std() < 1.5  # FLUX.2's normalized space


def test_real_weights_there_and_back(test_data: Path, tmp_path: Path) -> None:
    """The published pair survives our layouts bit for bit."""
    vae = vw.load(test_data / "weights" / "taef2")
    for layout, name in (("native", "n.safetensors"), ("taesd", "t.safetensors"), ("taesd", "pair")):
        vw.save(vae, tmp_path / name, layout)
        assert_same(vw.load(tmp_path / name), vae)
