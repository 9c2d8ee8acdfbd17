"""The call that made a page: as a command line, or as Python where an argument is no text."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEFT_OUT = ("overwrite", "reporter")
"""Arguments that do not change the results."""

SETTINGS = "settings"
"""The argument of facts about the model, `--set NAME=VALUE` on the command line."""

MOST = 12
"""Inputs that the command line names; of more, the first ones."""


@dataclass(frozen=True)
class Call:
    """A call of a public function, and the command that calls it."""

    command: str
    function: Callable[..., Any]
    given: Mapping[str, Any]
    """all arguments by name, as `locals()` has them at the function's start"""
    positional: Sequence[str] = ("model", "inputs")
    """arguments that stand on the command line without a name"""
    names: Mapping[str, str] | None = None
    """options of other names than their arguments"""

    @property
    def line(self) -> str:
        """The command line with every option that is not the default's; in Python, if an argument is an object."""
        defaults = {name: p.default for name, p in inspect.signature(self.function).parameters.items()}
        asked = {
            name: value
            for name, value in self.given.items()
            if name not in LEFT_OUT and name not in self.positional and not _alike(value, defaults.get(name))
        }
        if not all(_is_plain(value) for name, value in self.given.items() if name not in LEFT_OUT):
            words = [_python(self.given[name]) for name in self.positional]
            words += [f"{name}={_python(value)}" for name, value in asked.items()]
            return f"vaeworks.{self.function.__name__}({', '.join(words)})"
        words = ["vaeworks", *self.command.split()]
        for name in self.positional:
            values = _several(self.given[name])
            words += [shlex.quote(value) for value in values[:MOST]]
            words += [f"... ({len(values) - MOST} more)"] if len(values) > MOST else []
        return " ".join([*words, *(word for name, value in asked.items() for word in self._option(name, value))])

    def _option(self, name: str, value: Any) -> list[str]:
        if name == SETTINGS:
            return [word for key, fact in value.items() for word in ("--set", shlex.quote(f"{key}={fact}"))]
        option = (self.names or {}).get(name, name).replace("_", "-")
        if isinstance(value, bool):
            return [f"--{option}" if value else f"--no-{option}"]
        return [f"--{option}", *map(shlex.quote, _several(value))]

    @property
    def settings(self) -> dict[str, str]:
        """Every argument and its value in words."""
        return {
            (self.names or {}).get(name, name).replace("_", " "): _words(value)
            for name, value in self.given.items()
            if name not in LEFT_OUT and not (_is_plain(value) and _is_nothing(value))
        }


def _alike(value: Any, default: Any) -> bool:
    if isinstance(value, (list, tuple)) and isinstance(default, (list, tuple)):
        return list(value) == list(default)
    return _is_plain(value) and (value == default or (default is None and not value and value is not False))


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, Path, int, float))


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, (list, tuple, Mapping)) and not value)


def _several(value: Any) -> list[str]:
    return [_word(each) for each in value] if isinstance(value, (list, tuple)) else [_word(value)]


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_words(each)}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        shown = ", ".join(_words(each) for each in value[:MOST])
        return f"{shown} and {len(value) - MOST} more" if len(value) > MOST else shown
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _word(value) if _is_plain(value) else _python(value)


def _python(value: Any) -> str:
    if isinstance(value, Path):
        return repr(str(value))
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_python, value[:MOST]))}{', ...' if len(value) > MOST else ''}]"
    return repr(value) if _is_plain(value) else f"<{type(value).__name__}>"
