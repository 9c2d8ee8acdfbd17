"""Fine-tuning: from every file that `load` takes, what is frozen and stays, what is told, and how such a run goes
on."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import checkpoint
from configs import MODERN, SHORT, TINY_TAESD
from runs import assert_same_run, make_images, random_batch, started
from safetensors.torch import load_file, save_file
from torch import Tensor

import vaeworks as vw
from vaeworks.config import (
    MODELS,
    AutoencoderConfig,
    BottleneckConfig,
    FinetuneConfig,
    LossConfig,
    OptimizerConfig,
    RegularizerConfig,
    TrainConfig,
)
from vaeworks.data import scan
from vaeworks.formats.io import stored_tensors
from vaeworks.formats.keymap import layout_name
from vaeworks.formats.tensor_shapes import each_shape
from vaeworks.images import from_model_range, to_model_range
from vaeworks.metrics import psnr
from vaeworks.models.init import linear_init_
from vaeworks.runtime.fp16.scale import scale_activations
from vaeworks.training import loop, train
from vaeworks.training.finetune import drift_warning
from vaeworks.training.monitor.log import read_log
from vaeworks.training.run.checkpoint import newest_checkpoint
from vaeworks.training.run.init import initial_model, load_frozen, start_autoencoder, with_start
from vaeworks.training.step import training_step
from vaeworks.training.validation import validation_images

SCALE = 0.18215
VAE = AutoencoderConfig(
    channels=8, channel_mult=(1, 2), num_res_blocks=1, norm_groups=4, scaling_factor=SCALE, shift_factor=0.25
)
BARE = dataclasses.replace(VAE, channel_mult=(1, 1, 1, 2), scaling_factor=SCALE, shift_factor=0.0, norm_groups=8)
"""Of which shapes tell everything, except the scale."""

RUN = dataclasses.replace(
    SHORT,
    data=dataclasses.replace(SHORT.data, size=16),
    images=32,
    save_every=16,
    val_every=16,
    channels_last=False,
    optimizer=OptimizerConfig(lr=1e-3, warmup_images=0),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data") / "images")


def good_vae(config: AutoencoderConfig = VAE, seed: int = 0) -> vw.Autoencoder:
    """One that has something to lose: a linear transform, with noise on its weights, and zeros of both signs among
    them."""
    vae = vw.build(config).eval()
    generator = torch.Generator().manual_seed(seed)
    linear_init_(vae, generator)
    with torch.no_grad():
        for p in vae.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.01)
        vae.encoder.conv_in.weight[0, 0, 0] = torch.tensor([0.0, -0.0, -0.0])
        vae.decoder.conv_in.weight[0, 0, 0] = torch.tensor([0.0, -0.0, -0.0])
        if config.normalization == "batchnorm":
            vae.bn.running_mean.copy_(torch.randn(vae.bn.running_mean.shape, generator=generator))
            vae.bn.running_var.copy_(torch.rand(vae.bn.running_var.shape, generator=generator) + 0.5)
    return vae


@pytest.fixture(scope="module")
def vae_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vae") / "vae.safetensors"
    vw.save(good_vae(), path)
    return path


def tuning(path: Path | str | None, config: TrainConfig = RUN, **options: Any) -> TrainConfig:
    return dataclasses.replace(config, finetune=FinetuneConfig(path=None if path is None else str(path), **options))


def as_bytes(tensors: dict[str, Tensor], *prefixes: str) -> dict[str, bytes]:
    """Contents, in which 0 is not -0."""
    found = {n: t for n, t in tensors.items() if not prefixes or n.startswith(prefixes)}
    assert found
    return {n: t.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for n, t in found.items()}


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


ENCODER, DECODER = ("encoder.", "quant_conv."), ("decoder.", "post_quant_conv.")


def result_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


# ---------------------------------------------------------------- from every kind of file


def native(root: Path, folder: Path) -> Path:
    vw.save(good_vae(), root / "a.safetensors")
    return root / "a.safetensors"


def diffusers(root: Path, folder: Path) -> Path:
    vw.save(good_vae(), root / "vae", "diffusers")
    return root / "vae"


def ldm(root: Path, folder: Path) -> Path:
    """Bare, in half precision: no metadata, no configuration."""
    save_file(
        {n: t.detach().half().contiguous() for n, t in stored_tensors(good_vae(BARE), "ldm").items()},
        root / "a.safetensors",
    )
    return root / "a.safetensors"


def pickled(root: Path, folder: Path) -> Path:
    torch.save(
        {"state_dict": {n: t.detach().clone() for n, t in stored_tensors(good_vae(BARE), "ldm").items()}},
        root / "a.ckpt",
    )
    return root / "a.ckpt"


def baked(root: Path, folder: Path) -> Path:
    """In a checkpoint of Stable Diffusion 1, from which its scale is known."""
    return checkpoint(
        root / "sd.safetensors", {n: t.detach() for n, t in stored_tensors(good_vae(BARE), "ldm").items()}
    )


def run_folder(root: Path, folder: Path) -> Path:
    train(dataclasses.replace(RUN, images=16), folder, root / "run", show=False)
    return root / "run"


KINDS: dict[str, tuple[Callable[[Path, Path], Path], float | None]] = {
    "native": (native, SCALE),
    "diffusers": (diffusers, SCALE),
    "ldm": (ldm, 1.0),
    "pickled": (pickled, 1.0),
    "baked": (baked, SCALE),
    "run": (run_folder, None),
}
"""And the scale that is known of each; None: as measured."""


@pytest.mark.filterwarnings("ignore:.*(does not say|do not show)")  # which test_certainty.py is about
@pytest.mark.parametrize("kind", KINDS)
def test_from_every_kind_of_file(kind: str, folder: Path, tmp_path: Path) -> None:
    """A run begins with the file's weights, architecture and scale, whatever the recipe says, and its model keeps the
    scale."""
    make, scale = KINDS[kind]
    path = make(tmp_path, folder)
    config = tuning(path)
    found, told = with_start(config)
    loaded = vw.load(path).float()
    assert found.model == loaded.config != config.model
    assert scale is None or found.model.scaling_factor == scale
    assert told[0].startswith(f"starting from {path}")
    assert as_bytes(initial_model(found).state_dict()) == as_bytes(loaded.state_dict())
    train(config, folder, tmp_path / "out", show=False)
    model = vw.load(tmp_path / "out")
    assert model.config == loaded.config
    assert as_bytes(model.state_dict()) != as_bytes(loaded.state_dict())
    assert result_of(tmp_path / "out")["finetuned"]["start"] == str(path)
    first = next(line["val_psnr"] for line in read_log(tmp_path / "out") if "val_psnr" in line)
    images = validation_images(loaded, scan(str(folder), 16).split(config.data.val_fraction)[1].files, 2)
    expected = [psnr(x, from_model_range(loaded.reconstruct(to_model_range(x[None])))[0]) for x in images]
    assert first == pytest.approx(
        sum(expected) / 2, abs=0.05
    )  # half precision of fp16 files aside, the picture is the old one's


def sparse(path: Path, config: AutoencoderConfig, names: str = "ldm") -> Path:
    """A bare file of a published VAE's full size: every tensor is a 1 and zeros, of which next to nothing is on the
    disk."""
    header, offset = {}, 0
    for name, shape in each_shape(config):
        size = 2
        for side in shape:
            size *= side
        if name.endswith("num_batches_tracked"):
            continue
        header[layout_name(name, names, config)] = {
            "dtype": "F16",
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in header.values():
            file.seek(8 + len(text) + entry["data_offsets"][0])
            file.write(np.float16(1).tobytes())
        file.truncate(8 + len(text) + offset)
    return path


PRESETS = ["sd1", "sd2", "sdxl", "sd3", "flux1", "flux2"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_know_their_file(name: str, tmp_path: Path) -> None:
    """A bare file of full size, which does not say whose it is, gets the preset's scale; without the preset, that is
    told."""
    path = sparse(tmp_path / "vae.safetensors", MODELS[name])
    found, told = with_start(tuning(path, expects=name))
    assert found.model == MODELS[name]
    ambiguous = name != "flux2"
    assert any(f"taken for {name}'s" in line for line in told) == ambiguous
    _, told = with_start(tuning(path))
    assert any("does not say how its latents are scaled" in line for line in told) == ambiguous


@pytest.mark.parametrize(
    ("file", "expects", "words"),
    [
        ("sd1", "sd3", "latent_channels is 4, not 16"),
        ("flux1", "sdxl", "latent_channels is 16, not 4"),
        ("flux2", "flux1", "latents_patch is 2"),
    ],
)
def test_another_architecture_is_refused(file: str, expects: str, words: str, tmp_path: Path) -> None:
    """In one line that says what differs."""
    path = sparse(tmp_path / "vae.safetensors", MODELS[file])
    with pytest.raises(vw.ConfigError, match=rf"^[^\n]*is not {expects}'s VAE \([^\n]*{words}[^\n]*another recipe$"):
        with_start(tuning(path, expects=expects))


def test_a_scale_of_its_own_is_kept(tmp_path: Path) -> None:
    """SDXL's VAE where SD 1's is expected is of that architecture: its scale is known, kept, and told."""
    described = tmp_path / "vae"
    described.mkdir()
    sparse(described / "diffusion_pytorch_model.safetensors", MODELS["sdxl"], "diffusers")
    with torch.device("meta"):
        vae = vw.build("sdxl")
    from vaeworks.formats.diffusers_config import diffusers_config

    (described / "config.json").write_text(
        json.dumps({"_class_name": "AutoencoderKL", **diffusers_config(vae.kl_config)})
    )
    found, told = with_start(tuning(described, expects="sd1"))
    assert found.model.scaling_factor == 0.13025
    assert any("its scaling_factor is 0.13025, not sd1's 0.18215; it keeps its own" in line for line in told)


def test_a_full_size_step(tmp_path: Path) -> None:
    """Stable Diffusion's network at its real size, read from its file: one step of the decoder, none of the encoder."""
    config = tuning(sparse(tmp_path / "vae.safetensors", MODELS["sd1"]), part="decoder", expects="sd1")
    config, _ = with_start(
        dataclasses.replace(config, ema_halflife=0, optimizer=OptimizerConfig(lr=1e-5, warmup_images=0, clip_norm=0.0))
    )
    model = initial_model(config)
    assert model.num_parameters == 83_653_863
    with torch.no_grad():
        for n, p in model.named_parameters():
            p.fill_(1.0) if "norm" in n and n.endswith("weight") else p.uniform_(-0.02, 0.02)
    t = started_with(config, model)
    encoder = as_bytes(model.state_dict(), "encoder.conv_in.")
    assert training_step(t, random_batch(1, 16), [0]).finite
    assert as_bytes(model.state_dict(), "encoder.conv_in.") == encoder
    assert len(t.optimizer.state) == sum(1 for n, _ in model.named_parameters() if n.startswith(DECODER))


def started_with(config: TrainConfig, model: vw.Autoencoder, **frozen: Any) -> Any:
    from vaeworks.training.state import TrainState

    return TrainState.of(model, config, **frozen)


def test_what_cannot_be_fine_tuned_is_one_line(folder: Path, tmp_path: Path) -> None:
    """A TAESD, a file that is not there, a recipe that needs a file, halves of nothing; and no run folder is left."""
    vw.save(
        vw.build(TINY_TAESD),
        tmp_path / "t",
        "taesd",
    )
    for config, words in (
        (tuning(tmp_path / "t"), "is a TAESD"),
        (tuning(tmp_path / "nothing.safetensors"), "does not exist"),
        (tuning(None, expects="sd1"), "--from FILE"),
        (tuning(None, part="decoder"), "--from FILE"),
        (tuning(None, part="encoder", teacher="a"), "--from FILE"),
    ):
        with pytest.raises(vw.VaeworksError, match=rf"^[^\n]*{words}[^\n]*$"):
            train(config, folder, tmp_path / "run", show=False)
    for options, words in (
        ({"expects": "sd9"}, "must be one of sd1"),
        ({"path": "a", "part": "decoder", "teacher": "b"}, "it is frozen"),
        ({"path": "a", "teacher": "b", "teacher_weight": -1.0}, "not negative"),
    ):
        with pytest.raises(vw.ConfigError, match=words):
            FinetuneConfig(**options)
    with pytest.raises(vw.ConfigError, match="decoder, which is frozen"):
        dataclasses.replace(tuning("a", part="encoder"), adversarial=MODERN)
    assert not (tmp_path / "run").exists()


def test_what_disturbs_latents_is_the_recipes(vae_file: Path) -> None:
    """The kind of latents is the file's; noise and prefixes in training are no property of weights."""
    wished = BottleneckConfig(kind="point", bound="tanh", noise="additive", noise_scale=0.2, prefixes=(2, 4))
    config = dataclasses.replace(RUN, model=dataclasses.replace(RUN.model, bottleneck=wished))
    found = with_start(tuning(vae_file, config))[0].model.bottleneck
    assert found == BottleneckConfig(kind="kl", noise="additive", noise_scale=0.2, prefixes=(2, 4))


def test_weights_are_copies_of_the_file(tmp_path: Path) -> None:
    """The file is overwritten in place while the run lasts: weights that were mapped from it would change."""
    path = native(tmp_path, tmp_path)
    model = initial_model(with_start(tuning(path))[0])
    before = as_bytes(copy.deepcopy(model).state_dict())
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(b"\1" * size)
    assert as_bytes(model.state_dict()) == before


def test_a_repaired_file_is_unrepaired_for_training(folder: Path, tmp_path: Path) -> None:
    """Weights at 1/256 would learn 256 times too fast: they are taken back, exactly, and the new file says so."""
    vae = good_vae()
    vw.save(scale_activations(vae, 1 / 256, 1 / 64), tmp_path / "safe.safetensors")
    config, told = with_start(tuning(tmp_path / "safe.safetensors"))
    assert config.model == VAE
    assert any("repair the result anew" in line for line in told)
    assert as_bytes(initial_model(config).state_dict()) == as_bytes(vae.state_dict())
    train(tuning(tmp_path / "safe.safetensors", part="decoder"), folder, tmp_path / "run", show=False)
    assert result_of(tmp_path / "run")["finetuned"]["encoder_unchanged"]


# ---------------------------------------------------------------- Flux.2's statistics


FLUX2 = dataclasses.replace(
    MODELS["flux2"], channels=8, channel_mult=(1, 2), num_res_blocks=1, norm_groups=4, latent_channels=4
)


@pytest.mark.parametrize("what", ["all", "decoder"])
def test_statistics_of_batch_normalization_stay(what: Any, folder: Path, tmp_path: Path) -> None:
    """Flux.2's normalization is among its buffers: they are the same bytes in checkpoint, average and model."""
    vw.save(good_vae(FLUX2), tmp_path / "vae.safetensors")
    train(tuning(tmp_path / "vae.safetensors", part=what), folder, tmp_path / "run", show=False)
    before = as_bytes(load_file(tmp_path / "vae.safetensors"), "bn.")
    assert len(before) == 3
    state = load_file(newest_checkpoint(tmp_path / "run" / "checkpoints"))
    for found in (load_file(tmp_path / "run" / "model.safetensors"), part(state, "model."), part(state, "average.")):
        assert as_bytes(found, "bn.") == before
        assert as_bytes(found, *DECODER) != as_bytes(load_file(tmp_path / "vae.safetensors"), *DECODER)
    assert vw.load(tmp_path / "run").config == FLUX2


# ---------------------------------------------------------------- the decoder alone


@pytest.fixture(scope="module")
def decoder_run(vae_file: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With an average, and a discriminator that is felt for most of the run."""
    out = tmp_path_factory.mktemp("decoder") / "run"
    adversarial = dataclasses.replace(MODERN, start_images=8, warmup=0.0, ramp=0.01)
    config = dataclasses.replace(
        RUN, images=64, adversarial=adversarial, optimizer=OptimizerConfig(lr=1e-3, weight_decay=0.1)
    )
    train(tuning(vae_file, config, part="decoder"), folder, out, show=False)
    return out


def test_the_encoder_keeps_every_byte(decoder_run: Path, vae_file: Path) -> None:
    """In weights, average, model and best model, after adversarial steps, to the sign of zeros; the decoder has
    learned."""
    assert any("adversarial" in line for line in read_log(decoder_run))
    start = load_file(vae_file)
    state = load_file(newest_checkpoint(decoder_run / "checkpoints"))
    files = [load_file(decoder_run / name) for name in ("model.safetensors", "best.safetensors")]
    for found in (part(state, "model."), part(state, "average."), *files):
        assert as_bytes(found, *ENCODER) == as_bytes(start, *ENCODER)
    for found in (part(state, "model."), part(state, "average."), files[0]):
        changed, before = as_bytes(found, *DECODER), as_bytes(start, *DECODER)
        assert all(changed[n] != before[n] for n in before)


def test_no_optimizer_knows_the_encoder(decoder_run: Path) -> None:
    """Its moments are not kept, because there are none."""
    names = [n for n in load_file(newest_checkpoint(decoder_run / "checkpoints")) if n.startswith("optimizer.")]
    assert any(".decoder." in n for n in names)
    assert not any(".encoder." in n or ".quant_conv." in n for n in names)


def test_old_latents_are_reported(decoder_run: Path, vae_file: Path, folder: Path) -> None:
    """result.json: the encoder unchanged, and old latents decoded before and after, as computed here; the scale is the
    old one."""
    told = result_of(decoder_run)["finetuned"]
    start, model = vw.load(vae_file), vw.load(decoder_run)
    assert model.config == start.config == VAE
    images = validation_images(start, scan(str(folder), 16).split(RUN.data.val_fraction)[1].files, RUN.data.val_images)
    with torch.no_grad():
        latents = [start.encode(to_model_range(x[None])).mode() for x in images]
        before, after = (
            sum(psnr(x, from_model_range(vae.decode(z))[0]) for x, z in zip(images, latents, strict=True)) / len(images)
            for vae in (start, model)
        )
    assert told["old_latents_before"] == pytest.approx(before, abs=1e-3)
    assert told["old_latents_after"] == pytest.approx(after, abs=1e-3)
    assert after != before
    assert told["encoder_unchanged"] and not told["decoder_unchanged"]
    assert told["latents_moved"] == 0.0 and told["std_after"] == told["std_before"] and told["warning"] is None


def test_the_encoder_has_no_graph(vae_file: Path) -> None:
    """It is gone through without remembering anything: neither its output nor the latents want a gradient."""
    t = started_from(tuning(vae_file, part="decoder"))
    seen: list[bool] = []
    t.autoencoder.encoder.register_forward_hook(lambda module, args, out: seen.append(out.requires_grad))
    t.learner.register_forward_hook(
        lambda module, args, out: seen.extend([out.latents.requires_grad, out.recon.requires_grad])
    )
    assert training_step(t, random_batch(8, 16), list(range(8))).finite
    assert seen == [False, False, True]
    assert all(p.grad is None for n, p in t.autoencoder.named_parameters() if n.startswith(ENCODER))


def started_from(config: TrainConfig, **frozen: Any) -> Any:
    """What a fine-tuning run trains, before its first step."""
    return started(with_start(config)[0], **frozen)


def test_the_average_begins_as_the_file(vae_file: Path) -> None:
    """Before the first step it has the file's bytes; after it, something between them and the weights."""
    t = started_from(tuning(vae_file))
    start = vw.load(vae_file).state_dict()
    assert as_bytes(t.average.state_dict()) == as_bytes(start)
    training_step(t, random_batch(8, 16), list(range(8)))
    t.update_average_(0.9)
    name = "decoder.conv_out.weight"
    expected = 0.9 * start[name] + 0.1 * t.autoencoder.state_dict()[name]
    torch.testing.assert_close(t.average.state_dict()[name], expected)
    assert not torch.equal(expected, start[name])


@pytest.mark.parametrize(("half", "still"), [("decoder", ENCODER), ("encoder", DECODER)])
def test_averaging_leaves_what_is_frozen_alone(half: Any, still: tuple[str, ...], vae_file: Path) -> None:
    """An average of equal numbers is that number, but of -0 and -0 it is 0: whatever the decay, bytes stay."""
    t = started_from(tuning(vae_file, part=half))
    for decay in (0.9, 0.1):
        training_step(t, random_batch(8, 16), list(range(8)))
        t.update_average_(decay)
    assert as_bytes(t.average.state_dict(), *still) == as_bytes(load_file(vae_file), *still)


# ---------------------------------------------------------------- all of it


def test_latents_that_have_drifted_are_told(
    vae_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All weights trained, latents pressed together: the scale stays the old one, and people are told what that
    means."""
    config = dataclasses.replace(RUN, images=160, regularizers=RegularizerConfig(envelope=3.0), val_every=160)
    result = train(tuning(vae_file, config), folder, tmp_path / "run")
    told = result.finetuned
    assert vw.load(tmp_path / "run").config == VAE
    assert not told.encoder_unchanged and not told.decoder_unchanged and told.latents_moved > 0.1
    assert told.std_after < 0.9 * told.std_before
    assert told.std_after == pytest.approx(1 / result.latents.scaling_factor)
    assert "scaling_factor stays 0.18215" in told.warning and "too weak" in told.warning
    assert told.warning in " ".join(capsys.readouterr().err.split())
    gentle = dataclasses.replace(RUN, optimizer=OptimizerConfig(lr=1e-7, warmup_images=0))
    assert train(tuning(vae_file, gentle), folder, tmp_path / "gentle", show=False).finetuned.warning is None


def test_warnings_of_every_normalization() -> None:
    """What stays is named; a change within 10 % is none."""
    for model, words in (
        (VAE, f"with a scaling_factor of {SCALE / 1.25:.5g}"),
        (
            dataclasses.replace(VAE, normalization="channel", latents_mean=(0.0,) * 4, latents_std=(1.0,) * 4),
            "latents_std stay",
        ),
        (FLUX2, "batch normalization's statistics stay"),
    ):
        config = dataclasses.replace(RUN, model=model)
        warning = drift_warning(config, 2.0, 2.5)
        assert words in warning and "1.25 times" in warning and "too strong" in warning
        assert drift_warning(config, 2.0, 2.15) is None is drift_warning(config, 2.0, 1.85)


# ---------------------------------------------------------------- the encoder alone


def perturbed_encoder(path: Path) -> Path:
    """The VAE of a file with noise on its encoder's weights."""
    vae = vw.load(path)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in vae.encoder.parameters():
            p.copy_(p + torch.randn(p.shape, generator=generator) * 0.05)
    vw.save(vae, path.with_name("perturbed.safetensors"), overwrite=True)
    return path.with_name("perturbed.safetensors")


def test_an_encoder_reaches_its_teachers_latents(vae_file: Path, folder: Path, tmp_path: Path) -> None:
    """Latents come nearer to the teacher's, the log says by how much, the decoder keeps every byte, the scale is the
    teacher's."""
    start = perturbed_encoder(vae_file)
    config = tuning(
        start,
        dataclasses.replace(RUN, images=480, val_every=480, save_every=480),
        part="encoder",
        teacher=str(vae_file),
    )
    train(config, folder, tmp_path / "run", show=False)
    before, after, teacher = (vw.load(p) for p in (start, tmp_path / "run", vae_file))
    x = to_model_range(random_batch(8, 16, seed=9))
    with torch.no_grad():
        distances = [(vae.encode(x).mean - teacher.encode(x).mean).square().mean() for vae in (before, after)]
    assert distances[1] < 0.5 * distances[0]
    assert after.config == teacher.config
    lines = [line["teacher"] for line in read_log(tmp_path / "run") if "teacher" in line]
    assert sum(lines[-5:]) < 0.5 * sum(lines[:5])
    state = load_file(newest_checkpoint(tmp_path / "run" / "checkpoints"))
    for found in (part(state, "model."), part(state, "average."), load_file(tmp_path / "run" / "model.safetensors")):
        assert as_bytes(found, *DECODER) == as_bytes(load_file(start), *DECODER)
        assert as_bytes(found, *ENCODER) != as_bytes(load_file(start), *ENCODER)
    told = result_of(tmp_path / "run")["finetuned"]
    assert told["decoder_unchanged"] and not told["encoder_unchanged"] and told["warning"] is None


def test_the_distance_is_in_the_teachers_units(tmp_path: Path) -> None:
    """Of a teacher normalized by channels, every channel counts by its own standard deviation, and the weight is a
    factor."""
    channel = dataclasses.replace(
        VAE,
        normalization="channel",
        scaling_factor=1.0,
        latents_mean=(0.5, 0.0, 1.0, -1.0),
        latents_std=(0.1, 1.0, 2.0, 3.0),
    )
    vw.save(good_vae(channel), tmp_path / "teacher.safetensors")
    vw.save(good_vae(seed=1), tmp_path / "start.safetensors")
    config = tuning(
        tmp_path / "start.safetensors",
        part="encoder",
        teacher=str(tmp_path / "teacher.safetensors"),
        teacher_weight=0.7,
    )
    config = dataclasses.replace(config, loss=LossConfig(beta=0.0))
    found, _ = with_start(config)
    teacher = load_frozen(found, torch.device("cpu")).teacher
    t = started_from(config, teacher=teacher)
    x = to_model_range(random_batch(4, 16))
    with torch.no_grad():
        difference = t.autoencoder.encode(x).mean - teacher.encode(x).mean
        expected = (difference / torch.tensor(channel.latents_std)[:, None, None]).square().mean()
    frozen = as_bytes(teacher.state_dict())
    result = training_step(t, random_batch(4, 16), list(range(4)))
    assert result.others["teacher"] == pytest.approx(expected.item(), rel=1e-4)
    assert result.loss == pytest.approx(result.reconstruction + 0.7 * result.others["teacher"], rel=1e-5)
    assert as_bytes(teacher.state_dict()) == frozen and not any(p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize("teacher", [VAE, FLUX2])
def test_a_new_vae_for_given_latents(teacher: AutoencoderConfig, folder: Path, tmp_path: Path) -> None:
    """From random weights with a teacher, the model is normalized as the teacher is, not as measured; and the run
    resumes."""
    vw.save(good_vae(teacher), tmp_path / "teacher.safetensors")
    config = tuning(None, teacher=str(tmp_path / "teacher.safetensors"))
    train(dataclasses.replace(config, images=16), folder, tmp_path / "run", show=False)
    result = train(config, folder, tmp_path / "run", show=False, resume=True)
    assert result.finetuned is None and result.images_seen == 32
    model = vw.load(tmp_path / "run")
    latents = torch.randn(1, 4, 4, 4)
    torch.testing.assert_close(model.normalize(latents), good_vae(teacher).normalize(latents))
    assert model.kl_config.channels == config.model.channels


def test_a_teacher_of_other_latents_is_refused(vae_file: Path, tmp_path: Path) -> None:
    """Of another f or c, in one line."""
    for change in ({"channel_mult": (1, 1, 2)}, {"latent_channels": 8}):
        path = tmp_path / "teacher.safetensors"
        vw.save(good_vae(dataclasses.replace(VAE, **change)), path, overwrite=True)
        with pytest.raises(vw.ConfigError, match=r"^the teacher [^\n]*teacher with the same latents$"):
            with_start(tuning(vae_file, teacher=str(path)))


# ---------------------------------------------------------------- resumed


class Killed(BaseException):
    """Stands in for SIGKILL."""


@pytest.mark.parametrize("gone", [False, True])
def test_a_run_goes_on_without_its_start(gone: bool, vae_file: Path, folder: Path, tmp_path: Path) -> None:
    """Killed and continued, also where the VAE that it began with has moved away: the same bytes; only the comparison
    is missing then."""
    start = Path(shutil.copy(vae_file, tmp_path / "start.safetensors"))
    config = dataclasses.replace(tuning(start), images=48)
    train(config, folder, tmp_path / "whole", show=False)
    original, steps = loop.training_step, 0

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise Killed
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "training_step", dying)
        with pytest.raises(Killed):
            train(config, folder, tmp_path / "parts", show=False)
    if gone:
        start.unlink()
    train(config, folder, tmp_path / "parts", show=False, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    whole, parts = (result_of(tmp_path / run)["finetuned"] for run in ("whole", "parts"))
    assert parts == (None if gone else whole)


def test_a_run_that_has_not_begun_needs_its_start(vae_file: Path, folder: Path, tmp_path: Path) -> None:
    """Killed before its first checkpoint, it is told in one line that the file is gone."""
    start = Path(shutil.copy(vae_file, tmp_path / "start.safetensors"))

    def dying(*args: Any, **kwargs: Any) -> Any:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "training_step", dying)
        with pytest.raises(Killed):
            train(tuning(start), folder, tmp_path / "run", show=False)
    start.unlink()
    with pytest.raises(vw.FormatError, match=r"^[^\n]*does not exist[^\n]*$"):
        train(tuning(start), folder, tmp_path / "run", show=False, resume=True)


# ---------------------------------------------------------------- sd-vae-ft-mse


def fine_tuned_as_the_card_says(loss: LossConfig, folder: Path, tmp_path: Path) -> None:
    """The decoder alone of a VAE whose decoder was disturbed, squared error + 0.1 perceptual, averaged: old latents
    look better."""
    vae = good_vae()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in vae.decoder.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.04)
    vw.save(vae, tmp_path / "vae.safetensors")
    config = dataclasses.replace(
        RUN,
        images=320,
        val_every=320,
        save_every=320,
        loss=loss,
        ema_halflife=64,
        optimizer=OptimizerConfig(kind="adam", lr=2e-3, betas=(0.5, 0.9), warmup_images=0, final_lr=1.0),
    )
    result = train(tuning(tmp_path / "vae.safetensors", config, part="decoder"), folder, tmp_path / "run", show=False)
    assert result.finetuned.old_latents_after > result.finetuned.old_latents_before + 1
    assert result.finetuned.encoder_unchanged
    steps = [line for line in read_log(tmp_path / "run") if "loss" in line]
    assert steps[-1]["loss"] == pytest.approx(
        steps[-1]["reconstruction"] + 0.1 * steps[-1]["perceptual"] + loss.beta * steps[-1]["kl"], rel=1e-4
    )


def test_the_recipe_of_sd_vae_ft_mse(folder: Path, tmp_path: Path) -> None:
    """With what stands in for LPIPS on machines without a network."""
    loss = LossConfig(reconstruction="mse", perceptual="without-weights", perceptual_weight=0.1)
    fine_tuned_as_the_card_says(loss, folder, tmp_path)


def test_the_recipe_of_sd_vae_ft_mse_with_real_features(test_data: Path, folder: Path, tmp_path: Path) -> None:
    """With VGG16's features from a file."""
    path = str(test_data / "weights" / "vgg16-oxford-conv1to3")
    loss = LossConfig(reconstruction="mse", perceptual="vgg16-conv1to3", perceptual_weight=0.1, perceptual_path=path)
    fine_tuned_as_the_card_says(loss, folder, tmp_path)


def test_starting_warns_of_nothing(vae_file: Path, tmp_path: Path) -> None:
    """What the preset settles is not asked of people again by whoever reads the file."""
    path = sparse(tmp_path / "vae.safetensors", dataclasses.replace(BARE, norm_groups=8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start_autoencoder(str(path))
        start_autoencoder(str(vae_file))
