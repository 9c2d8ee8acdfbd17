"""What is said of a VAE's file: who can load it, held against the applications; its content, recognized in other files;
the report."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import struct
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2, AutoencoderTiny
from safetensors.torch import save_file
from torch import Tensor

import vaeworks as vw
from vaeworks.config import MODELS, AutoencoderConfig, TinyConfig
from vaeworks.formats.apps.support import COMFYUI, DIFFUSERS, WEBUI, Support, support
from vaeworks.formats.archive import Archive
from vaeworks.formats.fingerprint import PROJECTIONS, content_hash, distance, fingerprint, relation
from vaeworks.formats.fold import fold_to
from vaeworks.formats.identify import FAMILIES, family_in_words, identify
from vaeworks.formats.io import stored_tensors
from vaeworks.formats.locate import locate
from vaeworks.formats.native import config_metadata

Shapes = dict[str, tuple[int, ...]]

TINY = AutoencoderConfig(channels=32, channel_mult=(1, 2), num_res_blocks=1, scaling_factor=0.18215)
SD1 = MODELS["sd1"]

DENOISER = {
    "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
    "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
    "model.diffusion_model.out.2.weight": (4, 320, 3, 3),
}
"""What tells of an SD 1 checkpoint."""


def random_vae(config: AutoencoderConfig | TinyConfig = TINY, seed: int = 0) -> vw.Autoencoder:
    vae = vw.build(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in vae.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / 8)
    return vae


def write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: t.detach().clone().contiguous() for name, t in tensors.items()}, path, metadata)
    return path


def sparse(
    path: Path, shapes: Mapping[str, tuple[int, ...]], metadata: dict[str, str] | None = None, odd: int = 4
) -> Path:
    """A safetensors file of zeros that takes no room on the disk; its tensors begin `odd` bytes off a multiple of
    four."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (odd - (8 + len(text)) % 4)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


def stored_shapes(config: AutoencoderConfig, layout: str) -> Shapes:
    with torch.device("meta"):
        return {name: tuple(t.shape) for name, t in stored_tensors(vw.build(config), layout).items()}


def verdict(path: Path, application: str) -> Support:
    return support(locate(path))[application]


# The applications' own rules, written down once more, on diffusers' network instead of ours


def comfyui_names(shapes: Shapes) -> Shapes:
    """ComfyUI's translation of diffusers' names, which knows four levels of up to two blocks, and three in the
    decoder."""
    table = [
        ("nin_shortcut", "conv_shortcut"),
        ("norm_out", "conv_norm_out"),
        ("mid.attn_1.", "mid_block.attentions.0."),
    ]
    for i in range(4):
        table += [(f"encoder.down.{i}.block.{j}.", f"encoder.down_blocks.{i}.resnets.{j}.") for j in range(2)]
        if i < 3:
            table += [
                (f"down.{i}.downsample.", f"down_blocks.{i}.downsamplers.0."),
                (f"up.{3 - i}.upsample.", f"up_blocks.{i}.upsamplers.0."),
            ]
        table += [(f"decoder.up.{3 - i}.block.{j}.", f"decoder.up_blocks.{i}.resnets.{j}.") for j in range(3)]
    table += [(f"mid.block_{i + 1}.", f"mid_block.resnets.{i}.") for i in range(2)]
    attention = [
        ("norm.", "group_norm."),
        ("q.", "to_q."),
        ("k.", "to_k."),
        ("v.", "to_v."),
        ("proj_out.", "to_out.0."),
    ]
    attention += [("q.", "query."), ("k.", "key."), ("v.", "value."), ("proj_out.", "proj_attn.")]
    found = {}
    for original, shape in shapes.items():
        name = original
        for theirs, diffusers in table + (attention if "attentions" in original else []):
            name = name.replace(diffusers, theirs)
        found[name] = (*shape, 1, 1) if re.search(r"mid\.attn_1\.(q|k|v|proj_out)\.weight", name) else shape
    return found


@cache
def sd_network(mult: tuple[int, ...], c: int, quantized: bool, decoder_channels: int = 128) -> Shapes:
    """Names and shapes of LDM's network, made of diffusers' AutoencoderKL."""

    def half(channels: int, prefixes: tuple[str, ...]) -> Shapes:
        n = len(mult)
        with torch.device("meta"):
            vae = AutoencoderKL(
                block_out_channels=tuple(channels * m for m in mult),
                layers_per_block=2,
                latent_channels=c,
                down_block_types=("DownEncoderBlock2D",) * n,
                up_block_types=("UpDecoderBlock2D",) * n,
                use_quant_conv=quantized,
                use_post_quant_conv=quantized,
            )
        named = comfyui_names(
            {name: tuple(t.shape) for name, t in vae.state_dict().items() if name.startswith(prefixes)}
        )
        shift = 4 - n  # the table counts from the fourth level
        return {
            re.sub(r"^decoder\.up\.(\d)", lambda m: f"decoder.up.{int(m[1]) - shift}", name): s
            for name, s in named.items()
        }

    return half(128, ("encoder", "quant", "post")) | half(decoder_channels, ("decoder",))


def comfyui_loads(shapes: Shapes) -> str:
    """What ComfyUI's VAE class makes of a file: its choice of network, then load_state_dict(strict=False)."""
    if "decoder.up_blocks.0.resnets.0.norm1.weight" in shapes:
        shapes = comfyui_names(shapes)
    if "decoder.conv_in.weight" not in shapes or shapes["decoder.conv_in.weight"][1] == 64:
        return "no"
    mult = (1, 2, 4, 4)
    if "encoder.down.2.downsample.conv.weight" not in shapes and "decoder.up.3.upsample.conv.weight" not in shapes:
        mult = mult[:3]
    width, c = shapes["decoder.conv_in.weight"][:2]
    shapes = {
        re.sub(r"^(de|en)coder\.(post_)?quant_conv", r"\2quant_conv", name): shape for name, shape in shapes.items()
    }
    if (width // mult[-1]) % 32 or not width // mult[-1]:
        return "no"
    network = sd_network(mult, c, "post_quant_conv.weight" in shapes, width // mult[-1])
    if "bn.running_mean" in shapes:
        network = network | {"bn.running_mean": (4 * c,), "bn.running_var": (4 * c,), "bn.num_batches_tracked": ()}
    if any(network[name] != shape for name, shape in shapes.items() if name in network):
        return "no"
    return (
        "yes" if network.keys() - {"bn.num_batches_tracked"} == shapes.keys() - {"bn.num_batches_tracked"} else "wrong"
    )


def webui_loads(shapes: Shapes) -> str:
    """A1111: the model's own network, strictly, without what begins with loss."""
    kept = {
        name: shape
        for name, shape in shapes.items()
        if name[:4] != "loss" and name not in ("model_ema.decay", "model_ema.num_updates")
    }
    networks = (sd_network((1, 2, 4, 4), 4, True), sd_network((1, 2, 4, 4), 16, False))
    return "yes" if kept in networks else "no"


CONFIGS: dict[str, AutoencoderConfig] = {
    "sd1": SD1,
    "flux1": MODELS["flux1"],
    "flux2": MODELS["flux2"],
    "flux2-small-decoder": dataclasses.replace(MODELS["flux2"], decoder_channels=96),
    "own-decoder": dataclasses.replace(SD1, decoder_channels=64),
    "decoder-of-40": dataclasses.replace(SD1, decoder_channels=40, norm_groups=8),
    "x4-upscaler": MODELS["sd-x4-upscaler"],
    "ldm-f16": MODELS["ldm-f16"],
    "ldm-f32": MODELS["ldm-f32"],
    "small": MODELS["small-f8c16"],
    "c8": dataclasses.replace(SD1, latent_channels=8),
    "c64": dataclasses.replace(SD1, latent_channels=64),
    "one-block": dataclasses.replace(SD1, num_res_blocks=1),
    "three-blocks": dataclasses.replace(SD1, num_res_blocks=3),
    "no-middle": dataclasses.replace(SD1, mid_attention=False),
    "attention": dataclasses.replace(SD1, attention_factors=(8,)),
    "quant-only": dataclasses.replace(SD1, post_quant_conv=False),
    "post-only": dataclasses.replace(SD1, quant_conv=False),
    "rgba": dataclasses.replace(SD1, in_channels=4, out_channels=4),
    "two-levels": dataclasses.replace(SD1, channel_mult=(1, 2)),
    "one-level": dataclasses.replace(SD1, channel_mult=(1,)),
    "five-levels": dataclasses.replace(SD1, channel_mult=(1, 2, 4, 4, 4)),
    "own-widths": dataclasses.replace(SD1, channel_mult=(1, 2, 4, 8)),
}  # fmt: skip
"""Architectures at full size, as empty files."""


@pytest.mark.parametrize("layout", ["ldm", "diffusers", "native"])
@pytest.mark.parametrize("name", CONFIGS)
def test_comfyui_and_a1111_by_their_own_rules(name: str, layout: str, tmp_path: Path) -> None:
    """For every architecture and layout, our verdict is what the application's own detection and loading come to."""
    shapes = stored_shapes(CONFIGS[name], layout)
    path = sparse(tmp_path / "vae.safetensors", shapes)
    assert verdict(path, COMFYUI).loads == comfyui_loads(shapes)
    assert verdict(path, WEBUI).loads == webui_loads(shapes)


def test_full_checkpoints_at_home(tmp_path: Path) -> None:
    """A baked VAE loads with its checkpoint, where that keeps it; elsewhere it must be extracted."""
    vae = stored_shapes(SD1, "ldm")
    home = sparse(tmp_path / "sd.safetensors", DENOISER | {f"first_stage_model.{n}": s for n, s in vae.items()})
    away = sparse(tmp_path / "away.safetensors", DENOISER | {f"vae.{n}": s for n, s in vae.items()})
    odd = sparse(tmp_path / "odd.safetensors", {f"module.{n}": s for n, s in vae.items()})
    for application in (WEBUI, COMFYUI):
        assert verdict(home, application).loads == "yes" and "checkpoint" in verdict(home, application).why
        for path in (away, odd):
            assert verdict(path, application).loads == "no" and "vaeworks extract" in verdict(path, application).why


def test_a1111_stops_at_what_training_left(tmp_path: Path) -> None:
    """It skips loss and two names of the average, and no others; ComfyUI skips all."""
    vae = stored_shapes(SD1, "ldm")
    cases = {"loss.logvar": "yes", "model_ema.decay": "yes", "model_ema.encoderconv_inweight": "no"}
    for i, (extra, loads) in enumerate(cases.items()):
        path = sparse(tmp_path / f"{i}.safetensors", vae | {extra: (1,)})
        assert verdict(path, WEBUI).loads == loads == webui_loads(vae | {extra: (1,)})
        assert verdict(path, COMFYUI).loads == "yes"


@pytest.mark.parametrize(
    ("ending", "webui", "comfyui"),
    [(".safetensors", "yes", "yes"), (".sft", "no", "yes"), (".SAFETENSORS", "yes", "yes"), (".weights", "no", "no")],
)
def test_applications_list_files_by_their_endings(ending: str, webui: str, comfyui: str, tmp_path: Path) -> None:
    """A file of another ending is not in the list, whatever is in it."""
    path = sparse(tmp_path / f"vae{ending}", stored_shapes(SD1, "ldm"))
    assert (verdict(path, WEBUI).loads, verdict(path, COMFYUI).loads) == (webui, comfyui)


def test_flat_attention_matrices_are_no_convolutions(tmp_path: Path) -> None:
    """LDM's names with matrices of two dimensions load in diffusers only; converting mends it."""
    shapes = {n: s[:2] if ".attn_1." in n and len(s) == 4 else s for n, s in stored_shapes(SD1, "ldm").items()}
    path = sparse(tmp_path / "vae.safetensors", shapes)
    for application, loads in ((WEBUI, webui_loads), (COMFYUI, comfyui_loads)):
        assert verdict(path, application).loads == loads(shapes) == "no"
        assert "vaeworks convert" in verdict(path, application).why


ASSUMED: dict[str, tuple[AutoencoderConfig, str]] = {
    "padding": (dataclasses.replace(SD1, padding_mode="reflect"), "padding_mode reflect (zeros)"),
    "epsilon": (dataclasses.replace(SD1, norm_eps=1e-5), "norm_eps 1e-05 (1e-06)"),
    "scale": (dataclasses.replace(SD1, decoder_scale=0.25), "norm_eps 6.25e-08 of the decoder"),
    "groups": (dataclasses.replace(SD1, norm_groups=16), "norm_groups 16 (32)"),
    "heads": (dataclasses.replace(SD1, num_heads=2), "num_heads 2 (1)"),
    "scaling": (dataclasses.replace(SD1, scaling_factor=0.5), "vaeworks fold SRC DST --for sd1|sdxl"),
    "shift": (dataclasses.replace(SD1, shift_factor=0.3), "shift_factor 0.3"),
    "channels": (
        dataclasses.replace(
            SD1, normalization="channel", latents_mean=(0.1, 0.2, 0.3, 0.4), latents_std=(1.0, 2.0, 3.0, 4.0)
        ),
        "latents_mean",
    ),
    "sixteen": (dataclasses.replace(MODELS["sd3"], scaling_factor=1.0), "1.5305 and shift_factor 0.0609"),
}
"""What an application cannot know, and what is said of it."""


@pytest.mark.parametrize("case", ASSUMED)
def test_what_applications_assume(case: str, tmp_path: Path) -> None:
    """A file whose tensors fit and whose metadata say otherwise loads, and its pictures are wrong."""
    config, words = ASSUMED[case]
    path = sparse(tmp_path / "vae.safetensors", stored_shapes(config, "ldm"), config_metadata(config))
    for application in (WEBUI, COMFYUI):
        found = verdict(path, application)
        assert found.loads == "wrong" and words in found.why and "\n" not in found.why


def test_normalization_that_applications_share(tmp_path: Path) -> None:
    """The published constants, Playground's for ComfyUI, statistics that are no normalization, and a file that says
    nothing, are right."""
    playground = dataclasses.replace(
        SD1,
        normalization="channel",
        scaling_factor=0.5,
        latents_mean=(-1.6574, 1.886, -1.383, 2.5155),
        latents_std=(8.4927, 5.9022, 6.5498, 5.2299),
    )
    measured = dataclasses.replace(SD1, latents_mean=(0.1, 0.2, 0.3, 0.4), latents_std=(1.0, 2.0, 3.0, 4.0))
    for i, config in enumerate((SD1, MODELS["sdxl"], MODELS["sd3"], MODELS["flux1"], measured, playground)):
        path = sparse(tmp_path / f"{i}.safetensors", stored_shapes(config, "ldm"), config_metadata(config))
        assert verdict(path, COMFYUI).loads == "yes"
        assert verdict(path, WEBUI).loads == ("wrong" if config is playground else "yes")
    located = locate(sparse(tmp_path / "bare.safetensors", stored_shapes(SD1, "ldm")))
    assert support(located)[WEBUI].loads == "yes"


def test_folding_mends_the_scale(tmp_path: Path) -> None:
    """What `fold` is recommended for, it mends; where it would add convolutions that A1111 refuses, it is not
    recommended."""
    config = dataclasses.replace(TINY, scaling_factor=0.7, shift_factor=0.2)
    folded = fold_to(random_vae(config), 0.13025).config
    full = dataclasses.replace(SD1, scaling_factor=folded.scaling_factor, shift_factor=folded.shift_factor)
    located = locate(sparse(tmp_path / "vae.safetensors", stored_shapes(SD1, "ldm")))
    assert support(dataclasses.replace(located, config=full), "ldm")[COMFYUI].loads == "yes"
    sixteen = dataclasses.replace(MODELS["sd3"], scaling_factor=0.7)
    path = sparse(tmp_path / "16.safetensors", stored_shapes(sixteen, "ldm"), config_metadata(sixteen))
    assert "vaeworks fold" in verdict(path, COMFYUI).why and "vaeworks fold" not in verdict(path, WEBUI).why
    quantized = dataclasses.replace(MODELS["sd3"], quant_conv=True, post_quant_conv=True)
    path = sparse(tmp_path / "q.safetensors", stored_shapes(quantized, "ldm"), config_metadata(quantized))
    assert verdict(path, WEBUI).loads == "no" and "quant_conv" in verdict(path, WEBUI).why
    assert verdict(path, COMFYUI).loads == "yes"


def test_what_conversion_would_bring(tmp_path: Path) -> None:
    """`support` with a layout judges the file that vaeworks would write."""
    path = sparse(tmp_path / "vae.safetensors", stored_shapes(SD1, "native"), config_metadata(SD1))
    located = locate(path)
    assert [s.loads for s in support(located).values()] == ["no", "no", "wrong"]
    assert all("vaeworks convert" in s.why for s in support(located).values())
    assert [s.loads for s in support(located, "ldm").values()] == ["yes", "yes", "yes"]
    assert support(located, "diffusers")[DIFFUSERS].loads == "yes"
    converted = sparse(tmp_path / "ldm.safetensors", stored_shapes(SD1, "ldm"), config_metadata(SD1))
    assert support(locate(converted)) == support(located, "ldm")


def test_no_conversion_is_recommended_that_does_not_help(tmp_path: Path) -> None:
    """Where the network itself is another, every layout's answer says so, and converting is recommended where it
    mends."""
    for name in ("small", "own-widths", "rgba", "c64", "no-middle", "one-block"):
        for layout in ("native", "ldm", "diffusers"):
            found = support(
                locate(sparse(tmp_path / f"{name}-{layout}.safetensors", stored_shapes(CONFIGS[name], layout)))
            )
            assert all(
                "no conversion changes that" in found[app].why and "vaeworks convert" not in found[app].why
                for app in (WEBUI, COMFYUI)
            )
    upscaler = support(locate(sparse(tmp_path / "x4.safetensors", stored_shapes(CONFIGS["x4-upscaler"], "diffusers"))))
    assert upscaler[COMFYUI].loads == "no" and "vaeworks convert" in upscaler[COMFYUI].why


# diffusers, for real

DIFFUSERS_CONFIGS: dict[str, AutoencoderConfig] = {
    "plain": TINY,
    "flux1": dataclasses.replace(TINY, latent_channels=16, quant_conv=False, post_quant_conv=False, shift_factor=0.1),
    "attention": dataclasses.replace(TINY, channel_mult=(1, 2, 2), attention_factors=(2, 4)),
    "no-middle": dataclasses.replace(TINY, mid_attention=False),
    "quant-only": dataclasses.replace(TINY, post_quant_conv=False),
    "flux2": dataclasses.replace(TINY, normalization="batchnorm", latents_patch=2),
}


def diffusers_class(config: AutoencoderConfig) -> type:
    return AutoencoderKLFlux2 if config.normalization == "batchnorm" else AutoencoderKL


def loads_equal(load: Callable[[], object], vae: vw.Autoencoder) -> str:
    """Whether diffusers gets the same network out of a file."""
    images = torch.randn(1, vae.config.in_channels, 16, 16, generator=torch.Generator().manual_seed(1))
    try:
        theirs = load()
        latents = theirs.encode(images).latent_dist.mode()  # type: ignore[attr-defined]
        recon = theirs.decode(latents).sample  # type: ignore[attr-defined]
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError):
        return "no"
    expected = vae.encode(images).mode()
    same = torch.allclose(latents, expected, atol=1e-5) and torch.allclose(recon, vae.decode(expected), atol=1e-4)
    return "yes" if same else "wrong"


def old_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    pairs = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    return {re.sub("|".join(map(re.escape, pairs)), lambda m: pairs[m[0]], name): t for name, t in tensors.items()}


@pytest.fixture
def quiet_diffusers() -> None:
    """diffusers logs what it cannot load, at length."""
    import diffusers

    diffusers.logging.set_verbosity(diffusers.logging.CRITICAL)


@pytest.mark.parametrize("name", DIFFUSERS_CONFIGS)
@pytest.mark.usefixtures("quiet_diffusers")
def test_diffusers_single_files_and_folders(name: str, tmp_path: Path) -> None:
    """Our verdict on folders and single files, of present and old names, with prefixes, is what diffusers does with
    them."""
    config = DIFFUSERS_CONFIGS[name]
    vae, kind = random_vae(config), diffusers_class(DIFFUSERS_CONFIGS[name])
    folder = tmp_path / "folder"
    vw.save(vae, folder, "diffusers")
    ldm, present = stored_tensors(vae, "ldm"), stored_tensors(vae, "diffusers")
    old = tmp_path / "old"
    write(old / "diffusion_pytorch_model.safetensors", old_names(present), {"format": "pt"})
    (old / "config.json").write_text((folder / "config.json").read_text())
    for path in (folder, old):
        assert verdict(path, DIFFUSERS).loads == loads_equal(lambda path=path: kind.from_pretrained(path), vae) == "yes"
        assert f"{kind.__name__}.from_pretrained" in verdict(path, DIFFUSERS).why
    files = {
        "ldm": ldm,
        "baked": {f"first_stage_model.{n}": t for n, t in ldm.items()},
        "vae": {f"vae.{n}": t for n, t in ldm.items()},
        "module": {f"module.{n}": t for n, t in ldm.items()},
        "present": present,
        "vae-present": {f"vae.{n}": t for n, t in present.items()},
        "old": old_names(present),
        "loss": {**ldm, "loss.logvar": torch.zeros(1), "model_ema.decay": torch.zeros(1)},
        "double": {n: t.double() if t.is_floating_point() else t for n, t in ldm.items()},
        "native": stored_tensors(vae, "native"),
    }
    for case, tensors in files.items():
        path = write(tmp_path / f"{case}.safetensors", tensors)
        real = loads_equal(lambda path=path: kind.from_single_file(str(path), config=str(folder)), vae)
        assert (case, verdict(path, DIFFUSERS).loads) == (case, real)


@pytest.mark.usefixtures("quiet_diffusers")
def test_diffusers_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pickles with tensors alone and with a trainer's classes, endings, and precisions in the name of the weights."""
    trainer = types.ModuleType("pytorch_lightning")
    trainer.Checkpoint = type("Checkpoint", (), {"__module__": "pytorch_lightning"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pytorch_lightning", trainer)
    vae, folder = random_vae(), tmp_path / "folder"
    vw.save(vae, folder, "diffusers")
    ldm = {name: t.detach().clone() for name, t in stored_tensors(vae, "ldm").items()}
    torch.save({"state_dict": ldm}, tmp_path / "plain.ckpt")
    torch.save({"state_dict": ldm, "callbacks": {trainer.Checkpoint: 1}}, tmp_path / "classes.ckpt")
    monkeypatch.delitem(sys.modules, "pytorch_lightning")
    write(tmp_path / "vae.sft", ldm)
    for name in ("plain.ckpt", "classes.ckpt", "vae.sft"):
        path = tmp_path / name
        real = loads_equal(lambda path=path: AutoencoderKL.from_single_file(str(path), config=str(folder)), vae)
        assert (name, verdict(path, DIFFUSERS).loads) == (name, real)
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.fp16.safetensors")
    found = verdict(folder, DIFFUSERS)
    assert found.loads == "yes" and 'variant="fp16"' in found.why
    assert loads_equal(lambda: AutoencoderKL.from_pretrained(folder), vae) == "no"
    assert loads_equal(lambda: AutoencoderKL.from_pretrained(folder, variant="fp16"), vae) == "yes"


@pytest.mark.parametrize(
    ("change", "loads"), [({}, "yes"), ({"padding_mode": "reflect"}, "wrong"), ({"norm_eps": 1e-2}, "wrong")]
)
@pytest.mark.filterwarnings("ignore:layout 'diffusers' has no place")
def test_what_diffusers_does_not_know(change: dict, loads: str, tmp_path: Path) -> None:
    """Padding and epsilon are lost on diffusers, and its pictures differ."""
    vae = random_vae(dataclasses.replace(TINY, **change))
    vw.save(vae, tmp_path / "vae", "diffusers")
    assert verdict(tmp_path / "vae", DIFFUSERS).loads == loads
    assert loads_equal(lambda: AutoencoderKL.from_pretrained(tmp_path / "vae"), vae) == loads


def test_pipelines_that_do_not_look_at_shift_and_mean(tmp_path: Path) -> None:
    """SD's and SDXL's pipelines ignore shift_factor, all but SDXL's ignore latents_mean; the VAE then needs folding."""
    sixteen = {"latent_channels": 16, "quant_conv": False, "post_quant_conv": False}
    statistics = {"normalization": "channel", "latents_mean": (0.0,) * 16, "latents_std": (1.0,) * 16}
    cases: tuple[tuple[dict, str], ...] = (
        ({"shift_factor": 0.5}, "wrong"),
        ({**sixteen, "shift_factor": 0.5}, "yes"),
        ({**sixteen, **statistics}, "wrong"),
    )
    for i, (change, loads) in enumerate(cases):
        vw.save(random_vae(dataclasses.replace(TINY, **change)), tmp_path / str(i), "diffusers")
        found = verdict(tmp_path / str(i), DIFFUSERS)
        assert found.loads == loads and ("vaeworks fold" in found.why) == (loads == "wrong")


@pytest.mark.parametrize(
    ("name", "diffusers", "comfyui"),
    [("taesd", "yes", "yes"), ("taesd3", "yes", "yes"), ("taef2", "no", "yes"), ("taesana", "no", "no")],
)
def test_taesd(name: str, diffusers: str, comfyui: str, tmp_path: Path) -> None:
    """ComfyUI takes a pair, whose name tells it the scale; diffusers its own folder, where its class has the
    architecture."""
    vae = random_vae(vw.build(name).config)
    vw.save(vae, tmp_path / "pair", "taesd")
    vw.save(vae, tmp_path / "both.safetensors", "taesd")
    pair, both = support(locate(tmp_path / "pair")), support(locate(tmp_path / "both.safetensors"))
    assert pair[COMFYUI].loads == comfyui
    assert both[COMFYUI].loads == ("wrong" if comfyui == "yes" else "no")
    assert pair[WEBUI].loads == both[WEBUI].loads == pair[DIFFUSERS].loads == "no"
    assert support(locate(tmp_path / "pair"), "taesd") == pair
    if diffusers == "no":
        with pytest.raises(vw.ConfigError):
            vw.save(vae, tmp_path / "folder", "diffusers")
        return
    vw.save(vae, tmp_path / "folder", "diffusers")
    assert verdict(tmp_path / "folder", DIFFUSERS) == Support("yes", "AutoencoderTiny.from_pretrained(FOLDER)")
    theirs = AutoencoderTiny.from_pretrained(tmp_path / "folder")
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(theirs.encode(images).latents, vae.encode(images).mode())


# content


def everywhere(vae: vw.Autoencoder, folder: Path) -> dict[str, Path]:
    """One VAE in many files."""
    for layout in ("native", "ldm", "diffusers"):
        vw.save(vae, folder / (layout if layout == "diffusers" else f"{layout}.safetensors"), layout)
    ldm = {name: t.detach().clone() for name, t in stored_tensors(vae, "ldm").items()}
    denoiser = {name: torch.zeros(shape) for name, shape in DENOISER.items()}
    write(folder / "baked.safetensors", {**denoiser, **{f"first_stage_model.{n}": t for n, t in ldm.items()}})
    write(folder / "backward.safetensors", dict(reversed(ldm.items())))
    write(
        folder / "flat.safetensors", {n: t.flatten(1) if ".attn_1." in n and t.ndim == 4 else t for n, t in ldm.items()}
    )
    write(folder / "double.safetensors", {n: t.double() for n, t in ldm.items()})
    write(folder / "leftovers.safetensors", {**ldm, "loss.logvar": torch.ones(1)})
    torch.save(
        {
            "state_dict": {
                n: t.transpose(0, 1).contiguous().transpose(0, 1) if t.ndim > 1 else t for n, t in ldm.items()
            }
        },
        folder / "p.ckpt",
    )
    return {p.name: p for p in folder.iterdir()}


def test_the_same_weights_have_one_hash(tmp_path: Path) -> None:
    """Layout, container, prefix, order, leftovers, wider storage and transposed strides change neither hash nor
    fingerprint."""
    files = everywhere(random_vae(), tmp_path)
    located = {name: locate(path) for name, path in files.items()}
    assert len(located) == 9
    assert len({content_hash(found) for found in located.values()}) == 1
    prints = [fingerprint(found) for found in located.values()]
    assert all(relation(prints[0], other) == "the same weights" for other in prints)


def test_taesd_has_one_hash_too(tmp_path: Path) -> None:
    """A pair, both halves in a file, diffusers' folder and our own layout are the same."""
    vae = random_vae(TinyConfig())
    for layout, name in (
        ("taesd", "pair"),
        ("taesd", "both.safetensors"),
        ("diffusers", "folder"),
        ("native", "ours.safetensors"),
    ):
        vw.save(vae, tmp_path / name, layout)  # type: ignore[arg-type]
    assert len({content_hash(locate(path)) for path in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_changes_the_hash_and_is_recognized(dtype: torch.dtype, tmp_path: Path) -> None:
    """A half-precision copy has another hash, as its values differ, and the same as its own copy in float32; the
    fingerprint knows it."""
    vae = random_vae()
    vw.save(vae, tmp_path / "full.safetensors")
    vw.save(vae, tmp_path / "half.safetensors", dtype=dtype)
    vw.save(vw.load(tmp_path / "half.safetensors").float(), tmp_path / "again.safetensors")
    full, half, again = (locate(tmp_path / f"{name}.safetensors") for name in ("full", "half", "again"))
    assert content_hash(full) != content_hash(half) == content_hash(again)
    assert relation(fingerprint(full), fingerprint(half)) == "the same weights, rounded to fp16/bf16"
    assert relation(fingerprint(half), fingerprint(again)) == "the same weights"


def noisy(vae: vw.Autoencoder, amount: float, seed: int) -> vw.Autoencoder:
    """Every weight moved by this share of its tensor's size."""
    other = random_vae(vae.config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p, q in zip(other.parameters(), vae.parameters(), strict=True):
            p.copy_(q + amount * q.square().mean().sqrt() * torch.randn(q.shape, generator=generator))
    return other


@pytest.mark.parametrize("amount", [0.01, 0.04, 0.2])
def test_fine_tunes_are_related_and_no_copies(amount: float, tmp_path: Path) -> None:
    """The distance is the noise that was added, to a third; the words give it in percent."""
    vae = random_vae()
    vw.save(vae, tmp_path / "a.safetensors")
    vw.save(noisy(vae, amount, seed=3), tmp_path / "b.safetensors")
    a, b = (fingerprint(locate(tmp_path / f"{name}.safetensors")) for name in "ab")
    assert amount * 2 / 3 < distance(a, b) < amount * 3 / 2
    assert re.fullmatch(r"related \(a fine-tune\?\), about [\d.]+ % apart", relation(a, b))
    assert content_hash(locate(tmp_path / "a.safetensors")) != content_hash(locate(tmp_path / "b.safetensors"))


def test_other_weights_are_different(tmp_path: Path) -> None:
    """Two random VAEs, also of one initialization with all norms equal, and VAEs of other architecture have nothing in
    common."""
    torch.manual_seed(0)
    vaes = [
        random_vae(seed=1),
        random_vae(seed=2),
        vw.build(TINY),
        vw.build(TINY),
        random_vae(dataclasses.replace(TINY, latent_channels=8)),
    ]
    prints = []
    for i, vae in enumerate(vaes):
        vw.save(vae, tmp_path / f"{i}.safetensors")
        prints.append(fingerprint(locate(tmp_path / f"{i}.safetensors")))
    for i, a in enumerate(prints):
        assert all(relation(a, b) == "different" for b in prints[i + 1 :])


def test_rescaled_weights_are_related(tmp_path: Path) -> None:
    """Halving every tensor changes no direction, but it is another VAE."""
    vae = random_vae()
    vw.save(vae, tmp_path / "full.safetensors")
    with torch.no_grad():
        for p in vae.parameters():
            p.mul_(0.5)
    vw.save(vae, tmp_path / "half.safetensors")
    full, half = (fingerprint(locate(tmp_path / f"{name}.safetensors")) for name in ("full", "half"))
    assert relation(full, half).startswith("related")


def test_tiny_weights_survive_float16(tmp_path: Path) -> None:
    """A bias that float16 rounds to zero does not make a stranger of a VAE."""
    vae = random_vae()
    with torch.no_grad():
        vae.decoder.conv_in.bias.mul_(1e-8)  # type: ignore[union-attr]
    vw.save(vae, tmp_path / "full.safetensors")
    vw.save(vae, tmp_path / "half.safetensors", dtype=torch.float16)
    full, half = (fingerprint(locate(tmp_path / f"{name}.safetensors")) for name in ("full", "half"))
    assert relation(full, half) == "the same weights, rounded to fp16/bf16"


def test_fingerprints_are_vectors_of_length_one(tmp_path: Path) -> None:
    """32 numbers whose mean square estimates one, of zeros too; kept in JSON they compare as before."""
    vw.save(random_vae(), tmp_path / "a.safetensors")
    found = fingerprint(locate(tmp_path / "a.safetensors"))
    assert len(found) == PROJECTIONS and 0.4 < np.mean(np.square(found)) < 1.8
    assert distance(json.loads(json.dumps(found)), found) == 0
    zeros = fingerprint(locate(sparse(tmp_path / "zeros.safetensors", stored_shapes(TINY, "ldm"))))
    assert 0.4 < np.mean(np.square(zeros)) < 1.8 and relation(zeros, found) == "different"


# the report


def test_identity_of_a_plain_file(tmp_path: Path) -> None:
    """Every fact of an SD-sized LDM file."""
    found = identify(sparse(tmp_path / "vae.safetensors", stored_shapes(SD1, "ldm") | {"loss.logvar": (1,)}))
    expected = {
        "container": "safetensors",
        "layout": "ldm",
        "old_names": False,
        "family": "SD 1 / SD 2 / SDXL (same shapes)",
        "checkpoint": None,
        "baked": False,
        "prefix": "",
        "downsample_factor": 8,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "encoder_widths": (128, 256, 512, 512),
        "decoder_widths": (128, 256, 512, 512),
        "encoder_blocks": (2, 2, 2, 2),
        "decoder_blocks": (3, 3, 3, 3),
        "mid_attention": True,
        "attention_factors": (),
        "quant_conv": True,
        "post_quant_conv": True,
        "dtypes": ("F32",),
        "parameters": 83_653_863,
        "tensors": 248,
        "bytes": 4 * 83_653_863,
        "normalization": "scalar",
        "scaling_factor": 0.18215,
        "normalization_source": "family",
        "ignored": ("loss.logvar",),
        "dropped": (),
        "settings": (),
    }
    assert {name: getattr(found, name) for name in expected} == expected
    assert [s.loads for s in found.support.values()] == ["yes", "yes", "yes"]
    assert any("0.13025" in note for note in found.notes)  # SDXL has the same shapes
    assert json.loads(json.dumps(found.to_dict()))["support"][COMFYUI]["loads"] == "yes"


@pytest.mark.parametrize("name", MODELS)
def test_families_in_words(name: str) -> None:
    """Every published architecture has words, whatever its normalization; changing a width or the latents loses
    them."""
    words = FAMILIES.get(name) or FAMILIES[{"sd2": "sd1", "sdxl": "sd1", "ldm-f8": "sd1", "flux1": "sd3"}[name]]
    config = MODELS[name]
    assert family_in_words(config) == words
    explicit = dataclasses.replace(
        config, norm_eps=1e-5, decoder_channels=config.channels, decoder_channel_mult=config.channel_mult
    )
    assert family_in_words(explicit) == words
    assert family_in_words(dataclasses.replace(config, num_res_blocks=5)) == f"KL {config.name}, own widths"


def test_families_of_the_rest() -> None:
    """TAESD's, and Flux.2's small decoder."""
    own = dataclasses.replace(vw.build("sd1").config, scaling_factor=0.8378)
    assert family_in_words(own) == "SD 1 / SD 2 / SDXL (same shapes), but with a scale of its own"
    sdxl = dataclasses.replace(own, scaling_factor=0.13025)
    assert family_in_words(sdxl) == "SD 1 / SD 2 / SDXL (same shapes)"
    assert {family_in_words(vw.build(name).config) for name in ("taesd", "taesd3", "taef1", "taef2", "taesana")} == {
        "TAESD / TAESDXL (same shapes)",
        "TAESD3 / TAEF1 (same shapes)",
        "TAEF2",
        "TAESana",
    }
    assert family_in_words(TinyConfig(latent_channels=5)) == "TAESD family f8c5, own widths"
    assert family_in_words(CONFIGS["flux2-small-decoder"]) == "Flux.2 with a decoder of other widths"


def test_a_checkpoint_of_seven_gigabytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the VAE's tensors are touched, and of each no more than a sample: the file takes no room, and nothing is
    made of it."""
    vae = {f"first_stage_model.{name}": shape for name, shape in stored_shapes(SD1, "ldm").items()}
    path = sparse(tmp_path / "sd.safetensors", DENOISER | {"model.diffusion_model.huge": (1700, 2**20)} | vae, odd=5)
    assert path.stat().st_size > 7e9
    read: list[str] = []
    sampled = 0
    original = Archive.chunks

    class Counted:
        """A tensor's bytes that count those which are looked at."""

        def __init__(self, content: bytes | memoryview):
            self.content = content

        def __getitem__(self, part: slice) -> bytes:
            nonlocal sampled
            sampled += len(self.content[part])
            return bytes(self.content[part])

    def counting(self: Archive, name: str) -> Iterator[Counted]:
        read.append(name)
        return map(Counted, original(self, name))

    monkeypatch.setattr(Archive, "chunks", counting)
    monkeypatch.setattr(Archive, "read", None)
    found = identify(path)
    assert found.baked and found.checkpoint == "SD 1" and found.prefix == "first_stage_model."
    assert set(read) == set(vae) and len(read) == 3 * len(vae)  # for the hash, the fingerprint, and holes
    assert 0 < sampled <= 3 * len(vae) * 256 * 4


def test_identifying_needs_no_pytorch() -> None:
    """Importing it would take longer than everything else together."""
    code = "import sys, vaeworks.formats.identify; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )


def test_identity_for_people(tmp_path: Path) -> None:
    """Rows of text for every kind of file, none of them empty."""
    for name, config in (
        ("sd1", SD1),
        ("flux1", MODELS["flux1"]),
        ("flux2", MODELS["flux2"]),
        ("f16", MODELS["ldm-f16"]),
    ):
        rows = dict(identify(sparse(tmp_path / f"{name}.safetensors", stored_shapes(config, "ldm"))).rows())
        assert all(rows.values())
        assert rows["family"] == family_in_words(config) and config.name in rows["latents"]
    assert dict(identify(tmp_path / "flux1.safetensors").rows())["normalization"].startswith("(latents - 0.") is True
    assert "at 1/16" in dict(identify(tmp_path / "f16.safetensors").rows())["attention"]
    baked = sparse(
        tmp_path / "baked.safetensors",
        DENOISER | {f"first_stage_model.{n}": s for n, s in stored_shapes(SD1, "ldm").items()},
    )
    assert dict(identify(baked).rows())["baked"] == "in a checkpoint of SD 1, under first_stage_model."


def test_identities_of_every_layout_agree(tmp_path: Path) -> None:
    """What does not depend on the file is the same for all files of one VAE."""
    names = (
        "family",
        "downsample_factor",
        "in_channels",
        "latent_channels",
        "encoder_widths",
        "decoder_widths",
        "encoder_blocks",
        "decoder_blocks",
        "mid_attention",
        "attention_factors",
        "quant_conv",
        "post_quant_conv",
        "parameters",
        "tensors",
        "content_hash",
    )
    found = [identify(path) for path in everywhere(random_vae(), tmp_path).values()]
    for name in names:
        assert len({getattr(identity, name) for identity in found}) == 1, name


def test_the_real_taef2(test_data: Path) -> None:
    """The published pair, its halves named apart."""
    found = identify(test_data / "weights" / "taef2")
    assert (found.family, found.container, found.dtypes, found.latent_channels) == ("TAEF2", "pair", ("F16",), 32)
    assert found.support[COMFYUI].loads == "yes" and "taef2" in found.support[COMFYUI].why
    assert identify(test_data / "weights" / "taef2" / "taef2_decoder.pth").content_hash == found.content_hash
