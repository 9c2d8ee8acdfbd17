"""Feature maps computed a strip of rows at a time, and stored or recomputed.

A `Map` returns any of its rows on request. `Stored` has them in memory; the others compute theirs from another map's.
`sweep` goes over a map from top to bottom, measures the statistics that the next group normalization needs, and
optionally stores the rows. The result is the whole picture's to rounding, however small strips are: statistics cover
the whole map, and a convolution reads the rows around its strip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn import GroupNorm, SpatialAttention
from ..nn.moments import channel_moments, merged, parts
from .conv_kernels import Kernels
from .kernels import doubled, group_moments, normalized_silu

Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Statistics:
    """Statistics of every group of channels over a whole map: n g each, float64."""

    mean: Tensor
    var: Tensor
    """biased"""


EVERYTHING = 2**62
"""Beyond the last row of any map."""


class Map:
    """A feature map n c h w that returns rows on request."""

    shape: Shape
    itemsize: int
    """bytes per number"""

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows start..stop, within 0..h: n c (stop - start) w."""
        raise NotImplementedError

    def release(self, before: int) -> None:
        """Promise not to request rows above `before` again."""
        raise NotImplementedError


class Stored(Map):
    """A map in memory, as blocks of rows that are appended and freed one by one."""

    def __init__(self, shape: Shape, hold: Callable[[int], None] = lambda nbytes: None, offload: bool = False):
        """hold: called with the bytes that are taken, negative when freed. offload: store in the host's memory instead
        of the GPU's."""
        self.shape, self.hold, self.offload = shape, hold, offload
        self.blocks: list[Tensor | None] = []
        self.ends: list[int] = []

    def append(self, block: Tensor) -> None:
        """Append the next rows."""
        self.itemsize, self.device = block.element_size(), block.device
        self.blocks.append(block.cpu() if self.offload and not block.is_meta else block)
        self.ends.append((self.ends[-1] if self.ends else 0) + block.shape[2])
        self.hold(block.numel() * self.itemsize)

    def rows(self, start: int, stop: int) -> Tensor:
        parts, top = [], 0
        for block, end in zip(self.blocks, self.ends, strict=True):
            if top < stop and end > start:
                assert block is not None, "released rows are asked for"
                parts.append(block[:, :, max(start - top, 0) : stop - top].to(self.device))
            top = end
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

    def release(self, before: int) -> None:
        for i, end in enumerate(self.ends):
            if end <= before and (block := self.blocks[i]) is not None:
                self.hold(-block.numel() * self.itemsize)
                self.blocks[i] = None


class Convolved(Map):
    """A 3x3 convolution of another map that keeps height and width; padding as `padding_mode` says."""

    def __init__(self, source: Map, conv: nn.Conv2d, kernels: Kernels | None = None):
        n, _, h, w = source.shape
        self.source, self.conv, self.shape = source, conv, (n, conv.out_channels, h, w)
        self.itemsize = source.itemsize
        self.prepared = (kernels or Kernels()).same(conv) if conv.padding_mode == "zeros" else None

    def rows(self, start: int, stop: int) -> Tensor:
        height = self.shape[2]
        x = self.source.rows(max(start - 1, 0), min(stop + 1, height))
        if self.prepared is not None:
            return self.prepared.rows(x, int(start > 0), int(stop < height))
        above = [self._beyond(-1)] if start == 0 else []
        below = [self._beyond(height)] if stop == height else []
        x = torch.cat([*above, x, *below], dim=2)
        return F.conv2d(F.pad(x, (1, 1, 0, 0), mode=self.conv.padding_mode), self.conv.weight, self.conv.bias)

    def _beyond(self, row: int) -> Tensor:
        """The padding row above the first or below the last one."""
        height = self.shape[2]
        inside = {
            "reflect": abs(row) if row < 0 else height - 2,
            "replicate": min(max(row, 0), height - 1),
            "circular": row % height,
        }
        place = inside[self.conv.padding_mode]
        return self.source.rows(place, place + 1)

    def release(self, before: int) -> None:
        if self.conv.padding_mode != "circular" or before >= EVERYTHING:
            self.source.release(before - 1)


class Doubled(Map):
    """Nearest-neighbour doubling of another map."""

    def __init__(self, source: Map):
        n, c, h, w = source.shape
        self.source, self.shape, self.itemsize = source, (n, c, 2 * h, 2 * w), source.itemsize

    def rows(self, start: int, stop: int) -> Tensor:
        top = start // 2
        x = doubled(self.source.rows(top, (stop + 1) // 2))
        return x[:, :, start - 2 * top : stop - 2 * top]

    def release(self, before: int) -> None:
        self.source.release(before // 2)


class Enlarged(Map):
    """Nearest-neighbour doubling and a zero-padded 3x3 convolution, as one."""

    def __init__(self, source: Map, conv: nn.Conv2d, kernels: Kernels | None = None):
        n, _, h, w = source.shape
        self.source, self.shape, self.itemsize = source, (n, conv.out_channels, 2 * h, 2 * w), source.itemsize
        self.prepared = (kernels or Kernels()).doubled(conv)

    def rows(self, start: int, stop: int) -> Tensor:
        height = self.source.shape[2]
        top, bottom = start // 2, (stop + 1) // 2
        x = self.source.rows(max(top - 1, 0), min(bottom + 1, height))
        y = self.prepared.rows(x, int(top > 0), int(bottom < height))
        return y[:, :, start - 2 * top : stop - 2 * top]

    def release(self, before: int) -> None:
        self.source.release(before // 2 - 1)


class Halved(Map):
    """A 3x3 convolution of another map with stride 2; zeros pad a row at the bottom and a column at the right."""

    def __init__(self, source: Map, conv: nn.Conv2d):
        n, _, h, w = source.shape
        self.source, self.conv, self.shape = source, conv, (n, conv.out_channels, h // 2, w // 2)
        self.itemsize = source.itemsize

    def rows(self, start: int, stop: int) -> Tensor:
        height = self.source.shape[2]
        x = self.source.rows(2 * start, min(2 * stop + 1, height))
        return F.conv2d(F.pad(x, (0, 1, 0, int(2 * stop + 1 > height))), self.conv.weight, self.conv.bias, stride=2)

    def release(self, before: int) -> None:
        self.source.release(2 * before)


class Normalized(Map):
    """Group normalization of another map by given statistics, then SiLU by default."""

    def __init__(self, source: Map, norm: GroupNorm, statistics: Statistics, silu: bool = True):
        self.source, self.shape, self.itemsize, self.silu = source, source.shape, source.itemsize, silu
        self.norm, self.statistics = norm, statistics
        if not norm.weight.is_meta:
            self.scale, self.shift = (x[:, :, None, None] for x in affine(norm, statistics))

    def rows(self, start: int, stop: int) -> Tensor:
        x = self.source.rows(start, stop)
        if x.is_meta:  # a plan needs only shapes
            return x
        if self.silu and x.device.type != "cpu":
            return normalized_silu(x, self.norm, self.statistics.mean.float(), self.statistics.var.float())
        wide = torch.promote_types(x.dtype, torch.float32)
        y = torch.addcmul(self.shift.to(x.device, wide), x.to(wide), self.scale.to(x.device, wide))
        return (F.silu(y, inplace=True) if self.silu else y).to(x.dtype)

    def release(self, before: int) -> None:
        self.source.release(before)


class Sum(Map):
    """The result of a residual block: another map, or its 1x1 convolution, plus a branch that is computed from it."""

    def __init__(self, source: Map, shortcut: nn.Module, branch: Map):
        self.source, self.shortcut, self.branch = source, shortcut, branch
        self.wraps = isinstance(branch, Convolved) and branch.conv.padding_mode == "circular"
        self.shape, self.itemsize = branch.shape, branch.itemsize

    def rows(self, start: int, stop: int) -> Tensor:
        return self.branch.rows(start, stop).add_(self.shortcut(self.source.rows(start, stop)))

    def release(self, before: int) -> None:
        self.branch.release(before)
        if (
            self.wraps and before < EVERYTHING
        ):  # the first row's branch is computed from the last rows, and the other way round
            return
        self.source.release(before - 2)  # the branch may read it through two convolutions


class Attended(Map):
    """Another map plus its self-attention: its positions query keys and values of the whole map."""

    def __init__(self, tokens: Normalized, attention: SpatialAttention, keys: Tensor, values: Tensor):
        self.tokens, self.attention, self.keys, self.values = tokens, attention, keys, values
        self.shape, self.itemsize = tokens.shape, tokens.itemsize

    def rows(self, start: int, stop: int) -> Tensor:
        found = self.attention.attend(self.tokens.rows(start, stop), self.keys, self.values)
        return found.add_(self.tokens.source.rows(start, stop))

    def release(self, before: int) -> None:
        self.tokens.release(before)


def affine(norm: GroupNorm, statistics: Statistics) -> tuple[Tensor, Tensor]:
    """Group normalization of each channel as scale and shift: n c each, float64."""
    width = norm.num_channels // norm.num_groups
    rstd = (statistics.var + norm.eps).rsqrt().repeat_interleave(width, 1)
    scale = rstd * norm.weight.double()
    return scale, norm.bias.double() - statistics.mean.repeat_interleave(width, 1) * scale


def strips(height: int, rows: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows from top to bottom, of about equal length and at most `rows`; multiples of 4 if `rows` is one, as
    filtering needs."""
    step = math.ceil(height / math.ceil(height / rows))
    step = math.ceil(step / 4) * 4 if rows >= 4 else step
    step = min(step, rows // 4 * 4 or rows)
    for start in range(0, height, step):
        yield start, min(start + step, height)


def sweep(
    map_: Map, rows: int, groups: int | None, into: Stored | None = None, release: bool = False
) -> Statistics | None:
    """Compute a map from top to bottom, and return the statistics of its groups of channels.

    rows: most rows of a strip. groups: None if no group normalization follows. into: stores the rows. release: free the
    maps that this one is computed from, strip by strip.
    """
    total = _Parts()
    height = map_.shape[2]
    for start, stop in strips(height, rows):
        block = map_.rows(start, stop)
        if groups is not None and not block.is_meta:
            total.add(block)
        if into is not None:
            into.append(block)
        if release:
            map_.release(stop if stop < height else EVERYTHING)
    if groups is None:
        return None
    if not total.counts:  # a plan
        nothing = torch.zeros(map_.shape[0], groups, dtype=torch.float64)
        return Statistics(nothing, nothing)
    return total.statistics(groups)


class _Parts:
    """Mean and variance of a map, merged from parts of it."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.moments: list[Tensor] = []
        """2 n c each, float64: means, biased variances"""

    def add(self, block: Tensor) -> None:
        for part in parts(block):
            self.counts.append(part.shape[2] * part.shape[3])
            self.moments.append(_moments(part))

    def statistics(self, groups: int) -> Statistics:
        return Statistics(*merged(self.moments, self.counts, groups))


def _moments(part: Tensor) -> Tensor:
    """Mean and biased variance of every channel of a part: 2 n c, float64."""
    if part.device.type != "cpu":
        return torch.stack(group_moments(part, part.shape[1])).double()
    return channel_moments(part)
