"""The discriminators: published sizes, what they see, what they accept, how they begin, and that they can learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.losses.adversarial import accuracy, discriminator_objective
from vaeworks.models.discriminators import (
    DISCRIMINATORS,
    ModernPatchDiscriminator,
    PatchDiscriminator,
    ProjectedDiscriminator,
    ResidualDiscriminator,
    UNetDiscriminator,
)
from vaeworks.models.discriminators.layers import BlurPool
from vaeworks.models.discriminators.residual import GroupedBlock


class Features(nn.Module):
    """A stand-in for a pretrained network: three maps, largest first, with BatchNorm to tell modes apart."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 24, 32)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in pairwise(widths)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            maps.append(x := stage(x))
        return maps


SMALL: dict[str, Callable[[], nn.Module]] = {
    "patch": lambda: PatchDiscriminator(channels=8),
    "modern": lambda: ModernPatchDiscriminator(channels=8),
    "modern-plain": lambda: ModernPatchDiscriminator(channels=8, norm="none"),
    "modern-spectral": lambda: ModernPatchDiscriminator(channels=8, norm="none", spectral=True),
    "residual": lambda: ResidualDiscriminator(channels=8, num_layers=2, group_size=8),
    "unet": lambda: UNetDiscriminator(channels=8),
    "projected": lambda: ProjectedDiscriminator(Features(), (16, 24, 32), width=16, least_size=8),
}


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    return SMALL[name]()


def images(n: int, height: int, width: int | None = None, seed: int = 1) -> Tensor:
    return torch.rand(n, 3, height, width or height, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def maps(logits: Tensor | list[Tensor]) -> list[Tensor]:
    return [logits] if isinstance(logits, Tensor) else logits


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# ---------------------------------------------------------------- PatchGAN as published


def test_patchgan_has_its_published_size() -> None:
    """4x4 kernels 3-64-128-256-512-1, a bias at both ends, scale and shift of BatchNorm between: 2,765,633 numbers.

    The 2,764,737 that pix2pix and CycleGAN print are of InstanceNorm, whose convolutions have biases and whose norms
    nothing.
    """
    kernels = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512)
    ends, norms = 64 + 1, 2 * (128 + 256 + 512)
    assert parameters(PatchDiscriminator()) == kernels + ends + norms == 2_765_633
    assert kernels + ends + norms // 2 == 2_764_737


def test_patchgan_has_its_published_layers() -> None:
    """Numbers and shapes of the layers are those of the files that latent diffusion's training leaves behind."""
    found = {name: tuple(p.shape) for name, p in PatchDiscriminator().named_parameters()}
    assert found == {
        "layers.0.weight": (64, 3, 4, 4),
        "layers.0.bias": (64,),
        "layers.2.weight": (128, 64, 4, 4),
        "layers.3.weight": (128,),
        "layers.3.bias": (128,),
        "layers.5.weight": (256, 128, 4, 4),
        "layers.6.weight": (256,),
        "layers.6.bias": (256,),
        "layers.8.weight": (512, 256, 4, 4),
        "layers.9.weight": (512,),
        "layers.9.bias": (512,),
        "layers.11.weight": (1, 512, 4, 4),
        "layers.11.bias": (1,),
    }
    assert PatchDiscriminator()(images(1, 256)).shape == (1, 1, 30, 30)


def receptive_field(discriminator: nn.Module, size: int) -> int:
    """Side of the square of pixels that the middle logit depends on, with weights and inputs that hide nothing."""
    discriminator = discriminator.double().eval()
    with torch.no_grad():
        for p in discriminator.parameters():
            p.fill_(0.01 if p.ndim > 1 else 1.0)
    x = torch.ones(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    logits = discriminator(x)
    middle = logits.shape[-1] // 2
    logits[0, 0, middle, middle].backward()
    assert x.grad is not None
    rows = x.grad[0, 0].abs().amax(1).nonzero()
    return int(rows.max() - rows.min()) + 1


@pytest.mark.parametrize(
    "kind", [PatchDiscriminator, lambda **k: ModernPatchDiscriminator(norm="none", **k)], ids=["patch", "modern"]
)
def test_both_patch_discriminators_see_70_pixels(kind: Callable) -> None:
    """The published receptive field, and the same for the one that is compared with it."""
    assert receptive_field(kind(channels=2), 256) == 70


def test_patchgan_begins_as_published() -> None:
    """Convolutions N(0, 0.02), scales of normalization N(1, 0.02), no shift."""
    torch.manual_seed(0)
    for name, p in PatchDiscriminator().named_parameters():
        if p.ndim == 4:
            assert p.std().item() == pytest.approx(0.02, rel=0.05), name
        elif name.endswith("weight"):
            assert p.mean().item() == pytest.approx(1.0, abs=0.01) and p.std().item() == pytest.approx(0.02, rel=0.3)
        elif name not in ("layers.0.bias", "layers.11.bias"):
            assert not p.any()


# ---------------------------------------------------------------- what all of them do


def test_every_kind_is_tested() -> None:
    assert {type(small(name)) for name in SMALL} == set(DISCRIMINATORS.values())


@pytest.mark.parametrize("name", SMALL)
def test_sizes(name: str) -> None:
    """From the least size on, any height and width; one below is a ConfigError in one line with the least size."""
    discriminator = small(name).train()
    least = discriminator.least_size
    for height, width in ((least, least), (least + 1, least + 3), (32, 64), (47, 33)):
        for logits in maps(discriminator(images(2, height, width))):
            assert logits.shape[:2] == (2, 1) and min(logits.shape[2:]) >= 1
            assert logits.isfinite().all()
    for height, width in ((least - 1, 64), (64, least - 1)):
        with pytest.raises(vw.ConfigError, match=f"at least {least}x{least}") as error:
            discriminator(images(2, height, width))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", SMALL)
def test_least_size_is_the_least(name: str) -> None:
    """Not larger than it has to be: below it, the network could not compute (the projected one takes the caller's
    word)."""
    if name == "projected":
        return
    discriminator = small(name).train()
    least, discriminator.least_size = discriminator.least_size, 1
    with pytest.raises(RuntimeError):
        discriminator(images(2, least - 1))


@pytest.mark.parametrize("name", SMALL)
def test_images_are_judged_one_by_one(name: str) -> None:
    """Logits do not depend on the rest of the batch; only PatchGAN's BatchNorm makes them."""
    discriminator = small(name).train()
    x = images(4, 32)
    discriminator(x)  # spectral norm's vectors settle
    with torch.no_grad():
        discriminator.eval() if "spectral" in name or name in ("unet", "projected") else None
        whole, part = maps(discriminator(x)), maps(discriminator(x[:2]))
    same = all(torch.allclose(w[:2], p, atol=1e-5) for w, p in zip(whole, part, strict=True))
    assert same == (name != "patch")


@pytest.mark.parametrize("name", SMALL)
def test_half_precision_and_nhwc(name: str) -> None:
    """bf16 autocast and channels_last give the same logits, up to rounding; weights stay fp32."""
    discriminator = small(name).eval()
    x = images(2, 32)
    with torch.no_grad():
        reference = maps(discriminator(x))
        nhwc = maps(discriminator(x.contiguous(memory_format=torch.channels_last)))
        with torch.autocast("cpu", torch.bfloat16):
            half = maps(discriminator(x))
    for a, b, c in zip(reference, nhwc, half, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(c.float(), a, rtol=0.1, atol=0.05 * a.abs().max().item() + 1e-3)
    assert {p.dtype for p in discriminator.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", SMALL)
def test_it_can_learn(name: str) -> None:
    """Forty steps are enough to tell noise from the same noise made smooth; weights and nothing else are what
    learned."""
    discriminator = small(name).train()
    lr = 1e-2 if name == "projected" else 2e-3  # random features tell less
    optimizer = torch.optim.Adam([p for p in discriminator.parameters() if p.requires_grad], lr=lr, betas=(0.5, 0.9))
    for step in range(40):
        real = images(8, 32, seed=step)
        loss, terms = discriminator_objective(discriminator, real, F.avg_pool2d(real, 7, 1, 3), "hinge")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert terms["accuracy_real"] > 0.9 and terms["accuracy_fake"] > 0.9


@pytest.mark.parametrize("name", SMALL)
def test_saved_and_loaded_it_judges_the_same(name: str) -> None:
    """Everything random in it is in its state_dict (the projected one's feature network is not its own)."""
    first = small(name).eval()
    torch.manual_seed(1)
    second = SMALL[name]().eval()
    if isinstance(first, ProjectedDiscriminator) and isinstance(second, ProjectedDiscriminator):
        second._features = first._features
    x = images(1, 32)
    assert not torch.equal(maps(first(x))[-1], maps(second(x))[-1])
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(maps(first(x)), maps(second(x)), strict=True))


# ---------------------------------------------------------------- the parts


@pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 2, 1)])
def test_halving_does_not_alias(taps: tuple[int, ...]) -> None:
    """Constants stay, the finest stripes vanish; taking every other pixel keeps them, as a constant that was not
    there."""
    pool = BlurPool(2, taps)
    stripes = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 2, 16, 16)
    torch.testing.assert_close(pool(torch.ones(1, 2, 16, 16)), torch.ones(1, 2, 8, 8))
    assert pool(stripes).abs().max() < 1e-6
    assert stripes[..., ::2, ::2].abs().min() == 1.0
    assert not pool.state_dict()


def test_residual_blocks_begin_as_the_identity_and_learn() -> None:
    """The last layer of each branch is zero, and has a gradient."""
    discriminator = ResidualDiscriminator(channels=16)
    x = torch.randn(2, 16, 8, 8)
    blocks = [m for m in discriminator.modules() if isinstance(m, GroupedBlock)]
    assert torch.equal(blocks[0](x), x)
    discriminator(images(2, 32)).sum().backward()
    assert all(block.project.weight.grad is not None and block.project.weight.grad.any() for block in blocks)


@pytest.mark.parametrize("num_blocks", [1, 4])
def test_fixup_scales_with_depth(num_blocks: int) -> None:
    """With L branches of three layers, the two inner ones have He's deviation for a leaky ReLU times L^(-1/4)."""
    torch.manual_seed(0)
    discriminator = ResidualDiscriminator(channels=32, num_blocks=num_blocks)
    blocks = [m for m in discriminator.modules() if isinstance(m, GroupedBlock)]
    assert len(blocks) == 4 * num_blocks
    for block in blocks:
        for layer in (block.expand, block.grouped):
            he = math.sqrt(2 / 1.04 / layer.weight[0].numel())
            assert layer.weight.std().item() == pytest.approx(he * len(blocks) ** -0.25, rel=0.1)
        assert block.grouped.groups * 16 == block.grouped.in_channels


def test_deep_residual_discriminators_stay_calm() -> None:
    """After a step of every branch the same size, logits of 4 and of 32 blocks do not differ by orders of magnitude."""
    spreads = []
    for num_blocks in (1, 8):
        torch.manual_seed(0)
        discriminator = ResidualDiscriminator(channels=16, num_blocks=num_blocks)
        with torch.no_grad():
            for block in (m for m in discriminator.modules() if isinstance(m, GroupedBlock)):
                block.project.weight.normal_(0, block.project.in_channels**-0.5)
            spreads.append(discriminator(images(8, 64)).std().item())
    assert spreads[1] < 10 * spreads[0]


def test_group_size_must_fit() -> None:
    with pytest.raises(vw.ConfigError, match="multiple of group_size"):
        ResidualDiscriminator(channels=4, group_size=16)


def test_unet_judges_the_image_and_every_pixel() -> None:
    """One logit, and a map as large as the image whose every pixel follows its own pixel first."""
    discriminator, x = small("unet").eval(), images(1, 32, 48)
    whole, pixels = discriminator(x)
    assert whole.shape == (1, 1, 1, 1) and pixels.shape == (1, 1, 32, 48)
    for y, column in ((5, 9), (6, 9), (13, 30)):
        changed = x.clone()
        changed[:, :, y, column] += 1
        effect = (discriminator(changed)[1] - pixels).square()[0, 0]
        assert effect[y - 2 : y + 3, column - 2 : column + 3].sum() > 0.9 * effect.sum()


def test_spectral_norm_bounds_the_layers() -> None:
    """After some forward passes, no layer's largest singular value is above one."""
    discriminator = small("modern-spectral").train()
    with torch.no_grad():
        for _ in range(30):
            discriminator(images(1, 16))
    for m in discriminator.modules():
        if isinstance(m, nn.Conv2d):
            assert torch.linalg.matrix_norm(m.weight.detach().flatten(1), 2) <= 1.02


# ---------------------------------------------------------------- projected


def test_only_the_heads_are_trained() -> None:
    """The feature network stays as it was through training, in evaluation mode, and in neither parameters nor state."""
    features = Features()
    discriminator = ProjectedDiscriminator(features, (16, 24, 32), width=8)
    before = {name: t.clone() for name, t in features.state_dict().items()}
    mixing = {name: t.clone() for name, t in discriminator.named_buffers() if name.startswith("mix")}
    assert all(name.startswith("heads.") for name, _ in discriminator.named_parameters())
    assert not any("stages" in name for name in discriminator.state_dict())
    optimizer = torch.optim.SGD(discriminator.parameters(), lr=0.1)
    for _ in range(3):
        loss, _ = discriminator_objective(discriminator.train(), images(2, 32), images(2, 32, seed=2), "hinge")
        loss.backward()
        optimizer.step()
    assert not features.training
    assert all(torch.equal(t, before[name]) for name, t in features.state_dict().items())
    assert mixing and all(torch.equal(t, mixing[name]) for name, t in discriminator.named_buffers() if name in mixing)
    assert not any(p.requires_grad or p.grad is not None for p in features.parameters())


def test_the_gradient_goes_through_the_features() -> None:
    """Frozen does not mean cut off: the images get a gradient, from every map."""
    x = images(1, 32).requires_grad_()
    for logits in small("projected")(x):
        (gradient,) = torch.autograd.grad(logits.sum(), x, retain_graph=True)
        assert gradient.any()


def test_the_features_follow_to_device_and_type() -> None:
    features = Features()
    discriminator = ProjectedDiscriminator(features, (16, 24, 32)).double()
    assert next(features.parameters()).dtype == torch.float64
    assert discriminator(images(1, 32).double())[0].dtype == torch.float64


def test_every_map_knows_of_the_smaller_ones() -> None:
    """Scales are mixed from the smallest map upwards: zeroing it changes all logits, zeroing the largest only its
    own."""
    torch.manual_seed(0)
    features = [torch.randn(1, 4, 8, 8), torch.randn(1, 4, 4, 4)]
    chosen = list(features)
    discriminator = ProjectedDiscriminator(lambda _: chosen, (4, 4), width=8).eval()
    x = images(1, 16)
    reference = discriminator(x)
    for i, changed in ((0, [True, False]), (1, [True, True])):
        chosen[:] = features
        chosen[i] = torch.zeros_like(features[i])
        assert [not torch.equal(a, b) for a, b in zip(discriminator(x), reference, strict=True)] == changed


def test_features_have_to_be_as_announced() -> None:
    with pytest.raises(vw.ConfigError, match=r"maps of \[16, 24, 32\] channels, not \[16, 24\]"):
        ProjectedDiscriminator(Features(), (16, 24))(images(1, 32))
    with pytest.raises(vw.ConfigError, match="at least one feature map"):
        ProjectedDiscriminator(Features(), ())


def test_accuracy_reads_maps() -> None:
    """Maps of any size count the same."""
    real = [torch.tensor([[[[1.0]]]]), torch.tensor([[[[-1.0, -1.0], [-1.0, 1.0]]]])]
    assert accuracy(real, real, "hinge")[0].item() == pytest.approx((1 + 0.25) / 2)
