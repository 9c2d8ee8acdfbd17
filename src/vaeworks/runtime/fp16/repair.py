"""A VAE that overflows in float16, made to fit: its activations are scaled down, its results stay."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from ...config import AutoencoderConfig
from ...data.inputs import Images
from ...devices import torch_dtype
from ...errors import ConfigError
from ...files.atomic import SAFETENSORS_ENDINGS, check_free_name
from ...formats.apps import Support
from ...formats.apps import support as support_of
from ...formats.io import check_target, read, write
from ...formats.locate import Located, locate
from ...formats.shared_weights import in_memory
from ...formats.vaes_in_file import Layout
from ...models import Autoencoder, Decoder, Encoder
from ...reporting import SILENT, Reporter
from ..opening import Model
from .deviation import Deviation, deviation, outputs
from .emulation import in_precision
from .ranges import FLOAT16_MAX, Half, LayerRange, activation_ranges, sample_images, scaled_ranges
from .report import APPLICATION_EPS, Repair, largest
from .scale import scale_activations, set_eps, writers

SMALLEST_NORMAL = 2.0**-14
"""Of float16; smaller numbers lose digits, and below 2**-25 all of them."""

ADVICE = "run this VAE in bfloat16, which has float32's range"


@dataclass(frozen=True)
class RepairedVae:
    """What `repair` made."""

    result: Repair
    """the new autoencoder, its scales and its measured deviations"""
    out: str | None
    """the file or folder that was written"""
    layout: Layout
    """of the file: the source's, unless another was asked for"""
    support: dict[str, Support]
    """by application, whether it loads the file; empty where none was written"""
    notes: tuple[str, ...]
    """plain sentences on what the source leaves uncertain"""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "out": self.out,
            "layout": self.layout,
            **self.result.to_dict(),
            "notes": list(self.notes),
            "support": {application: dataclasses.asdict(verdict) for application, verdict in self.support.items()},
        }


def repair(
    model: Model,
    dst: str | Path | None = None,
    *,
    layout: Layout | None = None,
    dtype: str | torch.dtype | None = None,
    headroom: float = 4.0,
    data: Images | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> RepairedVae:
    """Rescale a VAE that gives black images in float16, without training, and measure the error.

    >>> repaired = vw.repair("vae.safetensors", "vae-fp16.safetensors", dtype="fp16")
    >>> repaired.result.needed, repaired.result.sentences()        # whether anything overflowed, and how it was mended

    model: an Autoencoder, or the path or hub id of one. dst: the file (layout "diffusers": the folder) to write; None
    writes nothing. layout: None keeps the source's, so that whatever loaded the source loads the result; a name that
    ends in .safetensors is a file, which gets LDM's names where the source is a diffusers folder. dtype: of the stored
    weights, "fp32", "bf16", "fp16" or a torch dtype; None keeps them. headroom: how many times larger than measured
    activations may become. data: a folder of images, an image or images in memory
    to measure on; None: the bundled photographs.
    settings: facts that the file leaves out, as keywords of `load`.
    Errors: those of `load` and `half_safe`; DataError for unreadable images; ConfigError without `overwrite` for a name
    that is taken.
    """
    stored = None if dtype is None else torch_dtype(dtype)
    if dst is not None:
        check_free_name(Path(dst), overwrite)
    vae, notes = in_memory(model), list[str]()
    own: Layout = "native"
    if vae is None:
        source = locate(str(model), **(settings or {}))
        own, notes = source.layout, [*source.lasting_doubts]
        vae = read(source)
    if layout is None:
        layout = own
        if dst is not None and own == "diffusers" and Path(dst).suffix.lower() in SAFETENSORS_ENDINGS:
            layout = "ldm" if isinstance(vae.config, AutoencoderConfig) else "taesd"
            notes.append(
                f"{dst} is a file, so it has layout {layout!r}; a folder's name keeps the source's 'diffusers'"
            )
    if dst is not None:
        check_target(Path(dst), layout, vae.config)
    result = half_safe(vae, None if data is None else sample_images(vae, data), headroom=headroom, reporter=reporter)
    support: dict[str, Support] = {}
    if dst is not None:
        write(result.autoencoder, dst, layout, dtype=stored, overwrite=overwrite)
        support = _supported(locate(dst), result)
    return RepairedVae(result, None if dst is None else str(dst), layout, support, tuple(notes))


def _supported(written: Located, result: Repair) -> dict[str, Support]:
    """Who loads the repaired file. The repair measures what their own epsilon does to the images, so that an epsilon
    that did no harm there is no reason to call the images wrong."""
    config = written.config
    if result.fixed_eps_harmless and isinstance(config, AutoencoderConfig):
        plain = dataclasses.replace(config, norm_eps=APPLICATION_EPS, encoder_scale=1.0, decoder_scale=1.0)
        written = dataclasses.replace(written, config=plain)
    return support_of(written)


def half_safe(
    autoencoder: Autoencoder,
    images: Tensor | None = None,
    *,
    headroom: float = 4.0,
    limit: float = 40.0,
    reporter: Reporter = SILENT,
) -> Repair:
    """A copy of a VAE whose activations stay finite in float16, by scaling each half's with a power of two, and its
    deviations.

    images: n c h w in [-1,1] that activations are measured on; None: the bundled photographs (`sample_images`).
    headroom: how many times larger than measured activations may become. Each half gets the largest scale up to 1 that
    allows it.
    limit: a scaled half's least PSNR of images, or SNR of latents, in float16, in dB.
    A half with nothing to repair keeps its weights byte for byte, so that repairing twice changes nothing.
    Errors: ConfigError where scaling cannot help: where float16 overflows in weights, in what normalized values become,
    in latents or images; where the scaled VAE misses `limit`; for a TAESD that overflows.
    """
    if not 1 <= headroom < math.inf:
        raise ConfigError(f"headroom (={headroom}) must be at least 1 and finite")
    images = sample_images(autoencoder) if images is None else images
    _check_weights(autoencoder, scaled=False)
    before = activation_ranges(autoencoder, images, reporter)
    _check_reach(before)
    scales = {half: _scale(before, half, headroom) for half in get_args(Half)}
    needed = any(scale != 1 for scale in scales.values())
    repaired = scale_activations(autoencoder, **scales) if needed else copy.deepcopy(autoencoder)
    _check_weights(repaired, scaled=True)
    used = repaired if needed else None
    compared = sorted({largest(before, half).image for half in get_args(Half)})
    rough, lost = _precision_lost(autoencoder, scales) if needed else (0.0, 0.0)
    result = Repair(
        repaired,
        scales,
        headroom=headroom,
        limit=limit,
        before=tuple(before),
        after=tuple(scaled_ranges(before, scales)),
        deviations=tuple(_measured(_deviations(autoencoder, used, images[compared]), needed, reporter)),
        images=len(images),
        compared=tuple(compared),
        rough_weights=rough,
        lost_weights=lost,
    )
    _check_result(result)
    return result


def _measured(deviations: Iterator[Deviation], needed: bool, reporter: Reporter) -> Iterator[Deviation]:
    """The deviations, while a bar shows how many are computed."""
    with reporter.counting("comparing precisions") as progress:
        total = 6 if needed else 4
        progress(0, total)
        for number, one in enumerate(deviations, 1):
            progress(number, max(number, total))
            yield one
        progress(number, number)


def _scale(ranges: list[LayerRange], half: Half, headroom: float) -> float:
    """The largest power of two up to 1 that leaves the headroom."""
    top = max((layer.max_abs for layer in ranges if layer.scalable and layer.half == half), default=0.0)
    return 2.0 ** min(0, math.floor(math.log2(FLOAT16_MAX / headroom / top))) if top else 1.0


def _check_weights(autoencoder: Autoencoder, scaled: bool) -> None:
    """Errors: ConfigError for a weight that is not finite or, once scaled, too large for float16."""
    for name, weight in autoencoder.named_parameters():
        largest = weight.detach().abs().max().item()
        if not math.isfinite(largest):
            raise ConfigError(
                f"{name} holds values that are not finite; take the file that this one was made from, in float32"
            )
        if scaled and largest > FLOAT16_MAX:
            raise ConfigError(f"{name} holds {largest:.0f}, above float16's 65504, and no scale reaches it; {ADVICE}")


def _check_reach(ranges: list[LayerRange]) -> None:
    """Errors: ConfigError for an overflow that scaling does not reach."""
    for layer in ranges:
        if not math.isfinite(layer.max_abs):
            raise ConfigError(f"{layer.name} overflows in float32 already; this VAE is broken")
        if (
            layer.overflows and not layer.scalable and not layer.name.endswith(".logits")
        ):  # attention keeps those in float32
            raise ConfigError(
                f"{layer.name} reaches {layer.max_abs:.0f}, above float16's 65504: {_why_fixed(layer)}; {ADVICE}"
            )


def _why_fixed(layer: LayerRange) -> str:
    if layer.name in ("encoder.conv_out", "quant_conv"):
        return "its output is the latents, whose scale belongs to the diffusion model"
    if layer.name == "post_quant_conv":
        return "the latents themselves are that large"
    if layer.name == "decoder.conv_out":
        return "its output is the image"
    if ".layers." in layer.name:
        return "a TAESD has no normalization that would undo a scale"
    return "it follows a normalization, which undoes every scale before it"


def _deviations(original: Autoencoder, repaired: Autoencoder | None, images: Tensor) -> Iterator[Deviation]:
    reference = outputs(in_precision(original, torch.float32), images)

    def measure(autoencoder: Autoencoder, weights: str, dtype: torch.dtype) -> Deviation:
        return deviation(
            reference,
            outputs(in_precision(autoencoder, dtype), images, reference),
            weights,
            str(dtype).removeprefix("torch."),
        )

    yield measure(original, "original", torch.float16)
    yield measure(original, "original", torch.bfloat16)
    if repaired is not None:
        yield measure(repaired, "repaired", torch.float32)
        yield measure(repaired, "repaired", torch.float16)
    foreign = copy.deepcopy(original if repaired is None else repaired)
    config = foreign.config
    if isinstance(config, AutoencoderConfig) and any(
        config.norm_eps * s**2 != APPLICATION_EPS for s in _totals(config)
    ):
        set_eps(foreign, APPLICATION_EPS)
        for dtype in (torch.float32, torch.float16):
            yield measure(foreign, "original, fixed eps" if repaired is None else "repaired, fixed eps", dtype)


def _totals(config: AutoencoderConfig) -> tuple[float, float]:
    return config.encoder_scale, config.decoder_scale


def _precision_lost(original: Autoencoder, scales: dict[Half, float]) -> tuple[float, float]:
    """Shares of the weights scaled down that float16 rounds more roughly than before, and to 0."""
    total = rough = lost = 0
    for half, scale in scales.items():
        network = getattr(original, half)
        assert isinstance(network, (Encoder, Decoder))
        for weight in (
            layer.weight.detach().float().abs() for layer, whole in writers(network) if whole and scale != 1
        ):
            total += weight.numel()
            rough += int(((weight >= SMALLEST_NORMAL) & (weight * scale < SMALLEST_NORMAL)).count_nonzero())
            lost += int(((weight > 0) & ((weight * scale).half() == 0)).count_nonzero())
    return rough / max(total, 1), lost / max(total, 1)


def _check_result(repair: Repair) -> None:
    """Errors: ConfigError where a scaled half is not finite in float16 or misses the limit."""
    result = repair.deviation("repaired", "float16")
    if result is None:
        return
    bfloat16 = repair.deviation("original", "bfloat16")
    assert bfloat16 is not None  # it is always measured
    remedy = f"ask for less headroom than {repair.headroom:g}, or {ADVICE} ({bfloat16.images_psnr:.1f} dB)"
    for half, scale in repair.scales.items():
        value = result.decibels(half)
        if scale == 1 or value >= repair.limit:
            continue
        tried = f"with its activations at 1/{1 / scale:.0f}, the {half} "
        if not math.isnan(value):
            raise ConfigError(
                f"{tried}is at {value:.1f} dB of the original in float16, less than {repair.limit:g}: "
                f"{repair.rough_weights:.0%} of the weights scaled down lose digits and {repair.lost_weights:.0%} "
                f"become 0; {remedy}"
            )
        raise ConfigError(f"{tried}is still not finite in float16; {remedy}")
