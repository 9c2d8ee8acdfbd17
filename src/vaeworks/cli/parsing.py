"""From words to a call: the parser that signatures and settings make, its help and its errors."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import re
from collections.abc import Callable
from typing import Annotated, Any

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo

from ..config import DataConfig, LatentConfig, LossConfig, OptimizerConfig, PaintConfig, TrainConfig
from ..errors import ConfigError
from .mistakes import sentence
from .options import arg

ALL = "--help-all"
"""Shows every option of a command; --help shows the most used ones of a recipe's many."""

BRIEF: dict[type, tuple[str, ...]] = {
    TrainConfig: (
        "data", "loss", "optimizer",
        "images", "batch", "micro_batch", "max_minutes", "ema_halflife", "precision", "gradient_checkpointing",
        "compile", "val_every", "save_every", "log_every", "trackers", "seed", "device",
    ),
    DataConfig: ("size", "val_fraction", "workers"),
    LossConfig: ("beta", "perceptual_weight"),
    OptimizerConfig: ("lr",),
    PaintConfig: (
        "optimizer", "size", "flip", "standardize", "caption_dropout", "images", "batch", "micro_batch", "max_minutes",
        "precision", "val_every", "save_every", "prompts", "guidance", "steps", "trackers", "seed", "device",
    ),
}  # fmt: skip
"""The settings that --help shows of each kind; with RECIPE, --data, --out, --resume and --from they are 25."""

OLD_NAMES = {"--minutes": "--max-minutes"}
"""Options by names that they had, which are still taken."""


def parsed(name: str, function: Callable[..., Any], words: list[str], about: str) -> Any:
    """What `function` returns for a command's words. about: the command's description.

    Errors: ConfigError for words that do not fit its signature. SystemExit(0) after help.
    """
    command = f"vaeworks {name}"
    words = [ALL if word.replace("_", "-") == ALL else word for word in words]
    everything = ALL in words
    words = ["--help" if word == ALL else word for word in _with_present_names(name, words)]
    brief = name == "train" and not everything and bool({"-h", "--help"} & set(words))
    more = f"\nThese are the options that are used most: {command} {ALL} lists all." if brief else ""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), _settings(brief):
            return tyro.cli(function, prog=command, args=words, description=about + more)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ConfigError(sentence(said.getvalue(), command, [*_options(function), ALL], words)) from None


def _with_present_names(name: str, words: list[str]) -> list[str]:
    """The words, with options that had another name under their present one."""
    if name not in ("train", "demo"):
        return words
    return [
        OLD_NAMES[option] + equals + value if option in OLD_NAMES else word
        for word in words
        for option, equals, value in [word.partition("=")]
    ]


def _options(function: Callable[..., Any]) -> list[str]:
    """The options of a command, as its help lists them."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), _settings(brief=False), contextlib.suppress(SystemExit):
        tyro.cli(function, args=["--help"])
    listed = re.findall(r"^[│\s]*(-[^\n]*)", shown.getvalue(), re.M)
    return list(dict.fromkeys(option for line in listed for option in re.findall(r"--[a-z][\w.-]*", line)))


def _settings(brief: bool) -> ConstructorRegistry:
    """How the parser reads classes: all fields are options but a model's `guessed`, which says how sure the others
    are. brief: only those of BRIEF, which is enough for help."""
    registry = ConstructorRegistry()
    asked: list[StructTypeInfo] = []

    @registry.struct_rule
    def as_options(info: StructTypeInfo) -> StructConstructorSpec | None:
        if asked or not (isinstance(info.type, type) and dataclasses.is_dataclass(info.type)):
            return None
        asked.append(info)  # so that the parser's own rule answers
        try:
            spec = ConstructorRegistry.get_struct_spec(info)
        finally:
            asked.clear()
        assert isinstance(spec, StructConstructorSpec)
        fields, make = spec.fields, spec.instantiate
        if issubclass(info.type, LatentConfig):
            make = functools.partial(make, guessed=getattr(info.default, "guessed", ()))
            fields = tuple(field for field in fields if field.name != "guessed")
        if brief and info.type in BRIEF:
            fields = tuple(field for field in fields if field.name in BRIEF[info.type])
        hinted = tuple(
            dataclasses.replace(field, type=Annotated[field.type, arg()])  # type: ignore[arg-type]
            if field.default in ("", (), None)
            else field
            for field in fields
        )
        return dataclasses.replace(spec, instantiate=make, fields=hinted)

    return registry
