"""Latents that are no Gaussian's samples: bounds, noise in training, channel prefixes; their files and what cannot hold
them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from configs import WIDE
from hypothesis import given
from hypothesis import strategies as st
from loss_oracles import objective
from safetensors.torch import load_file, save_file

import vaeworks as vw
from vaeworks.config import AutoencoderConfig, BottleneckConfig
from vaeworks.formats.fold import fold_to
from vaeworks.models.bottleneck import bounded, perturbed
from vaeworks.random_streams import noise_levels

BOUNDS = ("none", "tanh", "softclamp", "clamp", "rmsnorm", "sphere", "layernorm")


def point(bound: str = "none", **options: object) -> AutoencoderConfig:
    return dataclasses.replace(WIDE, bottleneck=BottleneckConfig(kind="point", bound=bound, **options))


def latents(n: int = 3, c: int = 4) -> torch.Tensor:
    return torch.randn(n, c, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 5


def test_bounds() -> None:
    """Each bound holds what it says, for latents five times as large as usual."""
    z = latents()
    for bound in ("tanh", "softclamp", "clamp"):
        assert bounded(z, BottleneckConfig(kind="point", bound=bound, limit=2.0)).abs().max() <= 2
    torch.testing.assert_close(bounded(z, BottleneckConfig(kind="point", bound="softclamp")), torch.tanh(z / 3) * 3)
    rms = bounded(z, BottleneckConfig(kind="point", bound="rmsnorm"))
    torch.testing.assert_close(rms.square().mean(1), torch.ones(3, 6, 5).double(), rtol=1e-5, atol=1e-5)
    sphere = bounded(z, BottleneckConfig(kind="point", bound="sphere"))
    torch.testing.assert_close(sphere, rms / 2, rtol=1e-5, atol=1e-5)  # the root of four channels
    layer = bounded(z, BottleneckConfig(kind="point", bound="layernorm"))
    torch.testing.assert_close(layer.mean((1, 2, 3)), torch.zeros(3).double())
    torch.testing.assert_close(layer.std((1, 2, 3), correction=0), torch.ones(3).double())
    assert bounded(z, BottleneckConfig(kind="point")) is z


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_network(bound: str) -> None:
    """Half as many moments, a point as posterior, gradients that reach the encoder, no KL in the loss."""
    vae = vw.build(point(bound))
    assert vae.encoder.conv_out.out_channels == vae.quant_conv.out_channels == 4
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    recon, posterior = vae(images, torch.randn(2, 4, 8, 8))
    assert posterior.is_point
    assert torch.equal(posterior.sample(), posterior.mode())
    loss, terms = objective(recon, images, posterior, vw.LossConfig(beta=1.0))
    assert terms["kl"] == 0
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())
    assert vae.encoder.conv_in.weight.grad.abs().max() > 0


def test_noise_by_hand() -> None:
    """Level 0 leaves latents alone; the kinds are their formulas; sigma's levels are quantiles of a half-normal."""
    z, noise = latents(2), torch.randn(2, 4, 6, 5, dtype=torch.float64)
    t = torch.tensor([0.0, 0.5])
    for kind, expected in {
        "additive": z[1] + 0.5 * 0.3 * noise[1],
        "interpolative": 0.5 * z[1] + 0.5 * 0.3 * noise[1],
        "sigma": z[1] + 0.3 / 0.8 * 0.6744897501960817 * noise[1],  # the median of |N(0,1)|
    }.items():
        disturbed = perturbed(z, BottleneckConfig(noise=kind), noise, t)
        torch.testing.assert_close(disturbed[0], z[0])
        torch.testing.assert_close(disturbed[1], expected)


@given(st.integers(0, 2**31), st.integers(1, 300))
def test_levels_are_uniform_and_keyed(seed: int, count: int) -> None:
    """In [0,1), the same for the same counters in any grouping."""
    levels = noise_levels(seed, list(range(count)))
    assert levels.dtype == torch.float32
    assert ((levels >= 0) & (levels < 1)).all()
    assert torch.equal(
        levels[count // 2 :], noise_levels(seed, list(range(count // 2, count))) if count // 2 < count else levels[:0]
    )


def test_prefixes() -> None:
    """A sample keeps one of the given numbers of leading channels, each about as often, whatever its noise."""
    levels = noise_levels(0, list(range(3000)))
    z = torch.ones(3000, 8, 1, 1)
    kept = perturbed(z, BottleneckConfig(prefixes=(2, 5, 8)), torch.zeros_like(z), levels).flatten(1)
    counts = kept.sum(1)
    assert set(counts.tolist()) == {2.0, 5.0, 8.0}
    assert all(abs((counts == n).float().mean() - 1 / 3) < 0.04 for n in (2, 5, 8))
    assert torch.equal(kept, (torch.arange(8) < counts[:, None]).float())
    assert abs(torch.corrcoef(torch.stack([levels, counts]))[0, 1]) < 0.06


@pytest.mark.parametrize("layout", ["native", "ldm"])
@pytest.mark.parametrize("bound", ["none", "softclamp"])
def test_files(bound: str, layout: str, tmp_path: Path) -> None:
    """Both single-file layouts carry it; without metadata shapes tell that there is no posterior, but not the bound."""
    vae, path = vw.build(point(bound)).eval(), tmp_path / "x"
    if layout == "ldm" and bound != "none":
        with pytest.warns(UserWarning, match=r"bounded by softclamp \(not at all\)"):
            vw.save(vae, path, layout)
    else:
        vw.save(vae, path, layout)
    loaded = vw.load(path)
    assert loaded.config == vae.config
    images = torch.rand(1, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        assert torch.equal(loaded.encode(images).mode(), vae.encode(images).mode())
    save_file(load_file(path), path)
    with pytest.warns(UserWarning, match="does not say how its latents are scaled|bound"):
        assert vw.load(path).kl_config.bottleneck == BottleneckConfig(kind="point")


def test_diffusers_has_no_class_for_it(tmp_path: Path) -> None:
    """Saving is refused; in memory an adapter gives the bounded latents."""
    vae = vw.build(point("softclamp")).eval()
    with pytest.raises(vw.ConfigError, match="latents alone"):
        vw.save(vae, tmp_path / "x", "diffusers")
    images = torch.rand(1, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(vw.to_diffusers(vae).encode(images).latents, vae.encode(images).mode())


def test_fold() -> None:
    """A point is folded as a mean is; a bound stands behind all weights and cannot be."""
    vae = vw.build(dataclasses.replace(point(), scaling_factor=0.4, shift_factor=0.3)).eval().double()
    folded, images = fold_to(vae, 0.18215), torch.rand(1, 3, 8, 8, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        z = vae.normalize(vae.encode(images).mode())
        torch.testing.assert_close(folded.normalize(folded.encode(images).mode()), z)
        torch.testing.assert_close(folded.decode(folded.denormalize(z)), vae.decode(vae.denormalize(z)))
    with pytest.raises(vw.ConfigError, match="bounded by tanh"):
        fold_to(vw.build(point("tanh")), 1.0)


@pytest.mark.parametrize(
    "options",
    [
        {"bound": "tanh"},
        {"kind": "point", "limit": 0.0},
        {"noise_scale": math.inf},
        {"prefixes": (0, 2)},
        {"eps": -1.0},
    ],
)
def test_settings_that_cannot_be(options: dict) -> None:
    with pytest.raises(vw.ConfigError, match=r"^[^\n]+$"):
        BottleneckConfig(**options)


def test_prefixes_fit_the_channels() -> None:
    with pytest.raises(vw.ConfigError, match="latent_channels"):
        dataclasses.replace(WIDE, bottleneck=BottleneckConfig(prefixes=(2, 9)))
