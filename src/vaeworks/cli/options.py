"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

Model = Annotated[
    Positional[str], arg(metavar="MODEL", help="run folder, VAE file or folder of any layout, full checkpoint, hf:OWNER/NAME")
]
Models = Annotated[
    Positional[tuple[str, ...]], arg(metavar="MODEL", help="one or more: run folder, VAE file or folder, full checkpoint, hf:OWNER/NAME")
]
Inputs = Annotated[Positional[tuple[str, ...]], arg(metavar="IN", help="files or folders")]
Data = Annotated[
    str,
    arg(
        metavar="SRC",
        help="folder of images, tars, hf:OWNER/NAME, dataset:PATH, stream:SRC (docs/data.md), `photos`, `procedural`, `digits`, sound:SRC",
    ),
]
Out = Annotated[Path, arg(metavar="DIR", help="output folder")]
Memory = Annotated[
    str | None, arg(metavar="SIZE", help="what a picture may take beside the weights, such as 4GiB; by default most of what is free")
]
Precision = Annotated[
    Literal["fp32", "bf16", "fp16"] | None, arg(help="of the computation; by default the weights', but fp32 for fp16 ones on a CPU")
]
Verify = Annotated[bool, arg(help="measure the difference to decoding a whole picture in fp32, on a part that fits into memory")]
Overwrite = Annotated[bool, arg(aliases=("--force",), help="replace files that exist")]
