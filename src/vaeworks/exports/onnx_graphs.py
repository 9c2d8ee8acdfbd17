"""Encoder and decoder as ONNX graphs whose batch, height and width are free."""

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
"""Bytes of weights that one file holds: protobuf ends at 2 GiB. More go into a second file beside it."""

IR_VERSIONS = {18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}
"""By opset, the version of ONNX's format that came with it. A newer one, which the exporter writes, would keep older
runtimes out."""


@dataclass(frozen=True)
class OnnxGraph:
    """One half as it is exported: what it computes, how its inputs and outputs are called, and what sizes it takes."""

    half: Literal["encoder", "decoder"]
    module: nn.Module
    """of one tensor, to a tuple of tensors"""
    file: str
    """below the folder of the export"""
    input: str
    outputs: tuple[str, ...]
    axes: tuple[str, str, str]
    """names of the input's batch, height and width"""
    channels: int
    """of the input"""
    multiple: int
    """of which height and width of the input are multiples"""
    scale: str
    """what makes an output's height of the input's, as applications evaluate it: " / 8" """


class EncoderGraph(nn.Module):
    """Images n 3 h w in [-1,1] to mean and logvar n c h/f w/f, or to the latents of an encoder without a posterior.

    normalized: of the latents as a diffusion model sees them. joined: one tensor, mean and then logvar, n 2c h/f w/f.
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
    """Latents n c h w to images n 3 f*h f*w; normalized: from latents as a diffusion model sees them."""

    def __init__(self, autoencoder: Autoencoder, normalized: bool):
        super().__init__()
        self.autoencoder, self.normalized = autoencoder, normalized

    def forward(self, latents: Tensor) -> tuple[Tensor]:
        """As the class says."""
        return (self.autoencoder.decode(self.autoencoder.denormalize(latents) if self.normalized else latents),)


def _scale(autoencoder: Autoencoder) -> Tensor:
    """What `normalize` multiplies each channel with: 1 c 1 1."""
    patch = autoencoder.config.latents_patch
    one = torch.ones(1, autoencoder.latent_channels, patch, patch, device=autoencoder.device, dtype=autoencoder.dtype)
    with torch.no_grad():
        return autoencoder.normalize(one) - autoencoder.normalize(torch.zeros_like(one))


def write_graph(graph: OnnxGraph, path: Path, dtype: torch.dtype, opset: int, metadata: Mapping[str, str]) -> None:
    """Write one half as an ONNX file, with the weights in it, or in PATH.data where they are larger than `LARGEST`.

    Errors: ConfigError for what has no form in this opset.
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
            f"the {graph.half} has no form in ONNX's opset {opset}: {reason}; try another --opset"
        ) from error
    assert program is not None
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter without what it says to its own developers."""
    log = logging.getLogger(
        "torch.onnx._internal.exporter._registration"
    )  # that torchvision, which nothing here needs, is absent
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
    """Take out where in the source each node comes from: paths of this machine, and a tenth of a small file."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if not value.is_graph_output():
                value.shape = None  # in symbols of the tracer; a runtime finds them itself
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()


def _name_axes(graph: OnnxGraph, model: Any) -> None:
    """Axes by names: an output's are expressions of the input's, such as `height / 8`, which applications evaluate."""
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
