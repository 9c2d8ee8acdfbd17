"""Pipelines moved to another latent space: they compute what the maps say, and are stock pipelines afterwards."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from latent_spaces import images, mixing, moved, random_vae, rotation
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.painting.moving import EDGES, MovedPipeline, move_pipeline, target_of
from vaeworks.pipelines.stable_diffusion import load_pipeline, paint
from vaeworks.pipelines.tiny import TINY

pytestmark = pytest.mark.filterwarnings(  # Euler schedulers call np.array on tensors
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

KINDS = sorted(TINY.keys() - {"tiny-flux2"})
FLOWS = {"tiny-sd3", "tiny-flux"}
BATCHES = images().split(8)
SIZE = 8
"""Side of the latents that denoisers are given here."""


def tiny(kind: str, vae: vw.Autoencoder) -> diffusers.DiffusionPipeline:
    return load_pipeline(kind, vae, "cpu", torch.float32)


def denoiser(pipe: diffusers.DiffusionPipeline) -> Any:
    return pipe.components.get("unet") or pipe.components["transformer"]


@torch.no_grad()
def predicted(pipe: diffusers.DiffusionPipeline, x: Tensor, t: int = 400) -> Tensor:
    """The denoiser's prediction n c h w for noisy latents, with some text."""
    net, (n, _, height, width) = denoiser(pipe), x.shape
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(
        n, 5, net.config.get("joint_attention_dim") or net.config.cross_attention_dim, generator=generator
    )
    times = torch.full((n,), float(t))
    if type(net).__name__ == "UNet2DConditionModel":
        extra = {"text_embeds": torch.ones(n, 32), "time_ids": torch.ones(n, 6)}
        return net(x, times, text, added_cond_kwargs=extra).sample
    pooled = torch.ones(n, net.config.pooled_projection_dim)
    if type(net).__name__ == "SD3Transformer2DModel":
        return net(x, encoder_hidden_states=text, pooled_projections=pooled, timestep=times).sample
    out = net(
        pipe._pack_latents(x, *x.shape),
        encoder_hidden_states=text,
        pooled_projections=pooled,
        timestep=times / 1000,
        guidance=torch.ones(n),
        img_ids=pipe._prepare_latent_image_ids(n, height // 2, width // 2, "cpu", torch.float32),
        txt_ids=torch.zeros(5, 3),
    ).sample
    return pipe._unpack_latents(out, height * 8, width * 8, 8)


def noise(c: int, n: int = 2) -> Tensor:
    return torch.randn(n, c, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def each(matrix: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("dc,nchw->ndhw", matrix.float(), x)


def interior(x: Tensor) -> Tensor:
    return x[:, :, 2:-2, 2:-2]


# A space that is the old one in other coordinates


@pytest.mark.parametrize("turn", [rotation, mixing])
@pytest.mark.parametrize("kind", KINDS)
def test_in_other_coordinates_the_prediction_is_the_same(kind: str, turn: Any) -> None:
    """Exactly what the old denoiser predicts for the old coordinates of its input, in the new coordinates."""
    old = random_vae(4)
    matrix = turn(4)
    pipe = tiny(kind, old)
    result = move_pipeline(pipe, old, moved(old, matrix), BATCHES)
    assert result.report.maps.to_old.explained > 1 - 1e-6
    assert result.report.new_layers
    x = noise(4)
    expected = each(matrix, predicted(pipe, each(torch.linalg.inv(matrix), x)))
    # the offsets of moved VAEs are fitted, and not quite zero
    torch.testing.assert_close(predicted(result.pipe, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_means_of_latents_are_taken_into_account(kind: str) -> None:
    """The old denoiser is given the mean that the map adds, times the share of latents in its input, and what it
    predicts of the old mean becomes the new one. Exact in the interior; at the edge zeros are padded."""
    old = random_vae(4)
    offset = torch.linspace(-1, 1, 4, dtype=torch.float64)
    pipe = tiny(kind, old)
    result = move_pipeline(pipe, old, moved(old, torch.eye(4), offset), BATCHES)
    target = target_of(pipe.scheduler)
    shift = -target.kept * offset.float()[:, None, None]
    mean = each(torch.eye(4), torch.ones(1, 1, SIZE, SIZE)) * 0 if kind not in FLOWS else offset.float()[:, None, None]
    x = noise(4)
    expected = predicted(pipe, x + shift) - mean
    found = predicted(result.pipe, x)
    if kind in FLOWS:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert result.report.border is None
    else:
        conv, new = denoiser(pipe).conv_in, denoiser(result.pipe).conv_in
        torch.testing.assert_close(interior(new(x)), interior(conv(x + shift)), rtol=1e-4, atol=1e-4)
        assert result.report.border is not None
        edge = (new(x) - conv(x + shift))[:, :, 0, 1:-1]
        spread = new.weight.square().sum((1, 2, 3)).mean().sqrt()
        assert result.report.border == pytest.approx((edge.square().mean().sqrt() / spread).item(), rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rotated_space_paints_the_same_picture(kind: str) -> None:
    """Starting from the same noise in other coordinates."""
    old, matrix = random_vae(4), rotation(4)
    pipe = tiny(kind, old)
    result = move_pipeline(pipe, old, moved(old, matrix), BATCHES)
    pictures = []
    for p, start in ((pipe, noise(4, 1)), (result.pipe, each(matrix, noise(4, 1)))):
        start = p._pack_latents(start, *start.shape) if kind == "tiny-flux" else start
        options = {"height": 64, "width": 64, "num_inference_steps": 3, "output_type": "pt"}
        p.set_progress_bar_config(disable=True)
        pictures.append(p("a cat", latents=start, **options).images)
    torch.testing.assert_close(*pictures, rtol=0, atol=2e-3)
    assert pictures[0].std() > 0.01


# What the maps say, in spaces of other shapes


@pytest.mark.parametrize("kind", KINDS)
def test_seen_through_the_map_the_prediction_is_the_old_one(kind: str) -> None:
    """Four of sixteen channels are the old ones: the map's right inverse fits the target better than regression."""
    old, new = random_vae(4), random_vae(16, seed=1)
    old.encode = lambda x, **_: vw.Posterior.point(new.encode(x).mean[:, 8:12])  # type: ignore[method-assign]
    pipe = tiny(kind, old)
    report = (result := move_pipeline(pipe, old, new, BATCHES)).report
    assert report.output == "inverse"
    assert report.start_errors["inverse"] < 0.95
    fitted, target = report.maps.to_old, target_of(pipe.scheduler)
    linear, before, after = (
        dataclasses.replace(fitted, bias=share * fitted.bias) for share in (0.0, target.kept, -target.mean)
    )
    # of directions that the map ignores, the old layers know nothing: random weights are there
    weight = fitted.weight
    projection = torch.linalg.pinv(weight) @ weight
    assert report.ignored == len(projection) - len(weight)
    x = dataclasses.replace(linear, weight=projection, bias=torch.zeros(len(projection)), target_patch=linear.patch)(
        noise(16)
    )
    seen = linear(predicted(result.pipe, x))
    expected = predicted(pipe, before(x)) + after(torch.zeros_like(x))
    torch.testing.assert_close(interior(seen), interior(expected), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_direction_of_the_new_latents_reaches_the_denoiser(kind: str) -> None:
    """Else neither new layer would have a gradient there. The same seed gives the same weights."""
    old, new = random_vae(4), random_vae(16, seed=1)
    pipe = tiny(kind, old)
    layers = []
    for seed in (0, 0, 1):
        net = denoiser(move_pipeline(pipe, old, new, BATCHES, seed=seed).pipe)
        layers.append(net.get_submodule(EDGES[type(net).__name__][0]).weight)
    first = layers[0].movedim(1, 0).flatten(1) if layers[0].ndim == 4 else layers[0].T
    assert torch.linalg.matrix_rank(first) == min(first.shape)
    assert torch.equal(layers[0], layers[1])
    assert not torch.equal(layers[0], layers[2])


@pytest.mark.parametrize("kind", KINDS)
def test_the_start_is_no_worse_than_predicting_the_mean_by_much(kind: str) -> None:
    """Also for spaces that have little in common, where a right inverse would be huge."""
    old, new = random_vae(4), random_vae(16, seed=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        new.encode = lambda x, **_: vw.Posterior.point(  # type: ignore[method-assign]
            torch.randn(len(x), 16, x.shape[2] // 8, x.shape[3] // 8)
        )
        report = move_pipeline(tiny(kind, old), old, new, [images(64)]).report
    assert report.output == "regression"
    assert report.start_errors["regression"] < 1.1


SCRIPT = """
import sys, json
sys.modules["vaeworks"] = None  # importing it raises ImportError
import torch
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1], local_files_only=True)
pipe.set_progress_bar_config(disable=True)
images = pipe("a cat", height=64, width=48, num_inference_steps=2, output_type="np",
              generator=torch.Generator().manual_seed(0)).images
print(json.dumps([list(images.shape), float(images.std()), float(images.mean())]))
"""


@pytest.mark.parametrize("kind", KINDS)
def test_the_moved_pipeline_is_stock(kind: str, tmp_path: Path) -> None:
    """c4 to c16: it paints, is saved, and paints the same in a process that cannot import vaeworks."""
    old, new = random_vae(4), random_vae(16, seed=1)
    pipe = tiny(kind, old)
    before = {name: t.clone() for name, t in denoiser(pipe).state_dict().items()}
    config = dict(denoiser(pipe).config)
    result = move_pipeline(pipe, old, new, BATCHES)
    assert type(result.pipe) is type(pipe)
    assert type(result.pipe.vae) is diffusers.AutoencoderKL
    assert result.pipe.vae.config.latent_channels == 16
    assert paint(result.pipe, "a cat", size=64, steps=2).size == (64, 64)
    assert paint(result.pipe, "a cat", image=paint(pipe, "a cat", size=64, steps=1), steps=4).size == (64, 64)

    # the old pipeline is as it was, and shares what is large
    assert dict(denoiser(pipe).config) == config
    assert all(torch.equal(t, before[name]) for name, t in denoiser(pipe).state_dict().items())
    ours = dict(denoiser(result.pipe).named_parameters())
    anew = {name for name, p in denoiser(pipe).named_parameters() if ours[name] is not p}
    assert anew == {f"{layer}.{part}" for layer in result.report.new_layers for part in ("weight", "bias")}
    assert result.report.new_layers == EDGES[type(denoiser(pipe)).__name__]

    result.pipe.save_pretrained(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    shape, std, mean = json.loads(done.stdout)
    assert shape == [1, 64, 48, 3]
    result.pipe.set_progress_bar_config(disable=True)
    here = result.pipe(
        "a cat",
        height=64,
        width=48,
        num_inference_steps=2,
        output_type="np",
        generator=torch.Generator().manual_seed(0),
    ).images
    assert std > 0.01
    assert std == pytest.approx(float(here.std()), abs=1e-4)
    assert mean == pytest.approx(float(here.mean()), abs=1e-4)


def test_sd3_takes_another_f_by_other_patches(tmp_path: Path) -> None:
    """f8 in 2x2 patches becomes f16 in single latents, and f4 in 4x4 patches: the tokens cover the same pixels."""
    old = random_vae(4)
    pipe = tiny("tiny-sd3", old)
    for f, c, patch in ((16, 16, 1), (4, 3, 4)):
        result = move_pipeline(pipe, old, random_vae(c, f=f), [images(64, seed=2)])
        net = denoiser(result.pipe)
        assert (net.config.patch_size, net.config.in_channels, net.config.sample_size) == (patch, c, 64 // f)
        picture = paint(result.pipe, "a cat", size=64, steps=2)
        assert picture.size == (64, 64)
        assert paint(result.pipe, "a cat", steps=1).size == (64, 64)
        result.pipe.save_pretrained(tmp_path / str(f))
        again = diffusers.DiffusionPipeline.from_pretrained(tmp_path / str(f), local_files_only=True)
        x = torch.randn(1, c, 64 // f, 64 // f, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(predicted(again, x), predicted(result.pipe, x), rtol=1e-5, atol=1e-5)


def test_sd3_with_exact_f16_latents_predicts_the_same() -> None:
    """Latents that are the old ones, packed: the tokens are the same numbers."""
    old, coarse = random_vae(4), random_vae(16, f=16)
    coarse.encode = lambda x, **_: vw.Posterior.point(  # type: ignore[method-assign]
        torch.nn.functional.pixel_unshuffle(old.encode(x).mean, 2)
    )
    pipe = tiny("tiny-sd3", old)
    result = move_pipeline(pipe, old, coarse, BATCHES)
    x = noise(4)
    packed = torch.nn.functional.pixel_unshuffle(x, 2)
    found = torch.nn.functional.pixel_shuffle(predicted(result.pipe, packed), 2)
    torch.testing.assert_close(found, predicted(pipe, x), rtol=1e-4, atol=1e-4)


# Spaces of one shape


@pytest.mark.parametrize("kind", KINDS)
def test_a_fine_tuned_decoder_needs_no_new_layers(kind: str) -> None:
    """As vae-ft-mse: its encoder is the old one. Nothing is changed but the VAE, unless it is asked for."""
    old = random_vae(4)
    new = copy.deepcopy(old)
    new.decoder.conv_out.bias += 0.1
    pipe = tiny(kind, old)
    result = move_pipeline(pipe, old, new, BATCHES)
    assert result.report.maps.identity == pytest.approx(1)
    assert result.report.new_layers == ()
    assert denoiser(result.pipe) is denoiser(pipe)
    always = move_pipeline(pipe, old, new, BATCHES, remap="always")
    assert always.report.new_layers
    x = noise(4)
    torch.testing.assert_close(predicted(always.pipe, x), predicted(pipe, x), rtol=1e-4, atol=1e-4)


def test_never_keeps_layers_in_a_space_that_is_another() -> None:
    old = random_vae(4)
    pipe = tiny("tiny", old)
    result = move_pipeline(pipe, old, random_vae(4, seed=1), BATCHES, remap="never")
    assert result.report.new_layers == ()
    assert denoiser(result.pipe) is denoiser(pipe)


# Targets


@pytest.mark.parametrize(
    ("scheduler", "kind"),
    [
        (diffusers.DDIMScheduler(), "epsilon"),
        (diffusers.DDIMScheduler(prediction_type="v_prediction"), "v_prediction"),
        (diffusers.EulerDiscreteScheduler(prediction_type="sample"), "sample"),
        (diffusers.FlowMatchEulerDiscreteScheduler(), "flow"),
    ],
)
def test_targets_are_known_by_the_scheduler(scheduler: Any, kind: str) -> None:
    target = target_of(scheduler)
    assert target.kind == kind
    assert target.noise + target.latents == pytest.approx({"flow": 2}.get(kind, 1))
    assert 0 < target.kept < 1


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_other_targets_are_moved_too(kind: str) -> None:
    old, matrix = random_vae(4), mixing(4)
    pipe = tiny("tiny", old)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, prediction_type=kind)
    result = move_pipeline(pipe, old, moved(old, matrix), BATCHES)
    x = noise(4)
    expected = each(matrix, predicted(pipe, each(torch.linalg.inv(matrix), x)))
    torch.testing.assert_close(predicted(result.pipe, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_estimate_of_the_start_is_that_of_a_perfect_denoiser(kind: str) -> None:
    """0 for a space in other coordinates, and larger for a space with more channels: three quarters of the noise
    cannot be seen."""
    old = random_vae(4)
    pipe = tiny(kind, old)
    same = move_pipeline(pipe, old, moved(old, rotation(4)), BATCHES).report
    assert max(same.start_errors.values()) < 1e-4
    other = move_pipeline(pipe, old, random_vae(16), BATCHES).report
    assert min(other.start_errors.values()) > 0.5


def test_report() -> None:
    old = random_vae(4)
    report = move_pipeline(tiny("tiny", old), old, random_vae(16), BATCHES).report
    values = json.loads(json.dumps(report.to_dict()))
    assert values["explained_of_old"] == report.maps.to_old.explained
    assert (values["old"], values["new"], values["num_held_out"]) == ("f8c4", "f8c16", 6)
    text = "\n".join(report.sentences())
    assert "conv_in and conv_out are new" in text
    assert f"{report.maps.to_old.noise_gain:.2f}" in text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays(dtype: torch.dtype) -> None:
    old = random_vae(4)
    pipe = load_pipeline("tiny-sd3", old, "cpu", dtype)
    result = move_pipeline(pipe, old, random_vae(16), BATCHES)
    assert {p.dtype for p in denoiser(result.pipe).parameters()} == {dtype}
    assert result.pipe.vae.dtype == dtype


# Refused


def refused(words: str, pipe: Any, old: vw.Autoencoder, new: vw.Autoencoder, **options: Any) -> None:
    def never() -> Any:
        raise AssertionError("images were read")
        yield

    with pytest.raises(vw.ConfigError, match=words) as caught:
        move_pipeline(pipe, old, new, never(), **options)
    assert "\n" not in str(caught.value)


def test_refused_before_any_image_is_read() -> None:
    old, new = random_vae(4), random_vae(16)
    pipe = tiny("tiny", old)
    refused("takes 4 latent channels", pipe, new, old)
    refused("take a VAE of f8", pipe, old, random_vae(16, f=16))
    refused("take a VAE of f8", tiny("tiny-flux", old), old, random_vae(16, f=16))
    refused("take a VAE of f2", tiny("tiny-sd3", random_vae(4, f=2)), random_vae(4, f=2), random_vae(16, f=8))
    refused("never", pipe, old, new, remap="never")
    flux2 = vw.build("flux2", channels=16, channel_mult=(1, 1, 2, 2), num_res_blocks=1, norm_groups=8)
    refused("Flux2Transformer2DModel", tiny("tiny-flux2", flux2), flux2, new)
    refused("could not be saved", pipe, old, random_vae(16, num_heads=2))
    inpainting = tiny("tiny", old)
    inpainting.unet.register_to_config(in_channels=9)
    refused("takes 9 channels and predicts 4", inpainting, old, new)
    odd = tiny("tiny", old)
    odd.scheduler = diffusers.DDIMScheduler.from_config(odd.scheduler.config, prediction_type="sideways")
    refused("sideways", odd, old, new)
    wrapped = tiny("tiny", old)
    wrapped.unet.conv_in = nn.Sequential(wrapped.unet.conv_in)
    refused("conv_in is a Sequential", wrapped, old, new)


def test_the_result_is_a_plain_pair() -> None:
    old = random_vae(4)
    result = move_pipeline(tiny("tiny", old), old, random_vae(16), BATCHES)
    assert isinstance(result, MovedPipeline)
    assert "f8c16" in repr(result)
