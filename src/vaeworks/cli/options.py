"""Arguments that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, UseAppendAction

from ..errors import ConfigError


def arg(
    *,
    help: str | None = None,
    metavar: str | None = None,
    name: str | None = None,
    aliases: tuple[str, ...] = (),
    hint: Callable[[str], str] | str = lambda label: "" if label in ("None", "") else f"(default: {label})",
) -> Any:
    """An option or argument, as `tyro.conf.arg`.

    hint: the default as help shows it; by default nothing for None and for an empty list, because then the help text
    says what is used.
    """
    return tyro.conf.arg(help=help, metavar=metavar, name=name, aliases=aliases, help_behavior_hint=hint)


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
        help="fact about the model that its file leaves out: norm_groups=4, padding_mode=reflect, scale_of=sdxl. "
        "weights=ema, or --weights ema, chooses one of several VAEs in a file (docs/files.md)",
        hint="(repeatable)",
    ),
]
Inputs = Annotated[Positional[tuple[str, ...]], arg(metavar="IN", help="one or more files or folders")]
Data = Annotated[
    str,
    arg(
        metavar="SRC",
        help="folder of images, tars, hf:OWNER/NAME, dataset:PATH, stream:SRC (docs/data.md), `photos`, `procedural`, "
        "`shapes`, `digits`, sound:SRC",
    ),
]
Labels = Annotated[
    str | None,
    arg(
        metavar="HOW",
        help="classes of the images: folders, names or a CSV file; default: folders, if any",
    ),
]
Out = Annotated[Path, arg(metavar="DIR", help="output folder")]
Memory = Annotated[
    str | None,
    arg(
        metavar="SIZE",
        help="memory limit for one image, beside the weights, such as 4GiB; default: most of what is free",
    ),
]
Precision = Annotated[
    Literal["fp32", "bf16", "fp16"] | None,
    arg(help="number format of the computation; default: the weights', but fp32 for fp16 weights on a CPU"),
]
Verify = Annotated[
    bool, arg(help="measure the difference from decoding whole images in fp32, on a part that fits into memory")
]
Checkpoint = Annotated[
    Positional[Path], arg(metavar="CHECKPOINT", help="file of a full diffusion model, with its denoiser")
]
Target = Annotated[Positional[Path], arg(metavar="DST", help="file or folder to write")]
Vae = Annotated[
    Positional[str],
    arg(metavar="VAE", help="run folder, VAE file or folder of any layout, full checkpoint, hf:OWNER/NAME"),
]
DType = Annotated[Literal["keep", "fp32", "bf16", "fp16"], arg(help="dtype of the stored weights")]
ScaleOf = Annotated[
    Literal["sd1", "sd2", "sdxl", "sd3", "flux1"] | None,
    arg(help="published model with the same scaling_factor and shift_factor as the VAE, if its file leaves them out"),
]
Overwrite = Annotated[bool, arg(aliases=("--force",), help="replace existing files")]


def dtype_of(name: str) -> str | None:
    """The dtype that --dtype asks for; None for "keep"."""
    return None if name == "keep" else name


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
