"""The command `install`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional

from .console import TERMINAL, print_notes
from .options import Overwrite, ScaleOf, Told, Vae, arg, settings_of


def install(
    vae: Vae,
    into: Annotated[Literal["webui", "comfyui"], arg(help="application; webui: AUTOMATIC1111 or Forge")],
    folder: Annotated[Positional[Path], arg(metavar="DIR", help="the application's folder")],
    checkpoint: Annotated[
        Path | None,
        arg(
            name="for",
            metavar="CHECKPOINT",
            help="checkpoint that the application then uses the VAE with automatically",
        ),
    ] = None,
    name: Annotated[str | None, arg(help="name of the new file, without ending; default: that of VAE")] = None,
    scale_of: ScaleOf = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Write a VAE where an application looks for it, in the form and under the name that it loads.

    In Python: `vaeworks.install`.
    """
    from ..formats.apps.install import install as run

    settings = settings_of(told, scale_of=scale_of)
    result = run(vae, into, folder, checkpoint=checkpoint, name=name, settings=settings, overwrite=overwrite)
    TERMINAL.say(result.path)
    TERMINAL.say(result.how)
    print_notes(result.notes)
    return result.to_dict()
