"""Names of modules that documents of 0.1 showed."""

from __future__ import annotations

import importlib
import sys

import pytest

from vaeworks.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_old_names_are_the_new_modules(old: str) -> None:
    """The module itself, with its own name and spec, and one warning."""
    sys.modules.pop(f"vaeworks.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"vaeworks.{old} is now vaeworks.{MOVED[old]}"):
        found = importlib.import_module(f"vaeworks.{old}")
    new = importlib.import_module(f"vaeworks.{MOVED[old]}")
    assert found is new
    assert found.__name__ == found.__spec__.name == f"vaeworks.{MOVED[old]}"


def test_other_names_are_not_found() -> None:
    """A name that never was is an error as ever."""
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("vaeworks.apps.nothing")
