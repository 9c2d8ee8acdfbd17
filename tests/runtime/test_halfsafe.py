"""float16: ranges of activations, scales that change no result, and the repair of a VAE that overflows."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from configs import TINY_TAESD
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.config import MODELS, AutoencoderConfig, TinyConfig
from vaeworks.formats.apps.support import DIFFUSERS, support
from vaeworks.formats.locate import locate
from vaeworks.models import Autoencoder
from vaeworks.models.init import linear_init_
from vaeworks.nn import GroupNorm, ResBlock, SpatialAttention
from vaeworks.runtime import activation_ranges, first_overflow, half_safe, sample_images, scale_activations
from vaeworks.runtime.fp16.deviation import deviation, outputs
from vaeworks.runtime.fp16.emulation import in_precision
from vaeworks.runtime.fp16.ranges import scaled_ranges

SMALL = AutoencoderConfig(channels=16, channel_mult=(1, 2), num_res_blocks=1, norm_groups=4)
ATTENTIVE = dataclasses.replace(SMALL, attention_factors=(2,), num_heads=2)
UP = 2.0**16

configs = st.builds(
    AutoencoderConfig,
    channels=st.just(8),
    channel_mult=st.sampled_from([(1,), (1, 2), (2, 1), (1, 1.5, 3)]),
    num_res_blocks=st.integers(1, 2),
    decoder_channels=st.sampled_from([None, 16]),
    mid_attention=st.booleans(),
    attention_factors=st.sampled_from([(), (1,)]),
    num_heads=st.sampled_from([1, 2]),
    quant_conv=st.booleans(),
    post_quant_conv=st.booleans(),
    norm_groups=st.sampled_from([2, 4]),
    norm_eps=st.sampled_from([1e-6, 1e-2]),
    padding_mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    encoder_scale=st.sampled_from([1.0, 0.25, 3.0]),
    decoder_scale=st.sampled_from([1.0, 0.25, 3.0]),
)


def random_vae(config: AutoencoderConfig | TinyConfig, seed: int = 0) -> Autoencoder:
    """All weights random, biases and norms included, so that nothing that ought to be scaled can hide."""
    vae = vw.build(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for p in vae.parameters():
        p.copy_(torch.randn(p.shape, generator=generator) * (0.3 if p.ndim == 1 else p[0].numel() ** -0.5))
    for module in vae.modules():
        if isinstance(module, GroupNorm):
            module.weight.add_(1.0)
    return vae


def codec(name: str = "small-f8c16") -> Autoencoder:
    """A working VAE without training."""
    vae = vw.build(name).eval().requires_grad_(False)
    linear_init_(vae, torch.Generator().manual_seed(0))
    return vae


def photographs(vae: Autoencoder, n: int = 2, size: int = 64) -> Tensor:
    return sample_images(vae, size=size)[:n]


def state(vae: Autoencoder) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in vae.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def forward(vae: Autoencoder, images: Tensor, latents: Tensor) -> Tensor:
    """Moments and decoded latents in one vector."""
    with torch.no_grad():
        posterior = vae.encode(images)
        return torch.cat([x.flatten() for x in (posterior.mean, posterior.logvar, vae.decode(latents))])


# scales


@given(configs, st.integers(-12, 12), st.integers(-12, 12), st.integers(0, 3))
def test_powers_of_two_change_no_output(config: AutoencoderConfig, encoder: int, decoder: int, seed: int) -> None:
    """Moments and images in float64 stay equal for every architecture, and epsilon is what the configuration says."""
    vae = random_vae(config, seed).double()
    f, generator = config.downsample_factor, torch.Generator().manual_seed(seed)
    images = torch.rand(1, 3, 2 * f, 3 * f, generator=generator, dtype=torch.float64) * 2 - 1
    latents = torch.randn(1, 4, 2, 3, generator=generator, dtype=torch.float64)
    scaled = scale_activations(vae, 2.0**encoder, 2.0**decoder)
    expected, actual = forward(vae, images, latents), forward(scaled, images, latents)
    assert (actual - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert scaled.config == dataclasses.replace(
        config, encoder_scale=config.encoder_scale * 2.0**encoder, decoder_scale=config.decoder_scale * 2.0**decoder
    )
    rebuilt = vw.build(scaled.config)  # what a reader of the file makes of it
    rebuilt.load_state_dict(scaled.state_dict())
    norms = [[m.eps for m in x.modules() if isinstance(m, GroupNorm)] for x in (scaled, rebuilt)]
    assert norms[0] == norms[1]


def test_every_activation_that_is_not_normalized_is_scaled() -> None:
    """The ranges measured after scaling are those before, times the factor where `scalable` says so, exactly."""
    vae = random_vae(dataclasses.replace(ATTENTIVE, channel_mult=(1, 2, 2), decoder_channels=24))
    images = photographs(vae, 1)
    before = activation_ranges(vae, images)
    after = activation_ranges(scale_activations(vae, 2.0**-5, 2.0**3), images)
    assert scaled_ranges(before, {"encoder": 2.0**-5, "decoder": 2.0**3}) == after
    fixed = {layer.name.split(".")[-1] for layer in before if not layer.scalable}
    assert fixed == {
        "norm",
        "norm1",
        "norm2",
        "norm_out",
        "query",
        "key",
        "value",
        "logits",
        "conv_out",
        "quant_conv",
        "post_quant_conv",
    }


def test_other_factors_hold_to_rounding() -> None:
    """A factor that is no power of two is right as well, if not exact."""
    vae = random_vae(ATTENTIVE).double()
    images, latents = photographs(vae).double(), torch.randn(1, 4, 8, 8, dtype=torch.float64)
    expected = forward(vae, images, latents)
    actual = forward(scale_activations(vae, 0.3, 7.0), images, latents)
    assert 0 < (actual - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_scaling_needs_positive_factors_and_normalization() -> None:
    with pytest.raises(vw.ConfigError, match="positive"):
        scale_activations(random_vae(SMALL), decoder=0.0)
    with pytest.raises(vw.ConfigError, match="TAESD"):
        scale_activations(vw.build("taesd"), decoder=0.5)


# ranges


def test_ranges_are_those_of_the_layers() -> None:
    """Largest values, percentiles and image numbers, against outputs collected the plain way."""
    vae = random_vae(ATTENTIVE)
    images = photographs(vae, 3, 32)
    ranges = {layer.name: layer for layer in activation_ranges(vae, images)}
    outs: dict[str, list[Tensor]] = {}
    watched = copy.deepcopy(vae)

    def keep(name: str, output: Tensor) -> None:
        outs.setdefault(name, []).append(output)

    for name, module in watched.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.GroupNorm, ResBlock, SpatialAttention)):
            module.register_forward_hook(lambda _, inputs, output, name=name: keep(name, output))
    with torch.no_grad():
        for image in images:
            watched.decode(watched.encode(image[None]).mode())
    assert set(ranges) == set(outs) | {
        f"{name}.logits" for name, m in vae.named_modules() if isinstance(m, SpatialAttention)
    }
    for name, tensors in outs.items():
        largest = [x.abs().max().item() for x in tensors]
        assert (ranges[name].max_abs, ranges[name].image) == (max(largest), int(np.argmax(largest)))
        percentile = max(np.quantile(x.abs().flatten().numpy(), 0.9999, method="inverted_cdf") for x in tensors)
        assert ranges[name].p9999 == pytest.approx(percentile)
        assert ranges[name].half == ("decoder" if "decoder" in name or name == "post_quant_conv" else "encoder")
    attention = "decoder.levels.0.attentions.1"
    q, k = (outs[f"{attention}.{x}"] for x in ("query", "key"))
    heads = (slice(0, 16), slice(16, 32))
    logits = max((a[..., h] @ b[..., h].mT).abs().max().item() / 4 for a, b in zip(q, k, strict=True) for h in heads)
    assert ranges[f"{attention}.logits"].max_abs == pytest.approx(logits, rel=1e-5)


def test_ranges_stand_in_order_of_execution() -> None:
    names = [layer.name for layer in activation_ranges(random_vae(SMALL), photographs(random_vae(SMALL), 1))]
    assert names[:4] == ["encoder.conv_in", *(f"encoder.levels.0.blocks.0.{x}" for x in ("norm1", "conv1", "norm2"))]
    assert (
        names.index("encoder.conv_out")
        < names.index("quant_conv")
        < names.index("post_quant_conv")
        < names.index("decoder.conv_in")
    )
    assert names[-1] == "decoder.conv_out"


def test_measuring_leaves_nothing_behind() -> None:
    """No hook, no gradient, no other mode, no other weight; also where the model fails."""
    vae = random_vae(SMALL).train()
    before = state(vae)
    activation_ranges(vae, photographs(vae, 1))
    with pytest.raises(vw.ConfigError, match="divisible"):
        activation_ranges(vae, torch.zeros(1, 3, 7, 8))
    half_safe(vae, photographs(vae, 1))
    assert same(before, state(vae)) and vae.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in vae.modules())


@pytest.mark.parametrize("images", [torch.zeros(0, 3, 16, 16), torch.full((1, 3, 16, 16), math.nan)])
def test_images_must_be_there_and_finite(images: Tensor) -> None:
    with pytest.raises(vw.ConfigError, match="finite"):
        activation_ranges(random_vae(SMALL), images)


def test_half_precision_weights_are_measured_in_float32() -> None:
    """A VAE stored in float16 has the ranges of its weights in float32, also where float16 would overflow."""
    vae = scale_activations(random_vae(SMALL), 2.0**14, 2.0**14).half()
    images = photographs(vae)
    assert activation_ranges(vae, images) == activation_ranges(copy.deepcopy(vae).float(), images)
    assert first_overflow(activation_ranges(vae, images)) is not None


def test_sample_images_fit_the_model() -> None:
    assert sample_images(vw.build(SMALL), size=64).shape == (16, 3, 64, 64)
    gray = dataclasses.replace(SMALL, in_channels=1, out_channels=1, channel_mult=(1, 1, 1, 1, 1))
    images = sample_images(vw.build(gray), size=40)
    assert images.shape[1:] == (1, 32, 32) and images.min() >= -1 and images.max() <= 1
    with pytest.raises(vw.ConfigError, match="4 channels"):
        sample_images(vw.build(SMALL, in_channels=4))


def test_sample_images_of_a_folder(tmp_path: Path) -> None:
    """Spread over the whole folder, without those that cannot be read; never none."""
    for i in range(10):
        Image.new("RGB", (40, 50), (i * 20,) * 3).save(tmp_path / f"{i}.png")
    (tmp_path / "4.png").write_bytes(b"no image")
    images = sample_images(vw.build(SMALL), tmp_path, size=16, limit=5)
    assert [round((x.mean().item() + 1) * 127.5) for x in images] == [0, 40, 120, 160]
    with pytest.raises(vw.DataError, match=r"no image in .*4.png: not an image"):
        sample_images(vw.build(SMALL), tmp_path / "4.png")


# arithmetic


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["attentive", "taesd"])
def test_emulated_arithmetic_is_as_far_off_as_pytorchs_own(name: str, dtype: torch.dtype) -> None:
    """Against PyTorch's CPU kernels: errors of one size, and closer to each other than that would be by chance."""
    vae = random_vae(ATTENTIVE if name == "attentive" else TINY_TAESD)
    images = photographs(vae, 2, 32)
    reference = outputs(vae, images)
    own = deviation(reference, outputs(copy.deepcopy(vae).to(dtype), images, reference), "original", "float16")
    emulated = deviation(reference, outputs(in_precision(vae, dtype), images, reference), "original", "float16")
    assert own.finite and emulated.finite
    assert abs(own.images_psnr - emulated.images_psnr) < 3
    assert abs(own.latents_snr - emulated.latents_snr) < 3


def test_emulated_arithmetic_overflows_where_pytorchs_own_does() -> None:
    """The same pixels and latents are not finite, from the first layers to the last."""
    for part in (
        "decoder.conv_in",
        "decoder.levels.1.blocks.1.conv2",
        "encoder.middle.attention.out",
        "encoder.conv_out",
    ):
        vae = random_vae(SMALL)
        vae.get_submodule(part).weight.mul_(1e5)
        images = photographs(vae, 1, 32)
        reference = outputs(vae, images)
        own = outputs(copy.deepcopy(vae).half(), images, reference)
        emulated = outputs(in_precision(vae, torch.float16), images, reference)
        assert any(not x.isfinite().all() for x in own[0])
        assert all(torch.equal(a.isfinite(), b.isfinite()) for a, b in zip(own[0], emulated[0], strict=True))


@pytest.mark.parametrize("eps", [1e-6, 1e-9])
def test_epsilon_stays_above_zero_in_float16(eps: float) -> None:
    """GPUs keep epsilon in float16, where 1e-9 would be 0 and a group without variance NaN."""
    vae = random_vae(SMALL)
    vae.encoder.norm_out.eps = eps
    vae.encoder.middle.block2.register_forward_hook(lambda _, inputs, output: torch.zeros_like(output))
    assert outputs(in_precision(vae, torch.float16), photographs(vae, 1))[0][0].isfinite().all()
    assert torch.tensor(vae.encoder.norm_out.eps_for(torch.float16)).half() > 0
    assert vae.encoder.norm_out.eps_for(torch.float32) == eps


# repair


def inflated(vae: Autoencoder) -> Autoencoder:
    """The inverse of a repair: the same function, but float16 overflows."""
    return scale_activations(vae, UP, UP)


def loud(vae: Autoencoder) -> Autoencoder:
    """One block of each half adds huge values to a few channels, as in trained VAEs."""
    vae = copy.deepcopy(vae)
    vae.decoder.levels[1].blocks[0].conv2.weight[[0, 3]] *= 2e5
    vae.encoder.levels[1].blocks[0].conv2.weight[2] *= 2e5
    return vae


@pytest.mark.parametrize(
    "vae",
    [inflated(codec()), inflated(codec("small-f4c4")), inflated(random_vae(ATTENTIVE)), loud(random_vae(ATTENTIVE))],
    ids=["f8c16", "f4c4", "inflated", "loud"],
)
def test_what_overflows_becomes_finite_and_stays_near(vae: Autoencoder) -> None:
    """The original is broken in float16, emulated and PyTorch's own; the repaired one is not, and equal in float32."""
    images = photographs(vae, 2, 32)
    repair = half_safe(vae, images)
    assert repair.needed and all(0 < scale < 1 and math.log2(scale).is_integer() for scale in repair.scales.values())
    broken, exact, half = (
        repair.deviation(*x) for x in (("original", "float16"), ("repaired", "float32"), ("repaired", "float16"))
    )
    assert broken.images_broken >= 0.5 <= broken.latents_broken and math.isnan(broken.images_psnr)
    assert exact.images_max == exact.latents_max == 0 and exact.images_psnr == math.inf
    assert half.finite and half.images_psnr > 50 and half.latents_snr > 45
    reference = outputs(vae, images)
    own = deviation(
        reference, outputs(copy.deepcopy(repair.autoencoder).half(), images, reference), "repaired", "float16"
    )
    assert own.finite and own.images_psnr > 50 and own.latents_snr > 45
    assert not outputs(copy.deepcopy(vae).half(), images, reference)[0][1].isfinite().all()


@pytest.mark.parametrize("headroom", [1.0, 4.0, 100.0])
def test_the_scale_is_the_largest_that_leaves_the_headroom(headroom: float) -> None:
    repair = half_safe(inflated(codec()), photographs(codec()), headroom=headroom)
    for half in ("encoder", "decoder"):
        top = max(layer.max_abs for layer in repair.after if layer.half == half and layer.scalable)
        assert top * headroom <= 65504 < 2 * top * headroom
    assert first_overflow(repair.after) is None
    assert first_overflow(repair.before, "decoder").name == "decoder.conv_in"


def test_what_fits_is_left_alone() -> None:
    """Scale 1, the same bytes, a new object, and the figures all the same."""
    vae = random_vae(ATTENTIVE)
    repair = half_safe(vae, photographs(vae))
    assert not repair.needed and repair.scales == {"encoder": 1.0, "decoder": 1.0}
    assert (
        repair.autoencoder is not vae
        and same(state(vae), state(repair.autoencoder))
        and repair.autoencoder.config == vae.config
    )
    assert repair.before == repair.after
    assert {(d.weights, d.precision) for d in repair.deviations} == {("original", "float16"), ("original", "bfloat16")}
    assert (
        repair.deviation("original", "float16").images_psnr > repair.deviation("original", "bfloat16").images_psnr + 10
    )


@pytest.mark.parametrize(("half", "other"), [("encoder", "decoder"), ("decoder", "encoder")])
def test_one_half_alone_is_repaired(half: str, other: str) -> None:
    """The other keeps its bytes, and its figures are not those of broken inputs."""
    vae = scale_activations(codec(), **{half: UP})
    repair = half_safe(vae, photographs(vae))
    assert repair.scales[other] == 1 > repair.scales[half]
    kept = {name: t for name, t in state(vae).items() if name.startswith(other)}
    assert same(kept, {name: t for name, t in state(repair.autoencoder).items() if name.startswith(other)})
    broken = repair.deviation("original", "float16")
    assert {"encoder": broken.latents_broken, "decoder": broken.images_broken} == {half: 1.0, other: 0.0}


def test_repairing_twice_changes_nothing() -> None:
    """The second repair sees the first one's scale in the configuration and keeps it, weights and all."""
    first = half_safe(inflated(codec()), photographs(codec())).autoencoder
    second = half_safe(first, photographs(codec()))
    assert (
        not second.needed
        and second.autoencoder.config == first.config
        and same(state(first), state(second.autoencoder))
    )
    assert second.deviation("original, fixed eps", "float32").finite
    assert first.config.decoder_scale < UP


def test_a_repair_undoes_an_inflation() -> None:
    """Scales multiply: of a VAE that fits with the headroom exactly, the inflated one's repair gives the very
    weights."""
    vae = half_safe(inflated(codec()), photographs(codec())).autoencoder  # as large as the headroom allows
    again = half_safe(scale_activations(vae, 8.0, 32.0), photographs(codec()))
    assert again.scales == {"encoder": 1 / 8, "decoder": 1 / 32}
    assert again.autoencoder.config == vae.config and same(state(vae), state(again.autoencoder))


def test_programs_with_a_fixed_epsilon_are_measured() -> None:
    """diffusers with epsilon 1e-6 gives the picture that the report says; with the scaled one, the original's."""
    vae = random_vae(SMALL)
    vae.decoder.levels[1].blocks[1].conv2.weight[0] *= 2.0**20  # of norm_out's groups, the other three are quiet
    images = photographs(vae, 1)
    repair = half_safe(vae, images)
    foreign = repair.deviation("repaired, fixed eps", "float32")
    reference = outputs(vae, images)
    with pytest.warns(UserWarning, match="scale"):
        pipeline_vae = vw.to_diffusers(repair.autoencoder)
    decoded = pipeline_vae.decode(reference[0][0]).sample
    assert (decoded - reference[0][1]).abs().max() < 1e-4
    for module in pipeline_vae.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = 1e-6
    decoded = pipeline_vae.decode(reference[0][0]).sample
    assert foreign.images_max == pytest.approx((decoded - reference[0][1]).abs().max().item(), rel=0.05)
    assert foreign.images_max > 1e-3 and foreign.images_psnr < repair.limit
    assert any("do not use the result in those" in sentence for sentence in repair.sentences())


def test_a_repaired_file_is_read_as_repaired(tmp_path: Path) -> None:
    repair = half_safe(inflated(codec()), photographs(codec()))
    vw.save(repair.autoencoder, tmp_path / "repaired.safetensors")
    loaded = vw.load(tmp_path / "repaired.safetensors")
    images = photographs(codec())
    expected, actual = outputs(repair.autoencoder, images), outputs(loaded, images)
    assert loaded.config == repair.autoencoder.config
    assert all(
        (a - b).abs().max() < 1e-4 for x, y in zip(expected, actual, strict=True) for a, b in zip(x, y, strict=True)
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """`repair` measures on one small photograph."""
    measured_on = lambda vae, source="photos": sample_images(vae, source, size=64, limit=1)  # noqa: E731
    monkeypatch.setattr("vaeworks.runtime.fp16.repair.sample_images", measured_on)


@pytest.mark.parametrize("layout", ["native", "ldm", "diffusers"])
@pytest.mark.filterwarnings("ignore:layout '.*' has no place")
@pytest.mark.usefixtures("quick")
def test_a_repair_keeps_the_layout_of_its_source(layout: str, tmp_path: Path) -> None:
    """What loads the source loads the result: the same layout and tensor names; who that is, is part of the result."""
    ending = "" if layout == "diffusers" else ".safetensors"
    source, out = tmp_path / f"loud{ending}", tmp_path / f"repaired{ending}"
    vw.save(inflated(codec()), source, layout)
    repaired = vw.repair(source, out)
    before, after = locate(source), locate(out)
    assert repaired.result.needed and repaired.layout == before.layout == after.layout == layout
    assert after.names == before.names
    assert repaired.support.keys() == support(after).keys() and repaired.to_dict()["support"][DIFFUSERS]["loads"]
    other = vw.repair(source, tmp_path / "asked.safetensors", layout="native")
    assert other.layout == locate(tmp_path / "asked.safetensors").layout == "native"


@pytest.mark.usefixtures("quick")
def test_a_repair_of_a_folder_may_become_a_file(tmp_path: Path) -> None:
    """A name that ends in .safetensors is a file, which every application loads, and a note says so."""
    vw.save(codec(), tmp_path / "vae", "diffusers")
    repaired = vw.repair(tmp_path / "vae", tmp_path / "vae.safetensors")
    assert repaired.layout == locate(tmp_path / "vae.safetensors").layout == "ldm"
    assert any("is a file" in note for note in repaired.notes)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["pair", "both.safetensors"])
def test_a_taesd_keeps_its_layout(name: str, tmp_path: Path) -> None:
    vw.save(random_vae(dataclasses.replace(TINY, latents_patch=2)), tmp_path / name, "taesd")
    repaired = vw.repair(tmp_path / name, tmp_path / f"new-{name}")
    assert repaired.layout == "taesd" and (tmp_path / f"new-{name}").is_dir() == (name == "pair")
    assert same(state(vw.load(tmp_path / f"new-{name}")), state(vw.load(tmp_path / name)))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("harmless", [True, False])
def test_who_loads_a_repaired_vae_follows_from_what_was_measured(harmless: bool, tmp_path: Path) -> None:
    """Scaled activations need their own epsilon, which applications ignore. Whether that harms is measured."""
    vae = inflated(codec())
    if not harmless:
        vae = random_vae(SMALL)
        vae.decoder.levels[1].blocks[1].conv2.weight[0] *= 2.0**20  # as in the test of a fixed epsilon
    vw.save(vae, tmp_path / "loud.safetensors")
    repaired = vw.repair(tmp_path / "loud.safetensors", tmp_path / "vae", layout="diffusers")
    assert repaired.result.fixed_eps_harmless == harmless
    assert repaired.support[DIFFUSERS].loads == ("yes" if harmless else "wrong")
    assert any("that does no harm" in sentence for sentence in repaired.result.sentences()) == harmless


def test_a_layout_that_cannot_hold_it_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaeworks.runtime.fp16.repair.half_safe", lambda *_, **__: pytest.fail("it measured"))
    vw.save(random_vae(TINY_TAESD), tmp_path / "pair", "taesd")
    with pytest.raises(vw.ConfigError, match="layout 'ldm' is for KL autoencoders"):
        vw.repair(tmp_path / "pair", tmp_path / "x.safetensors", layout="ldm")
    vw.save(codec(), tmp_path / "vae.safetensors", "ldm")
    with pytest.raises(vw.ConfigError, match=r"must end in .safetensors"):
        vw.repair(tmp_path / "vae.safetensors", tmp_path / "vae")


def test_flux2_and_its_statistics_survive() -> None:
    """Batch normalization's statistics are no part of the scaled network."""
    vae = random_vae(dataclasses.replace(MODELS["flux2"], channels=16, norm_groups=8))
    vae.bn.running_mean.normal_(), vae.bn.running_var.uniform_(1, 2)
    repair = half_safe(scale_activations(vae, UP, UP), photographs(vae, 1))
    assert torch.equal(repair.autoencoder.bn.running_var, vae.bn.running_var)
    latents = torch.randn(1, 32, 4, 4)
    assert torch.equal(repair.autoencoder.normalize(latents), vae.normalize(latents))


# what cannot be repaired


def spoiled(part: str, factor: float, config: AutoencoderConfig | TinyConfig = ATTENTIVE) -> Autoencoder:
    vae = random_vae(config)
    vae.get_parameter(part).mul_(factor)
    return vae


@pytest.mark.parametrize(
    ("part", "layer", "reason"),
    [
        ("decoder.middle.attention.query.weight", "query", "follows a normalization"),
        ("encoder.levels.1.attentions.0.value.weight", "value", "follows a normalization"),
        ("decoder.levels.1.blocks.0.norm1.weight", "norm1", "follows a normalization"),
        ("decoder.conv_out.weight", "conv_out", "the image"),
        ("encoder.conv_out.weight", "conv_out", "the latents"),
        ("quant_conv.weight", "quant_conv", "the latents"),
        ("post_quant_conv.weight", "post_quant_conv", "the latents"),
    ],
)
def test_overflow_that_no_scale_reaches_is_refused(part: str, layer: str, reason: str) -> None:
    """Planted behind a normalization, in what comes out and what goes in: named, with the remedy, in one line."""
    with pytest.raises(vw.ConfigError, match=rf"{layer} reaches .*{reason}.*bfloat16") as error:
        half_safe(spoiled(part, 1e6), photographs(vw.build(SMALL), 1))
    assert "\n" not in str(error.value)


def test_weights_that_no_scale_reaches_are_refused() -> None:
    vae = random_vae(ATTENTIVE)
    vae.decoder.middle.attention.query.weight[0, 0] = 7e4
    vae.decoder.middle.attention.norm.weight[0], vae.decoder.middle.attention.norm.bias[0] = 0.0, 0.0  # it reads zeros
    with pytest.raises(vw.ConfigError, match=r"query.weight holds 70000, above float16's 65504"):
        half_safe(vae, photographs(vae, 1))


def test_weights_that_a_scale_reaches_are_repaired() -> None:
    """float16 cannot hold the weights either, until they are scaled."""
    vae = scale_activations(codec("small-f4c4"), decoder=2.0**20)
    assert max(p.abs().max() for p in vae.parameters()) > 65504
    assert half_safe(vae, photographs(vae)).deviation("repaired", "float16").finite


def test_weights_that_are_not_finite_are_refused() -> None:
    """What was saved in float16 after it had overflowed."""
    vae = scale_activations(codec("small-f4c4"), decoder=2.0**20).half()
    with pytest.raises(vw.ConfigError, match=r"not finite; take the file that this one was made from, in float32"):
        half_safe(vae, photographs(vae, 1))


def test_activations_beyond_float32_are_refused() -> None:
    vae = spoiled("decoder.levels.0.blocks.0.conv2.weight", 1e38)
    with pytest.raises(vw.ConfigError, match="float32 already"):
        half_safe(vae, photographs(vae, 1))


def test_a_result_that_misses_the_limit_is_refused() -> None:
    """In one line that says how far it comes, why, and what else there is."""
    vae = inflated(random_vae(SMALL))
    with pytest.raises(
        vw.ConfigError,
        match=r"^[^\n]*activations at 1/\d+, the \w+ is at \d+\.\d dB [^\n]*less than 150[^\n]*bfloat16[^\n]*$",
    ):
        half_safe(vae, photographs(vae, 1), limit=150.0)


def test_a_silent_group_stays_finite() -> None:
    """Where a group has no variance, a GPU's float16 would round the scaled epsilon to 0, and divide by it."""
    vae = random_vae(SMALL)
    vae.decoder.conv_in.weight[:8], vae.decoder.conv_in.bias[:8] = 0.0, 0.0  # the first group of middle.block1.norm1
    vae = scale_activations(vae, decoder=UP)
    vae.restate(dataclasses.replace(vae.config, norm_eps=1e-6 / UP**2))
    repair = half_safe(vae, photographs(vae, 1))
    assert torch.tensor(1e-6 * repair.scales["decoder"] ** 2).half() == 0
    result = repair.deviation("repaired", "float16")
    assert result is not None
    assert result.finite


def test_large_products_of_attention_are_said() -> None:
    """Scores of attention are float32 inside the kernels; programs that keep them in float16 overflow."""
    vae = random_vae(ATTENTIVE)
    for layer in (vae.decoder.middle.attention.query, vae.decoder.middle.attention.key):
        layer.weight.mul_(200)
    repair = half_safe(vae, photographs(vae, 1))
    assert any("attention.logits are products of up to" in sentence for sentence in repair.sentences())


@pytest.mark.parametrize("headroom", [0.5, 0.0, -1.0, math.inf, math.nan])
def test_headroom_is_at_least_one(headroom: float) -> None:
    with pytest.raises(vw.ConfigError, match="headroom"):
        half_safe(random_vae(SMALL), photographs(random_vae(SMALL), 1), headroom=headroom)


# TAESD

TINY = TinyConfig(
    encoder_widths=(8,) * 4, decoder_widths=(8,) * 4, encoder_blocks=(1,) * 4, decoder_blocks=(1,) * 4, mid_pool=True
)


def test_a_taesd_needs_no_repair() -> None:
    """It is measured, and nothing can or must be scaled."""
    vae = random_vae(TINY)
    repair = half_safe(vae, photographs(vae))
    assert (
        not repair.needed
        and not any(layer.scalable for layer in repair.before)
        and same(state(vae), state(repair.autoencoder))
    )
    assert any("nothing to repair" in sentence for sentence in repair.sentences())
    assert repair.deviation("original", "float16").images_psnr > 40


def test_a_taesd_that_overflows_is_refused() -> None:
    vae = spoiled("decoder.layers.0.weight", 1e6, TINY)
    with pytest.raises(vw.ConfigError, match="a TAESD has no normalization"):
        half_safe(vae, photographs(vae, 1))


def test_real_taesd(test_data: Path) -> None:
    """The real weights stay far below float16's limit."""
    vae = vw.load(test_data / "weights" / "taef2")
    repair = half_safe(vae, photographs(vae, 2, 128))
    assert not repair.needed
    assert max(layer.share for layer in repair.before) < 0.1
    assert repair.deviation("original", "float16").images_psnr > 45


# report


def test_the_report_is_plain() -> None:
    """JSON values, and sentences with the numbers that matter."""
    repair = half_safe(inflated(codec()), photographs(codec()))
    values = json.loads(json.dumps(repair.to_dict()))
    assert values["needed"] and values["scales"] == repair.scales and "autoencoder" not in values
    assert values["before"][0]["name"] == "encoder.conv_in" and len(values["deviations"]) == 6
    text = "\n".join(repair.sentences())
    for piece in (
        "overflows first at encoder.conv_in",
        f"1/{1 / repair.scales['decoder']:.0f} as large",
        "repaired, float32: equal, bit for bit",
        "original, float16: 100.0% of pixels",
        "diffusers, A1111, ComfyUI",
        "bfloat16",
    ):
        assert piece in text
