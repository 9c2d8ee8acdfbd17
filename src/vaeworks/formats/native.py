"""Our own layout: one safetensors file with our tensor names and the configuration in its metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..config import OPEN, AutoencoderConfig, TinyConfig, abridged, from_dict, to_dict
from ..errors import ConfigError, FormatError
from ..files.atomic import MAX_CONFIG

METADATA_KEY = "vaeworks"
"""Key of the configuration in the safetensors metadata of every layout; other readers ignore it."""

VERSION = 2
"""Version of metadata that leave out unknown settings; if all are known, the version is 1."""

_NETWORKS: dict[str, type[AutoencoderConfig] | type[TinyConfig]] = {"kl": AutoencoderConfig, "tiny": TinyConfig}


def config_metadata(config: AutoencoderConfig | TinyConfig) -> dict[str, str]:
    """A configuration as safetensors metadata, without guesses; readers guess again."""
    network = next(name for name, kind in _NETWORKS.items() if isinstance(config, kind))
    values = {"version": VERSION if config.guesses else 1, "network": network, "autoencoder": known_settings(config)}
    return {METADATA_KEY: json.dumps(values)}


def known_settings(config: AutoencoderConfig | TinyConfig) -> dict[str, Any]:
    """A configuration as plain JSON values, without guesses."""
    values = to_dict(config)
    values.pop("guessed", None)
    for name in _with_shift(config.guesses):
        part, _, field = name.rpartition(".")
        del (values[part] if part else values)[field]
    return values


def _with_shift(names: Iterable[str]) -> tuple[str, ...]:
    """The settings, and shift_factor with scaling_factor: they are known together."""
    names = tuple(names)
    return (*names, "shift_factor") if "scaling_factor" in names else names


def config_from_metadata(
    metadata: Mapping[str, str], where: str, guess: Callable[[], AutoencoderConfig | TinyConfig]
) -> AutoencoderConfig | TinyConfig | None:
    """The configuration in a file's metadata; None if they hold none.

    guess: makes the configuration that missing settings are taken from.
    Errors: FormatError for a configuration that this version cannot read.
    """
    if METADATA_KEY not in metadata:
        return None
    text = metadata[METADATA_KEY]
    if len(text) > MAX_CONFIG:
        raise FormatError(
            f"{where}: the configuration in its metadata has {len(text)} characters, more than {MAX_CONFIG}; take "
            "another copy"
        )
    try:
        values = json.loads(text)
        if isinstance(version := values.get("version", 1), int) and version > VERSION:
            raise FormatError(
                f"{where} was written by a newer vaeworks (its metadata have version {abridged(version)}); update "
                "vaeworks"
            )
        kind, told = _NETWORKS[values.get("network", "kl")], values["autoencoder"]
        return from_dict(kind, told) if kind is TinyConfig else _with_the_rest(told, guess)
    except (ValueError, KeyError, TypeError, AttributeError, ConfigError, RecursionError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(
            f"{where}: the configuration in its metadata cannot be read: {error}; take another copy, or delete the key "
            f"{METADATA_KEY!r} there"
        ) from None


def _with_the_rest(told: dict[str, Any], guess: Callable[[], AutoencoderConfig | TinyConfig]) -> AutoencoderConfig:
    """The configuration of a KL autoencoder, with guesses for missing settings."""
    missing = [name for name in OPEN if _is_missing(told, name)]
    if not missing:
        return from_dict(AutoencoderConfig, told)
    guessed = guess()
    values = to_dict(guessed) if isinstance(guessed, AutoencoderConfig) else to_dict(AutoencoderConfig())
    whole = dict(told)
    for name in _with_shift(missing):
        part, _, field = name.rpartition(".")
        if part:
            whole[part] = {**whole[part], field: values[part][field]}
        else:
            whole[field] = values[field]
    return from_dict(AutoencoderConfig, whole).mark_guesses(name for name in missing if name in guessed.guesses)


def _is_missing(told: Mapping[str, Any], name: str) -> bool:
    part, _, field = name.rpartition(".")
    return field not in (told.get(part, {field: None}) if part else told)
