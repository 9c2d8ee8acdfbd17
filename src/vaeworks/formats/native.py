"""Our own layout: one safetensors file with our names and the configuration in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..config import AutoencoderConfig, TinyConfig, from_dict, to_dict
from ..errors import ConfigError, FormatError
from .files import MAX_CONFIG

METADATA_KEY = "vaeworks"
"""Key under which every layout carries the configuration in safetensors metadata; other readers ignore it."""

VERSION = 1

_NETWORKS: dict[str, type[AutoencoderConfig] | type[TinyConfig]] = {"kl": AutoencoderConfig, "tiny": TinyConfig}


def config_metadata(config: AutoencoderConfig | TinyConfig) -> dict[str, str]:
    """A configuration as safetensors metadata."""
    network = next(name for name, kind in _NETWORKS.items() if isinstance(config, kind))
    return {METADATA_KEY: json.dumps({"version": VERSION, "network": network, "autoencoder": to_dict(config)})}


def config_from_metadata(metadata: Mapping[str, str], where: str) -> AutoencoderConfig | TinyConfig | None:
    """The configuration in a file's metadata; None where there is none.

    Errors: FormatError for one that this version cannot read.
    """
    if METADATA_KEY not in metadata:
        return None
    text = metadata[METADATA_KEY]
    if len(text) > MAX_CONFIG:
        raise FormatError(f"{where}: the configuration in its metadata has {len(text)} characters, more than {MAX_CONFIG}; take another copy")
    try:
        values = json.loads(text)
        if isinstance(version := values.get("version", 1), int) and version > VERSION:
            raise FormatError(f"{where} was written by a newer vaeworks (its metadata have version {version}); update vaeworks")
        return from_dict(_NETWORKS[values.get("network", "kl")], values["autoencoder"])
    except (ValueError, KeyError, TypeError, AttributeError, ConfigError, RecursionError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(
            f"{where}: the configuration in its metadata cannot be read: {error}; take another copy, "
            f"or delete the key {METADATA_KEY!r} there"
        ) from None
