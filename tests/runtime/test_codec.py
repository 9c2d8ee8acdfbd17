"""Strips: equal to the whole picture within rounding, for any size, any strip and any budget; and the budget is
kept."""

from __future__ import annotations

import copy
import math
import platform
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.errors import ConfigError
from vaeworks.nn import GroupNorm, Upsample
from vaeworks.nn.filtering import Filtering
from vaeworks.runtime import conv_kernels
from vaeworks.runtime.codec import Codec
from vaeworks.runtime.lazy_maps import (
    EVERYTHING,
    Convolved,
    Doubled,
    Enlarged,
    Halved,
    Normalized,
    Stored,
    strips,
    sweep,
)
from vaeworks.runtime.memory import container_memory, free_memory, parse_size
from vaeworks.runtime.plan import RESERVE, without_values
from vaeworks.runtime.strips import Ledger, Striped

TINY = {"channels": 8, "norm_groups": 4, "num_res_blocks": 1}


def vae(name: str = "small-f8c4", **overrides: object) -> vw.Autoencoder:
    torch.manual_seed(0)
    return vw.build(name, **{**TINY, **overrides}).double().eval().requires_grad_(False)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def held(x: Tensor) -> Stored:
    stored = Stored(tuple(x.shape))  # type: ignore[arg-type]
    for part in x.split(3, dim=2):
        stored.append(part)
    return stored


def all_rows(map_, rows: int) -> Tensor:
    return torch.cat([map_.rows(a, b) for a, b in strips(map_.shape[2], rows)], dim=2)


# --- maps


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("rows", [1, 3, 100])
def test_a_convolution_by_rows(mode: str, rows: int) -> None:
    x, conv = random(2, 3, 10, 7), nn.Conv2d(3, 5, 3, padding=1, padding_mode=mode).double()
    torch.testing.assert_close(all_rows(Convolved(held(x), conv), rows), conv(x))


@pytest.mark.parametrize("rows", [1, 2, 5, 100])
def test_doubling_and_halving_by_rows(rows: int) -> None:
    """Doubling with its convolution is four small convolutions; halving pads below and right only."""
    x, conv = random(2, 3, 9, 7), nn.Conv2d(3, 5, 3, padding=1).double()
    whole = conv(nn.functional.interpolate(x, scale_factor=2.0))
    torch.testing.assert_close(all_rows(Convolved(Doubled(held(x)), conv), rows), whole)
    torch.testing.assert_close(all_rows(Enlarged(held(x), conv), rows), whole)
    x, conv = random(2, 3, 10, 8), nn.Conv2d(3, 5, 3, stride=2).double()
    torch.testing.assert_close(all_rows(Halved(held(x), conv), rows), conv(nn.functional.pad(x, (0, 1, 0, 1))))


@pytest.mark.parametrize("rows", [1, 4, 100])
def test_statistics_are_the_whole_maps(rows: int) -> None:
    """Merged exactly, with parts of unequal mean: a mean of variances would lack what lies between them."""
    x, norm = random(2, 8, 10, 5) + torch.arange(10.0)[:, None] * 3, GroupNorm(8, 4).double()
    norm.weight.data, norm.bias.data = random(8), random(8)
    statistics = sweep(held(x), rows, 4)
    assert statistics is not None
    groups = x.view(2, 4, -1)
    torch.testing.assert_close(statistics.mean, groups.mean(2))
    torch.testing.assert_close(statistics.var, groups.var(2, correction=0))
    torch.testing.assert_close(all_rows(Normalized(held(x), norm, statistics), rows), norm.silu(x))


def test_large_means_do_not_cost_digits() -> None:
    """float32 with a mean of a thousand standard deviations, where E[x^2] - E[x]^2 would have lost all digits."""
    x = random(1, 4, 64, 64).float() + 1000
    statistics = sweep(held(x), 5, 2)
    assert statistics is not None
    torch.testing.assert_close(statistics.var, x.double().view(1, 2, -1).var(2, correction=0), rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("groups", [8, 2])
def test_statistics_of_flat_maps(groups: int, dtype: torch.dtype) -> None:
    """Where epsilon alone is below the root, a mean counts to its last digit: flat maps, one odd pixel at any place,
    halves, a slope.

    Expected: errors of what float32 can hold of the values, and 1e-6 of the spread, whatever a part begins with.
    """
    ramp = torch.linspace(0, 1, 80 * 64).view(80, 64)
    spots = torch.zeros(3, 80, 64)
    spots[0, 0, 0] = spots[1, 8, 8] = spots[2, 79, 63] = 30.0
    shapes = [
        torch.zeros(80, 64),
        *spots,
        (ramp > 0.5).float(),
        (ramp > 0.02).float(),
        ramp,
        torch.arange(64.0).expand(80, 64) % 2,
    ]
    level = torch.tensor([0.7391, -0.123, 1.0, 1e-3, 1000.3, 0.0, -7.77, 3.1])[None, :, None, None]
    x = (
        (torch.stack(shapes)[:, None] * torch.linspace(0.1, 2, 8)[:, None, None] + level)
        .to(dtype)
        .contiguous(memory_format=torch.channels_last)
    )
    values = x.double().unflatten(1, (groups, -1))
    var, mean = torch.var_mean(values, dim=(2, 3, 4), correction=0)
    for rows in (80, 12, 5):
        found = sweep(held(x), rows, groups)
        assert found is not None and found.mean.dtype == torch.float64
        assert ((found.mean - mean).abs() <= 1e-7 * values.abs().amax((2, 3, 4)) + 1e-6 * var.sqrt()).all()
        assert ((found.var - var).abs() <= 2e-6 * var + (1e-7 * values.abs().amax((2, 3, 4))) ** 2).all()


def test_memory_is_counted_and_given_back() -> None:
    ledger = Ledger(1000)
    stored = Stored((1, 1, 4, 5), ledger.hold)
    for _ in range(2):
        stored.append(torch.zeros(1, 1, 2, 5))
    assert ledger.used == ledger.peak == 4 * 20 and ledger.fits(920) and not ledger.fits(921)
    stored.release(3)
    assert ledger.used == 4 * 10
    with pytest.raises(AssertionError, match="released rows"):
        stored.rows(1, 3)
    stored.release(EVERYTHING)
    assert ledger.used == 0 and ledger.peak == 80


# --- whole networks


@given(st.integers(1, 12), st.integers(1, 7), st.integers(1, 40), st.sampled_from([0, 20_000, math.inf]))
def test_strips_are_the_whole_picture(height: int, width: int, rows: int, budget: float) -> None:
    """Any size, strip and budget, both halves: in float64 nothing is left but rounding."""
    model = vae()
    z, x = random(1, 4, height, width), random(1, 3, 8 * height, 8 * width)
    with torch.inference_mode():
        decoded = Striped(4, rows, Ledger(budget)).decode(model.decoder, model.post_quant_conv(z))
        encoded = Striped(4, rows, Ledger(budget)).encode(model.encoder, x)
        torch.testing.assert_close(decoded, model.decode(z), rtol=0, atol=1e-10)
        torch.testing.assert_close(encoded, model.encoder(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "overrides",
    [
        {"channel_mult": (1, 2)},
        {"channel_mult": (1, 1, 2, 2, 2)},
        {"mid_attention": False},
        {"attention_factors": (1, 4)},
        {"padding_mode": "reflect"},
        {"padding_mode": "circular"},
        {"num_heads": 2},
        {"quant_conv": False, "post_quant_conv": False},
        {"latent_channels": 16},
        {"decoder_channels": 16},
        {"num_res_blocks": 2},
    ],
    ids=str,
)
def test_every_kind_of_network(overrides: dict[str, object]) -> None:
    """f2 to f16, with and without attention at any level, other frames, widths and blocks; batches of two."""
    model = vae(**overrides)
    z = random(2, model.latent_channels, 11, 6)
    x = random(2, 3, 11 * model.downsample_factor, 6 * model.downsample_factor)
    codec = Codec(model, tile=5)
    torch.testing.assert_close(codec.decode(z), model.decode(z), rtol=0, atol=1e-10)
    torch.testing.assert_close(codec.encode(x).mean, model.encode(x).mean, rtol=0, atol=1e-10)
    with torch.inference_mode():  # and without room for anything
        poor = Striped(4, 5, Ledger(0)).decode(model.decoder, model.post_quant_conv(z))
    torch.testing.assert_close(poor, model.decode(z), rtol=0, atol=1e-10)
    tight = Codec(model, tile=5, memory=codec.plan_decode(*z.shape).peak * 2)
    torch.testing.assert_close(tight.decode(z), model.decode(z), rtol=0, atol=1e-10)


@pytest.fixture
def preparations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of convolutions whose weights are prepared from now on, one name for each."""
    made: list[str] = []
    prepare, quarter = conv_kernels.prepared, conv_kernels.quartered

    def prepared(weight: Tensor, filtering: Filtering) -> Tensor:
        made.append(type(filtering).__name__)
        return prepare(weight, filtering)

    def quartered(weight: Tensor) -> list[list[Tensor]]:
        made.append("Quartered")
        return quarter(weight)

    monkeypatch.setattr(conv_kernels, "prepared", prepared)
    monkeypatch.setattr(conv_kernels, "quartered", quartered)
    return made


@pytest.mark.parametrize("size", [(24, 17), (16, 16), (9, 21)], ids=str)
@pytest.mark.parametrize("tile", [None, 12])
def test_float32_is_within_its_rounding(size: tuple[int, int], tile: int | None, preparations: list[str]) -> None:
    """On outputs of range 2: the limit is 1e-5, with minimal filtering, which wide layers take, as without."""
    torch.manual_seed(0)
    model = (
        vw.build("small-f8c4", channels=64, channel_mult=(1, 1, 2, 2), num_res_blocks=1).eval().requires_grad_(False)
    )
    codec = Codec(model, tile=tile)
    z = random(1, 4, *size).float()
    with torch.inference_mode():
        whole = model.decode(z)
        picture = whole.clamp(-1, 1)
        mean = model.encode(picture).mean
    for found, expected in ((codec.decode(z), whole), (codec.encode(picture).mean, mean), (codec.decode(z), whole)):
        assert ((found - expected).abs().max() * 2 / (expected.max() - expected.min())).item() < 1e-5
    assert {"F4", "DoubledConv"} <= set(preparations)


def flat_pictures(side: int) -> dict[str, Tensor]:
    """Pictures whose maps have hardly any variance, and some that do: 1 3 side side."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    found = {"black": -1.0, "gray": 1 / 255, "white": 1.0, "light": 0.3}
    pictures = {name: torch.full((side, side), level) for name, level in found.items()}
    pictures["spot"], pictures["gradient"] = pictures["black"].clone(), x / (side - 1) * 2.0 - 1
    pictures["spot"][side // 2, side // 2 - 1] = 1.0
    pictures["halves"], pictures["checker"] = (y < side // 2) * 2.0 - 1, (x // 8 + y // 8) % 2 * 2.0 - 1
    return {name: picture.expand(1, 3, side, side).contiguous() for name, picture in pictures.items()}


FLAT = [
    {"channels": 32, "norm_groups": 32},
    {"channels": 64, "norm_groups": 32, "channel_mult": (1, 1, 2, 2)},
    {"channels": 8, "norm_groups": 4},
]


@pytest.mark.parametrize("overrides", FLAT, ids=["a group a channel", "filtered", "narrow"])
@pytest.mark.parametrize("tile", [None, 8])
def test_flat_pictures_are_as_exact_as_others(overrides: dict[str, object], tile: int | None) -> None:
    """Both halves, against float64: at most a few times what the plain network in float32 is off, down to one
    latent."""
    torch.manual_seed(0)
    model = vw.build("small-f8c4", num_res_blocks=1, **overrides).eval().requires_grad_(False)
    exact, codec = copy.deepcopy(model).double(), Codec(model, tile=tile)

    def error(found: Tensor, expected: Tensor) -> float:
        return ((found - expected).abs().max() * 2 / (expected.max() - expected.min()).clamp_min(2.0)).item()

    for name, picture in {**flat_pictures(64), "tiny": torch.full((1, 3, 8, 8), 1 / 255)}.items():
        with torch.inference_mode():
            truth, plain = exact.encode(picture.double()).mean, model.encode(picture).mean
            assert error(codec.encode(picture).mean, truth) <= 4 * error(plain, truth) + 2e-6, name
            for z in (plain, torch.full_like(plain, 0.5)):
                truth = exact.decode(z.double())
                assert error(codec.decode(z), truth) <= 4 * error(model.decode(z), truth) + 2e-6, name


@pytest.mark.parametrize("overrides", FLAT[:2], ids=["a group a channel", "filtered"])
def test_flat_pictures_in_bfloat16(overrides: dict[str, object]) -> None:
    """No further from float64 than twice the plain network in bfloat16 is."""
    torch.manual_seed(0)
    model = vw.build("small-f8c4", num_res_blocks=1, **overrides).eval().requires_grad_(False).bfloat16()
    exact, codec = copy.deepcopy(model).double(), Codec(model, tile=8)
    for name, picture in flat_pictures(64).items():
        with torch.inference_mode():
            truth = exact.encode(picture.bfloat16().double()).mean
            found, plain = (each.encode(picture.bfloat16()).mean.double() for each in (codec, model))
        assert (found - truth).abs().max() <= 2 * (plain - truth).abs().max(), name


def test_weights_are_prepared_once_where_there_is_room(preparations: list[str]) -> None:
    """Kept for the next picture; with a budget that is needed for maps, not."""
    model = vae()
    z = random(1, 4, 24, 24)
    rich, poor = Codec(model, tile=4), Codec(model, tile=4, memory=RESERVE + 9 * 2**20)
    for codec in (rich, poor):
        torch.testing.assert_close(codec.decode(z), model.decode(z), rtol=0, atol=1e-10)
    for codec, again in ((rich, False), (poor, True)):
        preparations.clear()
        codec.decode(z)
        assert bool(preparations) == again
    assert rich.plan_decode(*z.shape).work < poor.plan_decode(*z.shape).work


def test_weights_that_change_are_prepared_again() -> None:
    """An optimizer's step; another tensor in its place, also at its address; weights that are computed; and what
    inference mode made."""
    model = vae(channels=32, channel_mult=(1, 1))
    z, codec = random(1, 4, 8, 8), Codec(model)
    before = codec.decode(z)
    with torch.no_grad():
        for conv in model.decoder.modules():
            if isinstance(conv, nn.Conv2d):
                conv.weight.add_(0.01)
    torch.testing.assert_close(codec.decode(z), model.decode(z), rtol=0, atol=1e-10)
    assert not torch.allclose(codec.decode(z), before)
    for conv in model.decoder.modules():
        if isinstance(conv, nn.Conv2d):
            conv.weight = nn.Parameter(conv.weight * 0.9)
    torch.testing.assert_close(codec.decode(z), model.decode(z), rtol=0, atol=1e-10)
    for _ in range(4):  # the one that is dropped leaves its memory to the next
        for conv in model.decoder.modules():
            if isinstance(conv, nn.Conv2d):
                weight = torch.randn_like(conv.weight) / 10
                conv.weight = None
                conv.weight = nn.Parameter(weight, requires_grad=False)
        torch.testing.assert_close(codec.decode(z), model.decode(z), rtol=0, atol=1e-9)
    conv = model.decoder.levels[0].blocks[0].conv1
    nn.utils.parametrizations.weight_norm(conv)
    torch.testing.assert_close(codec.decode(z), model.decode(z), rtol=0, atol=1e-9)
    with torch.no_grad():
        conv.parametrizations.weight.original0.mul_(1.5)
    torch.testing.assert_close(codec.decode(z), model.decode(z), rtol=0, atol=1e-9)
    with torch.inference_mode():
        inferred = vae(channels=32, channel_mult=(1, 1))
        codec = Codec(inferred)
        codec.decode(z)
        inferred.decoder.levels[0].blocks[0].conv1.weight.mul_(2)
        torch.testing.assert_close(codec.decode(z), inferred.decode(z), rtol=0, atol=1e-10)


def test_a_changed_tile_is_used() -> None:
    """Also for sizes that were planned before."""
    codec = Codec(vw.build("sd1", channels=32).eval(), tile=8)
    shape = (1, 4, 24, 24)
    assert codec.plan_decode(*shape).rows == 8
    codec.tile = 4
    assert codec.plan_decode(*shape).rows == 4
    codec.tile = 8
    assert codec.plan_decode(*shape).rows == 8


def test_results_can_be_trained_on_and_plans_come_in_any_order() -> None:
    """A model whose weights want gradients, as `build` makes it: results without a graph, free to be changed and to be
    trained on."""
    torch.manual_seed(0)
    model = vw.build("small-f8c4", channels=64, channel_mult=(1, 1), num_res_blocks=1)
    codec = Codec(model)
    z, x = random(1, 4, 8, 8).float(), random(1, 3, 16, 16).float()
    picture, latents = codec.decode(z), codec.encode(x).mode()
    assert not picture.requires_grad and not picture.is_inference()
    picture.clamp_(-1, 1)
    nn.Conv2d(4, 4, 1)(latents).sum().backward()
    assert codec.plan_decode(1, 4, 12, 12).rows and codec.verify().max_error < 1e-5
    with torch.autocast("cpu", torch.bfloat16):  # the codec's own dtype counts
        torch.testing.assert_close(codec.decode(z).clamp(-1, 1), picture)
        assert codec.encode(x).mode().dtype == torch.float32


def test_a_batch_that_does_not_fit_goes_image_by_image() -> None:
    model = vae()
    z, x = random(5, 4, 24, 24), random(5, 3, 192, 192)
    codec = Codec(model, tile=4, memory=RESERVE + 12 * 2**20)
    with pytest.raises(ConfigError, match="takes at least"):
        codec.plan_decode(*z.shape)
    torch.testing.assert_close(codec.decode(z), model.decode(z), rtol=0, atol=1e-10)
    torch.testing.assert_close(codec.encode(x).mean, model.encode(x).mean, rtol=0, atol=1e-10)


def test_kept_weights_make_room_for_the_other_half(preparations: list[str]) -> None:
    """What one half has prepared is given back where the budget would be passed with it."""
    torch.manual_seed(0)
    model = vw.build("small-f8c4", channels=64, channel_mult=(1, 1), num_res_blocks=1).eval().requires_grad_(False)
    z, x = random(1, 4, 8, 8).float(), random(1, 3, 16, 16).float()
    need = Codec(model, tile=8).plan_decode(*z.shape).peak
    for memory, kept in ((need, False), (4 * need, True)):
        codec = Codec(model, tile=8, memory=memory)
        for run in (partial(codec.encode, x), partial(codec.decode, z)):
            preparations.clear()
            run()
            assert preparations
        preparations.clear()
        codec.encode(x)
        assert bool(preparations) != kept


def test_a_plan_counts_multiplications() -> None:
    """Where nothing is computed again, exactly those of the convolutions, whatever the strips; those of a shape are
    planned once."""
    model, done = vae(), []

    def count(module: nn.Module, _: object, y: Tensor) -> None:
        conv = module.conv if isinstance(module, Upsample) else module
        done.append(y.numel() * 9 * conv.in_channels)

    for name, module in model.decoder.named_modules():
        if isinstance(module, Upsample) or (
            isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and "upsample" not in name
        ):
            module.register_forward_hook(count)
    with torch.inference_mode():
        model.decode(random(1, 4, 6, 7))
    assert {Codec(model, tile=tile).plan_decode(1, 4, 6, 7).work for tile in (2, 5, 64)} == {sum(done)}
    codec = Codec(model)
    assert codec.plan_decode(1, 4, 6, 7) is codec.plan_decode(1, 4, 6, 7)


def test_a_certificate_is_the_measured_difference() -> None:
    """float32 is within its rounding, bfloat16 is not; a codec that computes something else is found out."""
    torch.manual_seed(0)
    model = vw.build("small-f8c4", **TINY).eval().requires_grad_(False)
    z = random(2, 4, 40, 20).float()
    sure, half = Codec(model).verify(z), Codec(model, dtype=torch.bfloat16).verify(z)
    assert 0 < sure.mean_error <= sure.max_error < 1e-5 and (sure.height, sure.width, sure.dtype) == (
        320,
        160,
        "float32",
    )
    assert 1e-3 < half.max_error < 1 and half.dtype == "bfloat16" and f"{half.max_error:.1e} at most" in half.sentence
    wrong = Codec(model)
    wrong.autoencoder = vw.build("small-f8c4", **TINY).eval()
    assert wrong.verify(z).max_error > 0.1
    assert Codec(vw.build("taesd").eval()).verify().max_error < 1e-5


def test_a_plan_is_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run on tensors without values holds exactly as much as the real one, and stays within the budget."""
    model = vae()
    z = random(1, 4, 24, 24)
    peaks = []
    for memory in (RESERVE + 64 * 2**20, RESERVE + 9 * 2**20):
        codec = Codec(model, tile=4, memory=memory)
        plan = codec.plan_decode(*z.shape)
        ledger = Ledger(plan.maps)
        with torch.inference_mode():
            Striped(4, plan.rows, ledger).decode(model.decoder, model.post_quant_conv(z))
        assert ledger.peak <= plan.maps and plan.peak <= memory
        assert tuple(ledger.recomputed) == plan.recomputed
        peaks.append(ledger.peak)
        assert ledger.used == 3 * 192 * 192 * 8  # the picture alone
    assert peaks[1] < peaks[0] and plan.recomputed


def test_bad_input_is_one_line() -> None:
    model = vae()
    with pytest.raises(ConfigError, match=r"takes at least \d+ MiB beside the weights, more than memory \(=1 MiB\)"):
        Codec(model, memory="1MiB").decode(random(1, 4, 32, 8))
    with pytest.raises(ConfigError, match="4 values that are no numbers"):
        Codec(model).decode(torch.full((1, 4, 1, 1), math.nan))
    with pytest.raises(ConfigError, match="1 values that are no numbers in float16"):  # finite before
        Codec(model, dtype=torch.float16).decode(torch.full((1, 4, 1, 1), 1.0).index_fill(1, torch.tensor([2]), 1e6))
    with pytest.raises(ConfigError, match="images hold"):
        Codec(model).encode(torch.full((1, 3, 8, 8), math.nan))
    for call in (lambda codec: codec.decode(random(1, 4, 1, 5)), lambda codec: codec.encode(random(1, 3, 8, 40))):
        with pytest.raises(ConfigError, match="at least 2 x 2, not 1 x 5"):
            call(Codec(vae(padding_mode="reflect")))
    with pytest.raises(ConfigError, match="choose one"):
        Codec(model, graphs=True, compile=True)
    with pytest.raises(ConfigError, match="whole number of rows"):
        Codec(model, tile=2.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="n 4 h w"):
        Codec(model).decode(random(1, 3, 4, 4))
    with pytest.raises(ConfigError, match="must be divisible by downsample_factor"):
        Codec(model).encode(random(1, 3, 8, 9))
    for nothing in (random(1, 4, 0, 8), random(0, 4, 8, 8)):
        with pytest.raises(ConfigError, match="hold nothing"):
            Codec(model).decode(nothing)
    with pytest.raises(ConfigError, match="hold nothing"):
        Codec(model).encode(random(1, 3, 8, 0))
    assert Codec(model).encode(random(1, 3, 8, 9), pad=True).mean.shape == (1, 4, 1, 2)
    for wrong in ("much", "-1GiB", "0"):
        with pytest.raises(ConfigError, match="must be a size"):
            Codec(model, memory=wrong)
    with pytest.raises(ConfigError, match="at least 1"):
        Codec(model, tile=0)


@pytest.mark.parametrize(
    ("text", "size"), [("4GiB", 4 * 2**30), ("800M", 800 * 2**20), ("2.5 gb", int(2.5 * 2**30)), (1234, 1234)]
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    """Version 2 and version 1 of control groups; "max", and none, are no limit."""
    assert container_memory(tmp_path) == math.inf
    (tmp_path / "memory.current").write_text("30\n")
    for text, left in (("100\n", 70), ("max\n", math.inf), ("20\n", 0)):
        (tmp_path / "memory.max").write_text(text)
        assert container_memory(tmp_path) == left
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("50")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("5")
    (tmp_path / "memory.max").unlink()
    assert container_memory(tmp_path) == 45
    assert 0 < free_memory(torch.device("cpu")) < 2**50


def test_taesd_runs_whole() -> None:
    torch.manual_seed(0)
    tiny = vw.build("taesd").eval().requires_grad_(False)
    z = random(1, 4, 6, 5).float()
    with torch.inference_mode():
        assert torch.equal(Codec(tiny).decode(z), tiny.decode(z))


def test_narrow_networks_and_compiled_ones_run_whole_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips pay for wide layers; what is compiled is the network as it is; a tile or a small budget has strips all the
    same."""
    narrow = vae()
    wide = vw.build("small-f8c4", channels=64, channel_mult=(1, 1), num_res_blocks=1).eval()
    assert Codec(narrow).plan_decode(1, 4, 6, 7).whole and Codec(narrow).plan_encode(1, 3, 48, 56).whole
    assert not Codec(wide).plan_decode(1, 4, 6, 7).whole and Codec(wide, compile=True).plan_decode(1, 4, 6, 7).whole
    assert not Codec(narrow, tile=8).plan_decode(1, 4, 6, 7).whole
    z = random(1, 4, 24, 24)
    assert not Codec(narrow, memory=RESERVE + 12 * 2**20).plan_decode(*z.shape).whole
    seen = []
    whole = Codec(narrow)
    monkeypatch.setitem(
        whole._whole, "decode", lambda x: seen.append(x.shape) or narrow.decoder(narrow.post_quant_conv(x))
    )
    torch.testing.assert_close(whole.decode(z), narrow.decode(z), rtol=0, atol=1e-10)
    assert seen == [z.shape] and "whole, about" in whole.plan_decode(*z.shape).sentence
    with pytest.raises(ConfigError, match="compile"):
        Codec(narrow, compile="yes")  # type: ignore[arg-type]


def test_a_vae_of_diffusers_is_taken_as_it_is() -> None:
    """Its weights are shared, its results are its own; what cannot be taken over is refused."""
    torch.manual_seed(0)
    theirs = vw.to_diffusers(vw.build("small-f8c4", channels=64, channel_mult=(1, 1), num_res_blocks=1)).eval()
    codec = vw.Codec(theirs, tile=8)
    z = random(1, 4, 10, 9).float()
    with torch.no_grad():
        expected = theirs.decode(z).sample
    assert ((codec.decode(z) - expected).abs().max() * 2 / (expected.max() - expected.min())).item() < 1e-5
    assert {p.data_ptr() for p in theirs.parameters()} == {p.data_ptr() for p in codec.autoencoder.parameters()}
    with pytest.raises(ConfigError, match="Linear"):
        vw.Codec(nn.Linear(1, 1))  # type: ignore[arg-type]


def test_maps_on_the_host_do_not_count() -> None:
    """The same result, and the least memory: strips, keys and values; nothing is computed again."""
    model = vae()
    z = random(1, 4, 24, 24)
    codec = Codec(model, tile=4, memory=RESERVE + 8 * 2**20, offload=True)  # below the least that works without
    plan = codec.plan_decode(*z.shape)
    assert plan.peak < RESERVE + 8 * 2**20 and not plan.recomputed
    torch.testing.assert_close(codec.decode(z), model.decode(z), rtol=0, atol=1e-10)
    with pytest.raises(ConfigError, match="takes at least"):
        Codec(model, tile=4, memory=RESERVE + 8 * 2**20).decode(z)


WITHIN_BUDGET = """
import torch
import vaeworks as vw
from vaeworks.metrics.throughput import _begin_memory, _peak

model = vw.build("small-f8c4", channels=32, channel_mult=(1, 1, 2, 2), num_res_blocks=1).eval().requires_grad_(False)
z = torch.randn(1, 4, 80, 80)
rich = vw.Codec(model, tile=16).plan_decode(*z.shape).peak
codec = vw.Codec(model, tile=16, memory=int(rich * 0.7))
codec.decode(z[:, :, :16])  # libraries take their own share
before, _ = _begin_memory(torch.device("cpu"))
picture = codec.decode(z)
print(rich, _peak(torch.device("cpu")) - before - picture.numel() * 4)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process its peak")
def test_memory_is_within_the_budget() -> None:
    """What the process really takes, beside the result, with less than it would take otherwise."""
    rich, taken = map(float, alone(WITHIN_BUDGET))
    assert 0.3 * rich < taken < 0.7 * rich, (taken, rich)


def alone(script: str) -> list[str]:
    """Words that a script prints in a process of its own, whose heap is new."""
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()


HELD_BACK = """
import os
import torch
from vaeworks.runtime.memory import freed_at_once

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def held_back():
    torch.ones(31 * 2**18)  # freed: from now on, glibc keeps blocks of up to 31 MiB for itself
    blocks = [torch.ones(2**20) for _ in range(32)]
    full = resident()
    del blocks[::2]
    return resident() - (full - 16 * 2**22)

with freed_at_once():
    with freed_at_once():
        pass
    print(held_back())
print(held_back())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_memory_goes_back_to_the_system_at_once() -> None:
    """Every second one of many blocks: a heap keeps such holes, whose neighbours are in use."""
    within, outside = map(int, alone(HELD_BACK))
    assert within < 2**22 < 2**24 < outside


def test_a_copy_without_values() -> None:
    """Shapes and types are the network's, weights that are one stay one, and the network itself keeps its values."""
    network = vae()
    network.decoder.conv_out.bias = network.decoder.conv_in.bias
    blank = without_values(network)
    assert {t.device.type for t in blank.state_dict().values()} == {"meta"}
    shapes = [{name: (t.shape, t.dtype) for name, t in one.state_dict().items()} for one in (blank, network)]
    assert shapes[0] == shapes[1]
    assert blank.decoder.conv_out.bias is blank.decoder.conv_in.bias
    assert network.device.type == "cpu"


def test_a_gradient_through_strips() -> None:
    """A step of fine-tuning at latents and weights is the whole network's; a copy's gradients, which go nowhere, are
    refused."""
    model = vae().train().requires_grad_(True)
    z, x = random(1, 4, 5, 6).requires_grad_(), random(1, 3, 40, 48).clamp(-1, 1)
    codec = Codec(model, tile=8)
    assert model.training and not codec.decode(z).requires_grad
    parameters = [z, *model.parameters()]

    def loss(decoded: Tensor, mean: Tensor) -> Tensor:
        return (decoded - x).square().mean() + mean.square().mean()

    found = torch.autograd.grad(loss(codec.decode(z, gradient=True), codec.encode(x, gradient=True).mean), parameters)
    expected = torch.autograd.grad(loss(model.decode(z), model.encode(x).mean), parameters)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
    with pytest.raises(ConfigError, match="copy in float32"):
        Codec(model, dtype=torch.float32).decode(z, gradient=True)
