"""The networks: counts, parity with diffusers' AutoencoderKL, the posterior, and what encode and decode accept."""

from __future__ import annotations

import copy
import dataclasses
import math
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from configs import ATTENTIVE, TINY
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.config import MODELS, AutoencoderConfig, TinyConfig
from vaeworks.formats.diffusers_config import diffusers_config
from vaeworks.formats.keymap import diffusers_name
from vaeworks.nn import Downsample, GroupNorm, ResBlock, SpatialAttention, Upsample

FAMILY = {name: dataclasses.replace(config, channels=16, norm_groups=8) for name, config in MODELS.items()}
VARIANTS = {
    "gray-in": dataclasses.replace(ATTENTIVE, in_channels=1, out_channels=4),
    "gray-out": dataclasses.replace(ATTENTIVE, in_channels=4, out_channels=1),
    "one-level": dataclasses.replace(ATTENTIVE, channel_mult=(1,)),
    "fractional-width": dataclasses.replace(ATTENTIVE, channel_mult=(1, 1.5, 3)),
    "three-blocks": dataclasses.replace(ATTENTIVE, num_res_blocks=3),
    "no-attention": TINY,
    "attention-everywhere": dataclasses.replace(ATTENTIVE, channel_mult=(1, 2, 2), attention_factors=(1, 2, 4)),
    "attention-inside": dataclasses.replace(TINY, channel_mult=(1, 2, 2), attention_factors=(2,)),
    "quant-only": dataclasses.replace(ATTENTIVE, post_quant_conv=False),
    "post-quant-only": dataclasses.replace(ATTENTIVE, quant_conv=False),
}


def scramble_(module: nn.Module, seed: int = 0) -> nn.Module:
    """All parameters random, norms included, so that no two of them could be swapped unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(module.named_parameters()):
            p.copy_(torch.randn(p.shape, generator=generator) * (0.2 if p.ndim == 1 else p[0].numel() ** -0.5))
            if p.ndim == 1 and "norm" in name and name.endswith("weight"):
                p.add_(1.0)
    return module


def random_vae(config: AutoencoderConfig, dtype: torch.dtype = torch.float32) -> vw.Autoencoder:
    return scramble_(vw.build(config)).to(dtype).eval()


def random_images(config: AutoencoderConfig, height: int, width: int, dtype: torch.dtype, n: int = 2) -> Tensor:
    return (
        torch.rand(n, config.in_channels, height, width, generator=torch.Generator().manual_seed(1), dtype=dtype) * 2
        - 1
    )


def assert_near(actual: Tensor, reference: Tensor, tolerance: float, floor: float = 0.0) -> None:
    """Largest deviation at most `tolerance` times the output's scale, which is max|reference| (at least `floor`)."""
    assert actual.shape == reference.shape
    assert actual.dtype == reference.dtype
    scale = max(reference.abs().max().item(), floor)
    assert (actual - reference).abs().max().item() <= tolerance * scale


def weights_like(x: Tensor, seed: int) -> Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)


def assert_parity(vae: vw.Autoencoder, reference: AutoencoderKL, height: int, width: int, tolerance: float) -> None:
    """Moments, mode, decode and the gradients of a loss of all of them, with respect to images and every parameter."""
    reference.requires_grad_(True)
    images = random_images(vae.config, height, width, vae.dtype)
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    posterior, expected = vae.encode(ours), reference.encode(theirs).latent_dist
    recon, expected_recon = vae.decode(posterior.mode()), reference.decode(expected.mode()).sample
    assert posterior.mean.shape == (
        2,
        vae.latent_channels,
        height // vae.downsample_factor,
        width // vae.downsample_factor,
    )
    assert recon.shape == (2, vae.config.out_channels, height, width)
    pairs = [(posterior.mean, expected.mean), (posterior.logvar, expected.logvar), (posterior.mode(), expected.mode())]
    pairs += [(recon, expected_recon)]
    for actual, wanted in pairs:
        assert_near(actual, wanted, tolerance)
    sum((a * weights_like(a, i)).sum() for i, (a, _) in enumerate(pairs)).backward()
    sum((b * weights_like(b, i)).sum() for i, (_, b) in enumerate(pairs)).backward()
    assert_near(ours.grad, theirs.grad, tolerance)
    wanted = {name: p.grad for name, p in reference.named_parameters()}
    # Some gradients are 0 but for rounding (a key's bias) or small sums of large terms (biases before a norm), so that
    # in fp32 the scale is that of all gradients together; fp64 tells every one of them apart.
    floor = (1e-3 if vae.dtype == torch.float64 else 1.0) * max(g.abs().max().item() for g in wanted.values())
    levels = len(vae.config.channel_mult)
    for name, p in vae.named_parameters():
        assert_near(p.grad, wanted.pop(diffusers_name(name, levels)), tolerance, floor)
    assert not wanted


def meta(config: AutoencoderConfig | str) -> vw.Autoencoder:
    with torch.device("meta"):
        return vw.build(config)


@pytest.mark.parametrize(
    ("name", "tensors", "total", "encoder", "decoder"),
    [("sd1", 248, 83_653_863, 34_163_592, 49_490_179), ("flux1", 244, 83_819_683, 34_274_208, 49_545_475)],
)
def test_published_counts(name: str, tensors: int, total: int, encoder: int, decoder: int) -> None:
    """The published numbers of tensors and parameters; the quant convs belong to neither encoder nor decoder."""
    vae = meta(name)
    assert len(vae.state_dict()) == tensors
    assert vae.num_parameters == total
    assert sum(p.numel() for p in vae.encoder.parameters()) == encoder
    assert sum(p.numel() for p in vae.decoder.parameters()) == decoder


@pytest.mark.parametrize(
    ("channel_mult", "blocks", "c", "tensors"), [((1, 2, 4), 2, 4, 204), ((1, 1, 2, 2, 4), 3, 8, 372)]
)
def test_counts_of_compvis_variants(channel_mult: tuple[int, ...], blocks: int, c: int, tensors: int) -> None:
    """The number of tensors that CompVis' own code has for two more architectures."""
    assert (
        len(meta(AutoencoderConfig(channel_mult=channel_mult, num_res_blocks=blocks, latent_channels=c)).state_dict())
        == tensors
    )


@pytest.mark.parametrize("name", MODELS)
def test_full_width_has_diffusers_shapes(name: str) -> None:
    """Every model of the family has diffusers' names and shapes at full width."""
    vae = meta(name)
    with torch.device("meta"):
        kind = AutoencoderKLFlux2 if name == "flux2" else AutoencoderKL
        reference = kind(**diffusers_config(vae.config))
    ours = {diffusers_name(key, len(vae.config.channel_mult)): t.shape for key, t in vae.state_dict().items()}
    assert ours == {key: t.shape for key, t in reference.state_dict().items()}


@pytest.mark.parametrize("name", MODELS)
def test_parity_in_double_precision(name: str) -> None:
    """Values and gradients in training equal diffusers' to 1e-10 of their scale in fp64, for every model of the
    family."""
    vae = random_vae(FAMILY[name], torch.float64).train()
    assert_parity(vae, vw.to_diffusers(vae), 64, 96 if vae.downsample_factor < 32 else 32, 1e-10)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (32, 160)])
@pytest.mark.parametrize("name", ["sd1", "flux1", "ldm-f16"])
def test_parity_in_single_precision(name: str, height: int, width: int) -> None:
    """Values equal diffusers' to 1e-5 of their scale in fp32, at odd aspect ratios."""
    vae = random_vae(FAMILY[name])
    images = random_images(vae.config, height, width, torch.float32)
    reference = vw.to_diffusers(vae)
    with torch.no_grad():
        posterior, expected = vae.encode(images), reference.encode(images).latent_dist
        assert_near(posterior.mean, expected.mean, 1e-5)
        assert_near(posterior.logvar, expected.logvar, 1e-5)
        assert_near(vae.decode(expected.mean), reference.decode(expected.mean).sample, 1e-5)


@pytest.mark.parametrize(("training", "height", "width"), [(False, 16, 16), (True, 8, 40)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", VARIANTS)
def test_parity_of_variants(name: str, dtype: torch.dtype, training: bool, height: int, width: int) -> None:
    """Values and gradients equal diffusers' for other channels, widths, depths and places of attention, trained or
    not."""
    vae = random_vae(VARIANTS[name], dtype).train(training)
    assert_parity(vae, vw.to_diffusers(vae), height, width, 1e-10 if dtype == torch.float64 else 1e-5)


def test_parity_at_full_width() -> None:
    """Values and the input's gradient equal diffusers' for the whole Stable Diffusion VAE with default weights at
    64x64."""
    vae = vw.build("sd1").requires_grad_(False)
    reference = vw.to_diffusers(vae)
    images = random_images(vae.config, 64, 64, torch.float32, n=1)
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    latents, expected = vae.encode(ours).mode(), reference.encode(theirs).latent_dist.mode()
    recon, expected_recon = vae.decode(latents), reference.decode(expected).sample
    recon.square().sum().backward()
    expected_recon.square().sum().backward()
    for actual, wanted in ((latents, expected), (recon, expected_recon), (ours.grad, theirs.grad)):
        assert_near(actual, wanted, 1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_weights_of_diffusers_give_its_results(name: str, tmp_path: Path) -> None:
    """A folder that diffusers wrote of its own random weights encodes and decodes here as it does there."""
    config = FAMILY[name]
    levels = len(config.channel_mult)
    attention = [2**i in config.attention_factors for i in range(levels)]
    own = {"scaling_factor": config.scaling_factor, "shift_factor": config.shift_factor}
    reference = scramble_(
        (AutoencoderKLFlux2 if name == "flux2" else AutoencoderKL)(
            block_out_channels=[round(config.channels * m) for m in config.channel_mult],
            down_block_types=["AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attention],
            up_block_types=["AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in attention[::-1]],
            layers_per_block=config.num_res_blocks,
            latent_channels=config.latent_channels,
            norm_num_groups=config.norm_groups,
            mid_block_add_attention=config.mid_attention,
            use_quant_conv=config.quant_conv,
            use_post_quant_conv=config.post_quant_conv,
            **({} if name == "flux2" else own),
        )
    ).double()
    reference.save_pretrained(tmp_path)
    vae = vw.load(tmp_path)
    assert vae.config == config
    images = random_images(config, 32, 64, torch.float64)
    with torch.no_grad():
        posterior, expected = vae.encode(images), reference.encode(images).latent_dist
        assert_near(posterior.mean, expected.mean, 1e-10)
        assert_near(posterior.logvar, expected.logvar, 1e-10)
        assert_near(vae.decode(expected.mean), reference.decode(expected.mean).sample, 1e-10)


@pytest.mark.parametrize(
    "decoder",
    [
        {"decoder_channels": 16},
        {"decoder_channels": 12},
        {"decoder_channel_mult": (1, 3)},
        {"decoder_channels": 4, "decoder_channel_mult": (1, 5)},
    ],
)
def test_decoder_of_other_widths(decoder: dict) -> None:
    """With two widths, the encoder equals a diffusers model of its width and the decoder one of its own."""
    vae = random_vae(dataclasses.replace(ATTENTIVE, **decoder), torch.float64)
    config = vae.config
    images = random_images(config, 16, 24, torch.float64)
    halves = {
        "encoder": dataclasses.replace(config, decoder_channels=None, decoder_channel_mult=None),
        "decoder": dataclasses.replace(
            config,
            channels=config.decoder_channels or config.channels,
            channel_mult=config.decoder_channel_mult or config.channel_mult,
            decoder_channels=None,
            decoder_channel_mult=None,
        ),
    }
    models = {}
    for half, one_width in halves.items():
        model = AutoencoderKL(**diffusers_config(one_width)).double()
        names = ("encoder.", "quant_conv.") if half == "encoder" else ("decoder.", "post_quant_conv.")
        state = {diffusers_name(k, 2): t for k, t in vae.state_dict().items() if k.startswith(names)}
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert not unexpected
        assert not [k for k in missing if k.startswith(names)]
        models[half] = model
    with torch.no_grad():
        latents = vae.encode(images).mode()
        assert_near(latents, models["encoder"].encode(images).latent_dist.mode(), 1e-10)
        assert_near(vae.decode(latents), models["decoder"].decode(latents).sample, 1e-10)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_equals_torch(heads: int) -> None:
    """Self-attention equals x + torch.nn.MultiheadAttention(norm(x)) with the same matrices."""
    block = scramble_(SpatialAttention(16, heads, groups=4)).double()
    reference = nn.MultiheadAttention(16, heads, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([block.query.weight, block.key.weight, block.value.weight]))
        reference.in_proj_bias.copy_(torch.cat([block.query.bias, block.key.bias, block.value.bias]))
        reference.out_proj.weight.copy_(block.out.weight)
        reference.out_proj.bias.copy_(block.out.bias)
        x = weights_like(torch.empty(2, 16, 3, 5, dtype=torch.float64), 2)
        tokens = F.group_norm(x, 4, block.norm.weight, block.norm.bias, 1e-6).flatten(2).mT
        expected = x + reference(tokens, tokens, tokens, need_weights=False)[0].mT.reshape(x.shape)
        assert_near(block(x), expected, 1e-12)


def test_attention_heads_are_used_by_the_autoencoder() -> None:
    """num_heads changes what a model with the same weights computes, at every place of attention."""
    configs = [dataclasses.replace(ATTENTIVE, attention_factors=(1, 2), num_heads=heads) for heads in (1, 2)]
    one, two = (random_vae(config) for config in configs)
    assert [m.num_heads for m in two.modules() if isinstance(m, SpatialAttention)] == [2] * 8
    images = random_images(ATTENTIVE, 8, 8, torch.float32)
    assert not torch.allclose(one.encode(images).mean, two.encode(images).mean)


@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize("column", range(3))
def test_downsample_pads_bottom_and_right_only(row: int, column: int) -> None:
    """A kernel that is 1 at one place picks every second pixel from there on, and zeros beyond the bottom and right
    border."""
    down = Downsample(2)
    with torch.no_grad():
        down.conv.weight.zero_()
        down.conv.weight[range(2), range(2), row, column] = 1.0
        down.conv.bias.zero_()
        x = torch.rand(1, 2, 6, 8)
        padded = torch.zeros(1, 2, 7, 9)
        padded[..., :6, :8] = x
        assert torch.equal(down(x), padded[..., row : row + 6 : 2, column : column + 8 : 2])


def test_upsample_repeats_pixels_before_a_padded_convolution() -> None:
    """Doubling equals repeating every pixel 2x2, then an ordinary 3x3 convolution with zeros all around."""
    up = Upsample(3)
    x = torch.rand(2, 3, 4, 5)
    doubled = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(up(x), F.conv2d(doubled, up.conv.weight, up.conv.bias, padding=1))


def test_group_norm_by_hand() -> None:
    """GroupNorm subtracts the mean and divides by sqrt(var + eps) of each group of channels, then SiLU."""
    norm = scramble_(GroupNorm(6, 3, eps=1e-2)).double()
    x = weights_like(torch.empty(2, 6, 4, 5, dtype=torch.float64), 3)
    groups = x.reshape(2, 3, -1)
    normal = ((groups - groups.mean(-1, True)) / (groups.var(-1, unbiased=False, keepdim=True) + 1e-2).sqrt()).reshape(
        x.shape
    )
    expected = normal * norm.weight[:, None, None] + norm.bias[:, None, None]
    assert_near(norm(x), expected, 1e-12)
    assert_near(norm.silu(x), expected * expected.sigmoid(), 1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("frozen", [(), ("weight", "bias"), ("x",), ("x", "weight")])
def test_training_norm_equals_evaluation(frozen: tuple[str, ...], layout: torch.memory_format) -> None:
    """Training's memory-saving norm with SiLU has the values and gradients of the plain one in NCHW, whatever needs no
    gradient."""
    norm = scramble_(GroupNorm(8, 2)).double().train()

    def plain(x: Tensor) -> Tensor:
        return F.silu(F.group_norm(x, 2, norm.weight, norm.bias, norm.eps))

    results = []
    for function, memory_format in ((plain, torch.contiguous_format), (norm.silu, layout)):
        x = weights_like(torch.empty(2, 8, 3, 5, dtype=torch.float64), 3).to(memory_format=memory_format)
        leaves = {"x": x, **dict(norm.named_parameters())}
        for name, leaf in leaves.items():
            leaf.requires_grad_(name not in frozen).grad = None
        y = function(x)
        (y * weights_like(y, 4)).sum().backward()
        results.append([y, *(leaf.grad for name, leaf in leaves.items() if name not in frozen)])
        assert all(leaves[name].grad is None for name in frozen)
    assert y.is_contiguous(memory_format=layout)
    for expected, actual in zip(*results, strict=True):
        assert_near(actual.detach(), expected.detach(), 1e-13)


@pytest.mark.parametrize("training", [False, True])
def test_norm_gradient_is_that_of_differences(training: bool) -> None:
    """Finite differences agree with the gradient of the norm with SiLU, in images and parameters."""
    norm = scramble_(GroupNorm(4, 2)).double().train(training)
    x = weights_like(torch.empty(1, 4, 2, 3, dtype=torch.float64), 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: norm.silu(x), (x, norm.weight, norm.bias))


@pytest.mark.parametrize("groups", [8, 2])
@pytest.mark.parametrize("mode", ["evaluation", "evaluation with a gradient", "training"])
def test_norm_is_exact_whatever_the_mean(mode: str, groups: int) -> None:
    """In NHWC memory, too, where PyTorch's own group norm is off by a hundredth and more: value and gradient against
    float64.

    Maps: flat, flat but for a spot, a large mean, half and half, and a small one.
    """
    torch.manual_seed(0)
    norm = GroupNorm(8, groups).train(mode == "training")
    norm.weight.data.normal_(), norm.bias.data.normal_()
    level, noise = torch.randn(1, 8, 1, 1), torch.randn(1, 8, 96, 96)
    spot = level.expand(1, 8, 96, 96).clone()
    spot[..., 0, 0] += 3
    halves = torch.arange(96.0)[:, None].ge(48) * level * 2
    for x in (
        level.expand(1, 8, 96, 96) + 0.0,
        spot,
        noise + 300,
        halves.expand(1, 8, 96, 96),
        level * 30 + noise[..., :2, :2],
    ):
        grad = torch.randn(x.shape)
        results = []
        for dtype, layout in (
            (torch.float64, torch.contiguous_format),
            (torch.float32, torch.contiguous_format),
            (torch.float32, torch.channels_last),
        ):
            there = x.to(dtype).clone(memory_format=layout).requires_grad_(mode != "evaluation")
            with torch.set_grad_enabled(mode != "evaluation"):
                each = GroupNorm(8, groups).to(dtype).train(norm.training)
                each.load_state_dict(norm.state_dict())
                y = each.silu(there)
            if mode != "evaluation":
                y.backward(grad.to(dtype))
            assert y.is_contiguous(memory_format=layout)
            results.append([t.detach().double() for t in (y, there.grad) if t is not None])
        for truth, plain, found in zip(*results, strict=True):
            assert (found - truth).norm() <= 4 * (plain - truth).norm() + 2e-6 * truth.norm()


def test_memory_layout_changes_no_result() -> None:
    """NHWC and NCHW memory give the same values and gradients in training, to fp64 rounding."""
    vae, reference = (random_vae(VARIANTS["attention-everywhere"], torch.float64).train() for _ in range(2))
    vae.to(memory_format=torch.channels_last)
    images = random_images(ATTENTIVE, 8, 12, torch.float64)
    for model, x in ((vae, images.to(memory_format=torch.channels_last)), (reference, images)):
        recon, p = model(x)
        (recon.square().sum() + p.kl().sum()).backward()
    for p, q in zip(vae.parameters(), reference.parameters(), strict=True):
        assert_near(p.grad, q.grad, 1e-10, floor=1e-3 * reference.decoder.conv_out.weight.grad.abs().max().item())


def test_training_under_autocast_on_a_cpu() -> None:
    """bf16 autocast trains, and its gradients point where those of fp32 do."""
    vae = random_vae(ATTENTIVE).train()
    images = random_images(ATTENTIVE, 8, 12, torch.float32)
    gradients = []
    for enabled in (False, True):
        vae.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            recon, _ = vae(images)
        recon.float().square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in vae.parameters() if p.grad is not None]))
    assert F.cosine_similarity(*gradients, dim=0) > 0.99


@pytest.mark.parametrize("out_channels", [8, 16])
def test_residual_block_without_branch_is_its_shortcut(out_channels: int) -> None:
    """With the second convolution at zero, a block is the identity, or the 1x1 convolution where the widths differ."""
    block = ResBlock(8, out_channels, groups=4)
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)
    x = torch.rand(1, 8, 4, 4)
    assert torch.equal(
        block(x), x if out_channels == 8 else F.conv2d(x, block.conv_shortcut.weight, block.conv_shortcut.bias)
    )


def posterior(shape: tuple[int, ...] = (2, 8, 3, 4), scale: float = 1.0) -> vw.Posterior:
    return vw.Posterior((weights_like(torch.empty(shape, dtype=torch.float64), 4) * scale).requires_grad_())


def test_posterior_samples_have_its_mean_and_std() -> None:
    """Mean and standard deviation of 20,000 draws lie within 5 standard errors, for every element."""
    p = posterior((1, 8, 2, 2))
    n, generator = 20_000, torch.Generator().manual_seed(0)
    many = vw.Posterior(torch.cat([p.mean, p.logvar], 1).detach().expand(n, -1, -1, -1))
    draws = many.sample(generator)
    assert ((draws.mean(0) - p.mean[0]).abs() < 5 * p.std[0] / n**0.5).all()
    assert ((draws.std(0) - p.std[0]).abs() < 5 * p.std[0] / (2 * n) ** 0.5).all()


def test_reparameterization_gradient_is_analytic() -> None:
    """d sample / d mean is 1 and d sample / d logvar is noise * std / 2, element by element."""
    p = posterior()
    noise = weights_like(p.mean, 5)
    mean_grad, logvar_grad = torch.autograd.grad(p.sample(noise=noise).sum(), [p.mean, p.logvar])
    assert torch.equal(mean_grad, torch.ones_like(noise))
    assert_near(logvar_grad, (noise * p.std / 2).detach(), 1e-14)


def test_posterior_clamps_the_log_variance() -> None:
    """Log-variances beyond [-30, 20] are the bound and have no gradient; means are not touched."""
    moments = torch.tensor([1e3, -1e3, 5.0, -31.0, 21.0, 7.0]).reshape(1, 6, 1, 1).requires_grad_()
    p = vw.Posterior(moments)
    assert p.mean.flatten().tolist() == [1e3, -1e3, 5.0]
    assert p.logvar.flatten().tolist() == [-30.0, 20.0, 7.0]
    p.logvar.sum().backward()
    assert moments.grad.flatten().tolist() == [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]


def test_kl_equals_torch_distributions() -> None:
    """kl() is torch's divergence from the standard normal, and its mean in bits the bits per dimension."""
    p = posterior(scale=3.0)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(p.mean, p.std), torch.distributions.Normal(0.0, 1.0)
    )
    assert_near(p.kl(), expected, 1e-12)
    assert p.bits_per_dimension().item() == pytest.approx(expected.mean().item() / math.log(2), rel=1e-12)
    assert torch.equal(p.mode(), p.mean)
    assert_near(p.var, p.std.square(), 1e-12)


def test_sample_is_determined_by_generator_or_noise() -> None:
    """Equal generators give equal samples and another seed others; noise zero gives the mode, noise one a standard
    deviation more."""
    p = posterior()
    first, again, other = (p.sample(torch.Generator().manual_seed(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(p.sample(noise=torch.zeros_like(p.mean)), p.mode())
    assert torch.equal(p.sample(noise=torch.ones_like(p.mean)), p.mean + p.std)


def test_forward_is_decode_of_the_sample() -> None:
    """forward decodes mean + std * noise, or the mode without noise, and returns the same posterior as encode."""
    vae = random_vae(ATTENTIVE)
    images = random_images(ATTENTIVE, 8, 12, torch.float32)
    p = vae.encode(images)
    noise = weights_like(p.mean, 6)
    for given_noise, latents in ((noise, p.mean + p.std * noise), (None, p.mean)):
        recon, q = vae(images, given_noise)
        assert torch.equal(q.mean, p.mean)
        assert torch.equal(q.logvar, p.logvar)
        assert torch.equal(recon, vae.decode(latents))


@pytest.mark.parametrize(
    ("height", "width", "name", "value"), [(60, 64, "height", 60), (64, 70, "width", 70), (3, 8, "height", 3)]
)
def test_indivisible_size_is_refused(height: int, width: int, name: str, value: int) -> None:
    """A size that is no multiple of f is a ConfigError with the side, its value, f and the remedy, in one line."""
    vae = meta(FAMILY["small-f8c4"])
    with pytest.raises(vw.ConfigError, match=rf"{name} \(={value}\).*\(=8\).*pad=True") as caught:
        vae.encode(torch.zeros(1, 3, height, width, device="meta"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (1, 4, 8, 8), (3, 8, 8), (1, 3, 1, 8, 8), (1, 3, 0, 8)])
def test_wrong_image_shapes_are_refused(shape: tuple[int, ...]) -> None:
    """Images of other channels or dimensions, or without pixels, are a ConfigError in one line."""
    for pad in (False, True):
        with pytest.raises(vw.ConfigError, match=r"^[^\n]+$"):
            meta(ATTENTIVE).encode(torch.zeros(shape, device="meta"), pad=pad)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (4, 8, 8), (1, 16, 8, 8)])
def test_wrong_latent_shapes_are_refused(shape: tuple[int, ...]) -> None:
    """Latents of other channels or dimensions are a ConfigError that names the channels wanted."""
    with pytest.raises(vw.ConfigError, match=r"n 4 h w"):
        meta(ATTENTIVE).decode(torch.zeros(shape, device="meta"))


def test_another_precision_is_a_sentence() -> None:
    """Which, and how to convert it; autocast converts by itself."""
    vae = vw.build(TINY).eval()
    images = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    with pytest.raises(vw.ConfigError, match=r"images are float64 and the weights float32; .*images\.to\(vae\.dtype\)"):
        vae.encode(images)
    with pytest.raises(vw.ConfigError, match="latents are bfloat16 and the weights float32"):
        vae.decode(torch.zeros(1, 4, 4, 4, dtype=torch.bfloat16))
    with torch.autocast("cpu", torch.bfloat16):
        vae.decode(vae.encode(images.bfloat16()).mode().bfloat16())


def test_a_posterior_is_no_latents() -> None:
    vae = vw.build(TINY).eval()
    posterior = vae.encode(torch.zeros(1, 3, 8, 8))
    for call in (vae.normalize, vae.denormalize, vae.decode):
        with pytest.raises(vw.ConfigError, match=r"not Posterior; `encode\(images\)\.mode\(\)` gives them"):
            call(posterior)  # type: ignore[arg-type]


def test_pad_repeats_the_border() -> None:
    """encode(pad=True) equals encoding the image with its last row and column repeated, and changes nothing where not
    needed."""
    vae = random_vae(ATTENTIVE)
    images = random_images(ATTENTIVE, 7, 9, torch.float32)
    repeated = torch.cat([images, images[..., -1:, :]], 2)
    repeated = torch.cat([repeated, repeated[..., -1:]], 3)
    assert torch.equal(vae.encode(images, pad=True).mean, vae.encode(repeated).mean)
    assert torch.equal(vae.encode(repeated, pad=True).mean, vae.encode(repeated).mean)


def test_reconstruct_takes_any_size() -> None:
    """Every size from 1x1 to f+1 x f+1 comes back at its own size, within [-1,1], as the padded reconstruction
    cropped."""
    vae = random_vae(dataclasses.replace(ATTENTIVE, channel_mult=(1, 1, 1)))
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(10)  # so that the clamp has something to do
        for height in range(1, 6):
            for width in range(1, 6):
                images = random_images(ATTENTIVE, height, width, torch.float32, n=1)
                recon = vae.reconstruct(images)
                assert recon.shape == images.shape
                assert torch.equal(
                    recon, vae.decode(vae.encode(images, pad=True).mode())[..., :height, :width].clamp(-1, 1)
                )
                assert recon.abs().max() == 1


SCALAR = dataclasses.replace(ATTENTIVE, scaling_factor=0.3611, shift_factor=0.1159)
CHANNEL = dataclasses.replace(
    ATTENTIVE,
    normalization="channel",
    scaling_factor=0.5,
    shift_factor=9.0,
    latents_mean=(-1.6574, 1.886, -1.383, 2.5155),
    latents_std=(8.4927, 5.9022, 6.5498, 5.2299),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "config", [SCALAR, CHANNEL, dataclasses.replace(SCALAR, latents_mean=(9.0,) * 4, latents_std=(9.0,) * 4)]
)
def test_normalization_formulas(config: AutoencoderConfig, dtype: torch.dtype) -> None:
    """normalize is (x - shift) * scale, or (x - mean) / std * scale per channel only where so configured; denormalize
    undoes it."""
    vae = meta(config)
    latents = weights_like(torch.empty(2, 4, 3, 5, dtype=dtype), 7) * 5
    if config.normalization == "scalar":
        expected = torch.stack([(latents[:, c] - 0.1159) * 0.3611 for c in range(4)], 1)
    else:
        expected = torch.stack(
            [(latents[:, c] - config.latents_mean[c]) / config.latents_std[c] * 0.5 for c in range(4)], 1
        )
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    assert_near(vae.normalize(latents), expected, tolerance)
    assert_near(vae.denormalize(vae.normalize(latents)), latents, tolerance)
    assert_near(vae.normalize(vae.denormalize(latents)), latents, tolerance)


def gradients_and_kept_bytes(vae: vw.Autoencoder, images: Tensor) -> tuple[list[Tensor], int]:
    """Gradients of a loss, and the bytes of activations that autograd kept for them."""
    kept: dict[int, int] = {}
    own = {p.data_ptr() for p in vae.parameters()}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    vae.zero_grad()
    images = images.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        recon, p = vae(images, torch.ones(2, 4, images.shape[-2] // 2, images.shape[-1] // 2))
        loss = recon.square().mean() + p.kl().mean()
    loss.backward()
    return [images.grad, *(parameter.grad for parameter in vae.parameters())], sum(kept.values())


def test_gradient_checkpointing_changes_memory_only() -> None:
    """Recomputation gives bit-equal gradients and keeps less than half of the activations; in eval mode it does
    nothing."""
    vae = random_vae(dataclasses.replace(ATTENTIVE, num_res_blocks=2, attention_factors=(2,))).train()
    images = random_images(ATTENTIVE, 16, 24, torch.float32)
    plain, plain_bytes = gradients_and_kept_bytes(vae, images)
    _, evaluated_bytes = gradients_and_kept_bytes(vae.eval(), images)
    vae.set_gradient_checkpointing()
    assert gradients_and_kept_bytes(vae, images)[1] == evaluated_bytes
    recomputed, recomputed_bytes = gradients_and_kept_bytes(vae.train(), images)
    assert all(torch.equal(a, b) for a, b in zip(plain, recomputed, strict=True))
    assert recomputed_bytes < plain_bytes / 2
    vae.set_gradient_checkpointing(False)
    assert gradients_and_kept_bytes(vae, images)[1] == plain_bytes


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"in_channels": 0}, "in_channels"),
        ({"out_channels": 0}, "out_channels"),
        ({"latent_channels": 0}, "latent_channels"),
        ({"channels": -8}, "channels"),
        ({"num_res_blocks": 0}, "num_res_blocks"),
        ({"num_heads": 0}, "num_heads"),
        ({"norm_groups": 0}, "norm_groups"),
        ({"channel_mult": ()}, "channel_mult"),
        ({"channel_mult": (1, 0)}, "channel_mult"),
        ({"channel_mult": (1, 1.3)}, "whole numbers"),
        ({"decoder_channel_mult": (1, 2, 4)}, "decoder_channel_mult"),
        ({"norm_groups": 3}, "norm_groups=8 would fit"),
        ({"decoder_channels": 10}, "decoder width.*norm_groups=10 would fit"),
        ({"num_heads": 3}, "num_heads"),
        ({"attention_factors": (16,)}, r"attention_factors.*\[1, 2\]"),
        ({"attention_factors": (3,)}, "attention_factors"),
        ({"latents_mean": (0.0,)}, "latents_mean has 1 entries"),
        ({"latents_std": (1.0,) * 5}, "latents_std has 5 entries"),
        ({"normalization": "channel"}, "latents_mean and latents_std"),
        ({"normalization": "channel", "latents_mean": (0.0,) * 4}, "latents_mean and latents_std"),
        ({"scaling_factor": 0.0}, "scaling_factor"),
        ({"scaling_factor": math.inf}, "scaling_factor"),
        ({"scaling_factor": math.nan}, "scaling_factor"),
    ],
)
def test_impossible_configurations_are_refused(settings: dict, words: str) -> None:
    """A setting that breaks a rule is a ConfigError, in one line, that names it."""
    with pytest.raises(vw.ConfigError, match=words) as caught:
        dataclasses.replace(ATTENTIVE, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {
            "channels": 12,
            "channel_mult": (2, 4),
            "norm_groups": 8,
        },  # the first norm sees `channels`, not channels * channel_mult[0]
        {"decoder_channels": 0},
        {"decoder_channels": -8, "decoder_channel_mult": (-1, -2)},
        {"normalization": "channel", "latents_mean": (0.0,) * 4, "latents_std": (1.0, 1.0, 0.0, 1.0)},
        {"shift_factor": math.nan},
    ],
)
def test_configurations_that_cannot_work_are_refused(settings: dict) -> None:
    """A setting that would crash torch or give infinite latents is a ConfigError, not a crash later on."""
    with pytest.raises(vw.ConfigError):
        meta(dataclasses.replace(ATTENTIVE, **settings))


OTHERS: dict[str, object] = {
    "in_channels": 1,
    "out_channels": 1,
    "latent_channels": 8,
    "channels": 16,
    "channel_mult": (1, 1),
    "num_res_blocks": 2,
    "decoder_channels": 64,
    "decoder_channel_mult": (2, 2),
    "mid_attention": False,
    "attention_factors": (1,),
    "num_heads": 4,
    "quant_conv": False,
    "post_quant_conv": False,
    "norm_groups": 2,
    "norm_eps": 1e-5,
    "padding_mode": "reflect",
    "encoder_scale": 0.5,
    "decoder_scale": 0.5,
    "normalization": "batchnorm",
    "bottleneck": vw.config.BottleneckConfig(kind="point"),
}
"""Another value for each setting that a network is built with."""


@pytest.mark.parametrize("name", OTHERS)
def test_what_a_network_is_built_with_cannot_change(name: str) -> None:
    """A sentence with the rule, the value and what to do; nothing is changed, neither by the configuration nor by an
    attribute of that name."""
    vae = vw.build(ATTENTIVE)
    before = vae.config
    value = OTHERS[name]
    with pytest.raises(vw.ConfigError) as error:
        vae.config = dataclasses.replace(before, **{name: value})
    said = str(error.value)
    assert "cannot change after the network was built" in said and "\n" not in said and vae.config is before
    assert (f"vw.load(PATH, {name}=" in said) is (name in ("norm_groups", "norm_eps", "padding_mode", "num_heads"))
    with pytest.raises(vw.ConfigError, match=f"{name} is a setting of the configuration; vae.config = "):
        setattr(vae, name, value)
    if name in ("norm_groups", "norm_eps", "padding_mode", "num_heads"):
        with tempfile.TemporaryDirectory() as folder:
            vw.save(vae, Path(folder) / "a.safetensors", layout="ldm")
            with pytest.warns(UserWarning, match=f"was given and replaces it|{name}"):
                read = vw.load(
                    Path(folder) / "a.safetensors",
                    **{n: getattr(before, n) for n in vw.config.OPEN[1:5]} | {name: value},
                )
        assert getattr(read.config, name) == value


def test_facts_about_latents_can_change() -> None:
    """Every setting is one or the other; a fact takes effect at once, and a copy's does not touch the original."""
    vae = vw.build(ATTENTIVE)
    fields = {field.name for field in dataclasses.fields(AutoencoderConfig)}
    assert set(OTHERS) - {"normalization"} | set(vw.config.FACTS) == fields
    shared = copy.copy(vae)
    c = vae.latent_channels
    shared.config = dataclasses.replace(vae.config, scaling_factor=0.5, shift_factor=1.0)
    z = torch.randn(1, c, 4, 4)
    assert torch.equal(shared.normalize(z), (z - 1) * 0.5) and torch.equal(vae.normalize(z), z)
    facts = {"latents_mean": (1.0,) * c, "latents_std": (2.0,) * c, "normalization": "channel", "latents_patch": 2}
    shared.config = dataclasses.replace(vae.config, **facts)
    assert torch.equal(shared.normalize(z), (F.pixel_unshuffle(z, 2) - 1) / 2)


def test_statistics_of_a_batch_cannot_come_or_change_their_size() -> None:
    """They are a layer."""
    vae = vw.build(dataclasses.replace(TINY, normalization="batchnorm", latents_patch=2))
    for changes in ({"normalization": "scalar"}, {"latents_patch": 1}):
        with pytest.raises(vw.ConfigError, match="cannot change after the network was built"):
            vae.config = dataclasses.replace(vae.config, **changes)
    vae.config = dataclasses.replace(vae.config, latents_norm_eps=1e-2)


def test_a_configuration_of_another_family_is_refused() -> None:
    with pytest.raises(
        vw.ConfigError, match="its kind, AutoencoderConfig, and cannot become TinyConfig; build another"
    ):
        vw.build(TINY).config = TinyConfig()


def test_build_names_the_nearest_model() -> None:
    """An unknown name is a ConfigError with a suggestion; overrides change a known one."""
    with pytest.raises(vw.ConfigError, match="did you mean 'flux1'"):
        vw.build("flux.1")
    with torch.device("meta"):
        assert vw.build("sd1", latent_channels=16).config == AutoencoderConfig(
            scaling_factor=0.18215, latent_channels=16
        )


@st.composite
def configs(draw: st.DrawFn) -> AutoencoderConfig:
    """Small configurations from the whole space."""
    levels = draw(st.integers(1, 3))
    mult = st.tuples(*[st.sampled_from([1, 1.5, 2, 3])] * levels)
    c = draw(st.integers(1, 5))
    values = st.floats(-4, 4, allow_nan=False)
    measured = draw(st.booleans())
    return AutoencoderConfig(
        in_channels=draw(st.integers(1, 4)),
        out_channels=draw(st.integers(1, 4)),
        latent_channels=c,
        channels=draw(st.sampled_from([4, 8])),
        channel_mult=draw(mult),
        num_res_blocks=draw(st.integers(1, 2)),
        decoder_channels=draw(st.sampled_from([None, 4, 8])),
        decoder_channel_mult=draw(st.none() | mult),
        mid_attention=draw(st.booleans()),
        attention_factors=tuple(sorted(draw(st.sets(st.sampled_from([2**i for i in range(levels)]))))),
        num_heads=draw(st.sampled_from([1, 2])),
        quant_conv=draw(st.booleans()),
        post_quant_conv=draw(st.booleans()),
        norm_groups=draw(st.sampled_from([1, 2])),
        norm_eps=draw(st.sampled_from([1e-6, 1e-5])),
        scaling_factor=draw(st.floats(0.01, 10)),
        shift_factor=draw(values),
        latents_mean=tuple(draw(st.lists(values, min_size=c, max_size=c))) if measured else None,
        latents_std=tuple(draw(st.lists(st.floats(0.1, 9), min_size=c, max_size=c))) if measured else None,
        normalization=draw(st.sampled_from(["scalar", "channel"])) if measured else "scalar",
    )


@settings(max_examples=12)
@given(config=configs(), rows=st.integers(1, 3), columns=st.integers(1, 3))
def test_any_configuration_works_and_survives_a_file(config: AutoencoderConfig, rows: int, columns: int) -> None:
    """Shapes are as documented, and native and LDM files give back the configuration and every bit of the weights."""
    vae = random_vae(config)
    f = config.downsample_factor
    with torch.no_grad():
        latents = vae.encode(torch.zeros(2, config.in_channels, rows * f, columns * f)).mode()
        assert latents.shape == (2, config.latent_channels, rows, columns)
        assert vae.decode(latents).shape == (2, config.out_channels, rows * f, columns * f)
    with tempfile.TemporaryDirectory() as folder:
        for layout in ("native", "ldm"):
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # of what LDM's readers assume
                vw.save(vae, Path(folder, layout), layout)
            loaded = vw.load(Path(folder, layout))
            assert loaded.config == config
            assert not loaded.training
            assert loaded.state_dict().keys() == vae.state_dict().keys()
            assert all(torch.equal(t, vae.state_dict()[name]) for name, t in loaded.state_dict().items())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [False, True])
def test_a_group_of_one_number_is_its_bias(memory_format: torch.memory_format, training: bool) -> None:
    """The smallest picture of a network with a group for each channel, which PyTorch's function refuses; what is left
    is rounding."""
    norm = GroupNorm(8, 8).train(training)
    with torch.no_grad():
        norm.bias.copy_(torch.arange(8.0))
    for grad in (False, True):
        x = torch.randn(1, 8, 1, 1, requires_grad=grad).contiguous(memory_format=memory_format)
        torch.testing.assert_close(norm(x).flatten(), norm.bias, atol=1e-3, rtol=0)
        torch.testing.assert_close(norm.silu(x).flatten(), F.silu(norm.bias), atol=1e-3, rtol=0)
