"""Encode and decode within a memory budget, with the whole picture's result."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..config import AutoencoderConfig
from ..errors import ConfigError
from ..images import check_divisible, check_finite, check_images, clamped, pad_to_multiple, warn_of_range
from ..models import Autoencoder, Decoder, Encoder, Posterior
from ..models.autoencoder import check_latents
from .compile import Graphs, When, compiled
from .conv_kernels import FILTERED, Kernels
from .gradients import decode_with_gradient, encode_with_gradient
from .lazy_maps import Shape
from .memory import as_gib, free_memory, freed_at_once, parse_size
from .plan import Run, StripPlan, planned, whole_plan, without_values
from .strips import Striped

if TYPE_CHECKING:
    from ..formats.shared_weights import TheirVAE

SHARE = 0.7
"""Share of the free memory to use without a budget."""

GRADIENT_ROWS = 32
"""Default rows of a strip when gradients are wanted."""

PROBE = 64
"""Side, in latents, of the part that `verify` decodes whole."""


@dataclass(frozen=True)
class Certificate:
    """How far a codec's result is from the whole picture's in float32, on outputs whose range is 2."""

    height: int
    """of the compared picture, in pixels"""
    width: int
    rows: int | None
    """of a strip; None: whole"""
    dtype: str
    max_error: float
    mean_error: float

    @property
    def sentence(self) -> str:
        """The certificate in a sentence."""
        how = "whole" if self.rows is None else f"strips of {self.rows} rows"
        return (
            f"checked on {self.width} x {self.height} px in {self.dtype}, {how}: against the whole picture in float32 "
            f"it differs by {self.max_error:.1e} at most and {self.mean_error:.1e} on average, of a range of 2"
        )


class Codec:
    """An autoencoder that runs in strips of rows: results equal the whole picture's to rounding, and memory stays
    within a budget.

    >>> codec = vw.Codec(vw.load("vae.safetensors"), memory="2GiB")
    >>> images = codec.decode(codec.encode(vw.open_image("large.png"), pad=True).mode())

    The model is not changed; for another `dtype` it is copied. A TAESD always runs whole. Where memory allows, so do
    narrow networks, compiled or captured networks, and networks on a GPU.
    """

    def __init__(
        self,
        autoencoder: Autoencoder | TheirVAE,
        *,
        dtype: torch.dtype | None = None,
        memory: int | str | None = None,
        tile: int | None = None,
        compile: When = "auto",
        graphs: bool = False,
        offload: bool = False,
    ) -> None:
        """autoencoder: ours, or a diffusers AutoencoderKL, whose weights are shared.

        memory: bytes, or "4GiB", that one call may take beside weights, inputs and results; None: most of the free
        memory at the call.
        tile: rows of a strip, instead of the planner's choice; nothing runs whole then. compile: as in
        runtime/compile.py; "auto" compiles only on GPUs. graphs: replay CUDA graphs of repeated sizes, instead of
        compiling.
        offload: keep maps in the host's memory where a GPU computes in strips; the GPU then holds only a few strips.
        Errors: ConfigError for a budget that is no size, a tile below 1, another `compile`, or a VAE that cannot be
        converted.
        """
        if tile is not None and (not isinstance(tile, int) or tile < 1):
            raise ConfigError(f"tile (={tile}) must be a whole number of rows, at least 1")
        if graphs and compile is True:
            raise ConfigError("graphs and compile are two ways of one thing; choose one of them")
        if not isinstance(autoencoder, Autoencoder):
            from ..formats.shared_weights import from_diffusers, in_memory

            autoencoder = in_memory(autoencoder) or from_diffusers(autoencoder)
        self.memory = None if memory is None else parse_size(memory)
        self.tile = tile
        self.original = autoencoder
        self.autoencoder = autoencoder if dtype in (None, autoencoder.dtype) else copy.deepcopy(autoencoder).to(dtype)
        self._kernels = {"decoding": Kernels(keep=True), "encoding": Kernels(keep=True)}
        self._compile, self._offload = compile, offload
        whole = {"decode": self._decode_whole, "encode": self._encode_whole}
        self._whole = {
            name: Graphs(run, self.autoencoder) if graphs else compiled(run, compile) for name, run in whole.items()
        }
        self._plans: dict[tuple[str, Shape, int | None], StripPlan] = {}
        self._blank: Autoencoder | None = None

    def __repr__(self) -> str:
        """One line: the model, and how it is run."""
        vae = self.autoencoder
        memory = "most of the free memory" if self.memory is None else as_gib(self.memory)
        rows = "" if self.tile is None else f", strips of {self.tile} rows"
        dtype = str(vae.dtype).removeprefix("torch.")
        return f"Codec({vae.config.name} autoencoder, {dtype} on {vae.device}, within {memory}{rows})"

    def decode(self, latents: Tensor, *, gradient: bool = False) -> Tensor:
        """Decode unnormalized latents n c h w to images n 3 f*h f*w, about in [-1,1], in the codec's dtype.

        gradient: make the result differentiable by latents and parameters (runtime/gradients), in strips of `tile`
        rows, by default 32. The budget does not count there, and a copy in another dtype has no gradients.
        Errors: ConfigError for latents of other channels, and for a budget below the least that works; NotFiniteError
        for infinities or NaN in the latents, or in images without gradients.
        """
        vae = self.autoencoder
        check_latents(latents, vae.latent_channels)
        if not latents.numel():
            raise ConfigError(f"latents of shape {tuple(latents.shape)} hold nothing; every side must be at least 1")
        self._check_reflection(latents.shape[-2], latents.shape[-1])
        latents = check_finite(latents.to(vae.device, vae.dtype), "latents")
        if gradient:
            return decode_with_gradient(self._trainable(), latents, self.tile or GRADIENT_ROWS)
        return check_finite(self._decode(latents), "decoded images")

    @torch.no_grad()  # not inference mode, whose tensors cannot be trained on
    def _decode(self, latents: Tensor) -> Tensor:
        vae = self.autoencoder
        with torch.autocast(vae.device.type, enabled=False):
            return self._decoded(latents)

    def _decoded(self, latents: Tensor) -> Tensor:
        vae = self.autoencoder
        if not isinstance(vae.decoder, Decoder):
            return vae.decode(latents)
        if (parts := self._parts("decoding", latents)) is not None:
            return torch.cat([self._decoded(part) for part in parts])
        latents = latents.contiguous(memory_format=torch.channels_last)
        plan = self.plan_decode(*latents.shape)
        if plan.whole:
            return self._whole["decode"](latents)
        with self._within_budget():
            return _decoded(vae, latents, self._strips(plan, "decoding"))

    def encode(self, images: Tensor, *, pad: bool = False, gradient: bool = False) -> Posterior:
        """The posterior of images n 3 h w in [-1,1]; arguments and errors are `Autoencoder.encode`'s and `decode`'s."""
        vae = self.autoencoder
        check_images(images, vae.config.in_channels)
        warn_of_range(images)
        if not images.numel():
            raise ConfigError(f"images of shape {tuple(images.shape)} hold nothing; every side must be at least 1")
        images = pad_to_multiple(images, vae.downsample_factor) if pad else images
        check_divisible(images.shape[-2], images.shape[-1], vae.downsample_factor)
        self._check_reflection(images.shape[-2] // vae.downsample_factor, images.shape[-1] // vae.downsample_factor)
        images = check_finite(images.to(vae.device, vae.dtype), "images")
        if gradient and isinstance(vae.encoder, Encoder):
            return vae.posterior(encode_with_gradient(self._trainable(), images, self.tile or GRADIENT_ROWS))
        return vae.encode(images) if gradient else self._encode(images)

    @torch.no_grad()
    def _encode(self, images: Tensor) -> Posterior:
        vae = self.autoencoder
        with torch.autocast(vae.device.type, enabled=False):
            if isinstance(vae.encoder, Encoder):
                return vae.posterior(check_finite(self._moments(images), "encoded latents"))
            posterior = vae.encode(images)
            check_finite(posterior.mean, "encoded latents")
            return posterior

    def _moments(self, images: Tensor) -> Tensor:
        if (parts := self._parts("encoding", images)) is not None:
            return torch.cat([self._moments(part) for part in parts])
        images = images.contiguous(memory_format=torch.channels_last)
        plan = self.plan_encode(*images.shape)
        if plan.whole:
            return self._whole["encode"](images)
        with self._within_budget():
            return _encoded(self.autoencoder, images, self._strips(plan, "encoding"))

    def _within_budget(self) -> AbstractContextManager[None]:
        """With a budget, freed memory returns to the system at once."""
        return nullcontext() if self.memory is None else freed_at_once()

    def _parts(self, what: str, batch: Tensor) -> Sequence[Tensor] | None:
        """The images of a batch one by one, where the whole batch does not fit, or only with recomputed maps; else
        None."""
        if len(batch) == 1:
            return None
        plan = self.plan_decode if what == "decoding" else self.plan_encode
        try:
            return batch.split(1) if plan(*batch.shape).recomputed else None
        except ConfigError:
            return batch.split(1)

    def _check_reflection(self, height: int, width: int) -> None:
        config = self.autoencoder.config
        if isinstance(config, AutoencoderConfig) and config.padding_mode == "reflect" and min(height, width) < 2:
            raise ConfigError(
                f"padding_mode 'reflect' needs latents of at least 2 x 2, not {height} x {width}; take a larger picture"
            )

    def _trainable(self) -> Autoencoder:
        if self.autoencoder is not self.original:
            raise ConfigError(
                f"gradient: this codec computes with a copy in {str(self.autoencoder.dtype).removeprefix('torch.')}, "
                "whose gradients do not reach the model; convert the model itself, and make a Codec without dtype"
            )
        return self.autoencoder

    def reconstruct(self, images: Tensor) -> Tensor:
        """As `Autoencoder.reconstruct`."""
        check_images(images, self.autoencoder.config.in_channels)
        warn_of_range(images)
        height, width = images.shape[-2:]
        return clamped(self.decode(self.encode(images, pad=True).mode())[..., :height, :width])

    def verify(self, latents: Tensor | None = None) -> Certificate:
        """Compare decoding in strips as short as for a large picture with decoding whole in float32, on a part of these
        latents or on noise.

        latents: n c h w; at most PROBE x PROBE of the first image are used.
        """
        vae = self.autoencoder
        if latents is None:
            latents = torch.randn(1, vae.latent_channels, PROBE, PROBE, generator=torch.Generator().manual_seed(0))
            latents = vae.denormalize(latents) if vae.config.latents_patch == 1 else latents
        probe = latents[:1, :, :PROBE, :PROBE].to(vae.device)
        plan = self.plan_decode(1, *latents.shape[1:]) if isinstance(vae.decoder, Decoder) else None
        rows = None if plan is None or plan.whole else self.tile or plan.rows
        found = (self if rows is None else Codec(vae, memory=self.memory, tile=rows)).decode(probe).float()
        whole = copy.deepcopy(self.original).float().eval()
        with torch.inference_mode():
            expected = whole.decode(probe.float())
        error = (found - expected).abs() * (2 / (expected.max() - expected.min()).clamp_min(2.0))
        height, width = found.shape[-2:]
        return Certificate(
            height, width, rows, str(vae.dtype).removeprefix("torch."), error.max().item(), error.mean().item()
        )

    def plan_decode(self, n: int, c: int, h: int, w: int) -> StripPlan:
        """The plan for decoding latents of this shape.

        Errors: ConfigError for a budget below the least that works.
        """
        config = self.autoencoder.kl_config
        widest = max(width * config.downsample_factor // 2**i for i, width in enumerate(config.decoder_widths))
        return self._plan((n, c, h, w), n * w * 2 * widest, _decoded, "decoding")

    def plan_encode(self, n: int, c: int, h: int, w: int) -> StripPlan:
        """The plan for encoding images of this shape; as `plan_decode`."""
        config = self.autoencoder.kl_config
        widest = max(width // 2**i for i, width in enumerate(config.widths))
        return self._plan((n, c, h, w), n * w * widest, _encoded, "encoding")

    def _plan(self, shape: Shape, row: int, run: Run, what: str) -> StripPlan:
        vae = self.autoencoder
        budget = SHARE * free_memory(vae.device) if self.memory is None else self.memory
        kept = self._plans.get((what, shape, self.tile))
        if kept is None or kept.peak > budget or (kept.recomputed and budget > 1.5 * kept.budget):
            if self._blank is None:
                self._blank = without_values(self.autoencoder)
            arguments = (self._blank, run, shape, row, self.autoencoder.kl_config.norm_groups, budget)
            kept = planned(*arguments, what, self.tile, self._offload)
            if self.tile is None and not self._strips_are_faster(kept, what):
                kept = whole_plan(*arguments, shape[2] * (vae.downsample_factor if what == "decoding" else 1)) or kept
            self._plans[what, shape, self.tile] = kept
        return kept

    def _strips_are_faster(self, plan: StripPlan, what: str) -> bool:
        """Strips are faster on CPUs, by filtering, and by doubling and convolving as one (docs/log.md); but they cannot
        be compiled."""
        vae = self.autoencoder
        gains = vae.dtype in FILTERED or what == "decoding"
        return self._offload or (vae.device.type == "cpu" and self._compile is not True and plan.wide >= 0.5 and gains)

    def _decode_whole(self, latents: Tensor) -> Tensor:
        return self.autoencoder.decoder(self.autoencoder.post_quant_conv(latents))

    def _encode_whole(self, images: Tensor) -> Tensor:
        return self.autoencoder.quant_conv(self.autoencoder.encoder(images))

    def _strips(self, plan: StripPlan, what: str) -> Striped:
        other = self._kernels["encoding" if what == "decoding" else "decoding"]
        if not plan.keep:
            self._kernels[what].clear()  # the memory is for maps
        if plan.peak + other.bytes > plan.budget:
            other.clear()
        return plan.strips(self.autoencoder.kl_config.norm_groups, self._kernels[what], self._offload)


def _decoded(vae: Autoencoder, latents: Tensor, strips: Striped) -> Tensor:
    assert isinstance(vae.decoder, Decoder)
    return strips.decode(vae.decoder, vae.post_quant_conv(latents))


def _encoded(vae: Autoencoder, images: Tensor, strips: Striped) -> Tensor:
    assert isinstance(vae.encoder, Encoder)
    return vae.quant_conv(strips.encode(vae.encoder, images))
