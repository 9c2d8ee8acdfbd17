"""Settings that a file alone must not decide: code to run, and data to fetch from or send to a network.

A run's record is a file, and files come from anywhere. So a user has to repeat such settings. Values from a file have
types of their own, which equal the same text from a user but can be told apart. The command line's defaults are a
record's values, and an option in a call replaces the file's value by the user's.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Collection, Iterator
from typing import Any

from ..errors import ConfigError
from .training import TrainConfig


class Recorded(str):
    """A text from a file that no user has repeated."""


class RecordedNames(tuple):
    """Names from a file that no user has repeated."""


HUB = "hf:"
"""Prefix of a source on the hub."""

STREAM = "stream:"
"""Prefix of a source that is read from front to back; a source on the hub may follow."""

NETWORKS = ("regularizers.alignment_network", "adversarial.network")
"""Settings that may name code (MODULE:FUNCTION), or a network that another library loads."""

PLACES = ("finetune.path", "finetune.teacher", "data.val")
"""Settings that may name a place on this machine, which is read as data, or on the hub."""

REMOTE_TRACKERS = ("wandb",)
"""Trackers that send figures and pictures away."""

_OPTIONS = {"finetune.path": "--from"}
"""Command-line options whose name is not the setting's."""


def recorded(config: TrainConfig) -> TrainConfig:
    """The same configuration, marked as read from a file."""
    for setting in (*NETWORKS, *PLACES):
        if (value := _get(config, setting)) is not None:
            config = _with(config, setting, Recorded(value))
    return dataclasses.replace(config, trackers=RecordedNames(config.trackers))


def check_asked(config: TrainConfig, known: Collection[str]) -> None:
    """Check that a user, and not a file alone, has named the code and the network places of a configuration.

    known: networks that a file may name, because they are this package's own.
    Errors: ConfigError, which names the first such setting and how to allow it.
    """
    for setting, words in _asking(config, known):
        if isinstance(_get(config, setting), (Recorded, RecordedNames)):
            does = "sends figures and pictures away" if setting == "trackers" else "can run code or reach a network"
            raise ConfigError(
                f"the run's record asks for {setting} {shlex.join(words)}, which {does}, and a file alone may not; if "
                f"you trust it, give {shlex.join([_option(setting), *words])} again"
            )


def asked_options(config: TrainConfig, known: Collection[str]) -> list[str]:
    """Options that have to be repeated to resume a run of this configuration."""
    return [word for setting, words in _asking(config, known) for word in (_option(setting), *words)]


def _asking(config: TrainConfig, known: Collection[str]) -> Iterator[tuple[str, list[str]]]:
    """(setting, its words) for every setting that runs code or reaches a network."""
    for setting in NETWORKS:
        value = _get(config, setting)
        if value is not None and value not in known:
            yield setting, [value]
    for setting in PLACES:
        value = _get(config, setting)
        if value is not None and value.removeprefix(STREAM).startswith(HUB):
            yield setting, [value]
    if set(REMOTE_TRACKERS).intersection(config.trackers):
        yield "trackers", list(config.trackers)


def _option(setting: str) -> str:
    return _OPTIONS.get(setting, "--" + setting.replace("_", "-"))


def _get(config: Any, setting: str) -> Any:
    for name in setting.split("."):
        config = getattr(config, name)
    return config


def _with(config: TrainConfig, setting: str, value: str) -> TrainConfig:
    part, name = setting.split(".")
    return dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **{name: value})})
