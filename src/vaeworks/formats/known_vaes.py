"""VAEs that the user has given names, by their content hashes: `inspect` and `match` call them by name.

No hashes are built in: our content hash is of the weights' values, and no published fact gives it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from ..errors import ConfigError, FormatError
from ..files.atomic import read_json, write_text

FILE = "known-vaes.json"


def known_file() -> Path:
    """The list: $VAEWORKS_CONFIG/known-vaes.json, else $XDG_CONFIG_HOME/vaeworks/known-vaes.json (~/.config)."""
    if base := os.environ.get("VAEWORKS_CONFIG"):
        return Path(base) / FILE
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config", "vaeworks", FILE)


def known_vaes() -> dict[str, str]:
    """Content hash -> name. Errors: FormatError for a list that is none."""
    path = known_file()
    if not path.is_file():
        return {}
    values = read_json(path)
    if not all(isinstance(x, str) for pair in values.items() for x in pair):
        raise FormatError(f"{path} is no list of names by content hashes; mend or delete it")
    return values


def remember(content_hash: str, name: str) -> Path:
    """Give the VAE of this content hash a name. Returns the list's file.

    Errors: ConfigError for a name that another VAE has, and for an empty or unprintable one.
    """
    if not name.strip() or not name.isprintable():
        raise ConfigError(f"the name {name[:40]!r} must be printable text")
    known = known_vaes()
    if other := next((h for h, n in known.items() if n == name and h != content_hash), None):
        raise ConfigError(f"{name!r} is the name of another VAE (content hash {other}); choose another name")
    path = known_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(known | {content_hash: name}, indent=2, ensure_ascii=False) + "\n")
    return path
