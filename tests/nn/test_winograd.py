"""Convolutions and normalizations that training computes in its own way are the plain ones, in values and gradients."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.features.nets import vgg16
from vaeworks.nn import Conv3x3, GroupNorm, ResBlock, Upsample, winograd
from vaeworks.nn import conv as conv_module
from vaeworks.nn import norm as norm_module
from vaeworks.nn.filtering import F2, F4, DoubledConv, Filtering
from vaeworks.nn.winograd import filtered, minimal_filtering, prepared

LAST = torch.channels_last


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, filtering: Filtering) -> Tensor:
    """What a filtering computes."""
    if isinstance(filtering, DoubledConv):
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
    return F.conv2d(x, weight, bias, padding=1)


def operands(
    inner: int, outer: int, height: int, width: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """An input, weights and a bias that want gradients."""
    torch.manual_seed(0)
    x = torch.randn(2, inner, height, width, dtype=torch.float64).to(dtype).to(memory_format=LAST)
    weight = (torch.randn(outer, inner, 3, 3, dtype=torch.float64) / (9 * inner) ** 0.5).to(dtype)
    return x.requires_grad_(), weight.requires_grad_(), torch.randn(outer, dtype=dtype).requires_grad_()


def error(found: Tensor, truth: Tensor) -> float:
    """Relative, of the whole."""
    return float((found.detach().double() - truth.detach()).norm() / truth.detach().norm())


@pytest.mark.parametrize("workspace", [1, 5_000, 2**21], ids=["a row of tiles at a time", "several", "all at once"])
@pytest.mark.parametrize("filtering", [F4(), F2(), DoubledConv()], ids=lambda f: type(f).__name__)
def test_filtering_is_the_convolution(filtering: Filtering, workspace: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and all gradients, in fp64, wherever the chunks of tiles meet."""
    monkeypatch.setattr(winograd, "WORKSPACE", workspace)
    inputs = operands(5, 7, 20, 12)
    found, expected = minimal_filtering(*inputs, filtering), plain(*inputs, filtering)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert found.is_contiguous(memory_format=LAST)
    grad = torch.randn_like(expected)
    for mine, theirs in zip(
        torch.autograd.grad(found, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("wanted", [0, 1], ids=["input", "weights"])
def test_filtering_with_something_frozen(wanted: int) -> None:
    """A frozen encoder's or a feature network's: one gradient alone, without a bias."""
    x, weight, _ = operands(4, 3, 8, 8)
    inputs = (x, weight.detach()) if wanted == 0 else (x.detach(), weight)
    found, expected = (of(*inputs, None, F4()).square().sum() for of in (minimal_filtering, plain))
    torch.testing.assert_close(
        *(torch.autograd.grad(y, inputs[wanted])[0] for y in (found, expected)), rtol=0, atol=1e-11
    )


@pytest.mark.parametrize("filtering", [F4(), DoubledConv()], ids=lambda f: type(f).__name__)
def test_filtering_can_be_differentiated_twice(filtering: Filtering) -> None:
    """As gradient penalties through a frozen network ask for."""
    x, weight, bias = operands(3, 4, 8, 8)
    penalties = []
    for of in (minimal_filtering, plain):
        gradient = torch.autograd.grad(of(x, weight, bias, filtering).square().sum(), x, create_graph=True)[0]
        penalties.append(torch.autograd.grad(gradient.square().sum(), (x, weight)))
    torch.testing.assert_close(*penalties, rtol=1e-10, atol=1e-9)


def test_filtering_rounds_as_a_convolution_does() -> None:
    """In fp32, F(4,3) has at most three times the error of the direct convolution; with the usual points 0, 1, 2 it has
    six times."""
    x, weight, bias = operands(64, 64, 32, 32)
    truth = plain(x, weight, bias, F4())
    small = [t.detach().float() for t in (x, weight, bias)]
    direct = error(F.conv2d(small[0].contiguous(memory_format=LAST), *small[1:], padding=1), truth)
    assert error(minimal_filtering(*small, F4()), truth) < max(3 * direct, 1e-6)


@pytest.mark.parametrize(("filtering", "factor"), [(DoubledConv(), 3), (F2(), 4)], ids=["DoubledConv", "F2"])
def test_filtering_rounds_little_more_in_bf16(filtering: Filtering, factor: float) -> None:
    """Products are rounded before they are added: a few times the error of the direct convolution, where F(4,3) would
    have 7 times."""
    x, weight, bias = operands(64, 64, 16, 16)
    half = [t.detach().bfloat16() for t in (x, weight, bias)]
    truth = plain(*(t.double() for t in half), filtering)
    assert error(minimal_filtering(*half, filtering), truth) < factor * error(plain(*half, filtering), truth)


def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The filterings that are used from now on."""
    names: list[str] = []

    def seen(x: Tensor, weight: Tensor, bias: Tensor | None, filtering: Filtering) -> Tensor:
        names.append(type(filtering).__name__)
        return minimal_filtering(x, weight, bias, filtering)

    monkeypatch.setattr(conv_module, "minimal_filtering", seen)
    return names


def test_where_filtering_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """In training with a gradient, NHWC memory, zeros around, enough channels and tiles; elsewhere PyTorch's own, bit
    for bit."""
    names = taken(monkeypatch)
    layer, x = Conv3x3(64, 64), torch.randn(1, 64, 32, 32).to(memory_format=LAST)
    layer(x)
    assert names == ["F4"]
    own = F.conv2d(x, layer.weight, layer.bias, padding=1)
    with torch.no_grad():
        assert torch.equal(layer(x), own)
    assert torch.equal(layer.eval()(x), own)
    layer.train()
    for other in (x.contiguous(), x[:, :, :31], x[:, :, :16, :16].contiguous(memory_format=LAST)):
        layer(other)
    layer.padding_mode = "reflect"
    layer(x)
    layer.doubled(x)
    Conv3x3(64, 3)(x)
    assert names == ["F4"]


def test_filtering_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 inside, fp32 weights with fp32 gradients outside; fewer multiplications are saved, because more would round
    too much."""
    names = taken(monkeypatch)
    layer, x = Conv3x3(128, 128), torch.randn(1, 128, 32, 32).to(memory_format=LAST)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(layer.doubled(x[:, :, :16, :16].contiguous(memory_format=LAST)))
    assert names == ["DoubledConv", "F2"] and y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.dtype == torch.float32


def test_names_of_weights_stay() -> None:
    """Checkpoints do not notice."""
    assert set(Upsample(8).state_dict()) == {"conv.weight", "conv.bias"}
    assert {k for k in ResBlock(32, 32).state_dict() if "conv" in k} == {
        f"conv{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")
    }
    assert isinstance(Conv3x3(4, 4), nn.Conv2d)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-4), (torch.bfloat16, 0.02)]
)
@pytest.mark.parametrize("shape", [(2, 16, 8, 8), (1, 64, 5, 7), (3, 8, 12, 4)])
def test_normalization_in_nhwc(
    shape: tuple[int, ...], dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients of silu(group_norm(x)) at x, scales and shifts are the plain formula's in fp64, however rows and chunks
    fall."""
    monkeypatch.setattr(norm_module, "LEAST_IN_PLACE", 0)
    monkeypatch.setattr(norm_module, "CHUNK", 300)
    torch.manual_seed(0)
    norm = GroupNorm(shape[1], 4).to(torch.promote_types(dtype, torch.float32)).train()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = (torch.randn(shape, dtype=torch.float64) + 0.5).to(dtype).to(memory_format=LAST).requires_grad_()
    grad = torch.randn(shape, dtype=torch.float64).to(dtype).to(memory_format=LAST)
    found = torch.autograd.grad(norm.silu(x), (x, norm.weight, norm.bias), grad)
    exact = [t.detach().double().requires_grad_() for t in (x, norm.weight, norm.bias)]
    truth = torch.autograd.grad(F.silu(F.group_norm(exact[0], 4, exact[1], exact[2], norm.eps)), exact, grad.double())
    assert all(error(mine, theirs) < tolerance for mine, theirs in zip(found, truth, strict=True))
    assert found[0].is_contiguous(memory_format=LAST)


def test_an_autoencoder_in_training_is_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it together, in fp64: the image and every gradient are those of evaluation mode, which computes as PyTorch
    does."""
    names = taken(monkeypatch)
    torch.manual_seed(0)
    model = vw.build("sd1", channels=64, channel_mult=(1, 2), num_res_blocks=1).double().to(memory_format=LAST)
    other = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64) * 2 - 1
    found, _ = model.train()(images.to(memory_format=LAST))
    expected, _ = other.eval()(images)
    assert {"F4", "DoubledConv"} <= set(names)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    for recon in (found, expected):
        recon.square().mean().backward()
    for (name, mine), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-8, atol=1e-13, msg=name)


def test_a_feature_network_in_training_is_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features, and the gradient that goes through them to the images, in fp64."""
    names = taken(monkeypatch)
    torch.manual_seed(0)
    network = vgg16().double()
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64).requires_grad_()
    found = network(images)
    assert "F4" in names
    x, expected = (images - network.shift) / network.scale, []
    for number, layer in enumerate(network.features):
        x = layer(x)
        expected += [x] * (number in network.taps)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    mine, theirs = (
        torch.autograd.grad(sum(f.square().sum() for f in features), images)[0] for features in (found, expected)
    )
    torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("filtering", [F4(), F2(), DoubledConv()], ids=lambda f: type(f).__name__)
@pytest.mark.parametrize(
    ("height", "width", "above", "below"), [(1, 1, 0, 0), (3, 5, 1, 1), (8, 8, 0, 1), (9, 7, 1, 0), (22, 13, 1, 1)]
)
def test_rows_of_a_map_without_a_gradient(
    filtering: Filtering, height: int, width: int, above: int, below: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any size, with rows that are only seen instead of the frame's; inside inference mode, and training goes on
    after it."""
    monkeypatch.setattr(winograd, "WORKSPACE", 3_000)
    x, weight, bias = operands(5, 7, height, width)
    with torch.inference_mode():
        found = filtered(x, prepared(weight, filtering), bias, filtering, above, below)
    gain = filtering.outputs // filtering.advance
    expected = plain(x, weight, bias, filtering)[:, :, above * gain : (height - below) * gain]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert found.is_contiguous(memory_format=LAST)
    minimal_filtering(*operands(5, 7, 8, 8), filtering).sum().backward()
