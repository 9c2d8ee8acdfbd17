"""VAEs into applications' folders: what A1111 and ComfyUI find there, by their own rules, and what they could not
load."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import vaeworks as vw
from vaeworks.config import MODELS, AutoencoderConfig, TinyConfig
from vaeworks.errors import ConfigError, FormatError
from vaeworks.files.atomic import atomic
from vaeworks.formats import native
from vaeworks.formats.apps.install import install
from vaeworks.formats.archive.entries import Entry
from vaeworks.formats.fold import fold_to
from vaeworks.formats.io import load, stored_tensors
from vaeworks.formats.keymap import is_attention_matrix, layout_name
from vaeworks.formats.stream import Item, tensor_item, write_stream

SD1, SDXL, SD3 = MODELS["sd1"], MODELS["sdxl"], MODELS["sd3"]


# The applications' rules, written down again from their sources


def a1111_files(models: Path) -> dict[str, Path]:
    """A1111's dictionary of VAEs: by base name, later folders over earlier ones."""
    found: dict[str, Path] = {}
    for folder, pattern in (
        *(("Stable-diffusion", f"*.vae.{ending}") for ending in ("ckpt", "pt", "safetensors")),
        *(("VAE", f"*.{ending}") for ending in ("ckpt", "pt", "safetensors")),
    ):
        for base, _, names in os.walk(models / folder):
            for name in names:
                if fnmatch.fnmatch(name, pattern):
                    found[name] = Path(base, name)
    return found


def a1111_takes(models: Path, checkpoint: Path) -> Path | None:
    """What A1111 loads with a checkpoint where SD VAE is Automatic: the first file whose name begins with the
    checkpoint's."""
    stem = checkpoint.name.rsplit(".", 1)[0]
    return next((path for name, path in a1111_files(models).items() if name.startswith(stem)), None)


def comfyui_vaes(models: Path) -> dict[str, list[Path]]:
    """What ComfyUI's node Load VAE offers, and the files behind each name."""
    endings = (".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft")
    offered = {p.name: [p] for p in sorted((models / "vae").rglob("*")) if p.suffix in endings}
    approx = sorted(p for p in (models / "vae_approx").glob("*") if p.suffix in endings)
    for name in ("taesd", "taesdxl", "taesd3", "taef1", "taef2"):
        halves = [
            next((p for p in approx if p.name.startswith(f"{name}_{half}.")), None) for half in ("encoder", "decoder")
        ]
        if all(halves):
            offered[name] = [p for p in halves if p is not None]
    return offered


# Files


def shapes_of(config: AutoencoderConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an LDM file."""
    with torch.device("meta"):
        state = vw.build(config).state_dict()
    return {
        layout_name(name, "ldm", config): (*t.shape, 1, 1) if is_attention_matrix(name) else tuple(t.shape)
        for name, t in state.items()
    }


def sd_file(path: Path, config: AutoencoderConfig, told: bool = True) -> Path:
    """A file of a VAE's full size, in float16: one number but for the 1x1 convolutions, which tell one from another."""
    generator = torch.Generator().manual_seed(len(path.name))
    items = []
    for name, shape in shapes_of(config).items():
        if "quant_conv" in name:
            items.append(tensor_item(name, torch.randn(shape, generator=generator).half()))
        else:
            entry = Entry("F16", shape)
            items.append(Item(name, entry, lambda entry=entry: (b"\1" * entry.nbytes,)))
    with atomic(path) as temporary:
        write_stream(temporary, items, native.config_metadata(config) if told else {"format": "pt"})
    return path


def checkpoint(path: Path, context: int = 768) -> Path:
    """As little of an SD 1 (768) or SDXL (2048) checkpoint as tells which it is, without a VAE."""
    unet = "model.diffusion_model."
    save_file(
        {
            unet + "input_blocks.0.0.weight": torch.zeros(8, 4, 3, 3),
            unet + "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(8, context),
            unet + "out.2.weight": torch.zeros(4, 8, 3, 3),
        },
        path,
    )
    return path


@pytest.fixture(scope="module")
def files() -> Iterator[dict[str, Path]]:
    """VAEs of full size, which are large."""
    with tempfile.TemporaryDirectory() as folder:
        yield {
            "sd1": sd_file(Path(folder, "sd1-vae.safetensors"), SD1),
            "sdxl": sd_file(Path(folder, "sdxl-vae.safetensors"), SDXL),
            "untold": sd_file(Path(folder, "untold.vae.safetensors"), SD1, told=False),
        }


@pytest.fixture
def webui(tmp_path: Path) -> Iterator[Path]:
    models = tmp_path / "webui" / "models"
    for folder in ("Stable-diffusion", "VAE"):
        (models / folder).mkdir(parents=True)
    yield tmp_path / "webui"
    shutil.rmtree(tmp_path, ignore_errors=True)  # the files are large


@pytest.fixture
def comfyui(tmp_path: Path) -> Iterator[Path]:
    models = tmp_path / "ComfyUI" / "models"
    for folder in ("checkpoints", "vae", "vae_approx"):
        (models / folder).mkdir(parents=True)
    yield tmp_path / "ComfyUI"
    shutil.rmtree(tmp_path, ignore_errors=True)


def tiny_file(path: Path, config: TinyConfig | None = None) -> Path:
    vw.save(vw.build(config or TinyConfig()), path, "taesd")
    return path


# A1111


def test_a1111_takes_it_for_the_checkpoint(webui: Path, files: dict[str, Path]) -> None:
    """Beside the checkpoint, under its name; bare LDM names of exactly SD's shapes, which A1111 loads strictly."""
    full = checkpoint(webui / "models" / "Stable-diffusion" / "v1.5 pruned.safetensors")
    done = install(files["sd1"], "webui", webui, checkpoint=full)
    assert a1111_takes(webui / "models", full) == Path(done.path) == full.with_name("v1.5 pruned.vae.safetensors")
    assert {name: tuple(t.shape) for name, t in load_file(done.path).items()} == shapes_of(SD1)
    expected = load_file(files["sd1"])
    assert all(torch.equal(t, expected[name]) and t.dtype == torch.float16 for name, t in load_file(done.path).items())
    assert "A1111 selects it" in done.how and not any("folded" in note for note in done.notes)


def test_without_a_checkpoint_it_is_to_be_chosen(webui: Path, files: dict[str, Path]) -> None:
    done = install(files["untold"], "webui", webui / "models")
    assert Path(done.path) == webui / "models" / "VAE" / "untold.safetensors"
    assert "untold.safetensors" in a1111_files(webui / "models")
    assert "choose untold.safetensors" in done.how
    assert any("does not say" in note for note in done.notes)
    done = install(files["sd1"], "webui", webui, name="mine.safetensors")
    assert Path(done.path).name == "mine.safetensors"


def test_nothing_is_overwritten_silently(webui: Path, files: dict[str, Path]) -> None:
    first = install(files["sd1"], "webui", webui, name="a")
    before = os.stat(first.path)
    again = install(files["sd1"], "webui", webui, name="a")
    assert again.how.startswith("already installed") and os.stat(first.path).st_mtime_ns == before.st_mtime_ns
    with pytest.raises(ConfigError, match=r"is another VAE; pass --name .* or --force"):
        install(files["sdxl"], "webui", webui, name="a")
    assert os.stat(first.path).st_mtime_ns == before.st_mtime_ns
    install(files["sdxl"], "webui", webui, name="a", overwrite=True)
    assert load(first.path).config == SDXL


def test_a_file_that_a1111_would_take_instead(webui: Path, files: dict[str, Path]) -> None:
    folder = webui / "models" / "Stable-diffusion"
    full = checkpoint(folder / "model.safetensors")
    rival = folder / "model.vae.pt"
    rival.write_bytes(b"")
    assert a1111_takes(webui / "models", full) == rival
    with pytest.raises(ConfigError, match=rf"A1111 would select {re.escape(str(rival))} for model\.safetensors"):
        install(files["sd1"], "webui", webui, checkpoint=full)
    rival.unlink()
    later = webui / "models" / "VAE" / "model-extra.safetensors"
    later.write_bytes(b"")
    done = install(files["sd1"], "webui", webui, checkpoint=full)
    assert a1111_takes(webui / "models", full) == Path(done.path)


def test_files_of_one_name_collide(webui: Path, files: dict[str, Path]) -> None:
    """A1111 keeps one file of each base name, wherever they are."""
    full = checkpoint(webui / "models" / "Stable-diffusion" / "model.safetensors")
    namesake = webui / "models" / "VAE" / "old" / "model.vae.safetensors"
    namesake.parent.mkdir()
    namesake.write_bytes(b"")
    with pytest.raises(ConfigError, match="A1111 keeps one of the two"):
        install(files["sd1"], "webui", webui, checkpoint=full)
    with pytest.raises(ConfigError, match="A1111 keeps one of the two"):
        install(files["sd1"], "webui", webui, name="model.vae")


def test_other_checkpoints_with_such_names_are_mentioned(webui: Path, files: dict[str, Path]) -> None:
    folder = webui / "models" / "Stable-diffusion"
    full, short = checkpoint(folder / "sd_xl.safetensors"), checkpoint(folder / "sd.safetensors")
    sibling = folder / "sd_xl-inpaint.vae.safetensors"
    sibling.write_bytes(b"")
    full.with_suffix(".json").write_text(json.dumps({"vae": "other.pt"}))
    done = install(files["sd1"], "webui", webui, checkpoint=full)
    sibling.unlink()
    assert a1111_takes(webui / "models", short) == Path(done.path)
    assert any("sd.safetensors as well" in note for note in done.notes)
    assert any(sibling.name in note for note in done.notes)
    assert any("other.pt chosen in its card" in note for note in done.notes)


def test_a_checkpoint_elsewhere(webui: Path, files: dict[str, Path], tmp_path: Path) -> None:
    full = checkpoint(tmp_path / "model.ckpt.safetensors")
    done = install(files["sd1"], "webui", webui, checkpoint=full)
    assert Path(done.path) == tmp_path / "model.ckpt.vae.safetensors"
    assert any("--ckpt-dir" in note for note in done.notes)


# The scale of latents


def test_another_scale_is_folded_away(webui: Path, files: dict[str, Path]) -> None:
    """A VAE with SDXL's scale for an SD 1 checkpoint, which A1111 runs with SD 1's."""
    full = checkpoint(webui / "models" / "Stable-diffusion" / "model.safetensors")
    done = install(files["sdxl"], "webui", webui, checkpoint=full)
    assert any("0.13025 was folded into the weights" in note and "0.18215" in note for note in done.notes)
    expected = stored_tensors(fold_to(load(files["sdxl"]), 0.18215), "ldm")
    written = load_file(done.path)
    assert all(torch.equal(t, expected[name]) for name, t in written.items()) and written.keys() == expected.keys()
    assert not torch.equal(written["quant_conv.weight"], load_file(files["sdxl"])["quant_conv.weight"])
    assert load(done.path).config.scaling_factor == 0.18215


def test_an_untold_scale_is_the_checkpoints(webui: Path, files: dict[str, Path]) -> None:
    """The published file of SDXL's VAE says nothing of its scale: for an SDXL checkpoint it is right as it is."""
    full = checkpoint(webui / "models" / "Stable-diffusion" / "model.safetensors", 2048)
    done = install(files["untold"], "webui", webui, checkpoint=full)
    assert not any("folded" in note or "the application uses" in note for note in done.notes)
    assert torch.equal(load_file(done.path)["quant_conv.weight"], load_file(files["untold"])["quant_conv.weight"])
    assert load(done.path).config.scaling_factor == 0.13025


def test_a_scale_of_its_own_asks_for_the_checkpoint(comfyui: Path, tmp_path: Path) -> None:
    own = sd_file(tmp_path / "own.safetensors", dataclasses.replace(SD1, scaling_factor=0.5, shift_factor=0.25))
    with pytest.raises(ConfigError, match=r"0\.18215.*0\.13025.*has scaling_factor 0\.5 and shift_factor 0\.25.*--for"):
        install(own, "comfyui", comfyui)
    full = checkpoint(comfyui / "models" / "checkpoints" / "model.safetensors")
    done = install(own, "comfyui", comfyui, checkpoint=full)
    assert any("folded" in note for note in done.notes) and comfyui_vaes(comfyui / "models")["own.safetensors"] == [
        Path(done.path)
    ]
    assert load(done.path).config.scaling_factor == 0.18215 and load(done.path).config.shift_factor == 0


def test_folding_that_adds_convolutions_is_for_comfyui_only(webui: Path, tmp_path: Path) -> None:
    """SD 3's VAE has no 1x1 convolutions, and A1111 loads it strictly; ComfyUI takes both or none."""
    own = sd_file(tmp_path / "own.safetensors", dataclasses.replace(SD3, scaling_factor=1.0))
    flux = {"double_blocks.0.img_attn.norm.key_norm.scale": torch.zeros(4), "img_in.weight": torch.zeros(8, 64)}
    full = tmp_path / "flux.safetensors"
    save_file({"model.diffusion_model." + name: t for name, t in flux.items()}, full)
    with pytest.raises(ConfigError, match="after folding"):
        install(own, "webui", webui, checkpoint=full)
    (webui / "models" / "checkpoints").mkdir()
    done = install(own, "comfyui", webui, checkpoint=full)
    written = load_file(done.path)
    assert {"quant_conv.weight", "post_quant_conv.weight"} <= written.keys()
    assert (load(done.path).config.scaling_factor, load(done.path).config.shift_factor) == (0.3611, 0.1159)


# ComfyUI


def test_comfyui_offers_it_by_name(comfyui: Path, files: dict[str, Path]) -> None:
    (comfyui / "extra_model_paths.yaml").write_text("a1111:\n")
    done = install(files["sd1"], "comfyui", comfyui)
    assert comfyui_vaes(comfyui / "models") == {"sd1-vae.safetensors": [Path(done.path)]}
    assert {name: tuple(t.shape) for name, t in load_file(done.path).items()} == shapes_of(SD1)
    assert "Load VAE" in done.how and any("extra_model_paths.yaml" in note for note in done.notes)


def test_what_applications_assume_is_said(comfyui: Path, tmp_path: Path) -> None:
    odd = sd_file(tmp_path / "odd.safetensors", dataclasses.replace(SD1, padding_mode="reflect", decoder_scale=0.125))
    done = install(odd, "comfyui", comfyui)
    assert any("padding_mode reflect" in note and "norm_eps" in note for note in done.notes)
    assert load(done.path).config == dataclasses.replace(SD1, padding_mode="reflect", decoder_scale=0.125)


SMALL = AutoencoderConfig(
    channels=8, channel_mult=(1, 1, 1, 2), num_res_blocks=1, norm_groups=4, scaling_factor=0.18215
)
UNLOADABLE = {
    "widths": (SMALL, ("webui", "comfyui"), "widths 8, 8, 8, 16"),
    "fewer blocks": (
        dataclasses.replace(SD1, channel_mult=(1, 1, 1, 1), num_res_blocks=1),
        ("webui", "comfyui"),
        "SD's network",
    ),
    "flux2": (
        dataclasses.replace(SMALL, latent_channels=32, normalization="batchnorm", latents_patch=2),
        ("webui",),
        r"Flux\.2",
    ),
}


@pytest.mark.parametrize("name", UNLOADABLE)
def test_what_cannot_be_loaded_is_not_installed(tmp_path: Path, name: str) -> None:
    config, applications, word = UNLOADABLE[name]
    vae = tmp_path / "vae.safetensors"
    save_file(stored_tensors(vw.build(config), "ldm"), vae, metadata=native.config_metadata(config))
    for folder in ("Stable-diffusion", "checkpoints"):
        (tmp_path / "models" / folder).mkdir(parents=True)
    for application in applications:
        with pytest.raises(ConfigError, match=word):
            install(vae, application, tmp_path)  # type: ignore[arg-type]
    assert not [p for p in (tmp_path / "models").rglob("*") if p.is_file()]


def test_a_vae_that_does_not_fit_the_checkpoint(webui: Path, files: dict[str, Path], tmp_path: Path) -> None:
    full = checkpoint(webui / "models" / "Stable-diffusion" / "model.safetensors")
    deep = tmp_path / "deep.safetensors"
    config = dataclasses.replace(SMALL, latent_channels=16)
    save_file(stored_tensors(vw.build(config), "ldm"), deep, metadata=native.config_metadata(config))
    with pytest.raises(ConfigError, match="latent_channels 4"):
        install(deep, "webui", webui, checkpoint=full)
    with pytest.raises(FormatError, match="a VAE by itself"):
        install(files["sd1"], "webui", webui, checkpoint=files["sd1"])
    with pytest.raises(ConfigError, match="leave one of the two out"):
        install(files["sd1"], "webui", webui, checkpoint=full, name="x")


def test_folders_of_something_else(tmp_path: Path, files: dict[str, Path], webui: Path, comfyui: Path) -> None:
    with pytest.raises(ConfigError, match="not a folder"):
        install(files["sd1"], "webui", tmp_path / "none")
    with pytest.raises(ConfigError, match=r"holds no models/Stable-diffusion"):
        install(files["sd1"], "webui", webui / "models" / "VAE")
    with pytest.raises(ConfigError, match="pass --into comfyui"):
        install(files["sd1"], "webui", comfyui)
    with pytest.raises(ConfigError, match="pass --into webui"):
        install(files["sd1"], "comfyui", webui)
    with pytest.raises(ConfigError, match="unknown application"):
        install(files["sd1"], "paint", webui)  # type: ignore[arg-type]
    for name in ("../x", "a/b", "", ".hidden"):
        with pytest.raises(ConfigError, match="must be a file name"):
            install(files["sd1"], "comfyui", comfyui, name=name)


# TAESDs


def half(path: Path, kind: str) -> dict[str, Tensor]:
    """The tensors of one half in the source file, under TAESD's own numbers."""
    prefix = f"taesd_{kind}."
    return {name.removeprefix(prefix): t for name, t in load_file(path).items() if name.startswith(prefix)}


@pytest.mark.parametrize(("context", "name"), [(768, "taesd"), (2048, "taesdxl")])
def test_comfyui_knows_a_taesd_by_name(comfyui: Path, tmp_path: Path, context: int, name: str) -> None:
    """It scales latents by the name, which the checkpoint tells: shapes cannot."""
    tiny = tiny_file(tmp_path / "tiny.safetensors")
    with pytest.raises(ConfigError, match="one of taesd, taesdxl, or a checkpoint"):
        install(tiny, "comfyui", comfyui)
    full = checkpoint(comfyui / "models" / "checkpoints" / "model.safetensors", context)
    done = install(tiny, "comfyui", comfyui, checkpoint=full)
    pair = comfyui_vaes(comfyui / "models")[name]
    assert [str(p) for p in pair] == [done.path, *done.others]
    for path, kind in zip(pair, ("encoder", "decoder"), strict=True):
        expected = half(tiny, kind)
        written = load_file(path)
        assert written.keys() == expected.keys() and all(torch.equal(written[n], expected[n]) for n in expected)
    assert all(n.split(".")[0].isdecimal() for n in load_file(done.path))
    assert install(tiny, "comfyui", comfyui, name=name).how.startswith("already installed")
    with pytest.raises(ConfigError, match="must be one of taesd, taesdxl"):
        install(tiny, "comfyui", comfyui, name="taef1")


def test_a_taesds_own_name_tells(comfyui: Path, tmp_path: Path) -> None:
    done = install(tiny_file(tmp_path / "taesdxl.safetensors"), "comfyui", comfyui)
    assert Path(done.path).name == "taesdxl_encoder.safetensors"
    done = install(
        tiny_file(tmp_path / "any.safetensors", TinyConfig(latent_channels=16)), "comfyui", comfyui, name="taesd3"
    )
    assert Path(done.path).name == "taesd3_encoder.safetensors"


def test_a_taesd_that_comfyui_would_not_see(comfyui: Path, tmp_path: Path) -> None:
    """Of several files of one name it takes the first, and .pth comes before .safetensors."""
    other = comfyui / "models" / "vae_approx" / "taesd_decoder.pth"
    other.write_bytes(b"")
    with pytest.raises(ConfigError, match=rf"would load {re.escape(str(other))} before taesd_decoder\.safetensors"):
        install(tiny_file(tmp_path / "taesd.safetensors"), "comfyui", comfyui)
    assert list((comfyui / "models" / "vae_approx").iterdir()) == [other]


def test_a_taesd_for_a1111(webui: Path, tmp_path: Path) -> None:
    """A1111 reads TAESDs from .pth alone; PyTorch's safe loader takes ours."""
    tiny = tiny_file(tmp_path / "taesd.safetensors")
    done = install(tiny, "webui", webui)
    for path, kind in zip((done.path, *done.others), ("encoder", "decoder"), strict=True):
        assert Path(path) == webui / "models" / "VAE-taesd" / f"taesd_{kind}.pth"
        written, expected = torch.load(path, weights_only=True), half(tiny, kind)
        assert written.keys() == expected.keys() and all(torch.equal(written[n], expected[n]) for n in expected)
    assert install(tiny, "webui", webui).how.startswith("already installed")
    assert load(done.path).config == load(tiny).config
    deep = tiny_file(tmp_path / "taef1.safetensors", TinyConfig(latent_channels=16))
    assert any("do not look for taef1" in note for note in install(deep, "webui", webui).notes)


def test_a_taesd_of_another_shape(comfyui: Path, tmp_path: Path) -> None:
    wide = tiny_file(tmp_path / "taesd.safetensors", TinyConfig(encoder_widths=(8,) * 4, decoder_widths=(8,) * 4))
    with pytest.raises(ConfigError, match="fits none of them"):
        install(wide, "comfyui", comfyui)
    deep = tiny_file(tmp_path / "taef1.safetensors", TinyConfig(latent_channels=16))
    with pytest.raises(ConfigError, match="latent_channels 4"):
        install(deep, "comfyui", comfyui, checkpoint=checkpoint(tmp_path / "model.safetensors"))


def test_the_small_vae_of_flux2(comfyui: Path, test_data: Path) -> None:
    done = install(test_data / "weights" / "taef2", "comfyui", comfyui)
    pair = comfyui_vaes(comfyui / "models")["taef2"]
    assert [str(p) for p in pair] == [done.path, *done.others]
    original = vw.load(test_data / "weights" / "taef2").state_dict()
    assert all(torch.equal(t, original[name]) for name, t in vw.load(done.path).state_dict().items())
