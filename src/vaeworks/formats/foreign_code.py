"""What files of diffusers and transformers could make these libraries run or fetch, refused before they see the files.

A model_index.json names modules and classes, and earlier versions of diffusers imported whatever they were; a
config.json may name code of a repository (auto_map), compiled code of the hub as its attention, or a quantization whose
library does as it likes. Networks that are plain tensors need nothing of that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import FormatError
from ..files.atomic import read_json

KINDS = {
    "diffusers": re.compile(r"(?!Onnx|Flax)\w*(Model|Scheduler|AutoencoderKL\w*|AutoencoderTiny|AutoencoderDC)"),
    "transformers": re.compile(
        r"(?!Rag|TransfoXL|Flax|TF)\w+(Tokenizer|TokenizerFast|ImageProcessor\w*|Processor|FeatureExtractor|Model\w*|For\w+)"
    ),
    "stable_diffusion": re.compile(r"StableDiffusionSafetyChecker"),
}
"""Classes of parts that pipelines of images may have, by the library that model_index.json names; the last is a module
of diffusers."""

REFUSED = ("auto_map", "custom_pipelines", "quantization_config", "kernel_config")
"""Keys of a config.json that make a library load more than tensors."""

ATTENTION = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "_experts_implementation")
"""Keys whose value may be a repository of compiled code; without a slash it is a name that the library knows."""

DEPTH = 16
"""Levels of a config.json."""


def check_index(index: Mapping[str, Any], name: str) -> None:
    """Check that a pipeline has only parts of known kinds.

    Errors: FormatError for a part that names another module or class.
    """
    for part, entry in index.items():
        if part.startswith("_") or not isinstance(entry, list) or not any(isinstance(word, str) for word in entry):
            continue  # a setting, or a part that is absent
        library, kind = entry if len(entry) == 2 else (None, None)
        known = KINDS.get(library) if isinstance(library, str) else None
        if known is None or not isinstance(kind, str) or not known.fullmatch(kind):
            raise FormatError(
                f"{name} asks for {str(entry)[:80]} as its part {part[:40]!r}, which is no part of a pipeline of "
                "images that diffusers and transformers have; nothing was loaded; take another pipeline"
            )


def check_pipeline_folder(folder: Path, index: Mapping[str, Any]) -> None:
    """Check a pipeline on this machine: no Python in it, and no part that asks for more than tensors.

    Errors: FormatError naming the file.
    """
    for place in (folder, *(folder / part for part in index if (folder / part).is_dir())):
        if found := next(iter(sorted(place.glob("*.py"))), None):
            raise FormatError(
                f"{found} is code, which some versions of diffusers would run; move it out of the pipeline's folder"
            )
        check_folder(place)


def check_folder(folder: Path) -> None:
    """Check one network's folder. Errors: FormatError naming the file."""
    if (adapter := folder / "adapter_config.json").exists():
        raise FormatError(
            f"{adapter} asks for another network to be fetched; merge the adapter into its network, or take it away"
        )
    if (config := folder / "config.json").exists():
        check_config(read_json(config), str(config))


def check_config(values: Mapping[str, Any], where: str) -> None:
    """Check one network's configuration. Errors: FormatError naming the key."""
    for key, value in _each(values, where):
        if key in REFUSED and value is not None:
            raise FormatError(
                f"{where} has {key!r}, which asks for code beyond the network's own class; take a plain copy of the "
                "network"
            )
        if key in ATTENTION and isinstance(value, str) and "/" in value:
            raise FormatError(f"{where} asks for code of {value[:60]!r} as {key!r}; take that line away")


def _each(values: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    """Every key and value, at every level."""
    waiting: list[tuple[Any, int]] = [(values, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEPTH:
            raise FormatError(f"{where} has more than {DEPTH} levels, which no network's configuration has")
        if isinstance(value, Mapping):
            yield from value.items()
        inner = value.values() if isinstance(value, Mapping) else value
        waiting += [(item, depth + 1) for item in inner if isinstance(item, (dict, list))]
