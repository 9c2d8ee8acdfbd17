"""What a file does not tell: it is said, it stays a guess on every way, it is never written as a fact, and it can be
told."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import vaeworks as vw
from vaeworks.cli.main import main
from vaeworks.config import MODELS, AutoencoderConfig, BottleneckConfig, TrainConfig, from_dict, to_dict
from vaeworks.exports.onnx import export_onnx
from vaeworks.formats import shapes
from vaeworks.formats.apps.install import install
from vaeworks.formats.bake import bake, extract
from vaeworks.formats.fold import fold_to
from vaeworks.formats.io import stored_tensors
from vaeworks.formats.locate import locate
from vaeworks.formats.native import METADATA_KEY
from vaeworks.formats.vae_slot import find_slot, is_certain
from vaeworks.latents.plan import normalization_facts
from vaeworks.models.digest import model_digest
from vaeworks.models.init import linear_init_
from vaeworks.pipelines.stable_diffusion import inject, load_pipeline
from vaeworks.recipes import recipe
from vaeworks.runtime.fp16.scale import scale_activations
from vaeworks.training.run.folder import read_run
from vaeworks.training.run.init import with_start

FOUR = AutoencoderConfig(channels=32, channel_mult=(1, 1, 1, 1), num_res_blocks=1)
SIXTEEN = dataclasses.replace(FOUR, latent_channels=16, quant_conv=False, post_quant_conv=False)
FULL_SIZE = dict(shapes.PUBLISHED)
SCALES = {name: (MODELS[name].scaling_factor, MODELS[name].shift_factor) for name in ("sd1", "sdxl", "sd3", "flux1")}


@pytest.fixture(autouse=True)
def small_published() -> Iterator[None]:
    """SD's, SDXL's, SD 3's and Flux' VAEs, in small."""
    numbers = {name: {"scaling_factor": scale, "shift_factor": shift} for name, (scale, shift) in SCALES.items()}
    publish(
        {name: dataclasses.replace(FOUR if name in ("sd1", "sdxl") else SIXTEEN, **numbers[name]) for name in SCALES}
    )
    yield
    publish(FULL_SIZE)


def publish(configs: Mapping[str, AutoencoderConfig]) -> None:
    """Let these be the published VAEs, in this order: the first of an architecture is the guess."""
    shapes.PUBLISHED.clear()
    shapes.PUBLISHED.update(configs)


@pytest.fixture(scope="module")
def networks() -> dict[int, vw.Autoencoder]:
    """Linear codecs, whose pictures are sound."""
    return {config.latent_channels: linear(config) for config in (FOUR, SIXTEEN)}


def linear(config: AutoencoderConfig, seed: int = 0) -> vw.Autoencoder:
    vae = vw.build(config).eval()
    linear_init_(vae, torch.Generator().manual_seed(seed))
    return vae


def bare(path: Path, vae: vw.Autoencoder) -> Path:
    """As published: LDM's names, no metadata."""
    save_file({name: t.detach().contiguous() for name, t in stored_tensors(vae, "ldm").items()}, path)
    return path


def quiet_load(path: Path, **settings: Any) -> vw.Autoencoder:
    with warnings.catch_warnings(action="ignore"):
        return vw.load(path, **settings)


def metadata(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[METADATA_KEY])


def picture(folder: Path) -> Path:
    Image.new("RGB", (32, 32), (200, 100, 50)).save(folder / "picture.png")
    return folder / "picture.png"


def checkpoint(path: Path, context: int, baked: dict[str, Tensor] | None = None) -> Path:
    """As little of an SD 1 (768) or SDXL (2048) checkpoint as tells which it is, with or without a VAE."""
    unet = "model.diffusion_model."
    tensors = {
        unet + "input_blocks.0.0.weight": torch.zeros(8, 4, 3, 3),
        unet + "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(8, context),
        unet + "out.2.weight": torch.zeros(4, 8, 3, 3),
    }
    save_file(tensors | {f"first_stage_model.{name}": t.contiguous() for name, t in (baked or {}).items()}, path)
    return path


# The scale of latents


def by_python(layout: Any) -> Callable[[Path, Path], Path]:
    def way(source: Path, dst: Path) -> Path:
        vw.save(quiet_load(source), dst, layout)
        return dst

    return way


def by_command(*words: str) -> Callable[[Path, Path], Path]:
    def way(source: Path, dst: Path) -> Path:
        command, *options = words
        if command == "repair":
            options += ["--data", str(picture(source.parent))]
        assert main([command, str(source), str(dst), *options]) == 0
        return dst

    return way


def by_diffusers(source: Path, dst: Path) -> Path:
    """Through diffusers' own object and its own files."""
    vw.to_diffusers(quiet_load(source)).save_pretrained(dst)
    return dst


def by_both(source: Path, dst: Path) -> Path:
    """Repaired, then into a diffusers folder, then its weights alone."""
    repaired = scale_activations(quiet_load(source), decoder=0.25)
    with warnings.catch_warnings(action="ignore"):
        vw.save(repaired, dst, "diffusers")
    alone = dst.with_name("alone.safetensors")
    (dst / "diffusion_pytorch_model.safetensors").rename(alone)
    return alone


WAYS = {
    "save native": by_python("native"),
    "save ldm": by_python("ldm"),
    "save diffusers": by_python("diffusers"),
    "convert native": by_command("convert", "--layout", "native"),
    "convert ldm": by_command("convert", "--layout", "ldm"),
    "convert diffusers": by_command("convert", "--layout", "diffusers"),
    "repair": by_command("repair"),
    "repair diffusers": by_command("repair", "--layout", "diffusers"),
    "diffusers": by_diffusers,
    "both": by_both,
}


@pytest.mark.parametrize("channels", [4, 16])
@pytest.mark.parametrize("way", WAYS)
def test_a_guessed_scale_stays_a_guess(
    way: str, channels: int, networks: dict[int, vw.Autoencoder], tmp_path: Path
) -> None:
    """Written again and read again, the file is as ambiguous as it was, in the same words; and nothing wrote the guess
    as a fact."""
    source = bare(tmp_path / "bare.safetensors", networks[channels])
    before = locate(source)
    assert "may be " + ("sdxl (0.13025)" if channels == 4 else "flux1 (0.3611)") in before.ambiguity
    dst = WAYS[way](source, tmp_path / ("out" if "diffusers" in way or way == "both" else "out.safetensors"))
    after = locate(dst)
    assert (after.ambiguity, is_certain(after), after.normalization_source) == (before.ambiguity, False, "family")
    with pytest.warns(UserWarning, match="does not say how its latents are scaled"):
        again = vw.load(dst)
    assert (
        again.config.scaling_factor == before.config.scaling_factor
        and again.config.shift_factor == before.config.shift_factor
    )
    weights = dst / "diffusion_pytorch_model.safetensors" if dst.is_dir() else dst
    if way != "diffusers":  # whose files have no metadata of ours
        assert not {"scaling_factor", "shift_factor", "norm_groups"} & metadata(weights)["autoencoder"].keys()
    if dst.is_dir():
        assert (
            f"scaling_factor={before.config.scaling_factor}"
            in json.loads((dst / "config.json").read_text())["_vaeworks_guessed"]
        )


@pytest.mark.parametrize(
    "words", [("convert", "--layout", "native"), ("convert", "--layout", "diffusers"), ("repair",)]
)
@pytest.mark.parametrize("name", ["sd1", "sdxl", "flux1"])
def test_a_scale_that_is_told_is_a_fact(
    name: str, words: tuple[str, ...], networks: dict[int, vw.Autoencoder], tmp_path: Path
) -> None:
    """--scale-of makes it certain, also where it is what would have been guessed; --set says the same by number."""
    channels = 16 if name == "flux1" else 4
    source = bare(tmp_path / "bare.safetensors", networks[channels])
    told = {"name": ("--scale-of", name), "number": ("--set", f"scaling_factor={SCALES[name][0]}")}
    for way, option in told.items():
        dst = by_command(*words, *option)(
            source, tmp_path / way if "diffusers" in words else tmp_path / f"{way}.safetensors"
        )
        located = locate(dst)
        assert is_certain(located) and not located.ambiguity
        assert (located.config.scaling_factor, located.config.shift_factor) == SCALES[
            name
        ]  # Flux' shift goes with its scale


def test_the_guess_is_said(
    networks: dict[int, vw.Autoencoder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """repair and convert say what is taken for granted, and that it is not written; told, they say nothing."""
    source = bare(tmp_path / "bare.safetensors", networks[4])
    for command in (["repair", "--data", str(picture(tmp_path))], ["convert", "--layout", "ldm"]):
        words = [command[0], str(source), str(tmp_path / "x.safetensors"), *command[1:], "--force", "--json"]
        assert main(words) == 0
        said = json.loads(capsys.readouterr().out)["notes"]
        assert (
            "taken for sd1 (0.18215), but it may be sdxl (0.13025)" in said[0]
            and "leaves out what is unknown" in said[1]
        )
        assert main([*words, "--scale-of", "sdxl"]) == 0
        assert not [
            note
            for note in json.loads(capsys.readouterr().out)["notes"]
            if "does not say" in note or "not known" in note
        ]


def test_notes_claim_no_metadata_for_a_guess(networks: dict[int, vw.Autoencoder], tmp_path: Path, capsys: Any) -> None:
    """An LDM file says its scale in our metadata only where it is known; a guess is nowhere."""
    source = bare(tmp_path / "bare.safetensors", networks[4])
    words = ["convert", str(source), str(tmp_path / "x.safetensors"), "--layout", "ldm", "--force", "--json"]
    for more, said in (([], False), (["--scale-of", "sdxl"], True)):
        assert main([*words, *more]) == 0
        assert any("in our metadata only" in note for note in json.loads(capsys.readouterr().out)["notes"]) == said


def test_a_guess_is_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    """How sure a value is follows from files and options; nobody sets it. The others are options as before."""
    with pytest.raises(SystemExit):
        main(["train", "small-f8c4", "--help-all"])
    shown = capsys.readouterr().out
    assert (
        "guessed" not in shown
        and "--model.shift-factor" in shown
        and "scale of the latents that a diffusion model sees" in shown
    )
    assert main(["train", "small-f8c4-tiny", "--data", "digits", "--out", "x", "--model.guessed", "norm_groups=4"]) == 2
    assert "--model.guessed" in capsys.readouterr().err


def test_a_number_put_right_is_a_fact(networks: dict[int, vw.Autoencoder], tmp_path: Path) -> None:
    """By hand in config.json, or in the configuration of a loaded model."""
    source = bare(tmp_path / "bare.safetensors", networks[4])
    vw.save(quiet_load(source), tmp_path / "folder", "diffusers")
    described = tmp_path / "folder" / "config.json"
    described.write_text(described.read_text().replace('"scaling_factor": 0.18215,', '"scaling_factor": 0.13025,'))
    assert vw.load(tmp_path / "folder").config.normalization_known
    vae = quiet_load(source)
    vae.config = dataclasses.replace(vae.config, scaling_factor=0.13025)
    vw.save(vae, tmp_path / "right.safetensors")
    assert vw.load(tmp_path / "right.safetensors").config.scaling_factor == 0.13025
    assert "scaling_factor" in metadata(tmp_path / "right.safetensors")["autoencoder"]


def test_certain_files_are_written_as_they_were(networks: dict[int, vw.Autoencoder], tmp_path: Path) -> None:
    """Where all is known, metadata hold the whole configuration, and are of the version that every vaeworks reads."""
    config = dataclasses.replace(FOUR, scaling_factor=0.13025)
    vae = vw.build(config)
    vw.save(vae, tmp_path / "x.safetensors")
    plain = {name: value for name, value in dataclasses.asdict(config).items() if name != "guessed"}
    expected = {"version": 1, "network": "kl", "autoencoder": json.loads(json.dumps(plain))}
    assert metadata(tmp_path / "x.safetensors") == expected
    assert vw.load(tmp_path / "x.safetensors").config == config
    guessed = quiet_load(bare(tmp_path / "bare.safetensors", networks[4]))
    vw.save(guessed, tmp_path / "guessed.safetensors")
    assert metadata(tmp_path / "guessed.safetensors")["version"] == 2


def test_a_guess_makes_no_other_model(networks: dict[int, vw.Autoencoder], tmp_path: Path) -> None:
    """Digests and equality of configurations know nothing of how sure a value is; a record of a run does."""
    vae = quiet_load(bare(tmp_path / "bare.safetensors", networks[4]))
    sure = vw.build(dataclasses.replace(FOUR, scaling_factor=0.18215))
    sure.load_state_dict(vae.state_dict())
    assert vae.config == sure.config and model_digest(vae) == model_digest(sure)
    config = TrainConfig(model=vae.config)
    assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(config)))).model.guesses == vae.config.guesses
    assert "guessed" not in to_dict(sure.config)


def test_installed_for_its_checkpoint_nothing_is_folded(tmp_path: Path) -> None:
    """SDXL's published file, converted, then installed for SDXL: the weights are those of the file, as they were before
    the guess."""
    publish(FULL_SIZE)  # applications have SD's network in full size only
    vae = vw.build(MODELS["sd1"]).half()
    with torch.no_grad():
        vae.get_submodule("post_quant_conv").weight.fill_(0.5)
    source = bare(tmp_path / "sdxl_vae.safetensors", vae)
    assert main(["convert", str(source), str(tmp_path / "native.safetensors"), "--layout", "native"]) == 0
    assert main(["convert", str(source), str(tmp_path / "folder"), "--layout", "diffusers"]) == 0
    for folder in ("vae", "checkpoints"):
        (tmp_path / "comfyui" / "models" / folder).mkdir(parents=True)
    full = checkpoint(tmp_path / "sd_xl.safetensors", 2048)
    kept = load_file(source)["post_quant_conv.weight"]
    for written in ("native.safetensors", "folder"):
        done = install(tmp_path / written, "comfyui", tmp_path / "comfyui", checkpoint=full, name="vae", overwrite=True)
        assert any("does not say how its latents are scaled" in note and "0.13025" in note for note in done.notes)
        assert torch.equal(load_file(done.path)["post_quant_conv.weight"], kept)
        assert not is_certain(locate(done.path))  # what was taken for granted is said, and not written
    told = install(
        tmp_path / "folder", "comfyui", tmp_path / "comfyui", checkpoint=full, name="told", settings={"scale_of": "sd1"}
    )
    torch.testing.assert_close(
        load_file(told.path)["post_quant_conv.weight"], kept * (0.13025 / 0.18215), rtol=2e-3, atol=0
    )


def test_baked_and_extracted(networks: dict[int, vw.Autoencoder], tmp_path: Path) -> None:
    """A checkpoint's constants are taken for a VAE whose file tells none, and said; for one that is told, they are
    compared."""
    source = bare(tmp_path / "bare.safetensors", networks[4])
    by_command("repair")(source, tmp_path / "repaired.safetensors")
    full = checkpoint(tmp_path / "xl.safetensors", 2048)
    baked = bake(tmp_path / "repaired.safetensors", full, tmp_path / "baked.safetensors")
    assert any("does not say how its latents are scaled" in note and "0.13025" in note for note in baked.notes)
    assert vw.load(tmp_path / "baked.safetensors").config.scaling_factor == 0.13025
    told = bake(source, full, tmp_path / "other.safetensors", settings={"scale_of": "sd1"})
    assert any("fold" in note for note in told.notes)
    extract(tmp_path / "baked.safetensors", tmp_path / "out.safetensors")
    assert vw.load(tmp_path / "out.safetensors").config.scaling_factor == 0.13025


def test_a_checkpoint_of_other_latents_tells_no_scale(networks: dict[int, vw.Autoencoder], tmp_path: Path) -> None:
    """Playground's VAE has SD's shapes, and is normalized by channel: what comes out of its checkpoint is not SD's by
    writing it down."""
    tensors = {name: t.detach() for name, t in stored_tensors(networks[4], "ldm").items()}
    checkpoint(tmp_path / "playground.safetensors", 2048, tensors)
    save_file(
        load_file(tmp_path / "playground.safetensors") | {"edm_mean": torch.zeros(4), "edm_std": torch.ones(4)},
        tmp_path / "p.safetensors",
    )
    assert not is_certain(locate(tmp_path / "p.safetensors"))
    done = extract(tmp_path / "p.safetensors", tmp_path / "out.safetensors")
    assert any("does not say" in note for note in done.notes)
    assert not is_certain(locate(tmp_path / "out.safetensors"))


def test_nothing_is_folded_from_a_guess(networks: dict[int, vw.Autoencoder], tmp_path: Path) -> None:
    source = bare(tmp_path / "bare.safetensors", networks[16])
    with pytest.raises(vw.ConfigError, match="does not say how its latents are scaled"):
        fold_to(quiet_load(source), 0.18215)
    folded = fold_to(vw.load(source, scale_of="flux1"), 1.5305, 0.0609)
    assert folded.config.normalization_known


def test_a_pipelines_own_scale_is_taken(networks: dict[int, vw.Autoencoder], tmp_path: Path) -> None:
    """Into SDXL's pipeline goes SDXL's VAE: its scale is that of the one which it replaces, and that is said."""
    certain = vw.build(dataclasses.replace(FOUR, scaling_factor=0.13025)).eval()
    pipe = load_pipeline("tiny-sdxl", certain, "cpu", torch.float32)
    guessed = quiet_load(bare(tmp_path / "bare.safetensors", networks[4]))
    with pytest.warns(UserWarning, match=r"the scaling_factor of the pipeline's own, 0\.13025, is used"):
        assert inject(pipe, guessed).vae.config.scaling_factor == 0.13025
    assert guessed.config.scaling_factor == 0.18215 and not guessed.config.normalization_known
    told = vw.load(tmp_path / "bare.safetensors", scale_of="sd1")
    assert inject(pipe, told).vae.config.scaling_factor == 0.18215


def test_whose_taesd_it_is(tmp_path: Path) -> None:
    """TAESD and TAESDXL have the same shapes: what decides, a name or a checkpoint, is said, and where they disagree as
    well."""
    for folder in ("vae_approx", "checkpoints"):
        (tmp_path / "comfyui" / "models" / folder).mkdir(parents=True)
    vw.save(vw.build("taesd"), tmp_path / "taesd.safetensors", "taesd")
    (by_name,) = install(tmp_path / "taesd.safetensors", "comfyui", tmp_path / "comfyui").notes
    assert "by its name it is taesd" in by_name
    full = checkpoint(tmp_path / "xl.safetensors", 2048)
    (by_checkpoint,) = install(tmp_path / "taesd.safetensors", "comfyui", tmp_path / "comfyui", checkpoint=full).notes
    assert "this checkpoint's, taesdxl, although its name says taesd" in by_checkpoint
    assert not install(
        tmp_path / "taesd.safetensors", "comfyui", tmp_path / "comfyui", name="taesd", overwrite=True
    ).notes


def test_a_denoiser_that_nobody_knows_tells_no_scale(networks: dict[int, vw.Autoencoder], tmp_path: Path) -> None:
    """A guess for the VAE in it is not what a VAE that is told is compared with, or folded to."""
    inside = {
        f"first_stage_model.{name}": t.detach().contiguous() for name, t in stored_tensors(networks[4], "ldm").items()
    }
    save_file(inside | {"model.diffusion_model.odd.weight": torch.zeros(3)}, tmp_path / "odd.safetensors")
    assert find_slot(tmp_path / "odd.safetensors").constants is None


def test_a_guess_is_no_part_of_a_graph(networks: dict[int, vw.Autoencoder], tmp_path: Path) -> None:
    """ONNX files whose latents are normalized need a scale that is known."""
    guessed = quiet_load(bare(tmp_path / "bare.safetensors", networks[4]))
    with pytest.raises(vw.ConfigError, match="normalized needs the scale"):
        export_onnx(guessed, tmp_path / "onnx", normalized=True)


def test_records_hold_no_guess(networks: dict[int, vw.Autoencoder], tmp_path: Path) -> None:
    """Facts beside latents: null where the scale is not known."""
    source = bare(tmp_path / "bare.safetensors", networks[4])
    facts = normalization_facts(quiet_load(source))
    assert (facts["scaling_factor"], facts["shift_factor"]) == (None, None)
    assert normalization_facts(vw.load(source, scale_of="sdxl"))["scaling_factor"] == 0.13025
    with warnings.catch_warnings(action="ignore"):
        assert main(["encode", str(source), str(picture(tmp_path)), "--out", str(tmp_path / "latents")]) == 0
    with safe_open(tmp_path / "latents" / "picture.safetensors", "pt") as file:
        assert json.loads(file.metadata()["vaeworks_latents"])["scaling_factor"] is None


def test_training_keeps_a_guess(networks: dict[int, vw.Autoencoder], tmp_path: Path) -> None:
    """A run that starts from an ambiguous file, or has such a teacher, has its guess; a recipe that names the VAE tells
    it."""
    source = bare(tmp_path / "bare.safetensors", networks[4])
    config = recipe("finetune-decoder-tiny")
    started, told = with_start(
        dataclasses.replace(config, finetune=dataclasses.replace(config.finetune, path=str(source)))
    )
    assert started.model.guesses == ("scaling_factor",) and any("does not say" in sentence for sentence in told)
    teacher = TrainConfig(model=dataclasses.replace(FOUR, channels=64))
    taught, _ = with_start(
        dataclasses.replace(teacher, finetune=dataclasses.replace(teacher.finetune, teacher=str(source)))
    )
    assert taught.model.scaling_factor == 0.18215 and not taught.model.normalization_known


def test_a_run_from_a_guess_ends_in_one(tmp_path: Path) -> None:
    """Trained from a file that does not say its scale, a run's model does not either: nor its metadata, its card, its
    record."""
    source = tmp_path / "sd.pth"
    torch.save(vw.build(recipe("small-f8c4-tiny").model).state_dict(), source)
    words = [
        "train",
        "finetune-decoder-tiny",
        "--data",
        "photos",
        "--from",
        str(source),
        "--out",
        str(tmp_path / "run"),
    ]
    assert main([*words, "--images", "16", "--stats-images", "8", "--val-every", "16", "--save-every", "16"]) == 0
    told = metadata(tmp_path / "run" / "model.safetensors")["autoencoder"]
    assert "scaling_factor" not in told and told["norm_groups"] == 4  # with which it was trained
    assert "at a scale that the file of sd.pth does not say" in (tmp_path / "run" / "README.md").read_text()
    assert read_run(tmp_path / "run").config.model.guesses == ("scaling_factor",)


# What shapes do not tell of the network


def trained(name: str) -> vw.Autoencoder:
    """A recipe's network with weights that groups matter to, and a scale of its own."""
    config = dataclasses.replace(recipe(name).model, scaling_factor=0.7, shift_factor=0.1)
    torch.manual_seed(0)
    return vw.build(config).eval()


@pytest.mark.parametrize(
    "name", ["small-f8c16", "small-f8c4", "small-f4c4", "small-f16c32", "small-f8c16-tiny", "digits-vae", "audio-mel"]
)
def test_a_state_dict_keeps_its_recipes_groups(name: str, tmp_path: Path) -> None:
    """torch.save(vae.state_dict()), and an LDM file that lost its metadata: the recipe's own groups, equal pictures,
    and a warning."""
    vae = trained(name)
    images = torch.rand(1, vae.config.in_channels, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    torch.save(vae.state_dict(), tmp_path / "sd.pth")
    for path in (tmp_path / "sd.pth", bare(tmp_path / "lost.safetensors", vae)):
        with pytest.warns(UserWarning, match="do(es)? not") as caught:
            loaded = vw.load(path)
        said = " ".join(str(warning.message) for warning in caught)
        assert (
            "do not show norm_groups 4, norm_eps 1e-06, padding_mode zeros" in said
            and "how its latents are scaled: 1 is taken" in said
        )
        assert loaded.kl_config.norm_groups == 4
        with torch.inference_mode():
            assert torch.equal(loaded.reconstruct(images), vae.reconstruct(images))


def test_latents_of_a_recipe_may_be_others(tmp_path: Path) -> None:
    """--model.latent-channels takes any number, and leaves the blocks as they are."""
    vae = vw.build(dataclasses.replace(MODELS["small-f8c16"], latent_channels=5))
    torch.save(vae.state_dict(), tmp_path / "sd.pth")
    assert locate(tmp_path / "sd.pth").config.norm_groups == 4  # type: ignore[union-attr]


def test_settings_that_are_given(tmp_path: Path) -> None:
    """In Python and by --set; together with a scale nothing is left to warn of, and what is saved then says it."""
    config = AutoencoderConfig(
        channels=16, channel_mult=(1, 3), num_res_blocks=2, norm_groups=2, norm_eps=1e-5, padding_mode="reflect"
    )
    vae = vw.build(config).eval()
    torch.save(vae.state_dict(), tmp_path / "sd.pth")
    settings = {
        "norm_groups": 2,
        "norm_eps": 1e-5,
        "padding_mode": "reflect",
        "num_heads": 1,
        "scaling_factor": 1.0,
        "shift_factor": 0.0,
    }
    loaded = vw.load(tmp_path / "sd.pth", **settings)  # no warning, which would be an error
    assert loaded.config == config and not loaded.config.guesses
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.inference_mode():
        assert torch.equal(loaded.reconstruct(images), vae.reconstruct(images))
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    assert (
        main(["convert", str(tmp_path / "sd.pth"), str(tmp_path / "x.safetensors"), "--layout", "native", *words]) == 0
    )
    assert vw.load(tmp_path / "x.safetensors").config == config
    with pytest.warns(UserWarning, match="do not show norm_eps 1e-06, num_heads 1"):
        part = vw.load(tmp_path / "sd.pth", norm_groups=2, padding_mode="reflect", scaling_factor=1.0)
    assert (part.kl_config.norm_groups, part.kl_config.padding_mode) == (2, "reflect")


def test_bounded_points(tmp_path: Path) -> None:
    """A bound has no weights: it is said, and can be given."""
    config = dataclasses.replace(
        recipe("tanh-tiny").model, bottleneck=BottleneckConfig(kind="point", bound="tanh", limit=2.0)
    )
    vae = vw.build(config).eval()
    torch.save(vae.state_dict(), tmp_path / "sd.pth")
    with pytest.warns(UserWarning, match="do not show .*bound none"):
        vw.load(tmp_path / "sd.pth", scaling_factor=1.0)
    told = quiet_load(tmp_path / "sd.pth", bound="tanh", limit=2)
    assert told.kl_config.bottleneck == config.bottleneck
    vw.save(told, tmp_path / "x.safetensors")
    assert quiet_load(tmp_path / "x.safetensors").kl_config.bottleneck == config.bottleneck
    vw.save(quiet_load(tmp_path / "sd.pth"), tmp_path / "guessed.safetensors")
    assert "bound" not in metadata(tmp_path / "guessed.safetensors")["autoencoder"]["bottleneck"]
    assert "bottleneck.bound" in locate(tmp_path / "guessed.safetensors").config.guesses


def test_what_contradicts_the_file(tmp_path: Path) -> None:
    """A fact of the file is replaced with a warning; what its shapes cannot have is refused."""
    vw.save(vw.build("small-f8c4"), tmp_path / "x.safetensors")
    with pytest.warns(UserWarning, match="its file says norm_groups 4; 8 was given"):
        assert vw.load(tmp_path / "x.safetensors", norm_groups=8).kl_config.norm_groups == 8
    assert vw.load(tmp_path / "x.safetensors", norm_groups=4, scaling_factor=1.0).kl_config.norm_groups == 4


WRONG = {
    "unknown": ({"groups": 4}, "unknown setting groups.*norm_groups"),
    "architecture": ({"channels": 4}, "unknown setting channels"),
    "indivisible": ({"norm_groups": 5}, "must be divisible by norm_groups"),
    "type": ({"norm_groups": "four"}, "norm_groups cannot be 'four'"),
    "padding": ({"padding_mode": "mirror"}, "padding_mode cannot be 'mirror'"),
    "negative": ({"norm_eps": -1.0}, "must be positive"),
    "huge": ({"scaling_factor": 10**400}, "none has more than 64"),
    "zero": ({"scaling_factor": 0.0}, "not 0"),
    "shift alone": ({"shift_factor": 0.1}, "scaling_factor together with shift_factor"),
    "whose": ({"scale_of": "sd9"}, "must be one of sd1, sdxl, sd3, flux1"),
    "other latents": ({"scale_of": "sd3"}, "cannot have one scale"),
    "twice": ({"scale_of": "sdxl", "scaling_factor": 0.2}, "one of the two"),
    "bound": ({"bound": "tanh"}, "kind 'point'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_settings_that_are_refused(name: str, networks: dict[int, vw.Autoencoder], tmp_path: Path) -> None:
    settings, words = WRONG[name]
    with pytest.raises(vw.ConfigError, match=rf"^[^\n]*{words}[^\n]*$"):
        vw.load(bare(tmp_path / "bare.safetensors", networks[4]), **settings)


def test_settings_of_other_kinds_are_refused(tmp_path: Path) -> None:
    vw.save(vw.build("taesd"), tmp_path / "taesd.safetensors", "taesd")
    with pytest.raises(vw.ConfigError, match="TAESD, which has no setting norm_groups"):
        vw.load(tmp_path / "taesd.safetensors", norm_groups=4)
    flux2 = dataclasses.replace(FOUR, latent_channels=8, normalization="batchnorm", latents_patch=2)
    vw.save(vw.build(flux2), tmp_path / "flux2.safetensors")
    with pytest.raises(vw.ConfigError, match="batch normalization"):
        vw.load(tmp_path / "flux2.safetensors", scaling_factor=0.5)


COMMANDS = {
    "inspect": ["inspect", "{}"],
    "reconstruct": ["reconstruct", "{}", "picture.png", "--out", "out"],
    "encode": ["encode", "{}", "picture.png", "--out", "out"],
    "eval": ["eval", "{}", "--data", "."],
    "repair": ["repair", "{}", "x.safetensors"],
}


@pytest.mark.parametrize(
    "words",
    [
        ("norm_groups",),
        ("norm_groups=",),
        ("norm_groups=4", "--set", "norm_groups=4"),
        ("groups=4",),
        ("norm_groups=5",),
        ("norm_groups=" + "[" * 9999,),
    ],
)
def test_words_that_set_nothing(words: tuple[str, ...], networks: dict[int, vw.Autoencoder], tmp_path: Path) -> None:
    source = bare(tmp_path / "bare.safetensors", networks[4])
    assert main(["convert", str(source), str(tmp_path / "x.safetensors"), "--layout", "native", "--set", *words]) == 2
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_take_settings(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting that no model can have is refused by each, so each asks."""
    monkeypatch.chdir(tmp_path)
    picture(tmp_path)
    torch.save(vw.build("small-f8c4").state_dict(), "sd.pth")
    words = [word.replace("{}", "sd.pth") for word in COMMANDS[command]]
    assert main([*words, "--set", "norm_groups=7"]) == 2
    assert "norm_groups" in capsys.readouterr().err
