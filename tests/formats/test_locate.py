"""Where people's VAEs are: in checkpoints, shards, pickles, folders of many kinds and on the hub; and what is wrong
with them."""

from __future__ import annotations

import dataclasses
import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from configs import WIDE
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor

import vaeworks as vw
from vaeworks.config import MODELS, TINY_MODELS, AutoencoderConfig, TinyConfig
from vaeworks.formats.diffusers_config import config_from_diffusers, diffusers_config
from vaeworks.formats.io import stored_tensors
from vaeworks.formats.keymap import OLD_ATTENTION
from vaeworks.formats.locate import locate
from vaeworks.formats.tensor_shapes import tensor_shapes

STATISTICS = {"latents_mean": [-3.8, -1.3, 0.8, 0.9], "latents_std": [10.0, 6.8, 7.2, 5.5]}


def random_vae(config: AutoencoderConfig = WIDE, seed: int = 0) -> vw.Autoencoder:
    vae = vw.build(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in vae.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / 4)
    return vae


def ldm(vae: vw.Autoencoder) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in stored_tensors(vae, "ldm").items()}


def assert_same(loaded: vw.Autoencoder, vae: vw.Autoencoder) -> None:
    assert loaded.config == vae.config
    assert loaded.state_dict().keys() == vae.state_dict().keys()
    assert all(torch.equal(t, vae.state_dict()[name]) for name, t in loaded.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*(does not say|do not show)")  # which test_certainty.py is about
@pytest.mark.parametrize("prefix", ["first_stage_model.", "vae.", "module.", "model.first_stage_model.", "_orig_mod."])
def test_prefixes(prefix: str, tmp_path: Path) -> None:
    """A VAE is found behind the prefixes of checkpoints, data-parallel and compiled models."""
    vae = random_vae()
    save_file({prefix + name: t for name, t in ldm(vae).items()}, tmp_path / "x")
    located = locate(tmp_path / "x")
    assert (located.prefix, located.layout, located.baked) == (prefix, "ldm", False)
    assert_same(vw.load(tmp_path / "x"), vae)


def sd_unet(context: int = 768, labels: bool = False) -> dict[str, Tensor]:
    """As much of a Stable Diffusion checkpoint as tells its family."""
    unet = {
        "input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3),
        "input_blocks.0.0.bias": torch.zeros(320),
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(320, context),
        "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(640, context),
        "middle_block.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(1280, context),
        "out.2.weight": torch.zeros(4, 320, 3, 3),
        "time_embed.0.weight": torch.zeros(1280, 320),
    }
    if labels:
        unet["label_emb.0.0.weight"] = torch.zeros(1280, 2816)
    return {f"model.diffusion_model.{name}": t for name, t in unet.items()}


@pytest.mark.filterwarnings("ignore:.*(does not say|do not show)")  # which test_certainty.py is about
@pytest.mark.parametrize(
    ("context", "labels", "factor"), [(768, False, 0.18215), (1024, False, 0.18215), (2048, True, 0.13025)]
)
def test_the_checkpoint_tells_the_scale(context: int, labels: bool, factor: float, tmp_path: Path) -> None:
    """Inside a checkpoint, the U-Net says whether the VAE is SD's or SDXL's, so nothing is ambiguous."""
    vae = random_vae(dataclasses.replace(WIDE, channel_mult=(1, 2, 2, 2)))
    save_file(
        {**sd_unet(context, labels), **{"first_stage_model." + n: t for n, t in ldm(vae).items()}}, tmp_path / "model"
    )
    located = locate(tmp_path / "model")
    assert located.baked
    assert (located.config.scaling_factor, located.normalization_source, located.ambiguity) == (factor, "family", "")
    assert vw.load(tmp_path / "model").config.scaling_factor == factor


@pytest.mark.filterwarnings("ignore:.*(does not say|do not show)")  # which test_certainty.py is about
def test_what_training_leaves_behind(tmp_path: Path) -> None:
    """Loss, discriminator and EMA keys are no part of the VAE, and are named."""
    vae = random_vae()
    extra = {
        "loss.logvar": torch.zeros(()),
        "loss.discriminator.main.0.weight": torch.zeros(2),
        "model_ema.decay": torch.tensor(0.9),
    }
    save_file({**ldm(vae), **extra}, tmp_path / "x")
    assert_same(vw.load(tmp_path / "x"), vae)
    assert set(locate(tmp_path / "x").ignored) == set(extra)


@pytest.mark.filterwarnings("ignore:.*(does not say|do not show)")  # which test_certainty.py is about
@pytest.mark.parametrize("legacy", [False, True])
def test_lightning_checkpoints(legacy: bool, tmp_path: Path) -> None:
    """A training checkpoint with optimizer, counters and classes as keys gives its VAE; nothing of the rest is
    built."""
    vae = random_vae()
    content = {
        "state_dict": OrderedDict(ldm(vae)),
        "epoch": 3,
        "global_step": 12,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        "callbacks": {OrderedDict: {"best": 1.0}},
        "pytorch-lightning_version": "1.4.2",
    }
    torch.save(content, tmp_path / "model.ckpt", _use_new_zipfile_serialization=not legacy)
    assert_same(vw.load(tmp_path / "model.ckpt"), vae)


def as_bin(folder: Path) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(file), folder / "diffusion_pytorch_model.bin")
    file.unlink()


def as_variant(folder: Path) -> None:
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.fp16.safetensors")


def as_shards(folder: Path) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    file.unlink()
    parts = [f"diffusion_pytorch_model-0000{i + 1}-of-00003.safetensors" for i in range(3)]
    index = {name: parts[i % 3] for i, name in enumerate(tensors)}
    for part in parts:
        save_file({name: t for name, t in tensors.items() if index[name] == part}, folder / part)
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )


def with_old_names(folder: Path) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    old = {new: name for name, new in OLD_ATTENTION.items()}
    renamed = {}
    for name, t in load_file(file).items():
        for new, before in old.items():
            if ".attentions." in name:
                name = name.replace(f".{new}.", f".{before}.")
        renamed[name] = t
    save_file(renamed, file)


@pytest.mark.parametrize("change", [as_bin, as_variant, as_shards, with_old_names])
def test_folders_of_diffusers(change: Callable[[Path], None], tmp_path: Path) -> None:
    """Pickled weights, fp16 variants, shards and attention's old names load as the usual folder does, alone and in a
    pipeline."""
    vae = random_vae()
    vw.save(vae, tmp_path / "vae", "diffusers")
    change(tmp_path / "vae")
    assert_same(vw.load(tmp_path / "vae"), vae)
    assert_same(vw.load(tmp_path), vae)
    assert locate(tmp_path).old_names == (change is with_old_names)
    weights = next(p for p in (tmp_path / "vae").iterdir() if p.name.startswith("diffusion") and "-of-" not in p.name)
    assert_same(vw.load(weights), vae)  # the config.json beside it counts


def test_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """hf:OWNER/NAME takes the VAE's files alone, from the cache of an earlier download; what is not there is one
    line."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    vae = random_vae()
    for name, inside in (("pipeline", "vae"), ("bare", ".")):
        snapshot = tmp_path / f"models--org--{name}" / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        vw.save(vae, snapshot / "made", "diffusers")
        if inside == ".":
            for file in (snapshot / "made").iterdir():
                file.rename(snapshot / file.name)
        else:
            (snapshot / "made").rename(snapshot / inside)
        (snapshot.parents[1] / "refs").mkdir()
        (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
        assert_same(vw.load(f"hf:org/{name}"), vae)
    vw.save(vae, tmp_path / "models--org--bare" / "snapshots" / ("0" * 40) / "one.safetensors", "ldm")
    assert_same(vw.load("hf:org/bare/one.safetensors"), vae)
    assert_same(vw.load("hf:org/pipeline/vae"), vae)
    for name in ("hf:org/none", "hf:org", "hf:", "hf:org/bare/two.safetensors", "hf:org/../x"):
        with pytest.raises(vw.FormatError, match=r"^[^\n]*hf:[^\n]*$"):
            vw.load(name)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {"scaling_factor": 0.18215}),
        ({"scaling_factor": 1.5305, "shift_factor": 0.0609}, {"scaling_factor": 1.5305, "shift_factor": 0.0609}),
        ({"scaling_factor": 0.5, **STATISTICS}, {"normalization": "channel", "scaling_factor": 0.5}),  # Playground
        (
            {"scaling_factor": 0.127, "shift_factor": 0.864, **STATISTICS},
            {"normalization": "channel", "scaling_factor": 1.0},
        ),  # EQ-SDXL
        (
            {"scaling_factor": 0.3, "latents_mean": STATISTICS["latents_mean"]},
            {"normalization": "scalar", "scaling_factor": 0.3},
        ),
    ],
)
def test_which_normalization_counts(values: dict, expected: dict) -> None:
    """Statistics by channel come before scale and shift; with a shift beside them, scale and shift say the same
    again."""
    config = config_from_diffusers({"_class_name": "AutoencoderKL", **values}, "config.json")
    assert {name: getattr(config, name) for name in expected} == expected
    if config.normalization == "channel":
        assert config.shift_factor == 0
        latents = (
            torch.randn(2000, 4, 2, 2, dtype=torch.float64) * torch.tensor(STATISTICS["latents_std"])[:, None, None]
        )
        latents = latents + torch.tensor(STATISTICS["latents_mean"])[:, None, None]
        vae = vw.build(dataclasses.replace(config, channels=32, channel_mult=(1,)))
        assert vae.normalize(latents).std().item() == pytest.approx(config.scaling_factor, rel=0.05)


@pytest.mark.filterwarnings("ignore:.*(does not say|do not show)")  # which test_certainty.py is about
def test_mixed_precision_becomes_the_widest(tmp_path: Path) -> None:
    """Norms in fp32 beside convolutions in fp16 are one dtype after loading, since no convolution takes two."""
    vae = random_vae()
    tensors = {name: t.half() if t.ndim > 1 else t for name, t in ldm(vae).items()}
    save_file(tensors, tmp_path / "x")
    loaded = vw.load(tmp_path / "x")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    loaded.encode(torch.zeros(1, 3, 4, 4))


BROKEN: dict[str, tuple[Callable[[dict[str, Tensor]], None], str]] = {
    "nan": (
        lambda t: t["decoder.conv_in.weight"].view(-1)[3:5].fill_(float("nan")),
        r"'decoder.conv_in.weight' has 2 values",
    ),
    "inf": (
        lambda t: t["encoder.norm_out.bias"].view(-1)[0:1].fill_(float("inf")),
        r"'encoder.norm_out.bias' has 1 values",
    ),
    "int8": (
        lambda t: t.update({"decoder.conv_in.weight": t["decoder.conv_in.weight"].to(torch.int8)}),
        "dtype I8.*not quantized",
    ),
    "fp8": (
        lambda t: t.update({"quant_conv.weight": t["quant_conv.weight"].to(torch.float8_e4m3fn)}),
        "dtype F8_E4M3.*not quantized",
    ),
    "missing": (
        lambda t: t.__delitem__("decoder.mid.block_1.conv1.bias"),
        r"no tensor 'decoder.mid.block_1.conv1.bias'",
    ),
    "shape": (
        lambda t: t.update({"decoder.mid.block_1.conv1.bias": torch.zeros(3)}),
        r"block_1.conv1.bias' has shape \(3,\).*\(64,\)",
    ),
    "surplus": (
        lambda t: t.update({"decoder.mid.block_9.x": torch.zeros(3)}),
        "1 tensors that its configuration does not have",
    ),
    "no encoder": (lambda t: [t.pop(n) for n in list(t) if n.startswith("encoder")] and None, "not a whole VAE"),
    "widths": (lambda t: t.update({"encoder.conv_in.weight": torch.zeros(31, 3, 3, 3)}), "make no VAE|has shape"),
}


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(name: str, pickled: bool, tmp_path: Path) -> None:
    """Each in one line that names the tensor and the remedy, whatever the container."""
    tensors = ldm(random_vae())
    change, words = BROKEN[name]
    change(tensors)
    torch.save(tensors, tmp_path / "x") if pickled else save_file(tensors, tmp_path / "x")
    with pytest.raises(vw.FormatError, match=rf"^[^\n]*({words})[^\n]*$"):
        vw.load(tmp_path / "x")


def test_precision_on_the_way_out(tmp_path: Path) -> None:
    """save(dtype=) stores as asked; weights that float16 cannot hold are refused and nothing is written."""
    vae = random_vae()
    vw.save(vae, tmp_path / "half", dtype=torch.float16)
    assert {t.dtype for t in load_file(tmp_path / "half").values()} == {torch.float16}
    assert vae.dtype == torch.float32
    with torch.no_grad():
        vae.decoder.conv_in.weight[0, 0, 0, 0] = 1e6
    with pytest.raises(vw.ConfigError, match=r"decoder.conv_in.weight reach 1e\+06.*bfloat16"):
        vw.save(vae, tmp_path / "large", dtype=torch.float16)
    assert [p.name for p in tmp_path.iterdir()] == ["half"]


@pytest.mark.parametrize("config", [WIDE, dataclasses.replace(WIDE, channel_mult=(1, 2, 2), attention_factors=(2, 4))])
def test_what_diffusers_writes_is_what_we_write(config: AutoencoderConfig, tmp_path: Path) -> None:
    """Key for key and byte for byte, the same weights saved by diffusers and by us."""
    vae = random_vae(config)
    theirs = AutoencoderKL(**diffusers_config(config))
    theirs.load_state_dict(vw.to_diffusers(vae).state_dict())
    theirs.save_pretrained(tmp_path / "theirs")
    vw.save(vae, tmp_path / "ours", "diffusers")
    a, b = (load_file(tmp_path / who / "diffusion_pytorch_model.safetensors") for who in ("theirs", "ours"))
    assert a.keys() == b.keys()
    assert all(torch.equal(t, b[name]) for name, t in a.items())


SHAPES = {
    **MODELS,
    **TINY_MODELS,
    "decoder widths": dataclasses.replace(WIDE, decoder_channels=64, decoder_channel_mult=(1, 3)),
    "first mult": dataclasses.replace(WIDE, channel_mult=(2, 3, 3), attention_factors=(1, 4), mid_attention=False),
    "one level": dataclasses.replace(WIDE, channel_mult=(1,), quant_conv=False, attention_factors=(1,)),
    "flux2 decoder": dataclasses.replace(MODELS["flux2"], decoder_channels=96),
    "tiny": TinyConfig(encoder_widths=(4, 8), encoder_blocks=(0, 2), decoder_widths=(8, 4), decoder_blocks=(2, 0)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_told_without_the_network(name: str) -> None:
    """Names, shapes and order are those of the network's own state."""
    with torch.device("meta"):
        state = vw.build(SHAPES[name]).state_dict()
    assert list(tensor_shapes(SHAPES[name]).items()) == [(n, tuple(t.shape)) for n, t in state.items()]


def test_files_that_are_something_else(tmp_path: Path) -> None:
    """Numbers as names do not make a TAESD; embeddings and other VAEs are called by their names."""
    torch.save(
        {"320": {"linear.weight": torch.zeros(3)}, "name": "x", "sd_checkpoint_name": "y"}, tmp_path / "hyper.pt"
    )
    torch.save(
        {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.zeros(2, 768)}}, tmp_path / "embedding.pt"
    )
    save_file({"0.weight": torch.zeros(3, 3), "1.bias": torch.zeros(3)}, tmp_path / "numbers")
    wan = {
        "decoder.middle.0.residual.0.gamma": torch.zeros(8, 1, 1, 1),
        "encoder.conv1.weight": torch.zeros(96, 3, 3, 3, 3),
    }
    save_file(wan, tmp_path / "wan")
    for name, words in {
        "hyper.pt": "hypernetwork",
        "embedding.pt": "textual inversion",
        "numbers": "no VAE",
        "wan": "Wan",
    }.items():
        with pytest.raises(vw.FormatError, match=rf"^[^\n]*{words}[^\n]*$"):
            vw.load(tmp_path / name)


def test_comfyuis_scale_of_a_taesd_is_left_behind(tmp_path: Path) -> None:
    """vae_scale and vae_shift concern raw latents; a TAESD's are as the diffusion model sees them."""
    vae = vw.build("taesd").eval()
    tensors = {name: t.detach().clone() for name, t in stored_tensors(vae, "taesd").items()}
    save_file({**tensors, "vae_scale": torch.tensor(0.18215), "vae_shift": torch.tensor(0.0)}, tmp_path / "x")
    assert_same(vw.load(tmp_path / "x"), vae)
    assert set(locate(tmp_path / "x").ignored) == {"vae_scale", "vae_shift"}
