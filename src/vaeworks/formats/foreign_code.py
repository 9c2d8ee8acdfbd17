"""Refuse files that could make diffusers or transformers run or fetch code, before these libraries read them.

A model_index.json names modules and classes, and earlier versions of diffusers imported any of them. A config.json may
name code in a repository (auto_map), compiled code on the hub as its attention, or a quantization whose library runs
code of its own. Networks of plain tensors need none of these.
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
        r"(?!Rag|TransfoXL|Flax|TF)\w+"
        r"(Tokenizer|TokenizerFast|ImageProcessor\w*|Processor|FeatureExtractor|Model\w*|For\w+)"
    ),
    "stable_diffusion": re.compile(r"StableDiffusionSafetyChecker"),
}
"""Allowed classes of an image pipeline's parts, by the library in model_index.json; the last is a module of
diffusers."""

REFUSED = ("auto_map", "custom_pipelines", "quantization_config", "kernel_config")
"""Keys of a config.json that make a library load more than tensors."""

ATTENTION = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "_experts_implementation")
"""Keys whose value may be a repository of compiled code; a value without a slash is a name in the library."""

DEPTH = 16
"""Most levels of a config.json."""


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
                f"{name} asks for {str(entry)[:80]} as its part {part[:40]!r}, which is not an image pipeline's part "
                "in diffusers or transformers; nothing was loaded; take another pipeline"
            )


def check_pipeline_folder(folder: Path, index: Mapping[str, Any]) -> None:
    """Check a local pipeline: it has no Python code, and no part asks for more than tensors.

    Errors: FormatError naming the file.
    """
    for place in (folder, *(folder / part for part in index if (folder / part).is_dir())):
        if found := next(iter(sorted(place.glob("*.py"))), None):
            raise FormatError(
                f"{found} is code, which some versions of diffusers run; move it out of the pipeline's folder"
            )
        check_folder(place)


def check_folder(folder: Path) -> None:
    """Check one network's folder. Errors: FormatError naming the file."""
    if (adapter := folder / "adapter_config.json").exists():
        raise FormatError(f"{adapter} asks for another network; merge the adapter into its network, or remove it")
    if (config := folder / "config.json").exists():
        check_config(read_json(config), str(config))


def check_config(values: Mapping[str, Any], where: str) -> None:
    """Check one network's configuration. Errors: FormatError naming the key."""
    for key, value in _each(values, where):
        if key in REFUSED and value is not None:
            raise FormatError(
                f"{where} has {key!r}, which asks for code outside the network's own class; take a plain copy of "
                "the network"
            )
        if key in ATTENTION and isinstance(value, str) and "/" in value:
            raise FormatError(f"{where} asks for code of {value[:60]!r} as {key!r}; remove that line")


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
