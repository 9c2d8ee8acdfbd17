"""The trainer's regularizers, alignment, learned variances and normalizations: what they are in the loss, and what they
do."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from configs import MODERN, SHORT
from runs import assert_same_run, make_images, random_batch, started
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.config import (
    AdversarialConfig,
    AutoencoderConfig,
    BottleneckConfig,
    FinetuneConfig,
    LossConfig,
    OptimizerConfig,
    RegularizerConfig,
    TrainConfig,
)
from vaeworks.data import Crops, scan
from vaeworks.features.backbones import load_backbone
from vaeworks.images import to_model_range
from vaeworks.losses.equivariance import Transform
from vaeworks.losses.perceptual import distance_without_weights
from vaeworks.losses.regularize import (
    cosine_alignment,
    distance_alignment,
    envelope,
    variance_expansion,
    variance_floor,
)
from vaeworks.losses.spectrum import lowpass, spectral_divergence
from vaeworks.models import Autoencoder
from vaeworks.random_streams import latent_noise
from vaeworks.training import loop, measure_latents, train
from vaeworks.training.augmentation import StepAugmentation, draw_augmentation
from vaeworks.training.gan.balance_state import StepPlan
from vaeworks.training.monitor.log import read_log
from vaeworks.training.run.init import initial_discriminator, load_frozen
from vaeworks.training.state import TrainState
from vaeworks.training.step import StepResult, smallest, training_step

MODEL = AutoencoderConfig(
    channels=8,
    channel_mult=(1, 2),
    num_res_blocks=1,
    norm_groups=4,
    mid_attention=False,
    quant_conv=False,
    post_quant_conv=False,
)
PLAIN = dataclasses.replace(
    SHORT,
    model=MODEL,
    data=dataclasses.replace(SHORT.data, size=16),
    channels_last=False,
    ema_halflife=0,
    optimizer=OptimizerConfig(lr=4e-3, warmup_images=0, final_lr=1.0, clip_norm=0.0),
)
FELT = StepPlan("adversarial", train_discriminator=True, weight=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data") / "images")


def using(config: TrainConfig = PLAIN, **regularizers: Any) -> TrainConfig:
    return dataclasses.replace(config, regularizers=RegularizerConfig(**regularizers))


class Colours(nn.Module):
    """A frozen network of 4 channels at a quarter of the size, which says how small images may be."""

    smallest = 4

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.conv = nn.Conv2d(3, 4, 4, stride=4)
            self.norm = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images)).tanh()


def aligned(config: TrainConfig, **frozen: Any) -> TrainState:
    return started(config, features=load_backbone(Colours(), None, 2), feature_channels=4, **frozen)


def still(t: TrainState) -> TrainState:
    """What makes steps that move nothing, so that their gradients can be looked at."""
    t.optimizer = torch.optim.SGD(t.learner.parameters(), lr=0.0)
    return t


def first_with(config: TrainConfig, wanted: Callable[[StepAugmentation], bool]) -> int:
    """A counter whose step draws this."""
    size, f = config.data.size, config.model.downsample_factor
    return next(k for k in range(10_000) if wanted(draw_augmentation(config.regularizers, config.seed, k, size, f, f)))


# ---------------------------------------------------------------- in the loss


EVERYTHING = {
    "spectrum": 0.02, "variance_expansion": 0.001, "envelope": 0.03, "variance_floor": 0.4, "alignment": 0.7,
    "alignment_margins": (0.1, 0.05),
}  # fmt: skip
"""What may be asked of latents at once, each with a weight of its own."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A kind of step."""

    config: TrainConfig
    drawn: Callable[[StepAugmentation], bool]


ALIKE = using(equivariance=0.5, equivariance_prior=0.5, **EVERYTHING)
CASES = {
    "ordinary": Case(using(**EVERYTHING), lambda d: True),
    "adaptive off": Case(using(**EVERYTHING, alignment_adaptive=False), lambda d: True),
    "latents transformed": Case(
        ALIKE, lambda d: d.where == "latents" and d.transform.scale < 0.8 and d.transform.quarter_turns == 1
    ),
    "images transformed": Case(ALIKE, lambda d: d.where == "images" and d.transform.scale < 0.8),
    "lowpass": Case(using(lowpass=0.75, **EVERYTHING), lambda d: d.cut == 10),
    "half": Case(using(scale_equivariance=0.25, **EVERYTHING), lambda d: d.shrink == 2),
    "quarter": Case(using(scale_equivariance=0.25, **EVERYTHING), lambda d: d.shrink == 4),
}


def resized(x: Tensor, scale: float, multiple: int) -> Tensor:
    size = round(x.shape[-1] // multiple * scale) * multiple
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)


def naive_loss(
    t: TrainState, config: TrainConfig, draw: StepAugmentation, first: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss from its definition, and its terms: one graph, one pass."""
    regularizers, f, images = config.regularizers, config.model.downsample_factor, to_model_range(random_batch(8, 16))
    if draw.where == "images":
        images = resized(images, draw.transform.scale, f)
    target = images
    posterior = t.autoencoder.encode(images)
    noise = latent_noise(config.seed, list(range(first, first + 8)), tuple(posterior.mean.shape[1:]))
    z = posterior.mean + posterior.std * noise
    given = z
    if draw.where == "latents":
        given = torch.rot90(resized(z, draw.transform.scale, 1), draw.transform.quarter_turns, (-2, -1))
        target = torch.rot90(resized(images, draw.transform.scale, f), draw.transform.quarter_turns, (-2, -1))
    if draw.cut:
        given, target = lowpass(z, draw.cut), lowpass(images, draw.cut)
    recon = t.autoencoder.decode(given)
    distance = (recon - target).abs().mean()
    if t.perceptual is not None:
        distance = distance + config.loss.perceptual_weight * t.perceptual(recon, target)
    features = t.features(images)[-1]
    terms = {
        "kl": posterior.kl().mean(),
        "spectrum": spectral_divergence(z, images),
        "envelope": envelope(z),
        "variance_expansion": variance_expansion(posterior.var),
        "variance_floor": variance_floor(posterior.mean),
        "alignment": cosine_alignment(t.learner.projection(z), features, 0.1) + distance_alignment(z, features, 0.05),
    }
    if draw.shrink:
        small = t.autoencoder.decode(resized(z, 1 / draw.shrink, 1))
        terms["scale_equivariance"] = (small - resized(images, 1 / draw.shrink, f)).abs().mean()
    weight = torch.ones(())
    if regularizers.alignment_adaptive:
        norms = [torch.autograd.grad(loss, z, retain_graph=True)[0].norm() for loss in (distance, terms["alignment"])]
        weight = (norms[0] / (norms[1] + 1e-4)).detach()
    weights = {name: getattr(regularizers, name) for name in terms if name != "kl"} | {"kl": config.loss.beta}
    weights["alignment"] *= weight
    return distance + sum(weights[name] * term for name, term in terms.items()), terms | {"alignment_weight": weight}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("perceptual", [False, True])
def test_the_step_is_that_of_the_definition(name: str, perceptual: bool) -> None:
    """Terms, loss and every weight's gradient, against the loss written down at once; the frozen network has no part in
    it."""
    case = CASES[name]
    loss = LossConfig(beta=0.01, perceptual="without-weights" if perceptual else "none", perceptual_weight=0.6)
    config = dataclasses.replace(case.config, loss=loss)
    t = still(aligned(config, perceptual=distance_without_weights if perceptual else None))
    naive = copy.deepcopy(t)
    frozen = {n: p.clone() for n, p in t.features.state_dict().items()}
    least = smallest(t)
    first = next(
        k
        for k in range(0, 10_000, 8)
        if case.drawn(draw_augmentation(config.regularizers, config.seed, k, 16, least, 2))
    )
    draw = draw_augmentation(config.regularizers, config.seed, first, 16, least, 2)
    result = training_step(t, random_batch(8, 16), list(range(first, first + 8)))
    loss_value, terms = naive_loss(naive, config, draw, first)
    loss_value.backward()
    assert result.loss == pytest.approx(loss_value.item(), rel=1e-4)
    figures = result.others | {"kl": result.kl}
    assert {n: figures[n] for n in terms} == pytest.approx({n: v.item() for n, v in terms.items()}, rel=1e-3, abs=1e-6)
    for (n, p), q in zip(t.learner.named_parameters(), naive.learner.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=2e-3, atol=1e-5, msg=n)
    assert all(torch.equal(p, frozen[n]) for n, p in t.features.state_dict().items())
    assert all(p.grad is None for p in t.features.parameters())


@pytest.mark.parametrize("name", [n for n in EVERYTHING if n != "alignment_margins"])
def test_each_has_a_gradient_at_the_encoder(name: str) -> None:
    """Alone and without a KL term it moves the encoder's gradient, and is in the log by its name."""
    grads = []
    for weight in (0.0, 1.0):
        config = dataclasses.replace(using(**{name: weight}), loss=LossConfig(beta=0.0))
        t = still(aligned(config) if name == "alignment" and weight else started(config))
        result = training_step(t, random_batch(8, 16), list(range(8)))
        assert (name in result.others) == bool(weight)
        grads.append(t.autoencoder.encoder.conv_in.weight.grad)
    assert (grads[1] - grads[0]).norm() > 1e-4 * grads[0].norm()


def test_the_projection_is_a_function_of_the_seed() -> None:
    """Whatever chance has done before: equal seeds are equal runs."""
    found = []
    for state, seed in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(state)
        found.append(aligned(dataclasses.replace(using(alignment=0.1), seed=seed)).learner.projection.weight)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize("change", [{"gradient_checkpointing": True}, {"precision": "bf16"}, {"channels_last": True}])
def test_all_of_it_in_other_ways_of_computing(change: dict[str, Any]) -> None:
    """Recomputed activations give the same gradients, half precision about the same loss; a second pass back goes
    through both."""
    case = using(equivariance=0.5, **EVERYTHING)
    plain, other = (still(aligned(config)) for config in (case, dataclasses.replace(case, **change)))
    first = first_with(case, lambda d: d.where == "latents")
    a, b = (training_step(t, random_batch(8, 16), list(range(first, first + 8))) for t in (plain, other))
    assert b.figures(0.0) == pytest.approx(a.figures(0.0), rel=0.1 if "precision" in change else 1e-3, abs=1e-3)
    if "precision" not in change:
        for (n, p), q in zip(plain.learner.named_parameters(), other.learner.parameters(), strict=True):
            torch.testing.assert_close(q.grad, p.grad, rtol=2e-3, atol=1e-5, msg=n)


def test_what_is_not_asked_for_is_not_there() -> None:
    """With all weights at 0, the log has none of them and nothing is drawn."""
    result = training_step(started(PLAIN), random_batch(8, 16), list(range(8)))
    assert result.others == {}


MICRO = {
    "spectrum, envelope, expansion": using(spectrum=0.05, envelope=0.1, variance_expansion=0.01),
    "equivariance": using(equivariance=0.99),
    "lowpass": using(lowpass=0.99),
    "scale equivariance": using(scale_equivariance=0.5),
    "alignment": using(alignment=0.5, alignment_adaptive=False),
}


@pytest.mark.parametrize("name", MICRO)
def test_micro_batches_are_one_batch(name: str) -> None:
    """In parts of 2 of 8, with a discriminator: all figures and gradients are those of the whole batch, drawn once for
    all of it."""
    found = []
    for micro in (None, 2):
        config = dataclasses.replace(MICRO[name], micro_batch=micro, adversarial=dataclasses.replace(MODERN, lecam=0.0))
        t = still(aligned(config) if config.regularizers.alignment else started(config))
        t.adversary.optimizer = torch.optim.SGD(t.adversary.network.parameters(), lr=0.0)
        first = first_with(
            config, lambda d: d != StepAugmentation() or name in ("alignment", "spectrum, envelope, expansion")
        )
        result = training_step(t, random_batch(8, 16), list(range(first, first + 8)), FELT)
        named = [*t.learner.named_parameters(), *t.adversary.network.named_parameters()]
        found.append((result.figures(0.0), {n: p.grad for n, p in named}))
    (figures, grads), (others, parts) = found
    assert others == pytest.approx(figures, rel=2e-3, abs=1e-5)
    for n, grad in grads.items():
        torch.testing.assert_close(parts[n], grad, rtol=5e-3, atol=1e-5, msg=n)


def test_what_needs_the_whole_batch_is_refused_in_parts() -> None:
    """In one line each, as are impossible combinations."""
    for change, words in (
        ({"variance_floor": 0.1}, "whole batch"),
        ({"alignment": 0.1}, "whole batch"),
        ({"equivariance": 0.6, "lowpass": 0.6}, "at most 1 together"),
        ({"equivariance": 1.5}, "share of steps"),
        ({"alignment_margins": (0.1,)}, "two numbers"),
        ({"alignment_margins": (0.1, -0.1)}, "two numbers"),
        ({"spectrum": -1.0}, "not negative"),
        ({"envelope": math.nan}, "finite"),
    ):
        with pytest.raises(vw.ConfigError, match=rf"^[^\n]*{words}[^\n]*$"):
            dataclasses.replace(PLAIN, micro_batch=4, regularizers=RegularizerConfig(**change))
    point = dataclasses.replace(MODEL, bottleneck=BottleneckConfig(kind="point"))
    with pytest.raises(vw.ConfigError, match="has none"):
        using(dataclasses.replace(PLAIN, model=point), variance_expansion=0.1)
    for name in ("spectrum", "variance_expansion", "envelope", "variance_floor", "alignment"):
        with pytest.raises(vw.ConfigError, match=f"{name} shapes latents"):
            using(
                dataclasses.replace(PLAIN, finetune=FinetuneConfig(path="vae.safetensors", part="decoder")),
                **{name: 0.1},
            )
    squares = dataclasses.replace(MODEL, normalization="batchnorm", latents_patch=2)
    with pytest.raises(vw.ConfigError, match="latents_patch"):
        dataclasses.replace(PLAIN, model=squares, data=dataclasses.replace(PLAIN.data, size=18))


# ---------------------------------------------------------------- drawn


def test_shares_of_steps() -> None:
    """Of many steps as many are transformed as asked for, scales and turns alike often, and the rest is shrunk by its
    own share."""
    config, n = RegularizerConfig(equivariance=0.4, equivariance_prior=0.3, lowpass=0.2, scale_equivariance=1.0), 4000
    draws = [draw_augmentation(config, 7, k * 8, 64, 8, 8) for k in range(n)]

    def near(count: int, share: float) -> bool:
        return abs(count - n * share) < 4 * math.sqrt(n * share * (1 - share))

    latents = [d for d in draws if d.where == "latents"]
    assert near(len(latents), 0.4) and near(sum(d.cut > 0 for d in draws), 0.2)
    assert near(sum(d.where == "images" for d in draws), 0.4 * 0.3)
    assert near(sum(d.shrink == 2 for d in draws), 0.4 * 0.7 / 2) and near(
        sum(d.shrink == 4 for d in draws), 0.4 * 0.7 / 2
    )
    for turns in (1, 2, 3):
        assert near(sum(d.transform.quarter_turns == turns for d in latents), 0.4 / 3)
    for cut in (8, 10, 12):
        assert near(sum(d.cut == cut for d in draws), 0.2 / 3)
    assert {d.transform.scale for d in latents} == {k / 32 for k in range(8, 32)}
    assert all(sum((d.where != "nowhere", d.cut > 0, d.shrink > 0)) <= 1 for d in draws)


@pytest.mark.parametrize(("name", "value"), [("lowpass", 1.0), ("equivariance", 1.0), ("equivariance", 0.0)])
def test_shares_at_their_ends(name: str, value: float) -> None:
    draws = [draw_augmentation(RegularizerConfig(**{name: value}), 0, k, 64, 8, 8) for k in range(200)]
    changed = [d.cut > 0 if name == "lowpass" else d.where == "latents" for d in draws]
    assert all(changed) if value else not any(changed) and set(draws) == {StepAugmentation()}


def test_draws_depend_on_seed_and_first_counter_alone() -> None:
    """The same in every process and at every call; another seed or step draws something else."""
    config = RegularizerConfig(equivariance=0.5, scale_equivariance=0.3)
    draws = [[draw_augmentation(config, seed, k, 64, 8, 8) for k in range(60)] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) > 20
    found = []
    for counters in ([3, 4, 5, 6], [40, 41, 42, 43]):  # this process's images; the step's first is elsewhere
        t = still(started(using(equivariance=1.0)))
        t.learner.register_forward_hook(lambda module, args, out: found.append(out.recon.shape))
        training_step(t, random_batch(4, 16), counters, first_counter=16)
    assert found[0] == found[1]


@pytest.mark.parametrize("size", [16, 24, 40, 56, 64, 96])
@pytest.mark.parametrize("f", [2, 4, 8])
def test_nothing_is_shrunk_too_far(size: int, f: int) -> None:
    """Whatever is drawn, pictures stay whole latents and no smaller than what looks at them needs."""
    for least in (f, 11, 24, 31, 32):
        need = -(-least // f) * f
        config = RegularizerConfig(equivariance=0.5, equivariance_prior=1.0, scale_equivariance=0.2)
        for k in range(120):
            draw = draw_augmentation(config, 0, k, size, need, f)
            for transform in (draw.transform, Transform(1 / max(draw.shrink, 1))):
                target = transform(torch.zeros(1, 1, size, size), f)
                latents = transform(torch.zeros(1, 1, size // f, size // f))
                assert target.shape[-1] == latents.shape[-1] * f
                assert target.shape[-1] >= (min(size, need) if transform is draw.transform else f)


NEEDY = {
    "patch": dataclasses.replace(PLAIN, adversarial=AdversarialConfig(discriminator="patch", channels=8, num_layers=2)),
    "residual": dataclasses.replace(
        PLAIN, adversarial=AdversarialConfig(discriminator="residual", channels=16, num_layers=2)
    ),
    "ms_ssim": dataclasses.replace(PLAIN, loss=LossConfig(reconstruction="ms_ssim")),
    "without-weights": dataclasses.replace(PLAIN, loss=LossConfig(perceptual="without-weights")),
    "features": dataclasses.replace(PLAIN, regularizers=RegularizerConfig(alignment=0.1)),
}


@pytest.mark.parametrize("name", NEEDY)
def test_the_smallest_pictures_are_large_enough(name: str) -> None:
    """The most that is ever shrunk, with what needs the most pixels: the step goes through, and no smaller than it has
    to be."""
    config = NEEDY[name]
    config = dataclasses.replace(
        config, regularizers=dataclasses.replace(config.regularizers, equivariance=0.5, equivariance_prior=1.0)
    )
    network = Colours()
    network.smallest = 14
    frozen: dict[str, Any] = (
        {"features": load_backbone(network, None, 2), "feature_channels": 4} if name == "features" else {}
    )
    t = started(config, perceptual=distance_without_weights if name == "without-weights" else None, **frozen)
    least = smallest(t)
    assert least == {"patch": 12, "residual": 14, "ms_ssim": 12, "without-weights": 12, "features": 14}[name]
    for where in ("latents", "images"):
        draws = ((k, draw_augmentation(config.regularizers, 0, k, 16, least, 2)) for k in range(10_000))
        first = next(k for k, d in draws if d.where == where and d.transform.scale == least / 16)
        assert training_step(t, random_batch(4, 16), list(range(first, first + 4)), FELT).finite


# ---------------------------------------------------------------- resumed


RESUMED = {
    "equivariance": using(equivariance=0.5, scale_equivariance=0.25),
    "lowpass": using(lowpass=0.75, spectrum=0.01),
    "expansion": using(variance_expansion=0.1, envelope=1e-6),
    "floor": using(
        dataclasses.replace(PLAIN, model=dataclasses.replace(MODEL, bottleneck=BottleneckConfig(kind="point"))),
        variance_floor=0.1,
    ),
    "alignment": using(alignment=0.5, alignment_margins=(0.5, 0.25)),
    "learned variance": dataclasses.replace(PLAIN, loss=LossConfig(reconstruction="gaussian", beta=1 / 3)),
}


class Killed(BaseException):
    """Stands in for SIGKILL."""


@pytest.mark.parametrize("name", RESUMED)
def test_runs_resume_exactly(name: str, folder: Path, tmp_path: Path) -> None:
    """Killed in the middle and continued: the same bytes, projection, learned variance, moments and log included."""
    config = dataclasses.replace(RESUMED[name], images=48, save_every=16, val_every=48, ema_halflife=16)
    features = Colours() if config.regularizers.alignment else None
    train(config, folder, tmp_path / "whole", show=False, features=features)
    original, steps = loop.training_step, 0

    def dying(*args: Any, **kwargs: Any) -> StepResult:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise Killed
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "training_step", dying)
        with pytest.raises(Killed):
            train(config, folder, tmp_path / "parts", show=False, features=features)
    train(config, folder, tmp_path / "parts", show=False, features=features, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    names = {
        n
        for n, weight in dataclasses.asdict(config.regularizers).items()
        if weight and n in read_names(tmp_path / "whole")
    }
    assert names or name == "learned variance"


def read_names(run: Path) -> set[str]:
    return {name for line in read_log(run) for name in line}


# ---------------------------------------------------------------- what they do


def trained_for(
    steps: int, config: TrainConfig, prepare: Callable[[Autoencoder], None] = lambda vae: None, **frozen: Any
) -> TrainState:
    """After so many steps of four smooth random images each."""
    t = aligned(config, **frozen) if config.regularizers.alignment else started(config, **frozen)
    prepare(t.autoencoder)
    data = random_batch(64, config.data.size, seed=1)
    for i in range(steps):
        which = [(4 * i + j) % 64 for j in range(4)]
        training_step(t, data[which], list(range(4 * i, 4 * i + 4)))
    t.autoencoder.eval()
    return t


NO_KL = dataclasses.replace(PLAIN, loss=LossConfig(reconstruction="mse", beta=0.0))


@functools.cache
def without() -> Autoencoder:
    """What the others are compared with."""
    return trained_for(100, NO_KL).autoencoder


@functools.cache
def held_out() -> Tensor:
    return to_model_range(random_batch(16, 16, seed=2))


@torch.no_grad()
def equivariance_error(vae: Autoencoder) -> float:
    """E|E(tau x) - tau E(x)|^2 / Var, mean over a half size, a quarter turn, and both."""
    x = held_out()
    z = vae.encode(x).mean
    found = [
        (vae.encode(tau(x, 2)).mean - tau(z)).square().mean() / z.var()
        for tau in (Transform(0.5), Transform(1, 1), Transform(0.5, 2))
    ]
    return torch.stack(found).mean().item()


def test_equivariance_makes_latents_move_with_the_picture() -> None:
    """Less than half of the error that a run without it has."""
    assert equivariance_error(trained_for(100, using(NO_KL, equivariance=0.5)).autoencoder) < 0.5 * equivariance_error(
        without()
    )


def test_spectrum_nears_the_pictures() -> None:
    """The divergence of spectra on held-out images falls by a quarter and more."""
    vaes = without(), trained_for(100, using(NO_KL, spectrum=0.3)).autoencoder
    with torch.no_grad():
        a, b = (spectral_divergence(vae.encode(held_out()).mean, held_out()) for vae in vaes)
    assert b < 0.75 * a


def test_variance_expansion_widens_the_posterior() -> None:
    """Many times the width that a decoder without a KL term leaves."""
    wide = trained_for(100, using(NO_KL, variance_expansion=0.1, envelope=1e-6)).autoencoder
    with torch.no_grad():
        assert wide.encode(held_out()).std.mean() > 5 * without().encode(held_out()).std.mean()


def test_the_envelope_bounds_latents() -> None:
    """The largest latent is well below that of a run without it."""
    bound = trained_for(100, using(NO_KL, envelope=0.01)).autoencoder
    with torch.no_grad():
        assert bound.encode(held_out()).mean.abs().max() < 0.6 * without().encode(held_out()).mean.abs().max()


@pytest.mark.parametrize("kind", ["point", "kl"])
def test_the_variance_floor_revives_channels(kind: Any) -> None:
    """Two channels that encoder and decoder have lost stay lost without it and come back with it; the noise of a
    posterior is no life."""
    slow = dataclasses.replace(PLAIN.optimizer, lr=1e-3)
    config = dataclasses.replace(
        NO_KL, model=dataclasses.replace(MODEL, bottleneck=BottleneckConfig(kind=kind)), optimizer=slow
    )

    @torch.no_grad()
    def lose(vae: Autoencoder) -> None:
        vae.encoder.conv_out.weight[2:4] *= 1e-2
        vae.decoder.conv_in.weight[:, 2:4] = 0.0
        if kind == "kl":  # samples have the variance of a live channel
            vae.encoder.conv_out.weight[6:8] = 0.0
            vae.encoder.conv_out.bias[6:8] = 0.0

    vaes = [trained_for(20, using(config, variance_floor=weight), lose).autoencoder for weight in (0.0, 1.0)]
    with torch.no_grad():
        stds = [vae.encode(held_out()).mean.std((0, 2, 3))[2:4].min() for vae in vaes]
    assert stds[0] < 0.15
    assert stds[1] > 0.4


def test_latents_come_to_agree_with_features() -> None:
    """Cosines of projected latents and features on held-out images rise, also those of relations between places; the
    network stays."""
    before, after = (trained_for(steps, using(NO_KL, alignment=1.0)) for steps in (0, 100))
    network = load_backbone(Colours(), None, 2)
    assert all(
        torch.equal(p, q)
        for p, q in zip(after.features.state_dict().values(), network.state_dict().values(), strict=True)
    )
    with torch.no_grad():
        features = network(held_out())[-1]
        cosines, relations = [], []
        for t in (before, after):
            z = t.autoencoder.encode(held_out()).mean
            cosines.append(1 - cosine_alignment(t.learner.projection(z), features, 0.0).item())
            relations.append(distance_alignment(z, features, 0.0).item())
    assert cosines[1] > max(0.7, cosines[0] + 0.3)
    assert relations[1] < 0.7 * relations[0]


# ---------------------------------------------------------------- frozen networks in runs


def test_a_callable_is_aligned_with(folder: Path, tmp_path: Path) -> None:
    """train(features=...) with a plain function, recorded in the log; without any network, or for nothing, it is one
    line."""
    config = dataclasses.replace(using(alignment=0.1), images=16)
    train(config, folder, tmp_path / "run", show=False, features=lambda images: F.avg_pool2d(images, 4))
    assert all(line["alignment"] > 0 for line in read_log(tmp_path / "run") if "loss" in line)
    with pytest.raises(vw.ConfigError, match=r"^[^\n]*alignment-network[^\n]*$"):
        train(config, folder, tmp_path / "none", show=False)
    with pytest.raises(vw.ConfigError, match=r"^[^\n]*set regularizers\.alignment$"):
        train(PLAIN, folder, tmp_path / "none", show=False, features=Colours())
    with pytest.raises(vw.ConfigError, match=r"^[^\n]*must return feature maps[^\n]*$"):
        train(config, folder, tmp_path / "none", show=False, features=lambda images: images.mean())
    assert not (tmp_path / "none" / "run.json").exists()


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("dinov2")
    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=28, patch_size=7
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Dinov2Model(config).save_pretrained(folder)
    return folder


def test_a_transformer_is_aligned_with_and_judges(dinov2: Path, folder: Path, tmp_path: Path) -> None:
    """DINOv2 of a folder, as alignment and under a projected discriminator at once: a run, killed and resumed to the
    same bytes."""
    adversarial = AdversarialConfig(
        discriminator="projected",
        network=str(dinov2),
        channels=8,
        start_images=8,
        warmup=0.0,
        ramp=0.1,
        optimizer=MODERN.optimizer,
    )
    regularizers = RegularizerConfig(alignment=0.1, alignment_network=str(dinov2), equivariance=0.3)
    config = dataclasses.replace(
        PLAIN, images=48, save_every=16, val_every=48, adversarial=adversarial, regularizers=regularizers
    )
    train(config, folder, tmp_path / "whole", show=False)
    steps = [line for line in read_log(tmp_path / "whole") if "loss" in line]
    assert (
        all("alignment" in line for line in steps)
        and "adversarial" in steps[-1]
        and steps[-1]["discriminator_grad_norm"] > 0
    )
    train(dataclasses.replace(config, images=32), folder, tmp_path / "parts", show=False)
    train(config, folder, tmp_path / "parts", show=False, resume=True)
    assert (tmp_path / "parts" / "model.safetensors").exists()


def test_a_named_network_is_aligned_with(test_data: Path) -> None:
    """VGG16's features by name and file: the projection has their channels, and a step goes through."""
    path = str(test_data / "weights" / "vgg16-oxford-conv1to3")
    config = using(alignment=0.5, alignment_network="vgg16_conv1to3", alignment_path=path)
    frozen = load_frozen(config, torch.device("cpu"))
    assert frozen.feature_channels == 256
    t = started(config, features=frozen.features, feature_channels=frozen.feature_channels)
    assert training_step(t, random_batch(2, 16), [0, 1]).finite


def test_a_judge_of_too_small_crops_is_one_line() -> None:
    """A projected discriminator knows how small images its network takes."""
    network = Colours()
    network.smallest = 24
    config = dataclasses.replace(PLAIN, adversarial=AdversarialConfig(discriminator="projected", network="any"))
    with pytest.raises(vw.ConfigError, match=r"^[^\n]*too small[^\n]*needs 24[^\n]*$"):
        initial_discriminator(config, load_backbone(network, None, 2))


# ---------------------------------------------------------------- learned variances


@pytest.mark.parametrize("kind", ["gaussian", "optimal-gaussian"])
def test_the_loss_is_the_elbo(kind: Any) -> None:
    """With beta = latents / pixels: the negative log-likelihood of all pixels plus all KL, by torch's distributions,
    over the pixels."""
    config = dataclasses.replace(PLAIN, loss=LossConfig(reconstruction=kind, beta=4 * 8 * 8 / (3 * 16 * 16)))
    t = still(started(config))
    naive = copy.deepcopy(t.autoencoder)
    result = training_step(t, random_batch(4, 16), list(range(4)))
    images = to_model_range(random_batch(4, 16))
    with torch.no_grad():
        recon, posterior = naive(images, latent_noise(0, list(range(4)), (4, 8, 8)))
        mse = (recon - images).square().mean((1, 2, 3), keepdim=True)
        std = mse.sqrt() if kind == "optimal-gaussian" else t.learner.log_variance.exp().sqrt()
        normal = torch.distributions.Normal
        likelihood = normal(recon, std.expand_as(recon)).log_prob(images).sum()
        divergence = torch.distributions.kl_divergence(normal(posterior.mean, posterior.std), normal(0.0, 1.0)).sum()
    assert result.loss == pytest.approx(((divergence - likelihood) / images.numel()).item(), rel=1e-4)


def test_the_learned_variance_nears_the_error() -> None:
    """The log-variance goes from its start to the logarithm of the mean squared error, and is kept in checkpoints."""
    config = dataclasses.replace(PLAIN, loss=LossConfig(reconstruction="gaussian", beta=1 / 3))
    t = started(config)
    start = t.learner.log_variance.item()
    data = random_batch(16, 16, seed=1)
    gaps = []
    for i in range(80):
        which = [(4 * i + j) % 16 for j in range(4)]
        result = training_step(t, data[which], list(range(4 * i, 4 * i + 4)), lr=4e-3)
        gaps.append(abs(t.learner.log_variance.item() - math.log(result.mse)))
    assert sum(gaps[-20:]) / 20 < 0.35
    assert t.learner.log_variance.item() != start
    assert {"log_variance"} == t.learner.beside().keys()


# ---------------------------------------------------------------- normalization at the end


NORMALIZED = {
    "scalar": MODEL,
    "channel": dataclasses.replace(MODEL, normalization="channel", latents_mean=(0.0,) * 4, latents_std=(1.0,) * 4),
    "batchnorm": dataclasses.replace(MODEL, normalization="batchnorm"),
    "batchnorm of squares": dataclasses.replace(MODEL, normalization="batchnorm", latents_patch=2),
    "scalar of squares": dataclasses.replace(MODEL, latents_patch=2),
}


@torch.no_grad()
def normalized(vae: Autoencoder, crops: Crops, count: int) -> Tensor:
    """What a diffusion model sees of the first crops: samples, many of each."""
    images = to_model_range(torch.stack([crops[k][0] for k in range(count)]))
    posterior = vae.encode(images)
    generator = torch.Generator().manual_seed(0)
    return torch.cat([vae.normalize(posterior.sample(generator)) for _ in range(16)])


@pytest.mark.parametrize("name", NORMALIZED)
def test_latents_come_out_normalized(name: str, folder: Path, tmp_path: Path) -> None:
    """After a run the training crops' latents have mean 0 and standard deviation 1, of each channel where that is the
    kind, in the file."""
    config = dataclasses.replace(PLAIN, model=NORMALIZED[name], images=32, stats_images=32, val_every=1000)
    result = train(config, folder, tmp_path / "run", show=False)
    vae = vw.load(tmp_path / "run")
    assert vae.config.normalization == config.model.normalization
    files = scan(str(folder), 16).split(config.data.val_fraction)[0].files
    z = normalized(vae, Crops(files, config.data, config.seed), 32)
    assert z.shape[1] == 4 * config.model.latents_patch**2
    each = (z.mean((0, 2, 3)), z.std((0, 2, 3))) if "scalar" not in name else (z.mean()[None], z.std()[None])
    torch.testing.assert_close(each[0], torch.zeros_like(each[0]), atol=0.03, rtol=0)
    torch.testing.assert_close(each[1], torch.ones_like(each[1]), atol=0.03, rtol=0)
    torch.testing.assert_close(vae.denormalize(vae.normalize(z.new_ones(1, 4, 4, 4))), z.new_ones(1, 4, 4, 4))
    best = vw.load(tmp_path / "run" / "best.safetensors")
    assert best.config.normalization == vae.config.normalization
    assert result.latents.num_images == 32


@pytest.mark.parametrize("scale", [1.0, 0.1])
@pytest.mark.parametrize("name", ["channel", "batchnorm of squares"])
def test_dead_channels_and_small_latents_can_be_normalized(name: str, scale: float, folder: Path) -> None:
    """A run does not end with an error because a channel says nothing; its normalized latents are finite, the others'
    well scaled."""
    model = dataclasses.replace(NORMALIZED[name], bottleneck=BottleneckConfig(kind="point"))
    vae = started(dataclasses.replace(PLAIN, model=model)).autoencoder.eval()
    with torch.no_grad():
        vae.encoder.conv_out.weight *= scale
        vae.encoder.conv_out.bias *= scale
        vae.encoder.conv_out.weight[1] = 0.0
    crops = Crops(scan(str(folder), 16).files, PLAIN.data, 0)
    measure_latents(vae, crops, 16, 8).apply_(vae)
    z = normalized(vae, crops, 16)
    p2 = model.latents_patch**2
    assert z.isfinite().all() and z.abs().max() < 100
    live = [c for c in range(4 * p2) if c // p2 != 1]
    torch.testing.assert_close(z.std((0, 2, 3), correction=0)[live], torch.ones(len(live)), atol=1e-2, rtol=0)


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize("f", [4, 8, 16, 32])
@pytest.mark.parametrize("c", [4, 16, 64])
@pytest.mark.parametrize("init", ["default", "linear"])
def test_any_f_and_c_trains(f: int, c: int, init: Any) -> None:
    """Built, initialized and stepped, with equivariance and spectrum on; every weight has a gradient."""
    mult = (1, 1, 2, 2, 2, 2)[: f.bit_length()]
    model = AutoencoderConfig(
        latent_channels=c, channels=8, channel_mult=mult, num_res_blocks=1, norm_groups=4, mid_attention=False
    )
    config = dataclasses.replace(PLAIN, model=model, init=init, data=dataclasses.replace(PLAIN.data, size=32))
    config = using(config, equivariance=0.5, scale_equivariance=0.25, spectrum=0.01)
    t = started(config)
    results = [training_step(t, random_batch(2, 32), [k, k + 1]) for k in range(0, 6, 2)]
    assert all(result.finite for result in results)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in t.autoencoder.parameters())
