"""Recipes: each says what it is for, is one change to its control, and takes steps on a network that trains in
seconds."""

from __future__ import annotations

import dataclasses
import re
import shlex
from operator import attrgetter
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from runs import random_batch
from safetensors.torch import save_file

import vaeworks as vw
from vaeworks.cli import main
from vaeworks.config import (
    AdversarialConfig,
    BottleneckConfig,
    FinetuneConfig,
    RegularizerConfig,
    TrainConfig,
    differences,
)
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
def test_every_recipe_says_what_it_is(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A purpose of one line, and a command whose options exist: all that it lacks are the files that it names."""
    make = RECIPES[name]
    config = make()
    assert len(purpose(make)) > 20
    assert config.images > config.val_every
    line = re.search(r"^ *(vaeworks train .*?)(?: {2,}.*)?$", make.__doc__ or "", re.MULTILINE)
    assert line is not None
    program, command, recipe_name, *options = shlex.split(line[1])
    assert (program, command, recipe_name) == ("vaeworks", "train", name)
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert {"--data", "--out"} <= given.keys()
    assert ("--from" in given) == config.finetune.required
    given |= {"--data": str(tmp_path / "no-images"), "--out": str(tmp_path / "run")}
    if "--from" in given:
        given["--from"] = str(tmp_path / "no-vae")
    assert main(["train", name, *(word for pair in given.items() for word in pair)]) == 2
    message = capsys.readouterr().err
    assert str(tmp_path / "no-") in "".join(message.split("\n")), message


ABOUT = {
    "bottlenecks": ("model.bottleneck.", "model.normalization", "model.latents_patch", "loss.beta", "regularizers."),
    "regularizers": ("regularizers.", "loss.beta"),
    "losses": ("loss.reconstruction", "loss.perceptual"),
    "discriminators": ("adversarial.",),
}
"""Settings that the recipes of a comparison may change."""


@pytest.mark.parametrize("group", ABOUT)
def test_comparisons_change_one_thing(group: str) -> None:
    """Recipes of a comparison differ from their control and from each other in what they are about, and nothing else.

    Each has a claim of its own.
    """
    control = recipe("perceptual" if group == "discriminators" else "small-f8c16")
    members = {name: make() for name, make in GROUPS[group].items()}
    for name, config in members.items():
        changed = differences(control, config)
        about = (*ABOUT[group], "loss.reconstruction") if name == "sigma-vae" else ABOUT[group]
        assert changed, name
        assert all(field.startswith(about) for field in changed), f"{name} changes {changed}"
    assert len({repr(config) for config in members.values()}) == len(members)
    claims = [claim(make) for make in GROUPS[group].values()]
    assert all(claims) and len(set(claims)) == len(claims)


SETTINGS: dict[str, tuple[type, set[str]]] = {
    "model.bottleneck.kind": (BottleneckConfig, set()),
    "model.bottleneck.bound": (BottleneckConfig, set()),
    "model.bottleneck.noise": (BottleneckConfig, set()),
    "adversarial.discriminator": (AdversarialConfig, set()),
    "adversarial.stage": (AdversarialConfig, set()),
    "adversarial.loss": (AdversarialConfig, {"least-squares", "vanilla"}),
    "finetune.part": (FinetuneConfig, set()),
}
"""Choices of the debate: where each is declared, and values that no recipe has."""


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_debate_is_covered(setting: str) -> None:
    """Every value that a choice can have is in a recipe."""
    owner, left_out = SETTINGS[setting]
    values = set(get_args(get_type_hints(owner)[setting.rpartition(".")[2]]))
    assert {attrgetter(setting)(make()) for make in RECIPES.values()} == values - left_out


def test_every_term_of_the_debate_is_on_in_a_recipe() -> None:
    """Regularizers by their weights; fine-tuning by the models that it expects."""
    configs = [make() for make in RECIPES.values()]
    on = set().union(*(differences(RegularizerConfig(), config.regularizers) for config in configs))
    weights = {field.name for field in dataclasses.fields(RegularizerConfig) if field.default == 0.0}
    assert weights and weights <= on
    assert {config.finetune.expects for config in configs} >= {"sd1", "sdxl", "sd3", "flux1", "flux2"}


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


def test_only_recipes_with_a_discriminator_build_one() -> None:
    """It is off by default."""
    assert not AdversarialConfig().on
    for name in ("small-f8c16", "lpips", "finetune"):
        assert initial_discriminator(recipe(f"{name}-tiny"), None) is None
    assert initial_discriminator(recipe("patchgan-tiny"), None) is not None
