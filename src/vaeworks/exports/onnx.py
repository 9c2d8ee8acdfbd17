"""Export to ONNX: encoder and decoder as files that onnxruntime runs, checked before they get their names."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from ..config import AutoencoderConfig, LatentConfig
from ..devices import torch_dtype
from ..errors import ConfigError, MissingExtraError, VaeworksError
from ..files.atomic import atomic, check_room
from ..formats import load, native
from ..formats.diffusers_config import diffusers_class, diffusers_config, guesses_written
from ..formats.given import given_model
from ..models import Autoencoder
from ..models.digest import model_digest
from .onnx_check import largest_difference, overflow
from .onnx_graphs import IR_VERSIONS, DecoderGraph, EncoderGraph, OnnxGraph, write_graph

if TYPE_CHECKING:
    from ..formats.shared_weights import TheirVAE

OnnxLayout = Literal["plain", "optimum"]
"""plain: encoder.onnx and decoder.onnx; optimum: the folders and names of Hugging Face Optimum's pipelines."""

OPSET = 20
"""Default opset, that of PyTorch's exporter."""

LIMITS = {torch.float32: 1e-4, torch.float16: 2e-2}
"""Largest accepted difference from PyTorch in float32, as a share of an output's range."""


@dataclass(frozen=True)
class OnnxFile:
    """One half of an export."""

    half: str
    path: str
    """path below the folder"""
    bytes: int
    """size, including a separate file of weights"""
    difference: float
    """largest difference of onnxruntime from PyTorch in float32, as a share of an output's range"""


@dataclass(frozen=True)
class OnnxExport:
    """What was exported."""

    folder: str
    layout: str
    dtype: str
    opset: int
    normalized: bool
    files: tuple[OnnxFile, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def export_onnx(
    autoencoder: str | Path | Autoencoder | TheirVAE,
    folder: str | Path,
    *,
    layout: OnnxLayout = "plain",
    dtype: str | torch.dtype = torch.float32,
    normalized: bool = False,
    opset: int = OPSET,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> OnnxExport:
    """Export encoder and decoder as ONNX files with free batch, height and width, and check them with onnxruntime.

    >>> vw.export_onnx("vae.safetensors", "out/onnx", dtype="fp16").files[0].difference
    0.0013

    autoencoder: an Autoencoder, a VAE of diffusers, or the path or hub id of one. settings: facts that the file leaves
    out, as keywords of `load`.
    Layout "plain": encoder.onnx maps images n 3 h w in [-1,1], h and w multiples of f, to mean and logvar n c h/f w/f
    (to latents, if the encoder has no posterior). decoder.onnx maps latents n c h w to images n 3 f*h f*w, not clamped.
    Layout "optimum": vae_encoder/model.onnx maps sample to latent_parameters n 2c h/f w/f, and vae_decoder/model.onnx
    maps latent_sample to sample; each has a config.json.
    dtype: of weights, inputs and outputs, float32 ("fp32") or float16 ("fp16"). normalized: latents as a diffusion
    model sees them, instead of raw ones. opset: version of ONNX's operators. The files' metadata describe the model.
    Errors: those of `load`; ConfigError for a setting that breaks a rule, a folder that exists, an architecture that
    the layout cannot express, and activations above float16's range; VaeworksError for outputs of onnxruntime that
    differ from PyTorch's; MissingExtraError without the extra.
    """
    folder, dtype = Path(folder), torch_dtype(dtype)
    _check_settings(layout, dtype, normalized, opset)
    given = given_model(autoencoder)
    autoencoder = load(autoencoder, **(settings or {})) if given is None else given  # type: ignore[arg-type]
    if normalized:
        _check_scale(autoencoder.config)
    description = _description(autoencoder) if layout == "optimum" else None
    _check_folder(folder, layout, overwrite)
    overwrite = overwrite or (folder.is_dir() and not any(folder.iterdir()))  # an empty folder may be replaced
    reference = copy.deepcopy(autoencoder).to("cpu", torch.float32).eval().requires_grad_(False)
    exported = reference
    if dtype == torch.float16:
        _check_float16(reference)
        exported = copy.deepcopy(reference).to(dtype)
    facts = _facts(autoencoder, normalized, dtype)
    files = []
    with atomic(folder, overwrite) as temporary:
        check_room(folder, sum(t.numel() * t.itemsize for t in exported.state_dict().values()))
        for graph, original in zip(
            graphs(exported, layout, normalized), graphs(reference, layout, normalized), strict=True
        ):
            path = temporary / graph.file
            write_graph(graph, path, dtype, opset, facts | _meaning(graph, normalized))
            difference = largest_difference(graph, original.module, path, dtype)
            if not difference <= LIMITS[dtype]:
                raise VaeworksError(
                    f"onnxruntime's {graph.half} differs from PyTorch's by {difference:.1e} of its outputs' range, "
                    f"more than {LIMITS[dtype]:g}; nothing was written. Try another opset, or float32"
                )
            if description is not None:
                (path.parent / "config.json").write_text(description, encoding="utf-8")
            nbytes = sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*"))
            files.append(OnnxFile(graph.half, graph.file, nbytes, difference))
    return OnnxExport(str(folder), layout, str(dtype).removeprefix("torch."), opset, normalized, tuple(files))


def graphs(autoencoder: Autoencoder, layout: OnnxLayout, normalized: bool) -> tuple[OnnxGraph, OnnxGraph]:
    """Encoder and decoder with the names of a layout."""
    config = autoencoder.config
    f, patch = config.downsample_factor, config.latents_patch if normalized else 1
    point = not isinstance(config, AutoencoderConfig) or config.bottleneck.kind == "point"
    optimum = layout == "optimum"
    encoder = OnnxGraph(
        "encoder",
        EncoderGraph(autoencoder, normalized, joined=optimum).eval(),
        "vae_encoder/model.onnx" if optimum else "encoder.onnx",
        "sample" if optimum else "images",
        _encoder_outputs(optimum, point),
        ("batch_size", "sample_height", "sample_width") if optimum else ("n", "height", "width"),
        config.in_channels,
        f * patch,
        f" / {f * patch}",
    )
    decoder = OnnxGraph(
        "decoder",
        DecoderGraph(autoencoder, normalized).eval(),
        "vae_decoder/model.onnx" if optimum else "decoder.onnx",
        "latent_sample" if optimum else "latents",
        ("sample" if optimum else "images",),
        ("batch_size", "latent_height", "latent_width") if optimum else ("n", "height", "width"),
        config.latent_channels * patch**2,
        1,
        f" * {f * patch}",
    )
    return encoder, decoder


def _encoder_outputs(optimum: bool, point: bool) -> tuple[str, ...]:
    if optimum:
        return ("latent_sample",) if point else ("latent_parameters",)
    return ("latents",) if point else ("mean", "logvar")


def _description(autoencoder: Autoencoder) -> str:
    """config.json as Optimum reads it.

    Errors: ConfigError for an architecture that diffusers cannot describe.
    """
    config = autoencoder.config
    return (
        json.dumps(
            {"_class_name": diffusers_class(config), **diffusers_config(config), **guesses_written(config)}, indent=2
        )
        + "\n"
    )


def _check_settings(layout: str, dtype: torch.dtype, normalized: bool, opset: int) -> None:
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        raise MissingExtraError(" and ".join(missing), "onnx", "export to ONNX")
    if layout not in get_args(OnnxLayout):
        raise ConfigError(f"unknown layout {layout!r}; known: {', '.join(get_args(OnnxLayout))}")
    if dtype not in LIMITS:
        raise ConfigError(
            f"dtype (={dtype}) must be float32 or float16: onnxruntime has no convolution for other types"
        )
    if opset not in IR_VERSIONS:
        raise ConfigError(f"opset (={opset}) must be in {min(IR_VERSIONS)}..{max(IR_VERSIONS)}")
    if normalized and layout == "optimum":
        raise ConfigError(
            "normalized is for layout 'plain': pipelines of Optimum apply scaling_factor themselves, and would apply "
            "it twice"
        )


def _check_scale(config: LatentConfig) -> None:
    """Check that the scale, which becomes part of the graphs, is no guess. Errors: ConfigError if it is."""
    if not config.normalization_known:
        raise ConfigError(
            "normalized needs the scale of the latents, which this model's file does not say; give it with "
            "load(FILE, scale_of=...) or --set scaling_factor=NUMBER, or export without normalized"
        )


def _check_folder(folder: Path, layout: OnnxLayout, overwrite: bool) -> None:
    """Check that only an older export would be replaced. Errors: ConfigError if the folder holds other files."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; an export is a folder")
    if not overwrite or not folder.is_dir():
        return
    ours = (
        {"vae_encoder", "vae_decoder"}
        if layout == "optimum"
        else {f"{h}.onnx{e}" for h in ("encoder", "decoder") for e in ("", ".data")}
    )
    if others := sorted(p.name for p in folder.iterdir() if p.name not in ours):
        raise ConfigError(
            f"{folder} holds other things than an export ({others[0]}), which would be lost; choose another folder"
        )


def _check_float16(autoencoder: Autoencoder) -> None:
    if layer := overflow(autoencoder):
        raise ConfigError(
            f"{layer.name} reaches {layer.max_abs:.3g} on photographs, more than float16 holds (65504): a GPU would "
            "give black images. Run `vaeworks repair MODEL DST --for fp16` and export DST, or export float32"
        )


def _facts(autoencoder: Autoencoder, normalized: bool, dtype: torch.dtype) -> dict[str, str]:
    """Facts about the model for the file's metadata, as strings."""
    config = autoencoder.config
    return {
        "downsample_factor": str(config.downsample_factor),
        "latent_channels": str(config.latent_channels),
        "scaling_factor": repr(config.scaling_factor) if config.normalization_known else "unknown",
        "shift_factor": repr(config.shift_factor) if config.normalization_known else "unknown",
        "normalization": config.normalization,
        "normalized": json.dumps(normalized),
        "dtype": str(dtype).removeprefix("torch."),
        "model_digest": model_digest(autoencoder),
        "config": json.dumps(native.known_settings(config), sort_keys=True),
    }


def _meaning(graph: OnnxGraph, normalized: bool) -> dict[str, str]:
    """Descriptions of inputs and outputs for the file's metadata."""
    seen = (
        "as a diffusion model sees them, normalized"
        if normalized
        else "as the encoder gives and the decoder takes them, unnormalized"
    )
    if graph.half == "decoder":
        return {
            "inputs": f"{graph.input}: latents n {graph.channels} h w, {seen}",
            "outputs": f"{graph.outputs[0]}: images n c h w, height and width {graph.scale.strip()}, about in [-1,1], "
            "not clamped",
        }
    means = {
        "mean": "their means",
        "logvar": "logarithms of their variances",
        "latents": "the latents themselves",
        "latent_sample": "the latents themselves",
        "latent_parameters": "their means, then the logarithms of their variances",
    }
    return {
        "inputs": f"{graph.input}: images n {graph.channels} h w in [-1,1], h and w multiples of {graph.multiple}",
        "outputs": f"of latents {seen}: " + "; ".join(f"{name}: {means[name]}" for name in graph.outputs),
    }
