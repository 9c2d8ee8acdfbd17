"""Model files as people have them: mixed dialects, wrapped names, nested dicts, and other things beside the VAE."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from checkpoints import F8C4, checkpoint, denoiser, random_vae
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

import vaeworks as vw
from vaeworks.cli.main import main
from vaeworks.config import AutoencoderConfig
from vaeworks.formats.apps import support
from vaeworks.formats.io import read, stored_tensors
from vaeworks.formats.locate import locate
from vaeworks.models.init import linear_init_

PLAIN = AutoencoderConfig(channels=32, channel_mult=(1, 1, 1, 2), num_res_blocks=1, scaling_factor=0.18215)
"""As SD's, but narrow: with 32 groups, which shapes do not show."""

Tensors = dict[str, Tensor]

LAYOUTS = ("native", "ldm", "diffusers")
DIALECTS = {
    "ldm": ("norm", "q", "k", "v", "proj_out"),
    "diffusers": ("group_norm", "to_q", "to_k", "to_v", "to_out.0"),
    "old": ("group_norm", "query", "key", "value", "proj_attn"),
    "native": ("norm", "query", "key", "value", "out"),
}
OWN = {"native": "native", "ldm": "ldm", "diffusers": "diffusers"}


def tensors(layout: str = "ldm", seed: int = 0) -> Tensors:
    return {name: t.detach().clone() for name, t in stored_tensors(random_vae(PLAIN, seed), layout).items()}


def same(path: Path, seed: int = 0, **settings: object) -> bool:
    """Whether the file holds the VAE of this seed."""
    theirs = read(locate(path, **settings)).state_dict()
    return all(torch.equal(t, theirs[name]) for name, t in random_vae(PLAIN, seed).state_dict().items())


def saved(path: Path, content: Tensors) -> Path:
    save_file({name: t.contiguous() for name, t in content.items()}, path)
    return path


# ---------------------------------------------------------------------- A dialect of attention in any layout


@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_dialect_of_attention_in_every_layout(tmp_path: Path, layout: str, dialect: str, rank: int) -> None:
    own = DIALECTS[OWN[layout]]
    attention = re.compile(r"(.*\.(?:attn_1|attentions\.0|attention)\.)(.*)\.(weight|bias)")
    content = {}
    for name, tensor in tensors(layout).items():
        if match := attention.fullmatch(name):
            name = f"{match[1]}{DIALECTS[dialect][own.index(match[2])]}.{match[3]}"
            if tensor.ndim > 1:
                tensor = tensor.flatten(1).reshape(*tensor.shape[:2], *[1] * (rank - 2))
        content[name] = tensor
    path = saved(tmp_path / "vae.safetensors", content)
    assert same(path)
    found = locate(path)
    translated = dialect == own or (layout, dialect) in (("diffusers", "old"), ("native", "native"), ("ldm", "ldm"))
    assert bool(found.foreign) != (translated or DIALECTS[dialect] == own)
    if found.foreign:
        loads = support(found)
        assert {found.loads for found in loads.values()} == {"no"}
        assert layout == "native" or any(found.foreign in verdict.why for verdict in loads.values())
        vw.convert(path, tmp_path / "mended.safetensors", "ldm", settings={"scale_of": "sd1"})
        assert not locate(tmp_path / "mended.safetensors").foreign


def test_extract_mends_names(tmp_path: Path) -> None:
    """The published case: an SD checkpoint whose attention a faulty script had renamed."""
    renamed = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
    mixed = {
        re.sub(r"attn_1\.(q|k|v|proj_out)\.", lambda m: f"attn_1.{renamed[m[1]]}.", name): (
            t.flatten(1) if "attn_1" in name and t.ndim == 4 else t
        )
        for name, t in tensors().items()
    }
    checkpoint(tmp_path / "full.safetensors", mixed)
    vw.extract(tmp_path / "full.safetensors", tmp_path / "vae.safetensors")
    assert same(tmp_path / "vae.safetensors")
    names = locate(tmp_path / "vae.safetensors").archive.entries
    assert "encoder.mid.attn_1.q.weight" in names and names["encoder.mid.attn_1.q.weight"].shape[2:] == (1, 1)


# ---------------------------------------------------------------------- Wrappers within names


WRAPPINGS: dict[str, Callable[[str], str]] = {
    "compiled": lambda n: f"_orig_mod.{n}",
    "compiled halves": lambda n: re.sub(r"^(encoder|decoder)\.", r"\1._orig_mod.", n),
    "parallel": lambda n: f"module.{n}",
    "compiled in parallel": lambda n: f"module._orig_mod.{n}",
    "sharded": lambda n: f"_fsdp_wrapped_module.{n}".replace(".block.0.", ".block.0._fsdp_wrapped_module."),
    "checkpointed": lambda n: n.replace(".mid.block_1.", ".mid.block_1._checkpoint_wrapped_module."),
    "checkpointed and compiled": lambda n: n.replace(".block_2.", ".block_2._checkpoint_wrapped_module._orig_mod."),
    "a part of a checkpoint": lambda n: f"first_stage_model.{n.replace('decoder.', 'decoder._orig_mod.')}",
    "engine": lambda n: f"_forward_module.model.{n}",
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrapped_names(tmp_path: Path, wrapping: str) -> None:
    path = saved(tmp_path / "vae.safetensors", {WRAPPINGS[wrapping](name): t for name, t in tensors().items()})
    assert same(path)
    assert {verdict.loads for verdict in support(locate(path)).values()} == {"no"}, "no application unwraps them"


def test_wrapped_and_bare_names_are_two_vaes(tmp_path: Path) -> None:
    """One is no duplicate of the other."""
    content = tensors() | {f"module.{name}": t for name, t in tensors(seed=1).items()}
    path = saved(tmp_path / "vae.safetensors", content)
    found = locate(path)
    assert (found.title, found.others) == ("raw", ("module",))
    assert "it holds 2 VAEs: raw is taken; --weights module takes module" in found.doubts[0]
    assert same(path)
    assert same(path, seed=1, weights="module")
    assert not any("VAEs" in doubt for doubt in locate(path, weights="module").doubts), "it was asked for"


# ---------------------------------------------------------------------- Things beside the VAE


BESIDE: dict[str, tuple[str, Tensors]] = {
    "VA-VAE": ("", {"foundation_model.model.cls_token": torch.zeros(1, 1), "linear_proj.weight": torch.randn(4, 4)}),
    "discriminator": ("", {"discriminator.main.0.weight": torch.randn(8, 3, 4, 4)}),
    "lpips": ("", {"lpips.net.slice1.0.weight": torch.randn(8, 3, 3, 3)}),
    "vocoder": ("first_stage_model.", {"first_stage_model.vocoder.conv_pre.weight_g": torch.randn(8, 1, 1)}),
    "second encoder": ("first_stage_model.", {"first_stage_model.denoise_encoder.conv_in.weight": torch.randn(8, 3)}),
    "teacher": ("", {"teacher.blocks.0.attn.qkv.weight": torch.randn(8, 8), "teacher.pos_embed": torch.zeros(3)}),
    "what training leaves": ("", {"loss.logvar": torch.zeros(())}),
}  # fmt: skip


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("name", BESIDE)
def test_what_lies_beside_is_listed(tmp_path: Path, name: str, pickled: bool) -> None:
    prefix, extra = BESIDE[name]
    content = {prefix + key: t for key, t in tensors().items()} | extra
    path = tmp_path / ("m.ckpt" if pickled else "m.safetensors")
    if pickled:
        torch.save({"state_dict": content}, path)
    else:
        saved(path, content)
    assert same(path)
    found = locate(path)
    assert {*found.beside, *found.ignored} == set(extra)
    row = dict(vw.inspect(path).rows())["beside it"]
    head = next(iter(extra)).removeprefix(prefix).split(".")[0]
    assert head in row
    if name != "what training leaves":
        vw.extract(path, tmp_path / "vae.safetensors")
        assert same(tmp_path / "vae.safetensors")
    if not prefix and name != "what training leaves":
        assert support(found)["A1111/Forge"].loads == "no", "it stops at what is no part of a VAE"


@pytest.mark.parametrize("part", ["encoder", "decoder", "quant_conv", "post_quant_conv"])
def test_what_lies_inside_is_an_error(tmp_path: Path, part: str) -> None:
    path = saved(tmp_path / "m.safetensors", tensors() | {f"{part}.extra.weight": torch.zeros(3)})
    with pytest.raises(vw.FormatError, match=f"{part}.extra.weight"):
        vw.load(path)


@pytest.mark.parametrize("shape", [(-1,), (1, -1, 1, 1)])
@pytest.mark.parametrize("names", [("latents_mean", "latents_std"), ("latent_mean", "latent_std")])
def test_statistics_beside_it_are_its_normalization(tmp_path: Path, names: tuple[str, str], shape: tuple) -> None:
    mean, std = torch.tensor([0.1, -0.2, 0.3, 0.0]), torch.tensor([0.5, 1.0, 2.0, 4.0])
    stated = {names[0]: mean.reshape(shape), names[1]: std.reshape(shape)}
    path = saved(tmp_path / "m.safetensors", tensors() | stated)
    vae = read(locate(path))
    assert vae.config.normalization_known
    latents = torch.randn(2, 4, 3, 3)
    expected = (latents - mean[:, None, None]) / std[:, None, None]
    assert torch.allclose(vae.normalize(latents), expected, atol=1e-6)
    assert "tensors beside it" in dict(vw.inspect(path).rows())["normalization"]


@pytest.mark.parametrize("std", [[1.0, 2.0], [1.0, 0.0, 1.0, 1.0], [1.0, float("nan"), 1.0, 1.0]])
def test_statistics_that_normalize_nothing_are_refused(tmp_path: Path, std: list[float]) -> None:
    path = saved(tmp_path / "m.safetensors", tensors() | {"latents_std": torch.tensor(std)})
    with pytest.raises(vw.FormatError, match="latents_mean and latents_std"):
        vw.load(path)


# ---------------------------------------------------------------------- The scale that a checkpoint states


@pytest.mark.parametrize(
    ("stated", "dtype", "expected"),
    [(0.2311, torch.float32, 0.2311), (0.18215, torch.float16, 0.18215), (0.9227914214, torch.float64, 0.9227914214)],
)
@pytest.mark.parametrize("shape", [(), (1,)])
def test_scale_factor_of_a_checkpoint(
    tmp_path: Path, stated: float, dtype: torch.dtype, expected: float, shape
) -> None:
    """LDM's own buffer is the scale of this VAE's latents, whatever the published VAE of this architecture has."""
    path = tmp_path / "full.safetensors"
    vae = {f"first_stage_model.{name}": t.contiguous() for name, t in tensors().items()}
    saved(path, denoiser() | vae | {"scale_factor": torch.tensor(stated, dtype=dtype).reshape(shape)})
    vw.extract(path, tmp_path / "vae.safetensors")
    for file in (path, tmp_path / "vae.safetensors"):
        config = locate(file).config
        assert config.normalization_known
        assert config.scaling_factor == pytest.approx(expected, rel=1e-7)
    assert "tensors beside it" in dict(vw.inspect(path).rows())["normalization"]


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_scale_factor_that_scales_nothing_is_refused(tmp_path: Path, value: float) -> None:
    saved(
        tmp_path / "m.safetensors",
        denoiser()
        | {f"first_stage_model.{n}": t for n, t in tensors().items()}
        | {"scale_factor": torch.tensor(value)},
    )
    with pytest.raises(vw.FormatError, match="scale_factor"):
        vw.load(tmp_path / "m.safetensors")


# ---------------------------------------------------------------------- Dicts within dicts


@pytest.mark.parametrize(
    "key",
    ["state_dict", "model_state_dict", "vae_state_dict", "autoencoder_state_dict", "generator", "net", "ema", "mine"],
)
@pytest.mark.parametrize("depth", [1, 2])
def test_wrapper_keys(tmp_path: Path, key: str, depth: int) -> None:
    content: dict = tensors()
    for _ in range(depth):
        content = {key: content}
    torch.save(
        {"epoch": 3, "optimizer_state_dict": {"state": {0: torch.zeros(3)}, "param_groups": []}} | content,
        tmp_path / "m.pt",
    )
    assert same(tmp_path / "m.pt")


def test_halves_apart(tmp_path: Path) -> None:
    content = tensors()
    halves = {
        half: {name[len(half) + 1 :]: t for name, t in content.items() if name.startswith(f"{half}.")}
        for half in ("encoder", "decoder", "quant_conv", "post_quant_conv")
    }
    for number, wrapped in enumerate((halves, {"vae": halves, "step": 3}, {"state_dict": halves})):
        torch.save(wrapped, tmp_path / f"{number}.pt")
        assert same(tmp_path / f"{number}.pt")


@pytest.mark.parametrize("keys", [("state_dict", "ema_state_dict"), ("model", "model_ema"), ("ema", "net")])
def test_raw_and_average_are_a_choice(tmp_path: Path, keys: tuple[str, str], capsys: pytest.CaptureFixture) -> None:
    """The raw weights are taken, and it is said; the user may take the others, on the command line too."""
    seeds = {key: int("ema" in key) for key in keys}
    torch.save({key: tensors(seed=seed) for key, seed in seeds.items()}, tmp_path / "m.pt")
    assert re.match(r"it holds 2 VAEs: .* --weights .*ema", locate(tmp_path / "m.pt").doubts[0])
    assert same(tmp_path / "m.pt", seed=0)
    assert same(tmp_path / "m.pt", seed=1, weights="ema")
    out = tmp_path / "vae.safetensors"
    words = [str(tmp_path / "m.pt"), str(out), "--layout", "ldm", "--weights", "ema", "--set", "scale_of=sd1"]
    assert main(["convert", *words]) == 0
    assert same(out, seed=1)
    with pytest.raises(vw.ConfigError, match=r"weights \(='best'\) must name one of the VAEs"):
        vw.load(tmp_path / "m.pt", weights="best")


def test_ldms_own_average_is_a_choice(tmp_path: Path) -> None:
    """LDM takes the dots out of the names of its average."""
    averaged = {f"model_ema.{name.replace('.', '')}": t for name, t in tensors(seed=1).items()}
    path = saved(tmp_path / "m.safetensors", tensors() | averaged | {"model_ema.decay": torch.tensor(0.999)})
    assert locate(path).others == ("ema",)
    assert same(path, seed=1, weights="ema")
    averaged.popitem()
    assert locate(saved(tmp_path / "torn.safetensors", tensors() | averaged)).others == ()


# ---------------------------------------------------------------------- config.json beside any file


def _folder(folder: Path, name: str) -> Path:
    """A VAE as diffusers saves it, with a scale of its own, whose weights have another name."""
    vw.save(random_vae(PLAIN), folder, layout="diffusers")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"scaling_factor": 0.41407, "norm_num_groups": 16}))
    weights = tensors("diffusers")
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    if name.endswith(".safetensors"):
        saved(folder / name, weights)
    elif name.endswith(".json"):
        stem = name[: name.index(".safetensors")]
        saved(folder / f"{stem}-00001-of-00001.safetensors", weights)
        index = {"metadata": {}, "weight_map": dict.fromkeys(weights, f"{stem}-00001-of-00001.safetensors")}
        (folder / name).write_text(json.dumps(index))
    else:
        torch.save(weights, folder / name)
    return folder / name


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "pytorch_model.bin",
        "my-vae.safetensors",
        "ae.pt",
        "diffusion_pytorch_model.safetensors.index.fp16.json",
        "diffusion_pytorch_model.fp16.safetensors.index.json",
        "model.safetensors.index.json",
    ],
)
@pytest.mark.parametrize("by", ["file", "folder"])
def test_config_beside_any_name(tmp_path: Path, name: str, by: str) -> None:
    path = _folder(tmp_path / "vae", name)
    config = vw.load(path if by == "file" else path.parent).config
    assert (config.scaling_factor, config.norm_groups, config.normalization_known) == (0.41407, 16, True)
    assert not any("no config.json" in note for note in vw.inspect(path).notes)


def test_a_config_of_another_vae_is_not_used(tmp_path: Path) -> None:
    """A folder of many VAEs may have one config.json, which describes one of them."""
    path = _folder(tmp_path / "vae", "mine.safetensors")
    other = saved(
        path.with_name("other.safetensors"),
        {n: t.detach() for n, t in stored_tensors(random_vae(F8C4), "ldm").items()},
    )
    found = vw.inspect(other)
    assert found.scaling_factor != 0.41407
    assert any("describes another VAE" in note for note in found.notes)
    with pytest.raises(vw.FormatError, match="several files of weights"):
        vw.load(path.parent)


# ---------------------------------------------------------------------- Broken downloads


@pytest.mark.parametrize(("first", "last"), [(0.6, 1.0), (0.3, 0.5), (0.02, 0.2), (0.9, 1.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_holes_of_zeros(tmp_path: Path, first: float, last: float, dtype: torch.dtype) -> None:
    """A file of the right size and header, whose bytes are zero from one share of it to another."""
    path = saved(tmp_path / "vae.safetensors", {name: t.to(dtype) for name, t in tensors().items()})
    content = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    start, stop = (header + int(share * (len(content) - header)) for share in (first, last))
    content[start:stop] = bytes(stop - start)
    path.write_bytes(content)
    count = sum(not t.any() for name, t in read_anyway(path).items() if name.endswith(".weight"))
    assert count
    assert re.match(
        r"it has \d+ of \d+ weights that begin with zeros only.*; download it again", vw.inspect(path).notes[0]
    )
    for act in (locate_and_read, lambda p: vw.convert(p, tmp_path / "out.safetensors", "ldm")):
        with pytest.raises(vw.FormatError, match=rf"has {count} of \d+ weights that are zero .*; download it again"):
            act(path)
    assert not (tmp_path / "out.safetensors").exists()


def read_anyway(path: Path) -> Tensors:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def locate_and_read(path: Path) -> object:
    return read(locate(path))


def test_a_checkpoint_with_a_hole_is_not_extracted(tmp_path: Path) -> None:
    content = tensors()
    content["decoder.norm_out.weight"].zero_()
    checkpoint(tmp_path / "full.safetensors", content)
    with pytest.raises(vw.FormatError, match="download it again"):
        vw.extract(tmp_path / "full.safetensors", tmp_path / "vae.safetensors")
    assert not (tmp_path / "vae.safetensors").exists()


@pytest.mark.parametrize("start", ["random", "linear", "zero biases", "one half is fresh"])
def test_networks_that_were_never_trained_are_no_holes(tmp_path: Path, start: str) -> None:
    vae = vw.build(PLAIN)
    if start != "random":
        linear_init_(vae, torch.Generator().manual_seed(0))
    if start == "zero biases":
        for name, parameter in vae.named_parameters():
            if name.endswith(".bias"):
                parameter.data.zero_()
    if start == "one half is fresh":
        vae.decoder.load_state_dict(random_vae(PLAIN).decoder.state_dict())
    vw.save(vae, tmp_path / "vae.safetensors")
    vw.load(tmp_path / "vae.safetensors")


# ---------------------------------------------------------------------- What is no file of a model


def test_a_link_to_nothing_says_so(tmp_path: Path) -> None:
    link = tmp_path / "vae.safetensors"
    link.symlink_to("/nowhere/blob")
    for act in (vw.load, lambda p: vw.evaluate(random_vae(F8C4), p), lambda p: vw.decode(random_vae(F8C4), p)):
        with pytest.raises(vw.VaeworksError, match="is a link to '/nowhere/blob', which does not exist; download"):
            act(link)


@pytest.mark.filterwarnings("ignore")  # of torch.distributed
def test_distributed_checkpoints_say_what_they_are(tmp_path: Path) -> None:
    dcp.save({"model": tensors()}, checkpoint_id=str(tmp_path / "dcp"), no_dist=True)
    for path in (tmp_path / "dcp", next((tmp_path / "dcp").glob("*.distcp"))):
        with pytest.raises(vw.FormatError, match=r"format_utils dcp_to_torch \S*dcp model.pt"):
            vw.load(path)
    dcp_to_torch_save(tmp_path / "dcp", tmp_path / "model.pt")
    assert same(tmp_path / "model.pt"), "the remedy works"


def test_padding_can_be_told(tmp_path: Path) -> None:
    """A VAE that was trained with reflection padding, in a file that does not say so."""
    reflecting = vw.build(dataclasses.replace(PLAIN, padding_mode="reflect"))
    content = {n: t.detach().clone() for n, t in stored_tensors(reflecting, "ldm").items()}
    path = saved(tmp_path / "vae.safetensors", content)
    told = vw.load(path, padding_mode="reflect", norm_groups=32, scale_of="sd1", num_heads=1, norm_eps=1e-6)
    latents = torch.randn(1, 4, 4, 4)
    assert torch.equal(told.decode(latents), reflecting.eval().decode(latents))
    facts = ["padding_mode=reflect", "norm_groups=32", "scale_of=sd1", "num_heads=1", "norm_eps=1e-6"]
    words = [word for fact in facts for word in ("--set", fact)]
    assert main(["convert", str(path), str(tmp_path / "told.safetensors"), "--layout", "native", *words]) == 0
    assert vw.load(tmp_path / "told.safetensors").config.padding_mode == "reflect"
