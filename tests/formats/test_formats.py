"""Model files: every layout there and back, by other people's names and readers, and whatever can be wrong with a
file."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from configs import WIDE
from diffusers import AutoencoderKL
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import vaeworks as vw
from vaeworks.config import MODELS, AutoencoderConfig
from vaeworks.formats import detect
from vaeworks.formats.locate import locate
from vaeworks.formats.vaes_in_file import SIGNATURES

TINY = AutoencoderConfig(channels=8, channel_mult=(1, 2), num_res_blocks=1, norm_groups=4, scaling_factor=0.18215)
CARRIED = {
    "plain": TINY,
    "flux": dataclasses.replace(
        TINY, latent_channels=16, quant_conv=False, post_quant_conv=False, scaling_factor=0.3611, shift_factor=0.1159
    ),
    "quant-only": dataclasses.replace(TINY, post_quant_conv=False),
    "post-quant-only": dataclasses.replace(TINY, quant_conv=False),
    "attention": dataclasses.replace(TINY, channel_mult=(1, 2, 2), num_res_blocks=2, attention_factors=(2, 4)),
    "no-attention": dataclasses.replace(TINY, mid_attention=False),
    "fractional": dataclasses.replace(TINY, channel_mult=(1, 1.5, 3)),
    "one-level": dataclasses.replace(TINY, channel_mult=(1,)),
    "four-levels": dataclasses.replace(TINY, channel_mult=(1, 2, 1, 3)),
    "channels": dataclasses.replace(TINY, in_channels=1, out_channels=4),
    "measured": dataclasses.replace(
        TINY, latents_mean=(0.1, -0.2, 0.3, 1 / 3), latents_std=(1.0, 2.0, 3.0, 0.1), shift_factor=-0.7
    ),
    "per-channel": dataclasses.replace(
        TINY,
        latents_mean=(0.1, -0.2, 0.3, 1 / 3),
        latents_std=(1.0, 2.0, 3.0, 0.1),
        normalization="channel",
        scaling_factor=0.5,
    ),
}
"""What all layouts can carry."""

NOT_DIFFUSERS = {
    "decoder-width": (dataclasses.replace(TINY, decoder_channels=4), "widths"),
    "decoder-mult": (dataclasses.replace(TINY, decoder_channel_mult=(1, 3)), "widths"),
    "first-mult": (dataclasses.replace(TINY, channel_mult=(2, 2)), "channel_mult"),
    "heads": (dataclasses.replace(TINY, num_heads=2), "head"),
}
"""What diffusers' AutoencoderKL cannot express, and the word that its error must say."""

METADATA_ONLY = {
    "epsilon": (dataclasses.replace(TINY, norm_eps=1e-3), r"norm_eps 0.001 \(1e-06\)"),
    "padding": (dataclasses.replace(TINY, padding_mode="reflect"), r"padding_mode reflect \(zeros\)"),
    "scales": (dataclasses.replace(TINY, decoder_scale=0.25), r"norm_eps 6.25e-08 of the decoder"),
}
"""What only our metadata carries in foreign layouts, and what the warning says."""

LAYOUTS = ("native", "ldm", "diffusers")


def random_vae(config: AutoencoderConfig, seed: int = 0) -> vw.Autoencoder:
    """All parameters random, norms included, so that no two of them could be swapped unnoticed."""
    vae = vw.build(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in vae.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / 4)
    return vae


def saved(tmp_path: Path, config: AutoencoderConfig = TINY, layout: str = "native") -> tuple[vw.Autoencoder, Path]:
    vae, path = random_vae(config), tmp_path / f"model of {layout} layout"
    vw.save(vae, path, layout)
    return vae, path


def weights_file(path: Path) -> Path:
    return path / "diffusion_pytorch_model.safetensors" if path.is_dir() else path


def stored_bytes(file: Path) -> bytes:
    """A safetensors file behind its header, whose metadata safetensors writes in an order that changes."""
    data = file.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


def assert_same(loaded: vw.Autoencoder, vae: vw.Autoencoder) -> None:
    """The same configuration and every bit of the weights, ready for use."""
    assert loaded.config == vae.config
    expected = vae.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name]), name
    assert not loaded.training
    assert all(p.requires_grad and p.device.type == "cpu" for p in loaded.parameters())


def ldm_shapes(config: AutoencoderConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of CompVis' AutoencoderKL, written from its network's construction and independently of the code
    under test."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, c_in: int, c_out: int, k: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (c_out, c_in, k, k), (c_out,)

    def norm(name: str, c: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (c,)

    def block(name: str, c_in: int, c_out: int) -> None:
        norm(f"{name}.norm1", c_in)
        conv(f"{name}.conv1", c_in, c_out, 3)
        norm(f"{name}.norm2", c_out)
        conv(f"{name}.conv2", c_out, c_out, 3)
        if c_in != c_out:
            conv(f"{name}.nin_shortcut", c_in, c_out, 1)

    def attention(name: str, c: int) -> None:
        norm(f"{name}.norm", c)
        for part in ("q", "k", "v", "proj_out"):
            conv(f"{name}.{part}", c, c, 1)

    def middle(name: str, c: int) -> None:
        block(f"{name}.mid.block_1", c, c)
        block(f"{name}.mid.block_2", c, c)
        if config.mid_attention:
            attention(f"{name}.mid.attn_1", c)

    levels, z = len(config.channel_mult), config.latent_channels
    width = config.channels
    conv("encoder.conv_in", config.in_channels, width, 3)
    for i, mult in enumerate(config.channel_mult):
        for j in range(config.num_res_blocks):
            block(f"encoder.down.{i}.block.{j}", width, round(config.channels * mult))
            width = round(config.channels * mult)
            if 2**i in config.attention_factors:
                attention(f"encoder.down.{i}.attn.{j}", width)
        if i < levels - 1:
            conv(f"encoder.down.{i}.downsample.conv", width, width, 3)
    middle("encoder", width)
    norm("encoder.norm_out", width)
    conv("encoder.conv_out", width, 2 * z, 3)
    channels, mults = config.decoder_channels or config.channels, config.decoder_channel_mult or config.channel_mult
    width = round(channels * mults[-1])
    conv("decoder.conv_in", z, width, 3)
    middle("decoder", width)
    for i in reversed(range(levels)):
        for j in range(config.num_res_blocks + 1):
            block(f"decoder.up.{i}.block.{j}", width, round(channels * mults[i]))
            width = round(channels * mults[i])
            if 2**i in config.attention_factors:
                attention(f"decoder.up.{i}.attn.{j}", width)
        if i > 0:
            conv(f"decoder.up.{i}.upsample.conv", width, width, 3)
    norm("decoder.norm_out", width)
    conv("decoder.conv_out", width, config.out_channels, 3)
    if config.quant_conv:
        conv("quant_conv", 2 * z, 2 * z, 1)
    if config.post_quant_conv:
        conv("post_quant_conv", z, z, 1)
    return shapes


def diffusers_rule(name: str, levels: int) -> str:
    """The rule table of LDM and diffusers names, facts/interop.md section 2, written independently of the code under
    test."""
    rules: list[tuple[str, str | Callable[[re.Match], str]]] = [
        (r"\.norm_out\.", ".conv_norm_out."),
        (r"\.nin_shortcut\.", ".conv_shortcut."),
        (r"^encoder\.down\.(\d+)\.block\.", r"encoder.down_blocks.\1.resnets."),
        (r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
        (r"^encoder\.down\.(\d+)\.attn\.", r"encoder.down_blocks.\1.attentions."),
        (r"^decoder\.up\.(\d+)\.block\.", lambda m: f"decoder.up_blocks.{levels - 1 - int(m[1])}.resnets."),
        (r"^decoder\.up\.(\d+)\.upsample\.", lambda m: f"decoder.up_blocks.{levels - 1 - int(m[1])}.upsamplers.0."),
        (r"^decoder\.up\.(\d+)\.attn\.", lambda m: f"decoder.up_blocks.{levels - 1 - int(m[1])}.attentions."),
        (r"\.mid\.block_(\d)\.", lambda m: f".mid_block.resnets.{int(m[1]) - 1}."),
        (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
        (r"(\.attentions\.\d+)\.norm\.", r"\1.group_norm."),
        (r"(\.attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
        (r"(\.attentions\.\d+)\.proj_out\.", r"\1.to_out.0."),
    ]
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CARRIED)
def test_every_layout_gives_everything_back(name: str, layout: str, tmp_path: Path) -> None:
    """Saved and loaded, the configuration is equal and the weights are bit-equal, under a file name that says
    nothing."""
    vae, path = saved(tmp_path, CARRIED[name], layout)
    assert_same(vw.load(path), vae)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("layout", ["native", "ldm"])
@pytest.mark.parametrize("name", NOT_DIFFUSERS)
def test_single_files_carry_what_diffusers_cannot(name: str, layout: str, tmp_path: Path) -> None:
    """Two widths and several heads survive native and LDM files; LDM's readers, who see one head, are warned of."""
    said = (
        pytest.warns(UserWarning, match=r"num_heads 2 \(1\)") if (name, layout) == ("heads", "ldm") else nullcontext()
    )
    with said:
        vae, path = saved(tmp_path, NOT_DIFFUSERS[name][0], layout)
    assert_same(vw.load(path), vae)


@pytest.mark.parametrize("name", NOT_DIFFUSERS)
def test_what_diffusers_cannot_carry_is_refused(name: str, tmp_path: Path) -> None:
    """save raises a ConfigError in one line that says what and which layout could, and writes nothing."""
    config, word = NOT_DIFFUSERS[name]
    with torch.device("meta"):
        vae = vw.build(config)
    with pytest.raises(vw.ConfigError, match=rf"{word}[^\n]*layout[^\n]*native[^\n]*$"):
        vw.save(vae, tmp_path / "model", "diffusers")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", METADATA_ONLY)
def test_what_a_layout_has_no_place_for_is_said_and_kept(name: str, layout: str, tmp_path: Path) -> None:
    """Padding, epsilon and activation scales survive every layout in our metadata; foreign ones are written with a
    warning."""
    config, words = METADATA_ONLY[name]
    said = nullcontext() if layout == "native" else pytest.warns(UserWarning, match=words)
    with said:
        vae, path = saved(tmp_path, config, layout)
    assert_same(vw.load(path), vae)


@pytest.mark.parametrize("name", METADATA_ONLY)
def test_diffusers_modules_get_what_their_configuration_cannot_hold(name: str) -> None:
    """to_diffusers computes what ours does, and warns that saving it loses the setting."""
    config, words = METADATA_ONLY[name]
    vae, images = random_vae(config).double(), torch.rand(1, 3, 16, 16, dtype=torch.float64) * 2 - 1
    with pytest.warns(UserWarning, match=words):
        theirs = vw.to_diffusers(vae)
    with torch.inference_mode():
        posterior = vae.encode(images)
        torch.testing.assert_close(theirs.encode(images).latent_dist.mean, posterior.mean)
        torch.testing.assert_close(theirs.decode(posterior.mean).sample, vae.decode(posterior.mean))
        plain = vw.build(TINY).eval().double()
        plain.load_state_dict(vae.state_dict())
        assert not torch.allclose(
            plain.decode(posterior.mean), vae.decode(posterior.mean), rtol=1e-6
        )  # the setting counts


@pytest.mark.parametrize("name", NOT_DIFFUSERS)
def test_an_adapter_stands_in_for_what_diffusers_cannot_express(name: str) -> None:
    """to_diffusers gives an object with the same methods, the same numbers and a copy of the weights."""
    vae, images = random_vae(NOT_DIFFUSERS[name][0]), torch.rand(2, 3, 16, 16) * 2 - 1
    theirs = vw.to_diffusers(vae)
    with torch.no_grad():
        posterior = vae.encode(images)
        torch.testing.assert_close(theirs.encode(images).latent_dist.mean, posterior.mean)
        torch.testing.assert_close(theirs.encode(images)[0].std, posterior.std)
        torch.testing.assert_close(theirs.decode(posterior.mean, return_dict=False)[0], vae.decode(posterior.mean))
    assert theirs.config.scaling_factor == vae.config.scaling_factor
    assert 2 ** (len(theirs.config.block_out_channels) - 1) == vae.downsample_factor
    assert not any(p.requires_grad for p in theirs.parameters())
    with torch.no_grad():
        vae.decoder.conv_out.bias.add_(1)
        assert not torch.allclose(theirs.decode(posterior.mean).sample, vae.decode(posterior.mean))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_is_kept(layout: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Weights keep their type and bits."""
    vae = random_vae(TINY).to(dtype)
    vw.save(vae, tmp_path / "x", layout)
    loaded = vw.load(tmp_path / "x")
    assert_same(loaded, vae)
    assert loaded.dtype == dtype


@pytest.mark.parametrize("layout", LAYOUTS)
def test_channels_last_weights_are_written_in_order(layout: str, tmp_path: Path) -> None:
    """A model trained in NHWC memory gives the same bytes as one in NCHW memory."""
    vae, path = saved(tmp_path, TINY, layout)
    before = stored_bytes(weights_file(path))
    vw.save(vae.to(memory_format=torch.channels_last), path, layout, overwrite=True)
    assert stored_bytes(weights_file(path)) == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_loaded_model_can_replace_its_own_file(layout: str, tmp_path: Path) -> None:
    """Weights that are still mapped from a file survive being changed and saved over it."""
    vae, path = saved(tmp_path, TINY, layout)
    loaded = vw.load(path)
    with torch.no_grad():
        for model in (vae, loaded):
            model.decoder.conv_out.bias.add_(1.0)
    vw.save(loaded, path, layout, overwrite=True)
    assert_same(loaded, vae)
    assert_same(vw.load(path), vae)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", [*CARRIED, *(k for k in NOT_DIFFUSERS if k.startswith(("decoder", "first")))])
def test_ldm_files_are_as_compvis_writes_them(name: str, tmp_path: Path) -> None:
    """Bare LDM names with CompVis' shapes, attention as 1x1 convolutions, and nothing else."""
    config = CARRIED[name] if name in CARRIED else NOT_DIFFUSERS[name][0]
    _, path = saved(tmp_path, config, "ldm")
    tensors = load_file(path)
    assert {key: tuple(t.shape) for key, t in tensors.items()} == ldm_shapes(config)
    assert all(t.is_contiguous() for t in tensors.values())
    assert detect(tensors) == "ldm"


@pytest.mark.parametrize(("name", "tensors"), [("sd1", 248), ("flux1", 244), ("ldm-f4", 204)])
def test_the_table_has_the_published_number_of_tensors(name: str, tensors: int) -> None:
    """The table that these tests compare with has as many tensors as the published files."""
    assert len(ldm_shapes(MODELS[name])) == tensors


@pytest.mark.parametrize("name", CARRIED)
def test_layouts_hold_the_same_tensors_by_the_rule_table(name: str, tmp_path: Path) -> None:
    """Every LDM tensor is the diffusers tensor that the published rules name, and none is left over."""
    _, ldm = saved(tmp_path, CARRIED[name], "ldm")
    _, diffusers = saved(tmp_path, CARRIED[name], "diffusers")
    theirs = load_file(weights_file(diffusers))
    assert detect(theirs) == "diffusers"
    for key, tensor in load_file(ldm).items():
        other = theirs.pop(diffusers_rule(key, len(CARRIED[name].channel_mult)))
        assert torch.equal(tensor.reshape(other.shape), other), key
    assert not theirs


def strip_metadata(path: Path, change: Callable[[dict[str, Tensor]], None] = lambda tensors: None) -> Path:
    """The same tensors, changed, without our metadata: as a foreign program would write them."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    with safe_open(path, framework="pt") as file:
        assert not file.metadata()
    return path


FOREIGN = {
    "groups-32": WIDE,
    "attention": AutoencoderConfig(channels=32, channel_mult=(1, 1, 2), num_res_blocks=2, attention_factors=(2, 4)),
    "no-attention": AutoencoderConfig(channels=32, channel_mult=(1,), num_res_blocks=1, mid_attention=False),
    "no-quant": AutoencoderConfig(
        channels=32, channel_mult=(1, 3), num_res_blocks=1, quant_conv=False, post_quant_conv=False
    ),
    "post-quant-only": AutoencoderConfig(channels=32, channel_mult=(1, 2), num_res_blocks=1, quant_conv=False),
    "decoder": AutoencoderConfig(
        channels=32, channel_mult=(1, 2), num_res_blocks=1, decoder_channels=64, decoder_channel_mult=(1, 1.5)
    ),
    "channels": AutoencoderConfig(
        channels=32, channel_mult=(2, 3), num_res_blocks=3, in_channels=1, out_channels=4, latent_channels=3
    ),
    "fewer-groups": AutoencoderConfig(channels=48, channel_mult=(1, 2), num_res_blocks=1, norm_groups=16),
}


@pytest.mark.filterwarnings("ignore:.*(does not say|do not show)")  # which test_certainty.py is about
@pytest.mark.parametrize("name", FOREIGN)
def test_plain_ldm_files_are_recognised_from_their_shapes(name: str, tmp_path: Path) -> None:
    """Without any metadata the architecture is read off the shapes, with default normalization."""
    vae, path = saved(tmp_path, FOREIGN[name], "ldm")
    assert_same(vw.load(strip_metadata(path)), vae)


@pytest.mark.filterwarnings("ignore:.*(does not say|do not show)")  # which test_certainty.py is about
@pytest.mark.parametrize("shape", ["matrix", "conv1d", "conv2d", "conv3d"])
def test_attention_weights_of_every_rank(shape: str, tmp_path: Path) -> None:
    """LDM attention weights are accepted as matrices and as 1x1 convolutions of one to three dimensions."""
    vae, path = saved(tmp_path, FOREIGN["groups-32"], "ldm")
    extra = (1,) * ["matrix", "conv1d", "conv2d", "conv3d"].index(shape)

    def reshape(tensors: dict[str, Tensor]) -> None:
        for key, t in tensors.items():
            if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", key):
                tensors[key] = t.reshape(t.shape[:2] + extra)

    assert_same(vw.load(strip_metadata(path, reshape)), vae)


def test_a_folder_that_diffusers_wrote(tmp_path: Path) -> None:
    """AutoencoderKL.save_pretrained loads here: settings, normalization, weights and results."""
    torch.manual_seed(0)
    reference = AutoencoderKL(
        block_out_channels=[16, 32, 32],
        down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"],
        up_block_types=["UpDecoderBlock2D", "AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
        layers_per_block=2,
        latent_channels=3,
        norm_num_groups=8,
        in_channels=1,
        out_channels=4,
        scaling_factor=0.5,
        latents_mean=[0.1, 0.2, 0.3],
        latents_std=[1.1, 1.2, 1.3],
        use_quant_conv=False,
    )
    reference.save_pretrained(tmp_path)
    vae = vw.load(tmp_path)
    assert vae.config == AutoencoderConfig(
        channels=16,
        channel_mult=(1, 2, 2),
        attention_factors=(2,),
        num_res_blocks=2,
        latent_channels=3,
        norm_groups=8,
        in_channels=1,
        out_channels=4,
        scaling_factor=0.5,
        latents_mean=(0.1, 0.2, 0.3),
        latents_std=(1.1, 1.2, 1.3),
        normalization="channel",
        quant_conv=False,
    )
    images = torch.rand(1, 1, 16, 24) * 2 - 1
    with torch.no_grad():
        expected = reference.encode(images).latent_dist.mode()
        torch.testing.assert_close(vae.encode(images).mode(), expected, rtol=0, atol=1e-5 * expected.abs().max().item())
        recon = reference.decode(expected).sample
        torch.testing.assert_close(vae.decode(expected), recon, rtol=0, atol=1e-5 * recon.abs().max().item())


def test_old_diffusers_attention_names(tmp_path: Path) -> None:
    """Weights written before diffusers 0.18, sd-vae-ft-mse among them, call attention query, key, value and
    proj_attn."""
    reference = AutoencoderKL(block_out_channels=[16], norm_num_groups=8)
    reference.save_pretrained(tmp_path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    file = weights_file(tmp_path)
    tensors = {re.sub(r"to_(q|k|v|out\.0)\b", lambda m: old[m[0]], key): t for key, t in load_file(file).items()}
    assert sum("proj_attn" in key for key in tensors) == 4
    save_file(tensors, file, {"format": "pt"})
    with torch.no_grad():
        images = torch.rand(1, 3, 8, 8) * 2 - 1
        expected = AutoencoderKL.from_pretrained(tmp_path).encode(images).latent_dist.mode()
        torch.testing.assert_close(
            vw.load(tmp_path).encode(images).mode(), expected, rtol=0, atol=1e-5 * expected.abs().max().item()
        )


def test_defaults_of_a_sparse_diffusers_config(tmp_path: Path) -> None:
    """What an old config.json leaves out has diffusers' defaults, as AutoencoderKL itself reads it."""
    reference = AutoencoderKL(
        block_out_channels=[32, 64],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
    )
    reference.save_pretrained(tmp_path)
    description = tmp_path / "config.json"
    kept = ("_class_name", "block_out_channels", "down_block_types", "up_block_types")
    description.write_text(
        json.dumps({key: value for key, value in json.loads(description.read_text()).items() if key in kept})
    )
    vae = vw.load(tmp_path)
    assert vae.config == AutoencoderConfig(channels=32, channel_mult=(1, 2), num_res_blocks=1, scaling_factor=0.18215)
    assert vae.config.scaling_factor == reference.config.scaling_factor


class Warnings(logging.Handler):
    """What diffusers would print for its user."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def diffusers_warnings():
    handler, logger = Warnings(), logging.getLogger("diffusers")
    logger.addHandler(handler)
    yield handler.messages
    logger.removeHandler(handler)


@pytest.mark.parametrize("name", CARRIED)
def test_diffusers_reads_our_folder_without_a_word(name: str, tmp_path: Path, diffusers_warnings: list[str]) -> None:
    """from_pretrained finds every key of config.json and every weight it wants, and computes what we compute."""
    vae, path = saved(tmp_path, CARRIED[name], "diffusers")
    assert sorted(p.name for p in path.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    theirs, info = AutoencoderKL.from_pretrained(path, output_loading_info=True)
    assert not any(info.values()), info
    assert diffusers_warnings == []
    config = vae.config
    assert (theirs.config.scaling_factor, theirs.config.shift_factor) == (config.scaling_factor, config.shift_factor)
    per_channel = config.normalization == "channel"
    assert theirs.config.latents_mean == (list(config.latents_mean) if per_channel else None)
    assert theirs.config.latents_std == (list(config.latents_std) if per_channel else None)
    images = torch.rand(1, config.in_channels, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        for model in (theirs, vw.to_diffusers(vae)):
            expected = model.encode(images).latent_dist
            torch.testing.assert_close(
                vae.encode(images).mean, expected.mean, rtol=0, atol=1e-5 * expected.mean.abs().max().item()
            )
            recon = model.decode(expected.mean).sample
            torch.testing.assert_close(vae.decode(expected.mean), recon, rtol=0, atol=1e-5 * recon.abs().max().item())


def test_diffusers_would_have_warned(tmp_path: Path, diffusers_warnings: list[str]) -> None:
    """The silence above means something: an unknown key of config.json is heard."""
    _, path = saved(tmp_path, TINY, "diffusers")
    description = path / "config.json"
    description.write_text(json.dumps({**json.loads(description.read_text()), "flavour": "sweet"}))
    AutoencoderKL.from_pretrained(path)
    assert any("flavour" in message for message in diffusers_warnings)


def test_to_diffusers_is_a_copy(tmp_path: Path) -> None:
    """It is diffusers' own class with copied, frozen weights in eval mode, and loads here again after its own
    save_pretrained."""
    vae = random_vae(CARRIED["flux"]).to(torch.bfloat16)
    theirs = vw.to_diffusers(vae)
    assert type(theirs) is AutoencoderKL
    assert not theirs.training
    assert theirs.dtype == torch.bfloat16
    assert not any(p.requires_grad for p in theirs.parameters())
    assert not {p.data_ptr() for p in theirs.parameters()} & {p.data_ptr() for p in vae.parameters()}
    theirs.save_pretrained(tmp_path)
    assert_same(vw.load(tmp_path), vae)


def test_config_json_wins_over_our_metadata(tmp_path: Path) -> None:
    """Someone who edits config.json is obeyed, and the measured statistics that it cannot hold stay."""
    vae, path = saved(tmp_path, CARRIED["measured"], "diffusers")
    description = path / "config.json"
    description.write_text(
        json.dumps({**json.loads(description.read_text()), "scaling_factor": 0.9, "shift_factor": None})
    )
    assert vw.load(path).config == dataclasses.replace(vae.config, scaling_factor=0.9, shift_factor=0.0)


def test_pipeline_and_run_folders(tmp_path: Path) -> None:
    """load takes a pipeline with its VAE in vae/, a finished run, and says of an unfinished one how to go on."""
    vae = random_vae(TINY)
    vw.to_diffusers(vae).save_pretrained(tmp_path / "pipeline" / "vae")
    (tmp_path / "pipeline" / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    assert_same(vw.load(tmp_path / "pipeline"), vae)
    vw.save(vae, tmp_path / "run" / "model.safetensors")
    (tmp_path / "run" / "run.json").write_text("{}")
    assert_same(vw.load(str(tmp_path / "run")), vae)
    (tmp_path / "run" / "model.safetensors").unlink()
    with pytest.raises(vw.FormatError, match="--resume"):
        vw.load(tmp_path / "run")


def content(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path.parent).as_posix(): p.read_bytes() for p in [path, *path.rglob("*")] if p.is_file()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_existing_paths_are_refused_unless_told(layout: str, tmp_path: Path) -> None:
    """save does not touch what exists and says what would; told to overwrite, it puts the new model there and leaves
    nothing else."""
    _, path = saved(tmp_path, TINY, layout)
    before, newer = content(path), random_vae(TINY, seed=1)
    for other in LAYOUTS:
        with pytest.raises(vw.ConfigError, match=r"exists.*overwrite=True"):
            vw.save(newer, path, other)
        assert content(path) == before
    vw.save(newer, path, layout, overwrite=True)
    assert_same(vw.load(path), newer)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_overwrite_does_not_delete_a_folder_of_other_things(tmp_path: Path) -> None:
    """A mistyped path with overwrite does not replace a folder of the user's that holds no model."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "irreplaceable.jpg").write_text("x")
    for layout in LAYOUTS:
        with pytest.raises(vw.VaeworksError, match=r"^[^\n]*photos[^\n]*$"):
            vw.save(random_vae(TINY), tmp_path / "photos", layout, overwrite=True)
        assert (tmp_path / "photos" / "irreplaceable.jpg").read_text() == "x"


def test_unknown_layout_is_refused(tmp_path: Path) -> None:
    """A ConfigError names the layouts there are."""
    with pytest.raises(vw.ConfigError, match="native, diffusers, ldm"):
        vw.save(random_vae(TINY), tmp_path / "x", "onnx")


def test_parent_folders_are_made_and_files_in_the_way_are_named(tmp_path: Path) -> None:
    """Missing folders are created; a file where a folder is needed is a VaeworksError in one line."""
    vae = random_vae(TINY)
    vw.save(vae, tmp_path / "a" / "b" / "x.safetensors")
    assert_same(vw.load(tmp_path / "a" / "b" / "x.safetensors"), vae)
    (tmp_path / "file").write_text("hello")
    with pytest.raises(vw.VaeworksError, match=r"^[^\n]*file/x[^\n]*could not be written[^\n]*$"):
        vw.save(vae, tmp_path / "file" / "x")
    assert (tmp_path / "file").read_text() == "hello"


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch, vaeworks as vw
from vaeworks.config import AutoencoderConfig
folder = Path(sys.argv[1])
vae = vw.build(AutoencoderConfig(channels=8, channel_mult=(1, 2), num_res_blocks=1, norm_groups=4))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for layout in ("native", "ldm", "diffusers"):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 13, resource.RLIM_INFINITY))
    for path in (folder / f"old-{layout}", folder / f"new-{layout}"):
        try:
            vw.save(vae, path, layout, overwrite=True)
        except vw.VaeworksError as error:
            print(f"{path.name}\\t{error}")
"""


def test_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """Where a file cannot be written whole: an error of one line, the previous model intact, nothing under a new name,
    no leftovers."""
    pytest.importorskip("resource")
    for layout in LAYOUTS:
        vw.save(random_vae(TINY), tmp_path / f"old-{layout}", layout)
    before = {path.name: content(path) for path in tmp_path.iterdir()}
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    errors = dict(line.split("\t") for line in result.stdout.splitlines())
    assert sorted(errors) == sorted(f"{age}-{layout}" for age in ("old", "new") for layout in LAYOUTS)
    for name, message in errors.items():
        assert name in message
        assert "could not be written" in message
        assert ("kept" in message) == name.startswith("old")
    assert {path.name: content(path) for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 0.999])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_torn_files_are_refused(layout: str, share: float, tmp_path: Path) -> None:
    """A file whose end is missing is a FormatError in one line that names it."""
    _, path = saved(tmp_path, TINY, layout)
    file = weights_file(path)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(vw.FormatError, match=rf"^[^\n]*{re.escape(str(file))}[^\n]*$"):
        vw.load(path)


def tamper(path: Path, change: Callable[[dict[str, Tensor]], None], keep_metadata: bool) -> Path:
    with safe_open(weights_file(path), framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(weights_file(path))
    change(tensors)
    save_file(tensors, weights_file(path), metadata if keep_metadata else None)
    return path


CASES = [(layout, True) for layout in LAYOUTS] + [("ldm", False), ("diffusers", False)]


@pytest.mark.parametrize(("layout", "metadata"), CASES)
@pytest.mark.parametrize("index", range(0, 60, 13))
def test_missing_tensors_are_named(layout: str, metadata: bool, index: int, tmp_path: Path) -> None:
    """A file that lacks one tensor is a FormatError in one line that names it."""
    _, path = saved(tmp_path, FOREIGN["attention"] if not metadata else CARRIED["attention"], layout)
    name = sorted(set(load_file(weights_file(path))) - {sig for sigs in SIGNATURES.values() for sig in sigs})[
        index
    ]  # without those it is another kind of file
    tamper(path, lambda tensors: tensors.pop(name), metadata)
    with pytest.raises(vw.FormatError, match=rf"^[^\n]*'{re.escape(name)}'[^\n]*$"):
        vw.load(path)


@pytest.mark.parametrize(("layout", "metadata"), CASES)
def test_extra_tensors_are_named(layout: str, metadata: bool, tmp_path: Path) -> None:
    """A tensor that the architecture has no place for is a FormatError in one line that names it, not ignored."""
    _, path = saved(tmp_path, FOREIGN["groups-32"], layout)
    tamper(path, lambda tensors: tensors.update({"decoder.extra.weight": torch.zeros(1)}), metadata)
    with pytest.raises(vw.FormatError, match=r"^[^\n]*'decoder\.extra\.weight'[^\n]*$"):
        vw.load(path)


def grown(t: Tensor) -> Tensor:
    return torch.cat([t, t])


def flat(t: Tensor) -> Tensor:
    return t.flatten()


def empty(t: Tensor) -> Tensor:
    return t[:0]


@pytest.mark.parametrize(("layout", "metadata"), CASES)
@pytest.mark.parametrize("change", [grown, flat, empty])
@pytest.mark.parametrize(
    "where", ["encoder.conv_in.weight", "decoder.conv_in.weight", "decoder.conv_out.weight", "conv2.weight"]
)
def test_wrong_shapes_are_named(
    layout: str, metadata: bool, where: str, change: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    """A tensor of another shape is a FormatError in one line about the file, never a crash or a model that computes
    nonsense."""
    _, path = saved(tmp_path, FOREIGN["groups-32"], layout)
    name = next(name for name in sorted(load_file(weights_file(path))) if name.endswith(where))
    tamper(path, lambda tensors: tensors.update({name: change(tensors[name]).contiguous()}), metadata)
    with pytest.raises(vw.FormatError, match=rf"^[^\n]*{re.escape(str(path))}[^\n]*$") as caught:
        vw.load(path)
    if metadata:
        assert repr(name) in str(caught.value)


def test_unknown_files_are_refused(tmp_path: Path) -> None:
    """A missing path, a text file, a pickle, other tensors, an empty folder and a foreign class are FormatErrors in one
    line."""
    (tmp_path / "text").write_text("hello")
    torch.save({"a": torch.zeros(2)}, tmp_path / "pickle.ckpt")
    save_file({"unet.weight": torch.zeros(2)}, tmp_path / "other")
    save_file({}, tmp_path / "nothing")
    (tmp_path / "folder").mkdir()
    (tmp_path / "weightless").mkdir()
    (tmp_path / "weightless" / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    for name, words in {
        "missing": "does not exist",
        "text": "no model file of a known kind",
        "pickle.ckpt": "first tensors are a",
        "other": "unet.weight",
        "nothing": "without tensors",
        "folder": "neither",
        "weightless": "diffusion_pytorch_model.safetensors is missing",
    }.items():
        with pytest.raises(vw.FormatError, match=rf"^[^\n]*{name}[^\n]*{words}[^\n]*$"):
            vw.load(tmp_path / name)


@pytest.mark.filterwarnings("ignore:.*(does not say|do not show)")  # which test_certainty.py is about
@pytest.mark.parametrize("layout", ["native", "diffusers"])
def test_files_without_configuration_are_read_from_their_shapes(layout: str, tmp_path: Path) -> None:
    """A bare file of any layout has the architecture that its shapes tell, and nothing that they do not."""
    vae, path = saved(tmp_path, FOREIGN["attention"], layout)
    alone = tmp_path / "alone.safetensors"
    weights_file(path).rename(alone)
    assert_same(vw.load(strip_metadata(alone)), vae)
    assert locate(alone).normalization_source == "unknown"


@pytest.mark.parametrize(
    "metadata",
    [
        "{",
        "[]",
        "{}",
        '{"autoencoder": 3}',
        '{"autoencoder": {"flavour": 1}}',
        '{"autoencoder": {"channels": "8"}}',
        '{"autoencoder": {"channels": -8}}',
    ],
)
def test_unreadable_metadata_is_refused(metadata: str, tmp_path: Path) -> None:
    """Our metadata in a form that this version cannot read is a FormatError in one line, not guessed around."""
    _, path = saved(tmp_path, FOREIGN["groups-32"], "ldm")
    save_file(load_file(path), path, {"vaeworks": metadata})
    with pytest.raises(vw.FormatError, match=r"^[^\n]*metadata cannot be read[^\n]*$"):
        vw.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"_class_name": "AutoencoderKLWan"},
        {"down_block_types": ["DownBlock2D", "DownBlock2D"]},
        {"norm_num_groups": 7},
        {"norm_num_groups": None},
        {"block_out_channels": [8]},
        {"block_out_channels": [8, 16, 16, 16, 16]},
        {"block_out_channels": []},
        {"block_out_channels": "8,16"},
        {"layers_per_block": "1"},
        {"scaling_factor": None},
        {"scaling_factor": "0.18215"},
        {"latents_mean": [0.0], "latents_std": [1.0]},
        {"act_fn": "gelu"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_impossible_config_json_is_refused(change: dict, tmp_path: Path) -> None:
    """A config.json with settings that no such model can have is a FormatError in one line, not a crash."""
    _, path = saved(tmp_path, TINY, "diffusers")
    description = path / "config.json"
    description.write_text(json.dumps({**json.loads(description.read_text()), **change}))
    with pytest.raises(vw.FormatError, match=r"^[^\n]+$"):
        vw.load(path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00"])
def test_config_json_that_is_no_json_is_refused(text: str, tmp_path: Path) -> None:
    """A config.json that holds no JSON object is a FormatError in one line that names it."""
    _, path = saved(tmp_path, TINY, "diffusers")
    (path / "config.json").write_text(text)
    with pytest.raises(vw.FormatError, match=r"^[^\n]*config\.json[^\n]*$"):
        vw.load(path)
