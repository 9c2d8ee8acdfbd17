"""Recipes: each says what it is for, is one change to its control, and takes steps on a network that trains in
seconds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from runs import random_batch
from safetensors.torch import save_file

import vaeworks as vw
from vaeworks.config import AdversarialConfig, TrainConfig, differences
from vaeworks.features.nets import FEATURE_NETS
from vaeworks.recipes import GROUPS, RECIPES, claim, purpose, recipe
from vaeworks.training.gan.balance_state import StepPlan
from vaeworks.training.run.init import initial_discriminator, initial_model, load_frozen
from vaeworks.training.state import TrainState
from vaeworks.training.step import training_step


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with weights of VGG16's first layers: random ones."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "vgg.safetensors"
    save_file({name: t.contiguous() for name, t in FEATURE_NETS["vgg16_conv1to3"]().state_dict().items()}, path)
    return path


def offline(config: TrainConfig, weights: Path) -> TrainConfig:
    """The recipe with the small network's weights where it names a network."""
    loss, regularizers, adversarial = config.loss, config.regularizers, config.adversarial
    if loss.perceptual.startswith(("lpips", "vgg16")):
        loss = dataclasses.replace(loss, perceptual="vgg16-conv1to3", perceptual_path=str(weights))
    if regularizers.alignment > 0:
        regularizers = dataclasses.replace(
            regularizers, alignment_network="vgg16_conv1to3", alignment_path=str(weights)
        )
    if adversarial.network is not None:
        adversarial = dataclasses.replace(adversarial, network_path=str(weights))
    return dataclasses.replace(config, loss=loss, regularizers=regularizers, adversarial=adversarial)


@pytest.mark.parametrize("name", RECIPES)
def test_every_tiny_recipe_takes_steps(name: str, weights: Path) -> None:
    """Two steps, the second with the discriminator in full: finite, and every weight that is trained has moved."""
    config = offline(recipe(f"{name}-tiny"), weights)
    config = dataclasses.replace(config, precision="fp32")
    frozen = load_frozen(config, torch.device("cpu"))
    trained = TrainState.of(
        initial_model(config),
        config,
        discriminator=initial_discriminator(config, frozen.judge),
        perceptual=frozen.perceptual,
        features=frozen.features,
        feature_channels=frozen.feature_channels,
    )
    before = {n: p.detach().clone() for n, p in trained.learner.named_parameters()}
    batch = random_batch(4, config.data.size)[:, : config.model.in_channels]
    plan = StepPlan("adversarial", train_discriminator=True, weight=1.0)
    results = [training_step(trained, batch, list(range(n, n + 4)), plan, lr=1e-2, first_counter=n) for n in (0, 4)]
    assert all(result.finite for result in results)
    moved = {n for n, p in trained.learner.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n, p in trained.learner.named_parameters() if p.requires_grad}
    assert ("discriminator_loss" in results[1].others) == config.adversarial.on


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_says_what_it_is(name: str) -> None:
    """A purpose, its command, and settings that are valid together."""
    make = RECIPES[name]
    config = make()
    assert purpose(make).endswith((".", ":")) or ": " in purpose(make)
    command = f"vaeworks train {name} "
    assert command in make.__doc__
    assert "--from" in make.__doc__ or config.finetune.part == "all"
    assert config.images > config.val_every


@pytest.mark.parametrize("group", ["bottlenecks", "regularizers", "losses", "discriminators"])
def test_comparisons_change_one_thing(group: str) -> None:
    """Recipes of a comparison differ from their control in what they are about, and in nothing else."""
    about = {
        "bottlenecks": ("model.", "loss.", "regularizers."),
        "regularizers": ("regularizers.", "loss.beta"),
        "losses": ("loss.",),
        "discriminators": ("adversarial.",),
    }[group]
    control = recipe("perceptual" if group == "discriminators" else "small-f8c16")
    for name, make in GROUPS[group].items():
        changed = differences(control, make())
        assert changed, name
        assert all(field.startswith(about) for field in changed), f"{name} changes {changed}"


def test_the_debate_is_covered() -> None:
    """Every claim of the debate has recipes, and they say so; every option of the trainer is in one of them."""
    claims = " ".join(claim(make) for make in RECIPES.values())
    for word in ("magic", "channels", "PatchGAN", "clamped", "noise", "semantic"):
        assert word.lower() in " ".join([claims, *map(purpose, RECIPES.values())]).lower()
    configs = [make() for make in RECIPES.values()]
    assert {c.model.bottleneck.bound for c in configs} >= {
        "none",
        "tanh",
        "softclamp",
        "clamp",
        "rmsnorm",
        "layernorm",
        "sphere",
    }
    assert {c.model.bottleneck.noise for c in configs} == {"none", "additive", "interpolative", "sigma"}
    assert {c.adversarial.discriminator for c in configs} == {
        "none",
        "patch",
        "modern",
        "residual",
        "unet",
        "projected",
    }
    assert {c.finetune.expects for c in configs} >= {"sd1", "sdxl", "sd3", "flux1", "flux2"}


def test_unknown_recipes_get_the_nearest() -> None:
    with pytest.raises(vw.ConfigError, match="did you mean 'sphere'"):
        recipe("spere")
    with pytest.raises(vw.ConfigError, match="did you mean"):
        recipe("spere-tiny")


def test_claims_are_read_from_docstrings() -> None:
    """One claim a recipe, without the command below it."""
    assert claim(RECIPES["tanh"]) == "bounding the latents is easy and rids us of the magic number."
    assert claim(RECIPES["demo"]) == ""
    assert all("vaeworks train" not in claim(make) for make in RECIPES.values())


def test_discriminators_have_defaults_that_are_off() -> None:
    assert not AdversarialConfig().on
