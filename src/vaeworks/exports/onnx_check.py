"""Check that an exported graph computes the same as the model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..images import check_finite
from ..models import Autoencoder
from .onnx_graphs import OnnxGraph

if TYPE_CHECKING:
    from ..runtime import LayerRange

SIZES = ((1, 9, 5), (3, 4, 7))
"""Batch, height and width to test, in units of the smallest input; the graph was traced with others."""


def largest_difference(graph: OnnxGraph, reference: nn.Module, path: Path, dtype: torch.dtype) -> float:
    """Largest difference of onnxruntime's outputs from `reference`'s in float32, as a share of an output's range; nan
    if onnxruntime's are not finite.

    Inputs are noise of several batches and sizes, in [-1,1] for images and standard normal for latents.
    Errors: NotFiniteError for outputs of the reference that are not finite.
    """
    session = quiet_session(path)
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for n, h, w in SIZES:
        shape = (n, graph.channels, h * graph.multiple, w * graph.multiple)
        noise = (
            torch.rand(shape, generator=generator) * 2 - 1
            if graph.half == "encoder"
            else torch.randn(shape, generator=generator)
        )
        given = noise.to(dtype)
        with torch.inference_mode():
            expected = reference(given.float())
        for values in expected:
            check_finite(values, f"outputs of the {graph.half}")
        found = session.run(list(graph.outputs), {graph.input: given.numpy()})
        for ours, theirs in zip(expected, found, strict=True):
            share = _share(ours, torch.from_numpy(theirs).float())
            worst = share if math.isnan(share) else max(worst, share)
            if math.isnan(worst):
                return worst
    return worst


def _share(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape or not theirs.isfinite().all():
        return math.nan
    error, spread = (ours - theirs).abs().max().item(), (ours.max() - ours.min()).item()
    return error / spread if spread > 0 else math.inf if error > 0 else 0.0


def quiet_session(path: Path, threads: int | None = None) -> Any:
    """An onnxruntime.InferenceSession on the CPU that logs only errors, with `threads` threads or as many as
    PyTorch."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # telemetry exists on Windows
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.add_session_config_entry(
        "session.force_spinning_stop", "1"
    )  # else its idle threads spin while PyTorch computes
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def overflow(autoencoder: Autoencoder) -> LayerRange | None:
    """The first layer of a float32 model whose values on photographs exceed float16's range; None if there is none.

    onnxruntime computes float16 graphs in float32 on CPUs, so its outputs would not show the overflow.
    """
    from ..runtime.fp16.ranges import activation_ranges, first_overflow, sample_images

    config = autoencoder.config
    if config.in_channels in (1, 3):
        images = sample_images(autoencoder, limit=2)
    else:  # not gray or RGB images
        side = 8 * config.downsample_factor
        images = torch.rand(1, config.in_channels, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return first_overflow(activation_ranges(autoencoder, images))
