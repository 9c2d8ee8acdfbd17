"""Plans for large pictures: rows per strip and stored maps, within a memory budget.

Each schedule runs on tensors without values, which shows what it would store and compute. The one with the least work
within the budget is taken.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..models import Autoencoder
from ..nn.winograd import WORKSPACE
from .conv_kernels import Kernels, Prepared, prepared_bytes
from .lazy_maps import Shape
from .memory import as_gib
from .strips import Ledger, Striped

ROWS = 64, 32, 16, 8
"""Rows per strip to try, longest first. Shorter strips take less memory and compute more rows twice."""

TEMPORARIES = 5
"""Strips of the widest map that live at the same time: input, normalized, padded, output and sum, in float32 (an
estimate; benchmarks/decode_memory.py measures the true peak)."""

BUFFERS = 4
"""Buffers of minimal filtering: windows, tiles, products, and intermediate results."""

RESERVE = 2**25
"""Bytes for libraries' own memory, and for what the allocator keeps."""

WIDE = 64
"""Least channels of a convolution that runs faster in strips on a CPU. Narrower ones consist of too many small
operations (docs/log.md)."""

Run = Callable[[Autoencoder, Tensor, Striped], Tensor]
"""Runs a network without values in strips."""


@dataclass(frozen=True)
class StripPlan:
    """How a picture will be computed."""

    rows: int
    """most rows of a strip"""
    keep: bool
    """whether prepared weights of convolutions are kept for the next picture"""
    peak: int
    """about how many bytes maps, temporaries and prepared weights take, without weights and libraries"""
    recomputed: tuple[str, ...]
    """maps that are recomputed at each use, for lack of memory"""
    maps: int
    """bytes that maps may take"""
    budget: float
    """the memory budget of the plan, in bytes"""
    work: int
    """multiplications of the 3x3 convolutions in their plain form"""
    wide: float
    """share of the multiplications in convolutions wide enough for strips to be faster"""
    whole: bool = False
    """whether the picture is computed whole, without strips"""

    @property
    def sentence(self) -> str:
        """The plan in a sentence."""
        if self.whole:
            return f"whole, about {as_gib(self.peak)} at most"
        again = f", computing {len(self.recomputed)} maps more than once" if self.recomputed else ""
        return f"in strips of {self.rows} rows, about {as_gib(self.peak)} at most{again}"

    def strips(self, groups: int, kernels: Kernels, offload: bool = False) -> Striped:
        """The plan's runner. kernels: the prepared convolutions to keep. offload: as planned."""
        return Striped(groups, self.rows, Ledger(self.maps), kernels if self.keep else Kernels(), offload)


class Counting(Kernels):
    """Convolutions that compute nothing and count their work."""

    def __init__(self) -> None:
        super().__init__()
        self.work = self.wide = 0
        self.kept_bytes: dict[tuple[nn.Conv2d, bool], int] = {}

    def _of(self, conv: nn.Conv2d, doubled: bool) -> Prepared:
        self.kept_bytes[conv, doubled] = prepared_bytes(conv, doubled)
        return _Counted(self, conv, 2 if doubled else 1)


class _Counted(Prepared):
    def __init__(self, counting: Counting, conv: nn.Conv2d, gain: int):
        self.counting, self.conv, self.gain = counting, conv, gain

    def rows(self, x: Tensor, above: int, below: int) -> Tensor:
        n, _, h, w = x.shape
        shape = (n, self.conv.out_channels, self.gain * (h - above - below), self.gain * w)
        work = math.prod(shape) * 9 * self.conv.in_channels
        self.counting.work += work
        self.counting.wide += work if min(self.conv.in_channels, self.conv.out_channels) >= WIDE else 0
        return x.new_empty(shape)


def without_values(network: Autoencoder) -> Autoencoder:
    """A copy of the network on the device "meta"; no weight is copied."""
    parameters = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False) for p in network.parameters()
    }
    return copy.deepcopy(
        network, {**parameters, **{id(b): torch.empty_like(b, device="meta") for b in network.buffers()}}
    )


def planned(
    network: Autoencoder,
    run: Run,
    shape: Shape,
    row: int,
    groups: int,
    budget: float,
    what: str,
    tile: int | None = None,
    offload: bool = False,
) -> StripPlan:
    """The schedule with the least work whose memory is within the budget, in bytes.

    network: without values (on the device "meta"). run: runs it on a tensor of this shape. row: numbers in a row of the
    widest map. groups: of group normalizations. what: "encoding" or "decoding", for the error. tile: fixed rows of a
    strip. offload: whether maps are in the host's memory.
    Errors: ConfigError for a budget below the least that works.
    """
    found: list[StripPlan] = []
    least = math.inf
    for plan in _plans(network, run, shape, row, groups, budget, (tile,) if tile else ROWS, offload):
        least = min(least, plan.peak)
        if plan.peak <= budget:
            found.append(plan)
            if not plan.recomputed:  # shorter strips are only slower
                break
    if not found:
        raise ConfigError(
            f"{what} {shape[0]} x {shape[2]}x{shape[3]} takes at least {as_gib(least)} beside the weights, more than "
            f"memory (={as_gib(budget)}); give more, or take half precision, a smaller batch or a smaller picture"
        )
    return min(found, key=lambda plan: plan.work)


def whole_plan(
    network: Autoencoder, run: Run, shape: Shape, row: int, groups: int, budget: float, height: int
) -> StripPlan | None:
    """The plan to run the network on the whole picture at once, if that fits into the budget; None if not. Arguments as
    in `planned`.

    The estimate counts one strip of the picture's height.
    """
    (plan,) = _plans(network, run, shape, row, groups, math.inf, (height,))
    return replace(plan, whole=True) if plan.peak <= budget else None


def _plans(
    network: Autoencoder,
    run: Run,
    shape: Shape,
    row: int,
    groups: int,
    budget: float,
    choices: tuple[int, ...],
    offload: bool = False,
) -> Iterator[StripPlan]:
    dtype = next(network.parameters()).dtype
    size = torch.promote_types(dtype, torch.float32).itemsize
    for rows in choices:
        passing = _passing(network)
        tiles = 9 * row  # numbers in a row of tiles
        buffer = min(max(WORKSPACE, tiles), tiles * math.ceil(rows / 4)) if passing else 0
        spare = TEMPORARIES * size * row * rows + BUFFERS * dtype.itemsize * buffer + RESERVE
        for keep in (True, False):
            counting = Counting()
            kernels = 0 if keep else passing
            ledger = Ledger(budget - spare - kernels)
            with torch.no_grad():
                run(
                    network,
                    torch.empty(shape, device="meta", dtype=dtype),
                    Striped(groups, rows, ledger, counting, offload),
                )
            held = sum(counting.kept_bytes.values()) if keep else kernels
            peak = ledger.peak + spare + held
            if keep and (ledger.recomputed or peak > budget):  # the memory is better spent on maps
                continue
            maps, wide = int(min(budget - spare - held, 2**62)), counting.wide / max(1, counting.work)
            yield StripPlan(rows, keep, peak, tuple(ledger.recomputed), maps, budget, counting.work, wide)
            break


def _passing(network: Autoencoder) -> int:
    """Bytes of prepared weights that are used and freed: three convolutions at a time, where maps are computed from one
    another, and a copy."""
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    return 4 * max((prepared_bytes(conv, doubled=False) for conv in convs), default=0)
