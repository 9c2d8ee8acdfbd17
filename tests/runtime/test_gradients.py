"""Gradients through strips: the whole picture's, for what requires one, in less memory than checkpointing by block."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.errors import ConfigError
from vaeworks.nn import GroupNorm
from vaeworks.runtime.gradients import decode_with_gradient, encode_with_gradient
from vaeworks.runtime.gradients.chain import Chain
from vaeworks.runtime.gradients.normalized import through
from vaeworks.runtime.gradients.parameters import Gradients
from vaeworks.runtime.gradients.rows import held, kept
from vaeworks.runtime.gradients.stages import Enlarge, Halve, Same
from vaeworks.runtime.gradients.transposes import Pooled, Spread
from vaeworks.runtime.lazy_maps import Doubled, Halved, sweep

TINY = {"channels": 8, "norm_groups": 4, "num_res_blocks": 1}


def vae(name: str = "small-f8c4", **overrides: object) -> vw.Autoencoder:
    torch.manual_seed(0)
    network = vw.build(name, **{**TINY, **overrides}).double().eval()
    for norm in network.modules():  # as they come, they hide what is multiplied by a weight of 1 or a bias of 0
        if isinstance(norm, GroupNorm):
            norm.weight.data, norm.bias.data = (
                1 + 0.3 * torch.randn_like(norm.weight),
                0.3 * torch.randn_like(norm.bias),
            )
    return network


def random(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def gradients(result: Callable[[Tensor], Tensor], x: Tensor, module: nn.Module) -> dict[str, Tensor]:
    """Of a loss that weighs every number of the result differently."""
    x = x.clone().requires_grad_()
    y = result(x)
    loss = (y * random(*y.shape, dtype=y.dtype)).sum() + y.square().mean()
    names = ["input", *(name for name, p in module.named_parameters() if p.requires_grad)]
    found = torch.autograd.grad(loss, [x, *(p for p in module.parameters() if p.requires_grad)])
    return {"result": y.detach(), **dict(zip(names, found, strict=True))}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-9) -> None:
    """To rounding; a key's bias has no influence on attention, and its gradient is rounding alone."""
    largest = max(e.norm().item() for e in expected.values())
    assert found.keys() == expected.keys()
    for name, e in expected.items():
        assert (found[name] - e).norm() <= rtol * (e.norm() + 1e-4 * largest), name


NETWORKS = {
    "f8": (vae, {}, (1, 4, 5, 7)),
    "f4, attention on a level, two images": (
        vae,
        {"channel_mult": (1, 2, 3), "attention_factors": (2,), "mid_attention": True},
        (2, 4, 7, 3),
    ),
    "one level, without 1x1 convolutions": (
        vae,
        {"channel_mult": (2,), "quant_conv": False, "post_quant_conv": False},
        (1, 4, 9, 5),
    ),
    "wide enough for minimal filtering": (
        vae,
        {"channels": 64, "channel_mult": (1, 1), "mid_attention": False},
        (2, 4, 9, 5),
    ),
    "one pixel": (vae, {"mid_attention": True}, (1, 4, 1, 1)),
}


@pytest.mark.parametrize("rows", [3, 8, 1000])
@pytest.mark.parametrize("network", NETWORKS)
def test_decoding_has_the_whole_pictures_gradients(network: str, rows: int) -> None:
    """Of latents and every parameter; strips that do not divide the map, shorter ones than the map, and one strip."""
    build, overrides, shape = NETWORKS[network]
    v = build(**overrides)
    part = nn.ModuleList([v.decoder, v.post_quant_conv])
    found = gradients(lambda z: decode_with_gradient(v, z, rows), random(*shape), part)
    assert_equal(found, gradients(v.decode, random(*shape), part))


@pytest.mark.parametrize("rows", [3, 8, 1000])
@pytest.mark.parametrize("network", NETWORKS)
def test_encoding_has_the_whole_pictures_gradients(network: str, rows: int) -> None:
    build, overrides, (n, _, h, w) = NETWORKS[network]
    v = build(**overrides)
    part, images = (
        nn.ModuleList([v.encoder, v.quant_conv]),
        random(n, 3, h * v.downsample_factor, w * v.downsample_factor),
    )
    found = gradients(lambda x: encode_with_gradient(v, x, rows), images, part)
    assert_equal(found, gradients(lambda x: v.quant_conv(v.encoder(x)), images, part))


def test_float32_is_as_exact_as_training() -> None:
    """Against float64, on average within twice of what autograd in training mode is, which filters large maps as well;
    and within 1e-5."""
    v = vae(channels=64, channel_mult=(1, 2), num_res_blocks=1)
    exact = gradients(v.decode, random(1, 4, 16, 12), v.decoder)
    v, z = v.float().to(memory_format=torch.channels_last), random(1, 4, 16, 12, dtype=torch.float32)
    found = gradients(lambda z: decode_with_gradient(v, z, 8), z, v.decoder)
    trained = gradients(v.train().decode, z.contiguous(memory_format=torch.channels_last), v.decoder)
    names = [name for name in exact if "key.bias" not in name]
    errors, usual = (
        torch.stack([(g[name].double() - exact[name]).norm() / exact[name].norm() for name in names])
        for g in (found, trained)
    )
    assert errors.max() <= 1e-5
    assert errors.mean() <= 2 * usual.mean()


def test_bfloat16_rounds_no_worse_than_autograd() -> None:
    """Sums over strips are in float32; what a strip gives is rounded once."""
    v = vae(channel_mult=(1, 2), mid_attention=False)
    exact = gradients(v.decode, random(1, 4, 16, 12), v.decoder)
    v, z = v.bfloat16(), random(1, 4, 16, 12, dtype=torch.bfloat16)
    found = gradients(lambda z: decode_with_gradient(v, z, 8), z, v.decoder)
    usual = gradients(v.decode, z, v.decoder)
    errors = [
        torch.stack([(g[k].double() - e).norm() / e.norm() for k, e in exact.items()]).mean() for g in (found, usual)
    ]
    assert errors[0] <= 1.2 * errors[1]
    assert all(g.dtype == torch.bfloat16 for g in found.values())


# --- only what is wanted


def test_frozen_networks() -> None:
    """Latents alone (a frozen decoder), and images alone: nothing else gets a gradient."""
    v = vae(mid_attention=True).requires_grad_(False)
    assert_equal(
        gradients(lambda z: decode_with_gradient(v, z, 4), random(1, 4, 5, 3), v),
        gradients(v.decode, random(1, 4, 5, 3), v),
    )
    x = random(1, 3, 24, 16)
    assert_equal(
        gradients(lambda x: encode_with_gradient(v, x, 4), x, v), gradients(lambda x: v.quant_conv(v.encoder(x)), x, v)
    )
    assert all(p.grad is None for p in v.parameters())


@pytest.mark.parametrize(
    "trained",
    ["conv_out", "levels.2", "middle.attention", "norm1", "conv2", "conv_shortcut", "bias", "levels.0.upsample"],
)
def test_a_part_is_trained(trained: str) -> None:
    """Parameters that are frozen get no gradient, latents that need none get none, and the others' are right."""
    v = vae(mid_attention=True)
    for name, p in v.decoder.named_parameters():
        p.requires_grad_(trained in name)
    results = []
    for decode in (v.decode, lambda z: decode_with_gradient(v, z, 4)):
        v.zero_grad()
        y = decode(random(2, 4, 4, 3))
        (y * random(*y.shape)).sum().backward()
        results.append({name: p.grad for name, p in v.decoder.named_parameters() if p.grad is not None})
    assert results[0]
    assert_equal(results[1], results[0])


def test_nothing_is_computed_below_the_first_trained_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    segments, backward = [], Chain._segment_backward
    monkeypatch.setattr(
        Chain,
        "_segment_backward",
        lambda self, segment, *rest: segments.append(segment) or backward(self, segment, *rest),
    )
    v = vae().requires_grad_(False)
    v.decoder.levels[-1].requires_grad_(True)
    decode_with_gradient(v, random(1, 4, 4, 4), 8).sum().backward()
    assert len(segments) == 1 < len(v.kl_config.channel_mult)


# --- memory


def saved_bytes(run: Callable[[], Tensor], module: nn.Module) -> int:
    """Of what autograd keeps until the backward pass, parameters not counted."""
    places, total = {p.data_ptr() for p in module.parameters()}, {}

    def pack(x: Tensor) -> Tensor:
        if x.data_ptr() not in places:
            total[x.data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        y = run()
    assert y.requires_grad
    return sum(total.values())


def peak_bytes(run: Callable[[], object]) -> int:
    """The most that tensors have taken at a time, beyond what there was before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = top = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        top = max(top, now)
    return top


def test_memory() -> None:
    """The forward pass keeps less than a fifth of what checkpointing by block does, the backward pass less than 0.55 of
    it."""
    v, z = (
        vae(channels=16, channel_mult=(1, 2, 2), num_res_blocks=2, mid_attention=False).float(),
        random(1, 4, 48, 48, dtype=torch.float32),
    )
    v, z = v.to(memory_format=torch.channels_last), z.requires_grad_()

    def checkpointed() -> Tensor:
        v.train().set_gradient_checkpointing()
        return v.decode(z)

    def striped() -> Tensor:
        return decode_with_gradient(v, z, 8)

    assert saved_bytes(striped, v) < saved_bytes(checkpointed, v) / 5
    peaks = [peak_bytes(lambda run=run: run().square().mean().backward()) for run in (striped, checkpointed)]
    assert peaks[0] < 0.55 * peaks[1]


# --- in use


def test_a_fine_tuning_step_is_the_whole_networks() -> None:
    """Decoder, given latents, MSE against a picture, momentum: the same weights after two steps."""
    whole, picture, z = vae(), random(1, 3, 32, 48).tanh(), random(1, 4, 4, 6)
    striped = copy.deepcopy(whole)
    for v, decode in ((whole, whole.train().decode), (striped, lambda z: decode_with_gradient(striped.train(), z, 8))):
        optimizer = torch.optim.SGD(v.decoder.parameters(), lr=0.1, momentum=0.9)
        for _ in range(2):
            optimizer.zero_grad()
            F.mse_loss(decode(z), picture).backward()
            optimizer.step()
    before = vae()
    for a, b in zip(striped.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert any((a - b).abs().max() > 1e-4 for a, b in zip(whole.parameters(), before.parameters(), strict=True))


def test_through_the_autoencoder() -> None:
    """Encode, posterior, decode: both halves in one graph."""
    v, images = vae(), random(1, 3, 16, 24)
    found = gradients(
        lambda x: decode_with_gradient(v, v.posterior(encode_with_gradient(v, x, 8)).mode(), 8), images, v
    )
    assert_equal(found, gradients(lambda x: v(x)[0], images, v))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_other_frames_are_checkpointed(mode: str) -> None:
    v = vae(padding_mode=mode)
    z, x = random(1, 4, 3, 4), random(1, 3, 24, 32)
    assert_equal(gradients(lambda z: decode_with_gradient(v, z, 4), z, v.decoder), gradients(v.decode, z, v.decoder))
    found = gradients(lambda x: encode_with_gradient(v, x, 4), x, v.encoder)
    assert_equal(found, gradients(lambda x: v.quant_conv(v.encoder(x)), x, v.encoder))


def test_a_taesd_is_left_to_autograd() -> None:
    v = vw.build("taesd").double()
    z, x = random(1, 4, 3, 4), random(1, 3, 16, 16)
    assert_equal(gradients(lambda z: decode_with_gradient(v, z, 4), z, v.decoder), gradients(v.decode, z, v.decoder))
    assert_equal(gradients(lambda x: encode_with_gradient(v, x, 4), x, v.encoder), gradients(v.encoder, x, v.encoder))


def test_results_are_the_same_without_a_gradient() -> None:
    v, z = vae(), random(1, 4, 5, 3)
    with torch.inference_mode():
        y = decode_with_gradient(v, z, 4)
        torch.testing.assert_close(y, v.decode(z))
    assert not y.requires_grad


def test_a_retained_graph_is_gone_through_twice() -> None:
    """As the adaptive weight of adversarial training does; without retaining it, autograd complains as always."""
    v, z = vae(), random(1, 4, 4, 4).requires_grad_()
    y = decode_with_gradient(v, z, 4).square().mean()
    first = torch.autograd.grad(y, v.decoder.conv_out.weight, retain_graph=True)[0]
    second = torch.autograd.grad(y, v.decoder.conv_out.weight)[0]
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_changes_between_the_passes_are_refused() -> None:
    """A parameter that was changed after the forward pass would give a gradient of neither."""
    v, z = vae(), random(1, 4, 4, 4).requires_grad_()
    y = decode_with_gradient(v, z, 4).square().mean()
    with torch.no_grad():
        v.decoder.levels[0].blocks[0].conv1.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_a_gradient_of_the_gradient_is_refused() -> None:
    v, z = vae(), random(1, 4, 4, 4).requires_grad_()
    y = decode_with_gradient(v, z, 4).square().mean()
    with pytest.raises(ConfigError, match="create_graph"):
        torch.autograd.grad(y, z, create_graph=True)


def test_weights_that_are_computed_from_others() -> None:
    """A parametrized layer's gradients reach what it is computed from."""
    v, z = vae(), random(1, 4, 4, 4)
    torch.nn.utils.parametrizations.weight_norm(v.decoder.conv_out)
    torch.nn.utils.parametrizations.weight_norm(v.decoder.levels[1].blocks[0].conv1)
    assert_equal(gradients(lambda z: decode_with_gradient(v, z, 4), z, v.decoder), gradients(v.decode, z, v.decoder))


def test_autocast_changes_nothing() -> None:
    v = vae(post_quant_conv=False).float()
    z = random(1, 4, 4, 4, dtype=torch.float32)
    expected = gradients(lambda z: decode_with_gradient(v, z, 4), z, v.decoder)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_equal(gradients(lambda z: decode_with_gradient(v, z, 4), z, v.decoder), expected, rtol=0)


def test_wrong_input_is_named() -> None:
    with pytest.raises(ConfigError, match="divisible"):
        encode_with_gradient(vae(), random(1, 3, 12, 16), 8)
    with pytest.raises(ConfigError, match="4"):
        decode_with_gradient(vae(), random(1, 5, 4, 4), 8)


# --- the pieces


def inner_product(x: Tensor, y: Tensor) -> float:
    return (x * y).sum().item()


@pytest.mark.parametrize("rows", [1, 2, 5, 100])
def test_transposes(rows: int) -> None:
    """<A x, y> = <x, A' y>: of doubling, and of halving with its frame below and to the right only."""
    x, y = random(2, 3, 9, 7), random(2, 3, 18, 14)
    doubled = kept(Doubled(held(x)), rows).rows(0, 18)
    assert math.isclose(inner_product(doubled, y), inner_product(x, kept(Pooled(held(y)), rows).rows(0, 9)))
    conv = nn.Conv2d(3, 5, 3, stride=2, bias=False).double()
    x, y = random(2, 3, 10, 8), random(2, 5, 5, 4)
    halved, spread = kept(Halved(held(x), conv), rows).rows(0, 5), kept(Spread(held(y), conv), rows).rows(0, 10)
    assert math.isclose(inner_product(halved.detach(), y), inner_product(x, spread.detach()))


@torch.no_grad()
@pytest.mark.parametrize("stage", [Same, Enlarge, Halve])
@pytest.mark.parametrize("channels", [3, 64])
def test_a_convolutions_parameters(stage: type, channels: int) -> None:
    """Rows that are seen by two strips count once; filtered or not."""
    conv = (
        nn.Conv2d(channels, channels, 3, stride=2) if stage is Halve else nn.Conv2d(channels, channels, 3, padding=1)
    ).double()
    x, part = random(2, channels, 10, 6), stage(conv)
    grad = random(*part.result(held(x)).shape)
    sums = Gradients([(conv, "weight"), (conv, "bias")])
    assert part.backward(held(x), held(grad), 4, sums, wanted=False) is None
    seen = {
        Same: lambda x: x,
        Enlarge: lambda x: F.interpolate(x, scale_factor=2.0),
        Halve: lambda x: F.pad(x, (0, 1, 0, 1)),
    }[stage](x)
    with torch.enable_grad():
        expected = torch.autograd.grad(conv(seen), [conv.weight, conv.bias], grad)
    for name, e in zip(("weight", "bias"), expected, strict=True):
        torch.testing.assert_close(sums.of(conv, name), e)


@torch.no_grad()
def test_large_means_do_not_cost_digits() -> None:
    """float32 with a mean of 300 standard deviations: gradients at the normalization stay within 1e-3 of float64's."""
    x, norm, conv = random(1, 8, 16, 16) + 300, GroupNorm(8, 4).double(), nn.Conv2d(8, 8, 3, padding=1).double()
    grad, found = random(1, 8, 16, 16), []
    for dtype in (torch.float64, torch.float32):
        norm, conv = norm.to(dtype), conv.to(dtype)
        source = held(x.to(dtype))
        statistics = sweep(source, 4, 4)
        assert statistics is not None
        sums = Gradients([(norm, "weight"), (norm, "bias")])
        dx = through(source, norm, statistics, conv, held(grad.to(dtype)), 4, sums, True)
        assert dx is not None
        found.append([kept(dx, 4).rows(0, 16).double(), *(sums.of(norm, name).double() for name in ("weight", "bias"))])
    for low, high in zip(found[1], found[0], strict=True):
        assert (low - high).norm() <= 1e-3 * high.norm()
