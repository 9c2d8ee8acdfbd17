"""The version, wherever it is written: in the package, in CHANGELOG.md, in CITATION.cff, and in a release's tag.

    python tests/release.py v0.2.0

The program ends with 1 if they disagree, and says where.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def first(pattern: str, file: str) -> tuple[str, ...]:
    """The groups of a pattern's first match in a file of the repository."""
    found = re.search(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    return found.groups() if found else ()


def disagreements(tag: str | None = None) -> list[str]:
    """What does not fit to the package's version, one sentence each. tag: of a release, or None."""
    (version,) = first(r'^__version__ = "([\d.]+)"$', "src/vaeworks/__init__.py")
    released = first(r"^## \[(\d[\d.]*)\] - (\d{4}-\d\d-\d\d)$", "CHANGELOG.md")
    cited = first(r"^version: (\S+)$", "CITATION.cff") + first(r"^date-released: (\S+)$", "CITATION.cff")
    found = []
    if tag is not None and tag != f"v{version}":
        found.append(f"the tag is {tag}, and __version__ is {version}; tag the commit v{version}")
    if released[:1] != (version,):
        found.append(f"the newest release of CHANGELOG.md is {released[:1]}, and __version__ is {version}")
    if cited != released:
        found.append(f"CITATION.cff states {cited}, and CHANGELOG.md {released}")
    return found


if __name__ == "__main__":
    problems = disagreements(*sys.argv[1:2])
    print("\n".join(problems) or "version, changelog and citation agree")
    sys.exit(bool(problems))
