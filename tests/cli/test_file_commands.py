"""inspect, convert, extract, bake, install, match, fold, repair from the command line: what is said, written,
refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import vaeworks as vw
from vaeworks.cli import main
from vaeworks.config import MODELS, AutoencoderConfig
from vaeworks.formats.io import stored_tensors
from vaeworks.models.init import linear_init_
from vaeworks.runtime import scale_activations

SMALL = AutoencoderConfig(
    channels=32, channel_mult=(1, 2, 2, 2), num_res_blocks=1, scaling_factor=0.5, shift_factor=0.1
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vae.safetensors, a working linear codec; model.safetensors, a checkpoint with its fold for SD 1."""
    root = tmp_path_factory.mktemp("place")
    vae = vw.build(SMALL).eval()
    linear_init_(vae, torch.Generator().manual_seed(0))
    vw.save(vae, root / "vae.safetensors")
    main(["fold", str(root / "vae.safetensors"), str(root / "folded.safetensors"), "--for", "sd1"])
    unet = {
        "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3),
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.ones(320, 768).half(),
        "model.diffusion_model.out.2.weight": torch.zeros(4, 320, 3, 3).bfloat16(),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
    }
    baked = {f"first_stage_model.{name}": t for name, t in load_file(root / "folded.safetensors").items()}
    save_file({**unet, **baked}, root / "model.safetensors", metadata={"modelspec.title": "a model"})
    return root


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[Any, str]:
    """(the JSON document, what people read)"""
    assert main([*map(str, words), "--json"]) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


def error(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(w) for w in words]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("vaeworks: ")
    return said


def test_inspect(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One file is a document; several are compared."""
    told, said = run(capsys, "inspect", place / "model.safetensors")
    assert (told["baked"], told["prefix"], told["scaling_factor"], told["latent_channels"]) == (
        True,
        "first_stage_model.",
        0.18215,
        4,
    )
    assert set(told["support"]) == {"diffusers", "A1111/Forge", "ComfyUI"}
    assert "SD 1" in said
    told, said = run(
        capsys, "inspect", place / "model.safetensors", place / "folded.safetensors", place / "vae.safetensors"
    )
    assert told["relations"][0]["relation"] == "the same weights"
    assert told["files"][0]["content_hash"] == told["files"][1]["content_hash"] != told["files"][2]["content_hash"]


def test_inspect_needs_no_torch(place: Path) -> None:
    """A file is told without the second that importing PyTorch takes."""
    code = (
        f"import sys; from vaeworks.cli import main; code = main(['inspect', {str(place / 'model.safetensors')!r}]); "
        "sys.exit(code or 9 * ('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_convert_there_and_back(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through every layout the weights come back bit for bit; what a layout has no place for is said."""
    source = place / "vae.safetensors"
    for layout in ("ldm", "diffusers", "native"):
        target = tmp_path / f"{layout}.safetensors"
        told, said = run(capsys, "convert", source, target, "--layout", layout)
        assert told["same_content"]
        assert "as before" in said
        assert any("scaling_factor 0.5" in note for note in told["notes"]) == (layout == "ldm")
        source = target
    before, after = vw.load(place / "vae.safetensors"), vw.load(source)
    assert before.config == after.config
    assert all(torch.equal(t, after.state_dict()[name]) for name, t in before.state_dict().items())
    told, said = run(capsys, "convert", source, tmp_path / "half.safetensors", "--layout", "native", "--dtype", "fp16")
    assert not told["same_content"]
    assert "rounded from" in said
    assert vw.load(tmp_path / "half.safetensors").dtype == torch.float16


def test_extract_and_bake(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Out of a checkpoint and into it again: every tensor has its bytes, the title is kept."""
    model = place / "model.safetensors"
    run(capsys, "extract", model, tmp_path / "vae.safetensors")
    told, _ = run(capsys, "bake", tmp_path / "vae.safetensors", model, tmp_path / "again.safetensors")
    assert told["prefix"] == "first_stage_model."
    a, b = load_file(model), load_file(tmp_path / "again.safetensors")
    assert a.keys() == b.keys()
    assert all(torch.equal(t, b[name]) and t.dtype == b[name].dtype for name, t in a.items())
    assert "exists" in error(capsys, "bake", tmp_path / "vae.safetensors", model, tmp_path / "again.safetensors")
    assert (
        main(["bake", str(tmp_path / "vae.safetensors"), str(model), str(tmp_path / "again.safetensors"), "--force"])
        == 0
    )


def test_match_and_its_picture(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folded VAE fits, the unfolded one would give wrong pictures, which are shown."""
    told, said = run(
        capsys, "match", place / "model.safetensors", place / "vae.safetensors", "--out", tmp_path / "fog.png"
    )
    assert told["candidates"][0]["verdict"] == "fits after fold"
    assert "vaeworks fold" in said
    assert (tmp_path / "fog.png").stat().st_size > 10_000
    told, _ = run(capsys, "match", place / "model.safetensors", place / "folded.safetensors")
    assert told["candidates"][0]["verdict"] == "fits"
    assert "exists" in error(capsys, "match", place / "model.safetensors", "--out", tmp_path / "fog.png")


def test_repair(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A decoder that overflows in float16 is repaired, with the error said; a healthy one stays as it is."""
    vw.save(scale_activations(vw.load(place / "vae.safetensors"), decoder=2.0**16), tmp_path / "loud.safetensors")
    (tmp_path / "images").mkdir()
    Image.effect_mandelbrot((64, 64), (-2.0, -1.2, 1.0, 1.2), 60).convert("RGB").save(tmp_path / "images" / "one.png")
    options = ["--for", "fp16", "--headroom", "2", "--data", tmp_path / "images"]
    told, said = run(capsys, "repair", tmp_path / "loud.safetensors", tmp_path / "quiet.safetensors", *options)
    assert told["needed"]
    assert told["scales"]["decoder"] < 1
    assert "not finite" in said
    assert vw.load(tmp_path / "quiet.safetensors").kl_config.decoder_scale == told["scales"]["decoder"] * 2.0**16
    told, said = run(capsys, "repair", tmp_path / "quiet.safetensors", tmp_path / "again.safetensors", *options)
    assert not told["needed"]
    assert "unchanged" in said


def test_install_refuses_what_the_application_cannot_load(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A VAE of own widths is refused before anything is written; so is a folder that is no web UI."""
    (tmp_path / "webui" / "models" / "VAE").mkdir(parents=True)
    (tmp_path / "webui" / "models" / "Stable-diffusion").mkdir()
    assert "width" in error(capsys, "install", place / "folded.safetensors", "--into", "webui", tmp_path / "webui")
    said = error(capsys, "install", place / "vae.safetensors", "--into", "webui", tmp_path / "webui")
    assert "width" in said and "--for" not in said  # no checkpoint would help
    assert not list((tmp_path / "webui" / "models" / "VAE").iterdir())
    assert "models" in error(capsys, "install", place / "vae.safetensors", "--into", "webui", place)


def other_kinds(folder: Path) -> None:
    save_file({"lora_unet_down_blocks_0.lora_down.weight": torch.zeros(4, 320)}, folder / "lora.safetensors")
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3)}, folder / "unet.safetensors")


@pytest.mark.parametrize("command", ["inspect", "convert", "extract", "fold", "repair", "install", "bake", "match"])
def test_bad_input(command: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is missing, an empty folder, a LoRA, a U-Net and a torn file: one line each that says what it is."""
    other_kinds(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "models" / "checkpoints").mkdir(parents=True)
    (tmp_path / "torn.safetensors").write_bytes((place / "vae.safetensors").read_bytes()[:5000])
    cases = {
        "missing": "exist",
        "empty": "",
        "lora.safetensors": "LoRA",
        "unet.safetensors": "without a VAE|no VAE",
        "torn.safetensors": "again",
    }
    for name, words in cases.items():
        given = tmp_path / name
        rest: list[object] = {
            "inspect": [],
            "convert": [tmp_path / "out", "--layout", "native"],
            "extract": [tmp_path / "out.safetensors"],
            "fold": [tmp_path / "out", "--scaling-factor", "1"],
            "repair": [tmp_path / "out.safetensors"],
            "install": ["--into", "comfyui", tmp_path],
            "bake": [place / "model.safetensors", tmp_path / "out.safetensors"],
            "match": [],
        }[command]
        if (command, name) == ("match", "unet.safetensors"):
            continue  # a checkpoint without a VAE is what match is for
        said = error(capsys, command, given, *rest)
        assert str(name) in said or str(tmp_path) in said
        assert any(word in said for word in words.split("|")), said
    assert not {p.name for p in tmp_path.iterdir()} - {"empty", "models", *cases}
    assert not list((tmp_path / "models" / "checkpoints").iterdir())


@pytest.mark.parametrize("order", [("good", "bad", "good"), ("bad", "good"), ("bad", "bad")])
def test_inspect_of_several_reports_each(
    order: tuple[str, ...], place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bad file among good ones has its line, and the good ones their report; the exit code says that one failed."""
    files = {"good": place / "vae.safetensors", "bad": tmp_path / "bad.safetensors"}
    files["bad"].write_text("version https://git-lfs.github.com/spec/v1\n")
    assert main(["inspect", *(str(files[name]) for name in order), "--json"]) == 2
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert [file["path"] for file in found["files"]] == [str(files["good"])] * order.count("good")
    assert [file["path"] for file in found["failed"]] == [str(files["bad"])] * order.count("bad")
    assert len(found["relations"]) == (1 if order.count("good") == 2 else 0)
    assert err.count("is a git-lfs pointer") == order.count("bad") and err.count("family") == order.count("good")


def test_existing_destinations_are_kept(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --overwrite nothing is overwritten; the message names it."""
    for command, rest in {"convert": ["--layout", "ldm"], "fold": ["--scaling-factor", "1"], "repair": []}.items():
        target = tmp_path / f"{command}.safetensors"
        target.write_text("precious")
        assert "--overwrite" in error(capsys, command, place / "vae.safetensors", target, *rest)
        assert target.read_text() == "precious"
    assert "either" in error(capsys, "fold", place / "vae.safetensors", tmp_path / "x")
    assert "f8c16" in error(capsys, "fold", place / "vae.safetensors", tmp_path / "x.safetensors", "--for", "sd3")


def test_a_full_disk_is_told_before_writing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    """bake and extract look at the free space first and leave nothing behind."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    said = error(capsys, "extract", place / "model.safetensors", tmp_path / "out.safetensors")
    assert "free" in said
    assert not list(tmp_path.iterdir())


def test_a_taesd_into_comfyui(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two files under the names that ComfyUI looks for."""
    (tmp_path / "comfy" / "models" / "vae_approx").mkdir(parents=True)
    (tmp_path / "comfy" / "models" / "vae").mkdir()
    (tmp_path / "comfy" / "models" / "checkpoints").mkdir()
    vw.save(vw.build("taesd3"), tmp_path / "tiny.safetensors", "taesd")
    run(capsys, "install", tmp_path / "tiny.safetensors", "--into", "comfyui", tmp_path / "comfy", "--name", "taesd3")
    names = sorted(p.name for p in (tmp_path / "comfy" / "models" / "vae_approx").iterdir())
    assert names == ["taesd3_decoder.safetensors", "taesd3_encoder.safetensors"]
    assert "1.weight" in load_file(tmp_path / "comfy" / "models" / "vae_approx" / names[0])


def test_what_an_ending_says(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Applications choose their reader by the ending: other endings are not written, and told where they are found."""
    assert "end in .safetensors" in error(
        capsys, "convert", place / "vae.safetensors", tmp_path / "x.ckpt", "--layout", "ldm"
    )
    shutil.copy(place / "folded.safetensors", tmp_path / "x.ckpt")
    told, _ = run(capsys, "inspect", tmp_path / "x.ckpt")
    for application in ("A1111/Forge", "ComfyUI"):
        assert told["support"][application]["loads"] == "no"
    assert "ending .ckpt says pickle" in told["support"]["ComfyUI"]["why"]


def test_a_checkpoint_is_not_replaced_by_its_vae(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """extract onto its own source is refused, even with --force; so is a link to nothing without it."""
    shutil.copy(place / "model.safetensors", tmp_path / "model.safetensors")
    assert "itself" in error(
        capsys, "extract", tmp_path / "model.safetensors", tmp_path / "model.safetensors", "--force"
    )
    assert len(load_file(tmp_path / "model.safetensors")) == len(load_file(place / "model.safetensors"))
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "nowhere")
    assert "exists" in error(capsys, "extract", tmp_path / "model.safetensors", tmp_path / "link.safetensors")


def test_whose_scale_it_is(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bare file of SD's shapes may be SDXL's: fold does not guess, --scale-of says it."""
    vae = vw.build(MODELS["sd1"]).half()
    save_file(
        {n: t.detach().contiguous() for n, t in stored_tensors(vae, "ldm").items()}, tmp_path / "bare.safetensors"
    )
    words = ["fold", tmp_path / "bare.safetensors", tmp_path / "out.safetensors", "--for", "sd1"]
    assert "--scale-of" in error(capsys, *words)
    run(capsys, *words, "--scale-of", "sdxl")
    assert vw.load(tmp_path / "out.safetensors").config.scaling_factor == 0.18215
    with warnings.catch_warnings(action="ignore"):
        bare = vw.load(tmp_path / "bare.safetensors")
    ratio = vw.load(tmp_path / "out.safetensors").post_quant_conv.weight.float() / bare.post_quant_conv.weight.float()
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.18215 / 0.13025), rtol=2e-3, atol=0)
    assert "one scale" in error(capsys, *words, "--scale-of", "flux1")


def test_a_baked_vae_on_another_scale_is_wrong(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Inside a checkpoint, its own constants count, not those of any model with such latents."""
    vae = vw.build(MODELS["sd1"]).half()
    vw.save(vae, tmp_path / "sd1.safetensors", "ldm")
    unet = load_file(place / "model.safetensors")
    xl = {n: t for n, t in unet.items() if not n.startswith("first_stage_model.")}
    xl["model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"] = torch.zeros(640, 2048)
    del xl["model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"]
    xl["model.diffusion_model.label_emb.0.0.weight"] = torch.zeros(1280, 2816)
    save_file(xl, tmp_path / "xl.safetensors")
    run(capsys, "bake", tmp_path / "sd1.safetensors", tmp_path / "xl.safetensors", tmp_path / "baked.safetensors")
    told, _ = run(capsys, "inspect", tmp_path / "baked.safetensors")
    assert told["support"]["ComfyUI"]["loads"] == "wrong"
    assert "0.13025" in told["support"]["ComfyUI"]["why"]


def test_loading_half_precision_takes_no_more_than_its_weights(tmp_path: Path) -> None:
    """The check for values that are no numbers makes no copy in float32."""
    vw.save(vw.build(MODELS["sd1"]).half(), tmp_path / "half.safetensors")
    code = (
        "import pathlib, torch, vaeworks as vw; torch.set_num_threads(1); vw.build('small-f8c4'); import "
        "vaeworks.formats.io\n"
        "def peak(field): return int(next(line for line in open('/proc/self/status') if "
        "line.startswith(field)).split()[1])\n"
        "pathlib.Path('/proc/self/clear_refs').write_text('5'); before = peak('VmRSS')\n"
        f"vw.load({str(tmp_path / 'half.safetensors')!r}); print(peak('VmHWM') - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(done.stdout) * 1024 < 1.25 * (tmp_path / "half.safetensors").stat().st_size


def test_stored_tensors_are_what_is_stored(place: Path) -> None:
    """The LDM file of fold has the tensors of its VAE."""
    folded = vw.load(place / "folded.safetensors")
    assert stored_tensors(folded, "ldm").keys() == load_file(place / "folded.safetensors").keys()
