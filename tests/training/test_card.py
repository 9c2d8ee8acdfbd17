"""The card of a trained model: only facts of its run, in a form that Hugging Face reads, with commands that work as
they stand."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from configs import TINY
from huggingface_hub import ModelCard
from run_folder import CONFIG, finish_run, go_on, start_run

from vaeworks.cli import main
from vaeworks.config import (
    MODELS,
    AdversarialConfig,
    BottleneckConfig,
    FinetuneConfig,
    LossConfig,
    RegularizerConfig,
    TrainConfig,
)
from vaeworks.errors import VaeworksError
from vaeworks.training.monitor.card import write_card
from vaeworks.training.monitor.card_loading import loading
from vaeworks.training.monitor.log import train_log


def made(root: Path, config: TrainConfig = CONFIG, more: object = lambda t: {}, **result: object) -> Path:
    """A finished run with its card."""
    run = start_run(root, config)
    with train_log(run, config, show=False) as log:
        go_on(run, log, config, more=more)
        finish_run(run, config, **result)
    write_card(run)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain run."""
    return made(tmp_path_factory.mktemp("runs"))


def front(run: Path) -> dict:
    return yaml.safe_load((run / "README.md").read_text().split("---\n")[1])


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def test_front_matter_is_what_hugging_face_reads(run: Path) -> None:
    """YAML with library, licence to be filled in, tags, metrics; huggingface_hub finds the evaluation in it."""
    values = front(run)
    assert values["library_name"] == "vaeworks"
    assert values["license"] == "other"
    assert {"vae", "latent-diffusion", "f2c4"} <= set(values["tags"])
    assert values["metrics"] == ["psnr", "ssim"]
    assert "datasets" not in values  # a folder is none of the hub's
    look = [line for line in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if "val_psnr" in line][-1]
    results = ModelCard((run / "README.md").read_text()).data.eval_results
    assert {r.metric_type: r.metric_value for r in results} == {
        "psnr": round(look["val_psnr"], 4),
        "ssim": round(look["val_ssim"], 4),
    }
    judged = len(json.loads((run / "data.json").read_text())["val"])
    assert results[0].dataset_name == f"dogs, {judged} held-out images"


def test_the_card_says_what_the_files_say(run: Path) -> None:
    """Figures, counts, digest, recipe, losses, statistics; and no path of this machine."""
    text = (run / "README.md").read_text()
    data, result = (json.loads((run / name).read_text()) for name in ("data.json", "result.json"))
    for fact in (
        f"{result['num_parameters']:,} parameters",
        f"{len(data['train'])} images of dogs",
        f"{len(data['val'])} more are held out",
        "1 file could not be used",
        data["train_digest"],
        "4,000 crops of 16 px",
        "Recipe `custom`",
        "l1 of pixels",
        "1e-06 x KL",
        "scaling_factor 0.50000",
        "shift_factor 0.25000",
        "| 3 | 0.2500 | 2.0000 |",
        "2.9 bits per latent element",
        "25.50 dB",
        "f2c4",
        "fine texture comes out smooth",
        "Discriminator: none",
        "fp32",
    ):
        assert fact in text, fact
    assert str(run.parent) not in text
    assert "None" not in text
    assert "nan" not in text


def test_its_python_runs_as_it_stands(run: Path, monkeypatch, capsys) -> None:
    """Every shell command and every snippet, in the order of the card, in the folder of the card, with nothing but what
    it says."""
    text = (run / "README.md").read_text()
    monkeypatch.chdir(run)
    for command in blocks(text, "sh"):
        program, *words = shlex.split(command)
        assert program == "vaeworks"
        assert main(words) == 0
    snippets = blocks(text, "python")
    assert len(snippets) == 2
    found = {}
    for snippet in snippets:
        scope: dict[str, object] = {}
        exec(snippet, scope)
        found |= scope
    assert found["latents"].shape == (1, 4, 8, 8)
    assert found["images"].shape == (1, 3, 16, 16)
    assert type(found["vae"]).__name__ == "AutoencoderKL"
    assert found["vae"].config.scaling_factor == 0.5


def test_what_was_on_is_told(tmp_path: Path) -> None:
    """Perceptual term, regularizers, discriminator and since when it was felt, events, alarms that stayed open, the
    licence."""
    config = dataclasses.replace(
        CONFIG,
        license="cc-by-4.0",
        loss=LossConfig(reconstruction="mse", perceptual="without-weights", perceptual_weight=0.3),
        adversarial=AdversarialConfig(discriminator="unet", loss="relativistic", stage="decoder"),
        regularizers=RegularizerConfig(scale_equivariance=0.25),
    )
    run = start_run(tmp_path, config)
    with train_log(run, config, show=False) as log:
        go_on(run, log, config, more=lambda t: {"adversarial_weight": 0.1} if t > 0.5 else {})
        log.event(4000, "the latents blow up: too large", alarm=True, kind="latent blow-up")
        log.event(4000, "channels died", alarm=True, kind="dead channels")
        log.event(4000, "channels are alive again", kind="dead channels")
        finish_run(run, config)
        log.finish()
    text = (run / "README.md").read_text()
    assert front(run)["license"] == "cc-by-4.0"
    assert "mse of pixels in [-1,1] + 0.3 x without-weights" in text
    assert "scale_equivariance 0.25" in text
    assert (
        "unet, relativistic loss, adaptive weight 0.5, with adversarial gradient from 2,100 images on, encoder frozen "
        "from then on" in text
    )
    assert "At the end of the run this was not mended: the latents blow up: too large." in text
    assert "not mended: channels" not in text
    assert "4,000 images: channels are alive again" in text
    assert "comes out smooth" not in text


def test_a_fine_tuned_decoder_fits_the_diffusion_models_of_its_start(tmp_path: Path) -> None:
    """What changed and what did not, the kept scale, and no word of latents of its own."""
    config = dataclasses.replace(
        CONFIG, finetune=FinetuneConfig(path="/home/someone/secret/sd-vae.safetensors", part="decoder")
    )
    changed = {
        "start": "/home/someone/secret/sd-vae.safetensors",
        "encoder_unchanged": True,
        "decoder_unchanged": False,
        "old_latents_before": 30.123,
        "old_latents_after": 31.456,
        "latents_moved": 0.0,
        "std_before": 5.5,
        "std_after": 5.5,
        "warning": "the latents have drifted",
    }
    text = (made(tmp_path, config, finetuned=changed) / "README.md").read_text()
    assert "unchanged to the last bit: encoder" in text
    assert "30.12 dB by the old decoder, 31.46 dB by this one" in text
    assert "fits the diffusion models of that VAE" in text
    assert "as of sd-vae.safetensors" in text
    assert "5.5 before, 5.5 now" in text
    assert "The latents have drifted." in text
    assert "latents are its own" not in text
    assert "secret" not in text


def test_an_encoder_that_was_taught(tmp_path: Path) -> None:
    """Latents are to be the teacher's, whose scale is kept, also from random weights."""
    config = dataclasses.replace(CONFIG, finetune=FinetuneConfig(teacher="hf:someone/vae"))
    text = (made(tmp_path, config) / "README.md").read_text()
    assert "random weights; towards the latents of hf:someone/vae" in text
    assert ", as of hf:someone/vae." in text
    assert "latents are its own" not in text


def test_points_and_streams(tmp_path: Path) -> None:
    """A bottleneck that diffusers cannot express is said to be so, with a way in Python; a stream of the hub is named
    as a data set."""
    model = dataclasses.replace(TINY, bottleneck=BottleneckConfig(kind="point", bound="tanh", noise="additive"))
    run = made(tmp_path, dataclasses.replace(CONFIG, model=model))
    text = (run / "README.md").read_text()
    assert "bounded by tanh" in text
    assert "additive noise of scale 0.3" in text
    assert "bits per latent" not in text
    assert "KL divergence" not in text
    assert "has a posterior, and this encoder predicts latents alone" in text
    assert len(blocks(text, "python")) == 1
    record, data = (json.loads((run / name).read_text()) for name in ("run.json", "data.json"))
    (run / "run.json").write_text(json.dumps({**record, "source": "hf:someone/dogs:train"}))
    (run / "data.json").write_text(json.dumps({**data, "train": [], "streamed": {"shards": 3, "val_fraction": 0.1}}))
    write_card(run)
    assert front(run)["datasets"] == ["someone/dogs"]
    assert "read as a stream (3 shards)" in (run / "README.md").read_text()


def test_nothing_held_out_no_metrics(tmp_path: Path) -> None:
    """No figure is claimed of images that were not judged."""
    run = start_run(tmp_path)
    with train_log(run, CONFIG, show=False) as log:
        log.step(4000, {"loss": 0.1, "psnr": 20.0, "bits_per_dimension": 2.0})
        finish_run(run)
        log.finish()
    assert "metrics" not in front(run)
    assert "nothing was judged on unseen images" in (run / "README.md").read_text()


def test_applications_get_commands_only_where_they_load_it(tmp_path: Path) -> None:
    """Stable Diffusion's network: install commands at its scale; at another scale, the fold that adapts it; a small
    one: the reason."""
    same, other, small = (
        loading(SimpleNamespace(config=config))  # type: ignore[arg-type]
        for config in (MODELS["sd1"], dataclasses.replace(MODELS["sd1"], scaling_factor=0.7), MODELS["small-f8c16"])
    )
    assert "vaeworks install model.safetensors --into comfyui ComfyUI\n" in same
    assert "vaeworks install model.safetensors --into webui stable-diffusion-webui\n" in same
    assert "--into" not in other
    assert "`vaeworks fold model.safetensors vae.safetensors --for sd1|sdxl` adapts the weights" in other
    assert "--into" not in small
    assert "does not fit" in small


def test_an_unfinished_run_has_no_card(tmp_path: Path, capsys) -> None:
    """Without a model it is an error for callers, and a line for people; the run itself goes on."""
    run = start_run(tmp_path)
    with pytest.raises(VaeworksError):
        write_card(run)
    with train_log(run, CONFIG) as log:
        log.finish()
    assert "the model card could not be written" in capsys.readouterr().err
    assert not (run / "README.md").exists()


def test_one_channel(tmp_path: Path, monkeypatch) -> None:
    """Gray images: the snippet makes some."""
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(TINY, in_channels=1, out_channels=1))
    run = made(tmp_path, config)
    monkeypatch.chdir(run)
    scope: dict[str, torch.Tensor] = {}
    exec(blocks((run / "README.md").read_text(), "python")[0], scope)
    assert scope["images"].shape == (1, 1, 16, 16)
