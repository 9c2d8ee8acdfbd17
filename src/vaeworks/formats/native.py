"""Our own layout: one safetensors file with our names and the configuration in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..config import AutoencoderConfig, from_dict, to_dict
from ..errors import ConfigError, FormatError

METADATA_KEY = "vaeworks"
"""Key under which every layout carries the configuration in safetensors metadata; other readers ignore it."""


def config_metadata(config: AutoencoderConfig) -> dict[str, str]:
    """A configuration as safetensors metadata."""
    return {METADATA_KEY: json.dumps({"version": 1, "autoencoder": to_dict(config)})}


def config_from_metadata(metadata: Mapping[str, str], where: str) -> AutoencoderConfig | None:
    """The configuration in a file's metadata; None where there is none.

    Errors: FormatError for one that this version cannot read.
    """
    if METADATA_KEY not in metadata:
        return None
    try:
        return from_dict(AutoencoderConfig, json.loads(metadata[METADATA_KEY])["autoencoder"])
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise FormatError(f"{where}: the configuration in its metadata cannot be read: {error}") from None
