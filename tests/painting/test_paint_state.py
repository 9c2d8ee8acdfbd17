"""A step of a painting run: gradients in parts, averages, precision, and what a checkpoint holds."""

from __future__ import annotations

import dataclasses
from typing import Any

import configs
import pytest
import torch

import vaeworks as vw
from vaeworks.config import DenoiserConfig, OptimizerConfig, PaintConfig
from vaeworks.painting.conditions import encoded
from vaeworks.painting.objective import FlowObjective
from vaeworks.painting.state import PaintState
from vaeworks.pipelines.blank import blank_pipeline, trained_tokenizer

CAPTIONS = ["a red circle", "a blue square on a red ground", "", "a green cross"] * 2
CONFIG = PaintConfig(
    denoiser=DenoiserConfig(width=32, depth=2, head_dim=16, patch=4, text_width=32),
    optimizer=OptimizerConfig(lr=1e-3, clip_norm=0.0),
    matrices="adamw",
    size=16,
    batch=8,
    images=64,
    ema_halflife=16,
    precision="fp32",
)


def state(config: PaintConfig = CONFIG, *, frozen_text: bool = False) -> PaintState:
    """A run's networks at the start, with random weights in all places."""
    torch.manual_seed(0)
    pipe: Any = blank_pipeline(
        vw.build(configs.TINY), config.denoiser, trained_tokenizer(CAPTIONS, config.denoiser), 16, "flow", 0
    )
    generator = torch.Generator().manual_seed(1)
    for name in ("vae", "text_encoder", "text_encoder_2", "text_encoder_3", "transformer"):
        getattr(pipe, name).requires_grad_(name == "transformer" or (name[-1] in "r2" and not frozen_text)).eval()
    pipe.vae.requires_grad_(False)
    with torch.no_grad():
        for p in pipe.transformer.parameters():
            p += 0.05 * torch.randn(p.shape, generator=generator)
    return PaintState.of(pipe, FlowObjective(config), config)


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[str]]:
    generator = torch.Generator().manual_seed(seed)
    z, noise = (torch.randn(8, 4, 8, 8, generator=generator) for _ in range(2))
    return z, noise, torch.linspace(0.05, 0.95, 8), CAPTIONS


def gradients(of: PaintState) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in of.trained.items() if p.grad is not None}


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_micro_batches_add_up_to_the_whole_batch(micro: int) -> None:
    whole, parts = state(), state(dataclasses.replace(CONFIG, micro_batch=micro))
    loss, norm, finite = whole.step(*batch(), 1e-3)
    assert finite and parts.step(*batch(), 1e-3) == (pytest.approx(loss, rel=1e-5), pytest.approx(norm, rel=1e-4), True)
    expected, found = gradients(whole), gradients(parts)
    assert found.keys() == expected.keys() and len(found) > 20
    scale = max(g.abs().max() for g in expected.values())
    for name, g in expected.items():
        torch.testing.assert_close(found[name], g, rtol=1e-3, atol=1e-6 * float(scale), msg=name)


def test_the_loss_is_the_mean_squared_error_of_the_velocity() -> None:
    """Computed here from the stock parts."""
    s = state()
    z, noise, times, captions = batch()
    x = (1 - times)[:, None, None, None] * z + times[:, None, None, None] * noise
    conditions = encoded(s.pipe, captions, z.device, 16)
    said = s.module.denoiser(hidden_states=x, timestep=1000 * times, return_dict=False, **conditions)[0]
    expected = (said - (noise - z)).square().mean().item()
    assert s.step(z, noise, times, captions, 1e-3)[0] == pytest.approx(expected, rel=1e-5)


def test_gradients_reach_all_that_is_trained_and_nothing_else() -> None:
    s = state()
    s.step(*batch(), 1e-3)
    names = {name.split(".")[0] + "." + name.split(".")[1] for name in s.trained}
    assert {"texts.text_encoder", "texts.text_encoder_2"} <= names
    # the last block drops what it computes for the words
    unused = [name for name, p in s.trained.items() if p.grad is None or not p.grad.abs().sum() > 0]
    assert all("add_q_proj" in name or "norm_added_q" in name for name in unused), unused
    assert all(p.grad is None for p in s.pipe.vae.parameters())


def test_frozen_words_are_those_of_the_encoders() -> None:
    """With text encoders that are not trained, each caption is encoded once in a run; the loss is the same."""
    a, b = state(), state(frozen_text=True)
    losses = [s.step(*batch(), 0.0)[0] for s in (a, b)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert sorted(b.module._known) == sorted(set(CAPTIONS)) and not a.module._known
    assert not [name for name in b.trained if name.startswith("texts.")]


def test_the_average_is_that_of_the_weights() -> None:
    s = state()
    expected = {name: p.detach().double().clone() for name, p in s.trained.items()}
    decay = 0.7
    for step in range(3):
        s.step(*batch(step), 1e-2)
        s.update_average_(decay)
        for name, p in s.trained.items():
            expected[name] = decay * expected[name] + (1 - decay) * p.detach().double()
    assert s.average is not None
    own = dict(s.average.named_parameters())
    for name, value in expected.items():
        torch.testing.assert_close(own[name].double(), value, rtol=1e-5, atol=1e-6)
    off = max((own[name] - p).abs().max() for name, p in s.trained.items())
    assert off > 1e-4
    assert s.average_pipe.transformer is s.average.denoiser is not s.module.denoiser
    assert state(dataclasses.replace(CONFIG, ema_halflife=0)).average is None


def test_bf16_computes_in_bf16_and_keeps_fp32() -> None:
    exact, rough = state(), state(dataclasses.replace(CONFIG, precision="bf16"))
    loss, other = exact.step(*batch(), 1e-3)[0], rough.step(*batch(), 1e-3)[0]
    assert other != loss and other == pytest.approx(loss, rel=0.03)
    assert all(t.dtype == torch.float32 for t in rough.tensors().values() if t.is_floating_point())
    assert any(not torch.equal(p, p.bfloat16().float()) for p in rough.trained.values())


@pytest.mark.parametrize("matrices", ["muon", "adamw"])
def test_a_checkpoint_is_the_whole_state(matrices: str) -> None:
    """Restored into fresh networks, the next step is the same to the bit."""
    config = dataclasses.replace(CONFIG, matrices=matrices)
    s, other = state(config), state(config)
    for i in range(2):
        s.step(*batch(i), 1e-3)
        s.update_average_(0.5)
    saved = {name: t.clone() for name, t in s.tensors().items()}
    other.restore(saved)
    for each in (s, other):
        each.step(*batch(2), 1e-3)
        each.update_average_(0.5)
    a, b = s.tensors(), other.tensors()
    assert a.keys() == b.keys() and all(torch.equal(t, b[name]) for name, t in a.items())
    assert not all(torch.equal(t, a[name]) for name, t in saved.items())
    with pytest.raises(KeyError, match="not those of this network"):
        other.restore({name: t for name, t in saved.items() if "proj_out" not in name})


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    s = state()
    s.step(*batch(), 1e-3)
    before = {name: t.clone() for name, t in s.tensors().items()}
    z, noise, times, captions = batch(1)
    z[3, 0, 0, 0] = float("inf")
    assert s.step(z, noise, times, captions, 1e-3)[2] is False
    assert all(torch.equal(t, before[name]) for name, t in s.tensors().items())
