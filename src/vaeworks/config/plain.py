"""Configurations as plain JSON values, and back, checked."""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
import types
import typing
from dataclasses import fields
from typing import Any, Literal, TypeVar

from ..errors import ConfigError

LIMIT = 2**64
"""Bound of whole numbers in files: larger ones are no setting, and cannot become floats."""

SHOWN = 100
"""Most characters of a value in a message."""

MOST_SIDE, MOST_WORKERS, MOST_BATCH, MOST_HALVINGS, MOST_WIDTH = 2**16, 1024, 2**20, 30, 2**16
"""Limits that no machine reaches. Numbers from files are checked against them before memory is allocated."""


def dumps(value: Any) -> str:
    """JSON of plain values; numbers that JSON does not know become null."""

    def plain(v: Any) -> Any:
        if isinstance(v, dict):
            return {str(k): plain(x) for k, x in v.items()}
        if isinstance(v, (list, tuple)):
            return [plain(x) for x in v]
        return None if isinstance(v, float) and not math.isfinite(v) else v

    return json.dumps(plain(value), indent=2)


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values. `guessed` is left out where it is empty."""
    return dataclasses.asdict(
        config, dict_factory=lambda items: {name: value for name, value in items if value or name != "guessed"}
    )


MAX_ITEMS = 10_000
"""Longest list in a configuration; the statistics of latents have one number for each channel."""

_ABRIDGED = reprlib.Repr()
_ABRIDGED.maxlevel = 3
_ABRIDGED.maxlist = _ABRIDGED.maxtuple = _ABRIDGED.maxdict = 30
_ABRIDGED.maxstring = _ABRIDGED.maxother = _ABRIDGED.maxlong = SHOWN


def abridged(value: Any) -> str:
    """A value in a message: shortened, because values of files have any length and depth."""
    if isinstance(value, dict):
        return "an object"
    text = _ABRIDGED.repr(value)
    if len(text) <= SHOWN:
        return text
    return f"a list of {len(value)}" if isinstance(value, (list, tuple)) else f"{text[:SHOWN]}..."


T = TypeVar("T")


def from_dict(kind: type[T], values: dict[str, Any]) -> T:
    """A configuration from JSON values, checked against its fields.

    Errors: ConfigError names the field that is unknown or of the wrong type.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{kind.__name__} must be an object, not {abridged(values)}")
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        raise ConfigError(f"{kind.__name__} has no field {abridged(', '.join(unknown))}")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _value(f"{kind.__name__}.{name}", hints[name], value) for name, value in values.items()})


def _value(where: str, hint: Any, value: Any) -> Any:
    """JSON value as the type of `hint`: nested dataclasses, lists as tuples, ints as floats."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    hint = next(option for option in options if option is not type(None))
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(hint, value)  # type: ignore[arg-type]
    if origin is tuple and isinstance(value, (list, tuple)):
        kind = typing.get_args(hint)[0]
        if len(value) > MAX_ITEMS:
            raise ConfigError(f"{where} has {len(value)} entries, more than {MAX_ITEMS}")
        return tuple(_value(where, kind, v) for v in value)
    if origin is Literal and value in typing.get_args(hint):
        return value
    if type(value) is int and abs(value) >= LIMIT:
        raise ConfigError(f"{where} cannot be a number of {value.bit_length()} bits; none has more than 64")
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if isinstance(hint, type) and origin is None and type(value) is hint:
        return value
    raise ConfigError(f"{where} cannot be {abridged(value)}")


def differences(a: Any, b: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Fields in which two configurations of one kind differ, as {dotted name: (value in a, value in b)}."""
    found: dict[str, tuple[Any, Any]] = {}
    for f in fields(a):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if dataclasses.is_dataclass(x):
            found |= differences(x, y, f"{prefix}{f.name}.")
        elif x != y:
            found[prefix + f.name] = (x, y)
    return found


def check_not_negative(config: object, *names: str) -> None:
    """Errors: ConfigError for a field that is negative or no number."""
    for name in names:
        value = getattr(config, name)
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{name} (={value}) must be finite and not negative")
