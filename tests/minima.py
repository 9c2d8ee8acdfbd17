"""The oldest versions that pyproject.toml allows, as pip's constraints.

As a program, it prints constraints-oldest.txt.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEADER = """\
# The oldest versions that pyproject.toml allows, for `pip install --constraint`. `make constraints-oldest.txt` writes
# this file. Triton is missing, because every torch asks for one exact version of it.
"""
TOOLS = ("dev",)
"""Extras of which users need nothing."""


def minima() -> dict[str, str]:
    """The smallest version of each library that users install, by its name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lists = [project["dependencies"], *(extras[name] for name in extras if name not in TOOLS)]
    found = {}
    for requirement in (text for each in lists for text in each):
        if not requirement.startswith(f"{project['name']}["):
            parts = re.fullmatch(r"([\w.-]+)>=([\d.]+)(?:;.*)?", requirement)
            assert parts is not None, requirement
            name, version = parts.groups()
            found[name] = version
    return found


def constraints() -> str:
    """The text of constraints-oldest.txt."""
    oldest = minima()
    del oldest["triton"]
    return HEADER + "".join(f"{name}=={oldest[name]}\n" for name in sorted(oldest))


if __name__ == "__main__":
    print(constraints(), end="")
