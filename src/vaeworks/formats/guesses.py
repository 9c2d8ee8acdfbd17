"""Settings of a VAE that neither names nor shapes of tensors show: guesses, sentences about them, a user's settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal

from ..config import MODELS, OPEN, AutoencoderConfig, TinyConfig, from_dict, to_dict
from ..config.model import setting
from ..errors import ConfigError
from ..recipes import RECIPES
from ..recipes.tiny import tiny
from . import kinds
from .archive.entries import Entry
from .shapes import PUBLISHED, in_shapes, same_architecture

Config = AutoencoderConfig | TinyConfig

NETWORK = ("norm_groups", "norm_eps", "padding_mode", "num_heads")
"""Settings in OPEN that are taken from a recipe or a published VAE with the same blocks."""

OF_LATENTS = ("in_channels", "out_channels", "latent_channels", "quant_conv", "post_quant_conv", "batchnorm")
"""Facts in shapes that are not about the blocks: a recipe's latents are changed more often than its network."""

BOTTLENECK = ("bound", "limit")

PARTNERS = {"shift_factor": "scaling_factor", "bottleneck.limit": "bottleneck.bound"}
"""Settings that are guesses whenever another one is."""

SETTINGS = ("scale_of", "scaling_factor", "shift_factor", *NETWORK, *BOTTLENECK)
"""Settings that a user may give for a file that leaves them out. scale_of: the name of the published VAE with the same
scale and shift."""


# Guessing


def with_guesses(config: Config, entries: Mapping[str, Entry]) -> Config:
    """The architecture that shapes show, with guesses for the other settings.

    The constants of a checkpoint around the VAE are facts. Guesses are from the published VAE of this architecture, or
    from a recipe of ours with these blocks.
    """
    if isinstance(config, TinyConfig):
        return config  # it has no such settings, and its latents are normalized already
    config = _with_network(config)
    guesses = [name for name in OPEN if name != "num_heads" or config.mid_attention or config.attention_factors]
    if config.bottleneck.kind == "kl":
        guesses.remove("bottleneck.bound")
    if config.normalization != "scalar":
        return config.mark_guesses(guesses)
    family = kinds.checkpoint_family(entries)
    if family is not None and family.latent_channels == config.latent_channels and family.scaling_factor is not None:
        config = config.with_facts(scaling_factor=family.scaling_factor, shift_factor=family.shift_factor or 0.0)
        guesses.remove("scaling_factor")
    elif known := _scaled(config):
        first = next(iter(known.values()))
        config = dataclasses.replace(config, scaling_factor=first.scaling_factor, shift_factor=first.shift_factor)
    return config.mark_guesses(guesses)


def scale_source(config: Config) -> Literal["family", "unknown"]:
    """The source of a scale that is in no file: the published VAE of this architecture, or none."""
    return "unknown" if not config.normalization_known and not _scaled(config) else "family"


def _scaled(config: Config) -> dict[str, AutoencoderConfig]:
    """The published VAEs of this architecture that have a scale, by name."""
    return {name: published for name, published in same_architecture(config).items() if published.scaling_factor != 1}


def _with_network(config: AutoencoderConfig) -> AutoencoderConfig:
    """The configuration with the settings of the networks that have these blocks, if they agree."""
    known = _alike(config)
    found = {tuple(getattr(c, name) for name in NETWORK) for c in known.values()}
    return dataclasses.replace(config, **dict(zip(NETWORK, found.pop(), strict=True))) if len(found) == 1 else config


def _alike(config: AutoencoderConfig) -> dict[str, AutoencoderConfig]:
    """Published VAEs, else recipes, that have these blocks, by name."""
    blocks = _blocks(config)
    for models in (PUBLISHED, _ours()):
        if found := {name: c for name, c in models.items() if _blocks(c) == blocks}:
            return found
    return {}


def _blocks(config: AutoencoderConfig) -> dict[str, Any]:
    return {name: value for name, value in in_shapes(config).items() if name not in OF_LATENTS}


@lru_cache(maxsize=1)
def _ours() -> dict[str, AutoencoderConfig]:
    """The networks of our own recipes, in both sizes."""
    recipes = {name: make() for name, make in RECIPES.items() if name != "demo"}  # which is small-f8c16 again
    return MODELS | {n: c.model for n, c in recipes.items()} | {f"{n}-tiny": tiny(c).model for n, c in recipes.items()}


# In words


def ambiguity(config: Config) -> str:
    """A sentence on the scale that is assumed for the latents; empty if it is known."""
    if config.normalization_known:
        return ""
    known = list(_scaled(config).items())
    told = "give it with --scale-of or --set scaling_factor=NUMBER; in Python, load(FILE, scale_of=...)"
    if not known:
        return f"it does not say how its latents are scaled: {_scale(config)} is taken; {told}"
    name, first = next(((n, c) for n, c in known if c.scaling_factor == config.scaling_factor), known[0])
    others = [f"{n} ({c.scaling_factor})" for n, c in known if c.scaling_factor != first.scaling_factor]
    but = f", but it may be {', '.join(others)}" if others else ""
    return f"it does not say how its latents are scaled: taken for {name} ({first.scaling_factor}){but}; {told}"


def assumption(config: Config) -> str:
    """A sentence on the settings that are assumed for the network; empty if they are known, or published."""
    if not isinstance(config, AutoencoderConfig):
        return ""
    alike = _alike(config)
    silent = NETWORK if alike.keys() & PUBLISHED.keys() else ()
    guesses = [
        guess
        for guess in config.guessed
        if (name := guess.partition("=")[0]) != "scaling_factor" and name not in silent
    ]
    if not guesses:
        return ""
    words = ", ".join(guess.replace("=", " ").replace("bottleneck.", "") for guess in guesses)
    shape = in_shapes(config)
    whose = (
        f"as in {next((name for name, c in alike.items() if in_shapes(c) == shape), next(iter(alike)))}"
        if alike
        else "as defaults"
    )
    setting = guesses[0].partition("=")[0].rpartition(".")[2]
    return (
        f"its shapes do not show {words}: {'this is' if len(guesses) == 1 else 'these are'} assumed {whose}; if images "
        f"are bad, give it with --set {setting}=VALUE (`vaeworks eval` compares), in Python load(FILE, {setting}=...)"
    )


def _scale(config: Config) -> str:
    return f"{config.scaling_factor:g}" + (f" after a shift of {config.shift_factor:g}" if config.shift_factor else "")


# A user's settings


def with_settings(config: Config, settings: Mapping[str, Any], where: str) -> tuple[Config, tuple[str, ...]]:
    """The configuration with a user's settings as facts, and a sentence for each fact of the file that they replace.

    Errors: ConfigError for a name outside SETTINGS, an impossible value, and a value that contradicts the shapes.
    """
    if unknown := sorted(set(settings) - set(SETTINGS)):
        raise ConfigError(f"unknown setting {unknown[0]}; known: {', '.join(SETTINGS)}")
    values = dict(settings)
    if isinstance(config, TinyConfig) and (odd := values.keys() - {"scaling_factor", "shift_factor"}):
        raise ConfigError(f"{where} is a TAESD, which has no setting {min(odd)}")
    if "scale_of" in values:
        values |= _scale_of(
            values.pop("scale_of"), config, where, taken=values.keys() & {"scaling_factor", "shift_factor"}
        )
    if values.keys() & {"scaling_factor", "shift_factor"}:
        values |= _whole_scale(values, config, where)
    if "limit" in values and "bound" not in values and "bottleneck.bound" in config.guesses:
        raise ConfigError(f"{where} does not say how its latents are bounded; give bound together with limit")
    bottleneck = {name: values.pop(name) for name in BOTTLENECK if name in values}
    plain = to_dict(config)
    if bottleneck:
        values["bottleneck"] = {**plain["bottleneck"], **bottleneck}
    try:
        told = config.with_facts(**_fields(from_dict(type(config), {**plain, **values}), values))
    except (ConfigError, OverflowError) as error:  # an integer beyond all floats
        raise ConfigError(f"{where} cannot have {_listed(settings)}: {error}") from None
    return told, tuple(_replaced(config, told))


def _fields(config: Config, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names}


def _scale_of(name: Any, config: Config, where: str, taken: Iterable[str]) -> dict[str, float]:
    scaled = [n for n, c in PUBLISHED.items() if c.normalization == "scalar" and c.scaling_factor != 1]
    if name not in scaled:
        raise ConfigError(f"scale_of (={name!r}) must be one of {', '.join(scaled)}")
    if both := sorted(taken):
        raise ConfigError(f"scale_of gives {both[0]} as well; give one of the two")
    published = PUBLISHED[name]
    if published.name != config.name:
        raise ConfigError(f"{name} is {published.name}, {where} is {config.name}: they cannot have one scale")
    return {"scaling_factor": published.scaling_factor, "shift_factor": published.shift_factor}


def _whole_scale(values: Mapping[str, Any], config: Config, where: str) -> dict[str, Any]:
    """Scale and shift, one of which may be left out. A shift that is unknown is the published one for this scale."""
    if config.normalization == "batchnorm":
        raise ConfigError(f"{where} has batch normalization's statistics among its weights, and no scaling_factor")
    found = {"normalization": "scalar", "shift_factor": config.shift_factor, "scaling_factor": config.scaling_factor}
    if not config.normalization_known:
        if "scaling_factor" not in values:
            raise ConfigError(
                f"{where} does not say how its latents are scaled; give scaling_factor together with shift_factor"
            )
        published = [c for c in _scaled(config).values() if c.scaling_factor == values["scaling_factor"]]
        found["shift_factor"] = published[0].shift_factor if published else 0.0
    return {**found, **values}


def _replaced(before: Config, after: Config) -> Iterator[str]:
    """A sentence for each fact that a setting replaces."""
    for name in (
        "normalization",
        "scaling_factor",
        "shift_factor",
        *NETWORK,
        *(f"bottleneck.{part}" for part in BOTTLENECK),
    ):
        if name in before.guesses or PARTNERS.get(name) in before.guesses:
            continue
        old, new = (setting(config, name) for config in (before, after))
        if old != new:
            yield f"its file says {name.rpartition('.')[2]} {old}; {new} was given and replaces it"


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())
