"""Encode and decode within a memory budget, with the whole picture's result."""

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ConfigError
from ..images import check_divisible, pad_to_multiple
from ..models import Autoencoder, Decoder, Encoder, Posterior
from .maps import Shape
from .striped import Ledger, Striped

ROWS = 32, 16, 8
"""Rows of a strip that are tried, longest first: shorter ones take less memory and compute more rows twice."""

TEMPORARIES = 6
"""Strips of the widest map that live at the same time while one is computed, in float32: input, normalized, frame, output, and the
convolution's own (an estimate; benchmarks/decode_memory.py measures what is really taken)."""

SHARE = 0.7
"""Of the memory that is free, what is used where no budget is given."""

UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@dataclass(frozen=True)
class Plan:
    """How a picture will be computed."""

    rows: int
    """of a strip, at most"""
    peak: int
    """bytes of maps and temporaries that it will take, about; weights and libraries are not counted"""
    recomputed: tuple[str, ...]
    """maps that are computed again each time they are needed, for want of room"""
    maps: int
    """bytes that maps may take"""

    @property
    def sentence(self) -> str:
        """The plan in plain words."""
        again = f", computing {len(self.recomputed)} maps more than once" if self.recomputed else ""
        return f"in strips of {self.rows} rows, about {self.peak / 2**30:.2f} GiB at most{again}"


class Codec:
    """An autoencoder that is run in strips of rows: results are the whole picture's to rounding, and memory stays within a budget.

    The model is not changed; a copy in `dtype` is made where it has another. A TAESD runs whole.
    """

    def __init__(
        self, autoencoder: Autoencoder, *, dtype: torch.dtype | None = None, memory: int | str | None = None, tile: int | None = None,
    ) -> None:  # fmt: skip
        """memory: bytes, or "4GiB", that one call may take beside weights, inputs and results; None: most of what is free then.

        tile: rows of a strip, instead of the planner's choice.
        Errors: ConfigError for a budget that is no size, and for a tile below 1.
        """
        if tile is not None and tile < 1:
            raise ConfigError(f"tile (={tile}) must be at least 1 row")
        self.budget = None if memory is None else parse_size(memory)
        self.tile = tile
        self.autoencoder = (autoencoder if dtype in (None, autoencoder.dtype) else copy.deepcopy(autoencoder).to(dtype)).eval()
        self._meta: Autoencoder | None = None

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Images n 3 f*h f*w, about in [-1,1], from unnormalized latents n c h w, in the codec's dtype.

        Errors: ConfigError for latents of other channels or that are not finite, and for a budget below the least that works.
        """
        vae = self.autoencoder
        if latents.ndim == 4 and not latents.isfinite().all():
            raise ConfigError(f"latents hold {int((~latents.isfinite()).sum())} values that are no numbers; what made them has overflowed")
        latents = latents.to(vae.device, vae.dtype)
        if not isinstance(vae.decoder, Decoder) or latents.ndim != 4 or latents.shape[1] != vae.latent_channels:
            return vae.decode(latents)  # which tells what is wrong
        latents = latents.contiguous(memory_format=torch.channels_last)
        return _decoded(vae, latents, self._strips(self.plan_decode(*latents.shape)))

    @torch.inference_mode()
    def encode(self, images: Tensor, *, pad: bool = False) -> Posterior:
        """The posterior of images n 3 h w in [-1,1]; arguments and errors are `Autoencoder.encode`'s and `decode`'s."""
        vae = self.autoencoder
        images = images.to(vae.device, vae.dtype)
        if not isinstance(vae.encoder, Encoder) or images.ndim != 4 or images.shape[1] != vae.config.in_channels:
            return vae.encode(images, pad=pad)  # which tells what is wrong
        images = pad_to_multiple(images, vae.downsample_factor) if pad else images
        check_divisible(images.shape[-2], images.shape[-1], vae.downsample_factor)
        images = images.contiguous(memory_format=torch.channels_last)
        moments = vae.quant_conv(self._strips(self.plan_encode(*images.shape)).encode(vae.encoder, images))
        return vae.posterior(moments)

    def plan_decode(self, n: int, c: int, h: int, w: int) -> Plan:
        """How latents of this shape would be decoded.

        Errors: ConfigError for a budget below the least that works.
        """
        config = self.autoencoder.kl_config
        widest = max(width * config.downsample_factor // 2**i for i, width in enumerate(config.decoder_widths))
        return self._plan((n, c, h, w), n * w * 2 * widest, _decoded, "decoding")

    def plan_encode(self, n: int, c: int, h: int, w: int) -> Plan:
        """How images of this shape would be encoded; as `plan_decode`."""
        config = self.autoencoder.kl_config
        widest = max(width // 2**i for i, width in enumerate(config.widths))
        return self._plan((n, c, h, w), n * w * widest, _encoded, "encoding")

    def _plan(self, shape: Shape, row: int, run: Callable[[Autoencoder, Tensor, Striped], Tensor], what: str) -> Plan:
        """The first of few schedules that fits: it is run on tensors without values, which shows what it would hold.

        row: numbers in a row of the widest map.
        """
        if self._meta is None:
            self._meta = copy.deepcopy(self.autoencoder).to("meta")
        budget = SHARE * free_memory(self.autoencoder.device) if self.budget is None else self.budget
        least = math.inf
        for rows in (self.tile,) if self.tile else ROWS:
            spare = TEMPORARIES * 4 * row * rows
            ledger = Ledger(budget - spare)
            strips = Striped(self.autoencoder.kl_config.norm_groups, rows, ledger)
            run(self._meta, torch.empty(shape, device="meta", dtype=self.autoencoder.dtype), strips)
            plan = Plan(rows, ledger.peak + spare, tuple(ledger.recomputed), int(budget - spare))
            if plan.peak <= budget:
                return plan
            least = min(least, plan.peak)
        raise ConfigError(
            f"{what} {shape[0]} x {shape[2]}x{shape[3]} takes at least {least / 2**30:.2f} GiB beside the weights, more than memory "
            f"(={budget / 2**30:.2f} GiB); give more, or take half precision, a smaller batch or a smaller picture"
        )

    def _strips(self, plan: Plan) -> Striped:
        return Striped(self.autoencoder.kl_config.norm_groups, plan.rows, Ledger(plan.maps))


def _decoded(vae: Autoencoder, latents: Tensor, strips: Striped) -> Tensor:
    assert isinstance(vae.decoder, Decoder)
    return strips.decode(vae.decoder, vae.post_quant_conv(latents))


def _encoded(vae: Autoencoder, images: Tensor, strips: Striped) -> Tensor:
    assert isinstance(vae.encoder, Encoder)
    return strips.encode(vae.encoder, images)


def free_memory(device: torch.device) -> int:
    """Bytes that a device has free: on Linux's CPUs what the system says is available, elsewhere half of what there is."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if hasattr(os, "sysconf") else 2**32


def parse_size(size: int | str) -> int:
    """Bytes, or "4GiB", "800M", "2.5 GB" (all powers of 1024), as bytes.

    Errors: ConfigError for what is no size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", str(size).lower())
    if not found or float(found[1]) <= 0:
        raise ConfigError(f"memory (={size!r}) must be a size, such as 4GiB or 800MiB")
    return int(float(found[1]) * UNITS[found[2]])
