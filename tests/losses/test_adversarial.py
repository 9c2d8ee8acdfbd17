"""Adversarial losses: values, who gets which gradient, penalties, LeCam, the adaptive weight; the known wrong ways have
to fail."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from loss_oracles import gradient_at, pulled_back
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.losses.adaptive import adaptive_weight
from vaeworks.losses.adversarial import (
    accuracy,
    discriminator_loss,
    discriminator_objective,
    frozen,
    generator_loss,
    generator_objective,
    gradient_penalty,
)
from vaeworks.losses.lecam import LeCam
from vaeworks.models.discriminators import (
    ModernPatchDiscriminator,
    PatchDiscriminator,
    ProjectedDiscriminator,
    ResidualDiscriminator,
    UNetDiscriminator,
)

KINDS = ("hinge", "vanilla", "least-squares", "relativistic")


class Little(nn.Module):
    """A little autoencoder: something, then a last convolution."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.SiLU(), nn.Conv2d(6, 6, 3, padding=1), nn.SiLU())
        self.out = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(x))


def judge(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return ModernPatchDiscriminator(channels=4, num_layers=2, norm="none")


def images(n: int = 4, size: int = 16, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


def grads(module: nn.Module) -> list[Tensor | None]:
    return [p.grad for p in module.parameters()]


# ---------------------------------------------------------------- values


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("kind", "discriminator", "generator"),
    [
        ("hinge", (1.5 + 0.25 + 0.0 + 3.0) / 4, (0.75 - 2.0) / 2),
        (
            "vanilla",
            (softplus(0.5) + softplus(-0.75) + softplus(-3.0) + softplus(2.0)) / 4,
            (softplus(0.75) + softplus(-2.0)) / 2,
        ),
        ("least-squares", (1.5**2 + 0.75**2 + 2.0**2 + 2.0**2) / 4, (1.75**2 + 1.0**2) / 4),
        (
            "relativistic",
            (softplus(-0.75 + 0.5) + softplus(2.0 - 3.0)) / 2,
            (softplus(-0.5 + 0.75) + softplus(3.0 - 2.0)) / 2,
        ),
    ],
)
def test_values_by_hand(kind: Any, discriminator: float, generator: float) -> None:
    """Two images with logits -0.5 and 3, their reconstructions with -0.75 and 2."""
    real, fake = torch.tensor([-0.5, 3.0]).view(2, 1, 1, 1), torch.tensor([-0.75, 2.0]).view(2, 1, 1, 1)
    assert discriminator_loss(real, fake, kind).item() == pytest.approx(discriminator)
    assert generator_loss(fake, kind, real).item() == pytest.approx(generator)
    assert discriminator_loss([real, real], [fake, fake], kind).item() == pytest.approx(discriminator)
    assert discriminator_loss(real.bfloat16(), fake.bfloat16(), kind).dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_the_two_sides_pull_apart(kind: Any) -> None:
    """The discriminator wants real up and fake down, the autoencoder wants fake up: never the same direction."""
    real, fake = torch.randn(8, 1, 2, 2, requires_grad=True), torch.randn(8, 1, 2, 2, requires_grad=True)
    up, down = torch.autograd.grad(discriminator_loss(real, fake, kind), (real, fake))
    (felt,) = torch.autograd.grad(generator_loss(fake, kind, real.detach()), fake)
    if kind == "least-squares":  # each pulls towards its label
        assert torch.equal(up.sign(), (real - 1).sign()) and torch.equal(felt.sign(), (fake - 1).sign())
    else:
        assert (up <= 0).all() and (down >= 0).all() and (felt < 0).all()


def test_relativistic_sees_differences_only() -> None:
    """The same constant on all logits changes neither loss, and each image is paired with its own reconstruction."""
    real, fake = torch.randn(8, 1, 2, 2), torch.randn(8, 1, 2, 2)
    for loss in (
        lambda r, f: discriminator_loss(r, f, "relativistic"),
        lambda r, f: generator_loss(f, "relativistic", r),
    ):
        torch.testing.assert_close(loss(real + 5, fake + 5), loss(real, fake))
        assert not torch.allclose(loss(real, fake.flip(0)), loss(real, fake))
    with pytest.raises(vw.ConfigError, match="needs the logits of the real images"):
        generator_loss(fake, "relativistic")


def test_maps_of_other_shapes_are_refused() -> None:
    """Broadcasting one logit against a map would be silent nonsense."""
    with pytest.raises(vw.ConfigError, match="must have one shape"):
        discriminator_loss(torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 2, 2), "hinge")


def test_accuracy() -> None:
    """Share of logits on the right side; of pairs in the right order for the relativistic loss; 0.5 is chance."""
    real, fake = torch.tensor([-1.0, 0.2, 0.7, 2.0]), torch.tensor([-2.0, 0.4, -1.0, -1.0])
    assert [a.item() for a in accuracy(real, fake, "hinge")] == [0.75, 0.75]
    assert [a.item() for a in accuracy(real, fake, "least-squares")] == [0.5, 1.0]
    assert [a.item() for a in accuracy(real, fake, "relativistic")] == [0.75, 0.75]
    assert [a.item() for a in accuracy(fake, fake, "relativistic")] == [0.5, 0.5]


# ---------------------------------------------------------------- who gets which gradient


def naive_discriminator_step(discriminator: nn.Module, x: Tensor, recon: Tensor) -> Tensor:
    """The known wrong way: the reconstruction is not detached."""
    return discriminator_loss(discriminator(x), discriminator(recon), "hinge")


def leaks_into_autoencoder(step: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> bool:
    autoencoder, x = Little(), images()
    discriminator = judge()
    step(discriminator, x, autoencoder(x)).backward()
    assert all(g is not None and g.any() for g in grads(discriminator)[:-1])
    return any(g is not None for g in grads(autoencoder))


def test_discriminator_step_leaves_the_autoencoder_alone() -> None:
    """Whatever the loss and the penalties; and the test sees it where it does not."""
    for kind in KINDS:
        for gamma in (0.0, 1.0):
            assert not leaks_into_autoencoder(
                lambda d, x, r, k=kind, g=gamma: discriminator_objective(d, x, r, k, r1=g, r2=g)[0]
            )
    assert leaks_into_autoencoder(naive_discriminator_step)


def naive_generator_step(discriminator: nn.Module, x: Tensor, recon: Tensor) -> Tensor:
    """The known wrong way: the discriminator's parameters are in the graph."""
    return generator_loss(discriminator(recon), "hinge")


def leaks_into_discriminator(step: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> bool:
    autoencoder, x = Little(), images()
    discriminator = judge()
    step(discriminator, x, autoencoder(x)).backward()
    assert all(g is not None and g.any() for g in grads(autoencoder))
    return any(g is not None for g in grads(discriminator))


def test_generator_step_leaves_the_discriminator_alone() -> None:
    """The autoencoder learns from it, it learns nothing; and the test sees it where it does not."""
    for kind in KINDS:
        assert not leaks_into_discriminator(lambda d, x, r, k=kind: generator_objective(d, x, r, k))
    assert leaks_into_discriminator(naive_generator_step)


@pytest.mark.parametrize("kind", KINDS)
def test_generator_step_has_the_gradient_of_its_loss(kind: Any) -> None:
    """Freezing changes nothing for the autoencoder: the gradient at the reconstruction is the naive one."""
    discriminator, x = judge(), images()
    recon = images(seed=2).requires_grad_()
    (expected,) = torch.autograd.grad(generator_loss(discriminator(recon), kind, discriminator(x).detach()), recon)
    (found,) = torch.autograd.grad(generator_objective(discriminator, x, recon, kind), recon)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_frozen_restores_what_was() -> None:
    """After it, also after an error, the trained are trained and those that never were are not."""
    discriminator = judge()
    first = next(discriminator.parameters())
    first.requires_grad_(False)
    before = [p.requires_grad for p in discriminator.parameters()]
    with frozen(discriminator):
        assert not any(p.requires_grad for p in discriminator.parameters())
    assert [p.requires_grad for p in discriminator.parameters()] == before
    with pytest.raises(ZeroDivisionError), frozen(discriminator), frozen(discriminator):
        raise ZeroDivisionError
    assert [p.requires_grad for p in discriminator.parameters()] == before


def test_real_and_reconstructed_go_in_separately() -> None:
    """PatchGAN's BatchNorm sees either images or reconstructions, never both in one batch."""
    batches: list[int] = []
    discriminator = PatchDiscriminator(channels=4)
    discriminator.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    discriminator_objective(discriminator, images(2, 32), images(2, 32), "hinge")
    assert batches == [2, 2]


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_micro_batches_add_up(gamma: float) -> None:
    """Loss, figures and gradient of a batch are the mean of those of its halves (where images are judged one by
    one)."""
    x, recon = images(4, dtype=torch.float64), images(4, seed=2, dtype=torch.float64)
    lecam = LeCam()
    lecam.update_(torch.tensor(0.3), torch.tensor(-0.2))

    def run(parts: int) -> tuple[dict[str, Tensor], list[Tensor | None]]:
        discriminator = judge().double()
        sums: dict[str, Tensor] = {}
        for a, b in zip(x.chunk(parts), recon.chunk(parts), strict=True):
            loss, terms = discriminator_objective(
                discriminator, a, b, "relativistic", r1=gamma, r2=gamma, lecam=lecam, lecam_weight=0.1
            )
            (loss / parts).backward()
            sums = {name: sums.get(name, 0) + value / parts for name, value in {**terms, "loss": loss.detach()}.items()}
        return sums, grads(discriminator)

    (whole, gradient), (halves, sum_of_gradients) = run(1), run(2)
    for name, value in whole.items():
        torch.testing.assert_close(halves[name], value, msg=name, check_dtype=False)
        assert not value.requires_grad
    torch.testing.assert_close(sum_of_gradients, gradient, check_dtype=False, rtol=1e-4, atol=1e-7)


# ---------------------------------------------------------------- gradient penalties


class Quadratic(nn.Module):
    """x^T A x / 2, one logit an image."""

    def __init__(self, a: Tensor) -> None:
        super().__init__()
        self.a = nn.Parameter(a)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return (flat @ self.a * flat).sum(1).view(-1, 1, 1, 1) / 2


def test_penalty_of_a_quadratic_discriminator() -> None:
    """With A symmetric, the gradient is Ax, the penalty E|Ax|^2, and its own gradient by A is that of the formula."""
    torch.manual_seed(0)
    a = torch.randn(12, 12, dtype=torch.float64)
    discriminator = Quadratic(a + a.T)
    x = images(3, 2, dtype=torch.float64).requires_grad_()
    penalty = gradient_penalty(discriminator(x), x)
    matrix = discriminator.a.detach().clone().requires_grad_()
    expected = (x.detach().flatten(1) @ ((matrix + matrix.T) / 2)).square().sum(1).mean()
    torch.testing.assert_close(penalty, expected)
    torch.testing.assert_close(torch.autograd.grad(penalty, discriminator.a), torch.autograd.grad(expected, matrix))


DOUBLE_BACKWARD: dict[str, Callable[[], nn.Module]] = {
    "patch": lambda: PatchDiscriminator(channels=4, num_layers=1),
    "modern": lambda: ModernPatchDiscriminator(channels=4, num_layers=1),
    "modern-spectral": lambda: ModernPatchDiscriminator(channels=4, num_layers=1, norm="none", spectral=True),
    "residual": lambda: ResidualDiscriminator(channels=4, num_layers=1, group_size=4),
    "unet": lambda: UNetDiscriminator(channels=4, num_layers=1),
    "projected": lambda: ProjectedDiscriminator(lambda x: [x.tanh(), F.avg_pool2d(x, 2).tanh()], (3, 3), width=4),
}


@pytest.mark.parametrize("name", DOUBLE_BACKWARD)
def test_penalties_against_finite_differences(name: str) -> None:
    """Along a random direction of the parameters, the penalty changes as its gradient says, for each kind of
    discriminator."""
    torch.manual_seed(0)
    discriminator = DOUBLE_BACKWARD[name]().double().eval()
    # Fixup's zeros would hide half of it
    weights = {
        n: (p + 0.1 * torch.randn_like(p)).detach().requires_grad_() for n, p in discriminator.named_parameters()
    }
    direction = {n: torch.randn_like(p) for n, p in weights.items()}
    x = images(2, 8, dtype=torch.float64)

    def penalty(step: float) -> Tensor:
        leaf = x.clone().requires_grad_()
        moved = {n: p + step * direction[n] for n, p in weights.items()}
        return gradient_penalty(torch.func.functional_call(discriminator, moved, (leaf,)), leaf)

    eps = 1e-6
    gradient = torch.autograd.grad(penalty(0.0), list(weights.values()), allow_unused=True)
    slope = sum((g * direction[n]).sum() for n, g in zip(weights, gradient, strict=True) if g is not None)
    assert slope.abs() > 1e-6
    torch.testing.assert_close(slope, (penalty(eps) - penalty(-eps)) / (2 * eps), rtol=1e-4, atol=1e-8)


def test_penalty_itself_against_finite_differences() -> None:
    """|gradient|^2 at the images, pixel by pixel."""
    discriminator = Quadratic(torch.randn(12, 12, dtype=torch.float64))
    x = images(1, 2, dtype=torch.float64)
    slopes = []
    for i in range(12):
        step = torch.zeros(12, dtype=torch.float64)
        step[i] = 1e-6
        slopes.append((discriminator(x + step.view_as(x)) - discriminator(x - step.view_as(x))).item() / 2e-6)
    leaf = x.requires_grad_()
    assert gradient_penalty(discriminator(leaf), leaf).item() == pytest.approx(sum(s * s for s in slopes), rel=1e-6)


def test_penalty_means_the_same_for_every_crop_size() -> None:
    """Four tiles of one picture side by side, judged in patches that do not overlap, have the penalty of one tile."""
    patches = nn.Conv2d(3, 1, 4, stride=4)
    tile = images(2, 8)
    values = []
    for x in (tile, tile.repeat(1, 1, 2, 2)):
        leaf = x.clone().requires_grad_()
        values.append(gradient_penalty(patches(leaf), leaf))
    torch.testing.assert_close(values[1], values[0])


def test_weights_of_the_penalties() -> None:
    """loss = adversarial + gamma/2 * penalty, R1 at the images and R2 at the reconstructions."""
    discriminator, x, recon = judge(), images(), images(seed=2) * 0.3
    plain, _ = discriminator_objective(discriminator, x, recon, "relativistic")
    loss, terms = discriminator_objective(discriminator, x, recon, "relativistic", r1=3.0, r2=5.0)
    torch.testing.assert_close(loss, plain + 1.5 * terms["r1"] + 2.5 * terms["r2"])
    for name, at in (("r1", x), ("r2", recon)):
        leaf = at.clone().requires_grad_()
        torch.testing.assert_close(terms[name], gradient_penalty(discriminator(leaf), leaf).detach())
    assert terms["r1"] > 0 and terms["r1"] != terms["r2"]


def test_penalties_are_computed_in_full_precision() -> None:
    """Under bf16 autocast they are those of fp32, to the last digit."""
    discriminator, x = judge(), images()
    _, expected = discriminator_objective(discriminator, x, x, "hinge", r1=1.0, r2=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        _, found = discriminator_objective(discriminator, x.bfloat16().float(), x, "hinge", r1=1.0, r2=1.0)
        assert discriminator(x).dtype == torch.bfloat16
    torch.testing.assert_close(found["r2"], expected["r2"], rtol=0, atol=0)


# ---------------------------------------------------------------- LeCam


def test_lecam_by_hand() -> None:
    """No anchor before the first step; then the first means; then 0.9 of them and 0.1 of the next."""
    lecam = LeCam(decay=0.9)
    real, fake = torch.tensor([2.0, 0.0]).view(2, 1, 1, 1), torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)
    lecam.update_(real.mean(), fake.mean())
    assert (lecam.real_anchor.item(), lecam.fake_anchor.item()) == (1.0, 0.0)
    # relu(real - 0)^2 = 4, 0; relu(1 - fake)^2 = 4, 0
    assert lecam(real, fake).item() == pytest.approx(2.0 + 2.0)
    lecam.update_(torch.tensor(3.0), torch.tensor(-2.0))
    assert lecam.real_anchor.item() == pytest.approx(1.2)
    assert lecam.fake_anchor.item() == pytest.approx(-0.2)
    assert lecam(real, fake).item() == pytest.approx((2.2**2 + 0.2**2) / 2 + (2.2**2 + 0.2**2) / 2)
    assert lecam([real, real], [fake, fake]).item() == pytest.approx(lecam(real, fake).item())


def test_lecam_pulls_logits_together_and_remembers() -> None:
    """Its gradient is against the discriminator's; anchors have none; state goes through a state_dict."""
    lecam = LeCam()
    lecam.update_(torch.tensor(1.0), torch.tensor(-1.0))
    real, fake = torch.full((2, 1, 1, 1), 2.0, requires_grad=True), torch.full((2, 1, 1, 1), -2.0, requires_grad=True)
    up, down = torch.autograd.grad(lecam(real, fake), (real, fake))
    assert (up > 0).all() and (down < 0).all()
    again = LeCam()
    again.load_state_dict(lecam.state_dict())
    assert again(real, fake).item() == lecam(real, fake).item()
    again.update_(torch.tensor(0.0), torch.tensor(0.0))
    assert again.real_anchor.item() == pytest.approx(0.999)
    assert not list(lecam.parameters())


# ---------------------------------------------------------------- the adaptive weight


def test_adaptive_weight_by_hand() -> None:
    """recon = w * x, losses 3 * mean and 0.5 * mean: gradients 3 mean(x) and 0.5 mean(x), the ratio 6 but for eps."""
    w, x = torch.tensor([2.0], requires_grad=True), torch.tensor([1.0, 3.0])
    recon = w * x
    weight = adaptive_weight(gradient_at(3 * recon.mean(), w), gradient_at(0.5 * recon.mean(), w))
    assert weight.item() == pytest.approx(6.0 / (1.0 + 1e-4))
    assert not weight.requires_grad


def test_adaptive_weight_is_bounded() -> None:
    """No adversarial gradient: the limit, not infinity; no reconstruction gradient: nothing."""
    one, nothing = torch.ones(3), torch.zeros(3)
    assert adaptive_weight(one, nothing).item() == 1e4
    assert adaptive_weight(0.1 * one, nothing).item() == pytest.approx(0.1 * math.sqrt(3) / 1e-4, rel=1e-5)
    assert adaptive_weight(nothing, one).item() == 0.0
    assert adaptive_weight(one, one, eps=0.0, limit=0.5).item() == 0.5
    assert adaptive_weight(one.bfloat16(), one.bfloat16()).dtype == torch.float32


@given(scale=st.floats(0.01, 100), share=st.floats(0.01, 100))
def test_adaptive_weight_is_a_ratio(scale: float, share: float) -> None:
    """A loss twice as large gets twice the weight, an adversary twice as strong half of it."""
    a, b = torch.tensor([3.0, 4.0]) * scale, torch.tensor([1.0, 0.0]) * share
    assert adaptive_weight(a, b).item() == pytest.approx(min(5 * scale / (share + 1e-4), 1e4), rel=1e-4)


def losses_of(autoencoder: nn.Module, discriminator: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    recon = autoencoder(x)
    return recon, (recon - x).abs().mean(), generator_objective(discriminator, x, recon, "hinge")


def test_pixel_gradients_are_the_short_way() -> None:
    """From pixel gradients, each loss network gone through once, come the same weight and the same step."""
    x, discriminator = images(), judge()
    autoencoder = Little()
    _, reconstruction, adversarial = losses_of(autoencoder, discriminator, x)
    weight = adaptive_weight(
        gradient_at(reconstruction, autoencoder.out.weight), gradient_at(adversarial, autoencoder.out.weight)
    )
    (reconstruction + 0.5 * weight * adversarial).backward()
    expected = [g.clone() for g in grads(autoencoder) if g is not None]

    autoencoder = Little()
    recon = autoencoder(x)
    leaf = recon.detach().requires_grad_()
    pixels = [
        torch.autograd.grad(loss, leaf)[0]
        for loss in ((leaf - x).abs().mean(), generator_objective(discriminator, x, leaf, "hinge"))
    ]
    short = adaptive_weight(*(pulled_back(recon, autoencoder.out.weight, g) for g in pixels))
    recon.backward(pixels[0] + 0.5 * short * pixels[1])
    torch.testing.assert_close(short, weight)
    torch.testing.assert_close([g for g in grads(autoencoder) if g is not None], expected)


def test_adaptive_weight_over_micro_batches() -> None:
    """Gradients added up by shares give the weight of the whole batch; a mean of the parts' weights does not."""
    x, discriminator, autoencoder = images(), judge(), Little()
    last = autoencoder.out.weight

    def gradients(part: Tensor) -> list[Tensor]:
        return [gradient_at(loss, last) for loss in losses_of(autoencoder, discriminator, part)[1:]]

    whole = adaptive_weight(*gradients(x))
    parts = [gradients(part) for part in x.split(1)]
    sums = [sum(g[i] for g in parts) / len(parts) for i in (0, 1)]
    torch.testing.assert_close(adaptive_weight(*sums), whole)
    assert not torch.allclose(torch.stack([adaptive_weight(*g) for g in parts]).mean(), whole, rtol=1e-3)


def test_adaptive_weight_in_mixed_precision() -> None:
    """bf16 autocast moves it by rounding only; gradients at fp32 weights are fp32."""
    x, discriminator, autoencoder = images(), judge(), Little()
    weights = []
    for on in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            _, reconstruction, adversarial = losses_of(autoencoder, discriminator, x)
        found = [gradient_at(loss, autoencoder.out.weight) for loss in (reconstruction, adversarial)]
        assert all(g.dtype == torch.float32 and not g.requires_grad for g in found)
        weights.append(adaptive_weight(*found))
    torch.testing.assert_close(weights[1], weights[0], rtol=0.1, atol=0)


def steps_across_the_start(autoencoder: nn.Module, last: Tensor) -> list[Tensor]:
    """A step without and two with the discriminator; the gradients of the last one."""
    x, discriminator = images(), judge()
    for adversarial_step in (False, True, True):
        autoencoder.zero_grad()
        _, reconstruction, adversarial = losses_of(autoencoder, discriminator, x)
        loss = reconstruction
        if adversarial_step:
            loss = (
                loss + adaptive_weight(gradient_at(reconstruction, last), gradient_at(adversarial, last)) * adversarial
            )
        loss.backward()
    return [g for g in grads(autoencoder) if g is not None]


def test_compiled_across_the_start() -> None:
    """With the last layer outside of what is compiled, the first adversarial step is as any other; inside, it
    crashes."""
    plain = Little()
    expected = steps_across_the_start(plain, plain.out.weight)
    autoencoder = Little()
    autoencoder.body.compile(backend="aot_eager")  # enough to get donated buffers, and quick
    torch.testing.assert_close(steps_across_the_start(autoencoder, autoencoder.out.weight), expected)
    whole = Little()
    whole.compile(backend="aot_eager")
    with pytest.raises(RuntimeError, match="donated"):
        steps_across_the_start(whole, whole.out.weight)


# ---------------------------------------------------------------- several processes


def one_step(
    autoencoder: nn.Module, discriminator: nn.Module, x: Tensor, inner: Little, judge_inside: nn.Module
) -> dict[str, Tensor]:
    """An autoencoder's and a discriminator's step; all gradients, the weight, and LeCam's anchors."""
    recon = autoencoder(x)
    reconstruction, adversarial = (recon - x).abs().mean(), generator_objective(judge_inside, x, recon, "relativistic")
    weight = adaptive_weight(*(gradient_at(loss, inner.out.weight) for loss in (reconstruction, adversarial)))
    (reconstruction + weight * adversarial).backward()
    lecam = LeCam()
    loss, terms = discriminator_objective(discriminator, x, recon, "relativistic", r1=0.5, r2=0.5, lecam=lecam)
    loss.backward()
    lecam.update_(terms["logit_real"], terms["logit_fake"])
    found = {"weight": weight, **lecam.state_dict()}
    for side, module in (("autoencoder", inner), ("discriminator", judge_inside)):
        found |= {f"{side}.{name}": p.grad for name, p in module.named_parameters() if p.grad is not None}
    return found


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    inner, judge_inside = Little(), judge()
    wrapped = [nn.parallel.DistributedDataParallel(m, broadcast_buffers=False) for m in (inner, judge_inside)]
    torch.save(one_step(*wrapped, images()[2 * rank : 2 * rank + 2], inner, judge_inside), f"{folder}/{rank}.pt")
    torch.distributed.barrier()  # nobody leaves while another still listens
    os._exit(0)  # gloo's threads sometimes abort the process where Python ends it


def test_two_processes_are_one(tmp_path: Path) -> None:
    """Two processes with half a batch each: the same adaptive weight, gradients of both networks, and anchors as one
    process."""
    torch.multiprocessing.spawn(process, (str(tmp_path),), nprocs=2)
    inner, judge_inside = Little(), judge()
    expected = one_step(inner, judge_inside, images(), inner, judge_inside)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)
