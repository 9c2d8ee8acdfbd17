"""Arguments that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg

from ..errors import ConfigError

Model = Annotated[
    Positional[str],
    arg(metavar="MODEL", help="run folder, VAE file or folder of any layout, full checkpoint, hf:OWNER/NAME"),
]
Models = Annotated[
    Positional[tuple[str, ...]],
    arg(metavar="MODEL", help="one or more: run folder, VAE file or folder, full checkpoint, hf:OWNER/NAME"),
]
Told = Annotated[
    UseAppendAction[tuple[str, ...]],
    arg(
        name="set",
        metavar="NAME=VALUE",
        help="of MODEL, what its file does not tell: norm_groups=4, padding_mode=reflect, scale_of=sdxl "
        "(docs/files.md); may be repeated",
    ),
]
Inputs = Annotated[Positional[tuple[str, ...]], arg(metavar="IN", help="files or folders")]
Data = Annotated[
    str,
    arg(
        metavar="SRC",
        help="folder of images, tars, hf:OWNER/NAME, dataset:PATH, stream:SRC (docs/data.md), `photos`, `procedural`, "
        "`digits`, sound:SRC",
    ),
]
Labels = Annotated[
    str | None,
    arg(
        metavar="HOW",
        help="classes of the images: folders, names or a CSV file; by default folders, if there are any",
    ),
]
Out = Annotated[Path, arg(metavar="DIR", help="output folder")]
Memory = Annotated[
    str | None,
    arg(
        metavar="SIZE", help="what a picture may take beside the weights, such as 4GiB; by default most of what is free"
    ),
]
Precision = Annotated[
    Literal["fp32", "bf16", "fp16"] | None,
    arg(help="of the computation; by default the weights', but fp32 for fp16 ones on a CPU"),
]
Verify = Annotated[
    bool, arg(help="measure the difference to decoding a whole picture in fp32, on a part that fits into memory")
]
Overwrite = Annotated[bool, arg(aliases=("--force",), help="replace files that exist")]


def settings_of(told: tuple[str, ...], **more: Any) -> dict[str, Any]:
    """What --set says of a model, by name, and what other options say that were given; numbers as such, all else as
    text.

    Errors: ConfigError for what is no NAME=VALUE, and for a name that is given twice.
    """
    found = {name: value for name, value in more.items() if value is not None}
    for words in told:
        name, equals, value = words.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"--set {words!r} must be NAME=VALUE, such as norm_groups=4")
        if name in found:
            raise ConfigError(f"{name} is given twice")
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            found[name] = value
    return found
