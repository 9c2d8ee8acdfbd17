"""LoRA beside a denoiser's attention: it changes nothing at first, trains what it should, and leaves no trace."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from latent_spaces import random_vae
from test_moving import KINDS, denoiser, noise, predicted, tiny

import vaeworks as vw
from vaeworks.painting.lora import Lora, add_lora
from vaeworks.painting.moving import EDGES

pytest.importorskip("peft")


def adapted(kind: str, **options: Any) -> tuple[diffusers.DiffusionPipeline, Lora]:
    pipe = tiny(kind, random_vae(4))
    return pipe, add_lora(denoiser(pipe), **{"rank": 4, **options})


def trained_(lora: Lora) -> Lora:
    """Every trained weight moved by noise, as a training would."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in lora.parameters.values():
            p += 0.05 * torch.randn(p.shape, generator=generator)
    return lora


def names(denoiser: Any) -> Iterable[str]:
    return {name for name, _ in denoiser.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_before_training_nothing_changes(kind: str) -> None:
    pipe = tiny(kind, random_vae(4))
    before = predicted(pipe, noise(4))
    add_lora(denoiser(pipe), rank=4)
    assert torch.equal(predicted(pipe, noise(4)), before)


@pytest.mark.parametrize("kind", KINDS)
def test_only_lora_and_the_first_and_last_layers_are_trained(kind: str) -> None:
    pipe, lora = adapted(kind)
    net = denoiser(pipe)
    assert lora.whole == EDGES[type(net).__name__]
    whole = {f"{layer}.{part}" for layer in lora.whole for part in ("weight", "bias")}
    assert whole <= lora.parameters.keys()
    others = lora.parameters.keys() - whole
    assert others
    assert all(".lora_A." in name or ".lora_B." in name for name in others)
    assert lora.num_parameters == sum(p.numel() for p in net.parameters() if p.requires_grad)
    # all linear layers of all attention layers, and nothing else
    assert set(lora.adapted) == {name for name, module in net.named_modules() if hasattr(module, "lora_A")}
    fresh = denoiser(tiny(kind, random_vae(4)))
    attention = [name for name, module in fresh.named_modules() if hasattr(module, "to_q")]
    linear = {
        f"{at}.{name}"
        for at in attention
        for name, module in fresh.get_submodule(at).named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    without = {"transformer_blocks.1.attn.add_q_proj"} if kind == "tiny-sd3" else set()  # the last: it has no effect
    assert set(lora.adapted) == linear - without


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_all_that_is_trained(kind: str) -> None:
    """Of the second matrices, and of the first ones once the second are no longer zero."""
    pipe, lora = adapted(kind)
    trained_(lora)
    with torch.enable_grad():
        predicted.__wrapped__(pipe, noise(4)).square().mean().backward()  # type: ignore[attr-defined]
    missing = [name for name, p in lora.parameters.items() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not missing
    assert all(p.grad is None for p in denoiser(pipe).parameters() if not p.requires_grad)


@pytest.mark.parametrize("alpha", [None, 9.0])
@pytest.mark.parametrize("kind", KINDS)
def test_merged_is_the_same_and_stock(kind: str, alpha: float | None, tmp_path: Path) -> None:
    plain = names(denoiser(tiny(kind, random_vae(4))))
    pipe, lora = adapted(kind, alpha=alpha)
    untrained = predicted(pipe, noise(4))
    trained_(lora)
    before = predicted(pipe, noise(4))
    assert (before - untrained).abs().max() > 1e-2
    net = lora.merge()
    assert net is denoiser(pipe)
    torch.testing.assert_close(predicted(pipe, noise(4)), before, rtol=1e-5, atol=1e-5)
    assert names(net) == plain
    assert not any(p.requires_grad for p in net.parameters())
    assert not [module for module in net.modules() if type(module).__module__.startswith("peft")]
    assert not hasattr(net, "peft_config")
    pipe.save_pretrained(tmp_path)
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    torch.testing.assert_close(predicted(again, noise(4)), before, rtol=1e-5, atol=1e-5)


def test_alpha_and_rank() -> None:
    """alpha / rank scales what LoRA adds; a larger rank has more parameters."""
    changes = []
    for alpha in (4.0, 8.0):
        pipe, lora = adapted("tiny", alpha=alpha)
        weight = denoiser(pipe).get_submodule(lora.adapted[0]).get_base_layer().weight.clone()
        changes.append(trained_(lora).merge().get_submodule(lora.adapted[0]).weight - weight)
    torch.testing.assert_close(2 * changes[0], changes[1])
    assert adapted("tiny", rank=8)[1].num_parameters > adapted("tiny", rank=4)[1].num_parameters


def test_the_seed_alone_decides_the_first_weights() -> None:
    def first(seed: int) -> torch.Tensor:
        lora = adapted("tiny", seed=seed)[1]
        return next(p for name, p in lora.parameters.items() if "lora_A" in name).detach()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        state = torch.get_rng_state()
        a = first(0)
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(6)
        assert torch.equal(a, first(0))
        assert not torch.equal(a, first(1))


def test_it_can_be_added_again_after_a_merge() -> None:
    pipe, lora = adapted("tiny")
    trained_(lora).merge()
    before = predicted(pipe, noise(4))
    again = add_lora(denoiser(pipe), rank=2)
    assert again.adapted == lora.adapted
    assert torch.equal(predicted(pipe, noise(4)), before)


def refused(kind: type[Exception], words: str, *args: Any, **options: Any) -> None:
    with pytest.raises(kind, match=words) as caught:
        add_lora(*args, **options)
    assert "\n" not in str(caught.value)


def test_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, lora = adapted("tiny")
    net = denoiser(pipe)
    refused(vw.ConfigError, "already", net)
    refused(vw.ConfigError, r"rank \(=0\)", net, rank=0)
    refused(vw.ConfigError, r"alpha \(=-1\)", net, alpha=-1.0)
    refused(vw.ConfigError, "not for Linear", torch.nn.Linear(2, 2))
    next(iter(lora.parameters.values())).data[0] = float("nan")
    with pytest.raises(vw.NotFiniteError) as caught:
        lora.merge()
    assert "\n" not in str(caught.value)
    fresh = denoiser(tiny("tiny", random_vae(4)))
    monkeypatch.setitem(sys.modules, "peft", None)
    refused(vw.MissingExtraError, r"vaeworks\[lora\]", fresh)
    assert all(not hasattr(module, "lora_A") for module in fresh.modules())
