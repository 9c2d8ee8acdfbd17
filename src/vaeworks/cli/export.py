"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional

from .console import TERMINAL, console
from .options import Model, Overwrite, Told, arg, settings_of


def export(
    model: Model,
    folder: Annotated[Positional[Path], arg(metavar="DIR", help="output folder")],
    layout: Annotated[
        Literal["plain", "optimum"],
        arg(
            help="layout of DIR; plain: encoder.onnx, decoder.onnx; optimum: vae_encoder/model.onnx, "
            "vae_decoder/model.onnx, "
            "with Optimum's names"
        ),
    ] = "plain",
    dtype: Annotated[Literal["fp32", "fp16"], arg(help="dtype of weights, inputs and outputs")] = "fp32",
    normalized: Annotated[
        bool, arg(help="normalize latents as diffusion models use them, instead of raw latents")
    ] = False,
    opset: Annotated[int, arg(help="version of ONNX's operators, 18 to 23")] = 20,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Export encoder and decoder as ONNX files for any batch and size, and check them.

    In Python: `vaeworks.export_onnx`.
    """
    from ..exports.onnx import export_onnx as run

    with console().status("exporting"):
        result = run(
            model,
            folder,
            layout=layout,
            dtype=dtype,
            normalized=normalized,
            opset=opset,
            settings=settings_of(told),
            overwrite=overwrite,
        )
    for file in result.files:
        TERMINAL.say(
            f"{folder / file.path}  {file.bytes / 1e6:,.1f} MB; onnxruntime differs from PyTorch by at most "
            f"{file.difference:.1e} of the outputs' range"
        )
    return result.to_dict()
