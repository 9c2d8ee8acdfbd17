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
    """A configuration as plain JSON values."""
    return dataclasses.asdict(config)


MAX_ITEMS = 10_000
"""Longest list in a configuration; the statistics of latents have one number for each channel."""

MAX_INTEGER = 2**63 - 1
"""Largest integer in a configuration, counters of images included."""

_ABRIDGED = reprlib.Repr()
_ABRIDGED.maxlevel = 4
_ABRIDGED.maxlist = _ABRIDGED.maxtuple = _ABRIDGED.maxdict = 20
_ABRIDGED.maxstring = _ABRIDGED.maxother = _ABRIDGED.maxlong = 100


def abridged(value: Any) -> str:
    """A plain value as it may stand in a message: whole where it is short."""
    return _ABRIDGED.repr(value)


T = TypeVar("T")


def from_dict(kind: type[T], values: dict[str, Any]) -> T:
    """A configuration from JSON values, checked against its fields.

    Errors: ConfigError names the field that is unknown or of the wrong type.
    """
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        raise ConfigError(f"{kind.__name__} has no field {abridged(unknown)[1:-1]}")
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
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ConfigError(f"{where} is an integer beyond {MAX_INTEGER}")
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
