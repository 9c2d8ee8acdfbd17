"""What a file may only ask for: code to run, and what is fetched from a network or told to it. A user has to name it as
well.

A run's record is a file, and files come from anywhere. Its names of such things are kept in types of their own, which
are equal to the same text from a user and yet told from it. The command line's defaults are a record's values, so that
an option that is given in a call replaces the one by the other.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Collection, Iterator
from typing import Any

from ..errors import ConfigError
from .training import TrainConfig


class Recorded(str):
    """A text that a file has, and no user has repeated."""


class RecordedNames(tuple):
    """Names that a file has, and no user has repeated."""


HUB = "hf:"
"""What a source begins with that is of the hub."""

STREAM = "stream:"
"""What a source begins with that is read from front to back; what is behind it may be of the hub."""

NETWORKS = ("regularizers.alignment_network", "adversarial.network")
"""Settings that may name code (MODULE:FUNCTION), or a network that another library loads."""

PLACES = ("finetune.path", "finetune.teacher", "data.val")
"""Settings that may name what is on this machine, read as data, or what is on the hub."""

REMOTE_TRACKERS = ("wandb",)
"""Trackers that send figures and pictures away."""

_OPTIONS = {"finetune.path": "--from"}
"""Of the command line, where it is not the setting's own name."""


def recorded(config: TrainConfig) -> TrainConfig:
    """The same configuration as one that was read from a file."""
    for setting in (*NETWORKS, *PLACES):
        if (value := _get(config, setting)) is not None:
            config = _with(config, setting, Recorded(value))
    return dataclasses.replace(config, trackers=RecordedNames(config.trackers))


def check_asked(config: TrainConfig, known: Collection[str]) -> None:
    """Check that whatever a configuration would run, or reach a network for, was named by a user and not by a file
    alone.

    known: networks that may be named anywhere, because they are this package's own.
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
    """Options that the command line wants again, to go on with a run of this configuration."""
    return [word for setting, words in _asking(config, known) for word in (_option(setting), *words)]


def _asking(config: TrainConfig, known: Collection[str]) -> Iterator[tuple[str, list[str]]]:
    """(setting, its words) of what runs code or reaches a network."""
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
