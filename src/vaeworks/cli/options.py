"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

Model = Annotated[
    Positional[str], arg(metavar="MODEL", help="run folder, VAE file or folder of any layout, full checkpoint, hf:OWNER/NAME")
]
Models = Annotated[
    Positional[tuple[str, ...]], arg(metavar="MODEL", help="one or more: run folder, VAE file or folder, full checkpoint, hf:OWNER/NAME")
]
Inputs = Annotated[Positional[tuple[str, ...]], arg(metavar="IN", help="files or folders")]
Data = Annotated[
    str, arg(metavar="SRC", help="folder of images, tars, hf:OWNER/NAME, dataset:PATH, stream:SRC (docs/data.md), or `photos`")
]
Out = Annotated[Path, arg(metavar="DIR", help="output folder")]
Overwrite = Annotated[bool, arg(aliases=("--force",), help="replace files that exist")]
