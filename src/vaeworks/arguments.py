"""Arguments of public functions: what is accepted for a sequence, and names from a list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .errors import ConfigError


def several(value: Any) -> tuple[Any, ...]:
    """A sequence as a tuple. A single word, path, number or model stands for a sequence of one."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return (value,)
    return tuple(value)


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Errors: ConfigError for a value that is not among the choices."""
    if value not in (choices := list(choices)):
        raise ConfigError(f"{name} (={value!r}) must be one of {', '.join(choices)}")
