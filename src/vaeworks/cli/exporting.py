"""The command that makes files for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from .console import console
from .options import Model, Overwrite, Told, settings_of


def export(
    model: Model,
    folder: Annotated[Positional[Path], arg(metavar="DIR", help="output folder")],
    layout: Annotated[
        Literal["plain", "optimum"],
        arg(
            help="plain: encoder.onnx, decoder.onnx; optimum: vae_encoder/model.onnx, vae_decoder/model.onnx with "
            "Optimum's names"
        ),
    ] = "plain",
    dtype: Annotated[Literal["fp32", "fp16"], arg(help="of weights, inputs and outputs")] = "fp32",
    normalized: Annotated[
        bool, arg(help="latents as a diffusion model sees them, instead of as the decoder takes them")
    ] = False,
    opset: Annotated[int, arg(help="version of ONNX's operators, 18 to 23")] = 20,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Encoder and decoder as ONNX files for any batch and size, checked by onnxruntime against PyTorch
    (docs/onnx.md)."""
    import torch

    from ..exports.onnx import export_onnx
    from ..formats import load

    precision = {"fp32": torch.float32, "fp16": torch.float16}[dtype]
    vae = load(model, **settings_of(told))
    with console().status("exporting"):
        result = export_onnx(
            vae, folder, layout=layout, dtype=precision, normalized=normalized, opset=opset, overwrite=overwrite
        )
    for file in result.files:
        console().print(
            f"{folder / file.path}  {file.bytes / 1e6:,.1f} MB; onnxruntime differs from PyTorch by "
            f"{file.difference:.1e} of the outputs' range at most"
        )
    return result.to_dict()
