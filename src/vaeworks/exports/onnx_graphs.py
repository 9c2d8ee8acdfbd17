"""Encoder and decoder as ONNX graphs with free batch, height and width."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from ..errors import ConfigError
from ..models import Autoencoder

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

LARGEST = 2**31 - 2**24
"""Most bytes of weights in one file, because protobuf ends at 2 GiB; larger weights get a second file."""

IR_VERSIONS = {18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}
"""By opset, the version of ONNX's format of its time. The exporter's newer version would exclude older runtimes."""


@dataclass(frozen=True)
class OnnxGraph:
    """One half for export: its computation, the names of its inputs and outputs, and its sizes."""

    half: Literal["encoder", "decoder"]
    module: nn.Module
    """maps one tensor to a tuple of tensors"""
    file: str
    """path below the folder of the export"""
    input: str
    outputs: tuple[str, ...]
    axes: tuple[str, str, str]
    """names of the input's batch, height and width"""
    channels: int
    """channels of the input"""
    multiple: int
    """height and width of the input are multiples of it"""
    scale: str
    """factor from the input's height to the output's, as applications evaluate it: " / 8" """


class EncoderGraph(nn.Module):
    """Maps images n 3 h w in [-1,1] to mean and logvar n c h/f w/f, or to latents if the encoder has no posterior.

    normalized: outputs describe latents as a diffusion model sees them. joined: one output n 2c h/f w/f, mean then
    logvar.
    """

    scale: Tensor

    def __init__(self, autoencoder: Autoencoder, normalized: bool, joined: bool):
        super().__init__()
        self.autoencoder, self.normalized, self.joined = autoencoder, normalized, joined
        self.register_buffer("scale", _scale(autoencoder))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """As the class says."""
        posterior = self.autoencoder.encode(images)
        mean, logvar = posterior.mean, posterior.logvar
        if self.normalized:
            mean = self.autoencoder.normalize(mean)
        if posterior.is_point:
            return (mean,)
        if self.normalized:
            patch = self.autoencoder.config.latents_patch
            logvar = F.pixel_unshuffle(logvar, patch) if patch > 1 else logvar
            logvar = logvar + 2 * self.scale.abs().log()
        return (torch.cat((mean, logvar), 1),) if self.joined else (mean, logvar)


class DecoderGraph(nn.Module):
    """Maps latents n c h w to images n 3 f*h f*w. normalized: latents are as a diffusion model sees them."""

    def __init__(self, autoencoder: Autoencoder, normalized: bool):
        super().__init__()
        self.autoencoder, self.normalized = autoencoder, normalized

    def forward(self, latents: Tensor) -> tuple[Tensor]:
        """As the class says."""
        return (self.autoencoder.decode(self.autoencoder.denormalize(latents) if self.normalized else latents),)


def _scale(autoencoder: Autoencoder) -> Tensor:
    """The factor of each channel in `normalize`: 1 c 1 1."""
    patch = autoencoder.config.latents_patch
    one = torch.ones(1, autoencoder.latent_channels, patch, patch, device=autoencoder.device, dtype=autoencoder.dtype)
    with torch.no_grad():
        return autoencoder.normalize(one) - autoencoder.normalize(torch.zeros_like(one))


def write_graph(graph: OnnxGraph, path: Path, dtype: torch.dtype, opset: int, metadata: Mapping[str, str]) -> None:
    """Write one half as an ONNX file that includes the weights; if they exceed `LARGEST`, they are in PATH.data.

    Errors: ConfigError for a half that this opset cannot express.
    """
    model = _traced(graph, dtype, opset).model
    _anonymous(model)
    _name_axes(graph, model)
    model.metadata_props.update(metadata)
    model.ir_version = IR_VERSIONS[opset]
    model.producer_name, model.producer_version = "vaeworks", _version()
    nbytes = sum(tensor.numel() * tensor.itemsize for tensor in graph.module.state_dict().values())
    path.parent.mkdir(parents=True, exist_ok=True)
    _saved(model, path, external=nbytes > LARGEST)


def _traced(graph: OnnxGraph, dtype: torch.dtype, opset: int) -> ONNXProgram:
    height, width = (Dim(name) * graph.multiple if graph.multiple > 1 else Dim(name) for name in graph.axes[1:])
    example = torch.zeros(2, graph.channels, 3 * graph.multiple, 4 * graph.multiple, dtype=dtype)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                graph.module,
                (example,),
                dynamo=True,
                opset_version=opset,
                verbose=False,
                external_data=False,
                input_names=[graph.input],
                output_names=list(graph.outputs),
                dynamic_shapes=({0: Dim(graph.axes[0]), 2: height, 3: width},),
            )
    except torch.onnx.OnnxExporterError as error:
        reason = next(
            (line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__
        )
        raise ConfigError(
            f"the {graph.half} cannot be expressed in ONNX's opset {opset}: {reason}; try another --opset"
        ) from error
    assert program is not None
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence messages that the exporter has for its own developers."""
    log = logging.getLogger(
        "torch.onnx._internal.exporter._registration"
    )  # says that torchvision, which nothing here needs, is absent
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # PyTorch copies an exported program, and its copy uses what PyTorch itself has deprecated
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        log.setLevel(level)


def _anonymous(model: Any) -> None:
    """Remove the source locations of nodes: they hold local paths, and take a tenth of a small file."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if not value.is_graph_output():
                value.shape = None  # symbols of the tracer; a runtime infers the shape
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()


def _name_axes(graph: OnnxGraph, model: Any) -> None:
    """Name the axes: an output's are expressions of the input's, such as `height / 8`, which applications evaluate."""
    import onnx_ir

    batch, height, width = graph.axes
    (taken,) = model.graph.inputs
    taken.shape = onnx_ir.Shape([batch, graph.channels, height, width])
    for value in model.graph.outputs:
        value.shape = onnx_ir.Shape([batch, value.shape[1], f"{height}{graph.scale}", f"{width}{graph.scale}"])


def _saved(model: Any, path: Path, external: bool) -> None:
    import onnx_ir

    onnx_ir.save(model, path, external_data=f"{path.name}.data" if external else None)


def _version() -> str:
    from .. import __version__

    return __version__
