"""Encoder and decoder in strips of rows: the whole picture's result within a memory budget.

Group normalization uses the statistics of the whole map, and attention the whole map's keys and values. Tiled decoding
without these changes the picture (doctor/panels/tiling.py measures by how much).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor, nn

from ..models import Decoder, Encoder
from ..models.decoder import DecoderLevel
from ..models.encoder import EncoderLevel
from ..models.middle import Middle
from ..nn import Downsample, ResBlock, SpatialAttention, Upsample
from .conv_kernels import Kernels
from .lazy_maps import (
    Attended,
    Convolved,
    Doubled,
    Enlarged,
    Halved,
    Map,
    Normalized,
    Shape,
    Statistics,
    Stored,
    Sum,
    strips,
    sweep,
)

LAG = 4
"""Strips by which freeing lags behind: a convolution's neighbours, and strips that end between others."""

Measured = tuple[Map, Statistics]
"""A map with the statistics of its groups of channels."""


@dataclass
class Ledger:
    """Bytes that maps take, and may take."""

    budget: float = math.inf
    used: int = 0
    peak: int = 0
    recomputed: list[str] = field(default_factory=list)
    """names of the maps that did not fit, in order"""

    def fits(self, nbytes: int) -> bool:
        """Whether a map of this size fits."""
        return self.used + nbytes <= self.budget

    def hold(self, nbytes: int) -> None:
        """Count bytes that are taken, or, if negative, freed."""
        self.used += nbytes
        self.peak = max(self.peak, self.used)


class Striped:
    """One half of a KL autoencoder in strips of at most `rows` rows. Maps are stored as far as the ledger allows, else
    recomputed."""

    def __init__(
        self,
        groups: int,
        rows: int,
        ledger: Ledger | None = None,
        kernels: Kernels | None = None,
        offload: bool = False,
    ) -> None:
        """groups: of every group normalization. kernels: prepared convolutions, if any. offload: store maps in the
        host's memory, where they do not count."""
        self.groups, self.rows, self.ledger, self.kernels = groups, rows, ledger or Ledger(), kernels or Kernels()
        self.offload = offload

    def decode(self, decoder: Decoder, z: Tensor) -> Tensor:
        """Decode latents n c h w, after `post_quant_conv`, to images n 3 f*h f*w."""
        x = self._kept(self._convolved(self._held(z), decoder.conv_in))
        x = self._middle(decoder.middle, x)
        for number, level in enumerate(decoder.levels):
            assert isinstance(level, DecoderLevel)
            x = self._blocks(level, x, f"decoder.levels.{number}")
            if isinstance(level.upsample, Upsample):
                x = self._swept(self._enlarged(x[0], level.upsample.conv), f"decoder.levels.{number}.upsample")
        return self._rows_of(self._convolved(Normalized(x[0], decoder.norm_out, x[1]), decoder.conv_out))

    def encode(self, encoder: Encoder, images: Tensor) -> Tensor:
        """Encode images n 3 h w to moments n 2c h/f w/f, before `quant_conv`."""
        x = self._swept(self._convolved(self._held(images), encoder.conv_in), "encoder.conv_in")
        for number, level in enumerate(encoder.levels):
            assert isinstance(level, EncoderLevel)
            x = self._blocks(level, x, f"encoder.levels.{number}")
            if isinstance(level.downsample, Downsample):
                x = self._kept(Halved(x[0], level.downsample.conv))
        x = self._middle(encoder.middle, x)
        return self._rows_of(self._convolved(Normalized(x[0], encoder.norm_out, x[1]), encoder.conv_out))

    def _middle(self, middle: Middle, x: Measured) -> Measured:
        x = self._block(middle.block1, x, "middle.block1")
        x = self._attended(middle.attention, x)
        return self._block(middle.block2, x, "middle.block2")

    def _blocks(self, level: DecoderLevel | EncoderLevel, x: Measured, name: str) -> Measured:
        for place, (block, attention) in enumerate(zip(level.blocks, level.attentions, strict=True)):
            assert isinstance(block, ResBlock)
            x = self._attended(attention, self._block(block, x, f"{name}.blocks.{place}"))
        return x

    def _block(self, block: ResBlock, x: Measured, name: str) -> Measured:
        """A residual block. The map between its convolutions is stored if it fits; the output grows while the input is
        freed."""
        source, statistics = x
        inner = self._swept(
            self._convolved(Normalized(source, block.norm1, statistics), block.conv1), name, lag=LAG, again=True
        )
        branch = self._convolved(Normalized(inner[0], block.norm2, inner[1]), block.conv2)
        return self._kept(Sum(source, block.conv_shortcut, branch))

    def _attended(self, attention: nn.Module, x: Measured) -> Measured:
        """Self-attention: keys and values of the whole map, and queries strip by strip."""
        if not isinstance(attention, SpatialAttention):
            return x
        tokens = Normalized(x[0], attention.norm, x[1], silu=False)
        pair = 2 * self._bytes(x[0])
        self.ledger.hold(pair)
        keys, values = _keys_values(tokens, attention, self.rows)
        found = self._kept(Attended(tokens, attention, keys, values))
        self.ledger.hold(-pair)
        return found

    def _swept(self, map_: Map, name: str, lag: int = 0, again: bool = False) -> Measured:
        """A map that is stored if it fits, together with `lag` strips of the result that grows while it is freed.

        again: whether the maps that it is computed from are needed again.
        """
        share = 1 + lag * min(self.rows, map_.shape[2]) / map_.shape[2]
        if self.offload or self.ledger.fits(int(share * self._bytes(map_))):
            return self._kept(map_, release=not again)
        self.ledger.recomputed.append(name)
        statistics = sweep(map_, self.rows, self.groups)
        assert statistics is not None
        return map_, statistics

    def _kept(self, map_: Map, release: bool = True) -> Measured:
        stored = self._stored(map_.shape)
        statistics = sweep(map_, self.rows, self.groups, into=stored, release=release)
        assert statistics is not None
        return stored, statistics

    def _held(self, x: Tensor) -> Stored:
        n, c, h, w = x.shape
        stored = self._stored((n, c, h, w))
        stored.append(x)
        return stored

    def _rows_of(self, map_: Map) -> Tensor:
        stored = self._stored(map_.shape)
        sweep(map_, self.rows, None, into=stored, release=True)
        return stored.rows(0, map_.shape[2])

    def _stored(self, shape: Shape) -> Stored:
        return Stored(shape, _uncounted, offload=True) if self.offload else Stored(shape, self.ledger.hold)

    @staticmethod
    def _bytes(map_: Map) -> int:
        return math.prod(map_.shape) * map_.itemsize

    def _convolved(self, map_: Map, conv: nn.Conv2d) -> Map:
        return Convolved(map_, conv, self.kernels)

    def _enlarged(self, map_: Map, conv: nn.Conv2d) -> Map:
        if conv.padding_mode == "zeros":
            return Enlarged(map_, conv, self.kernels)
        return self._convolved(Doubled(map_), conv)


def _uncounted(nbytes: int) -> None:
    pass


def _keys_values(tokens: Normalized, attention: SpatialAttention, rows: int) -> tuple[Tensor, Tensor]:
    n, _, height, width = tokens.shape
    pair: tuple[Tensor, Tensor] | None = None
    for start, stop in strips(height, rows):
        parts = attention.keys_values(tokens.rows(start, stop))
        if pair is None:
            heads, depth = parts[0].shape[1], parts[0].shape[3]
            pair = (
                parts[0].new_empty(n, heads, height * width, depth),
                parts[1].new_empty(n, heads, height * width, depth),
            )
        for whole, part in zip(pair, parts, strict=True):
            whole[:, :, start * width : stop * width] = part
    assert pair is not None
    return pair
